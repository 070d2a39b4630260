"""The split of MATH: its cells, its seed, and which labels a run may use."""

from collections import Counter

import pytest
from helpers.entry import write_rows
from helpers.published_files import math_row

from data.errors import DataError
from data.sets import math500
from data.sets.math500 import EASY, LEVELS, MathProblem


def problems(n, split, subjects=("Algebra", "Geometry")):
    return [
        MathProblem(
            f"{split} {i}?", f"Think {i}.", str(i), subjects[i % 2], 1 + i % 5,
            f"{split}/{i}.json",
        )
        for i in range(n)
    ]  # fmt: skip


POOL = problems(60, "train") + problems(60, "test")
TEST = problems(20, "heldout")


def test_published_rows_are_read_field_by_field(tmp_path):
    """What is written comes back, every field where it belongs."""
    rows = [math_row("What is $1+1$?", 1, "2"), math_row("Why?", 5, unique_id="test")]
    read = math500.read_math(write_rows(tmp_path / "train.jsonl", rows))
    assert [p._asdict() for p in read] == [
        {k: row[k] for k in MathProblem._fields} for row in rows
    ]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("level", "Level 3", "an integer from 1 to 5"),
        ("level", 6, "an integer from 1 to 5"),
        ("level", True, "an integer from 1 to 5"),
        ("answer", None, "a string, got null"),
        ("problem", " ", "expected text"),
        ("unique_id", "algebra/1.json", "'train/...'"),
        ("solution", "\ud800", "surrogate"),
    ],
)
def test_bad_rows_name_file_line_and_field(field, value, expected, tmp_path):
    """A DataError with place, field and what was expected."""
    rows = [math_row("What?", 1), math_row("Why?", 2) | {field: value}]
    path = write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError) as error:
        math500.read_math(path)
    assert f"{path}:2: {field}" in str(error.value) and expected in str(error.value)


def test_stratified_validation_has_the_test_sets_cells():
    """Its histogram over (subject, level) is the test set's; others stay in train."""
    split = math500.carve_validation(POOL, TEST, seed=3)

    def cells(part):
        return Counter((p.subject, p.level) for p in part)

    assert cells(split.validation) == cells(TEST) and not split.unfilled
    assert all(p.unique_id.startswith("test/") for p in split.validation)
    assert sorted(split.train + split.validation) == sorted(POOL)


def test_what_does_not_fit_stays_in_training():
    """With nothing that fits, every cell's quota is reported as unfilled."""
    split = math500.carve_validation(POOL, TEST, seed=3, fits=lambda p: False)
    assert sorted(split.train) == sorted(POOL) and not split.validation
    assert sum(split.unfilled.values()) == len(TEST)


@pytest.mark.parametrize("rule", ["stratified", "uniform"])
def test_the_split_is_a_function_of_the_seed(rule):
    """Equal for equal seeds; other seeds draw other validation sets."""
    draws = [
        math500.carve_validation(POOL, TEST, seed, rule, 20) for seed in (1, 1, 2, 3)
    ]
    assert draws[0] == draws[1]
    sets = [frozenset(d.validation) for d in draws[1:]]
    assert len(set(sets)) == 3 and {len(s) for s in sets} == {20}


def test_uniform_validation_draws_from_all_problems_alike():
    """Over many seeds each problem's share is size / n: 4 standard errors at most."""
    drawn = Counter()
    for seed in range(300):
        split = math500.carve_validation(POOL, TEST, seed, "uniform", 30)
        drawn.update(p.unique_id for p in split.validation)
    share, error = 30 / 120, (0.25 * 0.75 / 300) ** 0.5
    assert all(abs(drawn[p.unique_id] / 300 - share) < 4 * error for p in POOL)
    with pytest.raises(DataError, match="between 1 and 119"):
        math500.carve_validation(POOL, TEST, 0, "uniform", 120)


def test_rl_rows_show_answers_of_the_wanted_levels_only():
    """No value of a row holds the answer or the solution of another level."""
    for p in problems(10, "train"):
        p = p._replace(answer="ANSWER", solution="SOLUTION")
        row = math500.rl_row(p, EASY)
        assert row["answer"] == ("ANSWER" if p.level in EASY else None)
        assert ("ANSWER" in str(row)) == (p.level in EASY)
        assert "SOLUTION" not in str(row)


def test_problem_rows_end_in_marker_and_answer():
    """The chapter's format, written out."""
    row = math500.problem_row(POOL[0])
    assert row["prompt"] == "# Question\n\ntrain 0?\n\n# Solution\n\n"
    assert row["completion"] == "Think 0.\n\n# Answer\n\n0"


def test_allowed_decides_by_level_and_held_out():
    """Every (listed, level, wanted, unlisted) gives what its rule says."""
    held = [POOL[-1]]
    for wanted in (EASY, LEVELS, (4,)):
        for unlisted, keeps in (
            ("hard", set(wanted) & {4, 5} != set()),
            ("keep", True),
            ("drop", False),
        ):
            may = math500.allowed(POOL[:-1], held, wanted, unlisted)
            for p in POOL[:-1]:
                assert may(p.problem).keep == (p.level in wanted)
                assert may(f" {p.problem}\n").level == p.level
            assert may(held[0].problem) == (False, None, "held_out")
            assert may("unheard of")[::2] == (keeps, "unlisted")
