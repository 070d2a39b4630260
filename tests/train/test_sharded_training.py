"""Training on a mesh is training on one device; checkpoints move between meshes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """What helpers/sharded_run.py found on 8 simulated devices."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/helpers/sharded_run.py",
         tmp_path_factory.mktemp("run")],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


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
