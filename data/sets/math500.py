"""MATH in PRM800K's split (`math_splits/{train,test}.jsonl`), and who may see what.

12,000 problems to train on and MATH500. A validation set is carved from the former;
levels 1 to 3 are easy, 4 and 5 hard. Which labels a run may use is decided here, by
`Allowed`, for every data set that is derived from these problems."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from data.errors import DataError
from data.records import Record
from data.sets.rows import OnBad, mismatch, parsed, text
from data.sets.text import prompt_of, with_answer

EASY = (1, 2, 3)
HARD = (4, 5)
LEVELS = EASY + HARD
Unlisted = Literal["hard", "keep", "drop"]


class MathProblem(NamedTuple):
    """One row; `unique_id` starts with its split of the original MATH: train, test."""

    problem: str
    solution: str
    answer: str
    subject: str
    level: int
    unique_id: str


class Split(NamedTuple):
    """Both in drawn order; `unfilled`: how many of a cell's quota found no problem."""

    train: list[MathProblem]
    validation: list[MathProblem]
    unfilled: dict[tuple[str, int], int]


def read_math(path, on_bad: OnBad = None) -> list[MathProblem]:
    """All problems of a `math_splits` file; DataError naming file, line and field."""
    problems = list(parsed(path, parse_math, on_bad))
    if not problems:
        raise DataError(f"{path}: expected at least one problem, the file has none")
    return problems


def parse_math(record: Record) -> MathProblem:
    """One row {problem, solution, answer, subject, level, unique_id}, checked."""
    row, where = record.row, record.where
    level = row.get("level")
    if type(level) is not int or level not in LEVELS:
        raise mismatch(where, "level", "an integer from 1 to 5", level)
    unique_id = text(where, row, "unique_id")
    if not unique_id.startswith(("train/", "test/")):
        raise mismatch(where, "unique_id", "'train/...' or 'test/...'", unique_id)
    fields = (text(where, row, k) for k in ("problem", "solution", "answer", "subject"))
    return MathProblem(*fields, level, unique_id)


def carve_validation(
    problems: Sequence[MathProblem],
    test: Sequence[MathProblem],
    seed: int,
    rule: Literal["stratified", "uniform"] = "stratified",
    size: int = 500,
    fits: Callable[[MathProblem], bool] = lambda problem: True,
) -> Split:
    """Splits `problems` into training and validation.

    "stratified" (original code) gives every (subject, level) as many problems as the
    test set has, from the original MATH's test problems that `fits` (a prompt of 496
    tokens there); the others stay in training. "uniform" (thesis) draws `size` of all.
    The order is Python's shuffle by `seed`, as in the original, whose seed is 1234.
    """
    drawn = list(problems)
    random.Random(seed).shuffle(drawn)
    if rule == "uniform":
        if not 0 < size < len(drawn):
            raise DataError(
                f"validation size: expected between 1 and {len(drawn) - 1}, got {size}"
            )
        return Split(drawn[size:], drawn[:size], {})
    quota = Counter((p.subject, p.level) for p in test)
    train, validation = [], []
    for p in drawn:
        cell = p.subject, p.level
        if quota[cell] > 0 and p.unique_id.startswith("test/") and fits(p):
            quota[cell] -= 1
            validation.append(p)
        else:
            train.append(p)
    return Split(train, validation, {cell: n for cell, n in quota.items() if n})


def problem_row(p: MathProblem) -> dict:
    """{prompt, completion, answer, level, ...}, with everything that is known."""
    return {
        "prompt": prompt_of(p.problem),
        "completion": with_answer(p.solution, p.answer),
        "answer": p.answer,
        "level": p.level,
        "subject": p.subject,
        "unique_id": p.unique_id,
    }


def rl_row(p: MathProblem, levels: Iterable[int]) -> dict:
    """A question to learn from by rewards; `answer` is None outside of `levels`.

    The original writes the string "Unavailable", which a policy could give as its
    answer, and keeps the true one beside it.
    """
    return {
        "prompt": prompt_of(p.problem),
        "answer": p.answer if p.level in levels else None,
        "level": p.level,
        "subject": p.subject,
        "unique_id": p.unique_id,
    }


def bare(problem: str) -> str:
    """A problem's text without white space, by which copies of it are recognised."""
    return "".join(problem.split())


class Verdict(NamedTuple):
    """Whether labels of a problem may be used, its level if known, and why."""

    keep: bool
    level: int | None
    reason: str


@dataclass(frozen=True)
class Allowed:
    """The problems whose labels a run may use: training problems of `wanted` levels.

    `levels` and `held_out` (test and validation) are keyed by `bare` text. `unlisted`
    says what a problem of unknown level counts as: "hard" (used only together with
    hard ones), "keep" (always used, as the original does with PRM800K), or "drop".
    """

    levels: dict[str, int]
    held_out: frozenset[str]
    wanted: tuple[int, ...]
    unlisted: Unlisted = "hard"

    def __call__(self, problem: str) -> Verdict:
        key = bare(problem)
        if key in self.held_out:
            return Verdict(False, None, "held_out")
        level = self.level(key)
        if level is not None:
            return Verdict(level in self.wanted, level, "other_level")
        with_hard = any(hard in self.wanted for hard in HARD)
        keep = self.unlisted == "keep" or (self.unlisted == "hard" and with_hard)
        return Verdict(keep, None, "unlisted")

    def level(self, key: str) -> int | None:
        """The level of a problem given as `bare` text; None if it is not known."""
        return self.levels.get(key)


def allowed(
    train: Sequence[MathProblem],
    held_out: Sequence[MathProblem],
    wanted: Sequence[int],
    unlisted: Unlisted = "hard",
) -> Allowed:
    """`Allowed` of the training problems, without any that is held out as well."""
    levels = {bare(p.problem): p.level for p in train}
    out = frozenset(bare(p.problem) for p in held_out)
    return Allowed(levels, out, tuple(wanted), unlisted)
