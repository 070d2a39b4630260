"""From many answers to one: majority voting, and its accuracy by number of votes.

Stated rules: a missing answer does not vote; equal counts go to the answer that was
sampled first; no vote at all is no answer, which is wrong.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer; ties go to the first sampled; None when all miss."""
    votes = Counter(a for a in answers if a is not None)  # keeps the order of sampling
    return max(votes, key=votes.__getitem__) if votes else None


def majority_accuracy(
    pools: Sequence[Sequence[str | None]],
    answers: Sequence[str],
    count: int,
    repeats: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Share of sub-samples whose majority is right, float64 [problems].

    Sub-samples of `count` are drawn `repeats` times from each pool without replacement;
    a pool of exactly `count` has one, so repeating would only pretend to a spread.
    """
    right = np.zeros(len(pools))
    for i, (pool, answer) in enumerate(zip(pools, answers, strict=True)):
        if count == len(pool):
            right[i] = majority(pool) == answer
            continue
        for _ in range(repeats):
            chosen = rng.choice(len(pool), count, replace=False)
            right[i] += majority([pool[j] for j in chosen]) == answer
        right[i] /= repeats
    return right
