"""The loop ends after evaluations without a new best, and can return the best state."""

import dataclasses

import pytest
from helpers.tiny_run import LOOP, exact, params, run, same_bits

from train.errors import ConfigError
from train.loop import Best, LoopConfig

EVERY = dataclasses.replace(
    LOOP, log_every=3, eval_every=2, checkpoint_every=2, keep_last=1
)
SCORES = (5.0, 3.0, 4.0, 3.0, float("nan"), 2.0, 1.0, 0.0)


def scripted(values=SCORES, name="eval/loss"):
    """An evaluate that says these values in turn, whatever the parameters."""
    turn = iter(values)
    return lambda params: {name: next(turn)}


@pytest.fixture(scope="module")
def states():
    """{step: state} of a run of 16 steps that nothing stops."""

    def at(steps):
        # The schedule is of 16 steps; a run to its best evaluation stops early.
        loop = dataclasses.replace(
            EVERY, patience=1, checkpoint_every=None, keep_best=False, use_best=True
        )
        values = [0.0 if 2 * i == steps else 1.0 for i in range(1, 9)]
        values[: steps // 2 - 1] = [float(9 - i) for i in range(steps // 2 - 1)]
        fitted = run(None, 16, loop=loop, evaluate=scripted(values))
        assert int(fitted.state.step) == steps
        return fitted.state

    return {4: at(4), 8: at(8)}


def test_best_is_strict_and_finite():
    """A fold over values: ties and NaN are no improvement; both directions."""
    low, high = Best(), Best()
    for step, value in enumerate(SCORES[:5], 1):
        low, high = low.after(step, value, False), high.after(step, value, True)
    assert low == Best(3.0, 2, 3) and high == Best(5.0, 1, 4)
    assert low.after(6, 2.0, False) == Best(2.0, 6, 0)
    assert Best().after(1, float("nan"), False) == Best(None, 0, 1)


@pytest.mark.parametrize("stored", [True, False])
def test_patience_stops_and_the_best_state_is_returned(tmp_path, states, stored):
    """Best at step 4, three evaluations without: stop at 10, the state of step 4."""
    loop = dataclasses.replace(EVERY, patience=3, use_best=True)
    if not stored:
        loop = dataclasses.replace(loop, checkpoint_every=None, keep_best=False)
    fitted = run(tmp_path, 16, loop=loop, evaluate=scripted())
    assert same_bits(fitted.state, states[4])
    last = exact(fitted.rows)[-1]
    assert last == {
        "step": 10, "stop/best": 3.0, "stop/best_step": 4,
        "stop/evaluations_since": 3,
    }  # fmt: skip
    trained = [row["step"] for row in fitted.rows if "train/loss" in row]
    assert trained == [3, 6, 9, 10]  # the last, broken window has its row
    if stored:
        kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("*"))
        assert kept == [4, 10]
        again = run(tmp_path, 16, loop=loop, evaluate=scripted(()))
        assert same_bits(again.state, states[4])
        assert exact(again.rows) == exact(fitted.rows)


def test_highest_may_be_best(states):
    """An accuracy: the highest value's state, the earliest of equals."""
    loop = dataclasses.replace(
        EVERY, checkpoint_every=None, keep_best=False, use_best=True,
        best="eval/accuracy", best_is="highest",
    )  # fmt: skip
    values = (0.1, 0.5, 0.2, 0.9, 0.9, 0.3, 0.9, 0.8)
    fitted = run(None, 16, loop=loop, evaluate=scripted(values, "eval/accuracy"))
    assert same_bits(fitted.state, states[8])
    assert not any("stop/best" in row for row in fitted.rows)


def test_the_highest_checkpoint_is_kept(tmp_path, states):
    """keep_best with best_is: step 8 outlives the last one, and is what comes back."""
    loop = dataclasses.replace(
        EVERY, use_best=True, best="eval/accuracy", best_is="highest"
    )
    values = (0.1, 0.5, 0.2, 0.9, 0.9, 0.3, 0.9, 0.8)
    fitted = run(tmp_path, 16, loop=loop, evaluate=scripted(values, "eval/accuracy"))
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("*"))
    assert kept == [8, 16] and same_bits(fitted.state, states[8])


@pytest.mark.parametrize("stored", [True, False])
def test_the_start_may_be_best(tmp_path, stored):
    """Best before the first step: the initial state, bit by bit; patience counts on."""
    loop = dataclasses.replace(EVERY, eval_start=True, use_best=True, patience=3)
    if not stored:
        loop = dataclasses.replace(loop, checkpoint_every=None, keep_best=False)
    fitted = run(tmp_path, 16, loop=loop, evaluate=scripted((1.0, 2.0, 3.0, 1.0)))
    assert int(fitted.state.step) == 0 and same_bits(fitted.state.params, params())
    last = exact(fitted.rows)[-1]
    assert (last["step"], last["stop/best_step"], last["stop/best"]) == (6, 0, 1.0)
    evals = [row["step"] for row in fitted.rows if "eval/loss" in row]
    assert evals == [0, 2, 4, 6]


def test_a_start_that_is_not_finite_is_not_best():
    """NaN at the start and ever after: the last state, as without `eval_start`."""
    loop = dataclasses.replace(
        EVERY, eval_start=True, use_best=True, checkpoint_every=None, keep_best=False
    )
    fitted = run(None, 16, loop=loop, evaluate=scripted([float("nan")] * 9))
    assert int(fitted.state.step) == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(patience=2), "patience: expected eval_every"),
        (dict(use_best=True), "use_best: expected eval_every"),
        (
            dict(use_best=True, eval_every=2, checkpoint_every=4, keep_best=True),
            "use_best: expected keep_best, and checkpoint_every to be eval_every",
        ),
    ],
)
def test_settings_that_cannot_be_kept_are_errors(changes, words):
    """The key and what was expected."""
    with pytest.raises(ConfigError, match=words):
        LoopConfig(**changes)


def test_patience_needs_its_metric():
    """An unknown metric names the near one; no held-out data is an error at once."""
    loop = dataclasses.replace(
        EVERY, patience=2, keep_best=False, checkpoint_every=None, best="eval/los"
    )
    with pytest.raises(ConfigError, match="'eval/los'.*did you mean 'eval/loss'"):
        run(None, 16, loop=loop)
    with pytest.raises(ConfigError, match="patience: needs held-out data"):
        run(None, 16, loop=loop, evaluate=None)
