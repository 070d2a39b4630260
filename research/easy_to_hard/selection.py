"""From many answers to one: majority, weighted voting, best-of-n, and curves over n.

Stated rules, the same for every method:
- a missing answer neither votes nor is chosen;
- answers are grouped into classes, by the exact string unless told otherwise;
- equal votes (up to rounding), or equal scores, go to the answer sampled first;
- a solution without step scores has weight 0: its answer wins only against its like;
- no vote at all is no answer, which is wrong.
Weights are handled as logarithms: a product over many steps underflows.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Method = Literal["majority", "weighted", "best"]
Aggregation = Literal["min", "product", "last", "mean", "max", "mean_logit", "mean_odd"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
ROUNDING = 1e-9  # sums of weights this close, relatively, are equal
MISSING = -1

Classes = Callable[[Sequence[str | None]], np.ndarray]

# --- scores of solutions ------------------------------------------------------------


def aggregate(scores: Sequence[Sequence[float]], how: Aggregation) -> np.ndarray:
    """Log-weights, float64 [N], of N solutions from the logits of their steps.

    With p = sigmoid(logit): the least, product, last, mean or greatest p; `mean_logit`
    is the sigmoid of the mean logit and `mean_odd` the mean of p / (1 - p), which may
    be over 1. No step scores: -inf. Raises ValueError for an unknown name and for a
    logit that is not finite, naming the solution. The thesis, chapter 6, appendix H.
    """
    if how not in AGGREGATIONS:
        raise ValueError(
            f"aggregation: expected one of {', '.join(AGGREGATIONS)}, got {how!r}"
        )
    lengths = np.array([len(steps) for steps in scores], int)
    out = np.full(len(lengths), -np.inf)
    logits = np.array([x for steps in scores for x in steps], float)
    if not np.isfinite(logits).all():
        place = int(np.flatnonzero(~np.isfinite(logits))[0])
        solution = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
        raise ValueError(
            f"solution {solution}: expected finite logits, got {logits[place]}"
        )
    some = lengths > 0
    if not some.any():
        return out
    counts = lengths[some]
    starts = np.cumsum(counts) - counts
    match how:
        case "min":
            result = _log_sigmoid(np.minimum.reduceat(logits, starts))
        case "max":
            result = _log_sigmoid(np.maximum.reduceat(logits, starts))
        case "last":
            result = _log_sigmoid(logits[starts + counts - 1])
        case "product":
            result = np.add.reduceat(_log_sigmoid(logits), starts)
        case "mean":
            total = np.logaddexp.reduceat(_log_sigmoid(logits), starts)
            result = total - np.log(counts)
        case "mean_logit":
            result = _log_sigmoid(np.add.reduceat(logits, starts) / counts)
        case "mean_odd":
            result = np.logaddexp.reduceat(logits, starts) - np.log(counts)
    out[some] = result
    return out


def _log_sigmoid(x):
    return -np.logaddexp(0, -x)


# --- classes of answers -------------------------------------------------------------


def exact(answers: Sequence[str | None]) -> np.ndarray:
    """Class of each answer, int64 [S]: one per string, `MISSING` for None."""
    return classes_by(str.__eq__)(answers)


def classes_by(equal: Callable[[str, str], bool]) -> Classes:
    """Groups answers by a relation, such as a grader's.

    An answer joins the first class whose first answer it equals, else it opens one;
    `equal(answer, first)` is asked once per different string and class.
    """

    def classes(answers: Sequence[str | None]) -> np.ndarray:
        firsts: list[str] = []
        known: dict[str | None, int] = {None: MISSING}
        for answer in answers:
            if answer not in known:
                matches = (i for i, f in enumerate(firsts) if equal(answer, f))
                known[answer] = next(matches, len(firsts))
                if known[answer] == len(firsts):
                    firsts.append(answer)
        return np.array([known[a] for a in answers], int)

    return classes


# --- one answer ---------------------------------------------------------------------


def choose(classes: np.ndarray, log_weights: np.ndarray, method: Method) -> np.ndarray:
    """Place of the chosen answer in each of R samples, int64 [R]; -1 for none.

    Args:
      classes: int [R, n], `MISSING` for a missing answer, in the order of sampling.
      log_weights: float [R, n], ignored by majority; -inf is weight 0.

    The place is the first of the winning class, or for `best` of the highest score.
    Raises ValueError for the weight NaN of an answer, with which none would win.
    """
    if method not in get_args(Method):
        raise ValueError(f"method: expected majority, weighted or best, got {method!r}")
    votes = classes != MISSING
    if not votes.size:
        return np.full(len(classes), -1)
    if method != "majority" and np.isnan(log_weights[votes]).any():
        raise ValueError("log_weights: expected numbers or -inf, got nan")
    if method == "best":
        standing = np.where(votes, log_weights, -np.inf)
        best = standing.max(axis=1, keepdims=True)
    else:
        if method == "majority":
            weights = votes.astype(float)
        else:
            weights = _relative_weights(np.where(votes, log_weights, -np.inf))
        rows, width = np.arange(len(classes))[:, None], classes.max() + 1
        cell = rows * width + np.where(votes, classes, 0)
        totals = np.bincount(cell.ravel(), weights.ravel())
        standing = np.where(votes, totals[cell], -np.inf)
        best = standing.max(axis=1, keepdims=True) * (1 - ROUNDING)
    wins = votes & (standing >= best)
    return np.where(wins.any(axis=1), wins.argmax(axis=1), -1)


def _relative_weights(log_weights):
    """Weights over the greatest of each row; all 0 where every weight is 0."""
    greatest = log_weights.max(axis=1, keepdims=True)
    return np.exp(log_weights - np.where(np.isfinite(greatest), greatest, 0))


def majority(answers: Sequence[str | None], classes: Classes = exact) -> str | None:
    """The most frequent answer; ties go to the first sampled; None when all miss."""
    return _answer(answers, np.zeros(len(answers)), "majority", classes)


def weighted_vote(
    answers: Sequence[str | None],
    log_weights: Sequence[float],
    classes: Classes = exact,
) -> str | None:
    """The answer of the greatest total weight; None when all miss."""
    return _answer(answers, log_weights, "weighted", classes)


def best_of(answers: Sequence[str | None], log_weights: Sequence[float]) -> str | None:
    """The answer of the highest score among those that have one; None when all miss."""
    return _answer(answers, log_weights, "best", exact)


def _answer(answers, log_weights, method, classes):
    place = choose(classes(answers)[None], np.asarray(log_weights)[None], method)[0]
    return answers[place] if place >= 0 else None


# --- curves over n ------------------------------------------------------------------


class Pool(NamedTuple):
    """S sampled solutions of one problem, in the order of sampling.

    classes: int [S], the class of each answer, `MISSING` where there is none
    values: float64 [S], what choosing it is worth: 1 or 0, or the share of tests passed
    log_weights: float64 [S], the evaluator's; see `aggregate`
    """

    classes: np.ndarray
    values: np.ndarray
    log_weights: np.ndarray


def graded(
    answers: Sequence[str | None],
    truths: Sequence[str],
    equal: Callable[[str, str], bool] = str.__eq__,
) -> np.ndarray:
    """1 for a right answer, 0 for a wrong or missing one, float64 [N].

    Greedy answers have one each; `equal(answer, truth)` is asked once per pair.
    """
    pairs = list(zip(answers, truths, strict=True))
    right = {(a, t): a is not None and bool(equal(a, t)) for a, t in set(pairs)}
    return np.array([right[pair] for pair in pairs], float)


def make_pool(
    answers: Sequence[str | None],
    truth: str,
    log_weights: Sequence[float] | None = None,
    *,
    classes: Classes = exact,
    equal: Callable[[str, str], bool] = str.__eq__,
) -> Pool:
    """A pool of answers grouped by `classes` and graded by `equal(answer, truth)`."""
    return Pool(
        classes(answers),
        graded(answers, [truth] * len(answers), equal),
        np.zeros(len(answers)) if log_weights is None else np.asarray(log_weights),
    )


class Curve(NamedTuple):
    """Values of what was chosen, in sub-samples of each count.

    draws: for each count, float64 [repeats, problems]; one repeat where the sub-sample
        is the pool, for there is no other
    """

    counts: tuple[int, ...]
    draws: tuple[np.ndarray, ...]

    @property
    def accuracy(self) -> np.ndarray:
        """Mean over repeats, float64 [counts, problems]."""
        return np.array([values.mean(axis=0) for values in self.draws])

    def spread(self, problems=slice(None)) -> tuple[float | None, ...]:
        """Standard deviation over repeats of the mean over (some) problems.

        None for the whole pool, and for one repeat. It is the noise of sampling alone,
        and less than that where sub-samples share much of one pool.
        """
        return tuple(
            float(values[:, problems].mean(axis=1).std(ddof=1))
            if len(values) > 1
            else None
            for values in self.draws
        )


def curve(
    pools: Sequence[Pool],
    method: Method,
    counts: Sequence[int],
    repeats: int,
    rng: np.random.Generator,
) -> Curve:
    """What a method chooses from 1, ..., n answers, by sub-samples of one pool.

    Each of `repeats` sub-samples is drawn without replacement, in random order; that of
    a smaller count begins that of a larger one. The same rng state gives the same
    sub-samples to every method and evaluator, so that their differences are paired.
    Raises ValueError when pools differ in size or a count is not in 1 .. size.
    """
    sizes = {len(pool.classes) for pool in pools}
    if len(sizes) != 1:
        raise ValueError(f"pools: expected one size of at least one, got {sizes}")
    (size,) = sizes
    if not all(1 <= n <= size for n in counts):
        raise ValueError(f"counts: expected 1 to {size}, the pool, got {tuple(counts)}")
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    whole = np.arange(size)[None]
    smaller = any(n < size for n in counts)
    columns = []
    for pool in pools:
        order = np.argsort(rng.random((repeats, size)), axis=1) if smaller else whole
        chosen = [whole if n == size else order[:, :n] for n in counts]
        columns.append([_values(pool, places, method) for places in chosen])
    draws = tuple(np.stack(values, axis=1) for values in zip(*columns, strict=True))
    return Curve(tuple(counts), draws)


def _values(pool: Pool, places: np.ndarray, method: Method) -> np.ndarray:
    """Value, float64 [R], of what is chosen among the answers at places [R, n]."""
    chosen = choose(pool.classes[places], pool.log_weights[places], method)
    index = places[np.arange(len(places)), chosen]  # where chosen is -1: unused
    return np.where(chosen < 0, 0.0, pool.values[index])


def majority_accuracy(
    pools: Sequence[Sequence[str | None]],
    answers: Sequence[str],
    count: int,
    repeats: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Share of sub-samples whose majority is right, float64 [problems]; see `curve`."""
    made = [make_pool(p, a) for p, a in zip(pools, answers, strict=True)]
    return curve(made, "majority", [count], repeats, rng).accuracy[0]


def pass_at(right: np.ndarray, count: int) -> np.ndarray:
    """Probability, float64 [problems], that one of `count` samples is right.

    Args:
      right: bool [problems, S]. Unbiased: 1 - C(S - c, count) / C(S, count) with c of S
        right (Chen et al. 2021, equation 1). Raises ValueError for a count over S.
    """
    right = np.asarray(right, bool)
    size = right.shape[1]
    if not 1 <= count <= size:
        raise ValueError(f"count: expected 1 to {size}, got {count}")
    wrong = size - right.sum(axis=1)
    # C(w, n) / C(S, n) as a product of n ratios, each in [0, 1]
    i = np.arange(count)
    ratios = np.maximum(wrong[:, None] - i, 0) / (size - i)
    return 1 - ratios.prod(axis=1)
