"""Theorems on equations: identities, rewriting with hypotheses, given functions."""

from data.worlds.draws import Draws
from data.worlds.theorems_draft import (
    Draft,
    Polynomial,
    draft,
    factor,
    for_all,
    linear,
    over_integers,
    plus,
    product,
    value,
    written,
)

LETTERS = "abcdmxyz"


def draw(draws: Draws) -> Draft | None:
    """A theorem on equations of a random family."""
    return draws.choice(FAMILIES)(draws)


# --- identities ---------------------------------------------------------------------


def _sides(draws: Draws, names) -> tuple[str, str, str]:
    """(left, right, shape) of an identity in up to three variables."""
    a, b, c = names
    k, m = draws.between(1, 4), draws.between(1, 4)
    one, two = linear([(k, a), (m, b)]), linear([(k, a), (-m, b)])
    shape = draws.choice(_IDENTITIES)
    if shape == "square of a sum":
        return f"{factor(one)} ^ 2", written(draws, product(one, one)), shape
    if shape == "square of a difference":
        return f"{factor(two)} ^ 2", written(draws, product(two, two)), shape
    if shape == "difference of squares":
        return (
            f"{factor(one)} * {factor(two)}",
            written(draws, product(one, two)),
            shape,
        )
    if shape == "product of sums":
        other = linear([(1, c)], m)
        whole = product(linear([(1, a)], k), other)
        return f"({a} + {k}) * ({c} + {m})", written(draws, whole), shape
    if shape == "cube of a sum":
        one = linear([(1, a), (1, b)])
        return f"({a} + {b}) ^ 3", written(draws, product(one, one, one)), shape
    if shape == "distributing":
        inner = linear([(1, b), (m, c)])
        whole = product({(a,): k}, inner)
        return (
            f"{k + 1} * {a} * {factor(inner)}",
            written(draws, plus(whole, product({(a,): 1}, inner))),
            shape,
        )
    both = plus(product(one, one), product(two, two))
    if shape == "sum of two squares":
        return f"{factor(one)} ^ 2 + {factor(two)} ^ 2", written(draws, both), shape
    gap = plus(product(one, one), product(two, two), -1)
    return f"{factor(one)} ^ 2 - {factor(two)} ^ 2", written(draws, gap), shape


_IDENTITIES = (
    "square of a sum",
    "square of a difference",
    "difference of squares",
    "product of sums",
    "cube of a sum",
    "distributing",
    "sum of two squares",
    "gap of two squares",
)


def _identity(draws: Draws) -> Draft:
    names = draws.sample(LETTERS, 3)
    left, right, shape = _sides(draws, names)
    sides = draws.shuffled([left, right])
    used = [n for n in LETTERS if n in left + right]
    if draws.chance(0.35):
        other_left, other_right, other = _sides(draws, names)
        used = [n for n in LETTERS if n in left + right + other_left + other_right]
        goal = f"{sides[0]} = {sides[1]} ∧ {other_left} = {other_right}"
        one = draft(
            draws,
            over_integers(used),
            {},
            goal,
            ["constructor", "ring", "ring"],
            [shape, other],
        )
    else:
        goal = f"{sides[0]} = {sides[1]}"
        one = draft(draws, over_integers(used), {}, goal, ["ring"], [shape])
    return for_all(draws, one, used, 0.5)


def _replaced_then_identity(draws: Draws) -> Draft:
    """The base of a square is another name for a sum."""
    a, b, c = draws.sample(LETTERS, 3)
    k = draws.between(1, 4)
    base = linear([(1, a), (draws.choice((k, -k)), b)])
    right = written(draws, product(base, base))
    known = written(None, base)
    if draws.chance(0.5):
        hypotheses, line = {"e": f"{c} = {known}"}, "rw [{e}]"
    else:
        hypotheses, line = {"e": f"{known} = {c}"}, "rw [← {e}]"
    left = draws.choice([f"{c} ^ 2", f"{c} * {c}"])
    shape = "replaced, then squared" if "←" not in line else "put back, then squared"
    return draft(
        draws,
        over_integers([a, b, c]),
        hypotheses,
        f"{left} = {right}",
        [line, "ring"],
        [shape],
        implied=0.3,
    )


def _replaced_twice(draws: Draws) -> Draft:
    """c in terms of b, b in terms of a; a polynomial in c in terms of a."""
    a, b, c = draws.sample(LETTERS, 3)
    k, m, n, q = (draws.between(1, 4) for _ in range(4))
    of_a = linear([(k, a)], m)
    of_b = linear([(n, b)], q)
    whole = linear([(n * k, a)], n * m + q)
    target, left = whole, c
    if draws.chance(0.6):
        target = plus(whole, of_a)
        left = f"{c} + {b}"
    return draft(
        draws,
        over_integers([a, b, c]),
        {"c": f"{c} = {written(None, of_b)}", "b": f"{b} = {written(None, of_a)}"},
        f"{left} = {written(draws, target)}",
        ["rw [{c}]", "rw [{b}]", "ring"],
        ["replaced twice"],
        implied=0.3,
    )


# --- chains of rewriting ------------------------------------------------------------


def _chain(draws: Draws) -> Draft:
    """a1 = a2, a2 = a3, ..., some of them the other way round."""
    count = draws.between(3, 5)
    names = draws.sample(LETTERS, count)
    f = draws.choice(["", "f "])
    wrap = (lambda n: f"f {n}") if f else (lambda n: n)
    hypotheses, lines, shapes = {}, [], {"chain of equations"}
    for i, (one, other) in enumerate(zip(names, names[1:], strict=False)):
        back = draws.chance(0.35)
        sides = (other, one) if back else (one, other)
        hypotheses[f"e{i}"] = " = ".join(sides)
        lines.append(f"rw [← {{e{i}}}]" if back else f"rw [{{e{i}}}]")
        shapes |= {"chain of equations, backwards"} if back else set()
    if f:
        shapes.add("chain under a function")
    variables = over_integers(sorted(names)) + ([("f", "ℤ → ℤ")] if f else [])
    goal = f"{wrap(names[0])} = {wrap(names[-1])}"
    _distract(draws, hypotheses, names)
    return draft(draws, variables, hypotheses, goal, lines, shapes, implied=0.3)


def _distract(draws: Draws, hypotheses: dict[str, str], names) -> None:
    """Adds, or not, a hypothesis on some of the names that no step needs."""
    kind = draws.below(4)
    one, other = draws.sample(names, 2)
    if kind == 0:
        hypotheses["more"] = f"{one} + {draws.between(1, 9)} = {draws.between(1, 9)}"
    elif kind == 1:
        hypotheses["more"] = f"{one} {draws.choice(['<', '≤'])} {other}"


def _iterated(draws: Draws) -> Draft:
    """f a = b, f b = c: the value of f (f a)."""
    count = draws.between(2, 3)
    names = draws.sample(LETTERS, count + 1)
    hypotheses = {
        f"e{i}": f"f {one} = {other}"
        for i, (one, other) in enumerate(zip(names, names[1:], strict=False))
    }
    nested = names[0]
    for _ in range(count):
        nested = f"f {nested}" if nested in LETTERS else f"f ({nested})"
    lines = [f"rw [{{e{i}}}]" for i in range(count - 1)]
    _distract(draws, hypotheses, names)
    return draft(
        draws,
        [*over_integers(sorted(names)), ("f", "ℤ → ℤ")],
        hypotheses,
        f"{nested} = {names[-1]}",
        [*lines, f"exact {{e{count - 1}}}"],
        ["iterated function"],
        implied=0.3,
    )


def _predicate(draws: Draws) -> Draft:
    """What holds of a holds of what equals a."""
    names = draws.sample(LETTERS, draws.between(2, 3))
    hypotheses, lines = {}, []
    for i, (one, other) in enumerate(zip(names, names[1:], strict=False)):
        back = draws.chance(0.5)
        hypotheses[f"e{i}"] = " = ".join((other, one) if back else (one, other))
        lines.append(f"rw [← {{e{i}}}]" if back else f"rw [{{e{i}}}]")
    hypotheses["holds"] = f"P {names[-1]}"
    _distract(draws, hypotheses, names)
    return draft(
        draws,
        [*over_integers(sorted(names)), ("P", "ℤ → Prop")],
        hypotheses,
        f"P {names[0]}",
        [*lines, "exact {holds}"],
        ["predicate of equals"],
        implied=0.3,
    )


# --- functions that are given -------------------------------------------------------


def _function_value(draws: Draws) -> Draft:
    """f x = 2 * x + 3 for all x: values, or what a combination of values is."""
    x = draws.choice("xyz")
    k, m = draws.between(2, 5), draws.between(1, 9)
    body: Polynomial = linear([(k, x)], draws.choice((m, -m)))
    if draws.chance(0.3):
        body = plus(body, {(x, x): 1})
    at, also = draws.sample(range(1, 7), 2)
    results = [value(body, {x: number}) for number in (at, also)]
    kind = draws.below(3)
    if kind == 0:
        goal, lines = f"f {at} = {results[0]}", ["rw [{f}]", "norm_num"]
    elif kind == 1:
        goal = f"f {at} + f {also} = {sum(results)}"
        lines = ["rw [{f}]", "rw [{f}]", "norm_num"]
    else:
        goal = f"f {at} = {results[0]} ∧ f {also} = {results[1]}"
        lines = ["constructor", *["rw [{f}]", "norm_num"] * 2]
    return draft(
        draws,
        [("f", "ℤ → ℤ")],
        {"f": f"∀ {x} : ℤ, f {x} = {written(None, body)}"},
        goal,
        lines,
        ["value of a function", "two values of a function"][: 1 + (kind > 0)],
    )


def _function_identity(draws: Draws) -> Draft:
    """f is linear: f of a sum in terms of its parts."""
    x, a, b = draws.sample(LETTERS, 3)
    k, m = draws.between(2, 5), draws.between(1, 9)
    inner = linear([(1, a), (draws.between(1, 3), b)])
    target = plus(product({(): k}, inner), {(): m})
    return draft(
        draws,
        [*over_integers([a, b]), ("f", "ℤ → ℤ")],
        {"f": f"∀ {x} : ℤ, f {x} = {k} * {x} + {m}"},
        f"f {factor(inner)} = {written(draws, target)}",
        ["rw [{f}]", "ring"],
        ["function of a sum"],
    )


# --- witnesses ----------------------------------------------------------------------


def _multiples(draws: Draws) -> Draft:
    """Sums of multiples of d are multiples of d."""
    a, b = draws.sample("abxy", 2)
    d, k = draws.between(2, 6), draws.between(2, 4)
    sign = draws.choice("+-")
    goal, witness = draws.choice(
        [
            (f"{a} {sign} {b}", f"u {sign} v"),
            (f"{a} {sign} {k} * {b}", f"u {sign} {k} * v"),
            (f"{a} * {b}", f"u * {b}"),
            (f"{k} * {a} * {b}", f"{k} * u * {b}"),
            (f"{a} ^ 2", f"u * {a}"),
        ]
    )
    if "v" in witness:
        script = [
            "obtain ⟨u, {u}⟩ := {a}",
            "obtain ⟨v, {v}⟩ := {b}",
            f"use {witness}",
            "rw [{u}]",
            "rw [{v}]",
            "ring",
        ]
        hypotheses = {"a": f"∃ k : ℤ, {a} = {d} * k", "b": f"∃ k : ℤ, {b} = {d} * k"}
        shape, new = "sum of multiples", ["u", "v"]
    else:
        script = ["obtain ⟨u, {u}⟩ := {a}", f"use {witness}", "rw [{u}]", "ring"]
        hypotheses = {"a": f"∃ k : ℤ, {a} = {d} * k"}
        shape, new = "product with a multiple", ["u"]
    return draft(
        draws,
        over_integers(sorted([a, b])),
        hypotheses,
        f"∃ k : ℤ, {goal} = {d} * k",
        script,
        [shape],
        new=new,
    )


def _odd_square(draws: Draws) -> Draft:
    """The square of d a + r leaves the rest r^2 when divided by d."""
    a = draws.choice(LETTERS)
    d, r = draws.between(2, 5), draws.between(1, 3)
    base = linear([(d, a)], r)
    witness = written(draws, {(a, a): d, (a,): 2 * r})
    one = draft(
        draws,
        over_integers([a]),
        {},
        f"∃ k : ℤ, {factor(base)} ^ 2 = {d} * k + {r * r}",
        [f"use {witness}", "ring"],
        ["rest of a square"],
    )
    return for_all(draws, one, [a], 0.4)


FAMILIES = (
    _identity,
    _identity,
    _identity,
    _replaced_then_identity,
    _replaced_then_identity,
    _replaced_twice,
    _replaced_twice,
    _chain,
    _chain,
    _iterated,
    _predicate,
    _function_value,
    _function_value,
    _function_identity,
    _multiples,
    _multiples,
    _odd_square,
)
