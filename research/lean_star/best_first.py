"""Best-first search: the most probable state is expanded next (7.3.3).

    queue   open states by the sum of -score over their tactics, least first; of equals
            the one that came first
    pop     a state that was expanded before is dropped; the others are expanded: S
            candidates, of equal ones the best
    push    every state that a candidate leads to, unless it was expanded before

The thesis says "maximum"; the original code, and this, take the minimum of the sum of
negative log-probabilities. All theorems are searched at once, one expansion of each to
a batch; their candidates are checked while the model writes those of others.
"""

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from research.lean_star.checking import Checker
from research.lean_star.environment import (
    Crashed,
    Environment,
    Progress,
    Proved,
    State,
    Theorem,
)
from research.lean_star.outcomes import (
    Outcome,
    Proof,
    Step,
    Throughput,
    name_of,
    tally,
)
from research.lean_star.search import Clock, Searched, Written, begun
from research.lean_star.settings import BestFirst

# How a candidate is ranked: the mean of its tokens' log-probabilities (the original's),
# their sum, or the mean over the tokens of the tactic alone.
SCORES = ("mean", "sum", "tactic")


class Candidates(Protocol):
    """A model that writes several tactics for a state."""

    def candidates(
        self, states: Sequence[str], rows: Sequence[int], count: int
    ) -> Iterator[tuple[int, list[Written]]]:
        """(index of the state, its completions), as states finish; `count` at most.

        `scores` has all of SCORES. rows: a number for each state, on which alone its
        draws depend.
        """


class Node(NamedTuple):
    """A state of the tree. parent: a place in the list, -1 for the first.

    cost: the sum of -score from the start. expanded: when it was, from 1; 0 if never.
    closed: no goals are left. failed: tactics that were ignored here, of an expanded
    one.
    """

    parent: int
    state: str
    output: str
    tactic: str
    cost: float
    expanded: int
    closed: bool
    failed: tuple[tuple[str, str], ...]


class _Search:
    """One theorem's queue and tree."""

    def __init__(self, place: int, theorem: Theorem, rules: BestFirst, score: str):
        self.place, self.theorem, self.rules, self.score = place, theorem, rules, score
        self.counts: Counter = Counter()
        self.crashed = ""
        self.nodes: list[Node] = []
        self.states: dict[int, State] = {}  # of nodes that may be expanded
        self.queue: list[tuple[float, int]] = []
        self.visited: set[str] = set()
        self.expansions = 0
        self.clock = Clock(rules.seconds)
        self.proof: int | None = None

    def open(self, found: State | Crashed) -> None:
        if isinstance(found, Crashed):
            self.crashed = found.reason
            return
        self._add(-1, "", "", 0.0, found)

    def _add(self, parent, output, tactic, cost, state: State | None) -> None:
        place = len(self.nodes)
        shown = state.pp if state is not None else "no goals"
        closed = state is None
        self.nodes.append(Node(parent, shown, output, tactic, cost, 0, closed, ()))
        if state is not None:
            self.states[place] = state
            heapq.heappush(self.queue, (cost, place))  # places grow: first come first

    def pop(self) -> int | None:
        """The state to expand next; None when the search is over."""
        most = self.rules.expansions
        while self.proof is None and self.queue and self.expansions < most:
            _, place = heapq.heappop(self.queue)
            state = self.states[place]
            if state.key in self.visited:
                continue
            if self.clock.over:
                self.counts["out_of_time"] += 1
                break
            self.visited.add(state.key)
            self.expansions += 1
            self.nodes[place] = self.nodes[place]._replace(expanded=self.expansions)
            return place
        return None

    def settle(
        self,
        place: int,
        written: Sequence[Written],
        results: dict,
        tokens: int,
        pace: float,
    ) -> None:
        """Applies the results of an expansion, the best candidate first."""
        checked = (results[self.place, i] for i in range(len(written)))
        self.clock.pay(tokens, pace, checked)
        parent, failed = self.nodes[place], []
        if any(one.cut for one in written):  # all have the same prompt
            self.counts["cut"] += 1
        for i, one in enumerate(written):
            result = results[self.place, i].result
            tally(self.counts, result, one.tokens, True)
            cost = parent.cost - one.scores[self.score]
            if isinstance(result, Proved):
                self._add(place, one.output, one.tactic, cost, None)
                self.proof = len(self.nodes) - 1
                break
            if isinstance(result, Progress):
                if result.state.key not in self.visited:
                    self._add(place, one.output, one.tactic, cost, result.state)
            else:
                failed.append((one.tactic, name_of(result)))
        self.nodes[place] = self.nodes[place]._replace(failed=tuple(failed))

    def outcome(self) -> Outcome:
        proofs, proved = (), (0,)
        if self.proof is not None:
            steps, at = [], self.proof
            while (node := self.nodes[at]).parent >= 0:
                steps.append(
                    Step(self.nodes[node.parent].state, node.output, node.tactic)
                )
                at = node.parent
            proved = (self.expansions,)
            proofs = (Proof(0, self.expansions, tuple(reversed(steps))),)
        counts = Counter(self.counts, expansions=self.expansions)
        found = (self.theorem, proved, proofs, counts, self.crashed)
        return Outcome(*found, tree=tuple(self.nodes))


def search(
    writer: Candidates,
    env: Environment,
    theorems: Sequence[Theorem],
    rules: BestFirst,
    *,
    score: str = "mean",
    places: Sequence[int] | None = None,
    on_done: Callable[[int, Outcome], None] | None = None,
) -> Searched:
    """Tries to prove every theorem; every outcome has its `tree`.

    places, on_done: see `search.sample`. Raises ValueError for a score that is not one
    of SCORES.
    """
    if score not in SCORES:
        raise ValueError(f"score: expected one of {SCORES}, got {score!r}")
    began = time.perf_counter()
    searches = begun(
        env, theorems, places, lambda *of_one: _Search(*of_one, rules, score)
    )
    waves = deque((w, searches[w :: rules.waves]) for w in range(rules.waves))
    asked: dict[int, list[tuple[_Search, int]]] = {}
    best: dict[int, dict[int, list[Written]]] = {}
    spent: dict[int, dict[int, int]] = {}  # tokens, of copies as well
    pace: dict[int, float] = {}
    tokens, writing = 0, 0.0
    with Checker(env) as checker:
        while waves:
            wave, members = waves.popleft()
            results = checker.results(wave)
            for one, place in asked.get(wave, ()):
                own = spent[wave][one.place], pace[wave]
                one.settle(place, best[wave][one.place], results, *own)
            popped = [(one, one.pop()) for one in members]
            asked[wave] = [(one, place) for one, place in popped if place is not None]
            if on_done is not None:
                for one, place in popped:
                    if place is None:
                        on_done(one.place, one.outcome())
            if not asked[wave]:
                continue
            waves.append((wave, [one for one, _ in asked[wave]]))
            best[wave], spent[wave] = {}, {}
            clock = time.perf_counter()
            states = [one.states[place] for one, place in asked[wave]]
            rows = [
                one.place * rules.expansions + one.expansions - 1
                for one, _ in asked[wave]
            ]
            for i, written in writer.candidates(
                [state.pp for state in states], rows, rules.candidates
            ):
                place = asked[wave][i][0].place
                spent[wave][place] = sum(one.tokens for one in written)
                best[wave][place] = ranked(written, score)
                for j, kept in enumerate(best[wave][place]):
                    checker.put(wave, (place, j), states[i], kept.tactic)
            took, of_wave = time.perf_counter() - clock, sum(spent[wave].values())
            writing, tokens = writing + took, tokens + of_wave
            pace[wave] = took / max(1, of_wave)
    seconds = time.perf_counter() - began
    of_each = (writing, checker.waited, checker.seconds)
    throughput = Throughput(seconds, checker.tactics, tokens, *of_each)
    return Searched([one.outcome() for one in searches], throughput)


def ranked(written: Sequence[Written], score: str) -> list[Written]:
    """Candidates without copies, the best first; of equal texts the best stays.

    Equal scores are ordered by their texts: completions come in no fixed order.
    """
    ordered = sorted(written, key=lambda one: (-one.scores[score], one.output))
    best: dict[str, Written] = {}
    for one in ordered:
        best.setdefault(one.output, one)
    return list(best.values())
