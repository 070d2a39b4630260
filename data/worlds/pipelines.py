"""The language of the miniature's programs: a pipeline of operations, interpreted here.

    # in order          a comment
    sort                an operation on the value that the line before it left
    add 3               one with a digit

Values are integers and lists of integers. Nothing loops, lists never grow, numbers are
bounded: a program ends by construction, in time linear in its lines. Nothing but the
operations below can be said, so what a model wrote is safe to run.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

COMMENT, BREAK = "# ", "\n"
MAX_LINES, MAX_VALUE = 64, 10**9  # of a program that the interpreter takes

Value = int | tuple[int, ...]


class ProgramError(ValueError):
    """A program that the interpreter does not take, or that fails on an input."""


ELEMENTWISE = {  # on a number, or on every number of a list; the digit is the operand
    "add": lambda v, k: v + k,
    "sub": lambda v, k: v - k,
    "mul": lambda v, k: v * k,
    "atmost": min,
    "atleast": max,
    "neg": lambda v, k: -v,
}
ON_LISTS = {
    "sort": lambda x, k: sorted(x),
    "rev": lambda x, k: x[::-1],
    "take": lambda x, k: x[:k],
    "drop": lambda x, k: x[k:],
    "over": lambda x, k: [v for v in x if v > k],
    "under": lambda x, k: [v for v in x if v < k],
    "even": lambda x, k: [v for v in x if v % 2 == 0],
    "odd": lambda x, k: [v for v in x if v % 2],
    "scan": lambda x, k: itertools.accumulate(x),
    "uniq": lambda x, k: list(dict.fromkeys(x)),
}
TO_NUMBERS = {  # an empty list gives 0
    "sum": lambda x, k: sum(x),
    "max": lambda x, k: max(x, default=0),
    "min": lambda x, k: min(x, default=0),
    "len": lambda x, k: len(x),
    "head": lambda x, k: x[0] if x else 0,
    "last": lambda x, k: x[-1] if x else 0,
}
OPERATIONS = ELEMENTWISE | ON_LISTS | TO_NUMBERS
WITH_DIGIT = {"add", "sub", "mul", "atmost", "atleast", "take", "drop", "over", "under"}
_LINE = re.compile(r"([a-z]+)(?: ([0-9]))?")


class Operation(NamedTuple):
    name: str
    digit: int | None


def parse(text: str) -> tuple[Operation, ...]:
    """The operations of a program, comments and blank lines left out.

    Raises ProgramError naming the line for anything else, for a program without an
    operation and for one of more than MAX_LINES lines.
    """
    lines = text.split("\n", MAX_LINES)
    if len(lines) > MAX_LINES:
        raise ProgramError(f"more than {MAX_LINES} lines")
    operations = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith(COMMENT.strip()):
            continue
        match = _LINE.fullmatch(line)
        name, digit = match.groups() if match else (None, None)
        if name not in OPERATIONS or (digit is None) == (name in WITH_DIGIT):
            raise ProgramError(f"line {number}: no operation: {line[:40]!r}")
        operations.append(Operation(name, None if digit is None else int(digit)))
    if not operations:
        raise ProgramError("no operation")
    return tuple(operations)


def execute(program: Sequence[Operation], value: Value) -> Value:
    """What the program makes of a list or a number.

    It ends by construction: one pass, no list grows, numbers are bounded. Raises
    ProgramError for a list operation on a number and for numbers over MAX_VALUE.
    """
    for name, digit in program:
        listed = isinstance(value, tuple)
        if name in ELEMENTWISE:
            function = ELEMENTWISE[name]
            value = (
                tuple(function(v, digit) for v in value)
                if listed
                else function(value, digit)
            )
        elif not listed:
            raise ProgramError(f"{name}: expected a list, got the number {value}")
        elif name in ON_LISTS:
            value = tuple(ON_LISTS[name](value, digit))
        else:
            value = TO_NUMBERS[name](value, digit)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(abs(v) > MAX_VALUE for v in numbers):
            raise ProgramError(f"{name}: a number is over {MAX_VALUE}")
    return value
