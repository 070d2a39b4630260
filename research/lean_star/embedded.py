"""The embedded prover as an environment: minilean's tactics, judged by its kernel.

Proved is said only when the kernel accepts the complete proof term against the original
statement, read from the theorem's own text; never because no goals are left.
"""

import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from data.minilean import kernel, tactics
from data.minilean.parser import ParseError, parse_statement
from data.minilean.script import read
from data.minilean.syntax import Statement
from research.lean_star.environment import (
    Capabilities,
    Crashed,
    GaveUp,
    Illegal,
    Progress,
    Proved,
    Result,
    State,
    Theorem,
    Timeout,
    Verdict,
)

CHECKER = "minilean kernel"
CLASSICAL_TACTICS = ("by_contra", "by_cases")
BUDGET_PER_SECOND = 30_000

_read_statement = lru_cache(maxsize=1 << 12)(parse_statement)

_COUNTED = {
    Progress: "progress",
    Proved: "proved",
    Illegal: "illegal",
    Timeout: "timeout",
    GaveUp: "gaveup",
}
# What a NamedTuple's constructor calls, in half the time: for what every step makes.
_made = tuple.__new__


class Certificate(NamedTuple):
    """What the kernel accepted: the statement, the term and the axioms it rests on."""

    statement: Statement
    proof: kernel.Proof
    axioms: tuple[str, ...]


class EmbeddedEnvironment:
    """See `research.lean_star.environment`; states are values and may be pickled.

    budget: steps of work per tactic. classical: allow by_contra and by_cases, whose
    axiom every verdict then names.
    """

    def __init__(self, budget: int = tactics.BUDGET, classical: bool = True):
        self._budget, self._classical = budget, classical
        self._counts: Counter[str] = Counter()
        self._next, self._seconds = 0, 0.0

    def start(self, theorem: Theorem) -> State | Crashed:
        """The first state; Crashed for a statement outside the subset."""
        try:
            statement = _read_statement(theorem.statement)
        except ParseError as fault:
            self._counts["crashed"] += 1  # of a start, no step
            return Crashed(f"the statement is refused: {fault}")
        self._counts["started"] += 1
        handle = tactics.start(statement)
        goals = (tactics.show_goal(handle.goals[0]),)
        return self._state(theorem, handle, goals, ())

    def start_many(self, theorems: Sequence[Theorem]) -> list[State | Crashed]:
        """`start` for each, in order."""
        return [self.start(theorem) for theorem in theorems]

    def run(self, state: State, tactic: str, timeout: float | None = None) -> Result:
        """What a tactic makes of a state.

        timeout: seconds of a slow machine, turned into steps of work, so that results
        are the same everywhere; None: the environment's budget.
        """
        began = time.perf_counter()
        budget = self._budget
        if timeout is not None:
            budget = int(timeout * BUDGET_PER_SECOND)
        result = self._run(state, tactic, budget)
        kind = type(result)
        self._counts[_COUNTED[kind]] += 1
        if kind is Illegal:
            self._counts[f"illegal/{result.kind}"] += 1
        self._seconds += time.perf_counter() - began
        return result

    def _run(self, state: State, tactic: str, budget: int) -> Result:
        if not self._classical:
            read_tactic = read(tactic)
            if getattr(read_tactic, "head", None) in CLASSICAL_TACTICS:
                return Illegal("forbidden", f"{read_tactic.head} is classical")
        _, shown, _, script, theorem, handle = state
        after = tactics.run(handle, tactic, budget)
        if type(after) is tactics.Fault:
            if after.kind == "timeout":
                return Timeout(None)
            return Illegal(after.kind, after.message)
        script, goals = (*script, tactic), after[1]
        if goals:
            # of the goals that were there, all but the first are as they were
            kept = shown[1:]
            new = len(goals) - len(kept)
            if new == 1:
                shown = (tactics.show_goal(goals[0]), *kept)
            else:
                shown = (*map(tactics.show_goal, goals[:new]), *kept)
            state = self._state(theorem, after, shown, script)
            return _made(Progress, (state, ()))
        verdict, proof, statement = self._judge(theorem, after)
        if not verdict.ok:
            return GaveUp(f"the kernel refused the proof: {verdict.detail}")
        return Proved(script, Certificate(statement, proof, verdict.axioms))

    def _state(self, theorem, handle: tactics.State, goals, script) -> State:
        self._next += 1
        key = "\n\n".join(goals)
        return _made(State, (self._next, goals, key, script, theorem, handle))

    def run_many(self, items: Sequence[tuple[State, str]]) -> list[Result]:
        """`run` for each, in order."""
        return [self.run(state, tactic) for state, tactic in items]

    def verify(self, theorem: Theorem, script: Sequence[str]) -> Verdict:
        """Replays the script on a new state and asks the kernel."""
        began = time.perf_counter()
        verdict = self._verify(theorem, script)
        seconds = time.perf_counter() - began
        return Verdict(verdict.ok, CHECKER, verdict.axioms, seconds, verdict.detail)

    def _verify(self, theorem: Theorem, script: Sequence[str]) -> kernel.Verdict:
        try:
            state = tactics.start(parse_statement(theorem.statement))
        except ParseError as fault:
            return kernel.Verdict(False, (), f"the statement is refused: {fault}")
        for number, tactic in enumerate(script, 1):
            after = tactics.run(state, tactic, self._budget)
            if type(after) is tactics.Fault:
                detail = f"tactic {number}: {after.kind}: {after.message}"
                return kernel.Verdict(False, (), detail)
            state = after
        if state.goals:
            return kernel.Verdict(False, (), f"{len(state.goals)} goals are left")
        return self._judge(theorem, state)[0]

    def _judge(self, theorem: Theorem, state: tactics.State):
        """(the kernel's verdict, the term, what it is to prove): no goals are left."""
        statement = _read_statement(theorem.statement)
        proof = tactics.proof_of(state)
        verdict = kernel.check(statement.binders, proof, statement.goal)
        if verdict.axioms and not self._classical:
            verdict = verdict._replace(ok=False, detail="rests on a classical axiom")
        return verdict, proof, statement

    def stats(self) -> dict[str, float]:
        """Counts of steps and of each kind of result, and the seconds spent."""
        steps = sum(self._counts[name] for name in _COUNTED.values())
        return {**self._counts, "steps": steps, "seconds": self._seconds}

    def capabilities(self) -> Capabilities:
        return Capabilities("native", True, "budget", CHECKER, "minilean")

    def close(self) -> None:
        """Nothing was started, so nothing ends."""
