"""Which prover the theorems of a stage are asked of, and how many at once.

A miniature's are all in the embedded prover. Published ones are in Lean, those of every
split in a project of their own; there a theorem that is open takes memory, so they come
in parts, one after the other.
"""

import itertools
import shlex
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError
from research.lean_star import world
from research.lean_star.embedded import EmbeddedEnvironment
from research.lean_star.environment import Environment, Theorem
from research.lean_star.repl import LeanRepl
from research.lean_star.repl_worker import ReplSettings
from research.lean_star.settings import Prover
from research.lean_star.sources import before


class Part(NamedTuple):
    """Theorems to be proved at the same time, by whom, and their places in all rows."""

    env: Environment
    theorems: list[Theorem]
    places: tuple[int, ...]


def parts(
    rows: Sequence[dict],
    provers: Mapping[str, Prover] | None,
    without: Container[int] = (),
) -> Iterator[Part]:
    """All rows, in their order; of a split's prover, `at_once` of them at a time.

    rows: problems as `world.read_rows` reads them. without: places of rows that are
    left out, as they are before the first part. An environment ends when the next one
    begins. Raises DataError for a source that is not in the prover's project.
    """
    left = [(place, row) for place, row in enumerate(rows) if place not in without]
    if provers is None:
        if left:
            places, members = zip(*left, strict=True)
            yield Part(
                EmbeddedEnvironment(), list(map(world.theorem_of, members)), places
            )
        return
    for split, members in itertools.groupby(left, key=lambda one: one[1]["split"]):
        prover = provers[split]
        with LeanRepl(settings_of(prover), prover.workers) as env:
            members = list(members)
            for i in range(0, len(members), prover.at_once):
                places, some = zip(*members[i : i + prover.at_once], strict=True)
                yield Part(env, [theorem_of(row, prover) for row in some], places)


def settings_of(prover: Prover) -> ReplSettings:
    """As the REPL's client takes them. Raises ValueError for an empty command."""
    return ReplSettings(
        tuple(shlex.split(prover.command)),
        cwd=prover.project,
        imports=prover.imports,
        heartbeats=prover.heartbeats,
        start_seconds=prover.start_seconds,
        tactic_seconds=prover.tactic_seconds,
        verify_seconds=prover.verify_seconds,
        memory_bytes=int(prover.memory_gib * 2**30),
        pickles=prover.pickles,
    )


def theorem_of(row: dict, prover: Prover) -> Theorem:
    """A problem as Lean takes it: behind its `header`, or its file up to it."""
    theorem = world.theorem_of(row)
    header = row.get("header")
    if header is None:
        header = before(read_source(prover.project, row["file"]), row["before"])
    return theorem._replace(header=header)


@lru_cache(maxsize=64)
def read_source(project: str, file: str) -> str:
    """A file of a Lean project. Raises DataError where it cannot be read."""
    path = Path(project) / file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
