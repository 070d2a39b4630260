"""At paper size, what easy problems supervise never sees a label of a hard one."""

import json

import pytest
from helpers import paper_runs
from helpers.entry import CONFIGS, call, snapshot

from data.records import read_records, write_jsonl
from research import run as research_run
from research.easy_to_hard import answers, evaluators
from research.easy_to_hard.rules import RULES
from research.easy_to_hard.selection import MISSING
from research.stages import StageResult

# One of each kind; what the others depend on, test_paper_plan checks.
EASY_ONLY = (
    "data-easy", "sft-easy-42", "answers-easy-42", "icl-easy-42", "pool-42",
    "labels-42", "prm-42", "score-easy-prm-42", "rest-1-42", "dpo-1-42", "ppo-prm-42",
)  # fmt: skip
SEE_ALL = ("data-full", "sft-full-42")
# Of a stage's files, what says when and where it ran.
PASSING = (
    "result.json",
    "started.json",
    "metrics.jsonl",
    "checkpoints/",
    "tensorboard",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{stage: {file: digest}} of two runs: hard labels as they are, and others."""
    root = tmp_path_factory.getbasetemp()
    made = paper_runs.shared(root)
    changed = paper_runs.write_math(root / "paper" / "changed", paper_runs.harder)
    config = f"--config={CONFIGS / 'ch6_easy_to_hard.py'}:paper"
    found = []
    # The first is the run that the tests of configs made, if they ran.
    for name, files in (("paper", made.math), ("changed", changed)):
        work = paper_runs.workdir(root, name)
        given = paper_runs.arguments("paper", made.checkpoint, files)
        only = f"--only={','.join((*EASY_ONLY, *SEE_ALL))}"
        done = call(research_run, config, *given, only, f"--workdir={work}")
        assert done.code == 0, done.err
        found.append({name: results(work, name) for name in (*EASY_ONLY, *SEE_ALL)})
    return found


def results(work, stage):
    (folder,) = (work / "stages" / stage).iterdir()
    files = snapshot(folder)
    return {name: x for name, x in files.items() if not name.startswith(PASSING)}


@pytest.mark.parametrize("stage", EASY_ONLY)
def test_other_labels_of_hard_problems_change_nothing(runs, stage):
    """Invariance: rows, weights and answers are the same, bit by bit."""
    before, after = (run[stage] for run in runs)
    assert before and before == after


@pytest.mark.parametrize("stage", SEE_ALL)
def test_who_sees_all_labels_sees_the_change(runs, stage):
    """The same comparison finds the change where it may be."""
    before, after = (run[stage] for run in runs)
    assert before.keys() == after.keys() and before != after


@pytest.mark.parametrize(
    ("stage", "what"), [("rest-1", "selected"), ("dpo-1", "pairs")]
)
def test_the_rounds_that_are_compared_train(runs, tmp_path_factory, stage, what):
    """A round that found nothing would not change either."""
    work = paper_runs.workdir(tmp_path_factory.getbasetemp(), "paper")
    (result,) = (work / "stages" / f"{stage}-42").glob("*/result.json")
    value = json.loads(result.read_text())["value"]
    assert value[what] > 0 and value["steps"] > 0


def test_evaluators_learn_both_kinds_of_labels(runs, tmp_path_factory):
    """Closed form: steps are rated by people, outcomes graded by equivalence."""
    work = paper_runs.workdir(tmp_path_factory.getbasetemp(), "paper")
    (labels,) = (work / "stages" / "labels-42").iterdir()
    (data,) = (work / "stages" / "data-easy").iterdir()
    assert (labels / "process.jsonl").read_bytes() == (
        data / "steps.jsonl"
    ).read_bytes()
    rows = [record.row for record in read_records(data / "train.jsonl")]
    truth = {row["prompt"]: row["answer"] for row in rows}
    outcomes = [record.row for record in read_records(labels / "outcome.jsonl")]
    said = {}
    for row in outcomes:
        (solution,), (label,) = row["steps"], row["labels"]
        answer = RULES["math"].final_answer(solution)
        written = paper_runs.ANSWERS[truth[row["prompt"]]]
        assert label == float(answer == written)
        said.setdefault(row["prompt"], []).append(label)
    assert {"0.5", "2"} == {truth[prompt] for prompt in said}
    assert all(0 < sum(x) < len(x) for x in said.values())


def test_votes_are_grouped_and_graded_by_equivalence(tmp_path):
    """Closed form: halves written in three ways are one class, and right."""
    pool = ["\\frac12", "0.5", "2", None, "\\frac{1}{2}"]
    row = {"level": 4, "answer": "\\frac{1}{2}", "greedy": "0.5", "pool": pool}
    write_jsonl(tmp_path / "answers.jsonl", [row])
    found = answers.read_answers(StageResult(tmp_path, {}), "math")
    assert found.greedy.tolist() == [1.0] and found.levels.tolist() == [4]
    assert found.pools[0].classes.tolist() == [0, 0, 1, MISSING, 0]
    assert found.pools[0].values.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]
    strict = answers.read_answers(StageResult(tmp_path, {}))
    assert strict.pools[0].values.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_the_answer_stands_for_the_last_step_where_both_were_rated_together():
    """Closed form: K scores of K steps; without an answer those of the steps."""
    row = {"steps": [[1.0, 2.0], [3.0], []], "answer": [4.0, None, 5.0]}
    for kind in ("prm", "oprm"):
        found = evaluators.logits_for(kind, row, joined=True)
        assert found == [[1.0, 4.0], [3.0], [5.0]]
    assert evaluators.logits_for("orm", row, joined=True) == [[4.0], [], [5.0]]
