"""The text of an optimised HLO module as computations of instructions.

Reads what `jax.stages.Compiled.as_text()` prints, on CPU and on TPU. Only what counting
costs needs is kept: names, opcodes, shapes, operands, the attributes as text.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# Bits per element, for the names whose width is not at their end.
BITS = {"pred": 8, "token": 0, "opaque": 0}
ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
SPACE = re.compile(r"S\((\d+)\)")
HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s.*->.*\{\s*$")
END = re.compile(r"^\}(\s*$|,\s*execution_thread=)")  # attributes have lines of "}}"
LEFT = re.compile(r"^\s+(ROOT\s+)?%?([\w.\-]+)\s+=\s+")
OPCODE = re.compile(r"([\w\-]+)\(")
NAME = re.compile(r"%([\w.\-]+)")
BARE_NAME = re.compile(r"(?:^|\s)([A-Za-z_][\w.\-]*)$")
OPEN, CLOSE = "([{", ")]}"


class Shape(NamedTuple):
    """One array: element type, sizes, and whether it lies in HBM (memory space 0)."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool = True

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes without the padding of layouts."""
        return -(-self.size * bits(self.dtype) // 8)


class Instruction(NamedTuple):
    """`shapes` are the arrays of its result, a tuple flattened; `inside` its brackets.

    `inside` is what stands between the brackets: operands, or the value of a constant.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inside: str
    attributes: str

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)


class Computation(NamedTuple):
    """Instructions by name, in the order of the text; `root` is what it returns."""

    name: str
    instructions: dict[str, Instruction]
    root: str


class Module(NamedTuple):
    """Computations by name; `entry` is where execution starts."""

    computations: dict[str, Computation]
    entry: str


def bits(dtype: str) -> int:
    """Bits of an element: `bf16` 16, `f8e4m3fn` 8, `s4` 4, `pred` 8, `c64` 64."""
    if dtype in BITS:
        return BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)
    if digits is None:
        raise ValueError(f"unknown element type {dtype!r}")
    return int(digits[1])


def parse(text: str) -> Module:
    """Raises ValueError where the text has no entry computation."""
    computations, entry, name, found, root = {}, None, None, {}, None
    for line in text.splitlines():
        if name is None:
            head = HEAD.match(line)
            if head and not line.startswith("HloModule"):
                name, found, root = head[2], {}, None
                entry = name if head[1] else entry
        elif END.match(line):
            root = root or next(reversed(found), "")
            computations[name] = Computation(name, found, root)
            name = None
        elif instruction := _instruction(line):
            is_root, made = instruction
            found[made.name] = made
            root = made.name if is_root else root
    if entry is None:
        raise ValueError("no ENTRY computation: not the text of an HLO module")
    return Module(computations, entry)


def _instruction(line: str) -> tuple[bool, Instruction] | None:
    left = LEFT.match(line)
    if left is None:
        return None
    rest = line[left.end() :]
    end = _close(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode = OPCODE.search(rest, end)
    start = opcode.end()
    stop = _close(rest, start - 1)
    inside, attributes = rest[start:stop], rest[stop + 1 :]
    operands = ()
    if opcode[1] not in ("constant", "parameter", "iota"):
        operands = tuple(_operands(inside))
    shapes = tuple(parse_shapes(rest[:end]))
    made = Instruction(left[2], opcode[1], shapes, operands, inside, attributes)
    return bool(left[1]), made


def _close(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] in OPEN:
            depth += 1
        elif text[i] in CLOSE:
            depth -= 1
            if depth == 0:
                return i
    raise ValueError(f"no closing bracket: {text[start : start + 60]!r}")


def _operands(inside: str) -> Iterator[str]:
    """Names of operands, with or without "%" and the types before them."""
    inside = re.sub(r"/\*[^*]*\*/", "", inside)
    if "%" in inside:
        yield from NAME.findall(inside)
        return
    depth, part = 0, ""
    for letter in inside + ",":
        depth += (letter in OPEN) - (letter in CLOSE)
        if letter == "," and depth == 0:
            if name := BARE_NAME.search(part.strip()):
                yield name[1]
            part = ""
        else:
            part += letter


def parse_shapes(text: str) -> Iterator[Shape]:
    """All arrays of a type, in order: `(f32[2]{0}, bf16[3,4]{1,0:S(1)})` -> two."""
    for dtype, dims, layout in ARRAY.findall(text):
        sizes = tuple(int(re.sub(r"[<=]", "", d)) for d in dims.split(",") if d)
        space = SPACE.search(layout)
        yield Shape(dtype, sizes, space is None or space[1] == "0")


def attribute(instruction: Instruction, name: str) -> str | None:
    """The text of an attribute, brackets balanced; None where there is none."""
    found = re.search(rf"(?:^|[\s,]){name}=", instruction.attributes)
    if found is None:
        return None
    text, depth = instruction.attributes[found.end() :], 0
    for i, letter in enumerate(text):
        depth += (letter in OPEN) - (letter in CLOSE)
        if depth < 0 or (letter == "," and depth == 0):
            return text[:i].strip()
    return text.strip()


def called(instruction: Instruction, *names: str) -> list[str]:
    """Names of the computations in the given attributes (`calls`, `body`, ...)."""
    texts = (attribute(instruction, name) for name in names)
    return [n for text in texts if text for n in re.findall(r"%?([\w.\-]+)", text)]
