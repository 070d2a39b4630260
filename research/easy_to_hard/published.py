"""From the published files of MATH, PRM800K, MetaMath and Math-Shepherd to rows.

A stage takes the levels whose labels it may use. Solutions, answers and step labels of
other levels reach no file but test.jsonl, so that what reads the others cannot leak."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.errors import DataError
from data.records import write_jsonl
from data.sets import math500, math_shepherd, metamath, prm800k
from data.sets.math_shepherd import ShepherdRules
from data.sets.metamath import MetaMathRules
from data.sets.prm800k import Prm800kRules
from data.sets.rows import write_shuffled
from data.sets.text import prompt_of
from data.tokenizers import load_tokenizer, save_tokenizer
from train.settings import at_least, positive

SHOWN = 20  # bad rows whose reasons a result keeps


@dataclass(frozen=True)
class MathFiles:
    """Published files, and how they become rows.

    math_train and math_test are PRM800K's `math_splits`; prm800k its phase files. Steps
    to imitate come from PRM800K and MetaMath, whichever are given, else from MATH's own
    solutions; labelled steps from PRM800K and Math-Shepherd.

    validation: as the original code draws it, or "uniform" as the thesis says, then
        `validation_size` of all problems; prompts of at most `max_prompt` tokens.
    select_on: levels whose answers are in development.jsonl; "all" is the original's,
        which chooses checkpoints by hard answers.
    keep_validation: leave validation problems in PRM800K's rows, as the original does.
    rl: questions to learn from by rewards; "wanted" leaves those without answers out.
    """

    checkpoint: str
    math_train: str
    math_test: str
    prm800k: tuple[str, ...] = ()
    metamath: str | None = None
    math_shepherd: str | None = None
    validation: Literal["stratified", "uniform"] = "stratified"
    validation_size: int = positive(500)
    max_prompt: int = at_least(1, 496)
    select_on: Literal["wanted", "all"] = "wanted"
    keep_validation: bool = False
    rl: Literal["all", "wanted"] = "all"
    prm800k_rules: Prm800kRules = Prm800kRules()
    metamath_rules: MetaMathRules = MetaMathRules()
    shepherd_rules: ShepherdRules = ShepherdRules()
    on_bad_row: Literal["error", "skip"] = "error"
    seed: int = at_least(0, 1234)


def make_math(folder: Path, *, task: MathFiles, levels: Sequence[int]) -> dict:
    """Stage: rows of everything that a run with the labels of `levels` may see.

    Leaves train, development and test.jsonl ({prompt, completion, answer, level}),
    rl.jsonl ({prompt, answer or null, level}), sft.jsonl ({prompt, completion, eos,
    level}), steps.jsonl ({prompt, steps, labels, level}) where there is a source of
    labels, and the tokenizer's files. Returns counts of rows, and of what was left out.
    """
    levels = tuple(levels)
    if not levels or not set(levels) <= set(math500.LEVELS):
        raise DataError(f"levels: expected some of 1 to 5, got {levels}")
    tokenizer = load_tokenizer(task.checkpoint)
    bad = BadRows(task.on_bad_row)

    def length(text: str) -> int:
        return len(tokenizer.encode(text))

    test = math500.read_math(task.math_test, bad.report)
    problems = math500.read_math(task.math_train, bad.report)
    split = math500.carve_validation(
        problems,
        test,
        task.seed,
        task.validation,
        task.validation_size,
        fits=lambda p: length(prompt_of(p.problem)) <= task.max_prompt,
    )
    tested = {math500.bare(p.problem) for p in test}
    train, validation = (
        [p for p in part if math500.bare(p.problem) not in tested]
        for part in (split.train, split.validation)
    )
    selecting = math500.LEVELS if task.select_on == "all" else levels
    development = [p for p in validation if p.level in selecting]
    if not any(p.level in levels for p in train):
        raise DataError(f"{task.math_train}: no problem of levels {levels} to train on")

    supervised = [p for p in train if p.level in levels]
    asked = train if task.rl == "all" else supervised
    row = math500.problem_row
    counts = {
        "train": _write(folder / "train.jsonl", map(row, supervised)),
        "development": _write(folder / "development.jsonl", map(row, development)),
        "test": _write(folder / "test.jsonl", map(row, test)),
        "rl": _write(folder / "rl.jsonl", (math500.rl_row(p, levels) for p in asked)),
    }
    left_out = {"also_in_test": len(problems) - len(train) - len(validation)}
    unfilled = {f"{subject}, {n}": k for (subject, n), k in split.unfilled.items()}
    if unfilled:
        left_out["validation"] = unfilled
    known = train + validation if task.keep_validation else train
    held_out = test if task.keep_validation else test + validation

    def allowed(unlisted: math500.Unlisted) -> math500.Allowed:
        return math500.allowed(known, held_out, levels, unlisted)

    sft = _sft_sources(task, allowed, length, bad.report)
    sources = {
        "sft": sft or {"math": lambda counts: map(_sft_row, supervised)},
        "steps": _step_sources(task, allowed, length, bad.report),
    }
    for name, makers in sources.items():
        if not makers:
            continue
        seen = {source: Counter() for source in makers}
        rows = (r for source, make in makers.items() for r in make(seen[source]))
        counts[name] = write_shuffled(folder / f"{name}.jsonl", rows, task.seed)
        left_out[name] = {source: dict(c) for source, c in seen.items()}
        if not counts[name]:
            raise DataError(f"{name}: no row of levels {levels}: {left_out[name]}")
    save_tokenizer(tokenizer, folder / "tokenizer")
    return {"counts": counts, "left_out": left_out, **bad.result()}


# What makes rows, and counts what it leaves out.
_Sources = dict[str, Callable[[Counter], Iterable[dict]]]


def _sft_sources(task: MathFiles, allowed, length, on_bad) -> _Sources:
    sources: _Sources = {}
    if task.prm800k:
        rules = task.prm800k_rules
        sources["prm800k"] = lambda counts: prm800k.sft_rows(
            prm800k.read_prm800k(task.prm800k, on_bad),
            allowed(rules.unlisted),
            counts,
            rules,
            length,
        )
    if task.metamath is not None:
        sources["metamath"] = lambda counts: metamath.sft_rows(
            metamath.read_metamath(task.metamath, on_bad),
            allowed("drop"),
            counts,
            task.metamath_rules,
        )
    return sources


def _step_sources(task: MathFiles, allowed, length, on_bad) -> _Sources:
    sources: _Sources = {}
    if task.prm800k:
        rules = task.prm800k_rules
        sources["prm800k"] = lambda counts: prm800k.label_rows(
            prm800k.read_prm800k(task.prm800k, on_bad),
            allowed(rules.unlisted),
            counts,
            rules,
            length,
        )
    if task.math_shepherd is not None:
        sources["math_shepherd"] = lambda counts: math_shepherd.label_rows(
            math_shepherd.read_math_shepherd(task.math_shepherd, on_bad),
            math_shepherd.by_rule(allowed("hard"), task.shepherd_rules),
            counts,
        )
    return sources


class BadRows:
    """Rows that could not be read: raised at once, or counted.

    `report` is what readers take as `on_bad`.
    """

    def __init__(self, on_bad_row: Literal["error", "skip"]):
        self.places: dict[str, None] = {}
        self.report = self._add if on_bad_row == "skip" else None

    def _add(self, error: DataError) -> None:
        self.places[str(error)] = None  # a file that is read twice counts once

    def result(self) -> dict:
        """How many they are (`bad_rows`), and the reasons of the first (`bad`).

        Says so on standard output where there are any.
        """
        if self.places:
            first = next(iter(self.places))
            print(f"left out {len(self.places)} rows that cannot be read: {first}, ...")
        return {"bad_rows": len(self.places), "bad": list(self.places)[:SHOWN]}


def _write(path: Path, rows: Iterable[dict]) -> int:
    rows = list(rows)
    write_jsonl(path, rows)
    return len(rows)


def _sft_row(p: math500.MathProblem) -> dict:
    row = math500.problem_row(p)
    return {k: row[k] for k in ("prompt", "completion", "level")} | {"eos": True}
