"""Propositional theorems: random formulas that turn out to be provable."""

from data.worlds.draws import Draws
from data.worlds.prop_proofs import Step, script, shapes
from data.worlds.prop_search import prove
from data.worlds.propositions import Formula, curried, schemas, tautology, text
from data.worlds.theorems_draft import Draft

ATOMS = "pqrstu"
CONNECTIVES = ("→",) * 8 + ("∧",) * 5 + ("∨",) * 4 + ("¬",) * 3 + ("↔",) * 2
SIZES = (5, 11)  # connectives of a formula
STEPS = (3, 16)  # tactics of a proof
ALL = 7  # from so many steps on every theorem is kept, of shorter ones a share
IMPLIED = 0.5  # how often a premise of the formula stays in the goal


def draw(draws: Draws) -> Draft | None:
    """A random formula with a proof, or None if the one drawn has none."""
    names = draws.sample(ATOMS, draws.between(3, len(ATOMS)))
    formula = _formula(draws, names, draws.between(*SIZES))
    if formula is None or not tautology(formula):
        return None
    hypotheses = []
    while formula[0] == "→" and not draws.chance(IMPLIED):
        hypotheses.append(formula[1])
        formula = formula[2]
    proof = prove(hypotheses, formula)
    return proof and drafted(draws, hypotheses, formula, proof)


def drafted(
    draws: Draws, hypotheses: list[Formula], goal: Formula, proof: Step
) -> Draft | None:
    """The draft of a proved formula; None where the proof is too short or too long."""
    names = [f"h{i}" for i in range(1, len(hypotheses) + 1)]
    lines = script(proof, names)
    if not STEPS[0] <= len(lines) <= STEPS[1]:
        return None
    if not draws.chance(len(lines) / ALL):
        return None
    whole = curried(hypotheses, goal)
    atoms = sorted(set(text(whole)) & set(ATOMS))
    binders = [(" ".join(atoms), "Prop")]
    binders += zip(names, map(text, hypotheses), strict=True)
    return Draft(tuple(binders), text(goal), lines, shapes(proof), schemas(whole))


def _formula(draws: Draws, names, size: int) -> Formula | None:
    """A formula with so many connectives; None if a part of it is A op A."""
    if not size:
        return draws.choice(names)
    op = draws.choice(CONNECTIVES)
    if op == "¬":
        inner = _formula(draws, names, size - 1)
        return inner and ("¬", inner)
    on_the_left = draws.below(size)
    one = _formula(draws, names, on_the_left)
    other = one and _formula(draws, names, size - 1 - on_the_left)
    return None if other is None or one == other else (op, one, other)
