"""Workers: REPL processes that import once, are replaced when lost, and know states.

A worker remembers which environment belongs to which header, and which proof state to
which (header, theorem, script). What a new process does not know it is told again: the
header from a pickle where there is one, a state by the tactics that led to it. A state
that looks different after that is no longer the same, and is not used.
"""

import dataclasses
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from research.lean_star import repl_protocol as protocol
from research.lean_star.repl_process import (
    Garbled,
    Hung,
    Lost,
    Overgrown,
    ReplProcess,
)
from research.lean_star.repl_protocol import CommandReply, Refusal, Reply, StepReply
from research.lean_star.repl_rules import Closed, Open, flaw, judge, opening

Answer = TypeVar("Answer")
NOWHERE = 2**31 - 1  # the number of no proof state


@dataclasses.dataclass(frozen=True)
class ReplSettings:
    """How REPLs are started and bounded.

    command: the REPL, `lake env .../repl` in a project (`cwd`) that has the imports.
    imports: modules for headers that name none. heartbeats: Lean's own limit on a
    tactic, 0 for Lean's default. start_seconds: for importing, tactic_seconds: for a
    step, verify_seconds: for a whole proof, each the deadline of one request.
    steps_per_process, growth_bytes: a process that took so many steps, or so much
    memory more than after its import (looked at every watch_seconds), is replaced
    before its next request; one that passes memory_bytes while it works is ended.
    restarts: in a row without success, with pauses of pause_seconds, doubled up to a
    minute. strict: see `repl_rules.forbidden`. pickles: a folder for the environments
    of headers, of one project as it is built now; None keeps none.
    """

    command: tuple[str, ...]
    cwd: str | None = None
    variables: Mapping[str, str] | None = None
    imports: tuple[str, ...] = ("Mathlib",)
    heartbeats: int = 400_000
    start_seconds: float = 300.0
    tactic_seconds: float = 30.0
    verify_seconds: float = 120.0
    steps_per_process: int = 4000
    growth_bytes: int = 4 << 30
    memory_bytes: int | None = 16 << 30
    watch_seconds: float = 1.0
    restarts: int = 5
    pause_seconds: float = 0.5
    strict: bool = True
    pickles: str | None = None

    def __post_init__(self):
        if not self.command:
            raise ValueError("command: expected the REPL's command, got none")
        if not self.imports:
            raise ValueError("imports: expected at least one module, such as 'Init'")
        for name in ("start_seconds", "tactic_seconds", "verify_seconds", "restarts"):
            if getattr(self, name) <= 0:
                got = getattr(self, name)
                raise ValueError(f"{name}: expected more than 0, got {got}")


class Start(NamedTuple):
    """Where a proof begins: the header's text, and the theorem without its proof."""

    header: str
    declaration: str


class Node(NamedTuple):
    """A proof state by what led to it."""

    start: Start
    script: tuple[str, ...]


class Unavailable(Exception):
    """No process can be had, or none that knows the theorem; its text says why."""


class Changed(Exception):
    """A replayed state is not what it was, or cannot be reached again."""


class Worker:
    """One REPL at a time, used by one thread at a time."""

    def __init__(
        self,
        settings: ReplSettings,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.counts: Counter = Counter()
        self._settings, self._sleep = settings, sleep
        self._process: ReplProcess | None = None
        self._closed = False
        self._fresh()

    def close(self) -> None:
        """Ends the process; nothing can be asked any more."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def drop(self, why: str) -> None:
        """Ends the process at once; the next request starts another."""
        self.counts[f"lost/{why}"] += 1
        self._drop()

    def knows(self, node: Node) -> bool:
        """Whether the state is there without a replay."""
        return node in self._states

    @property
    def process(self) -> ReplProcess | None:
        """The running process, for those who watch it."""
        return self._process

    def goals(self, start: Start) -> tuple[str, ...]:
        """The goals at a theorem's beginning.

        Raises Unavailable where there is no process, or Lean refuses the theorem, or
        it takes too long or too much memory, once: so it would on another process.
        """
        try:
            return self._again(lambda: self._open(start), final=(Hung, Overgrown))
        except (Changed, Hung, Overgrown) as error:
            raise Unavailable(str(error)) from error

    def step(
        self, node: Node, goals: tuple[str, ...], tactic: str, seconds: float
    ) -> Reply:
        """The reply to a tactic at a state, which is replayed where it is not known.

        goals: those of the state, which a replay must show again. seconds: for the
        tactic; replays have the settings' own. Raises one of Lost
        when the process was lost over this request (and is no more), Changed,
        Unavailable, ValueError for text that is no Unicode.
        """
        number = self._again(lambda: self._reach(node, goals))
        reply = self._ask(protocol.step(number, tactic), seconds)
        found = judge(reply)
        if isinstance(found, Open):
            after = node._replace(script=(*node.script, tactic))
            self._states[after] = reply.proof_state
        elif isinstance(found, Closed):
            self._in_step(seconds)
        return reply

    def prove(self, header: str, proof: str, question: str) -> tuple[Reply, Reply]:
        """The replies to a proof on the header's environment, and to what follows it.

        The question is on the environment after the proof, unless that has a flaw: then
        both replies are the proof's. Raises as `step` does.
        """
        env = self._again(lambda: self._env(header))
        seconds = self._settings.verify_seconds
        reply = self._ask(protocol.command(proof, env), seconds)
        if flaw(reply) is not None:
            return reply, reply
        return reply, self._ask(protocol.command(question, reply.env), seconds)

    def _again(
        self, reach: Callable[[], Answer], final: tuple[type[Lost], ...] = ()
    ) -> Answer:
        """`reach()` on a running process; on another one if it is lost on the way.

        final: ways to be lost that are raised instead.
        """
        if self._process is not None and self._spent():
            self.counts["recycled"] += 1
            self._drop()
        for attempt in range(2):
            self._run()
            try:
                return reach()
            except final:
                raise
            except Lost as error:
                if attempt:
                    raise Unavailable(f"lost twice before the request: {error}") from (
                        error
                    )
        raise AssertionError("unreachable")

    def _spent(self) -> bool:
        """Whether the process has done its share of steps, or keeps too much."""
        s, now = self._settings, time.monotonic()
        if self._steps >= s.steps_per_process:
            return True
        if now - self._watched < s.watch_seconds:
            return False
        self._watched = now
        return self._process.memory() - self._base > s.growth_bytes

    def _run(self) -> None:
        """Starts a process where there is none, with growing pauses. Unavailable."""
        pause, reason = self._settings.pause_seconds, ""
        for attempt in range(self._settings.restarts):
            if self._closed:
                raise Unavailable("the pool is closed")
            if self._process is not None:
                return
            if attempt:
                self._sleep(min(pause * 2 ** (attempt - 1), 60.0))
            try:
                s = self._settings
                self._process = ReplProcess(s.command, s.cwd, s.variables)
                if self._closed:  # meanwhile, by another thread, which saw no process
                    self._drop()
                    raise Unavailable("the pool is closed")
                self._fresh()
                self.counts["started"] += 1
                self._env("")
                self._base = self._process.memory()
                return
            except Lost as error:
                self._drop()
                reason = str(error)
            except Changed as error:  # no other process would take it either
                self._drop()
                raise Unavailable(str(error)) from error
        raise Unavailable(
            f"no REPL after {self._settings.restarts} tries; the last one {reason}"
        )

    def _ask(self, request: dict, seconds: float) -> Reply:
        self._steps += 1
        self.counts["requests"] += 1
        process = self._process
        if process is None:
            raise Unavailable("the pool is closed")
        try:
            reply = process.ask(request, seconds, self._settings.memory_bytes)
            self._check_ids(request, reply)
            return reply
        except Lost as error:
            self._lose(error)

    def _in_step(self, seconds: float) -> None:
        """Makes sure that the last reply was to the last request. Raises Lost.

        What a tactic makes Lean print may look like a reply; then the true one comes
        next, and not what the protocol says about a number that nothing has.
        """
        reply = self._ask(protocol.step(NOWHERE, "skip"), seconds)
        if not isinstance(reply, Refusal) or not reply.message.startswith("Unknown"):
            self._lose(Garbled(f"not the reply to the last request: {reply!r:.200}"))

    def _lose(self, error: Lost) -> NoReturn:
        self.counts[f"lost/{type(error).__name__.lower()}"] += 1
        self._drop()
        raise error

    def _check_ids(self, request: dict, reply: Reply) -> None:
        """Ids count on without a gap, and a tactic's reply is a tactic's.

        Proof states are numbered as they come: those of sorries, then the new one.
        """
        if isinstance(reply, Refusal):
            return
        entries = [s.proof_state for s in reply.sorries if s.proof_state is not None]
        if isinstance(reply, StepReply):
            entries.append(reply.proof_state)
        wanted = list(range(self._last + 1, self._last + 1 + len(entries)))
        if entries != wanted or ("tactic" in request) != isinstance(reply, StepReply):
            raise Garbled(f"proof states {entries} instead of {wanted}")
        self._last += len(entries)

    def _env(self, header: str) -> int:
        """The environment of a header: from a pickle, or run once and kept in one."""
        if header in self._envs:
            return self._envs[header]
        imports, rest = split_header(header, self._settings.imports)
        first = "\n".join(f"import {name}" for name in imports)
        base = self._envs.get(first) if rest else None
        if rest and base is None:
            base = self._envs[first] = self._run_header(first, None, first)
        text = rest if rest else first
        self._envs[header] = self._run_header(text, base, f"{first}\n{rest}")
        self._envs.setdefault(f"{first}\n{rest}" if rest else first, self._envs[header])
        return self._envs[header]

    def _run_header(self, text: str, env: int | None, name: str) -> int:
        seconds, pickle = self._settings.start_seconds, self._pickle(name)
        if env is not None and pickle is not None and pickle.exists():
            try:
                reply = self._ask(protocol.unpickle_env(str(pickle)), seconds)
            except Lost:
                pickle.unlink(missing_ok=True)  # of another Lean, or half a file
                raise
            if isinstance(reply, CommandReply):
                self.counts["unpickled"] += 1
                return reply.env
        reply = self._ask(protocol.command(text, env), seconds)
        if not isinstance(reply, CommandReply):
            raise Changed(f"the header is refused: {reply.message}")
        if found := protocol.errors(reply.messages):
            raise Changed(f"the header has errors: {found[0]}")
        if env is not None and pickle is not None:
            pickle.parent.mkdir(parents=True, exist_ok=True)
            mine = pickle.with_stem(f"{pickle.stem}.{os.getpid()}.{id(self)}")
            kept = self._ask(protocol.pickle_env(reply.env, str(mine)), seconds)
            if isinstance(kept, CommandReply):
                mine.replace(pickle)
        return reply.env

    def _pickle(self, name: str) -> Path | None:
        if self._settings.pickles is None:
            return None
        key = hashlib.sha256(name.encode()).hexdigest()[:24]
        return Path(self._settings.pickles) / f"{key}.olean"

    def _open(self, start: Start) -> tuple[str, ...]:
        """Goals of a theorem, whose first proof state is kept. Lost, Changed."""
        env = self._env(start.header)
        text = opening(start.declaration, self._settings.heartbeats)
        reply = self._ask(protocol.command(text, env), self._settings.start_seconds)
        if not isinstance(reply, CommandReply):
            raise Changed(f"the theorem is refused: {reply.message}")
        if found := protocol.errors(reply.messages):
            raise Changed(f"the theorem has errors: {found[0]}")
        entries = [s for s in reply.sorries if s.proof_state is not None]
        if len(entries) != 1:
            raise Changed(f"expected one place to prove, got {len(entries)}")
        self._states[Node(start, ())] = entries[0].proof_state
        return (entries[0].goal.strip(),)

    def _reach(self, node: Node, goals: tuple[str, ...]) -> int:
        """The number of a state, by the tactics from the nearest one that is known."""
        if node in self._states:
            return self._states[node]
        self.counts["replayed"] += 1
        known = len(node.script)
        while known and node._replace(script=node.script[:known]) not in self._states:
            known -= 1
        here = node._replace(script=node.script[:known])
        found = self._open(node.start) if here not in self._states else ()
        for tactic in node.script[known:]:
            request = protocol.step(self._states[here], tactic)
            step = judge(self._ask(request, self._settings.tactic_seconds))
            if not isinstance(step, Open):
                raise Changed(f"{tactic!r} failed in a replay: {step}")
            here, found = here._replace(script=(*here.script, tactic)), step.goals
            self._states[here] = self._last
        if anonymous(found) != anonymous(goals):
            del self._states[here]
            raise Changed(f"other goals after a replay of {node.script!r}")
        return self._states[here]

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self._fresh()

    def _fresh(self) -> None:
        self._envs: dict[str, int] = {}
        self._states: dict[Node, int] = {}
        self._steps, self._last, self._base = 0, -1, 0
        self._watched = time.monotonic()


def split_header(header: str, imports: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """(the modules that a header imports, the rest of it); `imports` where it has none.

    Lean wants imports first, so that is where they are looked for.
    """
    lines, found = header.strip().splitlines(), []
    while lines and (not lines[0].strip() or lines[0].startswith("import ")):
        found += lines.pop(0).split()[1:]
    return tuple(found) or imports, "\n".join(lines).strip()


def anonymous(goals: tuple[str, ...]) -> tuple[str, ...]:
    """Goals without the numbers of metavariables, which differ from run to run."""
    return tuple(re.sub(r"\?\w*\.\d+", "?m", goal) for goal in goals)
