"""Terms, formulas and statements of minilean, a strict subset of Lean 4 with Mathlib.

Every node is an immutable tuple: `op` says what it is, `args` what it is made of.

    Term(op, args, sort)     sort is NAT or INT
        "var"   (name,)            a variable of the context
        "bound" (index,)           of the index-th binder around it, 0 the nearest
        "num"   (value,)           a numeral >= 0
        "+" "-" "*" (left, right)  "-" and "neg" on INT only
        "^"     (base, exponent)   the exponent has sort NAT
        "neg"   (term,)
        "app"   (name, *terms)     a function variable of the context
    Formula(op, args)
        "prop"  (name, *terms)     a proposition or a predicate of the context
        "True" "False" ()
        "∧" "∨" "→" "↔" (left, right)          "¬" (formula,)
        "=" "≠" "<" "≤" ">" "≥" (term, term)   of one sort
        "∀" "∃" (hint, sort, body)  hint: the name to print; body: "bound" 0 is its own
    Signature(args, result)  of a variable: PROP, NAT_TYPE, INT_TYPE, or with sorts as
                             args: a function (result a sort) or a predicate (PROP's)
    Binder(name, type)       of a variable (Signature) or of a hypothesis (Formula)
    Statement(name, binders, goal)

Build them with the functions below (`var`, `num`, `add`, `conj`, `implies`, `equals`,
`forall`, ...), never with "bound" by hand. Text: `data.minilean.parser` reads it,
`data.minilean.printer` writes it. == is equality of everything, hints included;
`normal` gives equal results for what Lean takes to be the same up to the names of
bound variables and the definitions of ¬ ≠ > ≥.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

NAT, INT = "ℕ", "ℤ"
SORTS = (NAT, INT)
RELATIONS = ("=", "≠", "<", "≤", ">", "≥")
CONNECTIVES = ("∧", "∨", "→", "↔")
QUANTIFIERS = ("∀", "∃")
OPERATIONS = ("+", "*", "-", "^", "neg")
_LEAVES = frozenset(("var", "bound", "num"))
DEFINED = frozenset("¬≠>≥")  # by the others, see `exposed`
# Beyond these a formula is refused: recursion below is bounded by the depth.
MAX_DEPTH, MAX_NODES, MAX_DIGITS = 80, 2000, 60
# What a NamedTuple's own constructor calls, in half the time: for what is made most.
_made = tuple.__new__


class Term(NamedTuple):
    """A number: see the head of this file."""

    op: str
    args: tuple
    sort: str


class Formula(NamedTuple):
    """A proposition: see the head of this file."""

    op: str
    args: tuple


class Signature(NamedTuple):
    """The type of a variable: sorts of its arguments, and a sort or "Prop"."""

    args: tuple[str, ...]
    result: str


class Binder(NamedTuple):
    """A variable (type: Signature) or a hypothesis (type: Formula)."""

    name: str
    type: Signature | Formula


class Statement(NamedTuple):
    """`theorem name binders : goal`."""

    name: str
    binders: tuple[Binder, ...]
    goal: Formula


PROP = Signature((), "Prop")
NAT_TYPE, INT_TYPE = Signature((), NAT), Signature((), INT)
TRUE, FALSE = Formula("True", ()), Formula("False", ())
# A place for a formula, in the motive of a rewriting; never part of a statement.
HOLE = Formula("prop", ("",))


# Terms


def var(name: str, sort: str) -> Term:
    return Term("var", (name,), sort)


def num(value: int, sort: str) -> Term:
    """A numeral; a negative one is the negation of a numeral, on INT."""
    if value < 0:
        return neg(Term("num", (-value,), sort))
    return Term("num", (value,), sort)


def add(left: Term, right: Term) -> Term:
    return Term("+", (left, right), left.sort)


def sub(left: Term, right: Term) -> Term:
    return Term("-", (left, right), left.sort)


def mul(left: Term, right: Term) -> Term:
    return Term("*", (left, right), left.sort)


def power(base: Term, exponent: Term | int) -> Term:
    """`base ^ exponent`; an int is a numeral of sort NAT."""
    if isinstance(exponent, int):
        exponent = num(exponent, NAT)
    return Term("^", (base, exponent), base.sort)


def neg(term: Term) -> Term:
    return Term("neg", (term,), term.sort)


def apply(name: str, sort: str, *args: Term) -> Term:
    """`name args`, where sort is that of the function variable's result."""
    return Term("app", (name, *args), sort)


# Formulas


def prop(name: str, *args: Term) -> Formula:
    return Formula("prop", (name, *args))


def conj(left: Formula, right: Formula) -> Formula:
    return Formula("∧", (left, right))


def disj(left: Formula, right: Formula) -> Formula:
    return Formula("∨", (left, right))


def implies(left: Formula, right: Formula) -> Formula:
    return Formula("→", (left, right))


def iff(left: Formula, right: Formula) -> Formula:
    return Formula("↔", (left, right))


def negate(formula: Formula) -> Formula:
    return Formula("¬", (formula,))


def equals(left: Term, right: Term) -> Formula:
    return Formula("=", (left, right))


def relation(op: str, left: Term, right: Term) -> Formula:
    """`left op right`, op one of RELATIONS."""
    return Formula(op, (left, right))


def forall(name: str, sort: str, body: Formula) -> Formula:
    """`∀ (name : sort), body`: binds the variable `name` in body."""
    return Formula("∀", (name, sort, abstract(body, name)))


def exists(name: str, sort: str, body: Formula) -> Formula:
    """`∃ name : sort, body`: binds the variable `name` in body."""
    return Formula("∃", (name, sort, abstract(body, name)))


# Binding


def replace(node: Term | Formula, which: str, leaf, depth: int = 0):
    """node with leaf(term, depth) in the place of every "var" or "bound", by `which`.

    depth: binders between the root and the leaf. Shares what does not change.
    """
    op, args = node[0], node[1]
    if op == which:
        return leaf(node, depth)
    if op in _LEAVES:
        return node
    if op in QUANTIFIERS:
        depth += 1
    changed, new = False, []
    for old in args:
        part = old
        if type(old) is not str:
            kind = old[0]
            if kind == which:
                part = leaf(old, depth)
            elif kind not in _LEAVES:
                part = replace(old, which, leaf, depth)
            if part is not old:
                changed = True
        new.append(part)
    if not changed:
        return node
    if type(node) is Term:
        return _made(Term, (op, tuple(new), node[2]))
    return _made(Formula, (op, tuple(new)))


def abstract(node, name: str):
    """node with the variable `name` as the bound variable 0 of a binder around it."""

    def leaf(term, depth):
        if term[1][0] == name:
            return Term("bound", (depth,), term[2])
        return term

    return replace(node, "var", leaf)


def instantiate(body, term: Term):
    """body with term for its bound variable 0; term itself has no loose ones."""

    def leaf(old, depth):
        return term if old[1][0] == depth else old

    return replace(body, "bound", leaf)


def substitute(node, name: str, term: Term):
    """node with term for the variable `name`."""

    def leaf(old, depth):
        return term if old[1][0] == name else old

    return replace(node, "var", leaf)


def rename(node, names: Mapping[str, str]):
    """node with every name of variables, functions and predicates mapped, if listed."""
    if type(node) is Term and node.op == "var":
        return node._replace(args=(names.get(node.args[0], node.args[0]),))
    if node.op == "num" or node.op == "bound":
        return node
    args = [rename(a, names) if isinstance(a, tuple) else a for a in node.args]
    if node.op in ("app", "prop"):
        args[0] = names.get(args[0], args[0])
    return node._replace(args=tuple(args))


# What is inside


@lru_cache(maxsize=1 << 15)
def free_names(node: Term | Formula) -> frozenset[str]:
    """The names of the variables, functions and predicates that occur in node."""
    op, args = node[0], node[1]
    if op == "var":
        return frozenset(args)
    if op in ("num", "bound") or not args:
        return frozenset()
    if op in QUANTIFIERS:
        return free_names(args[2])
    own = {args[0]} if op in ("app", "prop") else set()
    return frozenset(own.union(*(free_names(a) for a in args if type(a) is not str)))


def measure(node) -> tuple[int, int]:
    """(nodes, depth) of a term or formula, without recursion.

    Stops early, with what it has seen, once a limit is passed.
    """
    nodes, depth, level = 0, 0, [node]
    while level and nodes <= MAX_NODES and depth <= MAX_DEPTH:
        nodes += len(level)
        depth += 1
        # of what args hold, terms and formulas alone are tuples
        level = [arg for here in level for arg in here[1] if isinstance(arg, tuple)]
    return nodes, depth


def within_limits(node) -> bool:
    nodes, depth = measure(node)
    return nodes <= MAX_NODES and depth <= MAX_DEPTH


def is_closed(term: Term) -> bool:
    """No variable, function or bound variable occurs in term."""
    op, args = term[0], term[1]
    if op in ("num", "var", "bound", "app"):
        return op == "num"
    return all(map(is_closed, args))


def exposed(formula: Formula) -> Formula:
    """¬ and ≠ as the implications that they are, > and ≥ turned round."""
    op = formula[0]
    if op not in DEFINED:
        return formula
    args = formula[1]
    if op == "¬":
        return _made(Formula, ("→", (args[0], FALSE)))
    if op == "≠":
        return _made(Formula, ("→", (_made(Formula, ("=", args)), FALSE)))
    return _made(Formula, ("<" if op == ">" else "≤", (args[1], args[0])))


def comparison(formula: Formula) -> tuple[str, Term, Term] | None:
    """(= < or ≤, left, right) of a comparison or of the negation of < or ≤, or None."""
    op, args = formula[0], formula[1]
    if op in DEFINED:
        op, args = exposed(formula)
    if op == "→" and args[1] == FALSE:
        op, args = exposed(args[0])
        if op == "<" or op == "≤":
            return "≤" if op == "<" else "<", args[1], args[0]
        return None
    return (op, *args) if op in ("=", "<", "≤") else None


def plugged(motive: Formula, formula: Formula) -> Formula:
    """motive with formula for every HOLE; formula has no loose bound variables."""
    if motive == HOLE:
        return formula
    if motive.op not in (*CONNECTIVES, *QUANTIFIERS, "¬"):
        return motive
    args = (plugged(a, formula) if type(a) is Formula else a for a in motive.args)
    return Formula(motive.op, tuple(args))


@lru_cache(maxsize=1 << 15)
def normal(formula: Formula) -> Formula:
    """formula with ¬ ≠ > ≥ unfolded and without hints: equal for what Lean equates.

    ¬p is p → False, a ≠ b is a = b → False, a > b is b < a, a ≥ b is b ≤ a.
    """
    op, args = formula = exposed(formula)
    if op in CONNECTIVES:
        return Formula(op, (normal(args[0]), normal(args[1])))
    if op in QUANTIFIERS:
        return Formula(op, ("", args[1], normal(args[2])))
    return formula
