"""The settings of the chapter's experiment, checked before anything runs."""

import dataclasses
from typing import Literal

from train.settings import at_least, checked, positive

Normaliser = Literal["trivia", "squad"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A set of questions, and how they are put and scored.

    hops: 1, answered by a passage and in a word; or 2, by two passages, in a sentence.
    hints: whether the passage of a recitation stands behind its hint.
    """

    name: str
    hops: int = checked(lambda h: h in (1, 2), "1 or 2", 1)
    normaliser: Normaliser = "trivia"
    hints: bool = False

    def __post_init__(self):
        if self.hints and self.hops == 2:
            raise ValueError("hints: expected False for questions of two hops")


@dataclasses.dataclass(frozen=True)
class Methods:
    """How questions are answered.

    shots: exemplars of a prompt, of at most `length` tokens with it.
    paths: recitations, or chains of thought, or sampled answers, of a question.
    counts: numbers of paths that are reported; repeats: sub-samples of each.
    exemplar_seeds: draws of exemplars, for how much depends on which they are;
        on the first `robust_questions` of a task, with `robust_paths` each.
    """

    shots: int = at_least(0, 5)
    length: int = positive(1536)
    paths: int = positive(20)
    temperature: float = positive(0.7)
    top_k: int = at_least(0, 40)
    recitation_tokens: int = positive(128)
    answer_tokens: int = positive(16)
    slots: int = positive(64)
    counts: tuple[int, ...] = positive((1, 2, 3, 5, 10, 15, 20))
    repeats: int = at_least(2, 5)
    exemplar_seeds: int = at_least(2, 5)
    robust_questions: int = positive(256)
    robust_paths: int = positive(20)

    def __post_init__(self):
        if not self.counts or max(self.counts) > self.paths:
            raise ValueError(
                f"counts: expected at least one, none over paths, {self.paths}, got "
                f"{self.counts}"
            )
