"""The settings of PPO: all are read, quirks are off, impossible ones are refused."""

import ast
import dataclasses
from pathlib import Path

import pytest
from helpers import tiny_ppo as tiny

from train import kl as kl_lib
from train import ppo_config
from train.ppo_config import FAITHFUL, PPOConfig, Quirks


def test_quirks_are_off_unless_asked_for():
    """Equality: the default has none, the faithful preset all."""
    assert not any(dataclasses.astuple(Quirks()))
    assert all(dataclasses.astuple(FAITHFUL))


def test_every_setting_is_read():
    """Invariance: each field of the settings is an attribute somewhere in the code."""
    folder = Path(ppo_config.__file__).parent
    read = set()
    for name in ("ppo.py", "ppo_terms.py", "kl.py", "ppo_config.py"):
        for node in ast.walk(ast.parse((folder / name).read_text())):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
    for cls in (PPOConfig, Quirks, kl_lib.KLConfig):
        for field in dataclasses.fields(cls):
            assert field.name in read, f"{cls.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"minibatch": 6}, "minibatch: expected a divisor of the 16 responses"),
        ({"minibatch": 8, "accum": 3}, "multiple of accum 3"),
        ({"estimator": "rloo", "samples": 1, "minibatch": 4}, "samples.*at least 2"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    """Error: names the setting and what was expected."""
    with pytest.raises(ValueError, match=message):
        tiny.config(**fields)
