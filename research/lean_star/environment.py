"""What every prover looks like to samplers and searches: theorems, states, results.

    state = env.start(theorem)              State, or Crashed
    result = env.run(state, "intro h")      Progress, Proved, Illegal, Timeout, GaveUp,
                                            Crashed: a value for any text whatever
    verdict = env.verify(theorem, script)   the whole proof again, from nothing

States are immutable and may be run again, in any order. A trajectory counts as a proof
only if `verify` says so. What every implementation does: tests/helpers/
prover_conformance.py.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

KINDS = ("parse", "elaboration", "no_goals", "forbidden", "limits")


class Theorem(NamedTuple):
    """What is to be proved.

    statement: `theorem name binders : goal := by`, in the environment's language.
    header: what stands before it (imports, open). source: where it comes from.
    difficulty: larger is harder.
    """

    name: str
    statement: str
    split: str = ""
    header: str = ""
    source: str = ""
    difficulty: float | None = None


class State(NamedTuple):
    """What is left to prove, after a script.

    goals: each as the prover prints it; pp: what a model sees; key: equal for equal
    states; script: the tactics that led here; handle: the environment's own.
    """

    id: int
    goals: tuple[str, ...]
    key: str
    script: tuple[str, ...]
    theorem: Theorem
    handle: object

    @property
    def pp(self) -> str:
        return "\n\n".join(self.goals)

    @property
    def n_goals(self) -> int:
        return len(self.goals)

    @property
    def depth(self) -> int:
        return len(self.script)


class Progress(NamedTuple):
    """The tactic did something; goals are left."""

    state: State
    messages: tuple[str, ...] = ()


class Proved(NamedTuple):
    """The checker has accepted the whole proof; certificate: in its own form."""

    script: tuple[str, ...]
    certificate: object


class Illegal(NamedTuple):
    """The tactic does not apply; the state is as it was. kind: one of KINDS."""

    kind: str
    message: str


class Timeout(NamedTuple):
    """The tactic took too long; seconds is None where a budget of steps ran out."""

    seconds: float | None


class GaveUp(NamedTuple):
    """The tactic left something unproved (sorry), or its proof was refused."""

    reason: str


class Crashed(NamedTuple):
    """The prover failed, not the tactic: counted apart from failed proofs."""

    reason: str


Result = Progress | Proved | Illegal | Timeout | GaveUp | Crashed


class Verdict(NamedTuple):
    """Whether a whole proof holds.

    checker: who says so; axioms: what it rests on; detail: why not, if not ok.
    """

    ok: bool
    checker: str
    axioms: tuple[str, ...]
    seconds: float
    detail: str


class Capabilities(NamedTuple):
    """branching: "native", or "replay" where an earlier state costs its script again.

    timeouts: "wall", or "budget" of steps. checker: what `verify` asks. language: of
    statements and tactics.
    """

    branching: str
    deterministic: bool
    timeouts: str
    checker: str
    language: str


class Environment(Protocol):
    """A prover. Methods never raise for what a model writes."""

    def start(self, theorem: Theorem) -> State | Crashed:
        """The theorem's first state; Crashed if the statement is refused."""

    def start_many(self, theorems: Sequence[Theorem]) -> list[State | Crashed]:
        """`start` for each, in order; what befalls one does not touch the others."""

    def run(self, state: State, tactic: str, timeout: float | None = None) -> Result:
        """What a tactic makes of a state; timeout in seconds, None: the default."""

    def run_many(self, items: Sequence[tuple[State, str]]) -> list[Result]:
        """`run` for each, in order; what befalls one does not touch the others."""

    def verify(self, theorem: Theorem, script: Sequence[str]) -> Verdict:
        """Whether the script proves the theorem, from nothing."""

    def stats(self) -> dict[str, float]:
        """Counts since the start: steps, each result by its name, seconds, ..."""

    def capabilities(self) -> Capabilities:
        """What this environment can do."""

    def close(self) -> None:
        """Ends what the environment started; it is of no use afterwards."""
