"""LeanDojo and miniF2F in the files of a miniature's world, and thoughts for them.

    known.jsonl        every traced tactic of LeanDojo's training split
    statements.jsonl   some of its theorems, for expert iteration to prove
    test.jsonl         miniF2F-test
    novel.jsonl        theorems of LeanDojo's test split: of novel_premises, they need a
                       premise that no proof of the training split uses

Problems of miniF2F have no known proof. Theorems of LeanDojo are found in the sources
of the prover's project, which has to be the commit that the benchmark was traced from.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.records import Record, write_jsonl
from data.sets import lean
from data.sets.rows import mismatch, parsed
from data.worlds.theorems_checked import level
from research.lean_star.oracle_endpoint import EndpointOracle
from research.lean_star.provers import read_source
from research.lean_star.repl import MINIF2F
from research.lean_star.retrospect import annotate
from research.lean_star.settings import LeanDojo, MiniF2F, Thoughts
from research.lean_star.sources import Place, cut
from research.lean_star.world import Pair
from research.stages import StageResult

WRITTEN = "thoughts.jsonl"


class Traced(NamedTuple):
    """A theorem of LeanDojo, and where its source stands."""

    theorem: lean.LeanTheorem
    start: Place
    end: Place


def write_thoughts(folder: Path, *, train: str, thoughts: Thoughts) -> dict:
    """Stage: asks the endpoint for thoughts, leaves them in thoughts.jsonl.

    Its answers are kept in raw.jsonl, so that a run that was cut short does not ask
    again. Raises DataError for a bad file, or where no thought is left.
    """
    theorems, counts = list(lean.read_leandojo(train)), Counter()
    per_file = thoughts.per_file or len(theorems)
    chosen = lean.select(
        theorems, counts, thoughts.seed, per_file, thoughts.per_theorem
    )
    oracle = EndpointOracle(thoughts.endpoint, folder)
    rows = annotate(oracle, chosen[: thoughts.steps], counts)
    if not rows:
        raise DataError(f"{thoughts.url}: none of its answers has a thought to learn")
    write_jsonl(folder / WRITTEN, rows)
    return {"counts": {**counts, **oracle.counts, "thoughts": len(rows)}}


def read_theorems(
    folder: Path,
    *,
    leandojo: LeanDojo,
    minif2f: MiniF2F,
    thoughts: StageResult | str,
    seed: int,
) -> dict:
    """Stage: the files that are named above; `thoughts` are rows, or a stage's.

    Thoughts belong to the steps with their theorem, state and tactic; those of other
    steps come as steps of their own. Raises DataError naming file, row and field, and
    where a split has nothing, or has theorems of another.
    """
    given = thoughts if isinstance(thoughts, str) else thoughts.folder / WRITTEN
    for path in (leandojo.train, leandojo.test, minif2f.file, given):
        if not Path(path).is_file():
            raise DataError(f"{path}: no such file")
    written = {
        (row.name, row.state, row.tactic): row for row in lean.read_thoughts(given)
    }
    counts: Counter[str] = Counter()
    tried: list[Traced] = []
    write_jsonl(folder / "known.jsonl", _known(leandojo.train, written, tried, counts))
    test = [found for found in read_traced(leandojo.test) if found.theorem.steps]
    both = {found.theorem.name for found in tried}
    both &= {found.theorem.name for found in test}
    if both:
        raise DataError(
            f"{leandojo.test}: {len(both)} theorems are in {leandojo.train}, too, such "
            f"as {min(both)}: expected another split"
        )
    rows = {
        "statements": _drawn(tried, leandojo, "statements", leandojo.statements, seed),
        "test": _minif2f(minif2f.file, counts),
        "novel": _drawn(test, leandojo, "novel", leandojo.problems, seed),
    }
    for name, (found, left_out) in rows.items():
        write_jsonl(folder / f"{name}.jsonl", found)
        counts[name] = len(found)
        counts[f"{name} without a source"] = left_out
    return {**counts, "counts": dict(counts)}


def read_traced(path: str) -> Iterator[Traced]:
    """Theorems of a split's file with their places; DataError naming the field."""
    return parsed(path, _traced)


def _traced(record: Record) -> Traced:
    places = []
    for key in ("start", "end"):
        value = record.row.get(key)
        if not isinstance(value, list) or [type(x) for x in value] != [int, int]:
            raise mismatch(record.where, key, "a line and a column", value)
        places.append(tuple(value))
    return Traced(lean.parse_theorem(record), *places)


def _known(path: str, written: dict, tried: list[Traced], counts) -> Iterator[dict]:
    """Rows of all steps. Fills `tried` with theorems, without their steps."""
    for found in read_traced(path):
        counts["known"] += 1
        for place in lean.places([found.theorem], Counter()):
            step = place.step
            row = written.pop((place.name, step.before, step.tactic), None)
            counts["pairs"] += 1
            counts["thoughts"] += row is not None
            thought = None if row is None else row.thought
            yield Pair(place.name, step.before, step.tactic, thought)._asdict()
        if found.theorem.steps:
            bare = found.theorem._replace(steps=())
            tried.append(found._replace(theorem=bare))
    for row in written.values():
        counts["pairs"] += 1
        counts["thoughts"] += 1
        counts["thoughts of other steps"] += 1
        yield Pair(row.name, row.state, row.tactic, row.thought)._asdict()
    if not counts["thoughts"]:
        raise DataError("thoughts: expected some, got none")


def _drawn(
    found: Sequence[Traced], given: LeanDojo, split: str, count: int, seed: int
) -> tuple[list[dict], int]:
    """(`count` problems at random, how many of others have no source that serves)."""
    rng = np.random.default_rng([seed, {"statements": 0, "novel": 1}[split]])
    rows: dict[str, dict] = {}
    left_out, reason = 0, "it has no theorem with a proof by tactics"
    for i in rng.permutation(len(found)):
        theorem, start, end = found[i]
        if len(rows) == count:
            break
        if theorem.name in rows:
            continue
        try:
            source = read_source(given.prover.project, theorem.file)
            before, statement = cut(source, start, end)
        except (DataError, ValueError) as error:
            left_out, reason = left_out + 1, f"{theorem.name}: {error}"
            continue
        steps = theorem.steps
        rows[theorem.name] = _row(theorem.name, statement, split, theorem.file) | {
            "steps": len(steps) or None,
            "level": level(len(steps)) if steps else None,
            "proof": [step.tactic for step in steps],
            "states": [step.before for step in steps],
            "file": theorem.file,
            "before": before,
        }
    if not rows:
        raise DataError(f"{given.prover.project}: no theorem of {split}: {reason}")
    return list(rows.values()), left_out


def _minif2f(path: str, counts: Counter) -> tuple[list[dict], int]:
    found = lean.read_minif2f(path, "test", counts)
    rows = [
        _row(one.name, one.statement, "test", f"{one.url}@{one.commit}")
        | {"header": MINIF2F}
        for one in found
    ]
    return rows, 0


def _row(name: str, statement: str, split: str, source: str) -> dict:
    """A problem as `world.make_world` leaves them, without a known proof."""
    return {
        "name": name,
        "statement": statement.strip().removesuffix(":=").rstrip(),
        "split": split,
        "source": source,
        "steps": None,
        "level": None,
        "proof": [],
        "states": [],
    }
