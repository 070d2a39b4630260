"""Training on a mesh is training on one device; checkpoints move between meshes."""

import pytest
from helpers.devices import run_on_devices


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """What helpers/sharded_run.py found on 8 simulated devices."""
    return run_on_devices(8, "sharded_run.py", tmp_path_factory.mktemp("run"))


def test_parameters_and_metrics_equal_those_of_one_device(eight):
    assert eight["difference"] < 2e-4
    alone, spread = eight["losses"]
    assert alone and abs(alone[-1] - spread[-1]) < 1e-5


def test_parameters_and_their_moments_are_split_alike(eight):
    assert "fsdp" in eight["parameter"] and "tensor" in eight["parameter"]
    assert eight["moment"] == eight["parameter"]
    assert eight["part"] == 1 / 4


@pytest.mark.parametrize("mesh", ["same", "other", "one"])
def test_a_checkpoint_is_restored_bit_by_bit_on_another_mesh(eight, mesh):
    assert eight["restored"][mesh]
