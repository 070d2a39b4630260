"""HBM that an instruction of a compiled program reads and writes.

Operands in faster memory count nothing, slices what they take, and updates in place
what they change, inside fusions too. The padding of layouts is left out.
"""

import math

from train.hlo_text import Computation, Instruction, Module, called

SLICES = ("dynamic-slice", "slice", "gather")
VIEWS = ("bitcast", "reshape", "copy", "convert", "transpose")


def hbm_traffic(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[float, float]:
    """(bytes read, bytes written) in HBM by an instruction outside fusions."""
    given = [computation.instructions[name] for name in instruction.operands]
    read = [_hbm(operand) for operand in given]
    written = _hbm(instruction)
    opcode = instruction.opcode
    if opcode in SLICES:
        read = [min(read[0], instruction.bytes), *read[1:]]
    elif opcode == "dynamic-update-slice":
        read, written = [read[1]], _same_place(given[1], instruction)
    elif opcode == "slice-start":
        piece = instruction.shapes[-2]
        read, written = [min(read[0], piece.bytes)], piece.bytes * piece.in_hbm
    elif opcode == "copy-start":
        target = instruction.shapes[0]
        source = given[0].shapes[0]
        target = instruction.shapes[1] if target == source else target
        written = target.bytes * target.in_hbm
    elif opcode.endswith("-start"):
        written = sum(s.bytes * s.in_hbm for s in instruction.shapes[-1:])
    elif opcode.endswith("-done"):
        return 0.0, 0.0
    elif opcode == "fusion":
        inner = module.computations[called(instruction, "calls")[0]]
        read = [min(r, _used(module, inner, i)) for i, r in enumerate(read)]
        written = min(written, _replaced(module, inner))
    return float(sum(read)), float(written)


def _hbm(instruction: Instruction) -> int:
    return sum(shape.bytes for shape in instruction.shapes if shape.in_hbm)


def _same_place(update: Instruction, whole: Instruction) -> int:
    return update.bytes if whole.shapes[0].in_hbm else 0


def _used(module: Module, inner: Computation, number: int) -> float:
    """Bytes of parameter `number` that a fusion looks at: slices, or all."""
    total, leaves = _followed(module, inner, number)
    return math.inf if leaves == "whole" else total


def _followed(
    module: Module, inner: Computation, number: int
) -> tuple[float, str | None]:
    """What becomes of parameter `number` in a fusion, those within it included.

    Returns the bytes looked at, infinite for all, and how it leaves as the result:
    "whole", "changed" in place, or None where it does not.
    """
    uses = _uses(inner)
    parameter = next(
        i
        for i in inner.instructions.values()
        if i.opcode == "parameter" and int(i.inside) == number
    )
    total, leaves, waiting = 0.0, None, [(parameter, "whole")]
    while waiting:
        current, state = waiting.pop()
        if current.name == inner.root:
            leaves = state
        for user in uses.get(current.name, ()):
            first = user.operands[0] == current.name
            if user.opcode in SLICES and first:
                total += user.bytes
            elif user.opcode == "dynamic-update-slice" and first:
                waiting.append((user, "changed"))
            elif user.opcode in VIEWS:
                waiting.append((user, state))
            elif user.opcode == "fusion":
                within = module.computations[called(user, "calls")[0]]
                for place, name in enumerate(user.operands):
                    if name == current.name:
                        more, out = _followed(module, within, place)
                        total += more
                        if out is not None:
                            waiting.append((user, state if out == "whole" else out))
            elif _passes_on(inner, user) or _goes_on(inner, user):
                continue
            else:
                return math.inf, None
    return total, leaves


def _passes_on(inner: Computation, user: Instruction) -> bool:
    """Whether it is only put among the results: the caller's, not a new array."""
    return user.opcode == "tuple" and user.name == inner.root


def _goes_on(inner: Computation, user: Instruction) -> bool:
    """Whether it is a later part of a collective that an earlier fusion began."""
    starts = any("AsyncCollectiveStart" in i.attributes for i in _calls(inner))
    return "chain_id" in user.attributes and not starts


def _calls(inner: Computation) -> list[Instruction]:
    return [i for i in inner.instructions.values() if i.opcode == "custom-call"]


def _replaced(module: Module, inner: Computation) -> float:
    """Bytes that a fusion writes: the updates, where it changes arrays in place.

    Parameters among the results are the caller's arrays, and stay where they are.
    """
    root = inner.instructions[inner.root]
    if root.opcode == "fusion":
        return _replaced(module, module.computations[called(root, "calls")[0]])
    results = [root]
    if root.opcode == "tuple":
        results = [inner.instructions[name] for name in root.operands]
    total = 0
    for result in results:
        while result.opcode in ("bitcast", "convert") and result.operands:
            result = inner.instructions[result.operands[0]]
        if result.opcode == "dynamic-update-slice":
            total += inner.instructions[result.operands[1]].bytes
        elif result.opcode != "parameter":
            total += sum(shape.bytes * shape.in_hbm for shape in result.shapes)
    return total


def _uses(inner: Computation) -> dict[str, list[Instruction]]:
    uses: dict[str, list[Instruction]] = {}
    for instruction in inner.instructions.values():
        for name in instruction.operands:
            uses.setdefault(name, []).append(instruction)
    return uses
