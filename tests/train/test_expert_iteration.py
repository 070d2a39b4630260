"""Selection as properties of sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.expert_iteration import draw_pairs, preference_rows, select

# Few distinct texts, so that there are duplicates, some only up to white space.
SAMPLES = st.lists(
    st.tuples(st.sampled_from(["a", "b", " b", "c", "d\n", "d", "e"]), st.booleans()),
    max_size=12,
)
PROBLEMS = st.lists(SAMPLES, max_size=4)
SCORED = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 8)), max_size=10
)


def split(problem):
    return [text for text, _ in problem], [right for _, right in problem]


def chosen(problems, most, seed):
    texts, correct = zip(*map(split, problems), strict=True) if problems else ((), ())
    kept = select(texts, correct, most=most, seed=seed)
    return [[problems[p][i] for i in of] for p, of in enumerate(kept)]


@given(PROBLEMS, st.integers(1, 5), st.integers(0, 3))
def test_only_right_ones_once_each_and_never_more_than_the_cap(problems, most, seed):
    """For each problem min(most, distinct right) samples, all right, all distinct."""
    for problem, kept in zip(problems, chosen(problems, most, seed), strict=True):
        assert all(right for _, right in kept)
        texts = [text.strip() for text, _ in kept]
        assert len(texts) == len(set(texts))
        right = {text.strip() for text, good in problem if good}
        assert len(texts) == min(most, len(right))


@given(SAMPLES, st.integers(1, 5), st.integers(0, 3), st.randoms(), st.data())
def test_copies_and_order_do_not_matter(problem, most, seed, random, data):
    """Invariance of the selected texts to permutation and to repeated samples."""
    before = {text for text, _ in chosen([problem], most, seed)[0]}
    more = list(problem)
    if problem:
        more += data.draw(st.lists(st.sampled_from(problem), max_size=6))
    random.shuffle(more)
    assert {text for text, _ in chosen([more], most, seed)[0]} == before
    assert chosen([more], most, seed) == chosen([more], most, seed)


def test_the_cap_draws_evenly_by_seed():
    """Over 600 seeds each of 6 samples is among 2 in about a third of the draws."""
    texts, counts = [list("abcdef")], np.zeros(6)
    for seed in range(600):
        counts[select(texts, [[True] * 6], most=2, seed=seed)[0]] += 1
    assert counts.sum() == 1200
    # 5 standard deviations of a binomial of 600 draws at 1/3
    assert abs(counts - 200).max() < 5 * np.sqrt(600 * 2 / 9)


def test_a_cap_of_none_is_an_error():
    """A cap below 1 would select nothing."""
    with pytest.raises(ValueError, match="most: expected at least 1, got 0"):
        select([["a"]], [[True]], most=0, seed=0)


@given(SCORED, st.integers(1, 5), st.integers(0, 3))
def test_pairs_differ_by_more_than_the_gap(scored, most, seed):
    """At most `most` pairs, all of different texts and of scores beyond the gap."""
    texts, scores = [t for t, _ in scored], [s / 4 for _, s in scored]
    pairs = draw_pairs(scores, texts, 1.0, most, seed=seed)
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    possible = {
        (i, j)
        for i in first.values()
        for j in first.values()
        if scores[i] - scores[j] > 1.0
    }
    assert set(pairs) <= possible and len(set(pairs)) == len(pairs)
    assert len(pairs) == min(most, len(possible))
    assert pairs == draw_pairs(scores, texts, 1.0, most, seed=seed)


@given(st.permutations(range(6)), st.integers(0, 3))
def test_pairs_are_a_function_of_the_set(order, seed):
    """Invariance: another order of the samples pairs the same texts."""
    texts, scores = list("abcdef"), [1.9, 0.2, 1.5, 0.4, 0.1, 1.2]
    before = [
        (texts[i], texts[j]) for i, j in draw_pairs(scores, texts, 1, 3, seed=seed)
    ]
    texts, scores = [texts[i] for i in order], [scores[i] for i in order]
    after = draw_pairs(scores, texts, 1, 3, seed=seed)
    assert [(texts[i], texts[j]) for i, j in after] == before and len(before) == 3


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.integers(0, 3))
def test_without_answers_the_thesis_rule_makes_no_pairs(process, seed):
    """A process reward alone spans at most 1: its gap is never above 1."""
    texts = [str(i) for i in range(len(process))]
    assert not draw_pairs(process, texts, seed=seed)
    right = [p + (i == 0) for i, p in enumerate(process)]
    pairs = draw_pairs(right, texts, most=99, seed=seed)
    assert {i for i, _ in pairs} <= {0}
    assert all(right[0] - right[j] > 1 for _, j in pairs)


def test_a_score_that_is_no_number_is_an_error():
    """NaN compares false with everything, and would drop pairs silently."""
    with pytest.raises(ValueError, match="nan"):
        draw_pairs([0.0, float("nan")], ["a", "b"], seed=0)


def test_rows_of_preferences_name_prompt_chosen_and_rejected():
    """Two problems, with two admissible pairs and one: three rows, texts by score."""
    rows = preference_rows(
        ["p", "q"],
        [["a", "b", "c"], ["d", "e", "e"]],
        [[2.0, 0.5, 0.1], [0.2, 1.9, 0.3]],
        seed=0,
    )
    found = {(r["prompt"], r["chosen"], r["rejected"]) for r in rows}
    assert found == {("p", "a", "b"), ("p", "a", "c"), ("q", "e", "d")}
    assert len(rows) == 3
