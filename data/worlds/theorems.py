"""A world of theorems with known proofs, in six sources, and its splits.

    prop           random propositional formulas that are provable
    forward        hypotheses from which rules, applied one by one, lead to the goal
    equations      identities, chains of rewriting, functions, multiples
    linear         systems with integer solutions
    inequalities   squares that are never negative
    induction      sequences in closed form

Every proof is replayed and checked by the kernel. No two theorems of the splits are the
same up to names and symmetry (`theorems_canonical`), and none is one of the 244
held-out problems of `minif2f_244.jsonl`, which is written once, by

    python -m data.worlds.theorems --write

and never trained on. The split "novel" is made of theorems whose known proofs use a
rule of NOVEL; what could use one is in no other split.
"""

import argparse
import dataclasses
import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.minilean.parser import parse_statement
from data.worlds import (
    theorems_equations,
    theorems_forward,
    theorems_induction,
    theorems_inequalities,
    theorems_linear,
    theorems_prop,
)
from data.worlds.draws import Draws
from data.worlds.theorems_canonical import canonical
from data.worlds.theorems_checked import Theorem, parsed, theorem
from data.worlds.theorems_words import length

SOURCES = {
    "prop": theorems_prop.draw,
    "forward": theorems_forward.draw,
    "equations": theorems_equations.draw,
    "linear": theorems_linear.draw,
    "inequalities": theorems_inequalities.draw,
    "induction": theorems_induction.draw,
}
NOVEL = frozenset(
    {
        "(_ ∨ _) → _",
        "¬(_ ∨ _)",
        "difference of squares",
        "iterated function",
        "product with a multiple",
        "three unknowns",
        "cube of the solution",
        "three squares",
        "product bounded by a number",
        "triangular sum",
        "monotone",
    }
)
HELD_OUT = Path(__file__).with_name("minif2f_244.jsonl")
HELD_OUT_SEED, HELD_OUT_SIZE, VERSION = 244, 244, "v2"
TRIES = 4000  # drafts for one theorem before a source is called exhausted


@dataclasses.dataclass(frozen=True)
class TheoremWorld:
    """The knobs: of 244 theorems so many are of each source; caps on their size.

    state_tokens, tactic_tokens: what a state and a tactic of a known proof have at most
    """

    shares: tuple[int, ...] = (60, 64, 36, 36, 24, 24)
    state_tokens: int = 112
    tactic_tokens: int = 28

    def __post_init__(self):
        if len(self.shares) != len(SOURCES) or min(self.shares) < 0:
            raise ValueError(f"shares: expected {len(SOURCES)} counts >= 0")
        if not sum(self.shares):
            raise ValueError("shares: expected one above 0")
        if min(self.state_tokens, self.tactic_tokens) < 1:
            raise ValueError("state_tokens, tactic_tokens: expected at least 1")


@dataclasses.dataclass(frozen=True)
class TheoremSizes:
    """How many theorems each split has."""

    train: int = 3000
    development: int = 150
    test: int = 150
    novel: int = 150

    def __post_init__(self):
        if min(dataclasses.astuple(self)) < 0:
            raise ValueError("sizes: expected no negative ones")


class TheoremSplits(NamedTuple):
    train: tuple[Theorem, ...]
    development: tuple[Theorem, ...]
    test: tuple[Theorem, ...]
    novel: tuple[Theorem, ...]


def splits(
    world: TheoremWorld, seed: int, sizes: TheoremSizes = TheoremSizes()
) -> TheoremSplits:
    """The splits of a seed: disjoint, and without the held-out problems.

    Raises DataError when a source cannot give as many theorems.
    """
    seen = set(held_out_forms())
    parts = {}
    for purpose, name in enumerate(("novel", "test", "development", "train")):
        rng = np.random.default_rng([seed, purpose])
        size = getattr(sizes, name)
        parts[name] = _drawn(world, rng, size, name, seen, novel=name == "novel")
    return TheoremSplits(**parts)


def pairs(theorems) -> list[tuple[str, str]]:
    """(state, tactic) of every step of the known proofs."""
    return [
        step for one in theorems for step in zip(one.states, one.proof, strict=True)
    ]


def _drawn(
    world: TheoremWorld, rng, size: int, name: str, seen: set, novel: bool
) -> tuple[Theorem, ...]:
    draws, theorems = Draws(rng), []
    for source, count in zip(SOURCES, apportioned(size, world.shares), strict=True):
        for i in range(count):
            drawn = _one(world, draws, source, f"{name}_{source}_{i}", seen, novel)
            theorems.append(drawn)
    return tuple(theorems)


def _one(world, draws: Draws, source: str, name: str, seen: set, novel: bool):
    """A theorem that is not in `seen`, to which it is added."""
    found = 0
    while found < TRIES:
        draft = SOURCES[source](draws)
        if draft is None:
            continue
        found += 1
        rules = draft.shapes if novel else draft.around | draft.shapes
        if bool(rules & NOVEL) != novel:
            continue
        statement = parsed(draft, name)
        form = canonical(statement)
        if form in seen:
            continue
        checked = theorem(draft, statement, source)
        if checked is None or not _fits(world, checked):
            continue
        seen.add(form)
        return checked
    raise DataError(f"{name}: {TRIES} drafts from {source!r}, and nothing new in them")


def _fits(world: TheoremWorld, one: Theorem) -> bool:
    return all(length(state) <= world.state_tokens for state in one.states) and all(
        length(tactic) <= world.tactic_tokens for tactic in one.proof
    )


def apportioned(total: int, shares: tuple[int, ...]) -> list[int]:
    """`total` in parts as `shares`, the largest remainders rounded up."""
    exact = [total * share / sum(shares) for share in shares]
    parts = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


# --- the held-out problems ----------------------------------------------------------


def draw_held_out() -> tuple[Theorem, ...]:
    """The held-out problems, drawn anew: what `--write` writes."""
    rng = np.random.default_rng([HELD_OUT_SEED, 244])
    return _drawn(TheoremWorld(), rng, HELD_OUT_SIZE, "mini", set(), novel=False)


def rows(theorems) -> str:
    """JSON lines in the fields of miniF2F, with the known proof and its length."""
    return "".join(
        json.dumps(
            {
                "full_name": one.name,
                "statement": one.statement,
                "split": "test",
                "file_path": HELD_OUT.name,
                "url": "embedded",
                "commit": VERSION,
                "source": one.source,
                "steps": one.difficulty,
                "difficulty": one.level,
                "shapes": sorted(one.shapes),
                "proof": one.proof,
            },
            ensure_ascii=False,
        )
        + "\n"
        for one in theorems
    )


@functools.cache
def held_out() -> tuple[dict, ...]:
    """The rows of the held-out problems."""
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


@functools.cache
def held_out_forms() -> frozenset[int]:
    """Their canonical forms."""
    return frozenset(canonical(parse_statement(r["statement"])) for r in held_out())


def main():
    parser = argparse.ArgumentParser(description="The 244 held-out problems.")
    parser.add_argument("--write", action="store_true", help=f"write {HELD_OUT.name}")
    text = rows(draw_held_out())
    if parser.parse_args().write:
        HELD_OUT.write_text(text, encoding="utf-8")
    else:
        same = HELD_OUT.read_text(encoding="utf-8") == text
        print(f"{HELD_OUT.name} is {'as' if same else 'not as'} drawn")


if __name__ == "__main__":
    main()
