"""Lean proofs: LeanDojo Benchmark 4, miniF2F, and results of proof searches.

LeanDojo (`leandojo_benchmark_4/{random,novel_premises}/{train,val,test}.json`) is one
JSON list of theorems with their traced tactics; the train split of novel_premises makes
231,240 (state, tactic) pairs, none left out. miniF2F (`minif2f.jsonl`) has a statement
a line. Results (`results__{model}__{shard}.json`) are those of the original search.

A state is what Lean prints: goals apart by a blank line, hypotheses, then the target.
A first line "N goals" is no part of it."""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from data.errors import DataError
from data.paths import as_path
from data.records import Record, parse_json
from data.sets.rows import OnBad, mismatch, parsed, text

NO_GOALS = "no goals"
SPLITS = ("valid", "test")
# Part of the name of what is no problem, but a lemma for one.
HELPER = "sum_pairs"


class Step(NamedTuple):
    """One tactic: the states around it; `after` is "no goals" at the end."""

    tactic: str
    before: str
    after: str


class LeanTheorem(NamedTuple):
    """A theorem of LeanDojo; `steps` is empty where its proof is a term."""

    name: str
    file: str
    url: str
    commit: str
    steps: tuple[Step, ...]


class Statement(NamedTuple):
    """A problem of miniF2F; `statement` ends before `:=`."""

    name: str
    statement: str
    split: str
    file: str
    url: str
    commit: str


class Place(NamedTuple):
    """A step and where it is from."""

    step: Step
    name: str
    file: str


def goals_only(state: str) -> str:
    """A state without a first line that counts its goals."""
    return re.sub(r"\A\d+ goals\r?\n", "", state)


def read_leandojo(path, on_bad: OnBad = None) -> Iterator[LeanTheorem]:
    """Theorems of one split's file; DataError naming file, number and field.

    A theorem's place is its number in the list, from 1.
    """
    return parsed(path, parse_theorem, on_bad)


def parse_theorem(record: Record) -> LeanTheorem:
    """One theorem, checked as far as it is used."""
    row, where = record.row, record.where
    traced = row.get("traced_tactics")
    if not isinstance(traced, list):
        raise mismatch(where, "traced_tactics", "a list", traced)
    steps = tuple(
        _step(step, where, f"traced_tactics[{i}]") for i, step in enumerate(traced)
    )
    fields = (text(where, row, k) for k in ("full_name", "file_path", "url", "commit"))
    return LeanTheorem(*fields, steps)


def places(
    theorems: Iterable[LeanTheorem],
    counts: Counter,
    newlines: Literal["keep", "drop"] = "keep",
) -> Iterator[Place]:
    """Every step, in order. `counts` receives theorems, steps and what was dropped.

    newlines: the original trains on tactics of several lines (keep), but asks for no
    thoughts about them, and never learns one from itself (drop).
    """
    if newlines not in ("keep", "drop"):
        raise DataError(f"newlines: expected 'keep' or 'drop', got {newlines!r}")
    for theorem in theorems:
        counts["theorems"] += 1
        for step in theorem.steps:
            if newlines == "drop" and "\n" in step.tactic:
                counts["newline"] += 1
                continue
            counts["steps"] += 1
            yield Place(step, theorem.name, theorem.file)


def select(
    theorems: Sequence[LeanTheorem],
    counts: Counter,
    seed: int = 42,
    per_file: int = 5,
    per_theorem: int = 4,
    newlines: Literal["keep", "drop"] = "drop",
) -> list[Place]:
    """The steps to write thoughts for, drawn as in the original (Python's shuffle).

    Theorems are shuffled, and the first `per_file` of each file taken, those without a
    step included; of each, its tactics shuffled, the first `per_theorem`. What is
    dropped for its newline is dropped after that, as a smaller draw.
    """
    rng = random.Random(seed)
    drawn, taken, kept = list(theorems), Counter(), []
    rng.shuffle(drawn)
    for theorem in drawn:
        taken[theorem.file] += 1
        if taken[theorem.file] > per_file:
            continue
        steps = list(theorem.steps)
        rng.shuffle(steps)
        kept.append(theorem._replace(steps=tuple(steps[:per_theorem])))
    return list(places(kept, counts, newlines))


def read_minif2f(
    path,
    split: Literal["valid", "test"],
    counts: Counter,
    on_bad: OnBad = None,
) -> list[Statement]:
    """Statements of one split, of which the published file has 244 for "test".

    Helpers are left out and counted. DataError naming file, line and field, or where
    nothing is left.
    """
    if split not in SPLITS:
        raise DataError(f"split: expected one of {SPLITS}, got {split!r}")
    found = []
    for statement in parsed(path, parse_statement, on_bad):
        if HELPER in statement.name:
            counts["helpers"] += 1
        elif statement.split == split:
            found.append(statement)
    if not found:
        raise DataError(f"{path}: expected statements of the split {split!r}, got none")
    return found


def parse_statement(record: Record) -> Statement:
    """One line of miniF2F, checked."""
    row, where = record.row, record.where
    split = row.get("split")
    if split not in SPLITS:
        raise mismatch(where, "split", f"one of {SPLITS}", split)
    name, statement = text(where, row, "full_name"), text(where, row, "statement")
    fields = (text(where, row, k) for k in ("file_path", "url", "commit"))
    return Statement(name, statement, split, *fields)


class Thought(NamedTuple):
    """A step and the reasoning before it, as an oracle or a model wrote it."""

    state: str
    thought: str
    tactic: str
    name: str
    file: str


def read_thoughts(path, on_bad: OnBad = None) -> Iterator[Thought]:
    """Rows {state, thought, tactic, full_name, file_path}; DataError naming the field.

    What was published is only the text that such rows become.
    """
    return parsed(path, parse_thought, on_bad)


def parse_thought(record: Record) -> Thought:
    """One row, checked."""
    row, where = record.row, record.where
    keys = ("state", "thought", "tactic", "full_name", "file_path")
    return Thought(*(text(where, row, key) for key in keys))


class Result(NamedTuple):
    """What a search made of one problem: its attempts, and the problem's own row."""

    example: dict
    success: bool
    attempts: tuple[dict, ...]


ATTEMPT = {"theorem": str, "success": bool, "failure_reason": str}
FOUND = {"proof": list, "trace": list, "elapsed": float | int, "iteration": int}
TRACED = {"tactic": str, "state_before": str}


def read_results(path) -> tuple[list[Result], dict]:
    """(results, args) of a search's file. Raises DataError naming file and field.

    The original writes `elapsed` with the wrong sign: it is turned here, so that times
    are never negative.
    """
    path = as_path(path)
    try:
        whole = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("results"), list):
        raise DataError(f"{path}: expected an object with a list of results")
    args = whole.get("args", {})
    if not isinstance(args, dict):
        raise mismatch(str(path), "args", "an object", args)
    rows = enumerate(whole["results"])
    return [_result(row, str(path), f"results[{i}]") for i, row in rows], args


def write_results(path, results: Iterable[Result], args: dict) -> None:
    """Writes such a file, all of it or nothing, `elapsed` as it is: now - start."""
    rows = [
        {
            "attempt_results": list(result.attempts),
            "success": result.success,
            "example": result.example,
        }
        for result in results
    ]
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    for i, row in enumerate(rows):
        _result(row, str(path), f"results[{i}]")
    partial.write_text(json.dumps({"results": rows, "args": args}, indent=4))
    partial.replace(path)


def results_name(model: str, shard: int) -> str:
    """The file's name of a model (whose slashes become underscores) and a shard."""
    return f"results__{model.replace('/', '_')}__{shard}.json"


def shard(items: Sequence, index: int, count: int) -> Sequence:
    """The items of shard `index`: a contiguous part, the last with the rest."""
    if not 0 <= index < count:
        raise DataError(f"shard: expected between 0 and {count - 1}, got {index}")
    size = len(items) // count
    return items[index * size : None if index == count - 1 else (index + 1) * size]


def _step(step: Any, where: str, field: str) -> Step:
    if not isinstance(step, dict):
        raise mismatch(where, field, "an object", step)
    at = f"{where}: {field}"
    tactic, before = text(at, step, "tactic"), text(at, step, "state_before")
    return Step(tactic, goals_only(before), goals_only(text(at, step, "state_after")))


def _result(row: Any, where: str, field: str) -> Result:
    if not isinstance(row, dict):
        raise mismatch(where, field, "an object", row)
    at = f"{where}: {field}"
    _has(at, row, {"attempt_results": list, "success": bool, "example": dict})
    attempts = row["attempt_results"]
    for i, attempt in enumerate(attempts):
        here = f"{at}.attempt_results[{i}]"
        if not isinstance(attempt, dict):
            raise mismatch(at, f"attempt_results[{i}]", "an object", attempt)
        _has(here, attempt, ATTEMPT | (FOUND if attempt.get("success") else {}))
        for j, step in enumerate(attempt.get("trace", ())):
            if not isinstance(step, dict):
                raise mismatch(here, f"trace[{j}]", "an object", step)
            _has(f"{here}.trace[{j}]", step, TRACED)
        if [step["tactic"] for step in attempt.get("trace", ())] != attempt.get(
            "proof", []
        ):
            raise DataError(f"{here}: proof: expected the tactics of the trace")
    if row["success"] != any(attempt["success"] for attempt in attempts):
        raise DataError(f"{at}: success: expected whether an attempt succeeded")
    turned = (
        attempt | {"elapsed": abs(attempt["elapsed"])}
        if "elapsed" in attempt
        else attempt
        for attempt in attempts
    )
    return Result(row["example"], row["success"], tuple(turned))


def _has(where: str, row: dict, fields: dict) -> None:
    for name, kind in fields.items():
        value = row.get(name)
        plain = isinstance(value, kind) and (kind is bool or type(value) is not bool)
        if not plain:
            wanted = {list: "a list", str: "a string", dict: "an object"}
            expected = wanted.get(kind, "true or false" if kind is bool else "a number")
            raise mismatch(where, name, expected, value)
