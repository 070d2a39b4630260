"""The command of PPO: files in, a policy out, and what it says of bad input."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from helpers.entry import CONFIGS, assert_refused, call, checkpoint, snapshot
from helpers.tiny_run import same_bits

from data.tokenizers import load_tokenizer
from models import reward_model
from models.pretrained import from_pretrained
from train import ppo_run
from train.ppo_config import FAITHFUL, PPOConfig, Quirks
from train.ppo_run import RewardSettings, RunConfig, answer_of, prepare
from train.settings import build

ROWS = [
    {"prompt": "# Question\n\n1+1?\n\n# Solution\n\n", "answer": "2"},
    {"prompt": "# Question\n\n2+2?\n\n# Solution\n\n", "answer": "4"},
    {"prompt": "# Question\n\nhard?\n\n# Solution\n\n"},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders of a policy and a reward model, a file of prompts, as overrides."""
    root = tmp_path_factory.mktemp("ppo")
    policy = checkpoint(root / "policy")
    loaded = from_pretrained(policy)
    head = jax.random.normal(jax.random.key(3), (loaded.cfg.d_model, 1))
    judge = reward_model.init(loaded.cfg, loaded.params)
    judge["head"]["kernel"] = head
    reward_model.save_reward_model(
        root / "judge", loaded.cfg, judge, loaded.hf_config,
        tokenizer_files=load_tokenizer(policy).files.contents,
    )  # fmt: skip
    for name, rows in (("prompts", ROWS), ("validation", ROWS[:2])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(text)
    return root


def arguments(files, **changes):
    given = {
        "policy": files / "policy",
        "reward_model": files / "judge",
        "prompts": files / "prompts.jsonl",
        "validation": files / "validation.jsonl",
        **changes,
    }
    return [f"--config.{k}={v}" for k, v in given.items() if v is not None]


SHORT = (
    "--config.ppo.iterations=2", "--config.ppo.prompts=4", "--config.ppo.minibatch=4",
    "--config.ppo.max_new_tokens=12", "--config.rewards.model=0.1",
    "--config.rewards.length=-0.1", "--config.loop.eval_every=1",
    "--config.loop.tensorboard=False", "--config.loop.progress=False",
    "--config.loop.keep_best=True", "--config.optimizer.lr=1e-2",
)  # fmt: skip


def test_a_run_ends_in_a_policy_that_loads(files, tmp_path):
    """Round trip: W/hf loads; it is the best, here the start, or the last policy.

    No policy answers right, so nothing is better than the start. All rewards are
    measured.
    """
    config = f"--config={CONFIGS / 'ppo.py:mini'}"
    command = [config, *arguments(files), *SHORT, f"--workdir={tmp_path / 'w'}"]
    done = call(ppo_run, *command)
    assert done.code == 0, done.err
    assert "best: iteration 0 by eval/error" in done.out
    before = from_pretrained(files / "policy")
    assert same_bits(from_pretrained(tmp_path / "w/hf").params, before.params)
    assert load_tokenizer(tmp_path / "w/hf").vocab_size
    rows = [json.loads(x) for x in (tmp_path / "w/metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [0, 1, 1, 2, 2]
    assert "eval/error" in rows[0]  # of the policy as it was
    names = {name for row in rows for name in row}
    parts = ("answer", "process", "model", "missing_eos", "length")
    assert {f"train/reward/{part}" for part in parts} <= names
    assert {"train/kl/response", "train/entropy", "eval/accuracy"} <= names
    assert rows[1]["train/reward/answer"] >= 0  # a third have no truth: 0.25 each
    again = call(ppo_run, *command, "--config.loop.keep_best=False")
    assert again.code == 0, again.err
    assert not same_bits(from_pretrained(tmp_path / "w/hf").params, before.params)
    assert len((tmp_path / "w/metrics.jsonl").open().readlines()) == 5


def test_answers_are_the_text_behind_the_marker(files):
    """Equality: white space normalised, EOS left out, None without a marker."""
    tokenizer = load_tokenizer(files / "policy")

    def parsed(text):
        ids = [*tokenizer.encode(text), *tokenizer.stop_ids]
        return answer_of(tokenizer, ids, "# Answer")

    assert parsed("so\n\n# Answer\n\n 4  2\n") == "4 2"
    assert parsed("so 42") is None


def test_rewards_are_those_of_the_settings(files):
    """Closed form: right 1, wrong 0, unknown 0.25; steps of the response are scored."""
    cfg = RunConfig(
        policy=str(files / "policy"), prompts=str(files / "prompts.jsonl"),
        reward_model=str(files / "judge"),
        rewards=RewardSettings(process=1.0, missing_eos=0.0),
        ppo=PPOConfig(max_new_tokens=40),
    )  # fmt: skip
    ready = prepare(cfg)
    texts = ["a\n\nb\n\n# Answer\n\n2", "c\n\n# Answer\n\n5", "d # Answer 1"]
    responses = [
        [*ready.tokenizer.encode(text), *ready.tokenizer.stop_ids[:1]] for text in texts
    ]
    rollout = made_rollout(ready.problems.prompts, responses)
    reward_fn = ppo_run.make_rewards(
        cfg.rewards, ready, lambda rows, places: [np.full(len(p), 9.0) for p in places]
    )
    found = reward_fn(rollout, [0, 1, 2])
    assert found.metrics["reward/answer"] == pytest.approx((1.25, 3))
    assert found.metrics["reward/process"] == pytest.approx((0.5, 3))
    last = found.tokens[np.arange(3), rollout.lengths - 1]
    np.testing.assert_allclose(last, [1, 0, 0.25])
    assert np.flatnonzero(found.tokens[0]).tolist() == [2, 5, len(responses[0]) - 1]


MATH = "research.grading.equivalence:equivalent"


@pytest.mark.parametrize(
    ("equal", "right"), [(None, [0, 0, 0, 0.25]), (MATH, [1, 0, 0, 0.25])]
)
def test_answers_are_compared_as_the_settings_say(files, tmp_path, equal, right):
    """Closed form: \\frac12 is \\frac{1}{2} by MATH's rules only; no answer earns 0.

    Neither where the truth is known nor where it is not; both as the experiment has it.
    """
    rows = [{"prompt": "p", "answer": a} for a in ("\\frac{1}{2}", "2")]
    rows += [{"prompt": "p"}] * 2
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = RunConfig(
        policy=str(files / "policy"), prompts=str(path), validation=None,
        rewards=RewardSettings(equal=equal, missing_eos=0.0),
        ppo=PPOConfig(estimator="rloo", samples=2, prompts=2, minibatch=4,
                      max_new_tokens=40),
    )  # fmt: skip
    ready = prepare(cfg)
    texts = ["a\n\n# Answer\n\n\\frac12", "no", "b\n\n# Answer\n\n ", "# Answer 7"]
    stop = ready.tokenizer.stop_ids[:1]
    responses = [[*ready.tokenizer.encode(text), *stop] for text in texts]
    rollout = made_rollout(ready.problems.prompts, responses)
    found = ppo_run.make_rewards(cfg.rewards, ready, None)(rollout, [0, 1, 2, 3])
    last = found.tokens[np.arange(4), rollout.lengths - 1]
    np.testing.assert_allclose(last, right)
    correct = ppo_run.make_correct(ready, ready.problems, "# Answer")
    assert correct(responses[0], 0) == bool(right[0])  # what eval/accuracy counts


def test_a_score_is_read_where_the_settings_say(files):
    """Equality: at EOS, the row's last place, or at the one before it."""
    cfg = RunConfig(
        policy=str(files / "policy"), prompts=str(files / "prompts.jsonl"),
        reward_model=str(files / "judge"), ppo=PPOConfig(max_new_tokens=40),
    )  # fmt: skip
    ready = prepare(cfg)
    response = [*ready.tokenizer.encode("so 2"), *ready.tokenizer.stop_ids[:1]]
    rollout = made_rollout(ready.problems.prompts, [response] * 3)
    asked = {}
    for at in ("eos", "answer"):

        def score(rows, places, at=at):
            asked[at] = [len(row) - p for row, (p,) in zip(rows, places, strict=True)]
            return [np.zeros(1)] * len(rows)

        settings = RewardSettings(model=1.0, answer=0.0, missing_eos=0.0, at=at)
        ppo_run.make_rewards(settings, ready, score)(rollout, [0, 1, 2])
    assert asked == {"eos": [1] * 3, "answer": [2] * 3}


def made_rollout(prompts, responses):
    from models.rollout import Rollout
    from models.sampler import pad_rows
    from models.sampling import EOS

    count, width = len(prompts), max(map(len, prompts))
    tokens, lengths = pad_rows(responses, count, 40)
    zeros = np.zeros(tokens.shape, np.float32)
    reasons = np.full(count, EOS)
    return Rollout(
        *pad_rows(prompts, count, width), tokens, lengths, zeros, zeros, reasons
    )


@pytest.mark.parametrize(
    "variant", ["default", "mini", "prm800k", "metamath", "faithful", "qlora"]
)
def test_every_variant_is_a_valid_config(variant):
    """Equality: quirks of the faithful preset are all on, of the others off.

    Those that train on MATH compare answers by its rules.
    """
    spec = importlib.util.spec_from_file_location("config_ppo", CONFIGS / "ppo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert variant in module.VARIANTS
    config = module.get_config(variant)
    config.policy = config.prompts = "x"
    cfg = build(RunConfig, config)
    assert cfg.ppo.quirks == (FAITHFUL if variant == "faithful" else Quirks())
    on_math = variant in ("prm800k", "metamath", "faithful")
    assert cfg.rewards.equal == (MATH if on_math else None)


@pytest.mark.parametrize(
    ("changes", "extra", "mentions"),
    [
        ({"reward_model": None}, (), ["config.reward_model: missing", "process"]),
        ({"policy": "nowhere"}, (), ["nowhere", "no such file"]),
        ({}, ("--config.ppo.estimator=gea",), ["config.ppo.estimator", "'gae'"]),
        ({}, ("--config.ppo.minibatch=7",), ["config.ppo: minibatch", "divisor"]),
        ({}, ("--config.ppo.max_new_tokens=600",), ["prompts.jsonl: prompt 0", "512"]),
        ({}, ("--config.ppo.kl.control=adaptive",), ["config.ppo.kl: control"]),
        ({}, ("--config.sampling.temperature=0.0",), ["sampling.temperature", "> 0"]),
        ({"validation": None}, ("--config.loop.keep_best=True",), ["validation"]),
        ({}, ("--config.rewards.equal=equal",), ["config.rewards.equal", "'equal'"]),
        ({}, ("--config.rewards.equal=no.such:f",), ["rewards.equal", "no module"]),
        ({}, ("--config.rewards.equal=json:f",), ["rewards.equal", "no function 'f'"]),
    ],
)  # fmt: skip
def test_impossible_runs_are_refused_before_anything_is_written(
    files, tmp_path, changes, extra, mentions
):
    """Error: one line with the key or file, exit code 2, no folder."""
    config = f"--config={CONFIGS / 'ppo.py:mini'}"
    work = tmp_path / "w"
    given = [*arguments(files, **changes), *extra, f"--workdir={work}"]
    assert_refused(call(ppo_run, config, *given), *mentions)
    assert not work.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model_type": "llama"}'),
        (
            "config.json",
            '{"checkpoint": "x", "data": "x", "optimizer": {}, "loop": {}}',
        ),
        ("metrics.jsonl", '{"step": 1}'),
    ],
)
def test_files_of_others_are_never_replaced(files, tmp_path, name, text):
    """Error: names the file, also that of another command's run; it stays as it was."""
    work = tmp_path / "w"
    work.mkdir()
    (work / name).write_text(text)
    config = f"--config={CONFIGS / 'ppo.py:mini'}"
    done = call(ppo_run, config, *arguments(files), f"--workdir={work}")
    assert_refused(done, f"{name} is not of a run of this program")
    assert [p.name for p in work.iterdir()] == [name]
    assert (work / name).read_text() == text


def test_the_policy_itself_is_no_folder_for_a_run(files):
    """Error: names the policy, which stays."""
    config = f"--config={CONFIGS / 'ppo.py:mini'}"
    before = snapshot(files)
    done = call(ppo_run, config, *arguments(files), f"--workdir={files / 'policy'}")
    assert_refused(done, "--workdir", "is the policy itself")
    assert snapshot(files) == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": ""}, "bad.jsonl:2: prompt: expected text, got ''"),
        ({"question": "x"}, "bad.jsonl:2: prompt: expected text, got None"),
        ({"prompt": "x", "answer": 4}, "bad.jsonl:2: answer: expected text, got 4"),
    ],
)
def test_bad_rows_are_named(files, tmp_path, row, message):
    """Error: file, line and field."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(row) + "\n")
    config = f"--config={CONFIGS / 'ppo.py:mini'}"
    given = arguments(files, prompts=bad)
    assert_refused(
        call(ppo_run, config, *given, f"--workdir={tmp_path / 'w'}"), message
    )
