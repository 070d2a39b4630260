"""The tactics of natural deduction: each makes a Step of a goal, or raises Illegal."""

from data.minilean import syntax
from data.minilean.elaborate import Elaborator, limited, reflexive
from data.minilean.kernel import Proof
from data.minilean.matching import assigned, match_formula, opened
from data.minilean.polynomials import Work
from data.minilean.state import (
    Goal,
    Illegal,
    Step,
    hole,
    hypothesis,
    with_binder,
    with_target,
)
from data.minilean.syntax import FALSE, Formula, Signature, exposed

_made = tuple.__new__  # as in `state`


def _closed(proof: Proof) -> Step:
    return _made(Step, ((), proof))


def intro(goal: Goal, names: tuple, work: Work) -> Step:
    """`intro h1 h2`: the premises of → and the variables of ∀, from the left."""
    for name in names:
        target = exposed(goal[1])
        if target[0] == "→":
            premise, conclusion = target[1]
            goal = with_binder(goal, name, premise, conclusion)
        elif target[0] == "∀":
            sort = target.args[1]
            goal = with_binder(goal, name, Signature((), sort))
            body = syntax.instantiate(target.args[2], syntax.var(name, sort))
            goal = with_target(goal, body)
        else:
            raise Illegal("intro: the target is neither → nor ∀")
    template = hole()
    for name in reversed(names):
        template = _made(Proof, ("intro", (name, template)))
    return _made(Step, ((goal,), template))


def exact(goal: Goal, args: tuple, work: Work) -> Step:
    """`exact e`."""
    elaborator = Elaborator(goal)
    return elaborator.step(elaborator.check(args[0], goal.target))


def refine(goal: Goal, args: tuple, work: Work) -> Step:
    """`refine e` with ?_ for what is left; several goals are tagged refine_1, ...."""
    elaborator = Elaborator(goal, holes_allowed=True)
    step = elaborator.step(elaborator.check(args[0], goal.target))
    if len(step.goals) < 2:
        return step
    goals = tuple(
        with_target(goal, new.target, f"refine_{i}")
        for i, new in enumerate(step.goals, 1)
    )
    return step._replace(goals=goals)


def apply(goal: Goal, args: tuple, work: Work) -> Step:
    """`apply e`: the target is what e concludes; what e still needs is left.

    As many arguments are left out of e as make it fit, fewest first, as Lean does.
    """
    elaborator = Elaborator(goal)
    proof, formula = elaborator.infer(args[0])
    wanted, most = goal[1], _arity(formula)
    for count in range(max(0, most - _arity(wanted)), most + 1):
        premises, metas, conclusion = opened(formula, count)
        found = match_formula(conclusion, wanted, {})
        if found is None and syntax.normal(conclusion) == syntax.normal(wanted):
            found = {}
        if found is not None:
            break
    else:
        raise Illegal("apply: could not unify the conclusion with the target")
    if metas and any(meta not in found for meta in metas):
        raise Illegal("apply: an argument cannot be found by unification")
    goals: list[Goal] = []
    # Lean tags by the names of the arguments, which for arrows are `a`
    tag = "a" if len(premises) > 1 else ""
    for premise in premises:
        if type(premise) is str:
            proof = Proof("at", (proof, found[premise]))
            continue
        proof = _made(Proof, ("apply", (proof, hole(len(goals)))))
        if metas:
            premise = limited(assigned(premise, found))
        goals.append(with_target(goal, premise, tag))
    return _made(Step, (tuple(goals), elaborator.wrapped(proof)))


def _arity(formula: Formula) -> int:
    count = 0
    while True:
        op, args = formula[0], formula[1]
        if op == "→":
            formula = args[1]
        elif op == "∀":
            formula = args[2]
        elif op == "¬" or op == "≠":  # it concludes False
            return count + 1
        else:
            return count
        count += 1


_PAIR = Proof("pair", (hole(0), hole(1)))
_SIDES = Proof("inl", (hole(),)), Proof("inr", (hole(),))
_ABSURD = Proof("absurd", (hole(),))


def constructor(goal: Goal, args: tuple, work: Work) -> Step:
    """`constructor` on ∧, ↔ and True."""
    op, parts = goal.target
    if op == "True":
        return _closed(Proof("true"))
    if op == "∧":
        tags = ("left", "right")
    elif op == "↔":
        tags, parts = ("mp", "mpr"), (Formula("→", parts), Formula("→", parts[::-1]))
    else:
        raise Illegal("constructor: the target is none of ∧, ↔, True")
    first = with_target(goal, parts[0], tags[0])
    second = with_target(goal, parts[1], tags[1])
    return _made(Step, ((first, second), _PAIR))


def left(goal: Goal, args: tuple, work: Work) -> Step:
    """`left`: the left side of ∨."""
    return _side(goal, 0)


def right(goal: Goal, args: tuple, work: Work) -> Step:
    """`right`: the right side of ∨."""
    return _side(goal, 1)


def _side(goal: Goal, side: int) -> Step:
    op, parts = goal[1]
    if op != "∨":
        raise Illegal("the target is not ∨")
    new = with_target(goal, parts[side], "h")
    return _made(Step, ((new,), _SIDES[side]))


def exfalso(goal: Goal, args: tuple, work: Work) -> Step:
    """`exfalso`: False instead of the target."""
    return _made(Step, ((with_target(goal, FALSE),), _ABSURD))


def assumption(goal: Goal, args: tuple, work: Work) -> Step:
    """`assumption`: a hypothesis is the target."""
    proof = assumed(goal, goal.target)
    if proof is None:
        raise Illegal("assumption failed")
    return _closed(proof)


def assumed(goal: Goal, formula: Formula) -> Proof | None:
    """The last hypothesis that is the formula, as a proof, or None."""
    wanted = syntax.normal(formula)
    for name, kind in reversed(goal.binders):
        if type(kind) is Formula and (kind == wanted or syntax.normal(kind) == wanted):
            return hypothesis(name)
    return None


def contradiction(goal: Goal, args: tuple, work: Work) -> Step:
    """`contradiction`: False, x ≠ x, or both p and ¬p among the hypotheses."""
    proof = _contradicted(goal)
    if proof is None:
        raise Illegal("contradiction failed")
    return _closed(Proof("absurd", (proof,)))


def _contradicted(goal: Goal) -> Proof | None:
    """A proof of False, or None."""
    known = {}
    for name, kind in goal.binders:
        if type(kind) is Formula:
            known[syntax.normal(kind)] = name
    for formula, name in known.items():
        if formula == FALSE:
            return hypothesis(name)
        if formula.op == "→" and formula.args[1] == FALSE:
            denied = formula.args[0]
            if denied in known:
                proofs = hypothesis(name), hypothesis(known[denied])
                return Proof("apply", proofs)
            if denied.op == "=" and denied.args[0] == denied.args[1]:
                return Proof("apply", (hypothesis(name), Proof("refl")))
    return None


def trivial(goal: Goal, args: tuple, work: Work) -> Step:
    """`trivial`: what a hypothesis, True, rfl or a contradiction proves."""
    if goal.target.op == "True":
        return _closed(Proof("true"))
    proof = assumed(goal, goal.target) or reflexive(goal.target, reducible=False)
    if proof is None:
        return contradiction(goal, args, work)
    return _closed(proof)


def have(goal: Goal, name: str, raw: tuple | None, expression: tuple) -> Step:
    """`have h : T := e`; raw: T, or None where e tells."""
    elaborator = Elaborator(goal)
    if raw is None:
        proof, formula = elaborator.infer(expression)
    else:
        formula = elaborator.formula(raw)
        proof = elaborator.check(expression, formula)
    step = with_fact(goal, name, formula, proof)
    return step._replace(template=elaborator.wrapped(step.template))


def with_fact(goal: Goal, name: str, formula: Formula, proof: Proof) -> Step:
    """The goal with a hypothesis that proof proves."""
    new = with_binder(goal, name, formula)
    return Step((new,), Proof("have", (name, formula, proof, hole())))


TACTICS = {
    "intro": intro,
    "intros": intro,
    "exact": exact,
    "apply": apply,
    "refine": refine,
    "constructor": constructor,
    "left": left,
    "right": right,
    "exfalso": exfalso,
    "contradiction": contradiction,
    "assumption": assumption,
    "trivial": trivial,
}
