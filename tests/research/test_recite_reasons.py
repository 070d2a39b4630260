"""Reasons are what they say they measure, and change no verdict."""

import pytest
from helpers.recited import ANSWER, ONE, N, Written, answers

from research.recite import reasons
from research.recite.claims import Found


def found(number, status):
    return Found(f"{number}. A claim", "one", status, "+1.0 points", "Evidence.")


def test_paths_of_the_next_question_of_a_type_are_right_by_chance(tmp_path):
    """All say yes: 1; each says its own number: 0; alone in its type: left out."""
    kinds = ("a", "b")
    made = Written(tmp_path / "x", ONE, kinds=kinds)
    made.add("recite one 0", answers([1] * N))
    (run,) = made.scores(ONE).of("recite", "one")
    assert reasons.by_chance(run) == 1.0
    half = answers([1, 1] + [0] * (N - 2))  # one of each kind: its neighbour's luck
    made = Written(tmp_path / "y", ONE, kinds=kinds).add("recite one 0", half)
    (run,) = made.scores(ONE).of("recite", "one")
    assert reasons.by_chance(run) == 2 / N
    kinds = tuple(map(str, range(N)))
    made = Written(tmp_path / "z", ONE, kinds=kinds).add("recite one 0", answers([4]))
    (run,) = made.scores(ONE).of("recite", "one")
    assert reasons.by_chance(run) == 0.0


def test_what_is_read_holds_an_answer_in_so_many_paths(tmp_path):
    """One of four recitations, and of one passage a half."""
    made = Written(tmp_path, ONE)
    made.add("recite one 0", answers([0] * N, recited=1))
    retrieved = [row for r in (0, 1) for row in answers([0] * 10, K=1, recited=r)]
    made.add("retrieved one 0", retrieved)
    text = reasons.names_in_questions(made.scores(ONE), "one")
    assert "holds an answer for 50.0%" in text and "hold one in 25.0%" in text


def test_contexts_of_one_passage_and_of_several_are_told_apart(tmp_path):
    """Of a quarter with one passage all are right; of the others none, but by vote."""
    rows = answers([0] * N)
    for i, row in enumerate(rows):
        row["recitations"] = ["A"] if i < 5 else ["A", "B"]
        row["voted"] = ANSWER if i < 5 else "no"
        row["more"] = {"weighted": ANSWER if i < 10 else "no"}
    made = Written(tmp_path, ONE).add("diversified one 0", rows)
    text = reasons.several_passages(made.scores(ONE), "one")
    assert (
        "a single passage (25% of the questions) 100.0% are right, and 100.0%" in text
    )
    assert "several (75% of the questions) 0.0% are right, and 33.3%" in text


@pytest.mark.parametrize("number", ["7", "5"])
@pytest.mark.parametrize("status", ["reproduced", "not reproduced"])
def test_only_what_is_not_reproduced_has_a_reason(tmp_path, number, status):
    made = Written(tmp_path, ONE).add("recite one 0", answers([1] * N))
    before = found(number, status)
    (after,) = reasons.explained([before], made.scores(ONE))
    changed = status == "not reproduced" and number in reasons.REASONS
    assert (after != before) == changed
    assert after._replace(evidence="Evidence.") == before
    assert after.evidence.startswith("Evidence.")
