"""How well scores rank and how well their probabilities are calibrated, in NumPy.

Everywhere: scores are logits, p = sigmoid(score); labels are in 0 .. 1 and may be soft:
a label y counts as a share y of a positive and 1 - y of a negative; weights default to
1. All are [n]; sums are in float64. Where a number is not defined it is NaN.
"""

from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """A bin of a reliability diagram: means of p and of the labels, and its weight."""

    predicted: float
    observed: float
    weight: float


def probabilities(scores) -> np.ndarray:
    """1 / (1 + exp(-score)), float64, without overflow."""
    scores = np.asarray(scores, np.float64)
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, small) / (1 + small)


def auc(scores, labels, weights=None) -> float:
    """The chance that a positive scores above a negative, ties counted one half.

    Mann and Whitney's U over its maximum, in n log n. NaN without both classes.
    """
    scores, labels, weights = _arrays(scores, labels, weights)
    _, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, weights * labels)
    negative = np.bincount(group, weights * (1 - labels))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    wins = np.sum(positive * (below + negative / 2))
    return float(wins / pairs) if pairs > 0 else float("nan")


def brier(scores, labels, weights=None) -> float:
    """The mean of (p - label)^2 (Brier, 1950)."""
    scores, labels, weights = _arrays(scores, labels, weights)
    return _mean((probabilities(scores) - labels) ** 2, weights)


def log_loss(scores, labels, weights=None) -> float:
    """The mean of -label log p - (1 - label) log(1 - p), in nats."""
    scores, labels, weights = _arrays(scores, labels, weights)
    return _mean(np.logaddexp(0, scores) - labels * scores, weights)


def accuracy(scores, labels, weights=None) -> float:
    """The share of labels that p > 1/2 predicts; p = 1/2 is right half of the time."""
    scores, labels, weights = _arrays(scores, labels, weights)
    right = np.where(scores > 0, labels, np.where(scores < 0, 1 - labels, 0.5))
    return _mean(right, weights)


def reliability(scores, labels, weights=None, bins: int = 10) -> list[Bin]:
    """The bins of equal width in p that hold anything, from low p to high."""
    scores, labels, weights = _arrays(scores, labels, weights)
    p = probabilities(scores)
    index = np.minimum((p * bins).astype(int), bins - 1)
    sums = [
        np.bincount(index, v, bins) for v in (weights, weights * p, weights * labels)
    ]
    return [Bin(a / w, b / w, w) for w, a, b in zip(*map(list, sums), strict=True) if w]


def ece(scores, labels, weights=None, bins: int = 10) -> float:
    """Expected calibration error: the mean of |mean p - mean label| over bins.

    Bins of equal width in p, weighted by what they hold (Naeini et al., 2015).
    """
    found = reliability(scores, labels, weights, bins)
    gaps = np.array([abs(b.predicted - b.observed) for b in found])
    return _mean(gaps, np.array([b.weight for b in found]))


METRICS = {
    "loss": log_loss,
    "auc": auc,
    "brier": brier,
    "ece": ece,
    "accuracy": accuracy,
}


def calibration(scores, labels, weights=None) -> dict[str, float]:
    """Every metric of the table above, by name."""
    return {name: metric(scores, labels, weights) for name, metric in METRICS.items()}


def _arrays(scores, labels, weights):
    scores = np.asarray(scores, np.float64).reshape(-1)
    labels = np.asarray(labels, np.float64).reshape(-1)
    if weights is None:
        weights = np.ones_like(scores)
    weights = np.asarray(weights, np.float64).reshape(-1)
    if not len(scores) == len(labels) == len(weights):
        raise ValueError(
            f"expected equal lengths, got {len(scores)} scores, {len(labels)} labels "
            f"and {len(weights)} weights"
        )
    held = weights > 0
    return scores[held], labels[held], weights[held]


def _mean(values, weights) -> float:
    total = weights.sum()
    return float(np.sum(values * weights) / total) if total > 0 else float("nan")
