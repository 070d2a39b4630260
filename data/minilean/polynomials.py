"""Polynomials with integer coefficients, recomputed from terms: trusted arithmetic.

A polynomial is {monomial: coefficient}, no coefficient 0; a monomial is a frozenset of
(atom, exponent). ℕ and ℤ are both read as integers: ℕ has no subtraction here.
"""

from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne

from data.minilean import syntax
from data.minilean.syntax import Formula, Term

MAX_EXPONENT, MAX_DEGREE, MAX_COEFFICIENT = 60, 60, 10**120
_HOLDS = {"=": eq, "≠": ne, "<": lt, "≤": le, ">": gt, "≥": ge}
_UNIT = frozenset()
ONE = {_UNIT: 1}


class OutOfBudget(ValueError):
    """More work than was allowed."""


class Work:
    """What may still be spent: products of monomials, nodes looked at, and the like."""

    __slots__ = ("left",)

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
    return _without_zeros(total)


def _without_zeros(a: dict) -> dict:
    return {m: c for m, c in a.items() if c} if 0 in a.values() else a


def product(a: dict, b: dict, work: Work) -> dict:
    """a b. ValueError beyond the limits."""
    work.spend(len(a) * len(b))
    total: dict = {}
    for m, c in a.items():
        for n, d in b.items():
            key = _monomial(m, n) if m and n else m or n
            if not -MAX_COEFFICIENT <= c * d <= MAX_COEFFICIENT:
                raise ValueError("a polynomial beyond the limits")
            total[key] = total.get(key, 0) + c * d
    return _without_zeros(total)


def _monomial(m: frozenset, n: frozenset) -> frozenset:
    """The product of two monomials. ValueError beyond the limits."""
    powers = dict(m)
    for atom, exponent in n:
        powers[atom] = powers.get(atom, 0) + exponent
    if sum(powers.values()) > MAX_DEGREE:
        raise ValueError("a polynomial beyond the limits")
    return frozenset(powers.items())


def polynomial(term: Term, work: Work) -> dict:
    """The normal form of term; what is not + - * ^ of others is an atom.

    ValueError beyond the limits.
    """
    total: dict = {}
    _add(total, term, 1, work)
    return _without_zeros(total)


def _add(total: dict, term: Term, scale: int, work: Work) -> None:
    """Makes total, which may come to hold zeros, total + scale term."""
    op, args = term[0], term[1]
    work.left = left = work.left - 1
    if left < 0:
        work.spend(0)
    if op == "+" or op == "-":
        _add(total, args[0], scale, work)
        _add(total, args[1], scale if op == "+" else -scale, work)
    elif op == "neg":
        _add(total, args[0], -scale, work)
    elif op == "num":
        total[_UNIT] = total.get(_UNIT, 0) + scale * args[0]
    elif op == "*" and args[0][0] == "num":
        scale *= args[0][1][0]
        if not -MAX_COEFFICIENT <= scale <= MAX_COEFFICIENT:
            raise ValueError("a polynomial beyond the limits")
        _add(total, args[1], scale, work)
    elif op == "*" or op == "^":
        found = _product(*args, work) if op == "*" else _power(term, work)
        for monomial, coefficient in found.items():
            total[monomial] = total.get(monomial, 0) + scale * coefficient
    else:
        monomial = _atom(term)
        total[monomial] = total.get(monomial, 0) + scale


@lru_cache(maxsize=1 << 12)
def _atom(term: Term) -> frozenset:
    """A monomial of itself. One object for equal terms, which hash once then; nothing
    but whether two of them are equal is ever asked."""
    return frozenset([(term, 1)])


def _product(left: Term, right: Term, work: Work) -> dict:
    return product(polynomial(left, work), polynomial(right, work), work)


def _power(term: Term, work: Work) -> dict:
    base, exponent = term.args
    if exponent.op == "+" and exponent.args[1].op == "num":  # x^(n+k) = x^n x^k
        first, second = (syntax.power(base, part) for part in exponent.args)
        return _product(first, second, work)
    if exponent.op != "num":
        return {_atom(term): 1}
    if exponent.args[0] > MAX_EXPONENT:
        raise ValueError("an exponent beyond the limits")
    total, factor = ONE, polynomial(base, work)
    for _ in range(exponent.args[0]):
        total = product(total, factor, work)
    return total


def difference(left: Term, right: Term, work: Work) -> dict:
    """left - right as a polynomial; {} if they are equal. ValueError as above."""
    total: dict = {}
    _add(total, left, 1, work)
    _add(total, right, -1, work)
    return _without_zeros(total)


def holds(formula: Formula, work: Work) -> bool:
    """The truth of a formula without variables and quantifiers. ValueError for others.

    x - x counts as without variables: what matters is the polynomial.
    """
    op, args = formula
    if op in syntax.RELATIONS:
        found = difference(*args, work)
        if found and found.keys() != ONE.keys():
            raise ValueError("not a closed comparison")
        value = found.get(_UNIT, 0)
        return _HOLDS[op](value, 0)
    if op == "True" or op == "False":
        return op == "True"
    if op == "¬":
        return not holds(args[0], work)
    if op not in syntax.CONNECTIVES:
        raise ValueError("not a closed formula")
    left, right = (holds(part, work) for part in args)
    return {"∧": left and right, "∨": left or right, "→": not left or right,
            "↔": left == right}[op]  # fmt: skip
