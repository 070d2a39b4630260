"""MetaMathQA (`MetaMathQA-395K.json`): whole solutions, one sentence to a step.

Rows {query, response, type, original_question}. Those made from MATH are kept by the
level of their original question, those made from GSM8K always."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from data.records import Record
from data.sets.math500 import Allowed
from data.sets.rows import OnBad, mismatch, parsed, text
from data.sets.text import BLANK, prompt_of, with_answer

MARK = "The answer is: "
KINDS = ("MATH", "GSM")


class MetaMathRow(NamedTuple):
    """One row; `kind` is "MATH" or "GSM", the data set that it was made from."""

    query: str
    response: str
    kind: str
    original_question: str


@dataclass(frozen=True)
class MetaMathRules:
    """At most `per_query` solutions of a query in an epoch, with `epochs` laid end to
    end: the query's list is repeated `epochs` times and its first per_query * epochs
    are kept. The appendix says 3; the original's commands 4 times 3, trained on once.
    """

    per_query: int = 3
    epochs: int = 1

    def __post_init__(self):
        if self.per_query < 1 or self.epochs < 1:
            raise ValueError("per_query, epochs: expected at least 1")


def read_metamath(path, on_bad: OnBad = None) -> Iterator[MetaMathRow]:
    """Rows of a published file; DataError naming file, line and field."""
    return parsed(path, parse_metamath, on_bad)


def parse_metamath(record: Record) -> MetaMathRow:
    """One row, checked; `type` is MATH_... or GSM_... ."""
    row, where = record.row, record.where
    kind = text(where, row, "type").partition("_")[0]
    if kind not in KINDS:
        raise mismatch(where, "type", "MATH_... or GSM_...", row["type"])
    return MetaMathRow(
        text(where, row, "query"),
        text(where, row, "response"),
        kind,
        text(where, row, "original_question"),
    )


def sft_rows(
    rows: Iterable[MetaMathRow],
    allowed: Allowed,
    counts: Counter,
    rules: MetaMathRules | None = None,
) -> list[dict]:
    """{prompt, completion, eos, level} of whole solutions, pruned per query.

    `counts` receives how many rows were left out, by reason.
    """
    rules = rules or MetaMathRules()
    most = rules.per_query * rules.epochs
    groups: dict[str, list[dict]] = {}
    for row in rows:
        counts["rows"] += 1
        level = None
        if row.kind == "MATH":
            verdict = allowed(row.original_question)
            level = verdict.level
            if not verdict.keep:
                counts[verdict.reason] += 1
                continue
        parts = split_response(row.response)
        if parts is None:
            counts["no_answer"] += 1
            continue
        group = groups.setdefault(row.query, [])
        if len(group) == most:
            counts["pruned"] += 1
            continue
        solution, answer = parts
        group.append({
            "prompt": prompt_of(row.query),
            "completion": with_answer(sentence_steps(solution), answer),
            "eos": True,
            "level": level,
        })  # fmt: skip
    return [row for g in groups.values() for row in (g * rules.epochs)[:most]]


def split_response(response: str) -> tuple[str, str] | None:
    """Reasoning and answer; None where there is no "The answer is: " with an answer.

    GSM8K's own answer line, from "####" on, is no part of the reasoning.
    """
    reasoning, found, answer = response.rpartition(MARK)
    if not found or not answer.strip():
        return None
    return reasoning.partition("####")[0].strip(), answer.strip()


def sentence_steps(solution: str) -> str:
    """The text with a blank line after every sentence, by the original code's rules.

    A line's end, ". ", ".$" and "\\]" end a step; not after a comma, "\\[", Mr. Dr. Ms.
    Mrs. St. or Prof., and not before "$" or "\\]". Nothing but white space changes, and
    unlike in the original "$$" is never taken apart.
    """
    s = solution.replace("\n", BLANK).replace(". ", f".{BLANK}")
    s = re.sub(r"\.\$(?!\$)", f".${BLANK}", s)
    s = s.replace("\\]", f"\\]{BLANK}")
    s = BLANK.join(filter(None, map(str.strip, s.split("\n"))))
    s = re.sub(r"(,|\\\[)\n\n", r"\1 ", s)
    s = re.sub(r"\n\n(\$|\\\])", r" \1", s)
    s = re.sub(r"\b(Mr|Dr|Ms|Mrs|St|Prof)\.\n\n", r"\1. ", s)
    return s.strip()
