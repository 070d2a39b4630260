"""PPO, sampling, scoring on meshes and on two processes are those of one device."""

import json

import jax
import numpy as np
import pytest
from helpers.devices import run_on_devices
from helpers.entry import CONFIGS, checkpoint, write_rows
from helpers.tiny_run import exact
from helpers.two_processes import ends, start, start_group

from models import reward_model
from models.pretrained import from_pretrained

MESHES = ("2x2x2", "8x1x1", "1x4x2")  # one for each iteration of a run that moves


# Three meshes and two processes take minutes; every day has the terms on eight devices
# in test_ppo_terms, and two processes that fine-tune in test_distributed.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What helpers/sharded_run.py found on 8 simulated devices."""
    folder = tmp_path_factory.mktemp("run")
    return run_on_devices(8, "sharded_run.py", folder, "ppo", "sampling")


def assert_same_rollout(got, want):
    for name, value in want.items():
        if "log_probs" in name:
            np.testing.assert_allclose(got[name], value, atol=1e-4, err_msg=name)
        else:
            assert got[name] == value, name


def assert_same_rows(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_iterations_on_three_meshes_end_as_on_one_device(found):
    """Allclose: policy, critic, both optimizers, the KL coefficient.

    Each mesh but the first continues from the checkpoint of the one before.
    """
    assert found["ppo"]["difference"] < 1e-4


@pytest.mark.parametrize("step", range(len(MESHES)), ids=MESHES)
def test_every_iteration_has_the_metrics_of_one_device(found, step):
    """Allclose: losses, rewards, KL and what else is measured, on each mesh."""
    alone, moved = (rows[step] for rows in found["ppo"]["rows"])
    assert alone["step"] == step + 1
    assert_same_rows(moved, alone)


@pytest.mark.parametrize("step", range(len(MESHES)), ids=MESHES)
def test_rollouts_are_those_of_one_device(found, step):
    """Equality of tokens; log-probs to rounding. The policy has moved in between."""
    assert_same_rollout(*(rollouts[step] for rollouts in found["ppo"]["rollouts"]))


def test_greedy_responses_and_scores_are_those_of_one_device(found):
    """Greedy tokens equal, log-probs and scores allclose; the base is in 4 bits.

    Teacher-forced log-probs are the sampler's.
    """
    alone, here = found["sampling"]["None"], found["sampling"]["2x2x2"]
    assert here["tokens"] == alone["tokens"]
    for name in ("log_probs", "scores"):
        np.testing.assert_allclose(here[name], alone[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(here["forced"], here["log_probs"], atol=1e-4)
    assert np.ptp(alone["scores"]) > 0.1 and np.ptp(alone["log_probs"]) > 0.1


def test_prompts_enter_slots_row_by_row(found):
    """Inequality: no device is sent more than one prompt's keys at once, of 64."""
    sent = found["sampling"]["insertion"]
    assert 0 < sent["largest"] <= sent["row"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes with four devices found, on the mesh 2x2x2."""
    outputs = ends(start_group("ppo", tmp_path_factory.mktemp("two")))
    assert [e.code for e in outputs] == [0, 0], outputs
    return [json.loads(e.out.splitlines()[-1]) for e in outputs]


def test_two_processes_iterate_as_one_device(found, two):
    """Equality of tokens; log-probs, metrics and the state at the end allclose."""
    alone = found["ppo"]
    for process in two:
        for got, want in zip(process["rollouts"], alone["rollouts"][0], strict=True):
            assert_same_rollout(got, want)
        for got, want in zip(process["rows"], alone["rows"][0], strict=True):
            assert_same_rows(got, want)
        np.testing.assert_allclose(process["state"], alone["state"], atol=1e-3)
    assert two[0] == two[1]


def test_two_processes_score_as_one_device(found, two):
    for process in two:
        want = found["sampling"]["None"]["scores"]
        np.testing.assert_allclose(process["scores"], want, atol=1e-4)


@pytest.mark.slow
def test_the_command_on_two_processes_is_that_on_one(tmp_path):
    """Allclose: every row of metrics, and the exported policy; the first alone prints.

    With a reward model, a validation set, and checkpoints on the way.
    """
    shape = {"n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "head_dim": 4}
    policy = checkpoint(tmp_path / "policy", **shape)
    loaded = from_pretrained(policy)
    judge = reward_model.init(loaded.cfg, loaded.params)
    judge["head"]["kernel"] = jax.random.normal(jax.random.key(3), (16, 1))
    reward_model.save_reward_model(
        tmp_path / "judge", loaded.cfg, judge, loaded.hf_config
    )
    rows = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(3)]
    settings = {
        "policy": policy, "reward_model": tmp_path / "judge",
        "prompts": write_rows(tmp_path / "prompts.jsonl", rows),
        "validation": write_rows(tmp_path / "validation.jsonl", rows[:2]),
        "ppo.iterations": 2, "ppo.prompts": 8, "ppo.minibatch": 8,
        "ppo.max_new_tokens": 8, "rewards.model": 0.1, "rewards.process": 0.0,
        "loop.eval_every": 2, "loop.checkpoint_every": 1, "loop.tensorboard": False,
        "loop.progress": False, "optimizer.lr": 1e-2, "mesh.fsdp": 4, "mesh.tensor": 2,
    }  # fmt: skip
    command = ["run", "train.ppo_run", f"--config={CONFIGS / 'ppo.py'}:mini"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    folders = tmp_path / "one", tmp_path / "two"
    alone = start(*command, f"--workdir={folders[0]}", devices=8)
    group = start_group(*command, f"--workdir={folders[1]}")
    outputs = ends([alone, *group])
    assert [e.code for e in outputs] == [0, 0, 0], outputs
    assert ["policy:" in e.out for e in outputs] == [True, True, False]
    lines = [(f / "metrics.jsonl").read_text().splitlines() for f in folders]
    for one, both in zip(*(exact(map(json.loads, x)) for x in lines), strict=True):
        assert_same_rows(both, one)
    saved = (jax.tree.leaves(from_pretrained(f / "hf").params) for f in folders)
    for a, b in zip(*saved, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
