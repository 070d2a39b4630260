"""How the answers of a kind of task are read off, compared and grouped for a vote.

Stages take the name of a set of rules, which is part of their fingerprint: "exact" for
the miniature world, whose answers are numbers, "math" for published problems.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data.worlds import arithmetic
from research.easy_to_hard.selection import MISSING, Classes, exact
from research.grading.equivalence import equivalent, group_answers
from research.grading.extract import marked_answer


class Rules(NamedTuple):
    """Functions of texts.

    final_answer: a response's answer, None where it has none.
    equal: (answer, truth) -> whether they say the same.
    classes: see `selection.make_pool`.
    joined: whether the last step and the answer are one part to a process model, which
        is read at the answer: people rated them together in PRM800K.
    """

    final_answer: Callable[[str], str | None]
    equal: Callable[[str, str], bool]
    classes: Classes
    joined: bool

    def is_right(self, text: str, truth: str) -> bool:
        """Whether a response's final answer is the true one."""
        answer = self.final_answer(text)
        return answer is not None and bool(self.equal(answer, truth))


def equivalent_classes(answers: Sequence[str | None]) -> np.ndarray:
    """Class of each answer, int64 [S], by MATH's rules; `MISSING` for a blank one."""
    found = group_answers(answers)
    return np.array([MISSING if c is None else c for c in found], int)


RULES = {
    "exact": Rules(arithmetic.final_answer, str.__eq__, exact, False),
    "math": Rules(marked_answer, equivalent, equivalent_classes, True),
}
