"""Judged solutions are what the world says; scores are read where labels stand."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.forward import TINY, random_params
from helpers.tiny_run import same_bits
from hypothesis import given
from hypothesis import strategies as st

from data.batch import LabelledExample
from data.errors import DataError
from data.records import write_jsonl
from data.steps import text_encoder
from data.tokenizers import load_tokenizer, word_tokenizer
from data.worlds import arithmetic
from models import decoder, reward_model
from models.pretrained import from_pretrained, save_pretrained
from research.easy_to_hard import evaluators, policies
from research.easy_to_hard.settings import DPORounds, Drawn, EvaluatorTraining, PPORuns
from research.easy_to_hard.tasks import EASY
from research.labels import ANSWER
from research.stages import StageResult
from research.training import Training
from train.kl import KLConfig
from train.ppo_config import PPOConfig

WORLD = arithmetic.ArithmeticWorld(steps=((2, 2),) * 5)
TOKENIZER = word_tokenizer(arithmetic.vocabulary(WORLD))
CFG = dataclasses.replace(TINY, vocab_size=TOKENIZER.vocab_size)
DRAWN = Drawn(samples=1, max_new_tokens=8, slots=8)
SHARES = st.sampled_from([0.0, 0.5, 0.7])


def slip(text: str) -> str:
    """The same solution with another final answer."""
    head, marker, answer = text.rpartition(arithmetic.ANSWER)
    return f"{head}{marker}{(int(answer) + 1) % WORLD.modulus}"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Right solutions, and the same with a wrong answer, of three problems."""
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    rows = []
    for _ in range(3):
        problem = arithmetic.problem(WORLD, 1, rng)
        right = arithmetic.solution(WORLD, problem, rng)
        rows.append(
            {
                "prompt": problem.text,
                "answer": problem.answer,
                "level": 1,
                "texts": [right, slip(right), right, "1 * 1"],
            }
        )
    write_jsonl(folder / "pool.jsonl", rows)
    return StageResult(folder, {})


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_are_the_worlds_and_copies_count_once(pool, tmp_path):
    """Closed form: steps of right solutions are 1; an answer is a matter of outcome."""
    found = evaluators.label(tmp_path, pool=pool, world=WORLD, seed=0)
    assert found["solutions"] == 3 * 3
    rows = read(pool.folder / "pool.jsonl")
    process = {
        (r["prompt"], "".join(r["steps"])): r for r in read(tmp_path / "process.jsonl")
    }
    for row in rows:
        for text in row["texts"]:
            labels = process[row["prompt"], text]["labels"]
            problem = arithmetic.parse(row["prompt"])
            judged = [float(x) for x in arithmetic.check_steps(WORLD, problem, text)]
            assert labels == judged + ([None] if ANSWER in text else [])
    outcomes = read(tmp_path / "outcome.jsonl")
    assert {tuple(r["labels"]) for r in outcomes} == {(1.0,), (0.0,)}
    for row in outcomes:
        answer = {r["prompt"]: r["answer"] for r in rows}[row["prompt"]]
        right = arithmetic.final_answer(row["steps"][0]) == answer
        assert row["labels"] == [float(right)]


def test_no_outcome_is_an_error_that_says_what_to_do(pool, tmp_path):
    rows = [
        row | {"texts": row["texts"][:1]} for row in read(pool.folder / "pool.jsonl")
    ]
    write_jsonl(tmp_path / "pool.jsonl", rows)
    with pytest.raises(DataError, match="outcome.*train the generator longer"):
        evaluators.label(
            tmp_path / "out", pool=StageResult(tmp_path, {}), world=WORLD, seed=0
        )


def test_scores_are_those_of_the_tokens_that_end_steps_and_answer(pool):
    """Equality with one forward pass per solution, read at hand-counted places."""
    params = reward_model.init(CFG, random_params(CFG))
    kernel = 0.5 * jax.random.normal(jax.random.key(3), (CFG.d_model, 1))
    params = params | {"head": {"kernel": kernel}}
    row = read(pool.folder / "pool.jsonl")[0]
    solutions = [(row["prompt"], text) for text in row["texts"]]
    found = evaluators.score_solutions(CFG, params, TOKENIZER, solutions)
    stop = TOKENIZER.encode(arithmetic.BREAK)[-1]
    for (prompt, text), (steps, answer) in zip(solutions, found, strict=True):
        start = text_encoder(TOKENIZER)(prompt)
        ids = start + TOKENIZER.encode(text, previous=start[-1])
        tokens = np.array([ids], np.int32)
        positions, segments = decoder.plain_inputs(np.array([len(ids)]), len(ids))
        scores = reward_model.token_scores(CFG, params, tokens, positions, segments)[0]
        if answer is None:
            places = [len(ids) - 1]
            assert steps == pytest.approx([float(scores[p]) for p in places], abs=1e-4)
            continue
        places = [i for i, t in enumerate(ids) if t == stop and i >= len(start)]
        assert steps == pytest.approx([float(scores[p]) for p in places], abs=1e-4)
        assert answer == pytest.approx(float(scores[-1]), abs=1e-4)


def test_each_kind_is_asked_about_its_own_parts():
    row = {"steps": [[1.0, 2.0], [3.0]], "answer": [4.0, None]}
    assert evaluators.logits_for("orm", row) == [[4.0], []]
    assert evaluators.logits_for("prm", row) == [[1.0, 2.0], [3.0]]
    assert evaluators.logits_for("oprm", row) == [[1.0, 2.0, 4.0], [3.0]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data of a small world and a random generator of it, as stages leave them."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(1)
    for name, levels in (("train", (1, 4)), ("development", (1, 4)), ("test", (2, 5))):
        rows = []
        for level in levels * 2:
            p = arithmetic.problem(WORLD, level, rng)
            rows.append(
                {
                    "prompt": p.text,
                    "completion": arithmetic.solution(WORLD, p, rng),
                    "answer": p.answer,
                    "level": p.level,
                }
            )
        write_jsonl(folder / f"{name}.jsonl", rows)
    model = folder / "generator"
    save_pretrained(
        model / "hf", CFG, random_params(CFG), tokenizer_files=TOKENIZER.files.contents
    )
    params = reward_model.init(CFG, random_params(CFG))
    kernel = 0.5 * jax.random.normal(jax.random.key(5), (CFG.d_model, 1))
    judge = folder / "judge"
    reward_model.save_reward_model(
        judge / "hf",
        CFG,
        params | {"head": {"kernel": kernel}},
        tokenizer_files=TOKENIZER.files.contents,
        pad_id=TOKENIZER.pad_id,
    )
    return StageResult(folder, {}), StageResult(model, {}), StageResult(judge, {})


def run_ppo(folder, data, generator, judge):
    runs = PPORuns(
        ppo=PPOConfig(iterations=2, prompts=4, minibatch=4, kl=KLConfig(coef=0.01)),
        drawn=DRAWN,
        eval_every=1,
    )
    value = policies.ppo_run(
        folder,
        data=data,
        policy=generator,
        evaluator=judge,
        process=True,
        questions=None,
        answers=EASY,
        runs=runs,
        kl_coef=None,
        faithful=False,
        dtype="float32",
        seed=0,
    )
    weights = (folder / "hf" / "model.safetensors").read_bytes()
    return value, weights


def test_sorts_of_rows_weigh_the_same_in_all_and_rows_of_a_sort_as_before():
    def row(weights):
        zeros = np.zeros(len(weights))
        return LabelledExample(zeros, zeros, np.array(weights, np.float32))

    sorts = ["process", "outcome", "process", "outcome"]
    rows = [row([0, 1, 1]), row([1] * 6), row([1, 0]), row([0, 1, 1, 1])]
    made = evaluators.even(sorts, rows)
    sums = [float(e.weights.sum()) for e in made]
    np.testing.assert_allclose(sums, [2, 2, 1, 1])
    for before, after in zip(rows, made, strict=True):
        assert ((before.weights > 0) == (after.weights > 0)).all()
    # one sort alone, and rows without a label, stay as they are
    assert evaluators.even(["process"], rows[:1])[0].weights.tolist() == [0, 1, 1]
    silent = evaluators.even(["process", "outcome"], [row([0, 0]), row([1])])
    assert [e.weights.tolist() for e in silent] == [[0, 0], [1]]


def test_hard_answers_do_not_reach_training_or_selection(world, tmp_path, monkeypatch):
    """Invariance: other answers to hard problems leave the policy as it is, bit by bit.

    Only the hard column of the development accuracy may see them. The first evaluation
    is the better one on easy problems, the second on hard ones and on all, as long as
    these have their own answers: the first is kept, with them and without.
    """
    data, generator, judge = world
    truths = {r["prompt"]: r for r in read(data.folder / "development.jsonl")}
    easy = [p for p, r in truths.items() if r["level"] in EASY]
    hard = [p for p, r in truths.items() if r["level"] not in EASY]
    assert len(hard) >= len(easy) > 1
    number = itertools.count()

    def greedy(start, params, problems, drawn):
        right = easy if next(number) % 2 == 0 else [easy[0], *hard]
        return [
            arithmetic.ANSWER + truths[p["prompt"]]["answer"]
            if p["prompt"] in right
            else "wrong"
            for p in problems
        ]

    monkeypatch.setattr(policies, "greedy", greedy)
    first, before = run_ppo(tmp_path / "a", data, generator, judge)
    other = tmp_path / "data"
    for name in ("train", "development", "test"):
        rows = read(data.folder / f"{name}.jsonl")
        for row in rows:
            if row["level"] not in EASY:
                row["answer"] = "99"
        write_jsonl(other / f"{name}.jsonl", rows)
    second, after = run_ppo(tmp_path / "b", StageResult(other, {}), generator, judge)
    assert before == after
    assert first["best"] == second["best"] == 1 and next(number) == 4
    curves = [read(tmp_path / run / "curve.jsonl") for run in "ab"]
    assert [[r["easy"] for r in c if "easy" in r] for c in curves] == [[1, 0.5]] * 2
    assert [[r["hard"] for r in c if "hard" in r] for c in curves] == [[0, 1], [0, 0]]


@pytest.fixture
def told(world, monkeypatch):
    """A policy other than the base, and whose parameters were asked for samples.

    What it gives are a right solution and a wrong one of every problem.
    """
    data, base, _ = world
    policy = base.folder.parent / "policy"
    params = jax.tree.map(lambda x: 1.5 * x, random_params(CFG))
    files = TOKENIZER.files.contents
    if not policy.exists():
        save_pretrained(policy / "hf", CFG, params, tokenizer_files=files)
    solutions = {
        r["prompt"]: r["completion"] for r in read(data.folder / "train.jsonl")
    }
    asked = []

    def sample(cfg, params, tokenizer, prompts, drawn, key):
        asked.append(params)
        texts = [[solutions[p], slip(solutions[p])] for p in prompts]
        return evaluators.Solutions(texts, [[True, True] for _ in prompts])

    monkeypatch.setattr(evaluators, "sample", sample)
    return StageResult(policy, {}), asked


def holds(stage, params):
    """Whether a stage left exactly these parameters."""
    return same_bits(from_pretrained(stage.folder / "hf", "float32").params, params)


def test_a_round_of_rest_em_samples_from_the_policy_and_trains_the_base(
    world, told, tmp_path, monkeypatch
):
    """Equality, bit by bit, of the parameters that are sampled from and trained.

    What is trained on are the right solutions alone, of easy problems.
    """
    (data, base, _), (policy, asked), trained = world, told, []

    def train(folder, cfg, params, examples, *rest):
        trained.append((params, examples))
        files = TOKENIZER.files.contents
        save_pretrained(folder / "hf", cfg, params, tokenizer_files=files)
        return {"steps": 1}

    monkeypatch.setattr(policies, "train", train)
    value = policies.rest_round(
        tmp_path / "r",
        data=data,
        policy=policy,
        base=base,
        levels=EASY,
        rest=policies.ReST(drawn=DRAWN, most=2, rounds=1),
        training=Training(epochs=1.0, batch_size=2, length=96),
        template="plain",
        dtype="float32",
        seed=0,
        number=1,
    )
    assert holds(policy, asked[0]) and not holds(base, asked[0])
    ((params, examples),) = trained
    assert holds(base, params)
    easy = {
        r["prompt"]: r["completion"]
        for r in read(data.folder / "train.jsonl")
        if r["level"] in EASY
    }
    texts = {TOKENIZER.decode([int(i) for i in e.tokens]) for e in examples}
    assert value["selected"] == len(examples) == len(easy)
    assert all(any(p + c in text for text in texts) for p, c in easy.items())


def test_a_round_of_dpo_goes_on_from_the_policy(world, told, tmp_path, monkeypatch):
    """Equality, bit by bit: the policy that sampled is what is trained.

    And so the reference, for `train_dpo` is given no other.
    """
    (data, base, judge), (policy, asked), trained = world, told, []

    def train_dpo(cfg, params, pairs, steps, **options):
        trained.append(params)
        assert "reference" not in options
        return SimpleNamespace(state=SimpleNamespace(params=params))

    monkeypatch.setattr(policies, "train_dpo", train_dpo)
    value = policies.dpo_round(
        tmp_path / "d",
        data=data,
        policy=policy,
        evaluator=judge,
        rounds=DPORounds(drawn=DRAWN, gap=0.0, batch_size=1, length=96),
        dtype="float32",
        seed=0,
        number=1,
    )
    assert value["pairs"] > 0
    assert holds(policy, asked[0]) and holds(policy, trained[0])
    assert not holds(base, trained[0])


def test_a_round_without_a_right_solution_leaves_the_policy(world, tmp_path):
    """Equality: with nothing to learn from, the weights are those of the start."""
    data, generator, _ = world
    rest = policies.ReST(drawn=DRAWN, most=1, rounds=1)
    value = policies.rest_round(
        tmp_path / "r",
        data=data,
        policy=generator,
        base=generator,
        levels=EASY,
        rest=rest,
        training=None,  # not reached
        template="plain",
        dtype="float32",
        seed=0,
        number=1,
    )
    assert value["selected"] == 0
    weights = [
        f / "hf" / "model.safetensors" for f in (tmp_path / "r", generator.folder)
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_accuracy_is_by_group():
    problems = [{"level": level, "answer": "1"} for level in (1, 2, 4)]
    texts = [f"{arithmetic.ANSWER}1", f"{arithmetic.ANSWER}2", f"{arithmetic.ANSWER}1"]
    assert policies.accuracy(problems, texts) == {
        "easy": 0.5, "hard": 1.0, "all": 2 / 3,
    }  # fmt: skip
    assert policies.accuracy(problems[:2], texts[:2])["hard"] is None


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=5))
def test_the_best_round_is_the_earliest_by_easy_problems(values):
    """Strict improvement only, whatever the accuracy on hard problems."""
    rounds = [
        StageResult(None, {"development": {"easy": easy, "hard": hard}})
        for easy, hard in values
    ]
    easy = [easy for easy, _ in values]
    assert policies.best(rounds) == easy.index(max(easy))


@pytest.mark.parametrize("seed", range(4))
def test_problems_without_a_label_of_the_kind_are_named(world, tmp_path, seed):
    """The message: which part has no outcome, whichever problem is held out."""
    prompts = [f"{i}" for i in range(4)]
    rows = [{"prompt": p, "steps": ["1"], "labels": [1]} for p in prompts]
    write_jsonl(tmp_path / "process.jsonl", rows)
    write_jsonl(tmp_path / "outcome.jsonl", rows[:1])
    held = np.random.default_rng([seed, 31]).permutation(prompts)[0]
    part = "training" if held == "0" else "held-out"
    with pytest.raises(DataError, match=f"the {part} ones have no outcome row .* orm"):
        evaluators.train_evaluator(
            tmp_path / "orm",
            labels=StageResult(tmp_path, {}),
            start=world[1],
            kind="orm",
            training=EvaluatorTraining(steps=1, length=64, held_out=0.25),
            dtype="float32",
            seed=seed,
        )


def test_an_evaluator_learns_and_its_folder_loads(pool, world, tmp_path):
    """Round trip: metrics of held-out problems, and a folder with the tokenizer."""
    labels = tmp_path / "labels"
    evaluators.label(labels, pool=pool, world=WORLD, seed=0)
    value = evaluators.train_evaluator(
        tmp_path / "oprm",
        labels=StageResult(labels, {}),
        start=world[1],
        kind="oprm",
        training=EvaluatorTraining(
            steps=6, batch_size=2, length=64, held_out=0.4, eval_every=2
        ),
        dtype="float32",
        seed=0,
    )
    assert value["rows"] == len(read(labels / "process.jsonl")) + len(
        read(labels / "outcome.jsonl")
    )
    assert 0 <= value["eval/brier"] <= 1
    assert 0 <= value["eval/process_auc"] <= 1
    loaded = reward_model.load_reward_model(tmp_path / "oprm" / "hf")
    assert loaded.cfg.vocab_size == CFG.vocab_size
    assert load_tokenizer(tmp_path / "oprm" / "hf").encode("1") == TOKENIZER.encode("1")
