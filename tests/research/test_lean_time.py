"""A theorem's limit of time in proof search, with a watch that the test turns.

Identities: how many iterations fit; theorems side by side as each alone; without a
limit, or with one that nothing reaches, equal outcomes.
"""

import itertools

import pytest
from helpers.toy_prover import AB, Script, Toy, only, rules

from research.lean_star import checking
from research.lean_star import search as searching
from research.lean_star.best_first import search
from research.lean_star.checking import Checker
from research.lean_star.environment import Theorem
from research.lean_star.search import sample
from research.lean_star.settings import BestFirst


@pytest.fixture
def clock(monkeypatch):
    """A list with the time; the model's watch shows it, the prover's stands still."""
    now = [0.0]
    monkeypatch.setattr(searching.time, "perf_counter", lambda: now[0])
    return now


class Slow(Script):
    """Takes a second for every token it writes."""

    def __init__(self, letter, clock, tokens):
        super().__init__(letter)
        self.clock, self.tokens = clock, tokens

    def write(self, states, rows):
        for i, one in super().write(states, rows):
            tokens = self.tokens(states[i])
            self.clock[0] += tokens
            yield i, one._replace(tokens=tokens)

    def candidates(self, states, rows, count):
        for i, one in self.write(states, rows):
            yield i, [one._replace(scores={"mean": -1.0})]


def test_an_attempt_ends_before_the_iteration_for_which_time_is_out(clock):
    """Two trajectories, 2 s each: before the third iteration 8 s are used, not 7.

    A repeat has its time anew. Without a limit, and with one that nothing reaches, all
    is as it was but for the row, which tells of it.
    """

    def found(seconds, **more):
        model = Slow(lambda state, row: "x", clock, lambda state: 2)
        made = rules(2, 5, seconds=seconds, **more)
        return only(sample(model, Toy(), [Theorem("t", "q")], made))

    late = found(7.0)
    assert (late.counts["tactics"], late.counts["out_of_time"]) == (4, 1)
    assert late.row()["out_of_time"] and not late.solved
    # What is used up is compared before an iteration, and equal is not more.
    assert found(8.0).counts["tactics"] == 6
    again = found(7.0, repeat=3)
    assert (again.counts["tactics"], again.counts["out_of_time"]) == (12, 3)
    free = found(None)
    assert free == found(20.0) and free.counts["tactics"] == 10
    assert not free.row()["out_of_time"] and "out_of_time" not in free.counts


def test_theorems_pay_for_what_is_written_for_them(clock):
    """Side by side as alone: from `a` a tactic takes 1 s, from others 5 s."""
    theorems = [Theorem(w, w) for w in ("aaaa", "bbbb", "bbbbb")]

    def found(some, places, waves=1):
        def cost(state):
            return 1 if "a" in state else 5

        model = Slow(lambda state, row: "ab"[row >= 5], clock, cost)
        made = rules(1, 5, seconds=11.0, waves=waves)
        return sample(model, Toy(), some, made, places=places).outcomes

    together = found(theorems, None)
    assert together == found(theorems, None, waves=2)
    alone = [found([t], [i])[0] for i, t in enumerate(theorems)]
    assert together == alone
    assert [o.solved for o in together] == [True, False, False]
    assert [o.counts["tactics"] for o in together] == [4, 3, 3]


def test_a_search_ends_where_its_time_is_out(clock):
    """A chain of states, 2 s each: before the fourth expansion 6 s are used."""
    model = Slow(lambda state, row: "a", clock, lambda state: 2)

    def found(seconds):
        made = BestFirst(expansions=5, candidates=1, seconds=seconds)
        return only(search(model, Toy(), [Theorem("t", "q")], made))

    late = found(5.0)
    assert late.counts["expansions"] == 3 and late.row()["out_of_time"]
    assert [node.expanded for node in late.tree] == [1, 2, 3, 0]
    assert found(None) == found(10.0) and found(None).counts["expansions"] == 5


def test_time_of_checking_is_paid_by_tactics(monkeypatch):
    """Of a batch each the same, together all that the prover took."""
    now = itertools.count()  # every look at the watch is a second later
    monkeypatch.setattr(checking.time, "perf_counter", lambda: float(next(now)))
    env = Toy()
    with Checker(env) as checker:
        for place in range(5):
            checker.put("g", place, env.start(AB), "a")
        found = checker.results("g")
    assert all(one.seconds > 0 for one in found.values())
    assert sum(one.seconds for one in found.values()) == pytest.approx(checker.seconds)
