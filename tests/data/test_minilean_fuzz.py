"""The kernel at work on what is false: random, mutated and sabotaged proof terms.

Every claim that the kernel accepts anywhere in such a term (these hypotheses, hence
this formula) is judged by looking for a counter-model.
"""

import random
from collections import Counter

import pytest
from helpers import minilean_judge as judge
from helpers import minilean_random as made
from helpers import minilean_terms as terms

from data.minilean import arithmetic, kernel, logic, state, tactics
from data.minilean.parser import parse_statement
from data.minilean.syntax import Statement
from data.worlds.theorems import SOURCES, held_out


@pytest.fixture(scope="module")
def known() -> list[tuple[str, Statement, kernel.Proof, list[str]]]:
    """(source, statement, proof term, script) of the held-out problems."""
    found = []
    for row in held_out():
        statement = parse_statement(row["statement"])
        state = replayed(statement, row["proof"])
        proof = tactics.proof_of(state)
        assert kernel.check(statement.binders, proof, statement.goal).ok
        found.append((row["source"], statement, proof, row["proof"]))
    return found


@pytest.fixture
def claims(monkeypatch) -> judge.Claims:
    found = judge.Claims()
    monkeypatch.setattr(kernel, "_Checker", found.checker)
    return found


def replayed(statement: Statement, script) -> tactics.State:
    """The state after the tactics of a script that are legal."""
    state = tactics.start(statement)
    for tactic in script:
        after = tactics.run(state, tactic)
        state = after if type(after) is tactics.State else state
    return state


def proves(statement: Statement, proof: kernel.Proof) -> bool:
    return kernel.check(statement.binders, proof, statement.goal).ok


def false_statement(rng: random.Random, known: list) -> Statement:
    """One that has a counter-model: random, or a theorem with one thing changed."""
    made_by = rng.random()
    if made_by < 0.25:
        return made.valid_sequent(rng, valid=False)
    if made_by < 0.5:
        return made.false_arithmetic(rng)
    return near_true(rng, rng.choice(known)[1])


def near_true(rng: random.Random, statement: Statement) -> Statement:
    """The theorem with one thing changed so that it is false. It may take many."""
    while True:
        found = terms.near(rng, statement)
        if is_false(found, rng):
            return found


def is_false(statement: Statement, rng: random.Random) -> bool:
    scope = dict(statement.binders)
    return judge.counter_model(scope, statement.goal, rng)[0] is not None


def sizes(suite: int, slow: int):
    """A test's counts: small in the suite, and large where there is time."""
    return pytest.mark.parametrize(
        "count", [suite, pytest.param(slow, marks=pytest.mark.slow)]
    )


@sizes(900, 50_000)
def test_random_proof_terms_prove_nothing_false(known, claims, count):
    """None proves a false statement, and of what the kernel accepts on the way nothing
    has a counter-model."""
    rng = random.Random(count)
    while claims.calls < count:
        statement = false_statement(rng, known)
        scope = dict(statement.binders)
        for _ in range(20):
            proof = terms.claimed(rng, scope, statement.goal, rng.randint(1, 5))
            assert not proves(statement, proof), (statement, proof)
    rules = [rule for rule in terms.RULES if claims.accepted[rule]]
    wrong, judged, met = claims.judged(seed=0, most=max(800, count // 10))
    print(
        f"\n{claims.calls} proof terms against false statements, none accepted; "
        f"{claims.tried.total()} nodes checked, {claims.accepted.total()} accepted, by "
        f"{len(rules)} rules; {judged} claims judged, {met} of them with a model"
    )
    assert not wrong, wrong[0]
    assert claims.calls >= count and claims.accepted.total() > count
    assert len(rules) > 20 and judged > 300 and met > judged / 2


def without_side_conditions(monkeypatch, which: str) -> None:
    """Tactics that close a goal without asking whether they may."""
    if which == "arithmetic":
        monkeypatch.setattr(arithmetic, "difference", lambda *_: {})
        monkeypatch.setattr(arithmetic, "_evaluates", lambda _: True)
        monkeypatch.setattr(arithmetic, "holds", lambda *_: True)
    elif which == "multipliers":
        ones = lambda rows, work: [1] * len(rows)  # noqa: E731
        monkeypatch.setattr(arithmetic, "multipliers", ones)
    else:
        last = lambda goal, _: (  # noqa: E731
            state.hypothesis(goal.binders[-1].name) if goal.binders else None
        )
        monkeypatch.setattr(logic, "assumed", last)


@pytest.mark.parametrize("which", ["arithmetic", "multipliers", "assumption"])
@sizes(500, 20_000)
def test_sabotaged_tactics_prove_nothing_false(
    known, claims, monkeypatch, which, count
):
    """They leave no goals; the kernel is asked each time, and refuses."""
    without_side_conditions(monkeypatch, which)
    rng, steps, finished = random.Random(which), 0, 0
    while steps < count:
        statement = false_statement(rng, known)
        found = tactics.start(statement)
        for _ in range(12):
            after = tactics.run(found, made.tactic(rng, found.goals[0]))
            steps += 1
            if type(after) is tactics.Fault:
                continue
            found = after
            if not found.goals:
                finished += 1
                assert not proves(statement, tactics.proof_of(found)), statement
                break
    wrong, judged, _ = claims.judged(seed=0, most=count // 10)
    print(
        f"\n{which}: {steps} tactics, {finished} states without goals, {claims.calls} "
        f"calls of the kernel, none accepted; {judged} claims judged"
    )
    assert not wrong, wrong[0]
    assert claims.calls == finished > steps / 100


@sizes(1, 20)
def test_known_proofs_of_what_is_nearly_true_are_refused(known, claims, count):
    """A theorem with one thing changed that makes it false: neither its script, nor its
    proof term, nor that with one thing changed proves it."""
    rng, finished, tried = random.Random(count), 0, 0
    chosen = known if count > 1 else known[::3]
    for _, statement, proof, script in chosen:
        for _ in range(count):
            wrong = near_true(rng, statement)
            scope = dict(wrong.binders)
            candidates = [proof]
            candidates += [terms.mutated(rng, proof, scope)[1] for _ in range(4)]
            found = replayed(wrong, script)
            if not found.goals:
                finished += 1
                candidates.append(tactics.proof_of(found))
            for candidate in candidates:
                tried += 1
                assert not proves(wrong, candidate), (wrong, candidate)
    bad, judged, met = claims.judged(seed=0, most=400 * count)
    print(
        f"\n{len(chosen) * count} statements, {claims.calls} proof terms, "
        f"none accepted, {finished} scripts that ran to their end; {judged} claims "
        f"judged, {met} with a model"
    )
    assert not bad, bad[0]
    assert claims.calls == tried >= 5 * len(chosen) * count and finished == 0
    assert claims.accepted.total() > tried and met > judged / 2


@sizes(3, 100)
def test_mutants_of_known_proofs_claim_nothing_false(known, claims, count):
    """Of all six sources; rules, names, multipliers, terms and formulas are changed.

    Most are refused. All that is accepted in any, in the others too, has no
    counter-model.
    """
    rng = random.Random(count)
    refused, accepted = Counter(), Counter()
    for source, statement, proof, _ in known if count > 3 else known[1::2]:
        for _ in range(count):
            kind, mutant = terms.mutated(rng, proof, dict(statement.binders))
            if mutant == proof:
                continue
            ok = proves(statement, mutant)
            for key in (kind, source):
                (accepted if ok else refused)[key] += 1
    wrong, judged, met = claims.judged(seed=0, most=250 * count)
    print(
        f"\nrefused {dict(refused)}, accepted {dict(accepted)}; {judged} "
        f"claims judged, {met} with a model"
    )
    assert not wrong, wrong[0]
    assert all(refused[source] > 5 * count for source in SOURCES)
    assert all(refused[kind] > count for kind in terms.KINDS)
    assert sum(refused.values()) > sum(accepted.values())
    assert met > judged / 2


@pytest.mark.parametrize(
    "name, broken",
    [
        ("_same", lambda *_: True),
        ("holds", lambda *_: True),
        ("difference", lambda *_: {}),
        ("exposed", lambda f: f._replace(args=f.args[::-1])),
    ],
)
def test_a_kernel_without_a_side_condition_is_found_out(
    known, monkeypatch, name, broken
):
    """So what the tests above look for would be seen: a claim that is false, or speaks
    of what is not there."""
    monkeypatch.setattr(kernel, name, broken)
    claims = judge.Claims()
    monkeypatch.setattr(kernel, "_Checker", claims.checker)
    rng = random.Random(1)
    for _, statement, proof, _ in rng.sample(known, len(known)):
        for _ in range(2):
            mutant = terms.mutated(rng, proof, dict(statement.binders))[1]
            proves(near_true(rng, statement), mutant)
            proves(statement, mutant)
        if claims.judged(seed=0, most=100)[0]:
            return
        claims.found.clear()
    pytest.fail("no false claim was seen")
