r"""Small programs over integers and lists: five levels, hidden tests, an interpreter.

A problem describes in a controlled language what becomes of a list, clause by clause;
a solution is a pipeline of operations, one per line, each on the value that the line
before it left. Comments say which clause the lines under them carry out:

    # Question                            # Solution

    in order, plus 3, the largest one     # in order
                                          sort
                                          # plus 3
                                          add 1
                                          add 2
                                          # the largest one
                                          last

Most clauses have several right ways. Each has a common wording and a rare one, which is
almost absent from introductory problems. Whether a program is right is decided by its
hidden tests alone; comments are not read. The pre-training documents of `facts` say of
a piece of code whether it does what its comment says. Levels 1 and 2 are called
introductory, 3 and 4 interview, 5 competition.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.worlds.pipelines import (
    BREAK,
    COMMENT,
    OPERATIONS,
    WITH_DIGIT,
    Operation,
    ProgramError,
    Value,
    execute,
    parse,
)

LEVELS = (1, 2, 3, 4, 5)
DIFFICULTIES = {"introductory": (1, 2), "interview": (3, 4), "competition": (5,)}
EASY = DIFFICULTIES["introductory"]
QUESTION, SOLUTION = "# Question\n\n", "# Solution\n\n"
COMMA = ", "
DRAWS = 1000  # attempts at a new problem before a split is called impossible

# --- the language of descriptions ---------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Clause:
    """What one clause asks for: two wordings, its digits, the right ways to do it.

    `ways` are programs, lines separated by ";"; {k} is the digit, {a} and {b} are two
    digits from 1 on whose sum it is. The first way is the usual one. `on_lists`: it
    cannot be asked of a number; `reduces`: it leaves a number.
    """

    common: str
    rare: str
    ways: tuple[str, ...]
    digits: tuple[int, ...] = ()
    on_lists: bool = True
    reduces: bool = False


_SMALL, _MIDDLE, _ANY = (1, 2, 3), (2, 3, 4, 5, 6, 7), tuple(range(1, 10))
CLAUSES = (
    Clause("plus", "raised by", ("add {k}", "add {a};add {b}"), _ANY, False),
    Clause("minus", "lowered by", ("sub {k}", "sub {a};sub {b}"), _ANY, False),
    Clause("times", "scaled by", ("mul {k}", "neg;mul {k};neg"), _MIDDLE, False),
    Clause("at most", "capped at", ("atmost {k}",), _MIDDLE, False),
    Clause("at least", "filled up to", ("atleast {k}",), _MIDDLE, False),
    Clause("doubled", "twice as much", ("mul 2",), (), False),
    Clause("tripled", "threefold", ("mul 3",), (), False),
    Clause("negated", "with other signs", ("neg", "add 1;neg;add 1"), (), False),
    Clause("in order", "ascending", ("sort", "rev;sort")),
    Clause("in falling order", "descending", ("sort;rev", "neg;sort;neg")),
    Clause("backwards", "flipped", ("rev",)),
    Clause("the first", "the leading", ("take {k}",), _SMALL),
    Clause("the last", "the trailing", ("rev;take {k};rev",), _SMALL),
    Clause("all but the first", "skipping", ("drop {k}", "drop {a};drop {b}"), _SMALL),
    Clause("all but the last", "cut short by", ("rev;drop {k};rev",), _SMALL),
    Clause("those over", "whatever exceeds", ("over {k}",), _MIDDLE),
    Clause("those under", "whatever is below", ("under {k}",), _MIDDLE),
    Clause("the even ones", "the multiples of two", ("even",)),
    Clause("the odd ones", "without multiples of two", ("odd",)),
    Clause("running totals", "accumulated", ("scan",)),
    Clause("each once", "without repeats", ("uniq",)),
    Clause("the sum", "all together", ("sum", "scan;last"), reduces=True),
    Clause("the largest one", "the maximum", ("max", "sort;last"), reduces=True),
    Clause("the smallest one", "the minimum", ("min", "sort;head"), reduces=True),
    Clause("how many", "the count", ("len",), reduces=True),
    Clause("the first one", "the opening number", ("head", "rev;last"), reduces=True),
    Clause("the final one", "the closing number", ("last", "rev;head"), reduces=True),
)


class Asked(NamedTuple):
    """One clause of a problem: which, its digit or None, in the rare wording or not."""

    index: int
    digit: int | None
    rare: bool

    @property
    def clause(self) -> Clause:
        return CLAUSES[self.index]

    @property
    def text(self) -> str:
        words = self.clause.rare if self.rare else self.clause.common
        return words if self.digit is None else f"{words} {self.digit}"


class HiddenTest(NamedTuple):
    given: tuple[int, ...]
    expected: Value


class Problem(NamedTuple):
    """`text` is the whole prompt, up to and including the solution's header."""

    level: int
    text: str
    tests: tuple[HiddenTest, ...]
    spec: tuple[Asked, ...]


@dataclasses.dataclass(frozen=True)
class ProgramWorld:
    """The knobs of the world.

    `clauses[l]` is the inclusive range of clauses at level l + 1, `rare_share[l]` the
    share of rare wordings there. `usual` is how often a sampled solution takes the
    usual way to carry out a clause. `tests` is the number of hidden tests; their
    inputs are lists of `lengths` numbers (inclusive) from 0 to 9.
    """

    clauses: tuple[tuple[int, int], ...] = ((1, 3), (2, 4), (3, 5), (3, 5), (4, 6))
    rare_share: tuple[float, ...] = (0.1, 0.1, 0.45, 0.5, 0.55)
    usual: float = 0.6
    reduce_share: float = 0.5
    tests: int = 12
    lengths: tuple[int, int] = (4, 8)

    def __post_init__(self):
        if len(self.clauses) != len(LEVELS) or len(self.rare_share) != len(LEVELS):
            raise ValueError(f"clauses, rare_share: expected {len(LEVELS)} levels")
        for name, ranges in (("clauses", self.clauses), ("lengths", [self.lengths])):
            for low, high in ranges:
                if not 1 <= low <= high <= 20:
                    raise ValueError(
                        f"{name}: expected 1 <= low <= high <= 20, got {low, high}"
                    )
        if not all(0 <= c <= 1 for c in (*self.rare_share, self.usual)):
            raise ValueError("rare_share, usual: expected 0 to 1")
        if not 0 <= self.reduce_share <= 1:
            raise ValueError("reduce_share: expected 0 to 1")
        if self.tests < 1:
            raise ValueError(f"tests: expected at least 1, got {self.tests}")


@dataclasses.dataclass(frozen=True)
class ProgramSizes:
    """Training problems per level; totals of the others, as in APPS's test set.

    A fifth is introductory, three fifths interview, a fifth competition.
    """

    train: tuple[int, ...] = (600, 900, 300, 300, 200)
    development: int = 200
    test: int = 300

    def __post_init__(self):
        if len(self.train) != len(LEVELS):
            raise ValueError(f"train: expected {len(LEVELS)} levels, got {self.train}")
        if min(*self.train, self.development, self.test) < 0:
            raise ValueError("train, development, test: expected no negative sizes")


class ProgramSplits(NamedTuple):
    train: tuple[Problem, ...]
    development: tuple[Problem, ...]
    test: tuple[Problem, ...]


# --- text, judging ------------------------------------------------------------------


def vocabulary() -> list[str]:
    """Every word of the world's texts, in a fixed order, without special tokens."""
    names = [f"{n} " if n in WITH_DIGIT else n for n in OPERATIONS]
    wordings = [f"{w} " if c.digits else w for c in CLAUSES for w in (c.common, c.rare)]
    digits = [str(i) for i in range(10)]
    marks = [COMMENT, COMMA, BREAK, QUESTION, SOLUTION, "\n\n", "yes", "no"]
    return [*digits, *names, *wordings, *marks]


def prompt(spec: Sequence[Asked]) -> str:
    return f"{QUESTION}{COMMA.join(a.text for a in spec)}\n\n{SOLUTION}"


def passed(tests: Sequence[HiddenTest], text: str) -> list[bool]:
    """Which tests a program passes; one that does not parse or run passes none."""
    try:
        program = parse(text)
    except ProgramError:
        return [False] * len(tests)
    return [_output(program, test.given) == test.expected for test in tests]


def difficulty(level: int) -> str:
    """APPS's name for a level: introductory, interview or competition."""
    return next(name for name, levels in DIFFICULTIES.items() if level in levels)


def _output(program, given) -> Value | None:
    try:
        return execute(program, given)
    except ProgramError:
        return None


# --- problems and solutions ---------------------------------------------------------


def problem(world: ProgramWorld, level: int, rng: np.random.Generator) -> Problem:
    """Draws a problem of a level (1 to 5).

    Every clause changes what some test inputs have become, and the tests expect at
    least three different values (as many as there are tests, with fewer).
    """
    while True:
        spec = _spec(world, level, rng)
        tests = _tests(world, spec, rng)
        if tests is not None:
            return Problem(level, prompt(spec), tests, spec)


def solution(world: ProgramWorld, problem: Problem, rng: np.random.Generator) -> str:
    """A right program with comments, random among the right ways."""
    lines = []
    for asked in problem.spec:
        lines += [COMMENT + asked.text, *_piece(asked, rng, world.usual)]
    return BREAK.join(lines)


def _spec(world, level, rng) -> tuple[Asked, ...]:
    low, high = world.clauses[level - 1]
    count = int(rng.integers(low, high + 1))
    # A list becomes a number at the last clause, or at the one before it, or never.
    place = count - 1 - int(rng.random() < 0.3)
    reduces = rng.random() < world.reduce_share
    spec = []
    for i in range(count):
        numeric = reduces and i > place
        options = [
            j
            for j, c in enumerate(CLAUSES)
            if c.reduces == (reduces and i == place) and not (numeric and c.on_lists)
        ]
        index = int(rng.choice(options))
        digits = CLAUSES[index].digits
        digit = int(rng.choice(digits)) if digits else None
        spec.append(
            Asked(index, digit, bool(rng.random() < world.rare_share[level - 1]))
        )
    return tuple(spec)


def _tests(world, spec, rng) -> tuple[HiddenTest, ...] | None:
    """Hidden tests, or None when they would not tell right from wrong."""
    values = [_list(world.lengths, rng) for _ in range(world.tests)]
    inputs = list(values)
    for asked in spec:
        program = _usual(asked)
        after = [_output(program, v) for v in values]
        if None in after or after == values:
            return None
        values = after
    if len(set(values)) < min(3, world.tests):
        return None
    return tuple(map(HiddenTest, inputs, values))


def _list(lengths, rng) -> tuple[int, ...]:
    low, high = lengths
    return tuple(rng.integers(0, 10, rng.integers(low, high + 1)).tolist())


@functools.cache
def _usual(asked: Asked) -> tuple[Operation, ...]:
    way = asked.clause.ways[0].format(k=asked.digit)
    return parse(way.replace(";", BREAK))


def _piece(asked: Asked, rng, usual: float) -> list[str]:
    """Lines that carry out a clause, in the usual way with probability `usual`."""
    ways = [w for w in asked.clause.ways if asked.digit != 1 or "{a}" not in w]
    chosen = 0
    if len(ways) > 1 and rng.random() >= usual:
        chosen = int(rng.integers(1, len(ways)))
    a = int(rng.integers(1, asked.digit)) if "{a}" in ways[chosen] else None
    b = None if a is None else asked.digit - a
    return ways[chosen].format(k=asked.digit, a=a, b=b).split(";")


# --- documents and splits -----------------------------------------------------------


def facts(
    world: ProgramWorld,
    rng: np.random.Generator,
    n: int,
    wrong_share: float = 0.35,
    code_first: float = 0.0,
    pieces: int = 1,
    outlines: float = 0.0,
) -> list[str]:
    """`n` pre-training documents: code, what it is said to do, and whether it does.

    A document has 1 to `pieces` pieces of code; in a wrong one, one of them is wrong:
    half of these have code of the same clause with another digit, where there is one,
    the others code of another clause. `code_first` of the pieces have the code above
    the comment. Verdicts follow the interpreter, not the wording. A share `outlines` of
    the documents has no code: a question of 1 to 6 clauses, and its comments.
    """
    probes = [_list(world.lengths, rng) for _ in range(40)]
    documents = []
    for _ in range(n):
        if rng.random() < outlines:
            spec = [_any_clause(rng) for _ in range(rng.integers(1, 7))]
            comments = BREAK.join(COMMENT + asked.text for asked in spec)
            documents.append(prompt(spec) + comments)
            continue
        count = int(rng.integers(1, pieces + 1))
        wrong = int(rng.integers(count)) if rng.random() < wrong_share else None
        lines = []
        for i in range(count):
            asked, done = _said_and_done(rng, probes, i == wrong)
            code, said = _piece(done, rng, world.usual), COMMENT + asked.text
            lines += [*code, said] if rng.random() < code_first else [said, *code]
        documents.append(BREAK.join([*lines, "yes" if wrong is None else "no"]))
    return documents


def _said_and_done(rng, probes, wrong: bool) -> tuple[Asked, Asked]:
    """A clause, and the one that the code carries out: the same unless `wrong`."""
    asked = _any_clause(rng)
    if not wrong:
        return asked, asked
    while True:
        if asked.digit is not None and rng.random() < 0.5:
            done = asked._replace(digit=int(rng.choice(asked.clause.digits)))
        else:
            done = _any_clause(rng)
        if not _same(_usual(asked), _usual(done), probes):
            return asked, done


def _any_clause(rng) -> Asked:
    index = int(rng.integers(len(CLAUSES)))
    digits = CLAUSES[index].digits
    digit = int(rng.choice(digits)) if digits else None
    return Asked(index, digit, bool(rng.random() < 0.5))


def _same(one, other, probes) -> bool:
    """Whether two programs agree on all probes, lists and numbers."""
    numbers = tuple(range(-3, 10))
    return all(_output(one, v) == _output(other, v) for v in (*probes, *numbers))


def splits(
    world: ProgramWorld, seed: int, sizes: ProgramSizes = ProgramSizes()
) -> ProgramSplits:
    """Train, development and test problems; no text occurs in two of them.

    Held-out problems are drawn first and are distinct; training problems may repeat.
    Raises DataError when the world has too few problems of a level.
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
    return ProgramSplits(**parts)


def proportional(total: int) -> tuple[int, ...]:
    """`total` problems over the levels: 1 : 3 : 1 by difficulty, halved by level."""
    fifth = total // 5
    easy, middle = fifth, total - 2 * fifth
    return (easy - easy // 2, easy // 2, middle - middle // 2, middle // 2, fifth)


def _draw(world, level, rng, taken: set[str], distinct: bool) -> Problem:
    for _ in range(DRAWS):
        drawn = problem(world, level, rng)
        if drawn.text not in taken:
            if distinct:
                taken.add(drawn.text)
            return drawn
    raise DataError(f"the world has too few problems of level {level} for its splits")
