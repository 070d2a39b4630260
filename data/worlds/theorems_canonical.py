"""When two statements are the same up to names and symmetry: their canonical form."""

from collections.abc import Mapping

from data.minilean.syntax import (
    QUANTIFIERS,
    Formula,
    Signature,
    Statement,
    Term,
    free_names,
    implies,
    instantiate,
    normal,
    var,
)

SYMMETRIC = frozenset("∧∨↔=+*")  # sides may be exchanged
CHAINED = frozenset("∧∨+*")  # parentheses do not matter either


def canonical(statement: Statement) -> int:
    """Equal for statements that differ in names and symmetric variants of each other.

    It does not matter what stands before the colon and what in the goal as a premise
    or bound in front of it, in which order premises stand, there and within formulas,
    which side of = ↔ ∧ ∨ + * is which, and how sums and the like are parenthesised. ¬,
    ≠, > and ≥ are unfolded. Any other difference gives another form but for rare
    statements, such as cycles of implications, that only a search could tell apart.

    Forms of one process compare; those of another do not (strings have other hashes).
    """
    premises, goal = _opened(statement)
    kinds = dict(statement.binders)
    names = frozenset().union(*map(free_names, (*premises, goal)))
    colours = {name: hash(("name", kinds.get(name))) for name in names}
    # Names of one colour are told apart by what is said of them, by what is said of
    # the names beside them, and so on, until nothing is told apart any more.
    classes = 0
    while len(set(colours.values())) > classes:
        classes = len(set(colours.values()))
        colours = {
            name: _whole(premises, goal, {**colours, name: ~colours[name]})
            for name in names
        }
    return _whole(premises, goal, colours)


def _opened(statement: Statement) -> tuple[list[Formula], Formula]:
    """(premises, each once, conclusion); variables bound in front of it are named."""
    goal, premises, number = statement.goal, {}, 0
    for _, kind in reversed(statement.binders):
        if not isinstance(kind, Signature):
            goal = implies(kind, goal)
    goal = normal(goal)
    while goal.op in ("→", "∀"):
        if goal.op == "→":
            premises[goal.args[0]] = None
            goal = goal.args[1]
        else:
            _, sort, body = goal.args
            goal = instantiate(body, var(f"∀{number}", sort))
            number += 1
    return list(premises), goal


def _whole(premises: list[Formula], goal: Formula, colours: Mapping) -> int:
    found = sorted(_colour(premise, colours) for premise in premises)
    return hash((*found, _colour(goal, colours)))


def _colour(node: Term | Formula, colours: Mapping) -> int:
    """What a node looks like where names look like their colours."""
    op, args, sort = node[0], node[1], node[2:]
    if op in ("num", "bound"):
        return hash((op, args, sort))
    if op in ("var", "app", "prop"):
        parts = [_colour(part, colours) for part in args[1:]]
        return hash((op, colours[args[0]], sort, *parts))
    if op in QUANTIFIERS:
        return hash((op, args[1], _colour(args[2], colours)))
    if op == "→":
        premises = []
        while node[0] == "→":
            premises.append(_colour(node[1][0], colours))
            node = node[1][1]
        return hash((op, *sorted(premises), _colour(node, colours)))
    parts = [_colour(part, colours) for part in _chain(op, args)]
    return hash((op, sort, *(sorted(parts) if op in SYMMETRIC else parts)))


def _chain(op: str, args: tuple) -> list:
    """The parts of a node; of a + (b + c) these are a, b and c."""
    if op not in CHAINED:
        return list(args)
    found = []
    for part in args:
        found += _chain(op, part.args) if part.op == op else [part]
    return found
