"""Greedy predictions on known proofs, tactics that were tried; shares and gains.

Counts are of problems, so that shares have intervals over problems and seeds.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data.records import read_records
from research.intervals import Resamples, bootstrap_of
from research.lean_star import thoughts
from research.lean_star.results import Results
from research.report import Interval


class Step(NamedTuple):
    """A step of a known proof, and what a system wrote there, greedily.

    problem: its place among those of its split.
    """

    problem: int
    state: str
    known: str
    output: str
    tactic: str

    @property
    def right(self) -> bool:
        return self.tactic == self.known

    @property
    def same_head(self) -> bool:
        return thoughts.head(self.tactic) == thoughts.head(self.known)


Steps = Sequence[Sequence[Step]]  # of every seed
Estimate = Interval | float | None


def predictions(results: Results, system: str) -> Steps:
    """Of the problems with known proofs, in their order."""
    rows = [row for row in results.rows if row["split"] == results.known]
    places = {row["name"]: i for i, row in enumerate(rows)}
    found = []
    for stage in results.stages("predicted", system):
        own = []
        for record in read_records(stage.folder / "predicted.jsonl"):
            row = record.row
            if row["split"] != results.known:
                continue
            at = places[row["name"]]
            known = (rows[at][key][row["step"]] for key in ("states", "proof"))
            own.append(Step(at, *known, row["output"], row["tactic"]))
        found.append(own)
    return found


def tally(results: Results, steps: Steps, what: Callable[[Step], bool]) -> np.ndarray:
    """Of how many of each problem's steps something holds [seeds, problems]."""
    problems = int(results.of(results.known).sum())
    found = [Counter(step.problem for step in own if what(step)) for own in steps]
    return np.array([[own[i] for i in range(problems)] for own in found], float)


def ratio(some, whole, draws: Resamples) -> Estimate:
    """A share of counts [seeds, problems]; without an interval where it has none."""
    if not np.sum(whole):
        return None
    found = bootstrap_of(lambda a, b: a / b, (some, whole), draws)
    return float(np.sum(some) / np.sum(whole)) if found is None else found


def gain(one, one_of, other, other_of, draws: Resamples) -> Estimate:
    """A share minus another, of counts [seeds, problems], in percentage points."""
    if not np.sum(one_of) or not np.sum(other_of):
        return None
    arrays = (one, one_of, other, other_of)
    found = bootstrap_of(lambda a, b, c, d: 100 * (a / b - c / d), arrays, draws)
    if found is None:
        of_each = np.sum(one) / np.sum(one_of), np.sum(other) / np.sum(other_of)
        return 100 * float(of_each[0] - of_each[1])
    return found


def plain(some, whole) -> float | None:
    """A share of counts, without an interval; None of none."""
    return float(np.sum(some) / np.sum(whole)) if np.sum(whole) else None


def calls(results: Results, system: str, seed: int) -> list[dict]:
    """Every tactic that was tried on the few problems of which they were kept."""
    path = results.made["proved"][f"{system} {seed}"].folder / "calls.jsonl"
    if not path.stat().st_size:  # no theorem of these could be started
        return []
    return [record.row for record in read_records(path)]
