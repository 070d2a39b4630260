"""A run killed between rollout and update continues to the same bits."""

import json
import signal

import jax
import numpy as np
import pytest
from helpers import tiny_ppo as tiny
from helpers.tiny_run import exact, same_bits

from train import ppo as ppo_lib
from train.checkpoint import Checkpoints
from train.errors import ConfigError
from train.loop import LoopConfig


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """The runs of this file differ in their folders only: one update serves them."""
    made, make = {}, ppo_lib.make_update

    def cached(models, cfg, sampling, state, constrain):
        if (cfg, sampling) not in made:
            made[cfg, sampling] = make(models, cfg, sampling, state, constrain)
        return made[cfg, sampling]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo_lib, "make_update", cached)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")

    return tiny.run(folder), folder


def test_kill_between_rollout_and_update_then_resume(straight, tmp_path):
    """Equality, bit by bit: policy, critic, optimizers, KL coefficient, metrics."""
    done = tiny.script(tmp_path, "--kill=2")
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert done.stdout.split("\n")[:3] == [f"iteration {i}" for i in range(3)]
    seen = []
    resumed = tiny.run(tmp_path, before_update=seen.append)
    assert seen[0] in (1, 2)  # the write of the last checkpoint may have been cut off
    fitted, _ = straight
    assert same_bits(resumed.state, fitted.state)
    assert exact(resumed.rows) == exact(fitted.rows)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert exact(map(json.loads, lines)) == exact(fitted.rows)
    assert int(resumed.state.iteration) == 4
    coefs = [row["train/kl/coef"] for row in fitted.rows]
    assert len(set(coefs)) == 4  # the controller moved, so it had to be restored


def test_the_best_checkpoint_by_validation_is_kept(straight, tmp_path, monkeypatch):
    """Equality: the state of the iteration whose error was lowest, not the last one."""
    errors, seen = iter([0.5, 0.1, 0.4, 0.3]), []

    def evaluate(params):
        seen.append(jax.tree.map(np.asarray, params))
        return {"eval/error": next(errors)}

    fitted = tiny.run(
        tmp_path, evaluate=evaluate, eval_every=1, keep_last=1, keep_best=True,
        best="eval/error",
    )  # fmt: skip
    loop = LoopConfig(best="eval/error")
    ended, read = jax.tree.leaves(fitted.state), Checkpoints.restore

    def restore(*args):
        assert all(x.is_deleted() for x in ended)  # never two states at once
        return read(*args)

    monkeypatch.setattr(Checkpoints, "restore", restore)
    state, iteration = ppo_lib.best_state(tmp_path, fitted.state, loop)
    assert iteration == int(state.iteration) == 2
    assert same_bits(state.params, seen[1]) and not same_bits(state.params, seen[3])


def nearness(params):
    """A metric that is highest, 0, for the starting policy alone."""
    apart = jax.tree.map(lambda a, b: abs(a - b).sum(), params, tiny.policy())
    return {"eval/near": -float(sum(jax.tree.leaves(apart)))}


START = dict(
    evaluate=nearness, eval_start=True, eval_every=1, keep_last=1, keep_best=True,
    best="eval/near", best_is="highest",
)  # fmt: skip


def test_the_starting_policy_may_be_the_best(straight, tmp_path):
    """Equality: where no iteration is better, what is kept and returned is the start.

    The iterations themselves are those of a run that evaluates nothing.
    """
    fitted = tiny.run(tmp_path / "kept", **START)
    assert same_bits(fitted.state, straight[0].state)
    near = [row["eval/near"] for row in fitted.rows if "eval/near" in row]
    assert len(near) == 5 and near[0] == 0 > max(near[1:])
    loop = LoopConfig(best="eval/near", best_is="highest")
    state, iteration = ppo_lib.best_state(tmp_path / "kept", fitted.state, loop)
    assert iteration == int(state.iteration) == 0
    assert same_bits(state.params, tiny.policy())
    used = tiny.run(tmp_path / "used", **START, use_best=True)
    assert same_bits(used.state, state) and exact(used.rows) == exact(fitted.rows)
    worse = {**START, "best_is": "lowest"}
    used = tiny.run(tmp_path / "worse", **worse, use_best=True)
    assert int(used.state.iteration) > 0


@pytest.mark.parametrize("at", [0, 2])
def test_a_run_with_an_evaluated_start_continues_to_the_same_bits(tmp_path, at):
    """Equality, bit by bit, of state and rows: the start is evaluated once."""

    class Broken(Exception):
        pass

    def breaks(iteration):
        if iteration == at:
            raise Broken

    straight = tiny.run(tmp_path / "straight", **START)
    with pytest.raises(Broken):
        tiny.run(tmp_path / "broken", before_update=breaks, **START)
    evaluated = []

    def counted(params):
        evaluated.append(params)
        return nearness(params)

    again = tiny.run(tmp_path / "broken", **{**START, "evaluate": counted})
    assert same_bits(again.state, straight.state)
    assert exact(again.rows) == exact(straight.rows)
    assert len(evaluated) == 4 - at
    kept = [int(p.name) for p in (tmp_path / "broken/checkpoints").glob("*")]
    assert sorted(kept) == [0, 4]


def test_another_run_in_the_folder_is_refused(straight):
    """Error: names the setting that differs."""
    _, folder = straight
    other = tiny.config(iterations=4, prompts=2, clip=0.3, kl=tiny.RUN.kl)
    with pytest.raises(ConfigError, match=r"ppo\.clip is 0\.3, was 0\.2"):
        tiny.run(folder, other)
