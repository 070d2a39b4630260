"""MetaMathQA: sentences to steps, levels of original questions, pruning."""

import json
from collections import Counter

import pytest
from helpers.published_files import metamath_row
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.sets import metamath
from data.sets.math500 import EASY, LEVELS, MathProblem, allowed
from data.sets.metamath import MetaMathRules, sentence_steps, split_response

KNOWN = [
    MathProblem("Easy?", "s", "7", "Algebra", 1, "train/1.json"),
    MathProblem("Hard?", "s", "7", "Algebra", 5, "train/2.json"),
]


def converted(rows, wanted=LEVELS, rules=None, path=None):
    rows = [metamath.MetaMathRow(r["query"], r["response"], r["type"].partition("_")[0],
                                 r["original_question"]) for r in rows]  # fmt: skip
    counts = Counter()
    return metamath.sft_rows(rows, allowed(KNOWN, [], wanted), counts, rules), counts


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("One. Two.", "One.\n\nTwo."),
        ("a\nb", "a\n\nb"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("So $x=2.$ Then", "So $x=2.$\n\nThen"),
        ("We get \\[x\\] so", "We get \\[x\\]\n\nso"),
        ("\\[\nx\n\\] so", "\\[ x \\]\n\nso"),
        ("First,\nsecond", "First, second"),
        ("It is. $x$ holds", "It is. $x$ holds"),
        ("Mr. Bean met Dr. Who. Prof. X left", "Mr. Bean met Dr. Who.\n\nProf. X left"),
        ("$$x.$$ Then", "$$x.$$ Then"),
        ("3.5 is not 3. 5", "3.5 is not 3.\n\n5"),
    ],
)
def test_sentences_end_where_the_rules_say(text, steps):
    """Each rule of the original on a text of its own, written out."""
    assert sentence_steps(text) == steps


@given(st.text("ab .,$\\[]\n MrSt", max_size=60))
def test_only_white_space_changes(text):
    """The text without white space is the same; steps are neither empty nor joined."""
    steps = sentence_steps(text)
    assert "".join(steps.split()) == "".join(text.split())
    assert steps == steps.strip() and "\n\n\n" not in steps
    assert all(step.strip() for step in steps.split("\n\n")) or not steps
    assert "\n" not in steps.replace("\n\n", "")


@pytest.mark.parametrize(
    ("response", "parts"),
    [
        ("So 18.\n#### 18\nThe answer is: 18", ("So 18.", "18")),
        ("So half.\nThe answer is: \\frac{1}{2}", ("So half.", "\\frac{1}{2}")),
        ("No answer here.", None),
        ("Empty. The answer is: ", None),
        ("The answer is: 5", ("", "5")),
        ("The answer is: 4 or 5. The answer is: 5", ("The answer is: 4 or 5.", "5")),
    ],
)
def test_responses_split_at_the_last_answer(response, parts):
    """Reasoning without GSM8K's own line, and the answer; None without an answer."""
    assert split_response(response) == parts


def test_rows_are_whole_solutions():
    """Written out: prompt, steps, marker, answer, EOS; no level for GSM8K."""
    rows, counts = converted([
        metamath_row("Rephrased?", "One. Two.\nThe answer is: 5", original="Easy?"),
        metamath_row("Sum?", "Three.\n#### 3\nThe answer is: 3", kind="GSM_FOBAR"),
        metamath_row("Odd?", "No end.", kind="GSM_SV"),
    ])  # fmt: skip
    assert rows == [
        {
            "prompt": "# Question\n\nRephrased?\n\n# Solution\n\n",
            "completion": "One.\n\nTwo.\n\n# Answer\n\n5",
            "eos": True,
            "level": 1,
        },
        {
            "prompt": "# Question\n\nSum?\n\n# Solution\n\n",
            "completion": "Three.\n\n# Answer\n\n3",
            "eos": True,
            "level": None,
        },
    ]
    assert counts == {"rows": 3, "no_answer": 1}


def test_levels_are_those_of_the_original_question():
    """In the easy setting hard and unknown originals go, and GSM8K's rows stay."""
    rows = [
        metamath_row(
            f"{original} {kind}", "The answer is: 5", original=original, kind=kind
        )
        for original in ("Easy?", "Hard?", "Unknown?")
        for kind in ("MATH_SV", "GSM_SV")
    ]
    kept, counts = converted(rows, EASY)
    assert [r["level"] for r in kept] == [1, None, None, None]
    assert counts == {"rows": 6, "other_level": 1, "unlisted": 1}


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_pruning_keeps_the_first_of_the_repeated_list(n, per_query, epochs):
    """(list * epochs)[: per_query * epochs] of every query, and the counts add up."""
    given_rows = [
        metamath_row(q, f"{i}. The answer is: {i}", original="Easy?")
        for i in range(n)
        for q in ("A?", "B?")
    ]
    kept, counts = converted(given_rows, rules=MetaMathRules(per_query, epochs))
    expected = ([str(i) for i in range(n)] * epochs)[: per_query * epochs]
    for q in "AB":
        answers = [r["completion"][-1] for r in kept if f"\n{q}?\n" in r["prompt"]]
        assert answers == expected
    assert counts["pruned"] == 2 * max(0, n - per_query * epochs)


def test_published_files_are_read_and_bad_rows_named(tmp_path):
    """MetaMathQA-395K.json is one list; errors name the row's place in it."""
    path = tmp_path / "MetaMathQA-395K.json"
    good = metamath_row("Q?", "A. The answer is: 5", kind="MATH_Rephrased")
    path.write_text(json.dumps([good, good | {"type": "AIME_1"}]))
    with pytest.raises(DataError, match=r"json:2: type: expected MATH_\.\.\. or GSM"):
        list(metamath.read_metamath(path))
    bad = []
    assert [r.kind for r in metamath.read_metamath(path, bad.append)] == ["MATH"]
    assert len(bad) == 1
    for field in ("query", "response", "original_question"):
        path.write_text(json.dumps([{k: v for k, v in good.items() if k != field}]))
        with pytest.raises(DataError, match=f"json:1: {field}: expected a string"):
            list(metamath.read_metamath(path))
    with pytest.raises(ValueError, match="per_query"):
        MetaMathRules(per_query=0)
