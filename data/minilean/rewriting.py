"""rfl, rw, subst and simp only: equations and equivalences as rewriting rules."""

from data.minilean import syntax
from data.minilean.elaborate import Elaborator, limited, reflexive
from data.minilean.kernel import Proof
from data.minilean.matching import abstracted, assigned, first_match, opened
from data.minilean.polynomials import Work
from data.minilean.state import (
    Goal,
    Illegal,
    Step,
    formula_of,
    goal_of,
    hole,
    hypothesis,
    with_target,
)
from data.minilean.syntax import Binder, Formula, Signature, Term

MAX_REWRITES = 40  # of one simp only


def rfl(goal: Goal, args: tuple, work: Work) -> Step:
    """`rfl`: both sides are the same, or closed and equal in value."""
    proof = reflexive(goal.target, reducible=False)
    if proof is None:
        raise Illegal("rfl failed: the sides are not the same")
    return Step((), proof)


class Rule:
    """An equation or equivalence: `left`, a pattern, becomes `right`."""

    def __init__(self, elaborator: Elaborator, expression: tuple, backwards: bool):
        proof, formula = elaborator.infer(expression)
        count, body = 0, formula
        while body.op == "∀":
            count, body = count + 1, body.args[2]
        self.premises, self.metas, body = opened(formula, count)
        if body.op not in ("=", "↔"):
            raise Illegal("rewriting needs an equation or an equivalence")
        self.proof, self.backwards = proof, backwards
        self.left, self.right = body.args[::-1] if backwards else body.args
        if self.left.op == "var" and self.left.args[0][0] == "?":
            raise Illegal("the left side is any number: motive is not type correct")

    def rewritten(self, formula: Formula, work: Work) -> tuple | None:
        """(formula afterwards, motive, proof that left is right here), or None.

        All occurrences of the first instance of the rule are replaced.
        """
        found = first_match(self.left, formula, work)
        if found is None:
            return None
        if any(meta not in found for meta in self.metas):
            raise Illegal("an argument of the equation cannot be found")
        old, new = assigned(self.left, found), assigned(self.right, found)
        motive = abstracted(formula, old)
        put = syntax.instantiate if type(old) is Term else syntax.plugged
        proof = self.proof
        for meta in self.metas:
            proof = Proof("at", (proof, found[meta]))
        if self.backwards:
            proof = Proof("symm", (proof,))
        return limited(put(motive, new)), motive, proof


def head_name(expression: tuple) -> str:
    """The hypothesis or lemma that an expression starts from; "" for none."""
    while expression[0] in ("part", "call"):
        expression = expression[1]
    return expression[1].split(".")[0] if expression[0] == "name" else ""


def turned(proof: Proof) -> Proof:
    """The equation the other way round."""
    return proof.args[0] if proof.op == "symm" else Proof("symm", (proof,))


def rw(goal: Goal, args: tuple, work: Work) -> Step:
    """`rw [h1, ← h2] at h`: each rule once, then rfl if that closes the goal."""
    rules, place = args
    elaborator = Elaborator(goal)
    templates = []
    for backwards, expression in rules:
        rule = Rule(elaborator, expression, backwards)
        if place is not None and head_name(expression) == place:
            raise Illegal("rw: a hypothesis does not rewrite itself")
        goal, wrap = _apply(goal, rule, place, work)
        templates.append(wrap)
        elaborator.goal, elaborator.scope = goal, dict(goal.binders)
    proof = reflexive(goal.target, reducible=True)
    if proof is None and goal.target.op == "≥" and _same_sides(goal.target):
        raise Illegal("rw: Lean may or may not close this by rfl")
    return _finished(goal, templates, proof, elaborator)


def _same_sides(formula: Formula) -> bool:
    return formula.args[0] == formula.args[1]


def _finished(goal: Goal, templates: list, proof: Proof | None, elaborator) -> Step:
    template = proof or hole()
    for op, before, after in reversed(templates):
        template = Proof(op, (*before, template, *after))
    return Step(() if proof else (goal,), elaborator.wrapped(template))


def _apply(goal: Goal, rule: Rule, place: str | None, work: Work) -> tuple:
    """(the goal afterwards, (op, arguments before the rest, and after it))."""
    before = goal.target if place is None else formula_of(goal, place)
    found = rule.rewritten(before, work)
    if found is None:
        raise Illegal("did not find instance of the pattern in the target expression")
    formula, motive, proof = found
    if place is None:
        # the rest proves motive of the right side
        return with_target(goal, formula), (
            "rewrite",
            (turned(proof), motive),
            (),
        )
    moved = Proof("rewrite", (proof, motive, hypothesis(place)))
    return _replaced(goal, place, formula), ("have", (place, formula, moved), ())


def _replaced(goal: Goal, name: str, formula: Formula) -> Goal:
    """The hypothesis `name` is formula now, behind the variables that it mentions."""
    names = [binder.name for binder in goal.binders]
    used = syntax.free_names(formula)
    at = max(names.index(name), *(names.index(n) for n in used), 0)
    binders = list(goal.binders[: at + 1])
    binders = [b for b in binders if b.name != name]
    binders.append(Binder(name, formula))
    binders = (*binders, *goal.binders[at + 1 :])
    return goal_of(binders, goal.target, goal.case, goal.hidden)


def subst(goal: Goal, args: tuple, work: Work) -> Step:
    """`subst h`, h : a = x or x = b: the variable goes."""
    (name,) = args
    formula = formula_of(goal, name)
    if formula.op != "=":
        raise Illegal("subst: not an equation")
    left, right = formula.args
    known = dict(goal.binders)
    if _is_variable(right, left, known):
        variable, other, equation = right, left, Proof("symm", (hypothesis(name),))
    elif _is_variable(left, right, known):
        variable, other, equation = left, right, hypothesis(name)
    else:
        raise Illegal("subst: neither side is a variable that the other lacks")
    old = variable.args[0]
    kept, moved, template = [], [], []
    for binder in goal.binders:
        if binder.name in (name, old):
            continue
        if type(binder.type) is Signature or old not in syntax.free_names(binder.type):
            kept.append(binder)
            continue
        motive = syntax.abstract(binder.type, old)
        new = limited(syntax.instantiate(motive, other))
        moved.append(Binder(binder.name, new))
        proof = Proof("rewrite", (equation, motive, hypothesis(binder.name)))
        template.append(("have", (binder.name, new, proof), ()))
    motive = syntax.abstract(goal.target, old)
    template.append(("rewrite", (turned(equation), motive), ()))
    new = goal_of(
        (*kept, *moved),
        limited(syntax.instantiate(motive, other)),
        goal.case,
        goal.hidden | {old},
    )
    return _finished(new, template, None, Elaborator(goal))


def _is_variable(term: Term, other: Term, known: dict) -> bool:
    return term.op == "var" and term.args[0] not in syntax.free_names(other)


def simp_only(goal: Goal, args: tuple, work: Work) -> Step:
    """`simp only [h1, …] at h`: the rules for as long as one applies, then rfl."""
    goal, templates, elaborator = simplified(goal, *args, work)
    if not templates:
        raise Illegal("simp made no progress")
    place = args[1]
    formula = goal.target if place is None else formula_of(goal, place)
    if _computes(formula) or (place is not None and _is_reflexive(formula)):
        raise Illegal("simp: Lean would compute further, or drop the hypothesis")
    proof = None
    if place is None and _is_reflexive(formula):
        proof = reflexive(formula, reducible=True)
    return _finished(goal, templates, proof, elaborator)


def _is_reflexive(formula: Formula) -> bool:
    return formula.op in ("=", "↔") and _same_sides(formula)


def _computes(node: Term | Formula) -> bool:
    """Something in it has no variables, which Lean's simp evaluates: 2 + 3, 2 < 3."""
    if type(node) is Term and syntax.is_closed(node):
        inner = node.args[0] if node.op == "neg" else node
        return inner.op != "num"
    parts = [a for a in node.args if type(a) is Term or type(a) is Formula]
    if node.op in syntax.RELATIONS and all(map(syntax.is_closed, parts)):
        return parts[0] != parts[1]
    return any(map(_computes, parts))


def simplified(goal: Goal, rules: tuple, place: str | None, work: Work) -> tuple:
    """(the goal, templates, elaborator) after rewriting for as long as possible.

    Raises Illegal if that does not come to an end.
    """
    elaborator, templates = Elaborator(goal), []
    if place is not None and any(head_name(e) == place for _, e in rules):
        raise Illegal("simp: a hypothesis does not rewrite itself")
    read = [Rule(elaborator, expression, back) for back, expression in rules]
    while True:
        for rule in read:
            at = goal.target if place is None else formula_of(goal, place)
            if first_match(rule.left, at, work) is not None:
                goal, wrap = _apply(goal, rule, place, work)
                templates.append(wrap)
                break
        else:
            return goal, templates, elaborator
        if len(templates) > MAX_REWRITES:
            raise Illegal("simp: more rewriting than allowed", "limits")


TACTICS = {"rfl": rfl, "rw": rw, "subst": subst, "simp": simp_only}
