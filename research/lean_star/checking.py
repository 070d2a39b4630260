"""The environment in a thread of its own: tactics are checked while the model writes.

XLA computes outside Python's lock, so a prover written in Python runs beside it; one
that is another process does anyway. Tactics that have come in together are run as one
batch (`Environment.run_many`), which a pool of provers spreads.
"""

import queue
import threading
import time
from collections.abc import Hashable
from typing import NamedTuple

from research.lean_star.environment import Environment, GaveUp, Proved, Result, State

MOST = 256  # tactics of a batch: enough to spread, and results come soon


class _Item(NamedTuple):
    group: Hashable
    place: Hashable
    state: State
    tactic: str


class Checked(NamedTuple):
    """A tactic's result, and its share of the seconds that its batch took."""

    result: Result
    seconds: float


class Checker:
    """Runs what is `put`, in order; `results` waits for all of a group.

    A tactic is Proved only where the environment verifies the whole script from
    nothing; else it counts as given up. seconds: time spent at work. Use as a context:
    its end ends the thread, not the environment.
    """

    def __init__(self, env: Environment):
        self._env, self._inbox = env, queue.SimpleQueue()
        self._done: dict[Hashable, dict[Hashable, Checked]] = {}
        self._open: dict[Hashable, int] = {}
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self.seconds, self.tactics, self.waited = 0.0, 0, 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._inbox.put(None)
        self._thread.join()

    def put(self, group: Hashable, place: Hashable, state: State, tactic: str) -> None:
        """Asks for one tactic; its result is `results(group)[place]`."""
        with self._changed:
            self._open[group] = self._open.get(group, 0) + 1
        self._inbox.put(_Item(group, place, state, tactic))

    def results(self, group: Hashable) -> dict[Hashable, Checked]:
        """All that was asked for the group since it was last asked for; waits."""
        began = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._fault or not self._open.get(group))
            if self._fault is not None:
                raise self._fault
            found = self._done.pop(group, {})
        self.waited += time.perf_counter() - began
        return found

    def _work(self) -> None:
        while (item := self._inbox.get()) is not None:
            items = [item]
            while len(items) < MOST and not self._inbox.empty():
                items.append(self._inbox.get())
            ends = items[-1] is None
            try:
                self._run(items[:-1] if ends else items)
            except BaseException as fault:  # for the one who waits
                with self._changed:
                    self._fault = fault
                    self._changed.notify_all()
                return
            if ends:
                return

    def _run(self, items: list[_Item]) -> None:
        began = time.perf_counter()
        results = self._env.run_many([(i.state, i.tactic) for i in items])
        results = [
            self._verified(item.state, result)
            for item, result in zip(items, results, strict=True)
        ]
        seconds = time.perf_counter() - began
        self.seconds += seconds
        self.tactics += len(items)
        with self._changed:
            for item, result in zip(items, results, strict=True):
                checked = Checked(result, seconds / len(items))
                self._done.setdefault(item.group, {})[item.place] = checked
                self._open[item.group] -= 1
            self._changed.notify_all()

    def _verified(self, state: State, result: Result) -> Result:
        if not isinstance(result, Proved):
            return result
        verdict = self._env.verify(state.theorem, result.script)
        if verdict.ok:
            return result
        return GaveUp(f"{verdict.checker} refuses the whole proof: {verdict.detail}")
