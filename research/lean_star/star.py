"""What expert iteration learns from: a model's own verified proofs, as examples.

    of every theorem   different proofs (by their tactics), at most `most`, drawn
    of every proof     its steps; of steps on one unchanged state only the last
    of all steps       those whose tactic is one line, at most `per_head` of a kind
    of several rounds  of a theorem every script once, and at most `most` in all

The model's whole output is the target, word for word, so a thought that led to a proof
is learned as it was written. Regimes: `joint` starts anew from the SFT model on the
first examples and those of all rounds; `continue` goes on from the last model on the
newest alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.records import Record, read_records
from research.lean_star.outcomes import Outcome, Step


class Example(NamedTuple):
    """A step to learn: its theorem, the state, what the model wrote, the tactic.

    script: all tactics of the proof that it is a step of.
    """

    theorem: str
    state: str
    output: str
    tactic: str
    script: tuple[str, ...]


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
                    name = outcome.theorem.name
                    examples.append(Example(name, *step, script_of(steps)))
    kept = capped(examples, per_head, seed)
    notes["capped"] = len(examples) - len(kept)
    notes["examples"] = len(kept)
    notes["yield"] = notes["solved"] / max(1, notes["theorems"])
    notes["mean_length"] = float(np.mean(lengths)) if lengths else 0.0
    return Harvest(kept, notes)


def merged(rounds: Sequence[Sequence[Example]], *, most: int, seed: int) -> Harvest:
    """The examples of several rounds as one, in their order.

    A script that an earlier round has of the same theorem is left out. Proofs of
    earlier rounds stay; of a later one's so many are drawn, by `seed`, as make `most`
    of a theorem in all. notes: proofs that are kept, `repeated` scripts, and those
    beyond `most`.
    """
    examples: list[Example] = []
    notes = dict.fromkeys(("proofs", "repeated", "beyond"), 0)
    known: dict[str, set[tuple[str, ...]]] = {}
    for number, of_round in enumerate(rounds):
        found: dict[str, dict[tuple[str, ...], None]] = {}
        for one in of_round:
            found.setdefault(one.theorem, {})[one.script] = None
        taken = set()
        for place, (theorem, scripts) in enumerate(found.items()):
            before = known.setdefault(theorem, set())
            new = [script for script in scripts if script not in before]
            room = max(0, most - len(before))
            order = np.random.default_rng([seed, number, place]).permutation(len(new))
            drawn = [new[i] for i in order[:room]]
            notes["proofs"] += len(drawn)
            notes["repeated"] += len(scripts) - len(new)
            notes["beyond"] += len(new) - len(drawn)
            before.update(drawn)
            taken.update((theorem, script) for script in drawn)
        examples += [one for one in of_round if (one.theorem, one.script) in taken]
    return Harvest(examples, notes)


def read_examples(path: Path) -> list[Example]:
    """What `gather` left; none where nothing was proved. DataError for other rows."""
    if not path.stat().st_size:
        return []
    return [_example(record) for record in read_records(path)]


def _example(record: Record) -> Example:
    if set(record.row) != set(Example._fields):
        raise DataError(
            f"{record.where}: expected {', '.join(Example._fields)}, "
            f"got {', '.join(record.row)}"
        )
    return Example(**record.row | {"script": tuple(record.row["script"])})


def script_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """The tactics of a proof: by them proofs are told apart."""
    return tuple(step.tactic for step in steps)


def chosen(outcome: Outcome, most: int, seed: Sequence[int]) -> list[tuple[Step, ...]]:
    """At most `most` of a theorem's proofs, no two with the same tactics."""
    ordered = sorted(outcome.proofs, key=lambda p: (p.iteration, p.trajectory))
    distinct: dict[tuple[str, ...], tuple[Step, ...]] = {}
    for proof in ordered:
        distinct.setdefault(script_of(proof.steps), proof.steps)
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
