"""Outcomes of theorems as they come, for a stage that may be interrupted.

    tried.jsonl   {"place", "name", "proved", "proofs", ..}: the outcome of the theorem
                  at that place, a line for each that is done with, in any order
                  {"spent": {"seconds", "tactics", ..}}: a part of the theorems has come
                  to its end, at this cost

The same stage, run again in the same folder, reads what is there and tries the others.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.errors import DataError
from research.lean_star.best_first import Node
from research.lean_star.environment import Theorem
from research.lean_star.outcomes import Call, Outcome, Proof, Step, Throughput
from train.appended import AppendedFile

FILE = "tried.jsonl"


class Tried:
    """The file, open to be appended to. Use as a context.

    outcomes: those so far, by place; spent: the costs so far, the first of nothing.
    """

    def __init__(self, path: Path, theorems: Sequence[Theorem]):
        """Reads what is there; a last line that was cut off is taken away.

        theorems: all that are to be tried, by place. Raises DataError naming file and
        line for what is not of these theorems.
        """
        self.outcomes: dict[int, Outcome] = {}
        self.spent = [Throughput(0.0, 0, 0, 0.0, 0.0, 0.0)]
        self._path, self._theorems = path, theorems
        self._file = AppendedFile(path, self._read() if path.exists() else 0)

    def add(self, place: int, outcome: Outcome) -> None:
        """Keeps the outcome of the theorem at a place, without the theorem's header."""
        outcome = outcome._replace(theorem=self._theorems[place])
        self._write({"place": place, **as_row(outcome)})
        self.outcomes[place] = outcome

    def spend(self, throughput: Throughput) -> None:
        """Keeps what a part of the theorems has cost."""
        self._write({"spent": throughput._asdict()})
        self.spent.append(throughput)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def _write(self, row: dict) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")

    def _read(self) -> int:
        """Bytes of whole lines."""
        whole = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(json.loads(line))
                except (ValueError, LookupError, TypeError) as error:
                    raise DataError(
                        f"{self._path}:{number}: expected an outcome of one of these "
                        f"{len(self._theorems)} theorems ({error}); delete the file to "
                        "try them all again"
                    ) from error
                whole += len(line)
        return whole

    def _take(self, row: dict) -> None:
        if "spent" in row:
            self.spent.append(Throughput(**row["spent"]))
            return
        place = row["place"]
        theorem = self._theorems[place]
        if row["name"] != theorem.name:
            raise ValueError(f"{row['name']!r} in the place of {theorem.name!r}")
        self.outcomes[place] = from_row(row, theorem)


def as_row(outcome: Outcome) -> dict:
    """All of an outcome as JSON, but of its theorem the name alone."""
    proofs = [
        {**proof._asdict(), "steps": [step._asdict() for step in proof.steps]}
        for proof in outcome.proofs
    ]
    return {
        "name": outcome.theorem.name,
        "proved": list(outcome.proved),
        "proofs": proofs,
        "counts": dict(outcome.counts),
        "crashed": outcome.crashed,
        "calls": [call._asdict() for call in outcome.calls],
        "tree": [node._asdict() for node in outcome.tree],
    }


def from_row(row: dict, theorem: Theorem) -> Outcome:
    """The outcome that `as_row` made a row of. KeyError, TypeError for other rows."""
    proofs = [
        Proof(p["trajectory"], p["iteration"], tuple(Step(**s) for s in p["steps"]))
        for p in row["proofs"]
    ]
    tree = [
        Node(**node | {"failed": tuple(tuple(one) for one in node["failed"])})
        for node in row["tree"]
    ]
    return Outcome(
        theorem,
        tuple(row["proved"]),
        tuple(proofs),
        Counter(row["counts"]),
        row["crashed"],
        tuple(Call(**call) for call in row["calls"]),
        tuple(tree),
    )
