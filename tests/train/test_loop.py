"""N steps, a stop, and M more equal N + M steps, bit by bit, state and metrics."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from helpers import tiny_run
from helpers.tiny_run import LOOP, RandomBatches, exact, run, same_bits

from models.errors import CheckpointError
from train.checkpoint import Checkpoints
from train.errors import ConfigError, Diverged, Preempted
from train.loop import LoopConfig, fit
from train.state import init_state
from train.window import count_tokens

STEPS = 20
PLAIN = dataclasses.replace(LOOP, eval_every=None, keep_best=False)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 20 steps without a stop, and its folder."""
    folder = tmp_path_factory.mktemp("straight")
    return run(folder, STEPS), folder


def stop_at(step, how=signal.SIGTERM):
    def before(asked):
        if asked == step:
            os.kill(os.getpid(), how)

    return RandomBatches(before)


class Recorded(RandomBatches):
    """Batches that note which ones were asked for."""

    def __init__(self):
        self.asked = []
        super().__init__(self.asked.append)


def steps_of(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").glob("*"))


@pytest.mark.parametrize("stop", [2, 7, 8, 13, 19])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_rest_is_bit_equal(straight, tmp_path, stop, how):
    expected, folder = straight
    # Batch `stop` is made ready while step `stop` runs, which is finished and saved.
    handler = signal.getsignal(how)
    with pytest.raises(Preempted, match=f"{how.name} after step {stop} of 20"):
        run(tmp_path, STEPS, batches=stop_at(stop, how))
    assert steps_of(tmp_path)[-1] == stop
    assert signal.getsignal(how) is handler
    batches = Recorded()
    resumed = run(tmp_path, STEPS, batches=batches)
    assert min(batches.asked) == stop
    assert same_bits(resumed.state, expected.state)
    assert exact(resumed.rows) == exact(expected.rows)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert exact(map(json.loads, lines)) == exact(expected.rows)


def test_two_stops_are_as_good_as_none(straight, tmp_path):
    for stop in (5, 14):
        with pytest.raises(Preempted):
            run(tmp_path, STEPS, batches=stop_at(stop))
    batches = Recorded()
    resumed = run(tmp_path, STEPS, batches=batches)
    assert min(batches.asked) == 14
    assert same_bits(resumed.state, straight[0].state)
    assert exact(resumed.rows) == exact(straight[0].rows)


@pytest.mark.parametrize("kept", [8, 16])
def test_from_an_older_checkpoint_the_later_rows_are_written_again(
    straight, tmp_path, kept
):
    # What a kill -9 leaves: rows beyond the last checkpoint, the last one torn.
    expected, folder = straight
    if kept not in steps_of(folder):
        loop = dataclasses.replace(LOOP, keep_last=9)
        run(tmp_path, STEPS, loop=loop)
    else:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "checkpoints").iterdir():
        if int(path.name) > kept:
            shutil.rmtree(path)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-9])
    batches = Recorded()
    resumed = run(tmp_path, STEPS, batches=batches)
    assert min(batches.asked) == kept
    assert exact(resumed.rows) == exact(expected.rows)
    assert same_bits(resumed.state, expected.state)


def test_a_finished_run_is_returned_as_it_is(straight, tmp_path):
    expected, folder = straight
    before = (folder / "metrics.jsonl").read_bytes()

    def never(step):
        raise AssertionError("no batch is needed")

    again = run(folder, STEPS, batches=RandomBatches(never))
    assert same_bits(again.state, expected.state)
    assert again.rows == expected.rows
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_rows_come_at_their_steps_with_their_names(straight):
    rows = straight[0].rows
    train = [r["step"] for r in rows if "train/loss" in r]
    evals = [r["step"] for r in rows if "eval/loss" in r]
    assert train == [3, 6, 9, 12, 15, 18, 20] and evals == [4, 8, 12, 16, 20]
    for row in rows:
        if "train/loss" in row:
            assert {"train/grad_norm", "train/lr", "time"} <= row.keys()
            assert row["perf/tokens_per_s"] > 0
        else:
            expected = np.exp(row["eval/loss"])
            np.testing.assert_allclose(row["eval/perplexity"], expected)


def test_a_row_is_the_weighted_mean_over_its_window(straight, tmp_path):
    loop = dataclasses.replace(LOOP, log_every=1, keep_best=False)
    single = run(tmp_path, STEPS, loop=loop, evaluate=None)
    losses = [r["train/loss"] for r in single.rows]
    norms = [r["train/grad_norm"] for r in single.rows]

    def weight(step):
        b = tiny_run.batch(step)
        inside = b.segment_ids[:, 1:] == b.segment_ids[:, :-1]
        inside &= b.segment_ids[:, 1:] > 0
        return float((b.weights[:, 1:] * inside).sum())

    weights = [weight(s) for s in range(STEPS)]
    windows = [r for r in straight[0].rows if "train/loss" in r]
    start = 0
    for row in windows:
        span = slice(start, row["step"])
        mean = np.average(losses[span], weights=weights[span])
        np.testing.assert_allclose(row["train/loss"], mean, rtol=1e-6)
        np.testing.assert_allclose(row["train/grad_norm"], np.mean(norms[span]))
        start = row["step"]


def test_other_settings_or_data_are_refused_by_name(straight, tmp_path):
    folder = shutil.copytree(straight[1], tmp_path / "w")
    before = (folder / "metrics.jsonl").read_bytes()
    loop = dataclasses.replace(LOOP, eval_every=8)
    for changes, words in (
        (dict(lr=0.5), "lr is 0.5, was 0.01"),
        (dict(batches=RandomBatches(fingerprint="other")), "data is 'other', was 'ran"),
        (dict(loop=loop), "loop.eval_every is 8, was 4"),
    ):
        with pytest.raises(ConfigError, match=f"other settings: {words}"):
            run(folder, STEPS, **changes)
    with pytest.raises(ConfigError, match="steps is 30, was 20"):
        run(folder, 30)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_is_an_error_not_a_restart(straight, tmp_path):
    folder = shutil.copytree(straight[1], tmp_path / "w")
    last = folder / "checkpoints" / "00000020"
    largest = max(last.rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="expected .* bytes, found 100"):
        run(folder, STEPS)
    (folder / "metrics.jsonl").write_text("")
    shutil.rmtree(last)
    with pytest.raises(CheckpointError, match="metrics.jsonl: expected the .* bytes"):
        run(folder, STEPS)


@pytest.mark.parametrize("bad", [1, 8, 10, 20])
def test_a_nan_names_its_step_and_keeps_the_last_good_checkpoint(tmp_path, bad):
    loop = dataclasses.replace(LOOP, eval_every=None, keep_best=False)
    with pytest.raises(Diverged, match=f"step {bad}: the (loss|gradient norm) is nan"):
        run(tmp_path, STEPS, loop=loop, batches=tiny_run.NanBatches(bad))
    assert steps_of(tmp_path) == [s for s in (8, 16) if s < bad][-2:]
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert np.isfinite(json.loads(line)["train/loss"])


def test_without_a_folder_the_last_state_is_checked_too():
    optimizer, step, _ = tiny_run.program(STEPS, 1e-2, tiny_run.LOSS)

    def overflow(state, batch):
        state, metrics = step(state, batch)
        return state._replace(
            params=jax.tree.map(lambda x: x / (x - x), state.params)
        ), metrics

    state = init_state(tiny_run.params(), optimizer)
    with pytest.raises(Diverged, match="step 1: a parameter is not finite"):
        fit(state, overflow, RandomBatches(), 1, PLAIN)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    # The update overflows while loss and gradient are finite.
    with pytest.raises(Diverged, match="step 1: a parameter is not finite"):
        loop = dataclasses.replace(
            LOOP, checkpoint_every=1, eval_every=None, keep_best=False
        )
        run(tmp_path, 3, loop=loop, lr=3e38 * 3)
    assert steps_of(tmp_path) == []


def test_the_best_checkpoint_outlives_the_last_ones(tmp_path):
    losses = iter([3.0, 1.0, 2.0, 2.5, 4.0])
    loop = dataclasses.replace(LOOP, eval_every=4, checkpoint_every=4, keep_last=1)
    run(tmp_path, STEPS, loop=loop, evaluate=lambda params: {"eval/loss": next(losses)})
    assert steps_of(tmp_path) == [8, 20]


def test_without_a_folder_nothing_is_written_and_the_result_is_the_same(
    straight, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = run(None, STEPS)
    assert same_bits(result.state, straight[0].state)
    assert exact(result.rows) == exact(straight[0].rows)
    assert list(tmp_path.iterdir()) == []


def test_profile_leaves_a_trace(tmp_path):
    loop = LoopConfig(profile=(2, 3), tensorboard=False, progress=False)
    run(tmp_path, 4, loop=loop, evaluate=None)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    with pytest.raises(ConfigError, match="profile: needs a folder"):
        run(None, 4, loop=loop, evaluate=None)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(keep_best=True, checkpoint_every=8, eval_every=3), "got 8 and 3"),
        (dict(keep_best=True, checkpoint_every=None, eval_every=3), "got None and 3"),
        (dict(profile=(3, 2)), "profile: expected first and last step"),
    ],
)
def test_settings_that_exclude_each_other_are_errors(changes, words):
    with pytest.raises(ConfigError, match=words):
        LoopConfig(**changes)


def test_tokens_are_those_of_segments_in_any_tree_of_batches():
    a, b = tiny_run.batch(0), tiny_run.batch(1)
    both = np.count_nonzero(a.segment_ids) + np.count_nonzero(b.segment_ids)
    assert count_tokens({"chosen": a, "rejected": b, "margin": np.ones(4)}) == both


def test_two_runs_of_the_same_program_are_bit_equal():
    # Without this the tests above would show nothing.
    a, b = run(None, 3), run(None, 3)
    assert same_bits(a.state, b.state)
    assert jax.tree.structure(a.state) == jax.tree.structure(b.state)


def test_a_signal_during_the_last_evaluation_stops_after_the_last_save(
    straight, tmp_path
):
    handler = signal.getsignal(signal.SIGTERM)

    def evaluate(params):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"eval/loss": 1.0}

    with pytest.raises(Preempted, match="SIGTERM after step 20 of 20"):
        run(tmp_path, STEPS, loop=PLAIN, evaluate=evaluate)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert steps_of(tmp_path)[-1] == STEPS
    batches = Recorded()
    done = run(tmp_path, STEPS, loop=PLAIN, batches=batches)
    assert batches.asked == [] and same_bits(done.state, straight[0].state)


def test_the_best_of_what_is_not_evaluated_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="keep_best: needs held-out data"):
        run(tmp_path, STEPS, evaluate=None)
    loop = dataclasses.replace(LOOP, best="eval/los")
    with pytest.raises(ConfigError, match="'eval/los' .* did you mean 'eval/loss'"):
        run(tmp_path, STEPS, loop=loop)
    assert steps_of(tmp_path) == []


def test_a_checkpoint_that_no_run_saved_is_refused(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as store:
        store.save(3, {"a": jax.numpy.ones(2)}, {"cursor": {}})
    with pytest.raises(CheckpointError, match="00000003: has no 'identity'"):
        run(tmp_path, STEPS)
