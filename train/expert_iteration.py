"""What a policy's own samples become data by: for ReST-EM, and for iterative DPO.

ReST-EM (arXiv 2312.06585): keep the correct samples, each once, at most so many of a
problem (`select`), and fine-tune the base on them; every round samples from the last
policy and trains from the base. Iterative DPO: draw pairs of samples whose scores
differ (`preference_rows`), and go on from the last policy, which is also the reference.
The rounds are stages of an experiment, see `research.easy_to_hard.policies`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def select(
    texts: Sequence[Sequence[str]],
    correct: Sequence[Sequence[bool]],
    *,
    most: int,
    seed: int,
    same: Callable[[str], str] = str.strip,
) -> list[list[int]]:
    """Filter, de-duplicate, cap: the indices of the samples to train on, by problem.

    Args:
      texts, correct: for each problem, its samples and whether each is right.
      most: samples kept of one problem (the thesis: 10 of 32). Which ones is drawn from
        the distinct right ones; a function of their set, the problem's number and
        `seed`, so neither order nor copies matter. The thesis gives no rule.
      same: texts that it maps to one text are duplicates; the first in the order of
        strings stands for them.

    Returns:
      indices in ascending order, for each problem; of equal texts the first.
    """
    if most < 1:
        raise ValueError(f"most: expected at least 1, got {most}")
    kept = []
    for problem, (of, right) in enumerate(zip(texts, correct, strict=True)):
        first: dict[str, int] = {}
        for i, (text, good) in enumerate(zip(of, right, strict=True)):
            if not good:
                continue
            at = first.setdefault(same(text), i)
            if text < of[at]:
                first[same(text)] = i
        distinct = sorted(first)
        rng = np.random.default_rng([seed, problem])
        drawn = rng.permutation(len(distinct))[:most]
        kept.append(sorted(first[distinct[j]] for j in drawn))
    return kept


def draw_pairs(
    scores: Sequence[float],
    texts: Sequence[str],
    gap: float = 1.0,
    most: int = 3,
    *,
    seed: int | Sequence[int],
) -> list[tuple[int, int]]:
    """(chosen, rejected) indices of one problem's samples, at most `most` pairs.

    A pair's scores differ by more than `gap`. With a score of process reward in 0..1
    plus 0/1 for the final answer, a gap of 1 takes a right answer, a wrong one, and a
    process reward that agrees (the thesis, and its appendix B.3); without known answers
    there are no pairs. Of equal texts the first counts. Where there are more pairs they
    are drawn evenly, by `seed`: a function of the set of (text, score).

    Raises:
      ValueError: a score is NaN.
    """
    if any(math.isnan(score) for score in scores):
        raise ValueError("scores: expected numbers, got nan")
    first: dict[str, int] = {}
    for i, (text, _) in enumerate(zip(texts, scores, strict=True)):
        first.setdefault(text, i)
    order = [first[text] for text in sorted(first)]
    pairs = [(i, j) for i in order for j in order if scores[i] - scores[j] > gap]
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:most]
    return [pairs[k] for k in drawn]


def preference_rows(
    prompts: Sequence[Any],
    texts: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
    *,
    gap: float = 1.0,
    most: int = 3,
    seed: int,
) -> list[dict]:
    """Rows {"prompt", "chosen", "rejected"} of all problems: see `draw_pairs`."""
    rows = []
    for problem, prompt in enumerate(prompts):
        of = texts[problem]
        for i, j in draw_pairs(scores[problem], of, gap, most, seed=[seed, problem]):
            rows.append({"prompt": prompt, "chosen": of[i], "rejected": of[j]})
    return rows
