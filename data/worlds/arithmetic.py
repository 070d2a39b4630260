r"""Chains of modular equations: five levels, several right ways, exact step labels.

A problem is a chain `c_i * v_i = v_{i-1} (mod p)`: the value found in one step enters
the next equation. Every step prints the state it leaves, so that it can be judged from
the problem and the line before it, at every level alike:

    # Question              # Solution

    3a = 7, 5b = a          3a = 7: a = 6               solve (3 * 6 = 7 mod 11)

                            5b = 6 by 2: 10b = 1        scale both sides

                            b = 10                      solve what it left

                            # Answer

                            10

A third of the pairs (coefficient, right side) is rare: almost absent from easy
problems, common in hard ones. Scaling turns a rare pair into a common one, so a hard
problem can be solved by composing what easy problems teach. Finding v is an inverse;
checking it is one product, which the pre-training documents of `facts` teach:

    5 * 10 = 6 yes        5b = 6 by 2: 10b = 1 yes
"""

import dataclasses
import functools
import re
from typing import NamedTuple

import numpy as np

from data.errors import DataError

LEVELS = (1, 2, 3, 4, 5)
EASY = (1, 2, 3)
MATH500 = (43, 90, 105, 128, 134)  # problems per level of the MATH500 test set
BREAK = "\n\n"
QUESTION, SOLUTION, ANSWER = "# Question\n\n", "# Solution\n\n", "# Answer\n\n"
VARIABLES = "abcdefghijklmnopqrstuvwxyz"
DRAWS = 1000  # attempts at a new problem before a split is called impossible


@dataclasses.dataclass(frozen=True)
class ArithmeticWorld:
    """The knobs of the world; all but `modulus` are about what problems look like.

    `steps[l]` is the inclusive range of chain lengths at level l + 1, `rare_share[l]`
    the probability that an equation there has a rare pair. In a sampled solution a
    rare pair is scaled with probability `scale_rare`, a common one with `scale_common`.
    """

    modulus: int = 11
    steps: tuple[tuple[int, int], ...] = ((1, 2), (2, 4), (3, 6), (3, 6), (4, 6))
    rare_share: tuple[float, ...] = (0.02, 0.02, 0.05, 0.35, 0.55)
    rare_fraction: float = 1 / 3
    scale_rare: float = 0.7
    scale_common: float = 0.1
    pair_seed: int = 0

    def __post_init__(self):
        p = self.modulus
        if p < 5 or any(p % d == 0 for d in range(2, p)):
            raise ValueError(f"modulus: expected a prime >= 5, got {p}")
        if len(self.steps) != len(LEVELS) or len(self.rare_share) != len(LEVELS):
            raise ValueError(f"steps, rare_share: expected {len(LEVELS)} levels")
        for low, high in self.steps:
            if not 1 <= low <= high <= len(VARIABLES):
                raise ValueError(f"steps: expected 1 <= low <= high, got {low, high}")
        chances = (*self.rare_share, self.scale_rare, self.scale_common)
        if not all(0 <= c <= 1 for c in chances):
            raise ValueError("rare_share, scale_rare, scale_common: expected 0 to 1")
        if not 0 < round(self.rare_fraction * (p - 2)) < p - 2:
            raise ValueError("rare_fraction: leaves no rare or no common pairs")


class Chain(NamedTuple):
    """`coefficients[0] * v_0 = start`, `coefficients[i] * v_i = v_{i-1}`."""

    start: int
    coefficients: tuple[int, ...]


class Problem(NamedTuple):
    """`text` is the whole prompt, up to and including the solution's header."""

    level: int
    text: str
    answer: str
    spec: Chain


@dataclasses.dataclass(frozen=True)
class SplitSizes:
    """Training problems per level; totals of the others, in MATH500's proportions."""

    train: tuple[int, ...] = (400, 800, 800, 1200, 1200)
    development: int = 500
    test: int = 500

    def __post_init__(self):
        if len(self.train) != len(LEVELS):
            raise ValueError(f"train: expected {len(LEVELS)} levels, got {self.train}")
        if min(*self.train, self.development, self.test) < 0:
            raise ValueError("train, development, test: expected no negative sizes")


class Splits(NamedTuple):
    train: tuple[Problem, ...]
    development: tuple[Problem, ...]
    test: tuple[Problem, ...]


class State(NamedTuple):
    """Where a solution stands: an equation `c * v_i = y`; i = n when all are solved."""

    index: int
    coefficient: int
    right: int


# --- text ---------------------------------------------------------------------------


def vocabulary(world: ArithmeticWorld) -> list[str]:
    """Every word of the world's texts, in a fixed order, without special tokens.

    A text is a concatenation of words, the longest match first; some hold spaces, so
    that texts are readable and sequences short.
    """
    letters = VARIABLES[: max(high for _, high in world.steps)]
    numbers = [str(i) for i in range(world.modulus)]
    signs = [" * ", " = ", ": ", ", ", " by ", " yes", " no"]
    return [*numbers, *letters, *signs, BREAK, QUESTION, SOLUTION, ANSWER]


def prompt(question: str) -> str:
    return f"{QUESTION}{question}{BREAK}{SOLUTION}"


def parse(text: str, level: int = 0) -> Problem:
    """The problem that a prompt states, without its answer.

    Raises DataError for any other text.
    """
    question = text.removeprefix(QUESTION).partition(BREAK)[0]
    equation = re.compile(r"([0-9]{1,6})[a-z] = ([0-9]{1,6}|[a-z])")
    found = [equation.fullmatch(part) for part in question.split(", ")]
    if all(found) and found[0][2].isdigit():
        chain = Chain(int(found[0][2]), tuple(int(match[1]) for match in found))
        if prompt(_question(chain)) == text:
            return Problem(level, text, "", chain)
    raise DataError(f"expected a chain of equations, got {text[:60]!r}")


def final_answer(text: str) -> str | None:
    """What follows the last answer marker, on its line; None without one."""
    _, marker, answer = text.rpartition(ANSWER)
    answer = answer.strip().partition("\n")[0].strip()
    return answer if marker and answer else None


def is_correct(problem: Problem, text: str) -> bool:
    return final_answer(text) == problem.answer


# --- problems and solutions ---------------------------------------------------------


@functools.cache
def rare_pairs(world: ArithmeticWorld) -> np.ndarray:
    """[p, p] bool: whether (coefficient, right side) is rare; equally many per side.

    Only coefficients 2..p-1 and right sides 1..p-1 occur.
    """
    p = world.modulus
    rng = np.random.default_rng(world.pair_seed)
    rare = np.zeros((p, p), bool)
    count = round(world.rare_fraction * (p - 2))
    for right in range(1, p):
        rare[rng.choice(np.arange(2, p), count, replace=False), right] = True
    rare.flags.writeable = False
    return rare


def problem(world: ArithmeticWorld, level: int, rng: np.random.Generator) -> Problem:
    """Draws a problem of a level (1 to 5)."""
    p, rare = world.modulus, rare_pairs(world)
    low, high = world.steps[level - 1]
    start = right = int(rng.integers(1, p))
    coefficients = []
    for _ in range(rng.integers(low, high + 1)):
        want_rare = rng.random() < world.rare_share[level - 1]
        options = [c for c in range(2, p) if rare[c, right] == want_rare]
        coefficients.append(int(rng.choice(options)))
        right = _solve(coefficients[-1], right, p)
    chain = Chain(start, tuple(coefficients))
    return Problem(level, prompt(_question(chain)), str(right), chain)


def solution(world: ArithmeticWorld, problem: Problem, rng: np.random.Generator) -> str:
    """A right solution, random among the right ways, ending in the answer."""
    p, rare, chain = world.modulus, rare_pairs(world), problem.spec
    lines, state = [], _first(chain)
    while state.index < len(chain.coefficients):
        name, (_, c, y) = VARIABLES[state.index], state
        value = _solve(c, y, p)
        equation = f"{c}{name} = {y}"
        found = f"{name} = {value}"
        scale = world.scale_rare if rare[c, y] else world.scale_common
        factors = [
            k for k in range(2, p)
            if k * c % p > 1 and not rare[k * c % p, k * y % p]
        ]  # fmt: skip
        if factors and rng.random() < scale:
            k = int(rng.choice(factors))
            lines += [f"{equation} by {k}: {k * c % p}{name} = {k * y % p}", found]
        else:
            lines.append(f"{equation}: {found}")
        state = _next(chain, state.index, value)
    return BREAK.join([*lines, ANSWER + problem.answer])


def solution_steps(text: str) -> list[str]:
    """The steps of a solution: its lines before the answer marker."""
    body = text.partition(ANSWER.strip())[0]
    return [line.strip() for line in body.split(BREAK) if line.strip()]


def check_steps(world: ArithmeticWorld, problem: Problem, text: str) -> list[bool]:
    """Whether each step follows from the state that the step before it printed.

    Steps are judged one by one: after a slip, a step that follows from the wrong value
    is right. A line that is no step is wrong and leaves the state as it was. The answer
    is not a step: see `is_correct`.
    """
    chain, state, labels = problem.spec, _first(problem.spec), []
    for line in solution_steps(text):
        right, state = _check(world.modulus, chain, state, line)
        labels.append(right)
    return labels


_EQUATION = r"([0-9]+)([a-z]) = ([0-9]+)"
_VALUE = re.compile(rf"(?:{_EQUATION}: )?([a-z]) = ([0-9]+)")
_SCALE = re.compile(rf"{_EQUATION} by ([0-9]+): {_EQUATION}")


def _check(p: int, chain: Chain, state: State, line: str) -> tuple[bool, State]:
    """Judges one line; returns whether it is right and the state that it leaves."""
    n = len(chain.coefficients)
    if match := _VALUE.fullmatch(line):
        c, name, y, found, value = match.groups()
        index, value = VARIABLES.index(found), int(value)
        restated = c is None or _equation(c, name, y) == state
        right = restated and index == state.index < n and value < p
        right = right and state.coefficient * value % p == state.right % p
        return right, (_next(chain, index, value) if index < n else state)
    if match := _SCALE.fullmatch(line):
        numbers = match.groups()
        before, k, after = (
            _equation(*numbers[:3]),
            int(numbers[3]),
            _equation(*numbers[4:]),
        )
        scaled = State(state.index, k * state.coefficient % p, k * state.right % p)
        right = before == state and after == scaled and 0 < k < p and state.index < n
        return right, (after if after.index < n else state)
    return False, state


def _equation(coefficient: str, name: str, right: str) -> State:
    return State(VARIABLES.index(name), int(coefficient), int(right))


def _question(chain: Chain) -> str:
    sides = [str(chain.start), *VARIABLES]
    terms = zip(chain.coefficients, VARIABLES, sides, strict=False)
    return ", ".join(f"{c}{name} = {side}" for c, name, side in terms)


def _first(chain: Chain) -> State:
    return State(0, chain.coefficients[0], chain.start)


def _next(chain: Chain, index: int, value: int) -> State:
    """The state after v_index was found to be `value`."""
    rest = chain.coefficients[index + 1 :]
    return State(index + 1, rest[0] if rest else 0, value)


def _solve(coefficient: int, right: int, p: int) -> int:
    return right * pow(coefficient, -1, p) % p


# --- documents and splits -----------------------------------------------------------


def facts(
    world: ArithmeticWorld,
    rng: np.random.Generator,
    n: int,
    wrong_share: float = 0.35,
    scale_share: float = 0.0,
) -> list[str]:
    """`n` pre-training documents that state a product or a scaling, and judge it.

    `u * v = w yes|no`, and a share `scale_share` of `3a = 7 by 2: 6a = 3 yes|no`;
    `wrong_share` of both are wrong, a scaling in one of its two products.
    """
    p = world.modulus
    letters = VARIABLES[: max(high for _, high in world.steps)]
    # A wrong product is any of the p - 2 other values in 1..p-1, equally likely.
    u, v, k = rng.integers(1, p, (3, n))
    shift = rng.integers(1, p - 1, n)
    wrong = rng.random(n) < wrong_share
    scales = rng.random(n) < scale_share
    in_first = rng.random(n) < 0.5
    names = rng.integers(len(letters), size=n)

    def product(a, b, slip):
        return (a * b % p - 1 + slip) % (p - 1) + 1

    documents = []
    for i in range(n):
        slip = int(wrong[i]) * int(shift[i])
        verdict = "no" if wrong[i] else "yes"
        if scales[i]:
            name = letters[names[i]]
            c = product(u[i], k[i], slip if in_first[i] else 0)
            y = product(v[i], k[i], 0 if in_first[i] else slip)
            text = f"{u[i]}{name} = {v[i]} by {k[i]}: {c}{name} = {y}"
        else:
            text = f"{u[i]} * {v[i]} = {product(u[i], v[i], slip)}"
        documents.append(f"{text} {verdict}")
    return documents


def splits(
    world: ArithmeticWorld, seed: int, sizes: SplitSizes = SplitSizes()
) -> Splits:
    """Train, development and test problems; no text occurs in two of them.

    Test problems are drawn first and are distinct, as are development problems;
    training problems may repeat, since easy chains are few. Raises DataError when the
    world has too few problems of a level.
    """
    seen: set[str] = set()
    parts = {}
    for i, (name, per_level) in enumerate(
        [
            ("test", proportional(sizes.test)),
            ("development", proportional(sizes.development)),
            ("train", sizes.train),
        ]
    ):
        rng = np.random.default_rng([seed, i])
        taken = set(seen)
        parts[name] = tuple(
            _draw(world, level, rng, taken, distinct=name != "train")
            for level, count in zip(LEVELS, per_level, strict=True)
            for _ in range(count)
        )
        seen |= {q.text for q in parts[name]}
    return Splits(**parts)


def proportional(total: int) -> tuple[int, ...]:
    """`total` problems over the levels as in MATH500, by largest remainder."""
    exact = [total * count / sum(MATH500) for count in MATH500]
    counts = [int(x) for x in exact]
    order = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


def _draw(world, level, rng, taken: set[str], distinct: bool) -> Problem:
    for _ in range(DRAWS):
        drawn = problem(world, level, rng)
        if drawn.text not in taken:
            if distinct:
                taken.add(drawn.text)
            return drawn
    raise DataError(f"the world has too few problems of level {level} for its splits")
