"""The checker: does a proof term prove a formula? Nothing else decides what is proved.

Natural deduction, checked in two directions: `check` pushes a goal into the terms that
introduce, `infer` reads the formula off those that eliminate. Arithmetic is certified:
the certificate says what to add or to compare, and is recomputed here. ℕ and ℤ are both
read as integers, and ℕ has no subtraction.

    Proof(op, args)
    inferred  hyp(name)  apply(p, q)  at(p, term)  fst(p)  snd(p)  symm(p)
              square(term): 0 ≤ term ^ 2      nonneg(term): 0 ≤ term, on ℕ
              product(p, q): of a ≤ b and c ≤ d:  a*d + b*c ≤ b*d + a*c, < if both are
              em(formula): formula ∨ ¬formula, the only axiom, "Classical.em"
    checked   intro(name, p)  pair(p, q)  inl(p)  inr(p)  true()  absurd(p)
              cases(p, name, q, name, r)  unpack(p, variable, name, q)
              witness(term, p)  have(name, formula, p, q)  refl()
              rewrite(p, motive, q): p is a = b or A ↔ B, q proves motive of the left
                side, all prove it of the right; the hole: bound variable 0, or HOLE
              induct(variable, new, name, p, q)
              ring()  norm_num()  antisymm(p, q)
              contra(name, p): p proves False from the negation of a goal < or ≤
              linear(((multiplier, p), ...)): False, from comparisons to be added,
                each an integer number of times

What is bound may hide a hypothesis of its name, but no variable: formulas speak of
variables by name. Whatever is malformed, too deep or too large is refused; nothing is
hashed before its shape is known, for hashing goes as deep as a tuple does.
"""

from functools import partial
from typing import NamedTuple

from data.minilean import syntax
from data.minilean.polynomials import ONE, Work, difference, holds, scaled_sum
from data.minilean.syntax import NAT, Formula, Signature, Term, exposed, normal, num
from data.minilean.wellformed import formula_fault, term_fault

CLASSICAL = "Classical.em"
_INFERRED = frozenset("hyp apply at fst snd symm square nonneg product em".split())
# One frame per level of a proof; Python allows a thousand.
MAX_PROOF_DEPTH, MAX_PROOF_NODES = 400, 20_000
MAX_WORK = 400_000  # of arithmetic, in products of monomials
MAX_MULTIPLIER = 10**1000


class Proof(NamedTuple):
    """A proof term: see the head of this file."""

    op: str
    args: tuple = ()


class Verdict(NamedTuple):
    """ok; the axioms used; why not, where it is not ok."""

    ok: bool
    axioms: tuple[str, ...]
    detail: str


class Refused(Exception):
    """The term proves nothing; the message says why."""


def check(context, proof: Proof, formula: Formula) -> Verdict:
    """Whether proof proves formula from the binders of context. Never raises."""
    checker = _Checker()
    try:
        scope: dict = {}
        for name, kind in context:
            if type(name) is not str or name in scope:
                raise Refused("a name that is no string, or bound twice")
            if type(kind) is not Signature:
                _well_formed(kind, scope)
            scope[name] = kind
        _well_formed(formula, scope)
        checker.check(scope, proof, formula, 0)
    except Exception as fault:  # whatever goes wrong proves nothing
        return Verdict(False, (), str(fault) or type(fault).__name__)
    return Verdict(True, tuple(sorted(checker.axioms)), "")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise Refused(message)


def _well_formed(formula: Formula, scope: dict, bound: tuple = ()) -> Formula:
    fault = formula_fault(formula, scope, bound)
    if fault is not None:
        raise Refused(f"ill-formed: {fault}")
    return formula


def _well_sorted(term: Term, scope: dict, sort: str) -> Term:
    fault = term_fault(term, scope)
    if fault is not None or term.sort != sort:
        raise Refused(f"no term of sort {sort}: {fault}")
    return term


def _limited(formula: Formula) -> Formula:
    _require(syntax.within_limits(formula), "a formula beyond the limits")
    return formula


def _instance(quantified: Formula, term: Term) -> Formula:
    return _limited(syntax.instantiate(quantified.args[2], term))


def _with(scope: dict, name: str, kind: Formula | Signature) -> dict:
    """The scope with a hypothesis or a variable; no variable is ever hidden."""
    if type(name) is not str or type(scope.get(name)) is Signature:
        raise Refused("a name that is no string, or a variable already")
    inner = scope.copy()
    inner[name] = kind
    return inner


def _same(a: Formula, b: Formula) -> bool:
    return a == b or normal(a) == normal(b)


class _Checker:
    """The rules; `axioms` collects what was assumed, `nodes` counts the work."""

    def __init__(self):
        self.axioms, self.nodes, self.work = set(), 0, Work(MAX_WORK)

    def enter(self, proof: Proof, depth: int) -> int:
        if type(proof) is not Proof or type(proof[1]) is not tuple:
            raise Refused("not a proof term")
        if type(proof[0]) is not str:
            raise Refused("a rule that is no string")
        self.nodes += 1
        if self.nodes > MAX_PROOF_NODES or depth >= MAX_PROOF_DEPTH:
            raise Refused("a proof term beyond the limits of size or depth")
        return depth + 1

    def comparison(self, formula: Formula) -> tuple[str, Term, Term]:
        _require((found := syntax.comparison(formula)) is not None, "no comparison")
        return found

    def contradict(self, facts) -> bool:
        """Facts e ≤ 0 or e = 0, scaled and added, leave a constant above 0."""
        total: dict = {}
        for fact, scale in facts:
            op, left, right = self.comparison(fact)
            if type(scale) is not int or abs(scale) > MAX_MULTIPLIER:
                raise Refused("a multiplier that is no integer, or too large")
            _require(op == "=" or scale >= 0, "a negative multiplier")
            expression = difference(left, right, self.work)
            self.work.spend(len(total) + len(expression))
            if op == "<":  # between integers e < 0 is e + 1 ≤ 0
                expression = scaled_sum(expression, ONE, 1)
            total = scaled_sum(total, expression, scale)
        return total.keys() == ONE.keys() and total[frozenset()] > 0

    def infer(self, scope: dict, proof: Proof, depth: int) -> Formula:
        """The formula that proof proves; Refused if it cannot be read off."""
        depth, args = self.enter(proof, depth), proof[1]
        match proof[0]:
            case "hyp":
                (name,) = args
                if type(name) is str and type(found := scope.get(name)) is Formula:
                    return found
                raise Refused("no hypothesis of that name")
            case "apply":
                major, minor = args
                op, sides = exposed(self.infer(scope, major, depth))
                _require(op == "→", "what is applied is no implication")
                premise, conclusion = sides
                self.check(scope, minor, premise, depth)
                return conclusion
            case ("fst" | "snd") as op:
                (major,) = args
                found = self.infer(scope, major, depth)
                _require(found.op in ("∧", "↔"), "a part of neither ∧ nor ↔")
                one, other = found.args if op == "fst" else found.args[::-1]
                return one if found.op == "∧" else Formula("→", (one, other))
            case "at":
                major, term = args
                found = self.infer(scope, major, depth)
                _require(found.op == "∀", "what is instantiated is no ∀")
                return _instance(found, _well_sorted(term, scope, found.args[1]))
            case "symm":
                (major,) = args
                found = self.infer(scope, major, depth)
                _require(found.op in ("=", "↔"), "symm of neither = nor ↔")
                return Formula(found.op, found.args[::-1])
            case "square":
                (term,) = args
                _well_sorted(term, scope, term.sort)
                return Formula("≤", (num(0, term.sort), syntax.power(term, 2)))
            case "nonneg":
                (term,) = args
                return Formula("≤", (num(0, NAT), _well_sorted(term, scope, NAT)))
            case "product":
                p, q = args
                first, a, b = self.comparison(self.infer(scope, p, depth))
                second, c, d = self.comparison(self.infer(scope, q, depth))
                _require(a.sort == c.sort, "a product of different sorts")
                low = syntax.add(syntax.mul(a, d), syntax.mul(b, c))
                high = syntax.add(syntax.mul(b, d), syntax.mul(a, c))
                op = "<" if first == second == "<" else "≤"
                return _limited(Formula(op, (low, high)))
            case "em":
                (formula,) = args
                self.axioms.add(CLASSICAL)
                return syntax.disj(_well_formed(formula, scope), syntax.negate(formula))
        raise Refused("a term whose formula cannot be inferred")

    def check(self, scope: dict, proof: Proof, target: Formula, depth: int) -> None:
        """Refused if proof does not prove the target."""
        if type(proof[0]) is str and proof[0] in _INFERRED:
            found = self.infer(scope, proof, depth)
            if found is not target and not _same(found, target):
                raise Refused("a term proves another formula")
            return
        depth, args = self.enter(proof, depth), proof[1]
        goal = exposed(target)
        match proof[0]:
            case "have":
                name, formula, part, body = args
                if formula is None:
                    formula = self.infer(scope, part, depth)
                else:
                    self.check(scope, part, _well_formed(formula, scope), depth)
                self.check(_with(scope, name, formula), body, target, depth)
            case "intro" if goal.op == "→":
                name, body = args
                premise, conclusion = goal.args
                self.check(_with(scope, name, premise), body, conclusion, depth)
            case "pair" if goal.op == "∧" or goal.op == "↔":
                p, q = args
                one, other = goal.args
                if goal.op == "↔":
                    one, other = Formula("→", goal.args), Formula("→", (other, one))
                self.check(scope, p, one, depth)
                self.check(scope, q, other, depth)
            case ("inl" | "inr") as op if goal.op == "∨":
                (part,) = args
                self.check(scope, part, goal.args[op == "inr"], depth)
            case "cases":
                major, first, p, second, q = args
                op, sides = self.infer(scope, major, depth)
                _require(op == "∨", "cases of no ∨")
                left, right = sides
                self.check(_with(scope, first, left), p, target, depth)
                self.check(_with(scope, second, right), q, target, depth)
            case "absurd":
                (part,) = args
                self.check(scope, part, syntax.FALSE, depth)
            case "true" if goal.op == "True":
                () = args
            case "intro" if goal.op == "∀":
                name, body = args
                inner = _with(scope, name, Signature((), goal.args[1]))
                instance = _instance(goal, syntax.var(name, goal.args[1]))
                self.check(inner, body, instance, depth)
            case "unpack":
                major, variable, name, body = args
                found = self.infer(scope, major, depth)
                _require(found.op == "∃", "unpack of no ∃")
                inner = _with(scope, variable, Signature((), found.args[1]))
                instance = _instance(found, syntax.var(variable, found.args[1]))
                inner = _with(inner, name, instance)
                self.check(inner, body, target, depth)
            case "witness" if goal.op == "∃":
                term, part = args
                _well_sorted(term, scope, goal.args[1])
                self.check(scope, part, _instance(goal, term), depth)
            case "refl" if goal.op in ("=", "↔"):
                () = args
                one, other = goal.args
                equal = one == other if goal.op == "=" else _same(one, other)
                _require(equal, "the sides differ")
            case "rewrite":
                equation, motive, part = args
                found = self.infer(scope, equation, depth)
                _require(found.op in ("=", "↔"), "rewrite with neither = nor ↔")
                # equal is not well-formed: to Python 1e16 equals 10 ** 16
                if found.op == "=":
                    put = syntax.instantiate
                    _well_formed(motive, scope, (found.args[0].sort,))
                else:
                    put = syntax.plugged
                    _well_formed(motive, {**scope, "": syntax.PROP})
                before, after = (put(motive, side) for side in found.args)
                same = after == target or _same(_limited(after), target)
                _require(same, "the rewritten formula is not the goal")
                self.check(scope, part, _limited(before), depth)
            case "induct":
                variable, new, name, base, step = args
                known = type(variable) is str and scope.get(variable)
                _require(known == syntax.NAT_TYPE, "induction on no ℕ")
                rest = {
                    n: kind for n, kind in scope.items() if _spares(variable, n, kind)
                }
                zero, n = num(0, NAT), syntax.var(new, NAT)
                at = partial(syntax.substitute, target, variable)
                self.check(rest, base, at(zero), depth)
                inner = _with(_with(rest, new, syntax.NAT_TYPE), name, at(n))
                self.check(inner, step, at(syntax.add(n, num(1, NAT))), depth)
            case "ring" if goal.op == "=":
                () = args
                _require(not difference(*goal.args, self.work), "unequal polynomials")
            case "norm_num":
                () = args
                _require(holds(target, self.work), "false")
            case "antisymm" if goal.op == "=":
                p, q = args
                self.check(scope, p, Formula("≤", goal.args), depth)
                self.check(scope, q, Formula("≤", goal.args[::-1]), depth)
            case "contra" if goal.op == "<" or goal.op == "≤":
                name, part = args
                inner = _with(scope, name, syntax.negate(goal))
                self.check(inner, part, syntax.FALSE, depth)
            case "linear" if goal.op == "False":
                (items,) = args
                _require(type(items) is tuple, "multipliers in no tuple")
                facts = [(self.infer(scope, part, depth), c) for c, part in items]
                _require(self.contradict(facts), "the sum is no contradiction")
            case _:
                raise Refused("a term that does not fit its goal")


def _spares(variable: str, name: str, kind: Formula | Signature) -> bool:
    """The binder stays when the variable goes: it is another, and does not name it."""
    if type(kind) is Signature:
        return name != variable
    return variable not in syntax.free_names(kind)
