"""Stages on several devices, with micro-batches, do what they do on one."""

import pytest
from helpers.devices import run_on_devices

# A minute and more: in `make test-slow`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What helpers/spread_stages.py found on 4 simulated devices."""
    return run_on_devices(4, "spread_stages.py", tmp_path_factory.mktemp("stages"))


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
