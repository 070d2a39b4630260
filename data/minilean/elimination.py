"""rcases, obtain, cases', by_contra, by_cases and induction': case distinctions."""

from data.minilean import syntax
from data.minilean.elaborate import Elaborator, limited
from data.minilean.kernel import Proof
from data.minilean.polynomials import Work
from data.minilean.state import (
    Goal,
    Illegal,
    Step,
    formula_of,
    hole,
    hypothesis,
    with_binder,
    with_target,
    without,
)
from data.minilean.syntax import FALSE, Formula, Signature, exposed

_made = tuple.__new__  # as in `state`


def rcases(goal: Goal, args: tuple, work: Work) -> Step:
    """`rcases e with pattern` and `obtain pattern := e`."""
    major, pattern = args
    elaborator = Elaborator(goal)
    proof, formula = elaborator.infer(major)
    goals: list[Goal] = []
    if proof[0] == "hyp" and major == ("name", proof[1][0]):
        (name,) = proof[1]
        goal = without(goal, name)
        if not _binds(pattern, name):  # else what it names would hide it
            template = _destruct(goal, ((proof, formula, pattern),), 1, goals)
            return _made(Step, (tuple(goals), template))
    template = _destruct(goal, ((hypothesis("·0"), formula, pattern),), 1, goals)
    template = Proof("have", ("·0", None, proof, template))
    return Step(tuple(goals), elaborator.wrapped(template))


def _binds(pattern, name: str) -> bool:
    if type(pattern) is str:
        return pattern == name
    for part in pattern[1:]:
        if part == name or (type(part) is not str and _binds(part, name)):
            return True
    return False


def cases(goal: Goal, args: tuple, work: Work) -> Step:
    """`cases' h with h1 h2`: ∧, ↔, ∃ apart, ∨ to two goals."""
    name, *names = args
    formula = formula_of(goal, name)
    if len(names) != 2:
        raise Illegal("cases': two names are expected")
    kind = "or" if formula.op == "∨" else "and"
    return rcases(goal, (("name", name), (kind, *names)), work)


def _destruct(goal: Goal, pending: tuple, count: int, goals: list[Goal]) -> Proof:
    """The template that takes what is pending apart; appends to goals.

    pending: (proof, formula, pattern), the proof by a name that nothing hides; count:
    how many such names there are.
    """
    if not pending:
        goals.append(goal)
        return hole(len(goals) - 1)
    (proof, formula, pattern), rest = pending[0], pending[1:]
    if type(pattern) is str:
        goal = with_binder(goal, pattern, formula)
        inner = _destruct(goal, rest, count, goals)
        return _made(Proof, ("have", (pattern, None, proof, inner)))
    kind, first, *others = pattern
    last = others[0] if len(others) == 1 else (kind, *others)
    name = f"·{count}"
    if kind == "or":
        if formula.op != "∨":
            raise Illegal("rcases: alternatives for what is no ∨")
        one, other = formula.args
        inner = with_target(goal, goal.target, "inl")
        todo = ((hypothesis(name), one, first), *rest)
        left = _destruct(inner, todo, count + 1, goals)
        inner = with_target(goal, goal.target, "inr")
        todo = ((hypothesis(name), other, last), *rest)
        right = _destruct(inner, todo, count + 1, goals)
        return _made(Proof, ("cases", (proof, name, left, name, right)))
    goal = with_target(goal, goal.target, "intro")
    if formula.op == "∃":
        if type(first) is not str:
            raise Illegal("rcases: the witness of ∃ takes a name")
        sort = formula.args[1]
        goal = with_binder(goal, first, Signature((), sort))
        body = limited(syntax.instantiate(formula.args[2], syntax.var(first, sort)))
        todo = ((hypothesis(name), body, last), *rest)
        inner = _destruct(goal, todo, count + 1, goals)
        return Proof("unpack", (proof, first, name, inner))
    if formula.op not in ("∧", "↔"):
        raise Illegal("rcases: ⟨…⟩ for what is none of ∧, ↔, ∃")
    sides = formula.args
    if formula.op == "↔":
        sides = Formula("→", sides), Formula("→", sides[::-1])
    one = _made(Proof, ("fst", (proof,))), sides[0], first
    other = _made(Proof, ("snd", (proof,))), sides[1], last
    # Lean names the parts first, then takes those apart that are patterns
    if type(last) is str and type(first) is not str:
        one, other = other, one
    return _destruct(goal, (one, other, *rest), count, goals)


def by_contra(goal: Goal, args: tuple, work: Work) -> Step:
    """`by_contra h`: h denies the target, which is no negation itself. Classical."""
    if exposed(goal.target).op in ("→", "∀", "False"):
        raise Illegal("by_contra: use intro here")
    (name,) = args
    new = with_binder(goal, name, syntax.negate(goal.target))
    middle = Proof("em", (goal.target,))
    denied = Proof("absurd", (hole(),))
    template = Proof("cases", (middle, "·0", hypothesis("·0"), name, denied))
    return Step((with_target(new, FALSE),), template)


def by_cases(goal: Goal, args: tuple, work: Work) -> Step:
    """`by_cases h : T`: a goal with h : T, one with h : ¬T. Classical."""
    name, raw = args
    formula = Elaborator(goal).formula(raw)
    goals = tuple(
        with_binder(with_target(goal, goal.target, tag), name, case)
        for case, tag in ((formula, "pos"), (syntax.negate(formula), "neg"))
    )
    middle = Proof("em", (formula,))
    return Step(goals, Proof("cases", (middle, name, hole(0), name, hole(1))))


def induction(goal: Goal, args: tuple, work: Work) -> Step:
    """`induction' n with n ih`, n not in any hypothesis."""
    name, *names = args
    if len(names) != 2:
        raise Illegal("induction': two names are expected")
    if dict(goal.binders).get(name) != syntax.NAT_TYPE:
        raise Illegal(f"{name} is not a variable of type ℕ")
    for other, kind in goal.binders:
        if type(kind) is Formula and name in syntax.free_names(kind):
            raise Illegal(f"induction': {other} is about {name}")
    rest = without(goal, name)
    new, ih = names

    def target(term):
        return limited(syntax.substitute(goal.target, name, term))

    variable = syntax.var(new, syntax.NAT)
    zero = with_target(rest, target(syntax.num(0, syntax.NAT)), "zero")
    successor = target(syntax.add(variable, syntax.num(1, syntax.NAT)))
    step = with_binder(with_target(rest, successor, "succ"), new, syntax.NAT_TYPE)
    step = with_binder(step, ih, target(variable))
    return Step((zero, step), Proof("induct", (name, new, ih, hole(0), hole(1))))


TACTICS = {
    "obtain": rcases,
    "rcases": rcases,
    "cases'": cases,
    "by_contra": by_contra,
    "by_cases": by_cases,
    "induction'": induction,
}
