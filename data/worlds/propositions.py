"""Propositional formulas as tuples: their text, truth tables, and shapes.

A formula is an atom ("p"), "False", or a tuple ("¬", A), ("→", A, B), ("∧", A, B),
("∨", A, B), ("↔", A, B).
"""

from collections.abc import Sequence

FALSE = "False"
Formula = str | tuple
# Precedence of what stands on the left, of the whole, and of what stands on the right.
_LEVELS = {"→": (26, 25, 25), "∧": (36, 35, 35), "∨": (31, 30, 30), "↔": (21, 20, 21)}


def text(formula: Formula, level: int = 0) -> str:
    """Lean's text of a formula, with the parentheses that it needs."""
    if isinstance(formula, str):
        return formula
    if formula[0] == "¬":
        return "¬" + text(formula[1], 1000)
    left, whole, right = _LEVELS[formula[0]]
    inner = f"{text(formula[1], left)} {formula[0]} {text(formula[2], right)}"
    return f"({inner})" if level > whole else inner


def atoms(formula: Formula) -> list[str]:
    """The atoms in order of appearance, each once."""
    if isinstance(formula, str):
        return [] if formula == FALSE else [formula]
    return list(dict.fromkeys(a for part in formula[1:] for a in atoms(part)))


def truth(formula: Formula, table: dict[str, int], full: int) -> int:
    """The truth table as bits, given that of each atom; `full` has all bits set."""
    if isinstance(formula, str):
        return 0 if formula == FALSE else table[formula]
    one = truth(formula[1], table, full)
    if formula[0] == "¬":
        return full & ~one
    two = truth(formula[2], table, full)
    if formula[0] == "→":
        return full & ~one | two
    if formula[0] == "↔":
        return full & ~(one ^ two)
    return one & two if formula[0] == "∧" else one | two


def tables(names: Sequence[str]) -> tuple[dict[str, int], int]:
    """Truth tables of atoms that are independent of one another, and the full one."""
    rows = 1 << len(names)
    columns = {
        name: sum(1 << row for row in range(rows) if row >> i & 1)
        for i, name in enumerate(names)
    }
    return columns, (1 << rows) - 1


def tautology(formula: Formula) -> bool:
    """Whether it holds classically, by its truth table."""
    columns, full = tables(atoms(formula))
    return truth(formula, columns, full) == full


def curried(hypotheses: Sequence[Formula], goal: Formula) -> Formula:
    """hypotheses -> goal, as one formula."""
    for formula in reversed(hypotheses):
        goal = ("→", formula, goal)
    return goal


def schema(formula: Formula) -> str:
    """Its rule's shape as a hypothesis: the connective, and of what form a premise is.

    "_ ∧ _", "_ ∨ _", "_ ↔ _", and with the form of A for A → B and ¬A: "_ → _",
    "(_ ∨ _) → _", "¬(_ → _)".
    """

    def form(part) -> Formula:
        if isinstance(part, str):
            return "_"
        return (part[0], *("_" for _ in part[1:]))

    if isinstance(formula, str):
        return "False" if formula == FALSE else "_"
    if formula[0] == "→":
        premise = form(formula[1])
        return text("_" if premise == "_" else premise, 1000) + " → _"
    return text(("¬", form(formula[1])) if formula[0] == "¬" else form(formula))


def schemas(formula: Formula, given: bool = False) -> frozenset[str]:
    """The schemas of all its parts that a proof may come to have as hypotheses.

    Polarity decides: of A → B to be shown, A; of A → B that is given, itself and B.
    """
    if isinstance(formula, str):
        return frozenset()
    found = frozenset({schema(formula)} if given else ())
    if formula[0] == "↔":
        return found.union(*(schemas(half, given) for half in halves(formula)))
    if formula[0] in "→¬":
        found |= schemas(formula[1], not given)
        return found | schemas(formula[2], given) if formula[0] == "→" else found
    return found.union(*(schemas(part, given) for part in formula[1:]))


def halves(formula: Formula) -> tuple[Formula, Formula]:
    """What a conjunction or an equivalence consists of."""
    _, a, b = formula
    return (a, b) if formula[0] == "∧" else (("→", a, b), ("→", b, a))
