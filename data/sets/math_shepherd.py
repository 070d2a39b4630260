"""Math-Shepherd (`math-shepherd.jsonl`): steps labelled by rollouts, not by people.

Rows {input, label, task}. `input` is the question, " Step 1: ..." and so on, with the
mark "ки" after every step; `label` is the same text with "+" or "-" for each mark."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from data.errors import DataError
from data.records import Record
from data.sets.math500 import EASY, Allowed
from data.sets.rows import OnBad, mismatch, parsed, text
from data.sets.text import last_separated, prompt_of, separated, with_answer

MARK = "\u043a\u0438"  # two Cyrillic letters
FIRST = " Step 1: "
ANSWER_IS = "The answer is:"
SHORTEST, LONGEST = 5, 49  # of the prefixes that the original compares


class ShepherdRow(NamedTuple):
    """One row of MATH; `steps` and `labels` are empty where it has no first step."""

    task: str
    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]


@dataclass(frozen=True)
class ShepherdRules:
    """match: a question's level is that of the same problem, or, as in the original,
    also that of an easy problem with which it shares a prefix that no hard one has;
    that lets labels of hard problems into an easy set."""

    match: Literal["exact", "prefix"] = "exact"


def read_math_shepherd(path, on_bad: OnBad = None) -> Iterator[ShepherdRow]:
    """Rows of a published file; DataError naming file, line and field."""
    return parsed(path, parse_shepherd, on_bad)


def parse_shepherd(record: Record) -> ShepherdRow:
    """One row: its labels read in step with the marks. GSM8K's are not looked into."""
    row, where = record.row, record.where
    task = text(where, row, "task")
    if task not in ("MATH", "GSM8K"):
        raise mismatch(where, "task", "'MATH' or 'GSM8K'", task)
    marked, labelled = text(where, row, "input"), text(where, row, "label")
    if task == "GSM8K" or marked.count(FIRST) != 1:
        return ShepherdRow(task, marked, (), ())
    pieces = marked.split(MARK)
    labels, at = [], 0
    for i, piece in enumerate(pieces[:-1]):
        at += len(piece)
        sign = labelled[at : at + 1]
        if labelled[at - len(piece) : at] != piece or sign not in ("+", "-"):
            raise DataError(
                f"{where}: label: expected the text of input with '+' or '-' for "
                f"each mark; it differs at step {i + 1}"
            )
        labels.append(float(sign == "+"))
        at += 1
    if pieces[-1].strip() or labelled[at:].strip() or not labels:
        raise DataError(f"{where}: input: expected the mark {MARK!r} after every step")
    question, _, first = pieces[0].partition(FIRST)
    steps = [_step(piece) for piece in (first, *pieces[1:-1])]
    if not question.strip() or not all(steps):
        raise DataError(f"{where}: input: expected a question and steps, one is empty")
    body, found, answer = steps[-1].rpartition(ANSWER_IS)
    if found and answer.strip():
        steps[-1] = with_answer(body, answer)
    return ShepherdRow(task, question.strip(), tuple(steps), tuple(labels))


def label_rows(
    rows: Iterable[ShepherdRow], allowed: Allowed, counts: Counter
) -> Iterator[dict]:
    """{prompt, steps, labels, level} of whole solutions of problems that are allowed.

    `counts` receives how many rows were left out: of GSM8K, without exactly one first
    step (the original drops those without, and fails at two), or by `allowed`.
    """
    for row in rows:
        counts["rows"] += 1
        if row.task != "MATH":
            counts["gsm8k"] += 1
            continue
        if not row.steps:
            counts["no_first_step"] += 1
            continue
        verdict = allowed(row.question)
        if not verdict.keep:
            counts[verdict.reason] += 1
            continue
        yield {
            "prompt": prompt_of(row.question),
            "steps": [*separated(row.steps[:-1]), last_separated(row.steps[-1])],
            "labels": list(row.labels),
            "level": verdict.level,
        }


@dataclass(frozen=True)
class AllowedByPrefix(Allowed):
    """The original's rule for questions that match no problem: see `ShepherdRules`."""

    prefixes: dict[str, int] = field(default_factory=dict)

    def level(self, key: str) -> int | None:
        if (exact := self.levels.get(key)) is not None:
            return exact
        heads = (key[:n] for n in range(SHORTEST, min(LONGEST, len(key)) + 1))
        return next((self.prefixes[h] for h in heads if h in self.prefixes), None)


def by_rule(allowed: Allowed, rules: ShepherdRules) -> Allowed:
    """`allowed` with the levels that the rules give to questions."""
    if rules.match == "exact":
        return allowed
    easy: dict[str, int] = {}
    hard: set[str] = set()
    for key, level in allowed.levels.items():
        for n in range(SHORTEST, min(LONGEST, len(key)) + 1):
            if level in EASY:
                easy.setdefault(key[:n], level)
            else:
                hard.add(key[:n])
    prefixes = {head: level for head, level in easy.items() if head not in hard}
    return AllowedByPrefix(
        allowed.levels, allowed.held_out, allowed.wanted, allowed.unlisted, prefixes
    )


def _step(piece: str) -> str:
    return re.sub(r"^Step \d+:", "", piece.strip()).strip()
