"""Proof search against traces worked by hand, with a scripted model and a toy prover.

The toy's states are words: a tactic is a letter, and a word is proved when it is one of
the theorem's. So every trajectory and every queue can be followed on paper.
"""

import itertools
import threading

import pytest
from helpers.toy_prover import AB, Script, Toy, only, rules, told

from research.lean_star.best_first import ranked, search
from research.lean_star.environment import Progress, Theorem
from research.lean_star.search import Written, sample
from research.lean_star.settings import BestFirst


def test_illegal_tactics_use_up_their_turn_and_leave_the_state():
    """Of three tactics one is illegal: `a x b` proves ab at the third, not before."""
    outcome = only(sample(told("axb", "xxx", tactics=3), Toy(), [AB], rules(2, 3)))
    assert outcome.proved == (3, 0)
    steps = [(step.state, step.tactic) for step in outcome.first.steps]
    assert steps == [(".", "a"), ("a", "b")]
    assert outcome.counts["illegal"] == outcome.counts["illegal/elaboration"] == 3
    # First tries: `.` and `a` of the one (a, x: one of two legal), `.` of the other.
    assert (outcome.counts["first"], outcome.counts["first_legal"]) == (3, 1)
    assert not only(sample(told("axb", tactics=3), Toy(), [AB], rules(1, 2))).solved, (
        "N bounds generated tactics, legal or not"
    )


def test_the_first_proof_stops_all_or_only_its_own():
    """`ab` at 2, `xcd` at 3: with the stop, the second trajectory ends at 2 as well."""
    lines = ("abx", "xcd")
    outcome = only(sample(told(*lines, tactics=3), Toy(), [AB], rules(2, 3)))
    assert outcome.proved == (2, 0)
    # As in the original the second trajectory's turn at 2 is not taken any more.
    assert outcome.counts["tactics"] == 3
    more = rules(2, 3, stop_all_on_first=False)
    outcome = only(sample(told(*lines, tactics=3), Toy(), [AB], more))
    assert outcome.proved == (2, 3)
    assert outcome.counts["tactics"] == 5
    assert [p.iteration for p in outcome.proofs] == [2, 3]


def test_repeats_begin_anew_and_only_where_nothing_was_found():
    """K=1, N=1, R=3: `x`, then `a`, then a proof of the one-letter theorem."""
    easy, hard = Theorem("e", "c"), Theorem("h", "q")
    letters = {0: "x", 1: "a", 2: "c", 3: "a", 4: "a", 5: "a"}
    model = Script(lambda state, row: letters[row])
    one, two = sample(model, Toy(), [easy, hard], rules(1, 1, repeat=3)).outcomes
    assert (one.proved, two.proved) == ((0, 0, 1), (0, 0, 0))
    assert {state for call in model.asked for state, _ in call} == {"."}
    rows = sorted(row for call in model.asked for _, row in call)
    assert rows == [0, 1, 2, 3, 4, 5], "every draw has a number of its own"


@pytest.mark.parametrize(
    ("mode", "steps", "counted"),
    [
        ("accept", ["a", "=", "b"], 0),
        ("count", ["a", "=", "b"], 1),
        ("reject", ["a", "b"], 1),
    ],
)
def test_no_progress(mode, steps, counted):
    """`a = b`: the tactic that changes nothing is a step, is counted, or is ignored."""
    model = told("a=b", tactics=3)
    outcome = only(sample(model, Toy(), [AB], rules(1, 3, no_progress=mode)))
    assert [step.tactic for step in outcome.first.steps] == steps
    assert outcome.counts["no_progress"] == counted


class Loop(Toy):
    """`u` undoes a letter."""

    def run(self, state, tactic, timeout=None):
        if tactic == "u":
            return Progress(self.state(state.theorem, state.handle[:-1]))
        return super().run(state, tactic)


def test_states_seen_before_are_not_entered_again():
    """`c u`: undone, the state is the first again; with the switch it stays at c."""
    model = told("cud", tactics=3)
    assert not only(sample(model, Loop(), [AB], rules(1, 3))).solved
    found = only(sample(model, Loop(), [AB], rules(1, 3, dedup_states=True)))
    assert [step.tactic for step in found.first.steps] == ["c", "d"]
    assert found.counts["seen_before"] == 1


def test_crashes_are_counted_apart():
    """Of a theorem that cannot start; of one trajectory, while the other goes on."""
    broken = Theorem("b", "broken")
    model = Script(lambda state, row: "!a"[row % 8 // 4] if state == "." else "b")
    one, two = sample(model, Toy(), [broken, AB], rules(2, 4)).outcomes
    assert one.crashed == "no such statement" and not one.counts
    assert one.proved == (0, 0), "counted apart, but not as proved"
    assert two.crashed == "" and two.counts["crashed"] == 1
    assert two.proved == (0, 2)
    assert two.counts["tactics"] == 3, "a crashed trajectory is not asked again"


def test_proofs_that_do_not_verify_do_not_count():
    """Proved, but the whole check says no: given up, and the state stays."""
    theorem = Theorem("z", "za ab")
    outcome = only(sample(told("zaa", tactics=3), Toy(), [theorem], rules(1, 3)))
    assert not outcome.solved and outcome.counts["gaveup"] == 2


def many():
    """Twelve theorems, trajectories of which find theirs at different times."""
    words = ["".join(w) for w in itertools.product("abc", "abx")]
    return [Theorem(w, f"{w} cc") for w in [*words, "broken", "ba", "aa"]]


@pytest.mark.parametrize("stop", [True, False])
def test_outcomes_do_not_depend_on_waves_or_on_time(stop):
    """One wave with a quick prover, three with a slow one: equal to the last count."""
    theorems = [*many()[:-3], Theorem("b", "broken"), *many()[-2:]]

    def found(waves, env):
        model = Script(lambda state, row: "abcx"[(row * 2654435761 >> 7) % 4])
        made = rules(4, 5, waves=waves, stop_all_on_first=stop)
        return sample(model, env, theorems, made, calls=True).outcomes

    quick = found(1, Toy())
    assert any(o.solved for o in quick) and not all(o.solved for o in quick)
    assert quick == found(3, Toy(threading.Event()))


def test_outcomes_do_not_depend_on_the_other_theorems():
    """Some of them, at their places; each is told of once, as it is returned."""
    theorems = [*many()[:-3], Theorem("b", "broken"), *many()[-2:]]
    made = rules(4, 5, waves=2, stop_all_on_first=False)
    seen = []

    def found(places):
        model = Script(lambda state, row: "abcx"[(row * 2654435761 >> 7) % 4])
        asked = [theorems[place] for place in places]
        more = {"places": places, "on_done": lambda *one: seen.append(one)}
        return sample(model, Toy(), asked, made, **more).outcomes

    every = found(range(len(theorems)))
    assert sorted(seen, key=lambda one: one[0]) == list(enumerate(every))
    assert found((3, 1, 9)) == [every[3], every[1], every[9]]
    assert every[3] != every[1] and every[9].crashed


def test_tactics_are_checked_by_another_thread():
    """Never where the model writes; and a fault there comes out here."""
    env = Toy()
    sample(told("ab", tactics=2), env, [AB], rules(1, 2))
    assert env.threads and threading.get_ident() not in env.threads

    class Faulty(Toy):
        def run(self, state, tactic, timeout=None):
            raise KeyError("a bug of the prover")

    with pytest.raises(KeyError, match="a bug of the prover"):
        sample(told("ab", tactics=2), Faulty(), [AB], rules(1, 2))


def test_throughput_counts_what_was_done():
    """Five tactics of two tokens; shares of time are shares."""
    found = sample(
        told("abx", "xcd", tactics=3), Toy(), [AB], rules(2, 3, stop_all_on_first=False)
    ).throughput
    row = found.row()
    assert (found.tactics, found.tokens) == (5, 10)
    assert row["tokens_per_second"] == pytest.approx(2 * row["tactics_per_second"])
    assert 0 <= row["model_waiting"] <= 1 and 0 <= row["environment_idle"] <= 1
    assert found.writing + found.waiting <= found.seconds


# --- best first ---------------------------------------------------------------------


class Chooser:
    """Candidates of each state: {state: [(tactic, log-prob), ...]}."""

    def __init__(self, table, tokens=1):
        self.table, self.tokens, self.asked = table, tokens, []

    def candidates(self, states, rows, count):
        self.asked += states
        for i, state in enumerate(states):
            options = self.table.get(state, [("x", -9.0)])
            yield (
                i,
                [
                    Written(
                        f"so {tactic}",
                        tactic,
                        2,
                        {"mean": score, "sum": 2 * score, "tactic": -score},
                    )
                    for tactic, score in (options * count)[:count]
                ],
            )


def best(table, theorem, N, S, score="mean", env=None):
    made = BestFirst(expansions=N, candidates=S, scores=(score,), waves=1)
    model = Chooser(table)
    return model, only(search(model, env or Toy(), [theorem], made, score=score))


def test_the_most_probable_state_is_expanded_first():
    """. -> a (1), b (2); a -> aa (1+3), b is next: 2 < 4; bb closes it."""
    table = {
        ".": [("a", -1.0), ("b", -2.0)],
        "a": [("a", -3.0), ("x", -0.1)],
        "b": [("b", -0.5), ("c", -0.1)],
    }
    model, found = best(table, Theorem("t", "bb"), N=5, S=2)
    assert model.asked == [".", "a", "b"]
    assert found.proved == (3,)
    assert [step.tactic for step in found.first.steps] == ["b", "b"]
    assert [step.state for step in found.first.steps] == [".", "b"]
    costs = {node.state: node.cost for node in found.tree}
    assert costs == {".": 0, "a": 1, "b": 2, "aa": 4, "bc": 2.1, "no goals": 2.5}
    assert {node.state: node.expanded for node in found.tree} == {
        ".": 1, "a": 2, "b": 3, "aa": 0, "bc": 0, "no goals": 0,
    }  # fmt: skip
    assert found.tree[1].failed == (("x", "illegal"),)


def test_equal_costs_are_first_come_first_served():
    """Three at the same cost are expanded in the order in which they were pushed."""
    table = {".": [("c", -1.0), ("a", -1.0), ("b", -1.0)]}
    model, found = best(table, Theorem("t", "q"), N=9, S=3)
    # Completions of one score come in the order of their texts.
    assert model.asked == [".", "a", "b", "c"]
    assert not found.solved and found.counts["expansions"] == 4


def test_states_are_expanded_once():
    """aa by way of `a a` and again by `c`-less loops: checked at push and at pop."""

    class Commutes(Toy):
        """ab and ba are one state."""

        def state(self, theorem, word):
            made = super().state(theorem, word)
            return made._replace(key="".join(sorted(word)))

    table = {
        ".": [("a", -1.0), ("b", -1.0)],
        "a": [("b", -1.0), ("=", -0.1)],  # `=`: a itself, which is expanded: no push
        "b": [("a", -1.0), ("x", -1.0)],  # ba = ab is pushed, and dropped when popped
    }
    theorem = Theorem("t", "q")
    model, found = best(table, theorem, N=9, S=2, env=Commutes())
    assert model.asked == [".", "a", "b", "ab"]
    states = [node.state for node in found.tree]
    assert states == [".", "a", "b", "ab", "ba"]
    assert [node.expanded for node in found.tree] == [1, 2, 3, 4, 0]


def test_scores_choose_the_order():
    """By the tactic's own log-probability (here the opposite) b comes before a."""
    table = {".": [("a", -1.0), ("b", -2.0)]}
    for score, order in (("mean", "ab"), ("sum", "ab"), ("tactic", "ba")):
        model, _ = best(table, Theorem("t", "q"), N=3, S=2, score=score)
        assert model.asked == [".", *order]
    with pytest.raises(ValueError, match="score: expected one of"):
        best(table, AB, N=1, S=1, score="median")


def test_copies_keep_their_best_score():
    """Of equal texts the best; in the order of scores, not of completion."""
    made = [("a", -3.0), ("b", -2.0), ("a", -1.0), ("c", -4.0), ("b", -5.0)]
    written = [Written(t, t, 1, {"mean": s}) for t, s in made]
    kept = [(one.tactic, one.scores["mean"]) for one in ranked(written, "mean")]
    assert kept == [("a", -1.0), ("b", -2.0), ("c", -4.0)]


def test_waves_of_theorems_are_searched_as_each_alone():
    """Outcomes of many at once are those of one by one."""
    table = {
        ".": [("a", -1.0), ("b", -2.0)],
        "a": [("b", -1.5), ("c", -0.1)],
        "b": [("b", -0.5), ("c", -0.1)],
    }
    theorems = [Theorem(w, w) for w in ("ab", "bc", "q", "broken", "b")]
    made = BestFirst(expansions=4, candidates=2, waves=3)
    together = search(Chooser(table), Toy(), theorems, made).outcomes
    alone = [only(search(Chooser(table), Toy(), [t], made)) for t in theorems]
    assert together == alone
    seen, places = {}, (9, 8, 2, 3, 0)
    more = {"places": places, "on_done": seen.__setitem__}
    assert search(Chooser(table), Toy(), theorems, made, **more).outcomes == together
    assert [seen[place] for place in places] == together
    assert [o.solved for o in alone] == [True, True, False, False, True]
    assert alone[3].crashed == "no such statement"
