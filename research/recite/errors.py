"""Where an answer is lost: classes of questions, and of single paths.

Every question is in exactly one class, every path in exactly one cell (thesis, tables
4.4 and 4.5). A path recites the answer if the words of some gold answer stand next to
each other in its recitation, the hint included where it recites one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from research.recite.scoring import Normalise, contains, exact_match

MAJORITY, PATH, RECITED, NOT_RECITED = CLASSES = (
    "right by vote",
    "right on a path",
    "recited only",
    "not recited",
)


class Paths(NamedTuple):
    """The paths of one question: what each recited and answered, and their vote."""

    recitations: Sequence[str]
    answers: Sequence[str]
    voted: str
    golds: Sequence[str]


def question_class(paths: Paths, normalise: Normalise) -> str:
    """The first of CLASSES that holds.

    The order matters: a path may answer rightly without having recited the answer, and
    counts as a right path.
    """
    if exact_match(paths.voted, paths.golds, normalise):
        return MAJORITY
    if any(exact_match(a, paths.golds, normalise) for a in paths.answers):
        return PATH
    if any(contains(r, paths.golds, normalise) for r in paths.recitations):
        return RECITED
    return NOT_RECITED


def path_table(questions: Sequence[Paths], normalise: Normalise) -> np.ndarray:
    """Counts of paths, int64 [recited, right], each axis (no, yes)."""
    table = np.zeros((2, 2), int)
    for paths in questions:
        for recitation, answer in zip(paths.recitations, paths.answers, strict=True):
            recited = contains(recitation, paths.golds, normalise)
            table[int(recited), int(exact_match(answer, paths.golds, normalise))] += 1
    return table


def class_shares(questions: Sequence[Paths], normalise: Normalise) -> dict[str, float]:
    """The share of questions in each class; together 1."""
    found = [question_class(paths, normalise) for paths in questions]
    return {name: found.count(name) / len(found) for name in CLASSES}
