"""Answers are normalised, scored, voted and classed as published, to the edge cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.recite import errors
from research.recite.errors import CLASSES, Paths
from research.recite.scoring import contains, exact_match, f1, squad, trivia
from research.recite.voting import path_curve, vote


@pytest.mark.parametrize(
    "text, as_trivia, as_squad",
    [
        ("The Beatles", "beatles", "beatles"),
        ("U.S.", "u s", "us"),
        ("the The", "", ""),
        ("1,000", "1 000", "1000"),
        ("a b-c", "b c", "bc"),
        ("rock‘n’roll", "rock n roll", "rock‘n’roll"),
        ("snake_case", "snake case", "snakecase"),
        ("  two   spaces ", "two spaces", "two spaces"),
        ("an apple a day", "apple day", "apple day"),
        ("theatre", "theatre", "theatre"),
        ("1914–1918", "1914–1918", "1914–1918"),  # a dash of Unicode's stays
        ("o'clock", "o clock", "oclock"),
        ("A.", "", ""),
        ("", "", ""),
    ],
)
def test_both_normalisers_on_edge_cases(text, as_trivia, as_squad):
    """As T5's trivia_qa metric, and as SQuAD's evaluation."""
    assert trivia(text) == as_trivia
    assert squad(text) == as_squad


@pytest.mark.parametrize(
    "answer, golds, exact, overlap",
    [
        ("the Beatles", ["Beatles", "Fab Four"], True, 1.0),
        ("Beatles band", ["Beatles"], False, 2 / 3),
        ("", ["Beatles"], False, 0.0),
        ("Paris Paris", ["Paris"], False, 2 / 3),  # words count as often as they occur
        ("New York", ["New York City", "York"], False, 0.8),
        ("London", ["Paris"], False, 0.0),
        ("the", ["a"], True, 0.0),  # both normalise to nothing, and share no word
    ],
)
def test_exact_match_and_f1(answer, golds, exact, overlap):
    assert exact_match(answer, golds, trivia) == exact
    assert f1(answer, golds, trivia) == pytest.approx(overlap)


def test_containment_is_by_words():
    assert contains("He studied art in Rome.", ["the Art"], trivia)
    assert not contains("a party in Rome", ["art"], trivia)
    assert contains("the Big Apple, of course", ["big apple"], trivia)
    assert not contains("big red apple", ["big apple"], trivia)
    assert not contains("anything", ["the"], trivia)


@pytest.mark.parametrize(
    "answers, tie, expected",
    [
        (["Paris", "paris", "Paris"], "shortest", "Paris"),
        (["long answer", "short"], "shortest", "short"),
        (["long answer", "short"], "first", "long answer"),
        (["ab", "cd"], "shortest", "ab"),  # of equal length: the first
        (["", "", "", "one"], "shortest", "one"),  # nothing said is no vote
        (["", ""], "shortest", ""),
        ([], "shortest", ""),
        (["b", "aaa", "aaa", "b", "cc", "cc"], "shortest", "b"),
    ],
)
def test_vote(answers, tie, expected):
    assert vote(answers, tie=tie) == expected


def test_votes_with_a_key_count_together_and_weights_count():
    assert vote(["Rome", "paris", "Paris."], key=trivia) == "paris"
    assert vote(["Rome", "Paris", "Paris"], weights=[3, 1, 1]) == "Rome"


def _original_vote(answers):
    """The original code's loop, written from its description (facts, 5.2)."""
    counts = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    best = answers[0]
    for answer in counts:
        if not answer:
            continue
        more = counts[answer] > counts[best] or not best
        if more or counts[answer] == counts[best] and len(answer) < len(best):
            best = answer
    return best


@given(st.lists(st.sampled_from(["", "a", "b", "cc", "dd", "eee"]), min_size=1))
def test_the_vote_is_that_of_the_original_loop(answers):
    assert vote(answers) == _original_vote(answers)


answers_of = st.sampled_from(["", "Rome", "Paris", "Oslo"])
texts_of = st.sampled_from(["", "In Rome.", "Paris, then.", "Nothing at all."])


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(texts_of, answers_of), min_size=1), answers_of),
        min_size=1,
    )
)
def test_classes_are_disjoint_and_add_up(drawn):
    """Every question in one class, every path in one cell, by their definitions."""
    questions = [
        Paths([r for r, _ in paths], [a for _, a in paths], voted, ["Rome"])
        for paths, voted in drawn
    ]
    shares = errors.class_shares(questions, trivia)
    assert list(shares) == list(CLASSES)
    assert sum(shares.values()) == pytest.approx(1)
    table = errors.path_table(questions, trivia)
    assert table.sum() == sum(len(q.answers) for q in questions)
    assert table[:, 1].sum() == sum(a == "Rome" for q in questions for a in q.answers)
    for q in questions:
        right, recited = "Rome" in q.answers, "In Rome." in q.recitations
        expected = {
            q.voted == "Rome": errors.MAJORITY,
            q.voted != "Rome" and right: errors.PATH,
            q.voted != "Rome" and not right and recited: errors.RECITED,
            q.voted != "Rome" and not right and not recited: errors.NOT_RECITED,
        }
        assert errors.question_class(q, trivia) == expected[True]


def test_one_path_is_the_mean_of_all_and_the_whole_pool_is_its_vote():
    """k = 1 in expectation, k = K exactly; the pool itself does not vary."""
    rng = np.random.default_rng(0)
    pools = [list(rng.choice(["x", "y", "zz"], 8)) for _ in range(40)]

    def score(q, answer):
        return float(answer == "x")

    curve = path_curve(pools, score, (1, 8), 400, np.random.default_rng(1))
    single = np.mean([[a == "x" for a in pool] for pool in pools])
    assert curve.mean[0] == pytest.approx(single, abs=0.015)
    whole = np.mean([vote(pool) == "x" for pool in pools])
    assert curve.mean[1] == whole
    assert curve.deviation[1] == 0 < curve.deviation[0]


def test_refused_curves():
    score = lambda q, a: 0.0  # noqa: E731
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one size"):
        path_curve([["a"], ["a", "b"]], score, (1,), 2, rng)
    with pytest.raises(ValueError, match="1 to 2"):
        path_curve([["a", "b"]], score, (3,), 2, rng)
    with pytest.raises(ValueError, match="tie"):
        vote(["a"], tie="longest")
