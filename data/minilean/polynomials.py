"""Polynomials with integer coefficients, recomputed from terms: trusted arithmetic.

A polynomial is {monomial: coefficient}, no coefficient 0; a monomial is a frozenset of
(atom, exponent). ℕ and ℤ are both read as integers: ℕ has no subtraction here.
"""

from data.minilean import syntax
from data.minilean.syntax import Formula, Term

MAX_EXPONENT, MAX_DEGREE, MAX_COEFFICIENT = 60, 60, 10**120
ONE = {frozenset(): 1}


class OutOfBudget(ValueError):
    """More work than was allowed."""


class Work:
    """What may still be spent: products of monomials, nodes looked at, and the like."""

    def __init__(self, left: int):
        self.left = left

    def spend(self, amount: int) -> None:
        """OutOfBudget once more is spent than there was."""
        self.left -= amount
        if self.left < 0:
            raise OutOfBudget("more work than the budget allows")


def scaled_sum(a: dict, b: dict, scale) -> dict:
    """a + scale b."""
    total = dict(a)
    for monomial, coefficient in b.items():
        total[monomial] = total.get(monomial, 0) + scale * coefficient
    return {m: c for m, c in total.items() if c}


def product(a: dict, b: dict, work: Work) -> dict:
    """a b. ValueError beyond the limits."""
    work.spend(len(a) * len(b))
    total: dict = {}
    for m, c in a.items():
        for n, d in b.items():
            powers = dict(m)
            for atom, exponent in n:
                powers[atom] = powers.get(atom, 0) + exponent
            if sum(powers.values()) > MAX_DEGREE or abs(c * d) > MAX_COEFFICIENT:
                raise ValueError("a polynomial beyond the limits")
            key = frozenset(powers.items())
            total[key] = total.get(key, 0) + c * d
    return {m: c for m, c in total.items() if c}


def polynomial(term: Term, work: Work) -> dict:
    """The normal form of term; what is not + - * ^ of others is an atom.

    ValueError beyond the limits.
    """
    op, args, _ = term
    if op == "num":
        return {frozenset(): args[0]} if args[0] else {}
    if op == "neg":
        return scaled_sum({}, polynomial(args[0], work), -1)
    if op == "+" or op == "-":
        left, right = polynomial(args[0], work), polynomial(args[1], work)
        work.spend(len(left) + len(right))
        return scaled_sum(left, right, 1 if op == "+" else -1)
    if op == "*":
        return product(polynomial(args[0], work), polynomial(args[1], work), work)
    if op == "^":
        base, exponent = args
        if exponent.op == "+" and exponent.args[1].op == "num":  # x^(n+k) = x^n x^k
            first, second = (syntax.power(base, part) for part in exponent.args)
            return product(polynomial(first, work), polynomial(second, work), work)
        if exponent.op == "num":
            if exponent.args[0] > MAX_EXPONENT:
                raise ValueError("an exponent beyond the limits")
            total, factor = ONE, polynomial(base, work)
            for _ in range(exponent.args[0]):
                total = product(total, factor, work)
            return total
    return {frozenset([(term, 1)]): 1}


def difference(left: Term, right: Term, work: Work) -> dict:
    """left - right as a polynomial; {} if they are equal. ValueError as above."""
    a, b = polynomial(left, work), polynomial(right, work)
    work.spend(len(a) + len(b))
    return scaled_sum(a, b, -1)


def holds(formula: Formula, work: Work) -> bool:
    """The truth of a formula without variables and quantifiers. ValueError for others.

    x - x counts as without variables: what matters is the polynomial.
    """
    op, args = formula
    if op in syntax.RELATIONS:
        found = difference(*args, work)
        if not set(found) <= set(ONE):
            raise ValueError("not a closed comparison")
        value = found.get(frozenset(), 0)
        return {"=": value == 0, "≠": value != 0, "<": value < 0, "≤": value <= 0,
                ">": value > 0, "≥": value >= 0}[op]  # fmt: skip
    if op == "True" or op == "False":
        return op == "True"
    if op == "¬":
        return not holds(args[0], work)
    if op not in syntax.CONNECTIVES:
        raise ValueError("not a closed formula")
    left, right = (holds(part, work) for part in args)
    return {"∧": left and right, "∨": left or right, "→": not left or right,
            "↔": left == right}[op]  # fmt: skip
