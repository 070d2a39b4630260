"""What a proof state says, read from its text: hypotheses, the goal, their shapes."""

import re
from typing import NamedTuple

# Loosest first; all but the relations take what follows them to the right.
_LEVELS = (("↔",), ("→",), ("∨",), ("∧",), ("=", "≠", "<", "≤", ">", "≥"))
_SORTS = re.compile(r"((ℕ|ℤ) → )*(ℕ|ℤ|Prop)")


class Shape(NamedTuple):
    """A formula's main connective or relation ("" for an atom), and what it joins.

    For ¬ the part is what is denied; for ∀ and ∃ the parts are the variables and the
    body.
    """

    op: str
    parts: tuple[str, ...]


class Goal(NamedTuple):
    """The first goal of a state: {hypothesis: formula} in order, and the target."""

    hypotheses: dict[str, str]
    target: str


def first_goal(state: str) -> Goal:
    """Reads the first goal; variables are left out. ValueError if there is none."""
    lines = state.partition("\n\n")[0].split("\n")
    target = next((line[2:] for line in lines if line.startswith("⊢ ")), None)
    if target is None:
        raise ValueError(f"expected a proof state with a line '⊢ ...', got {state!r}")
    hypotheses = {}
    for line in lines:
        names, colon, kind = line.partition(" : ")
        if colon and not line.startswith("⊢ ") and not _SORTS.fullmatch(kind):
            hypotheses |= dict.fromkeys(names.split(" "), kind)
    return Goal(hypotheses, target)


def shape(text: str) -> Shape:
    """The shape of a formula, from its text as Lean prints it."""
    text = bare(text)
    if text[:1] in ("∀", "∃"):
        variables, _, body = text[1:].partition(", ")
        return Shape(text[0], (variables.strip(), body))
    found = _operators(text)
    # ¬ takes a relation that follows, and nothing looser.
    denied = text[:1] == "¬"
    for level in _LEVELS[:-1] if denied else _LEVELS:
        for op, at in found:
            if op in level:
                return Shape(op, (bare(text[: at - 1]), bare(text[at + 2 :])))
    return Shape("¬", (bare(text[1:]),)) if denied else Shape("", (text,))


def bare(text: str) -> str:
    """The text without parentheses around the whole of it."""
    text = text.strip()
    while text[:1] == "(" and _closing(text) == len(text) - 1:
        text = text[1:-1]
    return text


def premises(text: str) -> tuple[list[str], str]:
    """(premises, end) of a hypothesis as it is applied: ∀ aside, ¬ ends in False.

    What is no implication has no premises and ends in itself.
    """
    found = []
    while True:
        one = shape(text)
        if one.op == "∀":
            text = one.parts[1]
        elif one.op == "→":
            found.append(one.parts[0])
            text = one.parts[1]
        elif one.op == "¬":
            return [*found, one.parts[0]], "False"
        else:
            return found, bare(text)


def _closing(text: str) -> int:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if not depth:
            return i
    return -1


def _operators(text: str) -> list[tuple[str, int]]:
    """(operator, where) at the top of a formula, up to the first quantifier there."""
    found, depth = [], 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth:
            continue
        if c in "∀∃":
            break
        if c in "↔→∨∧=≠<≤>≥" and text[i - 1 : i] == " ":
            found.append((c, i))
    return found
