"""The vote of several paths, and what fewer paths would have said."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

Tie = Literal["shortest", "first"]


def vote(
    answers: Sequence[str],
    *,
    key: Callable[[str], str] = str,
    tie: Tie = "shortest",
    weights: Sequence[float] | None = None,
) -> str:
    """The most frequent answer; "" where none says anything.

    Args:
      key: answers of one key vote together, for the first of them. The original code
        counts strings as they are, so that "Paris" and "paris" split the vote.
      tie: among the most frequent the shortest string, then the first (the original
        code's rule); or simply the first.
      weights: of each answer's vote; 1 each by default.
    """
    if tie not in ("shortest", "first"):
        raise ValueError(f"tie: expected shortest or first, got {tie!r}")
    votes: dict[str, float] = {}
    spelled: dict[str, str] = {}
    for i, answer in enumerate(answers):
        if answer:
            counted = key(answer)
            votes[counted] = votes.get(counted, 0) + (
                1 if weights is None else weights[i]
            )
            spelled.setdefault(counted, answer)
    if not votes:
        return ""
    most = max(votes.values())
    best = [spelled[k] for k, count in votes.items() if count == most]
    return min(best, key=len) if tie == "shortest" else best[0]


class PathCurve(NamedTuple):
    """Scores of votes of fewer paths, by sub-samples of one pool.

    scores: float64 [counts, repeats, questions]
    """

    counts: tuple[int, ...]
    scores: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float64 [counts]"""
        return self.scores.mean(axis=(1, 2))

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation over repeats of the mean over questions, float64 [counts].

        0 where a sub-sample is the whole pool.
        """
        return self.scores.mean(axis=2).std(axis=1, ddof=1)


def path_curve(
    pools: Sequence[Sequence[str]],
    score: Callable[[int, str], float],
    counts: Sequence[int],
    repeats: int,
    rng: np.random.Generator,
    choose: Callable[[Sequence[str]], str] = vote,
) -> PathCurve:
    """What votes of `counts` paths score, each sub-sample without replacement.

    Args:
      pools: the answers of all paths to each question; score: (question, answer).

    Raises ValueError for pools of different sizes, or a count that they do not have.
    """
    sizes = {len(pool) for pool in pools}
    if len(sizes) != 1:
        raise ValueError(f"pools: expected one size, got {sorted(sizes)}")
    (size,) = sizes
    if not all(1 <= count <= size for count in counts):
        raise ValueError(f"counts: expected 1 to {size}, got {tuple(counts)}")
    if repeats < 2:
        raise ValueError(f"repeats: expected at least 2, got {repeats}")
    scores = np.zeros((len(counts), repeats, len(pools)))
    for q, pool in enumerate(pools):
        for r in range(repeats):
            order = rng.permutation(size)
            for c, count in enumerate(counts):
                # In the order of sampling, which decides between equal votes.
                chosen = [pool[i] for i in sorted(order[:count])]
                scores[c, r, q] = score(q, choose(chosen))
    return PathCurve(tuple(counts), scores)
