"""Voting follows its stated rules and, where one exists, its exact expectation."""

import collections
import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from research.easy_to_hard import selection
from research.easy_to_hard.selection import (
    AGGREGATIONS,
    MISSING,
    Pool,
    aggregate,
    best_of,
    choose,
    classes_by,
    curve,
    graded,
    majority,
    majority_accuracy,
    make_pool,
    pass_at,
    weighted_vote,
)

METHODS = ("majority", "weighted", "best")
ANSWER = st.sampled_from(["1", "2", "3", None])
POOL = st.lists(ANSWER, max_size=9)
# Quarters: shifting them by an integer is exact.
WEIGHT = st.integers(-40, 8).map(lambda i: i / 4) | st.just(-math.inf)
VOTES = st.lists(st.tuples(ANSWER, WEIGHT), max_size=9)
LOGITS = st.lists(st.floats(-60, 60), min_size=1, max_size=6)


def column(votes, i):
    return [vote[i] for vote in votes]


def random_pool(rng, size=12, classes=3, scored=True):
    """A pool of which the answers of class 0 are right, some missing."""
    classes = rng.integers(MISSING, classes, size)
    weights = rng.normal(size=size) if scored else np.zeros(size)
    return Pool(classes, (classes == 0).astype(float), weights)


def expected(pool, method, count):
    """The mean value over all ordered sub-samples of the pool."""
    places = np.array(list(itertools.permutations(range(len(pool.classes)), count)))
    chosen = choose(pool.classes[places], pool.log_weights[places], method)
    values = pool.values[places[np.arange(len(places)), chosen]]
    return np.where(chosen < 0, 0, values).mean()


# --- one answer ---------------------------------------------------------------------


@given(POOL)
def test_majority_is_a_most_frequent_answer_and_the_first_of_them(pool):
    """Closed form: no other answer is more frequent, nor as frequent and earlier."""
    chosen = majority(pool)
    counts = collections.Counter(a for a in pool if a is not None)
    if not counts:
        assert chosen is None
        return
    best = [a for a in counts if counts[a] == max(counts.values())]
    assert chosen == min(best, key=pool.index)


@given(VOTES)
def test_weighted_vote_equals_a_sum_in_exact_arithmetic(votes):
    """Equality with a transcription: sums of weights, the first of the greatest."""
    totals = {}
    for answer, weight in votes:
        if answer is not None:
            totals.setdefault(answer, []).append(math.exp(weight))
    totals = {answer: math.fsum(weights) for answer, weights in totals.items()}
    top = max(totals.values(), default=0)
    want = next((a for a, t in totals.items() if math.isclose(t, top)), None)
    assert weighted_vote(column(votes, 0), column(votes, 1)) == want


@given(VOTES, st.lists(st.tuples(st.none(), WEIGHT), max_size=4), st.integers(0, 9))
def test_missing_answers_do_not_vote(votes, missing, place):
    """Invariance: missing answers of any weight, put anywhere, change no method."""
    more = votes[:place] + missing + votes[place:]
    assert majority(column(more, 0)) == majority(column(votes, 0))
    for method in (weighted_vote, best_of):
        assert method(*map(list, (column(more, 0), column(more, 1)))) == method(
            column(votes, 0), column(votes, 1)
        )


@given(POOL, WEIGHT)
def test_equal_weights_vote_as_a_majority(pool, weight):
    """Equality of methods: weighted voting with one weight, 0 included."""
    if weight == -math.inf:  # all worth nothing: a tie, which the first answer wins
        present = [a for a in pool if a is not None]
        want = present[0] if present else None
    else:
        want = majority(pool)
    assert weighted_vote(pool, [weight] * len(pool)) == want


@given(VOTES, st.integers(-3000, 3000))
def test_the_scale_of_weights_does_not_matter(votes, shift):
    """Invariance: all weights times exp(shift), far under or over what floats hold."""
    answers, weights = column(votes, 0), np.array(column(votes, 1))
    for method in (weighted_vote, best_of):
        assert method(answers, weights + shift) == method(answers, weights)


@given(VOTES)
def test_best_of_does_not_change_under_a_monotone_transform(votes):
    """Invariance: logit -> probability -> its cube, strictly increasing."""
    answers, weights = column(votes, 0), np.array(column(votes, 1))
    other = scipy.special.expit(weights) ** 3
    assert best_of(answers, other) == best_of(answers, weights)


@given(st.lists(ANSWER, min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_the_order_matters_only_for_ties(answers, random):
    """Invariance: with different scores, best-of-n is the same in any order."""
    votes = [(a, float(i)) for i, a in enumerate(answers)]
    mixed = random.sample(votes, len(votes))
    assert best_of(*zip(*mixed, strict=True)) == best_of(*zip(*votes, strict=True))


@given(VOTES, st.randoms(use_true_random=False))
def test_the_order_of_votes_matters_only_for_ties(votes, random):
    """Invariance: a permutation gives the same winner or one with an equal total."""

    def total(answer):
        return sum(math.exp(w) for a, w in votes if a == answer)

    mixed = random.sample(votes, len(votes))
    one = weighted_vote(column(votes, 0), column(votes, 1))
    other = weighted_vote(column(mixed, 0), column(mixed, 1))
    assert (one is None) == (other is None)
    if one != other:
        assert math.isclose(total(one), total(other))


def test_ties_that_rounding_breaks_are_ties():
    """Closed form: 0.1 + 0.2 and 0.3 are equal, and the answer sampled first wins."""
    weights = np.log([0.3, 0.1, 0.2])
    assert weighted_vote(["a", "b", "b"], weights) == "a"
    assert weighted_vote(["b", "b", "a"], weights[[1, 2, 0]]) == "b"


def test_a_solution_without_scores_votes_with_weight_zero():
    """Closed form: it loses to any score, and wins only against its like."""
    logs = aggregate([[], [], [-9.0]], "product")
    assert logs[:2].tolist() == [-math.inf] * 2
    assert weighted_vote(["a", "a", "b"], logs) == "b"
    assert best_of(["a", "a", "b"], logs) == "b"
    assert weighted_vote(["a", "c"], logs[:2]) == best_of(["a", "c"], logs[:2]) == "a"


def test_no_vote_is_no_answer_and_wrong():
    """Closed form: an empty or unanswered pool has no answer, which is worth 0."""
    for answers in ([], [None], [None, None]):
        zeros = np.zeros(len(answers))
        assert majority(answers) is None
        assert weighted_vote(answers, zeros) is None and best_of(answers, zeros) is None
    pool = make_pool([None, None], "1")
    for method in METHODS:
        assert (
            curve([pool], method, (1, 2), 3, np.random.default_rng(0)).accuracy.sum()
            == 0
        )
    assert graded([None, "1", "2"], ["1", "1", "1"]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("method", [weighted_vote, best_of])
def test_a_weight_that_is_no_number_is_an_error(method):
    """NaN compares false with everything: no answer would win. Missing ones may be."""
    with pytest.raises(ValueError, match="log_weights: .* got nan"):
        method(["a", "b", "b"], [0.0, math.nan, 0.0])
    assert method(["a", None], [0.0, math.nan]) == "a"


def test_votes_are_counted_by_class():
    """Closed form: answers that a grader equates pool their votes, each asked once."""
    asked = []

    def equal(a, b):
        asked.append((a, b))
        return float(a) == float(b)

    answers = ["3", "0.5", None, "1/2", ".5", "3", ".5"]
    grouped = classes_by(lambda a, b: a != "1/2" and b != "1/2" and equal(a, b))
    assert grouped(answers).tolist() == [0, 1, MISSING, 2, 1, 0, 1]
    assert len(asked) == len(set(asked))
    assert majority(answers) == "3"
    assert majority(answers, grouped) == "0.5"
    pool = make_pool(answers, ".50", classes=grouped, equal=lambda a, b: a[-1] != "3")
    assert pool.values.tolist() == [0, 1, 0, 1, 1, 0, 1]
    whole = curve([pool], "majority", (7,), 1, np.random.default_rng(0))
    assert whole.accuracy.tolist() == [[1.0]]


def test_choose_treats_rows_alone():
    """Invariance: many samples at once equal each by itself."""
    rng = np.random.default_rng(1)
    classes, weights = rng.integers(-1, 3, (40, 6)), rng.normal(size=(40, 6))
    classes[3] = MISSING
    for method in METHODS:
        alone = [
            choose(c[None], w[None], method)[0]
            for c, w in zip(classes, weights, strict=True)
        ]
        assert choose(classes, weights, method).tolist() == alone
        assert alone[3] == -1
    with pytest.raises(ValueError, match="expected majority, weighted or best"):
        choose(classes, weights, "median")


# --- aggregations --------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(-15, 15), max_size=5), max_size=5))
def test_aggregations_equal_their_formulas(scores):
    """Equality with the thesis's formulas on probabilities, ragged and empty rows."""
    formulas = {
        "min": np.min,
        "product": np.prod,
        "last": lambda p: p[-1],
        "mean": np.mean,
        "max": np.max,
        "mean_logit": lambda p: scipy.special.expit(np.mean(np.log(p / (1 - p)))),
        "mean_odd": lambda p: np.mean(p / (1 - p)),
    }
    assert set(formulas) == set(AGGREGATIONS)
    for how, formula in formulas.items():
        want = [formula(scipy.special.expit(np.array(s))) if s else 0 for s in scores]
        np.testing.assert_allclose(np.exp(aggregate(scores, how)), want, rtol=1e-7)


@given(st.floats(-700, 700))
def test_one_step_is_its_own_aggregate(logit):
    """Equality of methods: of one step, all but the odds give its probability."""
    values = {how: aggregate([[logit]], how)[0] for how in AGGREGATIONS}
    odd = values.pop("mean_odd")
    np.testing.assert_allclose(list(values.values()), values["last"], rtol=1e-12)
    assert odd == pytest.approx(logit)


@given(LOGITS, LOGITS, st.integers(1, 400))
def test_products_of_many_steps_keep_their_order(one, other, times):
    """Invariance: repeating all steps keeps the order, where probabilities underflow.

    log sigmoid is negative, so each side's log-product is multiplied by `times`.
    """
    short = aggregate([one, other], "product")
    long = aggregate([one * times, other * times], "product")
    np.testing.assert_allclose(long, times * short, rtol=1e-9)


@given(LOGITS)
def test_aggregates_are_ordered(logits):
    """Inequality: product <= min <= mean, mean_logit <= max."""
    product, low, mean, of_mean, high = (
        aggregate([logits], how)[0]
        for how in ("product", "min", "mean", "mean_logit", "max")
    )
    slack = 1e-9
    assert product <= low + slack
    assert low - slack <= mean <= high + slack
    assert low - slack <= of_mean <= high + slack


def test_bad_scores_are_named():
    """An error says which solution has no finite score, or which names exist."""
    for bad in ([math.nan, 0.0], [0.0, math.nan]):
        with pytest.raises(ValueError, match=r"solution 2: expected finite.*nan"):
            aggregate([[1.0], [], bad, [2.0]], "min")
    with pytest.raises(ValueError, match="expected one of min, product"):
        aggregate([[1.0]], "median")


# --- curves --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_one_sample_is_the_mean_accuracy(method):
    """Closed form: any method on one answer is right as often as the answers are."""
    rng = np.random.default_rng(2)
    pools = [random_pool(rng) for _ in range(30)]
    for pool in pools[:5]:
        assert expected(pool, method, 1) == pytest.approx(pool.values.mean())
    got = curve(pools, method, (1,), 400, rng).accuracy[0]
    mean = np.array([pool.values.mean() for pool in pools])
    error = np.sqrt(mean * (1 - mean) / 400)
    assert np.all(np.abs(got - mean) <= 4.5 * error)


def test_best_of_n_is_by_order_statistics():
    """Closed form: the r-th best of S is chosen with C(S - r, n - 1) / C(S, n)."""
    rng = np.random.default_rng(3)
    size, n, repeats = 20, 6, 500
    pools = [
        Pool(rng.integers(0, 9, size), rng.random(size).round(), rng.normal(size=size))
        for _ in range(20)
    ]
    rank = np.arange(1, size + 1)
    chance = scipy.special.comb(size - rank, n - 1) / scipy.special.comb(size, n)
    exact = np.array([chance @ p.values[np.argsort(-p.log_weights)] for p in pools])
    got = curve(pools, "best", (n,), repeats, rng).accuracy[0]
    assert np.all(np.abs(got - exact) <= 4.5 * np.sqrt(exact * (1 - exact) / repeats))
    few = Pool(*(x[:7] for x in pools[0]))
    chance = scipy.special.comb(7 - rank[:7], 2) / scipy.special.comb(7, 3)
    want = chance @ few.values[np.argsort(-few.log_weights)]
    assert expected(few, "best", 3) == pytest.approx(want)


@pytest.mark.parametrize("count", [3, 4])
def test_majority_of_two_answers_is_hypergeometric(count):
    """Closed form: P(more right than wrong) + P(as many) / 2: either may come first."""
    for right, wrong in ((3, 4), (5, 2), (1, 5)):
        answers = ["1"] * right + ["2"] * wrong
        law = scipy.stats.hypergeom(right + wrong, right, count)
        k = np.arange(count + 1)
        share = np.where(2 * k > count, 1.0, np.where(2 * k == count, 0.5, 0.0))
        exact = law.pmf(k) @ share
        assert expected(make_pool(answers, "1"), "majority", count) == pytest.approx(
            exact
        )
        got = majority_accuracy([answers] * 40, ["1"] * 40, count, 100,
                                np.random.default_rng(4)).mean()  # fmt: skip
        assert abs(got - exact) <= 4.5 * math.sqrt(exact * (1 - exact) / 4000)


@pytest.mark.parametrize("method", METHODS)
def test_curves_are_the_mean_over_all_sub_samples(method):
    """Equality with exact enumeration, missing answers and unscored ones included."""
    rng = np.random.default_rng(5)
    pool = random_pool(rng, size=6)
    pool.log_weights[2] = -math.inf
    got = curve([pool] * 50, method, (2, 3, 4), 200, rng).accuracy.mean(axis=1)
    for value, n in zip(got, (2, 3, 4), strict=True):
        exact = expected(pool, method, n)
        assert abs(value - exact) <= 4.5 * math.sqrt(0.25 / 10000), n


def test_the_whole_pool_has_one_sub_sample():
    """Closed form: it is the pool in its order, draws nothing and claims no spread."""
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    got = majority_accuracy([["1", "2"], ["2", "2"]], ["1", "1"], 2, 50, rng)
    assert got.tolist() == [1.0, 0.0]
    assert rng.bit_generator.state == before
    pools = [random_pool(np.random.default_rng(i)) for i in range(9)]
    made = curve(pools, "weighted", (4, 12), 30, rng)
    assert made.draws[0].shape == (30, 9) and made.draws[1].shape == (1, 9)
    spread = made.spread()
    assert spread[0] > 0 and spread[1] is None


def test_the_spread_of_one_sample_is_binomial():
    """Closed form: the s.d. of the mean of P independent problems at n = 1."""
    rng = np.random.default_rng(6)
    pools = [random_pool(rng) for _ in range(60)]
    mean = np.array([p.values.mean() for p in pools])
    kept = np.arange(60) < 25
    exact = math.sqrt(np.sum(mean[kept] * (1 - mean[kept]))) / 25
    (got,) = curve(pools, "majority", (1,), 2000, rng).spread(kept)
    assert got == pytest.approx(exact, rel=0.08)  # 5 times its standard error


def test_methods_and_counts_share_their_sub_samples():
    """Invariance: the same rng state gives the same sub-samples to each method.

    One sample is chosen alike by all, and other counts do not change its draws.
    """
    pools = [random_pool(np.random.default_rng(i)) for i in range(9)]
    one = [
        curve(pools, method, counts, 20, np.random.default_rng(7)).draws[0]
        for method in METHODS
        for counts in ((1,), (1, 5, 12))
    ]
    assert all(np.array_equal(draws, one[0]) for draws in one)
    equal = [p._replace(log_weights=np.full(12, -5.0)) for p in pools]
    votes = [
        curve(equal, method, (5,), 20, np.random.default_rng(7)).draws[0]
        for method in ("majority", "weighted")
    ]
    np.testing.assert_array_equal(*votes)


def test_values_may_be_shares():
    """Closed form: best-of-n of a share of tests passed is the best's share."""
    pool = Pool(np.zeros(3, int), np.array([0.2, 0.7, 0.4]), np.array([1.0, 3.0, 2.0]))
    got = curve([pool], "best", (3,), 2, np.random.default_rng(0))
    assert got.accuracy.tolist() == [[0.7]]


@pytest.mark.parametrize(
    ("counts", "repeats", "said"),
    [
        ((0,), 5, "expected 1 to 12"),
        ((13,), 5, "expected 1 to 12"),
        ((2,), 0, "repeats: expected at least 1"),
    ],
)
def test_impossible_curves_say_what_they_expect(counts, repeats, said):
    """An error names the argument and its range; so do pools of two sizes."""
    rng = np.random.default_rng(0)
    pools = [random_pool(rng), random_pool(rng)]
    with pytest.raises(ValueError, match=said):
        curve(pools, "majority", counts, repeats, rng)
    with pytest.raises(ValueError, match="pools: expected one size"):
        curve([*pools, random_pool(rng, size=3)], "majority", (1,), 5, rng)


@given(
    st.lists(st.booleans(), min_size=1, max_size=8).flatmap(
        lambda right: st.tuples(st.just(right), st.integers(1, len(right)))
    )
)
def test_pass_at_n_is_the_share_of_sub_samples_with_a_right_answer(case):
    """Equality with exact enumeration of all sub-samples."""
    right, n = case
    subsets = list(itertools.combinations(right, n))
    exact = np.mean([any(s) for s in subsets])
    assert pass_at([right], n)[0] == pytest.approx(exact, abs=1e-12)


def test_pass_at_n_bounds_every_method():
    """Inequality: nothing chooses a right answer where none was sampled."""
    pool = random_pool(np.random.default_rng(8), size=7)
    ceiling = pass_at(pool.values[None] == 1, 4)[0]
    assert all(expected(pool, method, 4) <= ceiling + 1e-12 for method in METHODS)
    with pytest.raises(ValueError, match="count: expected 1 to 7"):
        selection.pass_at(pool.values[None], 8)
