"""Loops with slots: sample, score, select, train, evaluate; again from the new policy.

ReST-EM (arXiv 2312.06585): keep the correct samples, each once, at most so many of a
problem, and fine-tune the base on them; every round samples from the last policy and
trains from the base. Iterative DPO: draw pairs of samples whose scores differ, and go
on from the last policy, which is also the reference. The two differ in their slots.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.errors import DataError


@dataclasses.dataclass(frozen=True)
class Slots:
    """What a round is made of; each is a function, and may memoise what it returns.

    `number` is that of the round, from 1 on; a policy is whatever `train` returns. Only
    `len` is asked of what `select` returns.
    """

    sample: Callable[[Any, int], Any]  # (policy, number) -> samples
    score: Callable[[Any, int], Any]  # (samples, number) -> scores
    select: Callable[[Any, Any, int], Any]  # (samples, scores, number) -> data
    train: Callable[[Any, Any, int], Any]  # (start, data, number) -> policy
    evaluate: Callable[[Any, int], float]  # (policy, number) -> e.g. accuracy


class Round(NamedTuple):
    """One round: the policy it ended with, its value, how much data it trained on."""

    number: int  # 0: the base, before any round
    policy: Any
    value: float
    selected: int


class Rounds(NamedTuple):
    """All rounds, the base first, and the earliest of those with the highest value."""

    rounds: tuple[Round, ...]
    best: Round


def one_round(slots: Slots, number: int, policy, start) -> Round:
    """Samples from `policy`, and trains `start` on what is selected.

    Raises DataError where nothing is.
    """
    samples = slots.sample(policy, number)
    data = slots.select(samples, slots.score(samples, number), number)
    if not len(data):
        raise DataError(f"round {number}: no sample passed the selection")
    trained = slots.train(start, data, number)
    return Round(number, trained, slots.evaluate(trained, number), len(data))


def expert_iteration(
    rounds: int, base, slots: Slots, *, restart: bool = True
) -> Rounds:
    """`rounds` rounds from `base`, and the choice of one by its value.

    restart: train from the base each round (ReST-EM); else from the last policy
    (iterative DPO). The thesis chooses by validation accuracy, strict improvement only.
    """
    done = [Round(0, base, slots.evaluate(base, 0), 0)]
    for number in range(1, rounds + 1):
        policy = done[-1].policy
        done.append(one_round(slots, number, policy, base if restart else policy))
    return Rounds(tuple(done), best_round(done))


def best_round(rounds: Sequence[Round]) -> Round:
    """The earliest round of the highest value; one that is NaN is never better."""
    best = rounds[0]
    for other in rounds[1:]:
        if other.value > best.value or (
            math.isnan(best.value) and not math.isnan(other.value)
        ):
            best = other
    return best


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
