"""A toy prover and a scripted model, so that a search can be followed on paper.

States are words: a tactic is a letter, and a word is proved when it is one of the
theorem's.
"""

import threading

from research.lean_star.environment import (
    Crashed,
    Illegal,
    Progress,
    Proved,
    State,
    Theorem,
    Verdict,
)
from research.lean_star.search import Written
from research.lean_star.settings import Sampled


class Toy:
    """Words grow by letters; `x` is illegal, `=` changes nothing, `!` crashes.

    The statement is the words that are proofs, separated by spaces; "broken" cannot be
    started. Words that begin with `z` fail the final check.
    """

    def __init__(self, delay=None):
        self.delay, self.threads = delay, set()

    def state(self, theorem, word):
        return State(0, (word or ".",), word, tuple(word), theorem, word)

    def start(self, theorem):
        if theorem.statement == "broken":
            return Crashed("no such statement")
        return self.state(theorem, "")

    def start_many(self, theorems):
        return [self.start(theorem) for theorem in theorems]

    def run(self, state, tactic, timeout=None):
        self.threads.add(threading.get_ident())
        if self.delay is not None:
            self.delay.wait(0.001)
        if tactic == "!":
            return Crashed("fell over")
        if tactic == "=":
            return Progress(state)
        if tactic == "x" or len(tactic) != 1:
            return Illegal("elaboration", "no such letter")
        word = state.handle + tactic
        if word in state.theorem.statement.split():
            return Proved(tuple(word), word)
        return Progress(self.state(state.theorem, word))

    def run_many(self, items):
        return [self.run(*item) for item in items]

    def verify(self, theorem, script):
        ok = script[0] != "z"
        return Verdict(ok, "toy", (), 0.0, "" if ok else "z")


class Script:
    """Writes the letter of each state and row; the last is finished first."""

    def __init__(self, letter):
        self.letter, self.asked = letter, []

    def write(self, states, rows):
        self.asked.append(list(zip(states, rows, strict=True)))
        for i in reversed(range(len(states))):
            tactic = self.letter(states[i], rows[i])
            yield i, Written(f"so {tactic}", tactic, 2)


def told(*lines, tactics):
    """A model whose trajectory k of the only theorem writes the letters of lines[k]."""
    return Script(lambda state, row: lines[row // tactics][row % tactics])


def rules(K, N, **more):
    return Sampled(**{"trajectories": K, "tactics": N, "waves": 1} | more)


def only(found):
    (outcome,) = found.outcomes
    return outcome


AB = Theorem("t", "ab cd")
