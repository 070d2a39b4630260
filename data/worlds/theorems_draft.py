"""What the generators of theorems share: drafts, and polynomials as text."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.worlds.draws import Draws

Monomial = tuple[str, ...]  # its variables in order, each as often as its power
Polynomial = dict[Monomial, int]


class Draft(NamedTuple):
    """A statement and a proof of it as text, not yet checked by anything.

    binders: pairs (names, type), as in `(a b : ℤ) (h1 : a = b)`
    script: the proof, tactic by tactic
    shapes: names of the rules that the proof uses
    around: names of all rules that any proof of it could come to use
    """

    binders: tuple[tuple[str, str], ...]
    goal: str
    script: tuple[str, ...]
    shapes: frozenset[str]
    around: frozenset[str]


def draft(
    draws: Draws,
    variables: Sequence[tuple[str, str]],
    hypotheses: Mapping[str, str],
    goal: str,
    script: Sequence[str],
    shapes: Sequence[str],
    new: Sequence[str] = (),
    implied: float = 0.0,
) -> Draft:
    """A draft whose hypotheses have names and a random order.

    hypotheses: {key: text}; `script` calls them {key}, and {k} for each k of `new`, the
    hypotheses that the proof makes. With probability `implied` the last one stands in
    the goal, before an arrow, and is introduced first.
    """
    order = draws.shuffled(list(hypotheses))
    names = {key: f"h{i}" for i, key in enumerate([*order, *new], start=1)}
    lines = [line.format(**names) for line in script]
    moved = order and "∀" not in hypotheses[order[-1]] and draws.chance(implied)
    if moved:
        last = order.pop()
        inner = f"({goal})" if "↔" in goal else goal
        goal = f"{hypotheses[last]} → {inner}"
        lines.insert(0, f"intro {names[last]}")
    binders = (*variables, *((names[key], hypotheses[key]) for key in order))
    found = frozenset(shapes)
    return Draft(binders, goal, tuple(lines), found, found)


def over_integers(names: Sequence[str]) -> list[tuple[str, str]]:
    """Binders of integer variables, together."""
    return [(" ".join(names), "ℤ")]


def for_all(draws: Draws, one: Draft, names: Sequence[str], share: float) -> Draft:
    """With probability `share`, `one` with its variables bound in the goal.

    names: all the binders of `one`, which are integers.
    """
    if not draws.chance(share):
        return one
    prefix = "".join(f"∀ {name} : ℤ, " for name in names)
    intro = f"intro{'s' * (len(names) > 1)} {' '.join(names)}"
    return one._replace(binders=(), goal=prefix + one.goal, script=(intro, *one.script))


# --- polynomials --------------------------------------------------------------------


def linear(parts: Sequence[tuple[int, str]], constant: int = 0) -> Polynomial:
    """c1 x1 + c2 x2 + ... + constant."""
    total: Polynomial = {(): constant} if constant else {}
    for c, name in parts:
        total = plus(total, {(name,): c})
    return total


def plus(one: Polynomial, other: Polynomial, times: int = 1) -> Polynomial:
    """one + times * other."""
    total = dict(one)
    for monomial, c in other.items():
        total[monomial] = total.get(monomial, 0) + times * c
    return {monomial: c for monomial, c in total.items() if c}


def product(*factors: Polynomial) -> Polynomial:
    """The product of one factor or more."""
    total: Polynomial = {(): 1}
    for factor in factors:
        grown: Polynomial = {}
        for (m, c), (n, d) in itertools.product(total.items(), factor.items()):
            grown = plus(grown, {tuple(sorted(m + n)): c * d})
        total = grown
    return total


def written(draws: Draws | None, polynomial: Polynomial) -> str:
    """Its text; terms in the given order, or in a random one, a positive one first."""
    terms = list(polynomial.items())
    if draws is not None:
        terms = draws.shuffled(terms)
    positive = next((i for i, (_, c) in enumerate(terms) if c > 0), 0)
    terms = [*terms[positive : positive + 1], *terms[:positive], *terms[positive + 1 :]]
    text = ""
    for monomial, c in terms:
        sign = " - " if c < 0 else " + "
        text += (sign if text else "-" * (c < 0)) + _term(monomial, abs(c))
    return text or "0"


def factor(polynomial: Polynomial) -> str:
    """Its text as a factor: in parentheses if it has several terms."""
    text = written(None, polynomial)
    return f"({text})" if " + " in text or " - " in text or text[0] == "-" else text


def value(polynomial: Polynomial, at: Mapping[str, int]) -> int:
    """The value where variables have the given values."""
    total = 0
    for monomial, c in polynomial.items():
        for name in monomial:
            c *= at[name]
        total += c
    return total


def _term(monomial: Monomial, c: int) -> str:
    parts = [] if c == 1 and monomial else [str(c)]
    for name, run in itertools.groupby(monomial):
        power = len(list(run))
        parts.append(name if power == 1 else f"{name} ^ {power}")
    return " * ".join(parts)
