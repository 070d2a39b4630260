"""Linear systems after miniF2F's `mathd_algebra`: integer solutions picked first."""

from data.worlds.draws import Draws
from data.worlds.theorems_draft import Draft, draft, linear, over_integers, written

LETTERS = "abcmnxyz"


def draw(draws: Draws) -> Draft | None:
    """A theorem on a linear system of a random family."""
    return draws.choice(FAMILIES)(draws)


def _equation(draws: Draws, parts, at) -> str:
    """An equation that holds at the point; part of its terms may stand on the right."""
    constant = draws.choice([0, 0, draws.between(1, 9), -draws.between(1, 9)])
    total = sum(c * at[name] for c, name in parts) + constant
    left, right = linear(parts, constant), {(): total} if total else {}
    if len(parts) == 1 and draws.chance(0.3):
        # k x + c = x + d
        name = parts[0][1]
        left = linear([(parts[0][0] + 1, name)], constant)
        right = linear([(1, name)], total)
    return f"{written(None, left)} = {written(None, right)}"


def _one_unknown(draws: Draws) -> Draft:
    x = draws.choice(LETTERS)
    v, k = draws.between(-6, 9), draws.between(2, 9)
    return draft(
        draws,
        over_integers([x]),
        {"e": _equation(draws, [(k, x)], {x: v})},
        f"{x} = {v}",
        ["linarith"],
        ["one equation"],
        implied=0.4,
    )


def _square(draws: Draws, names, at) -> dict[str, str]:
    """Two equations in two unknowns with a single solution."""
    while True:
        a, b, c, d = (draws.choice((-3, -2, -1, 1, 1, 2, 3)) for _ in range(4))
        if a * d != b * c:
            break
    x, y = names
    return {
        "e": _equation(draws, [(a, x), (b, y)], at),
        "f": _equation(draws, [(c, x), (d, y)], at),
    }


def _two_unknowns(draws: Draws) -> Draft:
    names = draws.sample(LETTERS, 2)
    at = {name: draws.between(-5, 9) for name in names}
    hypotheses = _square(draws, names, at)
    x, y = names
    if draws.chance(0.5):
        goal, lines = f"{x} = {at[x]}", ["linarith"]
        shapes = ["two equations"]
    else:
        goal = f"{x} = {at[x]} ∧ {y} = {at[y]}"
        lines, shapes = ["constructor", "linarith", "linarith"], ["both unknowns"]
    return draft(
        draws,
        over_integers(sorted(names)),
        hypotheses,
        goal,
        lines,
        shapes,
        implied=0.3,
    )


def _three_unknowns(draws: Draws) -> Draft:
    x, y, z = draws.sample(LETTERS, 3)
    at = {name: draws.between(-4, 9) for name in (x, y, z)}
    hypotheses = {
        "e": f"{x} + {y} = {at[x] + at[y]}",
        "f": f"{y} + {z} = {at[y] + at[z]}",
        "g": f"{z} + {x} = {at[z] + at[x]}",
    }
    goal, lines = draws.choice(
        [
            (f"{x} = {at[x]}", ["linarith"]),
            (f"{x} + {y} + {z} = {sum(at.values())}", ["linarith"]),
            (
                f"{x} = {at[x]} ∧ {y} = {at[y]}",
                ["constructor", "linarith", "linarith"],
            ),
        ]
    )
    return draft(
        draws,
        over_integers(sorted((x, y, z))),
        hypotheses,
        goal,
        lines,
        ["three unknowns"],
        implied=0.3,
    )


def _power_of_solution(draws: Draws) -> Draft:
    """The unknown has to be found before a power of it can be computed."""
    x = draws.choice(LETTERS)
    v, k, m = draws.between(2, 7), draws.between(2, 6), draws.between(1, 5)
    goal, shape = draws.choice(
        [
            (f"{x} ^ 2 = {v**2}", "square of the solution"),
            (f"{x} ^ 2 + {m} = {v**2 + m}", "square of the solution"),
            (f"{x} * {x} - {m} * {x} = {v * v - m * v}", "square of the solution"),
            (f"{x} ^ 3 = {v**3}", "cube of the solution"),
        ]
    )
    return draft(
        draws,
        over_integers([x]),
        {"e": _equation(draws, [(k, x)], {x: v})},
        goal,
        [f"have {{s}} : {x} = {v} := by linarith", "rw [{s}]", "norm_num"],
        [shape],
        new=["s"],
        implied=0.3,
    )


def _product_of_solutions(draws: Draws) -> Draft:
    names = draws.sample(LETTERS, 2)
    at = {name: draws.between(2, 8) for name in names}
    x, y = names
    total, gap = at[x] + at[y], at[x] - at[y]
    return draft(
        draws,
        over_integers(sorted(names)),
        {"e": f"{x} + {y} = {total}", "f": f"{x} - {y} = {gap}"},
        f"{x} * {y} = {at[x] * at[y]}",
        [
            f"have {{s}} : {x} = {at[x]} := by linarith",
            f"have {{t}} : {y} = {at[y]} := by linarith",
            "rw [{s}]",
            "rw [{t}]",
            "norm_num",
        ],
        ["product of the solutions"],
        new=["s", "t"],
    )


def _computed(draws: Draws) -> Draft:
    """x is given, y is computed from it, and perhaps z from y."""
    names = draws.sample(LETTERS, draws.between(2, 3))
    v = draws.between(1, 7)
    hypotheses = {"e0": f"{names[0]} = {v}"}
    for i, (one, other) in enumerate(zip(names, names[1:], strict=False), start=1):
        k, m = draws.between(2, 5), draws.between(1, 9)
        hypotheses[f"e{i}"] = f"{other} = {k} * {one} + {m}"
        v = k * v + m
    count = len(names)
    lines = [f"rw [{{e{i}}}]" for i in reversed(range(count))]
    return draft(
        draws,
        over_integers(sorted(names)),
        hypotheses,
        f"{names[-1]} = {v}",
        [*lines, "norm_num"],
        ["computed in turn"],
        implied=0.3,
    )


def _there_is(draws: Draws) -> Draft:
    """A solution exists."""
    x = draws.choice(LETTERS)
    v, k, c = draws.between(1, 9), draws.between(2, 9), draws.between(1, 9)
    if draws.chance(0.6):
        goal, lines = f"∃ {x} : ℤ, {k} * {x} + {c} = {k * v + c}", [f"refine ⟨{v}, ?_⟩"]
    else:
        a = draws.choice([n for n in "abc" if n != x])
        goal = f"∃ {x} : ℤ, {x} - {c} = {k} * {a}"
        one = draft(
            draws,
            over_integers([a]),
            {},
            goal,
            [f"use {k} * {a} + {c}", "ring"],
            ["a solution in terms of another"],
        )
        return one
    return draft(draws, [], {}, goal, [*lines, "norm_num"], ["there is a solution"])


def _if_and_only_if(draws: Draws) -> Draft:
    x = draws.choice(LETTERS)
    v, k = draws.between(-5, 9), draws.between(2, 7)
    sides = [_equation(draws, [(k, x)], {x: v}), f"{x} = {v}"]
    if draws.chance(0.5):
        op = draws.choice(["<", "≤"])
        c = draws.between(1, 9)
        sides = [f"{k} * {x} + {c} {op} {k * v + c}", f"{x} {op} {v}"]
    sides = draws.shuffled(sides)
    return draft(
        draws,
        over_integers([x]),
        {},
        " ↔ ".join(sides),
        ["constructor", *["intro h1", "linarith"] * 2],
        ["equivalent equations" if "=" in sides[0] else "equivalent inequalities"],
    )


def _either_root(draws: Draws) -> Draft:
    """Both values that x may have are roots."""
    x = draws.choice(LETTERS)
    u, v = draws.sample(range(1, 8), 2)
    sums, prods = u + v, u * v
    return draft(
        draws,
        over_integers([x]),
        {"e": f"{x} = {u} ∨ {x} = {v}"},
        draws.choice(
            [
                f"{x} ^ 2 + {prods} = {sums} * {x}",
                f"{x} * {x} - {sums} * {x} = -{prods}",
            ]
        ),
        [
            "rcases {e} with {u} | {v}",
            "rw [{u}]",
            "norm_num",
            "rw [{v}]",
            "norm_num",
        ],
        ["either root"],
        new=["u", "v"],
        implied=0.3,
    )


def _which_side(draws: Draws) -> Draft:
    """A disjunction of which one side follows."""
    names = draws.sample(LETTERS, 2)
    at = {name: draws.between(-5, 9) for name in names}
    x, y = names
    right = f"{x} = {at[x]}"
    wrong = f"{y} = {at[y] + draws.choice((-2, -1, 1, 2))}"
    first = draws.chance(0.5)
    return draft(
        draws,
        over_integers(sorted(names)),
        _square(draws, names, at),
        f"{right} ∨ {wrong}" if first else f"{wrong} ∨ {right}",
        ["left" if first else "right", "linarith"],
        ["one of two values"],
        implied=0.3,
    )


def _ordered(draws: Draws) -> Draft:
    """A chain of inequalities, some strict."""
    names = draws.sample(LETTERS, draws.between(3, 4))
    hypotheses, strict = {}, False
    for i, (one, other) in enumerate(zip(names, names[1:], strict=False)):
        op = draws.choice(["<", "≤"])
        strict = strict or op == "<"
        c = draws.choice([0, draws.between(1, 5)])
        hypotheses[f"e{i}"] = (
            f"{one} {op} {other}" if not c else (f"{one} + {c} {op} {other}")
        )
    goal = f"{names[0]} {'<' if strict else '≤'} {names[-1]}"
    return draft(
        draws,
        over_integers(sorted(names)),
        hypotheses,
        goal,
        ["linarith"],
        ["chain of inequalities"],
        implied=0.4,
    )


def _bounded(draws: Draws) -> Draft:
    """Bounds of two unknowns bound a combination of them."""
    x, y = draws.sample(LETTERS, 2)
    u, v, k, m = (draws.between(1, 6) for _ in range(4))
    goal = f"{k} * {x} + {m} * {y} ≤ {k * u + m * v + draws.below(3)}"
    return draft(
        draws,
        over_integers(sorted([x, y])),
        {"e": f"{x} ≤ {u}", "f": f"{y} ≤ {v}"},
        goal,
        ["linarith"],
        ["bound of a combination"],
        implied=0.4,
    )


def _impossible(draws: Draws) -> Draft:
    """Hypotheses that contradict each other, before a goal that has nothing to do."""
    x, y = draws.sample(LETTERS, 2)
    v, k, c = draws.between(1, 6), draws.between(2, 5), draws.between(1, 5)
    hypotheses = {"e": f"{k} * {x} + {c} ≤ {k * v + c}", "f": f"{v} < {x}"}
    if draws.chance(0.5):
        return draft(
            draws, over_integers([x]), hypotheses, "False", ["linarith"],
            ["contradicting bounds"], implied=0.4,
        )  # fmt: skip
    return draft(
        draws,
        over_integers(sorted([x, y])),
        hypotheses,
        f"{y} ^ 2 = {draws.between(2, 9)}",
        ["exfalso", "linarith"],
        ["contradicting bounds", "goal without use"],
        implied=0.3,
    )


FAMILIES = (
    _one_unknown,
    _one_unknown,
    _two_unknowns,
    _two_unknowns,
    _three_unknowns,
    _power_of_solution,
    _power_of_solution,
    _product_of_solutions,
    _computed,
    _computed,
    _there_is,
    _if_and_only_if,
    _either_root,
    _which_side,
    _ordered,
    _bounded,
    _impossible,
)
