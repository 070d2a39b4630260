"""Theorems made forwards: each rule adds hypotheses from which one fact more follows.

What the last rules give is the goal; premises that no step needs are dropped, and one
that leads nowhere may be added. The proof is searched for afterwards, so it is the
short one, not the way in which the theorem was made.
"""

from data.worlds.draws import Draws
from data.worlds.prop_proofs import prune
from data.worlds.prop_search import prove
from data.worlds.propositions import FALSE, Formula
from data.worlds.theorems_draft import Draft
from data.worlds.theorems_prop import ATOMS, drafted

RULES = (3, 8)  # applied to make a theorem
DEPTHS = range(1, 12)


def draw(draws: Draws) -> Draft | None:
    """A theorem and its proof; None if the search does not find one."""
    names = draws.shuffled(ATOMS)
    hypotheses: list[Formula] = [names.pop()]
    facts: list[Formula] = [hypotheses[0]]
    for _ in range(draws.between(*RULES)):
        if names:
            made, follow = draws.choice(_RULES)(draws, facts, names)
            hypotheses += made
            facts += follow
    goal = _goal(draws, facts)
    if goal in hypotheses:
        return None
    if draws.chance(0.3):
        hypotheses.append(("→", *draws.sample(ATOMS, 2)))
    proof = prove(hypotheses, goal, depths=DEPTHS)
    if proof is None:
        return None
    needed = prune(proof)[1]
    kept = [i for i in range(len(hypotheses)) if i in needed or draws.chance(0.3)]
    order = draws.shuffled(kept)
    statement = [hypotheses[i] for i in order]
    for _ in range(draws.below(3)):
        if len(statement) > 1:
            goal = ("→", statement.pop(), goal)
    proof = prove(statement, goal, depths=DEPTHS)
    return proof and drafted(draws, statement, goal, proof)


def _goal(draws: Draws, facts: list[Formula]) -> Formula:
    last, other = facts[-1], draws.choice(facts)
    kind = draws.below(6)
    if last == other or kind < 3:
        return last
    if kind == 3:
        return ("∧", *draws.shuffled([last, other]))
    if kind == 4:
        others = [name for name in ATOMS if name != last]
        return ("∨", *draws.shuffled([last, draws.choice(others)]))
    return ("¬", ("¬", last))


# Rules: (draws, facts so far, unused atoms) -> (new hypotheses, facts that follow).


def _implied(draws, facts, names):
    new = names.pop()
    return [("→", draws.choice(facts), new)], [new]


def _from_both(draws, facts, names):
    one, other, new = draws.choice(facts), draws.choice(facts), names.pop()
    if one == other:
        return [("→", one, new)], [new]
    if draws.chance(0.5):
        return [("→", one, ("→", other, new))], [new]
    return [("→", ("∧", one, other), new)], [new]


def _from_either(draws, facts, names):
    parts = draws.shuffled([draws.choice(facts), draws.choice(ATOMS)])
    new = names.pop()
    return [("→", ("∨", *parts), new)], [new]


def _a_pair(draws, facts, names):
    given, one = draws.choice(facts), names.pop()
    if not names:
        return [("→", given, one)], [one]
    other = names.pop()
    return [("→", given, ("∧", one, other))], [one, other]


def _by_cases(draws, facts, names):
    if len(names) < 3:
        return _implied(draws, facts, names)
    one, other, new = names.pop(), names.pop(), names.pop()
    either = ("∨", one, other)
    if draws.chance(0.4):
        either = ("→", draws.choice(facts), either)
    return [either, ("→", one, new), ("→", other, new)], [new]


def _equivalent(draws, facts, names):
    given, new = draws.choice(facts), names.pop()
    return [("↔", *draws.shuffled([given, new]))], [new]


def _the_other(draws, facts, names):
    if len(names) < 2:
        return _implied(draws, facts, names)
    wrong, new = names.pop(), names.pop()
    return [("∨", *draws.shuffled([wrong, new])), ("¬", wrong)], [new]


def _refuted(draws, facts, names):
    new = names.pop()
    end = draws.choice([FALSE, ("¬", draws.choice(facts))])
    return [("→", new, end)], [("¬", new)]


def _from_an_implication(draws, facts, names):
    if len(names) < 2:
        return _implied(draws, facts, names)
    assumed, new = names.pop(), names.pop()
    return [("→", ("→", assumed, draws.choice(facts)), new)], [new]


def _impossible(draws, facts, names):
    given, new = draws.choice(facts), names.pop()
    return [("→", ("¬", given), draws.choice(ATOMS)), ("→", given, new)], [new]


_RULES = (
    _implied,
    _from_both,
    _from_both,
    _from_either,
    _a_pair,
    _by_cases,
    _equivalent,
    _the_other,
    _refuted,
    _from_an_implication,
    _impossible,
)
