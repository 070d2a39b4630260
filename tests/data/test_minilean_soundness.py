"""Nothing false is proved: random tactics and mutated proofs against other oracles.

Tactics that are right leave goals where a statement is false, so that the kernel is not
asked: `test_minilean_fuzz` shows it what is false.

Propositions are judged by truth tables, arithmetic by a model in which the hypotheses
hold and the goal does not. Neither oracle knows anything of the prover.
"""

import random
import time

import pytest
from helpers import minilean_random as made

from data.minilean import kernel, tactics
from data.minilean.syntax import PROP, Binder, Statement

RUNS_ENOUGH = 20_000


def fuzz(statement_of, seed: int, steps: int) -> dict:
    """Random tactics on statements, each a random walk that may branch back.

    Returns counts: steps, those that were legal, states without goals, and proofs that
    the kernel accepted, as (statement, proof).
    """
    rng = random.Random(seed)
    found = {"steps": 0, "legal": 0, "finished": 0, "proved": []}
    while found["steps"] < steps:
        statement = statement_of(rng)
        states = [tactics.start(statement)]
        for _ in range(40):
            state = rng.choice(states[-6:])
            text = made.tactic(rng, state.goals[0])
            after = tactics.run(state, text)
            found["steps"] += 1
            if type(after) is tactics.Fault:
                continue
            found["legal"] += 1
            if after.goals:
                states.append(after)
                continue
            found["finished"] += 1
            proof = tactics.proof_of(after)
            if kernel.check(statement.binders, proof, statement.goal).ok:
                found["proved"].append((statement, proof))
            break
    return found


def false_statement(rng: random.Random) -> Statement:
    if rng.random() < 0.5:
        return made.valid_sequent(rng, valid=False)
    return made.false_arithmetic(rng)


def true_statement(rng: random.Random) -> Statement:
    return made.valid_sequent(rng, valid=True)


def test_random_tactics_prove_nothing_false():
    found = fuzz(false_statement, seed=0, steps=RUNS_ENOUGH)
    assert found["proved"] == []
    assert found["legal"] > RUNS_ENOUGH / 10  # they do reach deep states


@pytest.mark.slow
def test_a_million_random_tactics_prove_nothing_false():
    began = time.monotonic()
    found = fuzz(false_statement, seed=1, steps=1_000_000)
    seconds = time.monotonic() - began
    print(
        f"\n{found['steps']} tactics in {seconds:.0f} s, {found['legal']} legal; "
        f"{found['finished']} left no goals, {len(found['proved'])} proved"
    )
    assert found["proved"] == []
    assert found["steps"] >= 1_000_000 and found["legal"] > 100_000


def test_the_same_tactics_prove_what_is_true():
    """So the fuzz could have proved something; all of it is true by truth tables."""
    found = fuzz(true_statement, seed=2, steps=12_000)
    assert len(found["proved"]) > 60
    assert found["finished"] == len(found["proved"])  # the kernel had no complaint
    assert all(made.tautology(statement) for statement, _ in found["proved"])


def test_what_is_proved_of_numbers_has_no_counter_model():
    """Of random statements, true or false, only such are proved that hold in hundreds
    of small models."""
    found = fuzz(made.any_arithmetic, seed=6, steps=12_000)
    assert len(found["proved"]) > 40
    assert found["finished"] == len(found["proved"])
    for statement, _ in found["proved"]:
        assert made.counter_model(statement) is None, statement


def test_mutated_proofs_and_statements_are_refused_unless_valid():
    """One node of a proof, or one of its statement, is changed: what the kernel still
    accepts is a tautology; most mutants are refused."""
    rng = random.Random(3)
    proved = fuzz(true_statement, seed=4, steps=12_000)["proved"]
    accepted = refused = 0
    for statement, proof in proved:
        names = [name for name, _ in statement.binders] + ["a1", "b2", "·0", "·1"]
        for i in range(20):
            mutant, changed = proof, statement
            if i % 2:
                mutant = made.mutated(rng, proof, names)
            else:
                changed = mutated_statement(rng, statement)
            if mutant == proof and changed == statement:
                continue
            if kernel.check(changed.binders, mutant, changed.goal).ok:
                accepted += 1
                assert made.tautology(changed), (changed, mutant)
            else:
                refused += 1
    assert refused > 500 and refused > accepted


def mutated_statement(rng: random.Random, statement: Statement) -> Statement:
    """One formula of the statement with one node changed."""
    at = rng.randrange(len(statement.binders) + 1)
    if at == len(statement.binders) or statement.binders[at].type == PROP:
        return statement._replace(goal=made.flipped(rng, statement.goal))
    binders = list(statement.binders)
    name, formula = binders[at]
    binders[at] = Binder(name, made.flipped(rng, formula))
    return statement._replace(binders=tuple(binders))


def test_every_text_gets_an_answer():
    """No string raises, whatever is in it."""
    rng = random.Random(5)
    state = tactics.start(made.valid_sequent(rng, valid=True))
    for _ in range(500):
        text = made.garbled(rng, made.tactic(rng, state.goals[0]))
        assert isinstance(tactics.run(state, text), tactics.State | tactics.Fault)
    for text in ("(" * 900, "⟨" * 900, "exact " + "(" * 400, "have h : " + "¬" * 500,
                 "rcases h with " + "⟨" * 300, "use " + "-" * 900,
                 "exact h" + ".1" * 400,
                 "have h : " + "p → " * 240 + "p := by rfl"):  # fmt: skip
        assert isinstance(tactics.run(state, text), tactics.Fault), text[:20]
