"""Training on a mesh is training on one device; checkpoints move between meshes."""

import pytest
from helpers.devices import run_on_devices

MESHES = ("2x2x2", "8x1x1", "1x4x2")  # one for each step of a run that moves
RUNS = ("sft", "reward", "dpo")
ADAPTED = ("qlora", 0)  # of a base in 4 bits, with dropout: the first mesh does


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What helpers/sharded_run.py found on 8 simulated devices."""
    folder = tmp_path_factory.mktemp("run")
    return run_on_devices(8, "sharded_run.py", folder, *RUNS, "qlora")


@pytest.mark.parametrize("run", [*RUNS, "qlora"])
def test_a_run_that_moves_over_the_meshes_ends_as_on_one_device(found, run):
    """Allclose: parameters, moments and all else of the state, after three steps.

    Each mesh but the first continues from the checkpoint of the one before.
    """
    assert found[run]["difference"] < 1e-4


@pytest.mark.parametrize(
    ("run", "step"), [*((run, i) for run in RUNS for i in range(3)), ADAPTED]
)
def test_every_step_has_the_metrics_of_one_device(found, run, step):
    """Allclose: losses, gradient norms and what else is measured, on each mesh."""
    alone, moved = (rows[step] for rows in found[run]["rows"])
    assert alone["step"] == step + 1 and alone.keys() == moved.keys()
    assert "train/loss" in alone and "train/grad_norm" in alone
    for name, value in alone.items():
        assert moved[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_parameters_and_their_moments_are_split_alike(found):
    assert "'fsdp', 'tensor'" in found["sft"]["parameter"]
    assert found["sft"]["moment"] == found["sft"]["parameter"]
    assert found["sft"]["part"] == 1 / 4


def test_a_base_that_is_quantised_on_a_mesh_lies_as_stated(found):
    assert found["qlora"]["elsewhere"] == []


@pytest.mark.parametrize("mesh", [*MESHES, "None"])
def test_a_checkpoint_is_restored_bit_by_bit_on_another_mesh(found, mesh):
    assert found["sft"]["restored"][mesh]
