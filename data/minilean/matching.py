"""First-order matching, and where a pattern occurs: for apply, rw and simp.

A pattern is a term or formula whose variables named "?0", "?1", ... stand for terms.
"""

from data.minilean import syntax
from data.minilean.polynomials import Work
from data.minilean.state import Illegal
from data.minilean.syntax import HOLE, NAT, QUANTIFIERS, Formula, Term, exposed


def opened(formula: Formula, count: int):
    """(premises, metas, conclusion) of the first `count` → and ∀ of formula.

    A premise is a Formula, or for ∀ the name of the pattern variable in its place.
    """
    premises: list[Formula | str] = []
    for _ in range(count):
        formula = exposed(formula)
        if formula.op == "→":
            premises.append(formula.args[0])
            formula = formula.args[1]
        else:
            name = f"?{len(premises)}"
            premises.append(name)
            variable = syntax.var(name, formula.args[1])
            formula = syntax.instantiate(formula.args[2], variable)
    return premises, [p for p in premises if type(p) is str], formula


def assigned(node, found: dict[str, Term]):
    """node with what was found for its pattern variables."""

    def leaf(term, depth):
        return found.get(term[1][0], term)

    return syntax.replace(node, "var", leaf) if found else node


def match_term(pattern: Term, term: Term, found: dict) -> dict | None:
    """found with what makes pattern the term, or None. Raises Illegal where Lean's
    unifier knows more about ℕ than this one: ?n + 1 and x + 2."""
    if pattern.op == "var" and pattern.args[0][0] == "?":
        known = found.get(pattern.args[0])
        if known is not None:
            return found if known == term else None
        if pattern.sort != term.sort or is_loose(term):
            return None
        return {**found, pattern.args[0]: term}
    if pattern.op != term.op or pattern.sort != term.sort:
        return None
    if len(pattern.args) != len(term.args):
        return None
    start = found
    for a, b in zip(pattern.args, term.args, strict=True):
        if type(a) is Term:
            found = match_term(a, b, found)
        elif a != b:
            found = None
        if found is None:
            if pattern.op == "+" and pattern.sort == NAT:
                _refuse_offsets(pattern, term, start)
            return None
    return found


def _refuse_offsets(pattern: Term, term: Term, found: dict) -> None:
    """Illegal for x + k against y + m, x with a pattern variable, k and m numerals."""
    numerals = pattern.args[1].op == term.args[1].op == "num"
    open_left = any(name[0] == "?" for name in syntax.free_names(pattern.args[0]))
    if numerals and open_left:
        raise Illegal("ambiguous: give the argument of this equation")


def match_formula(pattern: Formula, formula: Formula, found: dict) -> dict | None:
    """found with what makes pattern the formula up to definitions, or None."""
    if pattern == formula:  # and so has no pattern variables
        return found
    if pattern.op != formula.op:
        pattern, formula = exposed(pattern), exposed(formula)
        if pattern.op != formula.op:
            return None
    if len(pattern.args) != len(formula.args):
        return None
    for a, b in zip(pattern.args, formula.args, strict=True):
        if type(a) is Term:
            found = match_term(a, b, found)
        elif type(a) is Formula:
            found = match_formula(a, b, found)
        elif a != b and pattern.op not in QUANTIFIERS:
            found = None
        elif pattern.op in QUANTIFIERS and a != b and (a in syntax.SORTS):
            found = None
        if found is None:
            return None
    return found


def is_loose(node, depth: int = 0) -> bool:
    """A bound variable in node belongs to a binder outside it."""
    op, args = node[0], node[1]
    if op == "bound":
        return args[0] >= depth
    if op == "num":
        return False
    inner = depth + 1 if op in QUANTIFIERS else depth
    for arg in args:
        if type(arg) is not str and is_loose(arg, inner):
            return True
    return False


def first_match(pattern, node, work: Work) -> dict | None:
    """What the pattern's first occurrence in node assigns, or None.

    Lean's order: a node before its parts, the parts from the left. Occurrences with
    bound variables of binders around them do not count.
    """
    work.spend(1)
    op = node[0]
    if op == pattern[0] and type(node) is type(pattern):
        match = match_term if type(node) is Term else match_formula
        found = match(pattern, node, {})
        if found is not None and not is_loose(node):
            return found
    elif type(pattern) is Term and pattern.op == "var" and pattern.args[0][0] == "?":
        raise Illegal("the pattern is a variable")
    if op == "num" or op == "bound":
        return None
    for arg in node[1]:
        if type(arg) is not str:
            found = first_match(pattern, arg, work)
            if found is not None:
                return found
    return None


def abstracted(node, old, depth: int = 0):
    """node with every `old` replaced: a term by bound variable 0, a formula by HOLE."""
    if node == old:
        if type(old) is Formula:
            return HOLE
        return Term("bound", (depth,), old.sort)
    op, args = node[0], node[1]
    if op == "var" or op == "num" or op == "bound":
        return node
    inner = depth + 1 if op in QUANTIFIERS else depth
    new = tuple([a if type(a) is str else abstracted(a, old, inner) for a in args])
    return node if new == args else node._replace(args=new)
