"""What linarith and nlinarith may use besides what is given. Untrusted."""

from data.minilean import syntax
from data.minilean.kernel import Proof
from data.minilean.syntax import NAT, Formula, Term, comparison

MAX_PRODUCTS = 40


def with_products(facts: list) -> list:
    """facts, the squares in them, and products of two of all these, of one sort."""
    squares: dict[Term, None] = {}
    for _, formula in facts:
        for term in comparison(formula)[1:]:
            _collect_squares(term, squares)
    found = list(facts)
    for term in squares:
        square = Formula("≤", (syntax.num(0, term.sort), syntax.power(term, 2)))
        found.append((Proof("square", (term,)), square))
    pairs = [(p, comparison(f)) for p, f in found]
    pairs = [(p, c) for p, c in pairs if c[0] != "="]
    count = 0
    for i, (p, (first, a, b)) in enumerate(pairs):
        for q, (second, c, d) in pairs[i:]:
            if a.sort != c.sort or count >= MAX_PRODUCTS:
                continue
            low = syntax.add(syntax.mul(a, d), syntax.mul(b, c))
            high = syntax.add(syntax.mul(b, d), syntax.mul(a, c))
            product = Formula("<" if first == second == "<" else "≤", (low, high))
            if syntax.within_limits(product):
                found.append((Proof("product", (p, q)), product))
                count += 1
    return found


def _collect_squares(term: Term, squares: dict) -> None:
    if term.op == "^" and term.args[1] == syntax.num(2, NAT):
        squares[term.args[0]] = None
    elif term.op == "*" and term.args[0] == term.args[1]:
        squares[term.args[0]] = None
    for arg in term.args:
        if type(arg) is Term:
            _collect_squares(arg, squares)


def natural_atoms(formulas) -> list[Term]:
    """The variables and applied functions of sort ℕ in comparisons, each once."""
    found: dict[Term, None] = {}
    waiting = [term for f in formulas for term in comparison(f)[1:]]
    while waiting:
        term = waiting.pop()
        if term.sort == NAT and term.op in ("var", "app"):
            found[term] = None
        elif term.op in ("+", "*", "^"):
            waiting += term.args
    return list(found)
