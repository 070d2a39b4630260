"""Proof search by sampling: K trajectories of N tactics for every theorem (7.3.3).

    state of a trajectory -> (a thought and) a tactic, by the model -> the environment
        a proof         the theorem is solved
        another state   the trajectory goes on from there
        anything else   the state stays, the tactic is used up

All trajectories of all theorems are written for in one batch; tactics are checked by
another thread meanwhile. What a trajectory draws depends on its theorem's place, its
number and its iteration alone, so results depend neither on `waves`, nor on who
finishes first, nor on which other theorems are tried; but where a theorem has a limit
of `seconds`, when it runs out does.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from research.lean_star.checking import Checked, Checker
from research.lean_star.environment import (
    Crashed,
    Environment,
    Progress,
    Proved,
    State,
    Theorem,
)
from research.lean_star.outcomes import (
    Call,
    Outcome,
    Proof,
    Step,
    Throughput,
    detail_of,
    name_of,
    tally,
)
from research.lean_star.settings import Sampled


class Written(NamedTuple):
    """One completion: its text with its end, the tactic in it, and its cost.

    scores: log-probabilities by which best-first search may rank it. cut: whether its
    prompt lost its beginning.
    """

    output: str
    tactic: str
    tokens: int
    scores: dict[str, float] = {}
    cut: bool = False


class Writer(Protocol):
    """A model that writes tactics."""

    def write(
        self, states: Sequence[str], rows: Sequence[int]
    ) -> Iterator[tuple[int, Written]]:
        """(index, completion) of every state, in the order in which they finish.

        rows: a number for each, on which alone its draws depend.
        """


class Searched(NamedTuple):
    outcomes: list[Outcome]
    throughput: Throughput


class Clock:
    """A theorem's share of the time that the model wrote and tactics were checked.

    Many theorems share a batch, so each pays for its own: of the seconds in which the
    model wrote for a share by its tokens, of those of a batch of tactics the same for
    each. So a limit means what it does where theorems are tried one by one, however
    many are tried at once. limit: in seconds, or None.
    """

    def __init__(self, limit: float | None):
        self.limit, self.seconds = limit, 0.0

    def pay(self, tokens: int, pace: float, checked: Iterable[Checked]) -> None:
        """Adds an iteration's; pace: seconds of writing to a token."""
        self.seconds += tokens * pace + sum(one.seconds for one in checked)

    @property
    def over(self) -> bool:
        """Whether no iteration may begin."""
        return self.limit is not None and self.seconds > self.limit


class _Path:
    """A trajectory on its way."""

    def __init__(self, number: int, start: State):
        self.number, self.state = number, start
        self.steps: list[Step] = []
        self.been = {start.key}
        self.fresh = True  # nothing was tried on this state yet
        self.live = True


class _Problem:
    """A theorem and its trajectories, of the attempt that is being made."""

    def __init__(self, place: int, theorem: Theorem, rules: Sampled, calls: bool):
        self.place, self.theorem, self.rules = place, theorem, rules
        self.counts: Counter = Counter()
        self.proved: list[int] = []
        self.proofs: list[Proof] = []
        self.calls: list[Call] | None = [] if calls else None
        self.crashed, self.attempt, self.iteration = "", 0, 0
        self.clock = Clock(rules.seconds)
        self.start: State | None = None
        self.paths: list[_Path] = []

    def open(self, found: State | Crashed) -> None:
        if isinstance(found, Crashed):
            self.crashed = found.reason
            self.proved = [0] * self.rules.trajectories
            return
        self.start = found
        self._begin()

    def _begin(self) -> None:
        K = self.rules.trajectories
        first = self.attempt * K
        self.paths = [_Path(first + k, self.start) for k in range(K)]
        self.proved += [0] * K
        self.iteration, self.clock = 0, Clock(self.rules.seconds)

    def asking(self) -> list[_Path]:
        """The trajectories that want a tactic; none once the theorem is done with.

        Where they have all come to an end without a proof, or run out of time, the
        next repeat begins.
        """
        live = [path for path in self.paths if path.live]
        if live and self.iteration < self.rules.tactics:
            if not self.clock.over:
                return live
            self.counts["out_of_time"] += 1
        over = self.proofs or self.attempt + 1 >= self.rules.repeat
        if self.start is None or over:
            return []
        self.attempt += 1
        self._begin()
        return self.paths

    def row(self, path: _Path) -> int:
        """A number of its own for every tactic that may ever be asked for."""
        rules = self.rules
        of_theorem = self.place * rules.repeat * rules.trajectories + path.number
        return of_theorem * rules.tactics + self.iteration

    def settle(
        self, asked: Sequence[_Path], written: dict, results: dict, pace: float
    ) -> None:
        """Applies an iteration's results, in the order of trajectories."""
        self.iteration += 1
        places = [(self.place, path.number) for path in asked]
        tokens = sum(written[place].tokens for place in places)
        self.clock.pay(tokens, pace, (results[place] for place in places))
        for path, place in zip(asked, places, strict=True):
            self._apply(path, written[place], results[place].result)
            if self.proofs and self.rules.stop_all_on_first:
                for other in self.paths:
                    other.live = False
                return

    def _apply(self, path: _Path, one: Written, result) -> None:
        tally(self.counts, result, one.tokens, path.fresh)
        if one.cut:
            self.counts["cut"] += 1
        path.fresh = False
        if self.calls is not None:
            call = (path.state.pp, one.output, one.tactic)
            self.calls.append(
                Call(path.number, *call, name_of(result), detail_of(result))
            )
        step = Step(path.state.pp, one.output, one.tactic)
        if isinstance(result, Proved):
            path.steps.append(step)
            path.live = False
            self.proved[path.number] = self.iteration
            self.proofs.append(Proof(path.number, self.iteration, tuple(path.steps)))
        elif isinstance(result, Crashed):
            path.live = False
        elif isinstance(result, Progress):
            self._move(path, step, result.state)

    def _move(self, path: _Path, step: Step, after: State) -> None:
        same = after.key == path.state.key
        if same and self.rules.no_progress != "accept":
            self.counts["no_progress"] += 1
            if self.rules.no_progress == "reject":
                return
        if self.rules.dedup_states and after.key in path.been:
            self.counts["seen_before"] += 1
            return
        path.steps.append(step)
        path.been.add(after.key)
        path.state, path.fresh = after, True

    def outcome(self) -> Outcome:
        return Outcome(
            self.theorem,
            tuple(self.proved),
            tuple(self.proofs),
            self.counts,
            self.crashed,
            tuple(self.calls or ()),
        )


def begun(env, theorems: Sequence[Theorem], places: Sequence[int] | None, make):
    """`make(place, theorem)` of every theorem, each opened with how it started.

    places: a number for each theorem; None: 0, 1, ...
    """
    numbers = range(len(theorems)) if places is None else places
    made = [make(*of_one) for of_one in zip(numbers, theorems, strict=True)]
    for one, found in zip(made, env.start_many(theorems), strict=True):
        one.open(found)
    return made


def sample(
    writer: Writer,
    env: Environment,
    theorems: Sequence[Theorem],
    rules: Sampled,
    *,
    places: Sequence[int] | None = None,
    calls: bool = False,
    on_done: Callable[[int, Outcome], None] | None = None,
) -> Searched:
    """Tries to prove every theorem; see `Sampled` for the rules.

    places: a number for each theorem, on which alone its draws depend; None: 0, 1, ...
    calls: keep every tactic that was tried. on_done: called with the place and the
    outcome of every theorem as soon as it is done with.

    A theorem that cannot be started is no failed proof: its outcome says `crashed`. A
    crash at a tactic ends its trajectory, not the others.
    """
    began = time.perf_counter()
    problems = begun(
        env, theorems, places, lambda *of_one: _Problem(*of_one, rules, calls)
    )
    waves = deque((w, problems[w :: rules.waves]) for w in range(rules.waves))
    asked: dict[int, list] = {}  # of every wave: [(problem, its paths)], in order
    written: dict[int, dict] = {}
    pace: dict[int, float] = {}
    tokens, writing = 0, 0.0
    with Checker(env) as checker:
        while waves:
            wave, members = waves.popleft()
            results = checker.results(wave)
            for problem, paths in asked.get(wave, ()):
                problem.settle(paths, written[wave], results, pace[wave])
            wanted = [(problem, problem.asking()) for problem in members]
            asked[wave] = [(problem, paths) for problem, paths in wanted if paths]
            if on_done is not None:
                for problem, paths in wanted:
                    if not paths:
                        on_done(problem.place, problem.outcome())
            if not asked[wave]:
                continue
            waves.append((wave, [problem for problem, _ in asked[wave]]))
            pairs = [(p, path) for p, paths in asked[wave] for path in paths]
            written[wave] = {}
            clock = time.perf_counter()
            for i, one in writer.write(
                [path.state.pp for _, path in pairs], [p.row(path) for p, path in pairs]
            ):
                problem, path = pairs[i]
                place = (problem.place, path.number)
                written[wave][place] = one
                tokens += one.tokens
                checker.put(wave, place, path.state, one.tactic)
            took = time.perf_counter() - clock
            writing += took
            pace[wave] = took / max(1, sum(w.tokens for w in written[wave].values()))
    seconds = time.perf_counter() - began
    spent = (writing, checker.waited, checker.seconds)
    throughput = Throughput(seconds, checker.tactics, tokens, *spent)
    return Searched([problem.outcome() for problem in problems], throughput)
