"""Best-of-n is exact; the flow of the coding world runs; its table's verdict."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
from helpers import chapter_stages
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.records import read_records, write_jsonl
from data.tokenizers import load_tokenizer
from data.worlds import programs
from data.worlds.programs import ProgramSizes, ProgramWorld
from models import reward_model
from research.easy_to_hard import coding, generators, outcome, tables_coding
from research.easy_to_hard.settings import Sampled
from research.report import Table, Verdict
from research.stages import Plan, StageResult
from research.training import ModelSize, Training
from train.optim import OptimizerConfig

TINY = Training(epochs=1.0, batch_size=4, length=96)
REWARD = outcome.OutcomeTraining(**vars(TINY), eval_every=1)
CODING = coding.Coding(
    pretrain=TINY,
    sft=TINY,
    reward=REWARD,
    sampled=Sampled(votes=3, counts=(1, 3), max_new_tokens=16, slots=16),
    sizes=ProgramSizes(train=(6, 6, 2, 2, 2), development=10, test=10),
    world=ProgramWorld(tests=3),
    model=ModelSize(d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32),
    facts=60,
    reward_samples=2,
)
pools = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 3)),
                 min_size=1, max_size=6)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(pools, st.data())
def test_best_of_n_is_the_mean_over_all_sub_samples(pool, data):
    """Equality with enumeration of sub-samples in the order of sampling."""
    values, scores = zip(*pool, strict=True)
    n = data.draw(st.integers(1, len(pool)))
    exact = np.mean([
        values[max(chosen, key=lambda i: (scores[i], -i))]
        for chosen in itertools.combinations(range(len(pool)), n)
    ])  # fmt: skip
    assert math.isclose(outcome.best_of(values, scores, n), exact, abs_tol=1e-12)


def test_best_of_n_has_its_closed_forms():
    """Closed form: n = 1 is the mean; a perfect judge of c right ones is pass@n."""
    values = [1.0] * 5 + [0.0] * 11
    for n in (1, 4, 16):
        chance = 1 - math.comb(11, n) / math.comb(16, n)
        assert math.isclose(outcome.best_of(values, values, n), chance)
    shuffled = np.random.default_rng(0).normal(size=16)
    assert math.isclose(outcome.best_of(values, shuffled, 1), 5 / 16)
    with pytest.raises(ValueError, match="expected 1 to 16"):
        outcome.best_of(values, values, 17)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 4))
def test_balanced_keeps_the_stated_ratio_and_each_program_once(right, wrong, ratio):
    """Closed form: min(count, ratio * the other's count) of each kind."""
    texts = [f"r{i}" for i in range(right)] + [f"w{i}" for i in range(wrong)]
    row = {
        "prompt": "p",
        "programs": texts * 2,
        "passed": ([1.0] * right + [0.5] * wrong) * 2,
    }
    kept = outcome.balanced(row, ratio, np.random.default_rng(0))
    texts = [k.steps[0] for k in kept]
    assert len(set(texts)) == len(texts)
    assert all(k.labels == (float(k.steps[0][0] == "r"),) for k in kept)
    least = min(right, wrong)
    counts = [sum(t[0] == kind for t in texts) for kind in "rw"]
    assert counts == [min(right, ratio * least), min(wrong, ratio * least)]


def test_ranking_within_a_problem_ignores_offsets_between_problems():
    """Invariance: adding a constant per problem changes `auc`, not `auc_within`."""
    scores, right = [[2.0, 1.0], [0.0, 3.0, 1.0]], [[True, False], [False, True, True]]
    first = outcome.ranking(scores, right)
    moved = outcome.ranking([[12.0, 11.0], scores[1]], right)
    assert first["auc_within"] == moved["auc_within"] == 1.0
    assert first["auc"] == 5.5 / 6 and moved["auc"] == 4 / 6
    assert outcome.ranking([[1.0]], [[True]])["auc"] is None


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The stages of one seed; an outcome model that learns from made-up labels."""
    root = tmp_path_factory.mktemp("coding")

    def stage(name, function, **inputs):
        return StageResult(root / name, function(root / name, **inputs))

    given = {"dtype": "float32", "seed": 0}
    done = {"data": stage("data", coding.make_world, task=CODING, seed=0)}
    done["base"] = stage(
        "base", generators.pretrain, data=done["data"], model=CODING.model,
        training=TINY, **given,
    )  # fmt: skip
    done["easy"] = stage(
        "easy", coding.finetune, data=done["data"], base=done["base"],
        levels=programs.EASY, training=TINY, **given,
    )  # fmt: skip
    done["answers"] = stage(
        "answers", coding.write_programs, data=done["data"], generator=done["easy"],
        split="test", levels=programs.LEVELS, sampled=CODING.sampled, **given,
    )  # fmt: skip
    # A tiny generator is never right, so labels are made up: shorter is right.
    (root / "labelled").mkdir()
    rows = read(done["answers"].folder / "programs.jsonl")
    write_jsonl(root / "labelled" / "programs.jsonl", [
        {**r, "programs": ["sort\n", "sort\nrev\n"], "passed": [1.0, 0.5]} for r in rows
    ])  # fmt: skip
    labelled = StageResult(root / "labelled", {})
    done["orm"] = stage(
        "orm", outcome.train_outcome, base=done["base"], labelled=labelled,
        held_out=labelled, training=REWARD, ratio=3, where="end", **given,
    )  # fmt: skip
    done["results"] = stage(
        "results", outcome.score_programs, orm=done["orm"], counts=(1, 3),
        answers={"full": done["answers"], "easy": done["answers"]}, dtype="float32",
    )  # fmt: skip
    return done


def read(path):
    return [record.row for record in read_records(path)]


def test_the_flow_ends_in_results_of_every_test_problem(ran):
    """Closed form: each way's mean is that of its rows; best-of-1 is the pool's."""
    rows = read(ran["results"].folder / "results.jsonl")
    answered = read(ran["answers"].folder / "programs.jsonl")
    assert len(rows) == len(answered) == 10
    for row, easy in zip(rows, answered, strict=True):
        assert len(easy["programs"]) == 3
        assert math.isclose(row["average"]["best-of-1"], np.mean(easy["passed"]))
        assert row["strict"]["best-of-3"] <= row["strict"]["pass-at-3"]
        assert row["average"]["full-greedy"] == easy["greedy_passed"]
    means = ran["results"].value["means"]["interview"]["average"]["easy-greedy"]
    kept = [r for r in rows if r["difficulty"] == "interview"]
    assert math.isclose(means, np.mean([r["average"]["easy-greedy"] for r in kept]))
    assert ran["orm"].value["rows"] == 20 and ran["orm"].value["positive"] == 0.5


def test_programs_are_judged_by_the_hidden_tests(ran):
    """Equality with the interpreter on the tests that the data stage wrote."""
    hidden = {row["prompt"]: row for row in read(ran["data"].folder / "test.jsonl")}
    for row in read(ran["answers"].folder / "programs.jsonl"):
        problem = hidden[row["prompt"]]
        assert coding._share(problem, problem["completion"]) == 1.0
        for program, share in zip(row["programs"], row["passed"], strict=True):
            assert program.endswith("\n")
            assert coding._share(problem, program) == share


def test_the_score_is_the_logit_at_the_last_token(ran):
    """Equality with one program scored alone, token by token."""
    folder = ran["orm"].folder / "hf"
    cfg, params, _ = reward_model.load_reward_model(folder, "float32")
    tokenizer = load_tokenizer(folder)
    row = {"prompt": "# Question\n\nbackwards\n\n# Solution\n\n",
           "programs": ["rev\n", "neg\nadd 3\nrev\n"]}  # fmt: skip
    scores = outcome.final_scores(cfg, params, tokenizer, [row])[0]
    for score, program in zip(scores, row["programs"], strict=True):
        ids = np.array([tokenizer.encode(row["prompt"] + program)])
        every = jax.jit(reward_model.token_scores, static_argnums=0)(
            cfg, params, ids, np.arange(ids.shape[1])[None], np.ones_like(ids)
        )
        np.testing.assert_allclose(score, jax.device_get(every)[0, -1], rtol=1e-4)


def test_the_outcome_model_is_that_of_the_best_look_at_held_out_programs(ran, tmp_path):
    """Equality: of the update with the least loss, here the first, and its scores.

    Held-out labels are the contrary of those it learns from: it only gets worse.
    """
    labelled = StageResult(ran["orm"].folder.parent / "labelled", {})
    rows = read(labelled.folder / "programs.jsonl")
    contrary = [row | {"passed": row["passed"][::-1]} for row in rows]
    write_jsonl(tmp_path / "programs.jsonl", contrary)
    training = dataclasses.replace(
        REWARD, epochs=3.0, optimizer=OptimizerConfig(lr=1e-2, warmup=0.0)
    )
    told = outcome.train_outcome(
        tmp_path / "orm", base=ran["base"], labelled=labelled,
        held_out=StageResult(tmp_path, {}), training=training, ratio=3, where="end",
        dtype="float32", seed=0,
    )  # fmt: skip
    metrics = read(tmp_path / "orm" / "metrics.jsonl")
    losses = {r["step"]: r["eval/loss"] for r in metrics if "eval/loss" in r}
    assert list(losses) == [1, 2, 3] and told["steps"] == 3
    assert told["step"] == min(losses, key=losses.get) == 1
    write_jsonl(tmp_path / "programs.jsonl", [r | {"passed": [1.0, 1.0]} for r in rows])
    with pytest.raises(DataError, match="one kind only"):
        outcome.train_outcome(
            tmp_path / "none", base=ran["base"], labelled=StageResult(tmp_path, {}),
            held_out=labelled, training=REWARD, ratio=3, where="end", dtype="float32",
            seed=0,
        )  # fmt: skip


def test_the_world_is_the_same_for_other_trainings_of_the_outcome_model():
    """Equality of fingerprints: only the outcome model and what needs it are others."""
    made = []
    for eval_every in (1, 2):
        reward = dataclasses.replace(REWARD, eval_every=eval_every)
        plan = Plan()
        coding.declare(
            plan, dataclasses.replace(CODING, reward=reward), (0,), "float32"
        )
        made.append({h.name: h.fingerprint for h in plan.handles})
    other = {name for name in made[0] if made[0][name] != made[1][name]}
    assert other == {"coding-orm-0", "coding-results-0"}


def test_only_introductory_problems_reach_the_outcome_model():
    """Closed form: the pools that it is trained and judged on are of levels 1 and 2."""
    plan = Plan()
    results = coding.declare(plan, CODING, (0, 1), "float32")
    assert [r.name for r in results] == ["coding-results-0", "coding-results-1"]
    inputs = {h.name: h.inputs for h in plan.handles}
    orm = inputs["coding-orm-1"]
    for pool, split in ((orm["labelled"], "train"), (orm["held_out"], "development")):
        assert pool.inputs["levels"] == programs.EASY and pool.inputs["split"] == split
        assert pool.inputs["generator"].inputs["levels"] == programs.EASY


@pytest.mark.parametrize(
    ("gain", "auc", "miniature", "status"),
    [
        (0.5, 0.95, True, "reproduced"),
        (-0.5, 0.95, True, "not reproduced"),
        (0.0, 0.95, True, "no difference"),
        (0.5, 0.6, True, "not tested here"),
        (0.5, None, True, "not tested here"),
        (0.5, 0.6, False, "reproduced"),
        (-0.5, None, False, "not reproduced"),
    ],
)
def test_the_claim_is_judged_on_hard_problems_by_a_trained_model(
    tmp_path, gain, auc, miniature, status
):
    """Closed form: the interval's side of 0; in miniature only at an AUC of 0.9."""
    model = {"auc": auc, "auc_within": auc, "mixed_problems": 2}
    stage = chapter_stages.programs(tmp_path, gain)
    made, said = tables_coding.parts([stage], [model], miniature=miniature)
    assert [v.status for v in said] == [status] * 2
    shown = "–" if auc is None else f"{auc:.3f}"
    under = (
        ", under the 0.9 that a test of this needs" if "not tested" in status else ""
    )
    assert all(v.evidence.endswith(f"by seed: {shown}{under}.") for v in said)
    assert all("programs; against one." in v.evidence for v in said)
    tables = [b for b in made.blocks if isinstance(b, Table)]
    assert len(tables) == len(made.blocks) == 3
    best, one = (
        next(r for r in tables[0].rows if r[0].endswith(way))[5].value  # hard
        for way in ("best-of-16", "best-of-1")
    )
    assert math.isclose(best - one, gain, abs_tol=0.11)
    assert tables[0].rows[0][4] is None  # no competition problem here


@pytest.mark.parametrize(
    "auc, status", [(0.95, "reproduced"), (0.8, "not tested here")]
)
def test_the_bar_is_on_problems_that_chose_nothing(tmp_path, auc, status):
    """Closed form: the AUC on test problems decides, not that on development."""
    models = [{"auc": 0.99 - (auc - 0.8), "auc_within": 0.9, "mixed_problems": 2}]
    stage = chapter_stages.programs(tmp_path, 0.5, introductory=auc)
    _, said = tables_coding.parts([stage], models, miniature=True)
    assert [v.status for v in said] == [status] * 2
    assert all(f"by seed: {auc:.3f}" in v.evidence for v in said)


def test_a_report_of_its_own_has_the_verdicts_in_its_section(tmp_path):
    """On APPS: the same verdicts before the tables, without the miniature's bar."""
    stage = chapter_stages.programs(tmp_path, 0.5)
    model = {"auc": 0.6, "auc_within": 0.6, "mixed_problems": 2}
    made = tables_coding.section([stage], [model])
    assert [isinstance(b, Verdict) for b in made.blocks] == [True] * 2 + [False] * 3
    assert made.blocks[0].status == "reproduced"


def test_the_thesis_table_agrees_with_itself():
    """Closed form: its last column is the mean of 100, 300 and 100 problems."""
    for lines in tables_coding.THESIS.values():
        for metrics in lines.values():
            for first, second, third, whole in metrics:
                assert abs((first + 3 * second + third) / 5 - whole) < 0.15


def test_impossible_settings_say_what_they_expect():
    """Closed form: the message names the field."""
    with pytest.raises(ValueError, match="reward_where: expected"):
        dataclasses.replace(CODING, reward_where="middle")
    with pytest.raises(ValueError, match="easy ones to train on"):
        dataclasses.replace(CODING, sizes=ProgramSizes(train=(0, 0, 5, 5, 5)))
