"""What a proof search leaves of every theorem, and what it cost."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    counts: of tactics, tokens and results, see `tally`. crashed: why the theorem could
    not be started, or "": no failed proof. calls: all, where they were asked for.
    tree: of best-first search, its `best_first.Node`s.
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
