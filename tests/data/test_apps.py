"""APPS: both published forms read alike, its sub-sample, its prompts."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.entry import write_rows
from helpers.published_files import apps_folder, apps_row
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.records import Record
from data.sets import apps

CALL = {"inputs": [[1, 2], [[3], 4]], "outputs": [[3], ["x"]], "fn_name": "add"}
ROWS = [
    apps_row(0),
    apps_row(1, "interview", starter_code="def add(a, b):\n\t",
             input_output=json.dumps(CALL)),
    apps_row(2, "competition", solutions="", input_output=""),
    apps_row(3, solutions=json.dumps(["a", "b", "a"])),
]  # fmt: skip


def test_published_rows_are_read_field_by_field(tmp_path):
    """Strings of JSON are decoded; empty ones are no solutions and no tests."""
    plain, call, bare, _ = apps.read_apps(write_rows(tmp_path / "t.jsonl", ROWS))
    assert plain.tests == (("3\n1 2 3\n", "6\n"),) and plain.function is None
    assert call.tests == (([1, 2], [3]), ([[3], 4], ["x"])) and call.function == "add"
    assert (bare.solutions, bare.tests, bare.function) == ((), (), None)
    assert [p.level for p in (plain, call, bare)] == [1, 2, 3]
    assert plain.question == ROWS[0]["question"] and plain.url == ROWS[0]["url"]


def test_rows_parquet_and_folders_are_the_same(tmp_path):
    """Three forms, equal problems; and what `published_row` writes reads back."""
    read = list(apps.read_apps(write_rows(tmp_path / "t.jsonl", ROWS)))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    assert list(apps.read_apps(tmp_path / "t.parquet")) == read
    for row in ROWS:
        apps_folder(tmp_path / "train", row)
    (tmp_path / "train" / "notes").mkdir()
    assert list(apps.read_apps(tmp_path / "train")) == read
    back = [apps.parse_apps(Record(apps.published_row(p), "f", 1)) for p in read]
    assert back == read


def test_only_empty_starter_code_leaves_the_section_out():
    """Written out; the original's prompt always has it."""
    plain, call = (apps.parse_apps(Record(row, "f", 1)) for row in ROWS[:2])
    question = f"# Question\n\n{plain.question}\n\n"
    assert apps.prompt_of(plain) == f"{question}# Solution\n\n"
    assert apps.prompt_of(plain, always_starter=True) == (
        f"{question}# Starter Code\n\n```python\n\n```\n\n# Solution\n\n"
    )
    assert "# Starter Code\n\n```python\ndef add(a, b):\n\t\n```" in apps.prompt_of(
        call
    )


@given(st.text("ab\n `").filter(lambda s: "```" not in s and not s.endswith("`")))
def test_a_program_survives_the_response_around_it(program):
    """program_of inverts completion_of, whatever stands before and behind."""
    response = apps.completion_of(program)
    assert apps.program_of(f"Here:\n{response}Done. ```python\nx\n```") == program
    assert apps.program_of("print(1)") is None


def test_sft_rows_are_each_solution_once():
    """Of the wanted difficulties, `per_problem` at most, in the order of the file."""
    problems = [apps.parse_apps(Record(row, "f", 1)) for row in ROWS]
    rows = list(apps.sft_rows(iter(problems), apps.EASY))
    assert [r["completion"] for r in rows[1:]] == [
        "```python\na\n```\n", "```python\nb\n```\n"
    ]  # fmt: skip
    assert {r["level"] for r in rows} == {1} and all(r["eos"] for r in rows)
    one = list(apps.sft_rows(iter(problems), per_problem=1))
    assert Counter(r["level"] for r in one) == {1: 2, 2: 1}


def test_the_subsample_is_drawn_by_seed_within_difficulties(tmp_path):
    """Sizes per difficulty, in the file's order, and every problem is as likely."""
    rows = [apps_row(i, apps.DIFFICULTIES[i % 3]) for i in range(30)]
    rows += [apps_row(30 + i, input_output="") for i in range(5)]
    path = write_rows(tmp_path / "test.jsonl", rows)
    counts, sets = Counter(), set()
    for seed in range(60):
        drawn = apps.subsample(path, seed, (2, 5, 1))
        ids = [p.problem_id for p in drawn]
        assert ids == sorted(ids) and max(ids) < 30
        assert Counter(p.level for p in drawn) == {1: 2, 2: 5, 3: 1}
        counts.update(ids)
        sets.add(tuple(ids))
    assert len(sets) > 50 and drawn == apps.subsample(path, 59, (2, 5, 1))
    for i in range(30):  # 60 draws of a share: within 4 standard errors
        share = (2, 5, 1)[i % 3] / 10
        assert abs(counts[i] / 60 - share) < 4 * (share * (1 - share) / 60) ** 0.5
    with pytest.raises(DataError, match="expected 11 introductory .* found 10"):
        apps.subsample(path, 0, (11, 1, 1))


def test_tests_with_integers_that_python_does_not_print_are_left_out():
    """One published test has over 4,300 digits; its problem keeps the others."""
    huge = '{"inputs": [[1], [%s]], "outputs": [[2], [3]], "fn_name": "f"}' % (
        "9" * 5000
    )
    problem = apps.parse_apps(Record(apps_row(0, input_output=huge), "f", 1))
    assert problem.tests == (([1], [2]),)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"question": ""}, "question"),
        ({"question": None}, "question"),
        ({"difficulty": "easy"}, "difficulty"),
        ({"solutions": "[1]"}, "solutions"),
        ({"solutions": "print("}, "solutions"),
        ({"solutions": ["a"]}, "solutions"),
        ({"input_output": "[]"}, "input_output"),
        ({"input_output": '{"inputs": [1], "outputs": []}'}, "input_output"),
        ({"input_output": '{"inputs": 1}'}, "input_output.inputs"),
        ({"input_output": '{"fn_name": 3}'}, "input_output.fn_name"),
        ({"starter_code": 3}, "starter_code"),
        ({"problem_id": "x"}, "problem_id"),
    ],
)
def test_bad_rows_name_place_and_field(fields, field, tmp_path):
    """Raised with file, line and field; or given to on_bad while good rows go on."""
    path = write_rows(tmp_path / "t.jsonl", [ROWS[0], ROWS[1] | fields])
    with pytest.raises(DataError) as error:
        list(apps.read_apps(path))
    assert f"{path}:2: {field}: " in str(error.value)
    bad = []
    assert len(list(apps.read_apps(path, bad.append))) == len(bad) == 1


def test_bad_folders_are_named(tmp_path):
    """A missing file and a metadata file that is no object name the folder."""
    with pytest.raises(DataError, match="expected folders of problems"):
        list(apps.read_apps(tmp_path))
    apps_folder(tmp_path, ROWS[0])
    (tmp_path / "0000" / "metadata.json").write_text("[]")
    with pytest.raises(DataError, match=r"0000: metadata.json: expected an object"):
        list(apps.read_apps(tmp_path))
    (tmp_path / "0000" / "question.txt").unlink()
    (tmp_path / "0000" / "metadata.json").write_text('{"difficulty": "interview"}')
    with pytest.raises(DataError, match=r"0000/question.txt: expected a file"):
        list(apps.read_apps(tmp_path))
