"""Writes terms, formulas, statements and goals as Lean 4 with Mathlib prints them.

Two manners: `typed=True` is text that can be read back (statements, tactics), with a
type at every binder of ∃ and at relations between closed integers; `typed=False` is
what Lean's goal view shows, which leaves those out. Lines are never broken (Lean breaks
at 120 columns).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from data.minilean import syntax
from data.minilean.parser import BOUNDED, INFIX, MAX_PRECEDENCE
from data.minilean.syntax import (
    CONNECTIVES,
    INT,
    QUANTIFIERS,
    RELATIONS,
    Binder,
    Formula,
    Signature,
    Statement,
    Term,
)

# id(formula): (formula, its text). What is shown once is shown at many steps, as the
# same object, and to hash a formula costs more than all else. Holding the formula keeps
# its id its own.
MAX_SHOWN = 1 << 16
_SHOWN: dict[int, tuple[Formula, str]] = {}


@lru_cache(maxsize=1 << 15)
def show_term(term: Term, least: int = 0) -> str:
    """The text of a term without loose bound variables, where `least` precedence fits.

    ValueError for a loose bound variable.
    """
    op, args, _ = term
    if op == "var":
        return args[0]
    if op == "num":
        return str(args[0])
    if op == "app":
        text = " ".join([args[0], *(show_term(a, MAX_PRECEDENCE) for a in args[1:])])
        return f"({text})" if least >= MAX_PRECEDENCE else text
    if op == "neg":
        inside = show_term(args[0], 75)
        text = f"- {inside}" if inside[0] == "-" else f"-{inside}"
        return f"({text})" if least > 75 else text
    if op not in INFIX:
        raise ValueError(f"a loose {op} variable cannot be printed")
    precedence, left, right = INFIX[op]
    text = f"{show_term(args[0], left)} {op} {show_term(args[1], right)}"
    return f"({text})" if precedence < least else text


def show_formula(formula: Formula, typed: bool = False) -> str:
    """The text of a formula without loose bound variables."""
    if typed:
        return _typed(formula)
    if formula[0] == "prop" and len(formula[1]) == 1:
        return formula[1][0]
    found = _SHOWN.get(id(formula))
    if found is not None:
        return found[1]
    text = _text(formula, False)
    if len(_SHOWN) >= MAX_SHOWN:
        _SHOWN.clear()
    _SHOWN[id(formula)] = formula, text
    return text


@lru_cache(maxsize=1 << 14)
def _typed(formula: Formula) -> str:
    return _text(formula, True)


def _text(formula: Formula, typed: bool) -> str:
    op, args = formula[0], formula[1]
    if op in RELATIONS:
        _, left, right = INFIX[op]
        first = show_term(args[0], left)
        if typed and args[0].sort == INT and all(_untyped(a) for a in args):
            first = f"({show_term(args[0])} : ℤ)"
        return f"{first} {op} {show_term(args[1], right)}"
    if op in INFIX:
        _, left, right = INFIX[op]
        before = _operand(args[0], left, False, typed)
        return f"{before} {op} {_operand(args[1], right, True, typed)}"
    if op == "¬":
        return "¬" + _operand(args[0], 40, True, typed)
    if op in QUANTIFIERS:
        return _quantified(formula, typed)
    if op == "prop":
        return " ".join([args[0], *(show_term(a, MAX_PRECEDENCE) for a in args[1:])])
    return op


def _operand(formula: Formula, least: int, last: bool, typed: bool) -> str:
    """The text, in parentheses where its precedence is below `least`.

    last: nothing follows that a quantifier at the end would swallow.
    """
    text = show_formula(formula, typed)
    op = formula[0]
    if op in INFIX and INFIX[op][0] < least or (not last and _ends_open(formula)):
        return f"({text})"
    return text


def _ends_open(formula: Formula) -> bool:
    """The text of formula ends in a quantifier's body, which goes on to the right."""
    while True:
        op, args = formula
        if op in QUANTIFIERS:
            return True
        if op == "¬":
            formula, least = args[0], 40
        elif op in CONNECTIVES:
            formula, least = args[1], INFIX[op][2]
        else:
            return False
        if formula.op in INFIX and INFIX[formula.op][0] < least:
            return False


def _untyped(term: Term) -> bool:
    """Nothing in term but numerals decides its sort."""
    if term.op == "^":
        return _untyped(term.args[0])
    return term.op == "num" or (
        term.op in ("+", "-", "*", "neg") and all(_untyped(a) for a in term.args)
    )


def _quantified(formula: Formula, typed: bool) -> str:
    """`∀ (x y : ℕ), …`, `∃ x y, …`; with a bound on x, `∀ x > 0, …`."""
    op = formula.op
    groups: list[tuple[list[str], str]] = []
    while formula.op == op:
        name, sort, body = _opened(formula)
        bound = _bound(op, name, body)
        if bound and not typed:
            head = _groups(op, groups)
            relation, rest = bound
            return f"{head}{op} {show_formula(relation)}, {show_formula(rest)}"
        if op == "∃" and typed:
            return f"{op} {name} : {sort}, {show_formula(body, True)}"
        if groups and (groups[-1][1] == sort or op == "∃"):
            groups[-1][0].append(name)
        else:
            groups.append(([name], sort))
        formula = body
    return _groups(op, groups) + _operand(formula, 0, True, typed)


def _groups(op: str, groups: list[tuple[list[str], str]]) -> str:
    if not groups:
        return ""
    if op == "∃":
        return f"∃ {' '.join(groups[0][0])}, "
    return "∀ " + " ".join(f"({' '.join(n)} : {s})" for n, s in groups) + ", "


def _opened(formula: Formula) -> tuple[str, str, Formula]:
    """(name, sort, body) of a quantifier, the name free in the body and printable."""
    hint, sort, body = formula.args
    used = syntax.free_names(body)
    name, index = hint, 0
    while name in used:
        index += 1
        name = f"{hint}_{index}"
    return name, sort, syntax.instantiate(body, syntax.var(name, sort))


def _bound(op: str, name: str, body: Formula) -> tuple[Formula, Formula] | None:
    """(relation, rest) where Mathlib prints `∀ x > 0, rest`."""
    if body.op != ("→" if op == "∀" else "∧") or body.args[0].op not in BOUNDED:
        return None
    left, right = body.args[0].args
    if left.op != "var" or left.args[0] != name or name in syntax.free_names(right):
        return None
    return body.args


def show_signature(signature: Signature) -> str:
    return " → ".join((*signature.args, signature.result))


def show_type(kind: Signature | Formula, typed: bool = False) -> str:
    if type(kind) is Signature:
        return show_signature(kind)
    return show_formula(kind, typed)


def show_statement(statement: Statement) -> str:
    """`theorem name (p q : Prop) (h : p → q) : goal := by`, to be read back."""
    parts = []
    for names, kind in grouped(statement.binders, variables_only=True):
        parts.append(f"({' '.join(names)} : {show_type(kind, typed=True)}) ")
    goal = show_formula(statement.goal, typed=True)
    return f"theorem {statement.name} {''.join(parts)}: {goal} := by"


def grouped(
    binders: Iterable[Binder], variables_only: bool = False
) -> list[tuple[list[str], Signature | Formula]]:
    """Consecutive binders of one type together, as Lean does."""
    groups: list[tuple[list[str], Signature | Formula]] = []
    for name, kind in binders:
        same = groups and groups[-1][1] == kind
        if same and not (variables_only and type(kind) is Formula):
            groups[-1][0].append(name)
        else:
            groups.append(([name], kind))
    return groups


def show_context(binders: tuple[Binder, ...]) -> str:
    """A line per type, `p q : Prop`, each ended by a newline."""
    shown, before = [], None
    for name, kind in binders:
        if kind == before:
            shown.append(f" {name}")
            continue
        if before is not None:
            shown.append(f" : {show_type(before)}\n")
        shown.append(name)
        before = kind
    return "".join(shown) + (f" : {show_type(before)}\n" if binders else "")


def show_goal(binders: tuple[Binder, ...], goal: Formula, case: str = "") -> str:
    """One goal as Lean's goal view shows it: `case` line, hypotheses, `⊢ goal`."""
    tag = f"case {case}\n" if case else ""
    return f"{tag}{show_context(binders)}⊢ {show_formula(goal)}"


def show_goals(goals: Sequence[str]) -> str:
    """Goals separated by a blank line; "no goals" when there is none."""
    return "\n\n".join(goals) if goals else "no goals"
