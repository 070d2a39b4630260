"""Lean 4 behind the environment interface, by way of its REPL.

    lean = LeanRepl(settings_from_environment(os.environ), workers=4)
    state = lean.start(theorem)             many: start_many, run_many
    result = lean.run(state, "intro h")

A state is a theorem and the tactics that led from it; which process knows it under
which number is the workers' affair (`repl_worker`), so states outlive processes and may
be continued in any order. What a reply means is decided by the rules in `repl_rules`;
`Proved` says that Lean finished the proof step by step, and only `verify`, which gives
Lean the whole proof anew, makes it a theorem.

A tactic that hangs is a Timeout, one that takes too much memory is beyond the limits;
a process that dies or talks nonsense is replaced and asked once more, and only then is
the step Crashed, which is no failure of the proof.
"""

import itertools
import secrets
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from data.sets.lean import Statement
from research.lean_star import repl_rules as rules
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
from research.lean_star.repl_pool import Pool
from research.lean_star.repl_process import Hung, Lost, Overgrown
from research.lean_star.repl_worker import (
    Changed,
    Node,
    ReplSettings,
    Start,
    Unavailable,
    Worker,
)

# What the files of miniF2F begin with.
MINIF2F = "import Mathlib\nopen BigOperators Real Nat Topology"
GOAL = "salign_goal"  # the theorem's name while it is being proved
TRIES = 2


def settings_from_environment(variables: Mapping[str, str], **fields) -> ReplSettings:
    """Settings of the REPL that variables name; `fields` are other settings.

    LEAN_REPL: its command, as a shell reads it. LEAN_REPL_PROJECT: the folder of the
    Lean project to run it in (default: here). LEAN_REPL_IMPORTS: modules, with spaces
    between (default: Init, which every Lean has). Raises ValueError without a command.
    """
    command = tuple(shlex.split(variables.get("LEAN_REPL", "")))
    if not command:
        raise ValueError(
            "LEAN_REPL: expected the command of a Lean 4 REPL, such as 'lake env "
            "/opt/repl/.lake/build/bin/repl', got none (with LEAN_REPL_PROJECT, the "
            "Lean project to run it in, and LEAN_REPL_IMPORTS, such as Mathlib)"
        )
    imports = tuple(variables.get("LEAN_REPL_IMPORTS", "").split()) or ("Init",)
    cwd = variables.get("LEAN_REPL_PROJECT") or None
    return ReplSettings(**{"command": command, "cwd": cwd, "imports": imports} | fields)


def theorem_of(problem: Statement, header: str = MINIF2F) -> Theorem:
    """A problem of miniF2F as a theorem; its source is repository and commit."""
    source = f"{problem.url}@{problem.commit}"
    text = f"{problem.statement} := by"
    return Theorem(problem.name, text, problem.split, header, source)


class LeanRepl:
    """An environment of Lean 4 theorems. One thread at a time."""

    def __init__(
        self,
        settings: ReplSettings,
        workers: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Processes start when they are first needed. ValueError for no workers."""
        self._settings = settings
        self._pool = Pool([Worker(settings, sleep) for _ in range(workers)])
        self._counts: Counter = Counter()
        self._ids = itertools.count()
        self._next = 0

    def start(self, theorem: Theorem) -> State | Crashed:
        """The state at a theorem's beginning; Crashed where Lean does not take it."""
        return self.start_many([theorem])[0]

    def start_many(self, theorems: Sequence[Theorem]) -> list[State | Crashed]:
        """The states at theorems' beginnings, in order; one does not harm others.

        All workers share them, in turn. Crashed is a theorem that Lean does not take,
        also one that takes too long or too much memory, which is not tried again.
        """
        workers, first = self._pool.workers, self._next
        self._next += len(theorems)
        found = self._pool.map(
            lambda worker, item: self._open(worker, item[1]),
            list(enumerate(theorems, first)),
            lambda worker, item: worker is workers[item[0] % len(workers)],
        )
        return [self._count(result) for result in found]

    def run(self, state: State, tactic: str, timeout: float | None = None) -> Result:
        """What a tactic makes of a state, which stays as it is and can be used again.

        timeout: seconds for this tactic, None for the settings'.
        """
        return self.run_many([(state, tactic)], timeout)[0]

    def run_many(
        self, items: Sequence[tuple[State, str]], timeout: float | None = None
    ) -> list[Result]:
        """The results of (state, tactic) pairs, in order; one does not harm others.

        All workers share them; a state goes to one that knows it, if that is free.
        """
        seconds = self._settings.tactic_seconds if timeout is None else timeout
        began = time.monotonic()
        found = self._pool.map(
            lambda worker, item: self._one(worker, *item, seconds),
            items,
            lambda worker, item: worker.knows(item[0].handle),
        )
        self._counts["seconds"] += time.monotonic() - began
        self._counts["steps"] += len(items)
        return [self._count(result) for result in found]

    def verify(self, theorem: Theorem, script: Sequence[str]) -> Verdict:
        """Whether the tactics prove the theorem, from its header on, in one command.

        Under a name that nobody could guess, without errors and `sorry`, and with no
        axioms but those of `repl_rules.AXIOMS`. In a strict environment each must be
        one tactic as well, and the last one the end. A process that is lost twice over
        it is no proof either, and `detail` says so.
        """
        began = time.monotonic()

        def verdict(ok: bool, detail: str, axioms: tuple[str, ...] = ()) -> Verdict:
            self._counts["verified" if ok else "not_verified"] += 1
            seconds = time.monotonic() - began
            return Verdict(ok, "lean", axioms, seconds, detail)

        script = tuple(script)
        if not any(tactic.strip() for tactic in script):
            return verdict(False, "no tactics")
        if self._settings.strict:
            for tactic in script:
                if word := rules.forbidden(tactic):
                    return verdict(False, f"{word!r} may not be in a tactic")
        fresh = f"salign_{secrets.token_hex(8)}"
        try:
            text, name = rules.declared(theorem.statement, fresh)
            start = Start(theorem.header, rules.declared(theorem.statement, GOAL)[0])
        except ValueError as error:
            return verdict(False, str(error))
        whole = rules.whole(text, script, self._settings.heartbeats)
        asked = theorem.header, whole, f"#print axioms {name}"

        def prove(worker: Worker, asked: tuple[str, str, str]):
            reason = ""
            for _ in range(TRIES):
                try:
                    wrong = self._settings.strict and self._walk(worker, start, script)
                    return wrong or worker.prove(*asked)
                except (Hung, Overgrown, Changed, Unavailable) as error:
                    return str(error)
                except Lost as error:
                    reason = str(error)
                except UnicodeEncodeError:
                    return "no Unicode text"
            return f"lost {TRIES} times: {reason}"

        replies = self._pool.map(prove, [asked], lambda w, _: w.process is not None)[0]
        if isinstance(replies, str):
            return verdict(False, replies)
        if flaw := rules.flaw(replies[0]):
            return verdict(False, flaw)
        try:
            axioms = rules.axioms_of(replies[1], name)
        except ValueError as error:
            return verdict(False, str(error))
        if more := sorted(set(axioms) - rules.AXIOMS):
            return verdict(False, f"rests on {', '.join(more)}", axioms)
        return verdict(True, "", axioms)

    def stats(self) -> dict[str, float]:
        """Counts since the beginning: results by kind, processes, replays, seconds."""
        counts = sum((w.counts for w in self._pool.workers), self._counts.copy())
        return {"steps": 0, "seconds": 0.0, **counts}

    def capabilities(self) -> Capabilities:
        """Any earlier state at no cost, while its process lives; Lean's own kernel."""
        return Capabilities("native", False, "wall", "lean", "lean4")

    def close(self) -> None:
        """Ends the processes; states are worth nothing after that."""
        self._pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _walk(self, worker: Worker, start: Start, script: tuple[str, ...]) -> str:
        """Why the script is no proof tactic by tactic; "" for one. Raises as `step`."""
        goals, seconds = worker.goals(start), self._settings.tactic_seconds
        for at, tactic in enumerate(script):
            node = Node(start, script[:at])
            found = rules.judge(worker.step(node, goals, tactic, seconds))
            last = at + 1 == len(script)
            if isinstance(found, rules.Closed):
                return "" if last else f"proved before its tactic {at + 2}"
            if not isinstance(found, rules.Open):
                return f"tactic {at + 1}: {found[-1]}"
            goals = found.goals
        return f"goals are left: {goals[0]}"

    def _open(self, worker: Worker, theorem: Theorem) -> State | Crashed:
        try:
            text, _ = rules.declared(theorem.statement, GOAL)
        except ValueError as error:
            return Crashed(str(error))
        node = Node(Start(theorem.header, text), ())
        try:
            return self._state(theorem, node, worker.goals(node.start))
        except Unavailable as error:
            return Crashed(str(error))
        except UnicodeEncodeError:
            return Crashed("the theorem is no Unicode text")

    def _one(self, worker: Worker, state: State, tactic: str, seconds: float) -> Result:
        if not tactic.strip():
            return Illegal("parse", "an empty tactic")
        if self._settings.strict and (word := rules.forbidden(tactic)):
            return Illegal("forbidden", f"{word!r} may not be in a tactic")
        node, reason = state.handle, ""
        for _ in range(TRIES):
            try:
                found = rules.judge(worker.step(node, state.goals, tactic, seconds))
            except Hung:
                return Timeout(seconds)
            except Overgrown as error:
                return Illegal("limits", f"memory: {error}")
            except Lost as error:
                reason = str(error)
                continue
            except (Changed, Unavailable) as error:
                return Crashed(str(error))
            except UnicodeEncodeError:
                return Illegal("parse", "no Unicode text")
            if isinstance(found, rules.Unknown | rules.Contradiction):
                worker.drop(type(found).__name__.lower())
                reason = found.message
                continue
            return self._result(state, tactic, found)
        return Crashed(f"lost {TRIES} times: {reason}")

    def _result(self, state: State, tactic: str, found) -> Result:
        node: Node = state.handle
        node = node._replace(script=(*node.script, tactic))
        if isinstance(found, rules.Open):
            after = self._state(state.theorem, node, found.goals)
            return Progress(after, found.messages)
        if isinstance(found, rules.Closed):
            text = rules.whole(node.start.declaration, node.script, 0)
            return Proved(node.script, text)
        if isinstance(found, rules.Given):
            return GaveUp(found.reason)
        return Illegal(found.kind, found.message)

    def _state(self, theorem: Theorem, node: Node, goals: tuple[str, ...]) -> State:
        key = "\n\n".join(goals)
        return State(next(self._ids), goals, key, node.script, theorem, node)

    def _count(self, result):
        name = type(result).__name__.lower()
        kind = f"/{result.kind}" if isinstance(result, Illegal) else ""
        self._counts[f"{name}{kind}"] += 1
        return result
