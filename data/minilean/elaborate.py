"""From the expressions of a tactic to proof terms, against one goal: untrusted."""

from data.minilean import syntax
from data.minilean.kernel import Proof
from data.minilean.parser import ParseError, leaf_sort, to_formula, to_term
from data.minilean.polynomials import Work, holds
from data.minilean.state import (
    Goal,
    Illegal,
    Step,
    hole,
    hypothesis,
    scope_of,
    with_target,
)
from data.minilean.syntax import INT, NAT, Formula, Term, exposed, num

_made = tuple.__new__  # as in `state`
# Names that no tactic can write, for what has no name in the text.
FACT, NEGATION = "·fact", "·not"


class Elaborator:
    """Elaborates against one goal; `new_goals` are those that ?_ left open."""

    __slots__ = ("goal", "scope", "holes_allowed", "new_goals", "_facts")

    def __init__(self, goal: Goal, holes_allowed: bool = False):
        self.goal = goal
        self.scope = scope_of(goal)
        self.holes_allowed = holes_allowed
        self.new_goals: list[Goal] = []
        self._facts: list[tuple[str, Formula, Proof]] = []

    def formula(self, raw: tuple) -> Formula:
        """The formula of a raw expression. Raises Illegal."""
        try:
            return limited(to_formula(raw, self.scope))
        except ParseError as fault:
            raise Illegal(str(fault)) from fault

    def term(self, expression: tuple, sort: str) -> Term:
        """The number that an expression stands for. Raises Illegal."""
        try:
            return limited(to_term(_raw(expression), sort, self.scope))
        except ParseError as fault:
            raise Illegal(str(fault)) from fault

    def wrapped(self, template: Proof) -> Proof:
        """template below the facts that its parts refer to."""
        for name, formula, proof in reversed(self._facts):
            template = Proof("have", (name, formula, proof, template))
        return template

    def step(self, template: Proof) -> Step:
        """The Step with the goals left open."""
        if self._facts:
            template = self.wrapped(template)
        return _made(Step, (tuple(self.new_goals), template))

    def fact(self, formula: Formula, proof: Proof) -> tuple[Proof, Formula]:
        """formula as something that can be inferred, from a proof that cannot."""
        name = f"{FACT}{len(self._facts)}"
        self._facts.append((name, formula, proof))
        return hypothesis(name), formula

    # Expressions

    def infer(self, expression: tuple) -> tuple[Proof, Formula]:
        """(proof, what it proves). Raises Illegal."""
        kind = expression[0]
        if kind == "name" and len(expression) == 2:
            name = expression[1]
            formula = self.scope.get(name)
            if type(formula) is Formula:
                return hypothesis(name), formula
        if kind == "part":
            return self._part(*self.infer(expression[1]), expression[2])
        if kind == "call":
            return self.applied(*self.infer(expression[1]), expression[2:])
        if kind != "name":
            raise Illegal("the type of this expression cannot be inferred")
        name, args = expression[1], expression[2:]
        if name in LEMMAS and name not in self.scope:
            return LEMMAS[name](self, args)
        first, fields = name, ()
        if "." in name:
            first, *fields = name.split(".")
        formula = self.scope.get(first)
        if type(formula) is not Formula:
            shown = "is a variable" if formula else "is unknown"
            raise Illegal(f"identifier '{first}' {shown}")
        proof = hypothesis(first)
        for field in fields:
            proof, formula = self._part(proof, formula, field)
        return self.applied(proof, formula, args)

    def applied(self, proof: Proof, formula: Formula, args) -> tuple[Proof, Formula]:
        """A proof of → or ∀ with arguments. Raises Illegal."""
        for arg in args:
            formula = exposed(formula)
            if formula.op == "→":
                premise, conclusion = formula[1]
                proof = _made(Proof, ("apply", (proof, self.check(arg, premise))))
                formula = conclusion
            elif formula.op == "∀":
                term = self.term(arg, formula.args[1])
                proof = Proof("at", (proof, term))
                formula = limited(syntax.instantiate(formula.args[2], term))
            else:
                raise Illegal("function expected: too many arguments")
        return proof, formula

    def _part(self, proof: Proof, formula: Formula, field: str):
        if field == "symm" and formula.op in ("=", "↔"):
            return Proof("symm", (proof,)), Formula(formula.op, formula.args[::-1])
        if formula.op == "∧" and field in ("1", "left", "2", "right"):
            first = field in ("1", "left")
            part = _made(Proof, ("fst" if first else "snd", (proof,)))
            return part, formula[1][not first]
        if formula.op == "↔" and field in ("1", "mp", "2", "mpr"):
            first = field in ("1", "mp")
            sides = formula.args if first else formula.args[::-1]
            return Proof("fst" if first else "snd", (proof,)), Formula("→", sides)
        raise Illegal(f"invalid field '{field}'")

    def check(self, expression: tuple, target: Formula) -> Proof:
        """A proof of target. Raises Illegal."""
        kind = expression[0]
        if kind == "?_":
            if not self.holes_allowed:
                raise Illegal("?_ is allowed in refine only")
            self.new_goals.append(with_target(self.goal, target))
            return hole(len(self.new_goals) - 1)
        if kind == "anon":
            return self._anonymous(expression[1:], target)
        if kind == "name" and expression[1] in RULES:
            if expression[1].split(".")[0] not in self.scope:
                return RULES[expression[1]](self, expression[2:], target)
        proof, formula = self.infer(expression)
        if formula is target or formula == target:
            return proof
        if syntax.normal(formula) != syntax.normal(target):
            raise Illegal("type mismatch")
        return proof

    def _anonymous(self, parts: tuple, target: Formula) -> Proof:
        """⟨…⟩, the last part standing for all that is left to the right."""
        if len(parts) < 2:
            raise Illegal("⟨…⟩ takes two parts or more")
        first, *rest = parts
        last = rest[0] if len(rest) == 1 else ("anon", *rest)
        if target.op == "∧":
            left = self.check(first, target.args[0])
            right = self.check(last, target.args[1])
            return _made(Proof, ("pair", (left, right)))
        if target.op == "↔" and len(parts) == 2:
            mp = self.check(first, Formula("→", target.args))
            return Proof(
                "pair", (mp, self.check(last, Formula("→", target.args[::-1])))
            )
        if target.op == "∃":
            term = self.term(first, target.args[1])
            body = limited(syntax.instantiate(target.args[2], term))
            return Proof("witness", (term, self.check(last, body)))
        raise Illegal("⟨…⟩ proves ∧, ↔ or ∃")


def _raw(expression: tuple) -> tuple:
    """The raw term in an expression. Raises Illegal."""
    if expression[0] == "term":
        return expression[1]
    if expression[0] == "name":
        return ("name", expression[1], *(_raw(a) for a in expression[2:]))
    raise Illegal("a number is expected")


def limited(node):
    """node within the limits of size. Raises Illegal."""
    if not syntax.within_limits(node):
        raise Illegal("a formula beyond the limits", "limits")
    return node


# Proofs of small facts


def contradiction(target: Formula, *facts: tuple[Proof, int]) -> Proof:
    """target, < or ≤, from its negation and facts with their multipliers."""
    items = ((1, hypothesis(NEGATION)), *((c, p) for p, c in facts))
    return Proof("contra", (NEGATION, Proof("linear", (items,))))


def reflexive(target: Formula, reducible: bool) -> Proof | None:
    """A proof where Lean's rfl has one, or None; a subset of what rfl proves.

    reducible: the try of rw at the end: of closed equations those on ℕ only.
    """
    op, args = target
    if op in ("=", "↔") and args[0] == args[1]:
        return Proof("refl")
    if op == "↔" and syntax.normal(args[0]) == syntax.normal(args[1]):
        return Proof("refl")
    if op == "≤" and args[0] == args[1]:
        return contradiction(target)
    if op == "=" and all(syntax.is_closed(a) for a in args):
        if reducible and args[0].sort != NAT:
            return None
        try:
            true = holds(target, Work(2000))
        except ValueError:
            return None
        if true and reducible and any(_has_power(a) for a in args):
            raise Illegal("ambiguous: Lean may or may not close 2 ^ 2 = 4 here")
        return Proof("norm_num") if true else None
    return None


def _has_power(term: Term) -> bool:
    return term.op == "^" or (
        term.op != "num" and any(_has_power(part) for part in term.args)
    )


# Lemmas by name: what they infer, or how they prove a target


def _square(elaborator: Elaborator, args) -> tuple[Proof, Formula]:
    term = _integer(elaborator, args)
    formula = Formula("≤", (num(0, INT), syntax.power(term, 2)))
    return Proof("square", (term,)), formula


def _self_product(elaborator: Elaborator, args) -> tuple[Proof, Formula]:
    term = _integer(elaborator, args)
    formula = Formula("≤", (num(0, INT), syntax.mul(term, term)))
    return elaborator.fact(
        formula, contradiction(formula, (Proof("square", (term,)), 1))
    )


def _integer(elaborator: Elaborator, args) -> Term:
    if len(args) != 1:
        raise Illegal("one number is expected")
    try:
        sort = leaf_sort(_raw(args[0]), elaborator.scope)
    except ParseError as fault:
        raise Illegal(str(fault)) from fault
    if sort != INT:
        raise Illegal("this lemma is about integers")
    return elaborator.term(args[0], INT)


def _zero_le(elaborator: Elaborator, args) -> tuple[Proof, Formula]:
    if len(args) != 1:
        raise Illegal("one number is expected")
    term = elaborator.term(args[0], NAT)
    return Proof("nonneg", (term,)), Formula("≤", (num(0, NAT), term))


def _product_lemma(op: str):
    def lemma(elaborator: Elaborator, args) -> tuple[Proof, Formula]:
        if len(args) != 2:
            raise Illegal("two proofs are expected")
        proofs, factors = [], []
        for arg in args:
            proof, formula = elaborator.infer(arg)
            formula = exposed(formula)
            if formula.op != op or formula.args[0] != num(0, formula.args[0].sort):
                raise Illegal(f"0 {op} … is expected")
            proofs.append(proof)
            factors.append(formula.args[1])
        if factors[0].sort != factors[1].sort:
            raise Illegal("numbers of different types")
        product = syntax.mul(*factors)
        formula = limited(Formula(op, (num(0, product.sort), product)))
        proof = contradiction(formula, (Proof("product", tuple(proofs)), 1))
        return elaborator.fact(formula, proof)

    return lemma


LEMMAS = {
    "sq_nonneg": _square,
    "mul_self_nonneg": _self_product,
    "mul_pos": _product_lemma("<"),
    "mul_nonneg": _product_lemma("≤"),
    "Nat.zero_le": _zero_le,
}


def _introduction(op: str, rule: str, count: int):
    def lemma(elaborator: Elaborator, args, target: Formula) -> Proof:
        if target.op != op or len(args) != count:
            raise Illegal("type mismatch")
        if op == "∨":
            return Proof(rule, (elaborator.check(args[0], target.args[rule == "inr"]),))
        if op == "True":
            return Proof(rule)
        return elaborator._anonymous(args, target)

    return lemma


def _reflexivity(elaborator: Elaborator, args, target: Formula) -> Proof:
    proof = None if args else reflexive(target, reducible=False)
    if proof is None:
        raise Illegal("rfl failed: the sides are not the same")
    return proof


def _absurd(elaborator: Elaborator, args, target: Formula) -> Proof:
    if len(args) != 2:
        raise Illegal("absurd takes two proofs")
    proof, formula = elaborator.infer(args[0])
    negation = elaborator.check(args[1], syntax.negate(formula))
    name = f"{FACT}absurd"
    inside = Proof("absurd", (Proof("apply", (hypothesis(name), proof)),))
    return Proof("have", (name, syntax.negate(formula), negation, inside))


def _from_false(elaborator: Elaborator, args, target: Formula) -> Proof:
    if len(args) != 1:
        raise Illegal("False.elim takes one proof")
    return Proof("absurd", (elaborator.check(args[0], syntax.FALSE),))


RULES = {
    "rfl": _reflexivity,
    "trivial": _introduction("True", "true", 0),
    "True.intro": _introduction("True", "true", 0),
    "Or.inl": _introduction("∨", "inl", 1),
    "Or.inr": _introduction("∨", "inr", 1),
    "And.intro": _introduction("∧", "pair", 2),
    "Iff.intro": _introduction("↔", "pair", 2),
    "absurd": _absurd,
    "False.elim": _from_false,
}
