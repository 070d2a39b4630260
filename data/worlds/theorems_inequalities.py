"""Small inequalities that hold because a square is never negative."""

from data.worlds.draws import Draws
from data.worlds.theorems_draft import (
    Draft,
    Polynomial,
    draft,
    for_all,
    linear,
    over_integers,
    plus,
    product,
    written,
)

LETTERS = "abcxyz"


def draw(draws: Draws) -> Draft | None:
    """A theorem on an inequality of a random family."""
    return draws.choice(FAMILIES)(draws)


def _ordered(draws: Draws, gap: Polynomial, moved: int) -> str:
    """0 ≤ gap as text, `moved` of its positive terms left on the right-hand side."""
    right = {m: c for m, c in gap.items() if c > 0}
    left = {m: -c for m, c in gap.items() if c < 0}
    if not moved:
        return f"0 ≤ {written(draws, gap)}"
    sides = [written(draws, left), written(draws, right)]
    return " ≤ ".join(sides) if moved == 1 else " ≥ ".join(reversed(sides))


def _hint(base: Polynomial) -> str:
    return f"sq_nonneg ({written(None, base)})"


def _one_square(draws: Draws) -> Draft:
    """2 k a b ≤ a^2 + k^2 b^2 and the like, perhaps with something positive added."""
    a, b = draws.sample(LETTERS, 2)
    k = draws.between(1, 4)
    base = linear([(1, a), (draws.choice((k, -k)), b)])
    gap = product(base, base)
    shape = "square of a sum is not negative"
    if base[(b,)] < 0:
        shape = "square of a difference is not negative"
    if draws.chance(0.3):
        gap = plus(gap, {(): draws.between(1, 9)})
    one = draft(
        draws,
        over_integers([a, b]),
        {},
        _ordered(draws, gap, draws.below(3)),
        [f"nlinarith [{_hint(base)}]"],
        [shape],
    )
    return for_all(draws, one, [a, b], 0.4)


def _one_variable(draws: Draws) -> Draft:
    """A quadratic with its minimum at k."""
    a = draws.choice(LETTERS)
    k = draws.between(1, 6)
    base = linear([(1, a)], draws.choice((k, -k)))
    gap = plus(product(base, base), {(): draws.choice([0, 0, draws.between(1, 9)])})
    one = draft(
        draws,
        over_integers([a]),
        {},
        _ordered(draws, gap, draws.below(3)),
        [f"nlinarith [{_hint(base)}]"],
        ["quadratic in one variable"],
    )
    return for_all(draws, one, [a], 0.4)


def _lower_bound(draws: Draws) -> Draft:
    """There is a bound below all values of a quadratic."""
    a, m = draws.sample(LETTERS, 2)
    k, c = draws.between(1, 5), draws.between(0, 9)
    base = linear([(1, a)], draws.choice((k, -k)))
    whole = plus(product(base, base), {(): c - k * k})
    whole = {mono: n for mono, n in whole.items() if mono or n}
    return draft(
        draws,
        [],
        {},
        f"∃ {m} : ℤ, ∀ {a} : ℤ, {m} ≤ {written(draws, whole)}",
        [f"use {c - k * k}", f"intro {a}", f"nlinarith [{_hint(base)}]"],
        ["bound below a quadratic"],
    )


def _given_sum(draws: Draws) -> Draft:
    """The product of two numbers is bounded through their sum."""
    a, b, c = draws.sample(LETTERS, 3)
    base = linear([(1, a), (-1, b)])
    goal = f"4 * {a} * {b} ≤ {c} ^ 2"
    equation = draws.choice([f"{a} + {b} = {c}", f"{c} = {a} + {b}"])
    line = "rw [← {e}]" if equation.endswith(f"= {c}") else "rw [{e}]"
    return draft(
        draws,
        over_integers([a, b, c]),
        {"e": equation},
        goal,
        [line, f"nlinarith [{_hint(base)}]"],
        ["product bounded by the sum"],
        implied=0.4,
    )


def _given_value(draws: Draws) -> Draft:
    """The same with a number for the sum: at most a quarter of its square."""
    a, b = draws.sample(LETTERS, 2)
    s = 2 * draws.between(1, 6)
    first, other = draws.shuffled([a, b])
    return draft(
        draws,
        over_integers(sorted([a, b])),
        {"e": f"{first} = {s} - {other}"},
        f"{a} * {b} ≤ {s * s // 4}",
        ["rw [{e}]", f"nlinarith [sq_nonneg ({other} - {s // 2})]"],
        ["product bounded by a number"],
        implied=0.4,
    )


def _three_squares(draws: Draws) -> Draft:
    """a b + b c + c a ≤ a^2 + b^2 + c^2."""
    a, b, c = draws.sample(LETTERS, 3)
    k = draws.between(1, 3)
    pairs = [(a, b), (b, c), (c, a)]
    squares: Polynomial = {(n, n): k for n in (a, b, c)}
    products: Polynomial = {tuple(sorted(pair)): k for pair in pairs}
    hints = ", ".join(f"sq_nonneg ({one} - {other})" for one, other in pairs)
    one = draft(
        draws,
        over_integers([a, b, c]),
        {},
        f"{written(draws, products)} ≤ {written(draws, squares)}",
        [f"nlinarith [{hints}]"],
        ["three squares"],
    )
    return for_all(draws, one, [a, b, c], 0.4)


def _two_squares(draws: Draws) -> Draft:
    """A sum of two squares of different things is not negative."""
    a, b = draws.sample(LETTERS, 2)
    k, m = draws.between(1, 4), draws.between(1, 4)
    one, other = linear([(1, a)], -k), linear([(1, b)], draws.choice((m, -m)))
    gap = plus(product(one, one), product(other, other))
    return draft(
        draws,
        over_integers([a, b]),
        {},
        _ordered(draws, gap, draws.below(3)),
        [f"nlinarith [{_hint(one)}, {_hint(other)}]"],
        ["two squares"],
    )


def _both(draws: Draws) -> Draft:
    """Two inequalities at once."""
    parts = [draws.choice((_one_square, _one_variable))(draws) for _ in range(2)]
    parts = [part for part in parts if part.binders]
    if len(parts) < 2:
        return draws.choice((_one_square, _one_variable))(draws)
    names = sorted({n for part in parts for n in part.binders[0][0].split()})
    return draft(
        draws,
        over_integers(names),
        {},
        " ∧ ".join(part.goal for part in parts),
        ["constructor", *parts[0].script, *parts[1].script],
        [*parts[0].shapes, *parts[1].shapes],
    )


def _not_below(draws: Draws) -> Draft:
    """That a square plus something be negative is contradictory."""
    a, b = draws.sample(LETTERS, 2)
    base = linear([(1, a), (-1, b)])
    c = draws.between(1, 9)
    left, right = f"{a} ^ 2 + {b} ^ 2 + {c}", f"2 * {a} * {b}"
    goal, lines = f"¬{left} ≤ {right}", ["intro h1", f"nlinarith [{_hint(base)}]"]
    if draws.chance(0.5):
        goal = f"{left} ≤ {right} → False"
    return draft(draws, over_integers([a, b]), {}, goal, lines, ["square below zero"])


FAMILIES = (
    _one_square,
    _one_square,
    _one_square,
    _one_variable,
    _one_variable,
    _lower_bound,
    _lower_bound,
    _given_sum,
    _given_value,
    _three_squares,
    _two_squares,
    _both,
    _both,
    _not_below,
)
