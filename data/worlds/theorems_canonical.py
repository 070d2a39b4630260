"""When two statements are the same up to names: their canonical form."""

from collections.abc import Sequence

from data.minilean.syntax import (
    Formula,
    Signature,
    Statement,
    Term,
    implies,
    instantiate,
    normal,
    rename,
    var,
)


def canonical(statement: Statement) -> tuple:
    """Equal for statements that differ in names, or in what stands before the colon.

    Hypotheses count as premises of the goal, and variables bound in front of it as
    binders. Premises are put in an order that does not depend on names (`_sorted`), and
    all names numbered in order of appearance. ¬, ≠, > and ≥ are unfolded.
    """
    goal = statement.goal
    for _, kind in reversed(statement.binders):
        if not isinstance(kind, Signature):
            goal = implies(kind, goal)
    goal, premises, number = normal(goal), [], 0
    while goal.op in ("→", "∀"):
        if goal.op == "→":
            premises.append(goal.args[0])
            goal = goal.args[1]
        else:
            _, sort, body = goal.args
            goal = instantiate(body, var(f"∀{number}", sort))
            number += 1
    types = dict(statement.binders)
    whole = [*_sorted(premises, goal), goal]
    names = _names(whole)
    signatures = tuple(types.get(name) for name in names)
    return (*_numbered(whole), signatures)


def _sorted(premises: list[Formula], goal: Formula) -> list[Formula]:
    """Premises by their own forms, then by what else is said of their names.

    A name's colour is first its place in the goal, then also the forms in which it
    occurs. What is left in the given order is, as a rule, symmetrical.
    """
    own = {premise: _names([premise]) for premise in premises}
    colours = {name: "" for names in own.values() for name in names}
    colours |= {name: f"g{i}" for i, name in enumerate(_names([goal]))}
    forms: dict[Formula, str] = {}
    for _ in range(3):
        forms = {
            premise: repr(
                rename(premise, {n: f"{i}:{colours[n]}" for i, n in enumerate(names)})
            )
            for premise, names in own.items()
        }
        ranks = {form: i for i, form in enumerate(sorted(set(forms.values())))}
        where: dict[str, list[str]] = {name: [] for name in colours}
        for premise in premises:
            for i, name in enumerate(own[premise]):
                where[name].append(f"{ranks[forms[premise]]}.{i}")
        colours = {n: f"{c} {' '.join(sorted(where[n]))}" for n, c in colours.items()}
    return sorted(premises, key=forms.__getitem__)


def _names(formulas: Sequence[Formula]) -> list[str]:
    """The names in the formulas, in order of appearance."""
    found: dict[str, None] = {}

    def visit(node):
        if node.op in ("var", "app", "prop"):
            found.setdefault(node.args[0])
        for arg in node.args:
            if isinstance(arg, Term | Formula):
                visit(arg)

    for formula in formulas:
        visit(formula)
    return list(found)


def _numbered(formulas: Sequence[Formula]) -> tuple[Formula, ...]:
    names = {name: str(i) for i, name in enumerate(_names(formulas))}
    return tuple(rename(formula, names) for formula in formulas)
