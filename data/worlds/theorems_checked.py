"""From a draft to a theorem: its proof replayed, checked by the kernel, and named."""

from collections.abc import Sequence
from typing import NamedTuple

from data.minilean import kernel, tactics
from data.minilean.parser import parse_statement
from data.minilean.printer import show_statement
from data.minilean.state import Fault, first_state, proof_of, show_state
from data.minilean.syntax import Statement
from data.worlds.theorems_draft import Draft

LEVELS = ("easy", "medium", "hard")
LONGEST = (3, 6)  # steps of an easy proof, of a medium one


class Theorem(NamedTuple):
    """A statement with a known proof that the kernel accepts.

    statement: Lean text up to the goal, without `:=`
    proof: the tactics; states: what each of them was run on, as Lean prints it
    source: which generator it is from
    shapes: names of the rules that the proof uses; around: of those that other proofs
    might come to use, the former included
    """

    name: str
    statement: str
    proof: tuple[str, ...]
    states: tuple[str, ...]
    source: str
    shapes: frozenset[str]
    around: frozenset[str]

    @property
    def difficulty(self) -> int:
        """Steps of the known proof."""
        return len(self.proof)

    @property
    def level(self) -> str:
        return level(self.difficulty)


class Replay(NamedTuple):
    """A proof run from the start: the steps taken, and why it is no proof, or ""."""

    states: tuple[str, ...]
    proof: tuple[str, ...]
    detail: str


def level(steps: int) -> str:
    """easy, medium or hard, by the length of a proof."""
    return LEVELS[sum(steps > longest for longest in LONGEST)]


def text_of(statement: Statement) -> str:
    """The statement's text up to the goal."""
    return show_statement(statement).removesuffix(" := by")


def parsed(draft: Draft, name: str = "t") -> Statement:
    """The statement of a draft. Raises ParseError."""
    binders = "".join(f"({names} : {kind}) " for names, kind in draft.binders)
    return parse_statement(f"theorem {name} {binders}: {draft.goal}")


def replay(statement: Statement, script: Sequence[str]) -> Replay:
    """Runs a script; the kernel checks the whole term at the end.

    A line that starts with "?" is left out if the one before it closed its goal.
    """
    state = first_state(statement)
    states, proof, closed = [], [], False
    for line in script:
        if line.startswith("?") and closed:
            continue
        line = line.removeprefix("?")
        after = tactics.run(state, line)
        if isinstance(after, Fault):
            return Replay(tuple(states), tuple(proof), f"{line}: {after.message}")
        states.append(show_state(state))
        proof.append(line)
        closed = len(after.goals) < len(state.goals)
        state = after
    if state.goals:
        return Replay(tuple(states), tuple(proof), "goals are left")
    verdict = kernel.check(statement.binders, proof_of(state), statement.goal)
    return Replay(tuple(states), tuple(proof), "" if verdict.ok else verdict.detail)


def theorem(draft: Draft, statement: Statement, source: str) -> Theorem | None:
    """The theorem, or None where its proof does not check."""
    found = replay(statement, draft.script)
    if found.detail:
        return None
    return Theorem(
        statement.name,
        text_of(statement),
        found.proof,
        found.states,
        source,
        draft.shapes,
        draft.around | draft.shapes,
    )
