"""Published files to the experiment's rows, end to end: no hard label leaks."""

import dataclasses
import re
from collections import Counter

import pytest
from helpers.entry import checkpoint, write_rows
from helpers.published_files import write_math_files

from data.errors import DataError
from data.records import Record, read_records
from data.sets.math500 import EASY, HARD, LEVELS
from data.sets.prm800k import Prm800kRules, original
from data.sets.rows import write_shuffled
from data.steps import parse_steps
from research.easy_to_hard.published import MathFiles, make_math
from research.easy_to_hard.tasks import read_problems
from research.stages import Plan, execute, survey
from train.settings import build

# Words that only labels hold: a solution, an answer, a step or a rating of their level.
SECRET = re.compile(r"secret(\d)\w*")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """All published files of a small MATH, of which every label says its level."""
    folder = tmp_path_factory.mktemp("files")
    model = checkpoint(folder / "checkpoint")
    return MathFiles(checkpoint=str(model), **write_math_files(folder))


@pytest.fixture(scope="module")
def easy(files, tmp_path_factory):
    """What the easy-to-hard setting makes of them, and the folder it is in."""
    folder = tmp_path_factory.mktemp("easy")
    return make_math(folder, task=files, levels=EASY), folder


def rows_of(folder, name):
    return [record.row for record in read_records(folder / f"{name}.jsonl")]


def secrets(folder):
    """{file: levels whose labels its text holds}, of all files but the tokenizer's."""
    return {
        path.stem: {int(m[1]) for m in SECRET.finditer(path.read_text())}
        for path in folder.glob("*.jsonl")
    }


def test_hard_labels_reach_no_file_but_the_test_set(easy):
    """In the easy setting every label in the other files is of levels 1 to 3."""
    found = secrets(easy[1])
    assert found.pop("test") == set(LEVELS)
    assert set(found) == {"train", "development", "rl", "sft", "steps"}
    assert set().union(*found.values()) == set(EASY)
    hard = [r for r in rows_of(easy[1], "rl") if r["level"] in HARD]
    assert hard and all(r["answer"] is None for r in hard)


def test_the_check_for_leaks_finds_the_originals(files, tmp_path):
    """Choosing checkpoints by all answers, as the original does, is seen by it."""
    task = dataclasses.replace(files, select_on="all")
    make_math(tmp_path, task=task, levels=EASY)
    assert secrets(tmp_path)["development"] == set(LEVELS)
    make_math(tmp_path, task=files, levels=LEVELS)
    assert all(found == set(LEVELS) for found in secrets(tmp_path).values())


def test_files_hold_what_the_result_counts(easy):
    """Rows of the promised fields, as many as counted; each problem in one part."""
    result, folder = easy
    parts = {name: rows_of(folder, name) for name in result["counts"]}
    assert {name: len(rows) for name, rows in parts.items()} == result["counts"]
    for name in ("train", "development", "test"):
        assert len(read_problems(folder / f"{name}.jsonl")) == result["counts"][name]
    prompts = [{r["prompt"] for r in parts[n]} for n in ("rl", "development", "test")]
    assert sum(map(len, prompts)) == len(set().union(*prompts))
    assert {r["prompt"] for r in parts["train"]} < prompts[0]
    for i, row in enumerate(parts["steps"]):
        parse_steps(Record(row, "steps", i + 1))
    assert all(set(r) == {"prompt", "completion", "eos", "level"} for r in parts["sft"])
    assert (folder / "tokenizer").is_dir() and result["bad_rows"] == 0
    assert result["left_out"]["also_in_test"] == 1


def test_held_out_problems_have_no_rows(easy):
    """Neither a test nor a validation problem is in steps or SFT rows."""
    _, folder = easy
    held = {r["prompt"] for n in ("development", "test") for r in rows_of(folder, n)}
    for name in ("sft", "steps"):
        rows = rows_of(folder, name)
        assert not [r for r in rows if any(r["prompt"].startswith(p) for p in held)]


def test_the_original_trains_on_validation_problems(files, tmp_path):
    """keep_validation: their easy ones have rows then, and test problems still none."""
    task = dataclasses.replace(files, keep_validation=True)
    make_math(tmp_path, task=task, levels=EASY)
    prompts = {
        name: {r["prompt"] for r in rows_of(tmp_path, name)}
        for name in ("development", "test", "steps")
    }
    assert prompts["development"] and prompts["development"] <= prompts["steps"]
    assert not prompts["test"] & prompts["steps"]


def test_validation_has_the_test_sets_levels(files, tmp_path):
    """Two of each level in all, two of each easy level where only those may be used."""
    for levels in (EASY, LEVELS):
        make_math(tmp_path, task=files, levels=levels)
        found = Counter(r["level"] for r in rows_of(tmp_path, "development"))
        assert found == dict.fromkeys(levels, 2)


def test_counts_of_what_is_left_out_add_up(easy):
    """PRM800K: every trajectory is kept, of another level, or held out."""
    result, folder = easy
    counts = result["left_out"]["steps"]["prm800k"]
    steps = [r for r in rows_of(folder, "steps") if "Good" in r["steps"][0]]
    kept = {r["prompt"] for r in steps}
    assert counts["trajectories"] == 91
    assert len(kept) == 91 - counts["other_level"] - counts["held_out"]
    assert result["left_out"]["steps"]["math_shepherd"]["gsm8k"] == 1


def test_rows_are_a_function_of_files_and_seed(files, easy, tmp_path):
    """Byte for byte; another seed gives the same training rows in another order."""
    make_math(tmp_path / "again", task=files, levels=EASY)
    for path in easy[1].glob("*.jsonl"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    rows = [{"row": i} for i in range(50)]
    orders = []
    for seed in (1, 2):
        assert write_shuffled(tmp_path / "r.jsonl", iter(rows), seed) == 50
        orders.append([r.row["row"] for r in read_records(tmp_path / "r.jsonl")])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1] and list(tmp_path.glob("r.jsonl*")) == [
        tmp_path / "r.jsonl"
    ]


def test_a_failing_source_leaves_no_file(tmp_path):
    """The file of an interrupted call is not there, in whole or in part."""

    def rows():
        yield {"row": 1}
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        write_shuffled(tmp_path / "r.jsonl", rows(), 0)
    assert not list(tmp_path.iterdir())


def test_sources_are_optional(files, tmp_path):
    """MATH alone gives its own solutions to imitate, and no labelled steps."""
    alone = dataclasses.replace(files, prm800k=(), metamath=None, math_shepherd=None)
    make_math(tmp_path, task=alone, levels=EASY)
    sft = {(r["prompt"], r["completion"]) for r in rows_of(tmp_path, "sft")}
    train = {(r["prompt"], r["completion"]) for r in rows_of(tmp_path, "train")}
    assert sft == train and not (tmp_path / "steps.jsonl").exists()


def test_easy_questions_only(files, tmp_path):
    """rl "wanted" leaves questions without an answer out."""
    make_math(tmp_path, task=dataclasses.replace(files, rl="wanted"), levels=EASY)
    assert all(r["answer"] for r in rows_of(tmp_path, "rl"))


def test_bad_rows_stop_the_stage_or_are_counted(files, tmp_path):
    """By on_bad_row; a row of a file that is read twice counts once."""
    path = write_rows(tmp_path / "phase1_train.jsonl", [{"label": {}}])
    task = dataclasses.replace(files, prm800k=(*files.prm800k, str(path)))
    with pytest.raises(DataError, match=r"phase1_train.jsonl:1: question"):
        make_math(tmp_path / "a", task=task, levels=EASY)
    task = dataclasses.replace(task, on_bad_row="skip")
    result = make_math(tmp_path / "b", task=task, levels=EASY)
    assert result["bad_rows"] == 1 and f"{path}:1" in result["bad"][0]


def test_impossible_levels_and_empty_results_are_refused(files, tmp_path):
    """An error that names what was expected, and sources without a row."""
    for levels in ((), (0, 1), (6,)):
        with pytest.raises(DataError, match="levels: expected some of 1 to 5"):
            make_math(tmp_path, task=files, levels=levels)
    rules = Prm800kRules(sft_tokens=1)
    task = dataclasses.replace(files, metamath=None, prm800k_rules=rules)
    with pytest.raises(DataError, match="sft: no row of levels .*too_long"):
        make_math(tmp_path, task=task, levels=EASY)


def test_the_stage_runs_in_a_plan_and_is_kept(files, tmp_path):
    """Its settings have a fingerprint: the second run reads the first one's result."""

    def plan(levels):
        plan = Plan()
        plan.stage("data", make_math, task=files, levels=levels)
        return plan

    first = execute(plan(EASY), tmp_path)["data"]
    assert [s.state for s in survey(plan(EASY), tmp_path)] == ["cached"]
    assert [s.state for s in survey(plan(LEVELS), tmp_path)] == ["to run"]
    assert execute(plan(EASY), tmp_path)["data"] == first


def test_settings_are_built_from_a_config():
    """Nested rules and paths, as the config files give them."""
    config = {
        "checkpoint": "c", "math_train": "a", "math_test": "b", "prm800k": ["p", "q"],
        "prm800k_rules": {
            "duplicates": "text", "at_empty": "stop", "unlisted": "keep"
        },
    }  # fmt: skip
    task = build(MathFiles, config)
    assert task.prm800k == ("p", "q") and task.prm800k_rules == original()
