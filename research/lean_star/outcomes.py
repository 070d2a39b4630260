"""What a proof search leaves of every theorem, and what it cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.lean_star.environment import (
    Crashed,
    GaveUp,
    Illegal,
    Progress,
    Proved,
    Theorem,
)


class Step(NamedTuple):
    """A tactic that was taken: the state as printed, all that the model wrote."""

    state: str
    output: str
    tactic: str


class Call(NamedTuple):
    """A tactic that was tried: on which state, of which trajectory, and what came."""

    trajectory: int
    state: str
    output: str
    tactic: str
    result: str
    detail: str


class Proof(NamedTuple):
    """Its trajectory, the iteration (from 1) that closed it, and its steps."""

    trajectory: int
    iteration: int
    steps: tuple[Step, ...]


class Outcome(NamedTuple):
    """One theorem's.

    proved: for each trajectory, of all repeats, the iteration of its proof, or 0.
    counts: of tactics, tokens and results, see `tally`; cut: of prompts that lost their
    beginning; out_of_time: of attempts that a limit of time ended.
    crashed: why the theorem could not be started, or "": no failed proof. calls: all,
    where they were asked for. tree: of best-first search, its `best_first.Node`s.
    """

    theorem: Theorem
    proved: tuple[int, ...]
    proofs: tuple[Proof, ...]
    counts: Counter
    crashed: str
    calls: tuple[Call, ...] = ()
    tree: tuple = ()

    @property
    def solved(self) -> bool:
        return any(self.proved)

    def row(self) -> dict[str, Any]:
        """As JSON; of the proofs only the first, with all its steps."""
        first = self.first
        tree = {"tree": [node._asdict() for node in self.tree]} if self.tree else {}
        return {
            "name": self.theorem.name,
            "statement": self.theorem.statement,
            "split": self.theorem.split,
            "source": self.theorem.source,
            "difficulty": self.theorem.difficulty,
            "solved": self.solved,
            "proved": list(self.proved),
            "crashed": self.crashed,
            "out_of_time": self.counts["out_of_time"] > 0,
            "counts": dict(self.counts),
            "proof": [step._asdict() for step in first.steps] if first else None,
            **tree,
        }

    @property
    def first(self) -> Proof | None:
        """The first proof, by iteration and then by trajectory."""
        return min(self.proofs, default=None, key=lambda p: (p.iteration, p.trajectory))


class Throughput(NamedTuple):
    """What a search did in its time.

    writing: seconds in which the model wrote; waiting: in which it had nothing to write
    because tactics were being checked; checking: in which the environment worked.
    """

    seconds: float
    tactics: int
    tokens: int
    writing: float
    waiting: float
    checking: float

    def row(self) -> dict[str, float]:
        """Rates, and shares of the time, for people and reports."""
        total = max(self.seconds, 1e-9)
        return {
            "seconds": self.seconds,
            "tactics": self.tactics,
            "tokens": self.tokens,
            "tactics_per_second": self.tactics / total,
            "tokens_per_second": self.tokens / total,
            "model_waiting": self.waiting / total,
            "environment_idle": max(0.0, 1 - self.checking / total),
            "tactics_per_second_of_checking": self.tactics / max(self.checking, 1e-9),
        }

    def __str__(self):
        row = self.row()
        return (
            f"{row['tactics_per_second']:.0f} tactics/s, "
            f"{row['tokens_per_second']:.0f} tokens/s; the model waits "
            f"{row['model_waiting']:.1%} of the time, the environment is idle "
            f"{row['environment_idle']:.1%}"
        )


class SearchFacts(NamedTuple):
    """How far best-first search went, as means over problems or seeds.

    expansions, tactics, tokens: of a problem. empty: of the problems that were not
    solved, the share whose queue ran empty before their expansions were made or their
    time was up. distinct: different tactics of an expansion; single: the share of
    expansions with one alone. These two leave out candidates that lead to a state which
    was expanded before, as a tree does not have them. nan where there is nothing to
    take a mean of.
    """

    expansions: float
    tactics: float
    tokens: float
    empty: float
    distinct: float
    single: float


def search_facts(rows: Sequence[Mapping[str, Any]], most: int) -> SearchFacts:
    """Of outcomes of `best_first.search` (see `Outcome.row`); most: its expansions."""
    started = [row for row in rows if not row["crashed"]]
    means = [
        np.mean([row["counts"].get(key, 0) for row in rows])
        for key in ("expansions", "tactics", "tokens")
    ]
    empty = [
        counts["expansions"] < most and not counts.get("out_of_time")
        for counts in (row["counts"] for row in started if not row["solved"])
    ]
    distinct = [n for row in started for n in _distinct(row["tree"])]
    single = [n == 1 for n in distinct]
    means += [np.mean(x) if x else np.nan for x in (empty, distinct, single)]
    return SearchFacts(*map(float, means))


def _distinct(tree: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many different tactics each state that was expanded was tried with."""
    found = {i: {tactic for tactic, _ in node["failed"]}
             for i, node in enumerate(tree) if node["expanded"]}  # fmt: skip
    for node in tree[1:]:
        found[node["parent"]].add(node["tactic"])
    return [len(tactics) for tactics in found.values()]


def name_of(result) -> str:
    """progress, proved, illegal, timeout, gaveup or crashed."""
    return type(result).__name__.lower()


def detail_of(result) -> str:
    """Why a tactic did not do what was hoped for; "" if it did."""
    if isinstance(result, Illegal):
        return f"{result.kind}: {result.message}"
    if isinstance(result, GaveUp | Crashed):
        return result.reason
    return ""


def tally(counts: Counter, result, tokens: int, first: bool) -> None:
    """Counts one tactic; first: its trajectory had not tried one on this state yet."""
    counts["tactics"] += 1
    counts["tokens"] += tokens
    counts[name_of(result)] += 1
    if isinstance(result, Illegal):
        counts[f"illegal/{result.kind}"] += 1
    if first:
        counts["first"] += 1
        counts["first_legal"] += isinstance(result, Progress | Proved)


def total(outcomes: Sequence[Outcome]) -> Counter:
    """The counts of all theorems together; crashed: those that could not be started."""
    counts: Counter = Counter()
    for outcome in outcomes:
        counts.update(outcome.counts)
    counts["theorems"] = len(outcomes)
    counts["solved"] = sum(outcome.solved for outcome in outcomes)
    counts["not_started"] = sum(bool(outcome.crashed) for outcome in outcomes)
    return counts
