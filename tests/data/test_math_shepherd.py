"""Math-Shepherd: labels read in step with the marks, and levels of its questions."""

from collections import Counter

import pytest
from helpers.entry import write_rows
from helpers.published_files import MARK, shepherd_row
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.records import Record
from data.sets import math_shepherd
from data.sets.math500 import EASY, LEVELS, MathProblem, allowed
from data.sets.math_shepherd import ShepherdRules, by_rule, parse_shepherd
from data.steps import parse_steps

EASY_Q, HARD_Q = "Find the sum of one and two.", "Find the product of all primes."
KNOWN = [
    MathProblem(EASY_Q, "s", "7", "Algebra", 2, "train/1.json"),
    MathProblem(HARD_Q, "s", "7", "Algebra", 4, "train/2.json"),
]


def converted(rows, wanted=LEVELS, match="exact"):
    counts = Counter()
    may = by_rule(allowed(KNOWN, [], wanted), ShepherdRules(match))
    parsed = (parse_shepherd(Record(row, "f", 1)) for row in rows)
    return list(math_shepherd.label_rows(parsed, may, counts)), counts


def test_a_row_becomes_steps_with_their_labels():
    """Written out: numbers go, the answer's marker is in the last step."""
    row = shepherd_row(EASY_Q, ["It is $1+2$.", "So 3. The answer is: 3"], "+-")
    assert row["input"].endswith(f"The answer is: 3 {MARK}")
    found, counts = converted([row])
    assert found == [
        {
            "prompt": f"# Question\n\n{EASY_Q}\n\n# Solution\n\n",
            "steps": ["It is $1+2$.\n\n", "So 3.\n\n# Answer\n\n3"],
            "labels": [1.0, 0.0],
            "level": 2,
        }
    ]
    assert counts == {"rows": 1}
    assert parse_steps(Record(found[0], "f", 1)).labels == (1.0, 0.0)


words = st.text("abк+-$ ", min_size=1, max_size=8).filter(str.strip)


@given(st.lists(st.tuples(words, st.sampled_from("+-")), min_size=1, max_size=5))
def test_labels_and_texts_survive_any_signs_in_the_text(steps):
    """Signs within a step are text; every step keeps its words and its own label."""
    texts, signs = zip(*steps, strict=True)
    row = parse_shepherd(Record(shepherd_row("Q?", texts, signs), "f", 1))
    assert row.labels == tuple(float(s == "+") for s in signs)
    assert row.steps == tuple(t.strip() for t in texts) and row.question == "Q?"


def test_rows_that_are_dropped_are_counted():
    """GSM8K, no first step, two first steps (on which the original fails)."""
    good = shepherd_row(EASY_Q, ["A."], "+")
    rows = [
        shepherd_row(EASY_Q, ["A."], "+", task="GSM8K"),
        {k: v.replace("Step 1", "Part 1") for k, v in good.items()},
        shepherd_row(f"{EASY_Q} Step 1: think.", ["A."], "+"),
        good,
    ]
    found, counts = converted(rows)
    assert len(found) == 1
    assert counts == {"rows": 4, "gsm8k": 1, "no_first_step": 2}


def test_levels_come_from_the_same_problem():
    """White space aside; what matches nothing is used together with hard ones only."""
    rows = [
        shepherd_row(q, ["A."], "+")
        for q in (EASY_Q.replace(" ", "  "), HARD_Q, "Find the summit.", "Other.")
    ]
    found, counts = converted(rows, EASY)
    assert [r["level"] for r in found] == [2]
    assert counts == {"rows": 4, "other_level": 1, "unlisted": 2}
    assert [r["level"] for r in converted(rows)[0]] == [2, 4, None, None]


def test_the_originals_prefix_rule_lets_hard_questions_in():
    """A question that shares five letters with easy ones only is called easy."""
    rows = [
        shepherd_row(q, ["A."], "+")
        for q in ("Find the summit.", "Find the proof.", "Find it.", EASY_Q, HARD_Q)
    ]
    found, counts = converted(rows, EASY, "prefix")
    prompts = "".join(r["prompt"] for r in found)
    assert len(found) == 2 and "summit" in prompts and EASY_Q in prompts
    assert counts == {"rows": 5, "unlisted": 2, "other_level": 1}


GOOD = shepherd_row(EASY_Q, ["A.", "B."], "+-")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task": "AIME"}, "task"),
        ({"task": None}, "task"),
        ({"label": None}, "label"),
        ({"label": GOOD["label"].replace("A.", "C.")}, "label"),
        ({"label": GOOD["label"].replace("+", "?")}, "label"),
        ({"label": GOOD["label"] + " more"}, "input"),
        ({"input": GOOD["input"] + " more"}, "input"),
        ({k: GOOD[k].replace("A.", "") for k in ("input", "label")}, "input"),
        ({"input": f"{EASY_Q} Step 1: A.", "label": f"{EASY_Q} Step 1: A."}, "input"),
    ],
)
def test_bad_rows_name_place_and_field(change, field, tmp_path):
    """Raised with file, line and field; or given to on_bad while good rows go on."""
    path = write_rows(tmp_path / "math-shepherd.jsonl", [GOOD, GOOD | change])
    with pytest.raises(DataError) as error:
        list(math_shepherd.read_math_shepherd(path))
    assert f"{path}:2: {field}: expected" in str(error.value)
    bad = []
    assert len(list(math_shepherd.read_math_shepherd(path, bad.append))) == 1
    assert len(bad) == 1
