"""The miniature's data: theorems, their steps, and thoughts for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.minilean.parser import parse_statement
from data.records import read_records, write_jsonl
from data.tokenizers import save_tokenizer
from data.worlds import theorems as world
from data.worlds.theorems_checked import replay
from research.lean_star.environment import Theorem
from research.lean_star.oracle import RuleOracle
from research.lean_star.settings import Miniature
from research.lean_star.vocabulary import tokenizer
from research.stages import StageResult


class Pair(NamedTuple):
    """A step of a known proof; thought: what leads to it, or None."""

    theorem: str
    state: str
    tactic: str
    thought: str | None = None


def make_world(folder: Path, *, task: Miniature, seed: int) -> dict:
    """Stage: theorems, steps of known proofs with thoughts, and the tokenizer.

    Leaves known.jsonl ({theorem, state, tactic, thought}), statements.jsonl, test.jsonl
    and novel.jsonl (problems, with the steps of their known proofs), and the tokenizer.
    The test is the held-out set, the same for every seed.
    """
    sizes = world.TheoremSizes(
        train=task.known + task.statements, development=0, test=0, novel=task.novel
    )
    splits = world.splits(task.world, seed, sizes)
    order = np.random.default_rng([seed, 3]).permutation(len(splits.train))
    known = [splits.train[i] for i in sorted(order[: task.known])]
    statements = [splits.train[i] for i in sorted(order[task.known :])]
    pairs = _with_thoughts(known, round(task.annotated * len(known)), seed)
    write_jsonl(folder / "known.jsonl", [pair._asdict() for pair in pairs])
    rows = {
        "statements": [_row(t, "statements") for t in statements],
        "test": _held_out(task.held_out),
        "novel": [_row(t, "novel") for t in splits.novel],
    }
    for name, found in rows.items():
        write_jsonl(folder / f"{name}.jsonl", found)
    save_tokenizer(tokenizer(), folder / "tokenizer")
    return {
        "known": len(known),
        "pairs": len(pairs),
        "thoughts": sum(pair.thought is not None for pair in pairs),
        **{name: len(found) for name, found in rows.items()},
        "vocab_size": tokenizer().vocab_size,
    }


def read_pairs(data: StageResult) -> list[Pair]:
    """The steps to imitate."""
    return [Pair(**r.row) for r in read_records(data.folder / "known.jsonl")]


def read_rows(data: StageResult, names: Sequence[str]) -> list[dict]:
    """The problems of the named files, in order."""
    return [
        record.row
        for name in names
        for record in read_records(data.folder / f"{name}.jsonl")
    ]


def theorem_of(row: dict) -> Theorem:
    """A problem as the environment takes it."""
    return Theorem(
        row["name"],
        row["statement"] + " := by",
        row["split"],
        source=row["source"],
        difficulty=row["steps"],
    )


def _with_thoughts(known, annotated: int, seed: int) -> list[Pair]:
    chosen = set(np.random.default_rng([seed, 4]).permutation(len(known))[:annotated])
    pairs = []
    for i, one in enumerate(known):
        steps = list(zip(one.states, one.proof, strict=True))
        found = RuleOracle()(steps) if i in chosen else [None] * len(steps)
        pairs += [
            Pair(one.name, *step, thought)
            for step, thought in zip(steps, found, strict=True)
        ]
    return pairs


def _row(one, split: str) -> dict:
    return {
        "name": one.name,
        "statement": one.statement,
        "split": split,
        "source": one.source,
        "steps": one.difficulty,
        "level": one.level,
        "shapes": sorted(one.shapes),
        "proof": one.proof,
        "states": one.states,
    }


def _held_out(count: int) -> list[dict]:
    """So many of the held-out problems, evenly over the file, which is by source."""
    rows = world.held_out()
    picked = [rows[i * len(rows) // count] for i in range(count)]
    return [
        {
            "name": row["full_name"],
            "statement": row["statement"],
            "split": "test",
            "source": row["source"],
            "steps": row["steps"],
            "level": row["difficulty"],
            "shapes": row["shapes"],
            "proof": row["proof"],
            "states": replay(parse_statement(row["statement"]), row["proof"]).states,
        }
        for row in picked
    ]
