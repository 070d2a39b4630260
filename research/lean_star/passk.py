"""How often a theorem is proved in K tries, and whether two systems differ."""

import math
from collections.abc import Sequence

import numpy as np


def pass_at_k(tries: int, right: int, k: int) -> float:
    """The chance that one of k tries, drawn of `tries` without repeats, is right.

    1 - C(n - c, k) / C(n, k), without bias for a new k tries (Chen et al. 2021). Raises
    ValueError where k is not in 1 .. tries, or right not in 0 .. tries.
    """
    if not 1 <= k <= tries or not 0 <= right <= tries:
        raise ValueError(
            f"expected 1 <= k <= tries and 0 <= right <= tries, got k={k}, "
            f"tries={tries}, right={right}"
        )
    return 1 - math.comb(tries - right, k) / math.comb(tries, k)


def curve(proved: Sequence[Sequence[int]], counts: Sequence[int]) -> np.ndarray:
    """pass@k [problems, len(counts)] of every problem's trajectories, 0 where none."""
    return np.array(
        [[pass_at_k(len(p), sum(map(bool, p)), k) for k in counts] for p in proved]
    )


def between(proved: Sequence[int], k: float) -> float:
    """`pass_at_k` for a k that may lie between two whole numbers, 0 included.

    On the line between the two: the chance of so many tries in the mean, where a share
    of the problems gets one more than the others. Raises ValueError where k is not in
    0 .. tries.
    """
    tries, right = len(proved), sum(map(bool, proved))
    if not 0 <= k <= tries:
        raise ValueError(f"expected 0 <= k <= tries, got k={k}, tries={tries}")
    low = math.floor(k)
    ends = [
        pass_at_k(tries, right, n) if n else 0.0 for n in (low, min(low + 1, tries))
    ]
    return ends[0] + (k - low) * (ends[1] - ends[0])


def wilson(right: int, total: int) -> tuple[float, float]:
    """The ends of Wilson's 95% score interval for a share."""
    from scipy.stats import binomtest

    found = binomtest(right, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Two-sided exact p-value of McNemar's test on the same problems.

    Of the problems that only one of the two solves, each is as likely to be on either
    side if the two do not differ; 1 where there are none.
    """
    from scipy.stats import binomtest

    one, other = np.asarray(one, bool), np.asarray(other, bool)
    only, either = int(np.sum(one & ~other)), int(np.sum(one != other))
    return float(binomtest(only, either).pvalue) if either else 1.0
