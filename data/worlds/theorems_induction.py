"""Induction: sequences given by their first value and by a step, in closed form."""

from data.worlds.draws import Draws
from data.worlds.theorems_draft import Draft, draft, linear, written

FUNCTIONS = "fgs"
INDICES = "nkm"


def draw(draws: Draws) -> Draft | None:
    """A theorem by induction of a random family."""
    return draws.choice(FAMILIES)(draws)


def _sequence(
    draws: Draws,
    result: str,
    first: str,
    step: str,
    goal: str,
    script,
    shape: str,
    new=(),
    relation: str = "=",
    also=(),
    more=(),
) -> Draft:
    """A draft on a sequence F with index N.

    first, step: F 0 and, with `relation`, F (N + 1); goal: on F N. F and N stand for
    names that are drawn. The index is a variable of the statement or bound in the goal.
    """  # fmt: skip
    f, n = draws.choice(FUNCTIONS), draws.choice(INDICES)

    def named(text):
        return text.replace("F", f).replace("N", n)

    hypotheses = {"start": named(f"F 0 = {first}")} if first else {}
    if step:
        hypotheses["step"] = named(f"∀ N : ℕ, F (N + 1) {relation} {step}")
    hypotheses |= {key: named(text) for key, text in also}
    lines = [f"induction' {n} with {n} ih", *map(named, script)]
    variables = [(f, f"ℕ → {result}"), *more]
    if draws.chance(0.5):
        variables.append((n, "ℕ"))
        goal = named(goal)
    else:
        goal = named(f"∀ N : ℕ, {goal}")
        lines.insert(0, f"intro {n}")
    return draft(draws, variables, hypotheses, goal, lines, [shape], new=new)


def _in_steps_of(draws: Draws) -> Draft:
    """f 0 = b, f (n + 1) = f n + a: f n = a n + b."""
    a, b = draws.between(2, 9), draws.between(1, 9)
    if draws.chance(0.3):
        b = 0
    body = f"{a} * N + {b}" if b else f"{a} * N"
    step = draws.choice([f"F N + {a}", f"{a} + F N"])
    script = ["rw [{start}]", "?norm_num", "rw [{step}]", "rw [ih]", "ring"]
    return _sequence(
        draws, "ℕ", str(b), step, f"F N = {body}", script, "arithmetic progression"
    )


def _sum_of_progression(draws: Draws) -> Draft:
    """f (n + 1) = f n + 2 a n + (a + b): f n = a n^2 + b n + c."""
    a, b, c = draws.between(1, 4), draws.between(0, 4), draws.choice([0, 0, 1, 3])
    terms = linear([(2 * a, "N")], a + b)
    body = {("N", "N"): a, ("N",): b, (): c}
    body = {m: k for m, k in body.items() if k}
    script = ["norm_num [{start}]", "rw [{step}]", "rw [ih]", "ring"]
    return _sequence(
        draws,
        "ℕ",
        str(c),
        f"F N + {written(None, terms)}",
        f"F N = {written(None, body)}",
        script,
        "sum of a progression",
    )


def _triangular(draws: Draws) -> Draft:
    """Twice the sum of the first n multiples of a is a n (n + 1)."""
    a, c = draws.between(1, 5), draws.choice([0, 0, draws.between(1, 9)])
    term = "N + 1" if a == 1 else f"{a} * (N + 1)"
    body = "N * (N + 1)" if a == 1 else f"{a} * N * (N + 1)"
    if c:
        body += f" + {2 * c}"
    script = ["rw [{start}]", "?norm_num", "rw [{step}]", "linarith"]
    step = f"F N + {term}" if "(" in term else f"F N + ({term})"
    return _sequence(
        draws, "ℕ", str(c), step, f"2 * F N = {body}", script, "triangular sum"
    )


def _geometric(draws: Draws) -> Draft:
    """f (n + 1) = a f n: f n = c a^n."""
    a, c = draws.between(2, 5), draws.between(1, 4)
    body = f"{a} ^ N" if c == 1 else f"{c} * {a} ^ N"
    script = ["norm_num [{start}]", "rw [{step}]", "rw [ih]", "ring"]
    return _sequence(
        draws, "ℕ", str(c), f"{a} * F N", f"F N = {body}", script, "geometric"
    )


def _stays_positive(draws: Draws) -> Draft:
    """What starts above a bound and grows stays above it."""
    start, a = draws.between(1, 9), draws.between(1, 5)
    op, bound = draws.choice(
        [("<", draws.between(0, start - 1)), ("≤", draws.between(0, start))]
    )
    script = ["rw [{start}]", "?norm_num", "rw [{step}]", "linarith"]
    return _sequence(
        draws,
        "ℤ",
        str(start),
        f"F N + {a}",
        f"{bound} {op} F N",
        script,
        "stays above a bound",
    )


def _grows_by(draws: Draws) -> Draft:
    """Steps that are bounded bound the value, with no closed form."""
    start, a = draws.between(0, 9), draws.between(1, 5)
    up = draws.chance(0.5)
    script = [
        "rw [{start}]",
        "?norm_num",
        f"have {{s}} : F (N + 1) {'≥' if up else '≤'} F N {'+' if up else '-'} {a} "
        ":= by apply {step}",
        "linarith",
    ]
    return _sequence(
        draws,
        "ℤ",
        str(start),
        f"F N + {a}" if up else f"F N - {a}",
        f"{start} ≤ F N" if up else f"F N ≤ {start}",
        script,
        "monotone",
        new=["s"],
        relation="≥" if up else "≤",
    )


def _always_a_multiple(draws: Draws) -> Draft:
    """Every value is a multiple of d."""
    d, q, r = draws.between(2, 5), draws.between(1, 3), draws.between(0, 3)
    script = [
        f"use {r}",
        "rw [{start}]",
        "?norm_num",
        "obtain ⟨c, {w}⟩ := ih",
        f"use c + {q}",
        "rw [{step}]",
        "rw [{w}]",
        "ring",
    ]
    return _sequence(
        draws,
        "ℕ",
        str(d * r),
        f"F N + {d * q}",
        f"∃ c : ℕ, F N = {d} * c",
        script,
        "always a multiple",
        new=["w"],
    )


def _predicate(draws: Draws) -> Draft:
    """P 0 and P n → P (n + 1): P n."""
    n = draws.choice(INDICES)
    two = draws.chance(0.4)
    hypotheses = {"start": "P 0", "step": f"∀ {n} : ℕ, P {n} → P ({n} + 1)"}
    lines = [f"induction' {n} with {n} ih", "exact {start}", "apply {step}", "exact ih"]
    goal, variables = f"P {n}", [("P", "ℕ → Prop")]
    if two:
        hypotheses["also"] = f"∀ {n} : ℕ, P {n} → Q {n}"
        goal, variables = f"Q {n}", [("P Q", "ℕ → Prop")]
        lines.insert(0, "apply {also}")
    if draws.chance(0.5):
        variables.append((n, "ℕ"))
    else:
        goal = f"∀ {n} : ℕ, {goal}"
        lines.insert(0, f"intro {n}")
    return draft(
        draws,
        variables,
        hypotheses,
        goal,
        lines,
        ["predicate by induction", "consequence of a predicate"][: 1 + two],
    )


FAMILIES = (
    _in_steps_of,
    _in_steps_of,
    _sum_of_progression,
    _sum_of_progression,
    _triangular,
    _geometric,
    _stays_positive,
    _stays_positive,
    _grows_by,
    _always_a_multiple,
    _predicate,
    _predicate,
)
