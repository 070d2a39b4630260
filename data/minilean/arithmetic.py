"""ring, norm_num, linarith and nlinarith: they find the certificate. Untrusted."""

from data.minilean import syntax
from data.minilean.elaborate import NEGATION, Elaborator
from data.minilean.facts import natural_atoms, with_products
from data.minilean.kernel import Proof
from data.minilean.linear import multipliers
from data.minilean.polynomials import ONE, Work, difference, holds, scaled_sum
from data.minilean.rewriting import simplified
from data.minilean.state import Goal, Illegal, Step, formula_of, hypothesis
from data.minilean.syntax import NAT, Formula, comparison, exposed

MAX_FACTS = 80


def ring(goal: Goal, args: tuple, work: Work) -> Step:
    """`ring`: both sides are the same polynomial."""
    if goal.target.op != "=":
        raise Illegal("ring: the target is not an equation")
    if difference(*goal.target.args, work):
        raise Illegal("ring failed: the sides are different polynomials")
    return Step((), Proof("ring"))


def norm_num(goal: Goal, args: tuple, work: Work) -> Step:
    """`norm_num`, `norm_num [h1, …]`: what is closed, after rewriting, is evaluated.

    `norm_num at h`: a hypothesis that is closed and false closes the goal.
    """
    hints, place = args
    if place is not None:
        if hints:
            raise Illegal("norm_num: hints and a place together")
        return _false_hypothesis(goal, place, work)
    goal, templates, elaborator = simplified(
        goal, tuple((False, hint) for hint in hints), None, work
    )
    if not _evaluates(goal.target) or not holds(goal.target, work):
        raise Illegal("norm_num failed: the target is not closed and true")
    template = Proof("norm_num")
    for op, before, after in reversed(templates):
        template = Proof(op, (*before, template, *after))
    return Step((), elaborator.wrapped(template))


def _false_hypothesis(goal: Goal, name: str, work: Work) -> Step:
    formula = formula_of(goal, name)
    if not _evaluates(formula) or holds(formula, work):
        raise Illegal("norm_num: the hypothesis is not closed and false")
    negation = syntax.negate(formula)
    false = Proof("apply", (hypothesis(NEGATION), hypothesis(name)))
    inside = Proof("absurd", (false,))
    return Step((), Proof("have", (NEGATION, negation, Proof("norm_num"), inside)))


def _evaluates(formula: Formula) -> bool:
    """Relations between closed terms and their combinations."""
    if formula.op in syntax.RELATIONS:
        return all(syntax.is_closed(term) for term in formula.args)
    if formula.op in syntax.QUANTIFIERS or formula.op == "prop":
        return False
    return all(_evaluates(part) for part in formula.args)


def linarith(goal: Goal, args: tuple, work: Work) -> Step:
    """`linarith [e1, …]`: the comparisons at hand add up to the target."""
    return _linear(goal, args[0], work, products=False)


def nlinarith(goal: Goal, args: tuple, work: Work) -> Step:
    """`nlinarith [e1, …]`: as linarith, with squares and products of comparisons."""
    return _linear(goal, args[0], work, products=True)


def _linear(goal: Goal, hints: tuple, work: Work, products: bool) -> Step:
    elaborator = Elaborator(goal)
    given = [elaborator.infer(hint) for hint in hints]
    if any(comparison(formula) is None for _, formula in given):
        raise Illegal("linarith: a hint is no comparison")
    given += [
        (hypothesis(name), kind)
        for name, kind in goal.binders
        if type(kind) is Formula and comparison(kind) is not None
    ]
    target = exposed(goal.target)
    if target.op == "=":
        sides = Formula("≤", target.args), Formula("≤", target.args[::-1])
        proofs = [_contradicted(side, given, work, products) for side in sides]
        template = Proof("antisymm", tuple(proofs))
    elif target.op in ("<", "≤", "False"):
        template = _contradicted(target, given, work, products)
    else:
        false = _contradicted(syntax.FALSE, given, work, products)
        template = Proof("absurd", (false,))
    return Step((), elaborator.wrapped(template))


def _contradicted(target: Formula, given: list, work: Work, products: bool) -> Proof:
    """A proof of target, <, ≤ or False. Raises Illegal if none is found."""
    facts = list(given)
    if target != syntax.FALSE:
        facts.append((hypothesis(NEGATION), syntax.negate(target)))
    if products:
        facts = with_products(facts)
    facts += [
        (Proof("nonneg", (atom,)), Formula("≤", (syntax.num(0, NAT), atom)))
        for atom in natural_atoms(formula for _, formula in facts)
    ]
    if len(facts) > MAX_FACTS:
        raise Illegal("too many facts", "limits")
    rows = []
    for _, formula in facts:
        op, left, right = comparison(formula)
        row = difference(left, right, work)
        rows.append((op == "=", scaled_sum(row, ONE, 1) if op == "<" else row))
    found = multipliers(rows, work)
    if found is None:
        raise Illegal("linarith failed to find a contradiction")
    items = tuple((m, p) for m, (p, _) in zip(found, facts, strict=True) if m)
    proof = Proof("linear", (items,))
    return proof if target == syntax.FALSE else Proof("contra", (NEGATION, proof))


TACTICS = {
    "ring": ring,
    "norm_num": norm_num,
    "linarith": linarith,
    "nlinarith": nlinarith,
}
