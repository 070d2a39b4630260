"""A valid config builds the dataclass it spells; any other names its key."""

import dataclasses
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import config_dict

from train.errors import ConfigError
from train.settings import at_least, build, choice, fraction, nearest, positive


@dataclasses.dataclass(frozen=True)
class Optimizer:
    lr: float = positive()
    schedule: Literal["constant", "cosine"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = fraction(0.1)


@dataclasses.dataclass(frozen=True)
class Run:
    steps: int = at_least(0)
    optimizer: Optimizer = None
    data: str | None = None
    sizes: tuple[int, ...] = positive((1, 2))
    flag: bool = False
    limit: int | str = 3
    extra: dict[str, int] = dataclasses.field(default_factory=dict)
    policy: str = choice(["none", "full"], "none")
    anything: Any = None

    def __post_init__(self):
        if self.flag and not self.steps:
            raise ValueError("flag needs steps")


valid_optimizers = st.fixed_dictionaries(
    {"lr": st.floats(1e-9, 1e3) | st.integers(1, 9)},
    optional={
        "schedule": st.sampled_from(["constant", "cosine"]),
        "betas": st.lists(st.floats(0, 1), min_size=2, max_size=2),
        "warmup": st.floats(0, 1),
    },
)
valid_runs = st.fixed_dictionaries(
    {"steps": st.integers(1, 10**9)},
    optional={
        "optimizer": valid_optimizers,
        "data": st.none() | st.text(),
        "sizes": st.lists(st.integers(1, 99)).map(tuple),
        "flag": st.booleans(),
        "limit": st.integers() | st.text(),
        "extra": st.dictionaries(st.sampled_from("abc"), st.integers()),
        "policy": st.sampled_from(["none", "full"]),
        "anything": st.none() | st.integers() | st.text(),
    },
)


@settings(max_examples=100, deadline=None)
@given(valid_runs)
def test_build_is_the_inverse_of_asdict(values):
    run = build(Run, values)
    assert build(Run, config_dict.ConfigDict(values)) == run
    again = dataclasses.asdict(run)
    if run.optimizer is None:
        del again["optimizer"]
    assert build(Run, again) == run
    for key, value in values.items():
        if key not in ("optimizer", "sizes"):
            assert getattr(run, key) == value
    assert isinstance(run.sizes, tuple)
    if run.optimizer:
        assert type(run.optimizer.lr) is float


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x),
    max_leaves=4,
)
keys = st.sampled_from([f.name for f in dataclasses.fields(Run)]) | st.text(max_size=6)


@settings(max_examples=300, deadline=None)
@given(valid_runs, st.dictionaries(keys, junk, min_size=1, max_size=2))
def test_any_config_builds_or_is_an_error_that_starts_with_a_key(values, changes):
    try:
        build(Run, {**values, **changes})
    except ConfigError as e:
        assert str(e).startswith("config")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"step": 1}, "config.step: unknown key; did you mean 'steps'?"),
        ({"qqq": 1}, "config.qqq: unknown key; known: anything, data, "),
        ({"steps": -1}, "config.steps: expected >= 0, got -1 (int)"),
        ({"steps": "3"}, "config.steps: expected an int, got '3' (str)"),
        ({"steps": 3.0}, "config.steps: expected an int, got 3.0 (float)"),
        ({"steps": True}, "config.steps: expected an int, got True (bool)"),
        ({"flag": 1}, "config.flag: expected a bool, got 1 (int)"),
        ({"sizes": (1, 0)}, "config.sizes: expected > 0, got 0 (int)"),
        ({"sizes": (1, "a")}, "config.sizes[1]: expected an int, got 'a' (str)"),
        ({"sizes": 3}, "config.sizes: expected a list of an int, got 3 (int)"),
        ({"data": 3}, "config.data: expected a string, got 3 (int)"),
        ({"limit": 1.5}, "config.limit: expected an int or a string, got 1.5 (float)"),
        ({"extra": {"a": "b"}}, "config.extra.a: expected an int, got 'b' (str)"),
        ({"policy": "ful"}, "config.policy: expected one of 'none', 'full', got 'ful'"),
        ({"flag": True, "steps": 0}, "config: flag needs steps"),
        ({"steps": {"a": 1}}, "config.steps: expected an int, got a group of keys"),
        (
            {"optimizer": 3},
            "config.optimizer: expected the settings of Optimizer",
        ),
        ({"optimizer": {}}, "config.optimizer.lr: missing; expected a number"),
        ({"optimizer": {"lr": float("nan")}}, "config.optimizer.lr: expected a number"),
        ({"optimizer": {"lr": 0}}, "config.optimizer.lr: expected > 0, got 0.0"),
        ({"optimizer": {"lr": 1, "warmup": 1.1}}, "warmup: expected between 0 and 1"),
        ({"optimizer": {"lr": 1, "betas": (1,)}}, "expected (a number, a number)"),
        (
            {"optimizer": {"lr": 1, "schedule": "cosin"}},
            "config.optimizer.schedule: expected one of 'constant', 'cosine', "
            "got 'cosin'"
            "; did you mean 'cosine'?",
        ),
    ],
)
def test_errors_name_the_key_and_what_was_expected(changes, message):
    with pytest.raises(ConfigError) as error:
        build(Run, {"steps": 1, **changes})
    assert message in str(error.value)


def test_missing_and_required_keys_are_named():
    with pytest.raises(ConfigError, match="config.steps: missing; expected an int"):
        build(Run, {})
    config = config_dict.ConfigDict({"steps": config_dict.required_placeholder(int)})
    with pytest.raises(ConfigError, match="config.steps: missing; expected an int"):
        build(Run, config)
    config = config_dict.ConfigDict({"steps": 1, "data": config_dict.placeholder(str)})
    assert build(Run, config) == Run(steps=1)


def test_nearest_prefers_the_same_last_name():
    known = ["lr_decay", "optimizer.lr", "steps"]
    assert nearest("lr", known) == "; did you mean 'optimizer.lr'?"
    assert nearest("stepss", known) == "; did you mean 'steps'?"
