"""The embedded prover is an environment: the checks that every back-end passes."""

import pickle

import pytest
from helpers.prover_conformance import CHECKS, Examples

from data.minilean import kernel
from research.lean_star.embedded import EmbeddedEnvironment
from research.lean_star.environment import (
    Crashed,
    GaveUp,
    Illegal,
    Progress,
    Proved,
    Theorem,
    Timeout,
)

SLOW = "theorem slow (a b c d : ℤ) : (a + b + c + d) ^ 30 = (d + c + b + a) ^ 30 := by"
PEIRCE = Theorem("peirce", "theorem peirce (p q : Prop) : ((p → q) → p) → p := by")
CLASSICAL = ["intro h", "by_contra k", "apply k", "apply h", "intro a", "contradiction"]


@pytest.fixture
def environment():
    made = EmbeddedEnvironment()
    yield made
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, environment):
    check(environment, Examples(slow=(SLOW, "ring")))


def test_states_and_certificates_survive_pickling(environment):
    """Another process goes on where this one stopped, with equal results."""
    theorem = Theorem("swap", Examples().swap)
    state = environment.run(environment.start(theorem), "intro h").state
    there = pickle.loads(pickle.dumps(state))
    assert there == state
    proved = EmbeddedEnvironment().run(there, "exact ⟨h.2, h.1⟩")
    statement, proof, axioms = pickle.loads(pickle.dumps(proved.certificate))
    assert kernel.check(statement.binders, proof, statement.goal).ok and axioms == ()


def test_budgets_do_not_depend_on_the_machine(environment):
    """A tactic that ran out of its budget does so again; a larger one lets it end."""
    state = environment.start(Theorem("slow", SLOW.replace("30", "6")))
    assert environment.run(state, "ring", timeout=0.01) == Timeout(None)
    assert environment.run(state, "ring", timeout=0.01) == Timeout(None)
    assert isinstance(environment.run(state, "ring"), Proved)


def test_classical_proofs_say_so():
    """The axiom is in the verdict, and an intuitionistic environment refuses it."""
    env = EmbeddedEnvironment()
    verdict = env.verify(PEIRCE, CLASSICAL)
    assert verdict.ok and verdict.axioms == (kernel.CLASSICAL,)
    strict = EmbeddedEnvironment(classical=False)
    assert not strict.verify(PEIRCE, CLASSICAL).ok
    state = strict.run(strict.start(PEIRCE), CLASSICAL[0]).state
    assert strict.run(state, CLASSICAL[1]).kind == "forbidden"
    for tactic in CLASSICAL[1:-1]:  # a state that another environment has come to
        state = env.run(state, tactic).state
    found = strict.run(state, CLASSICAL[-1])
    assert isinstance(found, GaveUp) and "classical axiom" in found.reason
    assert isinstance(env.run(state, CLASSICAL[-1]), Proved)


def test_no_goals_left_is_not_yet_a_proof(environment, monkeypatch):
    """A tactic layer that cheats gets GaveUp: the kernel reads the statement itself."""
    from data.minilean import tactics
    from data.minilean.state import Step

    def cheat(goal, args, work):
        return Step((), kernel.Proof("true"))

    monkeypatch.setitem(tactics.TACTICS, "trivial", cheat)
    theorem = Theorem("false", "theorem false (p : Prop) : p := by")
    result = environment.run(environment.start(theorem), "trivial")
    assert isinstance(result, GaveUp)
    assert not environment.verify(theorem, ["trivial"]).ok


def test_counts_are_by_result(environment):
    state = environment.start(Theorem("swap", Examples().swap))
    assert isinstance(environment.start(Theorem("x", "theorem")), Crashed)
    assert isinstance(environment.run(state, "intro h"), Progress)
    assert isinstance(environment.run(state, "sorry"), Illegal)
    assert isinstance(environment.run(state, "left"), Illegal)
    found = environment.stats()
    assert found["steps"] == 3 and found["progress"] == 1 and found["crashed"] == 1
    assert found["illegal/forbidden"] == found["illegal/elaboration"] == 1
    assert found["seconds"] > 0
