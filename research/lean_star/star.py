"""What expert iteration learns from: a model's own verified proofs, as examples.

    of every theorem   different proofs (by their tactics), at most `most`, drawn
    of every proof     its steps; of steps on one unchanged state only the last
    of all steps       those whose tactic is one line, at most `per_head` of a kind

The model's whole output is the target, word for word, so a thought that led to a proof
is learned as it was written. Regimes: `joint` starts anew from the SFT model on the
first examples and those of all rounds; `continue` goes on from the last model on the
newest alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.records import read_records
from research.lean_star.outcomes import Outcome, Step


class Example(NamedTuple):
    """A step to learn: its theorem, the state, what the model wrote, the tactic."""

    theorem: str
    state: str
    output: str
    tactic: str


class Harvest(NamedTuple):
    """Examples, and a count of each thing that was left out on the way."""

    examples: list[Example]
    notes: dict[str, float]


def harvest(
    outcomes: Sequence[Outcome],
    *,
    most: int = 3,
    per_head: int | None = None,
    seed: int,
) -> Harvest:
    """The examples of a round.

    Which proofs are kept of a theorem is drawn by `seed` and its place; of each set of
    equal scripts the first counts.
    """
    examples: list[Example] = []
    notes = dict.fromkeys(
        ("theorems", "solved", "proofs", "kept", "no_progress", "newline", "capped"), 0
    )
    lengths: list[int] = []
    for place, outcome in enumerate(outcomes):
        notes["theorems"] += 1
        notes["solved"] += outcome.solved
        notes["proofs"] += len(outcome.proofs)
        for steps in chosen(outcome, most, [seed, place]):
            notes["kept"] += 1
            moved = without_repeats(steps)
            notes["no_progress"] += len(steps) - len(moved)
            lengths.append(len(moved))
            for step in moved:
                if "\n" in step.tactic:
                    notes["newline"] += 1
                else:
                    examples.append(Example(outcome.theorem.name, *step))
    kept = capped(examples, per_head, seed)
    notes["capped"] = len(examples) - len(kept)
    notes["examples"] = len(kept)
    notes["yield"] = notes["solved"] / max(1, notes["theorems"])
    notes["mean_length"] = float(np.mean(lengths)) if lengths else 0.0
    return Harvest(kept, notes)


def read_examples(path: Path) -> list[Example]:
    """What `gather` left; none where nothing was proved."""
    if not path.stat().st_size:
        return []
    return [Example(**record.row) for record in read_records(path)]


def chosen(outcome: Outcome, most: int, seed: Sequence[int]) -> list[tuple[Step, ...]]:
    """At most `most` of a theorem's proofs, no two with the same tactics."""
    ordered = sorted(outcome.proofs, key=lambda p: (p.iteration, p.trajectory))
    distinct: dict[tuple[str, ...], tuple[Step, ...]] = {}
    for proof in ordered:
        script = tuple(step.tactic for step in proof.steps)
        distinct.setdefault(script, proof.steps)
    found = list(distinct.values())
    drawn = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[i] for i in sorted(drawn)]


def without_repeats(steps: Sequence[Step]) -> list[Step]:
    """The steps without those after which the state was the same: the later one stays.

    As in the original, states are compared as they are printed, and with the next only.
    """
    return [
        step
        for step, after in zip(steps, [*steps[1:], None], strict=True)
        if after is None or after.state != step.state
    ]


def capped(examples: Sequence[Example], most: int | None, seed: int) -> list[Example]:
    """At most `most` examples whose tactic begins with the same word, drawn by seed."""
    if most is None:
        return list(examples)
    taken: dict[str, int] = {}
    kept = []
    for i in np.random.default_rng([seed, 1]).permutation(len(examples)):
        head = (examples[i].tactic.split() or [""])[0]
        taken[head] = taken.get(head, 0) + 1
        if taken[head] <= most:
            kept.append(i)
    return [examples[i] for i in sorted(kept)]
