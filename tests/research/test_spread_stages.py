"""Stages on several devices, with micro-batches, do what they do on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What helpers/spread_stages.py found on 4 simulated devices."""
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/helpers/spread_stages.py",
         tmp_path_factory.mktemp("stages")],
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


def test_four_devices_make_the_models_of_one(found):
    """Tolerance: weights of an evaluator and of a policy after DPO, which moved."""
    assert found["devices"] == 4
    assert found["difference"] < 1e-5 < 1e-3 < found["moved"]


def test_four_devices_find_what_one_finds(found):
    """Equality: solutions, pairs and steps; tolerance: metrics."""
    (oprm, dpo), (spread_oprm, spread_dpo) = found["results"]
    assert found["samples"] and dpo == spread_dpo and dpo["pairs"] > 0
    assert oprm.keys() == spread_oprm.keys()
    for name, value in oprm.items():
        assert spread_oprm[name] == pytest.approx(value, abs=1e-4), name
