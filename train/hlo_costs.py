"""What one execution of a compiled program costs a device, read from its HLO.

Unlike XLA's own `cost_analysis`, loops count as often as they run. FLOPs are those of
matrix products (dots, and the convolutions that TPUs make of them), two for each pair
of numbers multiplied. Bytes are what instructions outside fusions read from and write
to HBM. Collectives count what a device sends.

FLOPs come from here, not from the jaxpr: these are of one device after partitioning, so
work that several devices repeat shows, and so does what rematerialisation repeats.
"""

import functools
import math
import re
from typing import NamedTuple

import numpy as np

from train import hlo_text
from train.hlo_kernels import kernel_flops
from train.hlo_memory import hbm_traffic
from train.hlo_text import Computation, Instruction, Module, attribute, called

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# Instructions that move no data of their own.
FREE = frozenset(
    """parameter constant tuple get-tuple-element bitcast while conditional call
    after-all partition-id replica-id opt-barrier async-start async-update async-done
    copy-done slice-done custom-call-start send recv send-done recv-done domain
    add-dependency get-dimension-size""".split()
)
# What a Pallas kernel, or a library's, computes cannot be seen.
KERNELS = ("tpu_custom_call", "mosaic", "__onednn", "__cublas", "__cudnn")


class Traffic(NamedTuple):
    """Collectives of one kind among groups of one size, and bytes a device sends."""

    kind: str
    group: int
    count: float
    bytes: float


class Costs(NamedTuple):
    """Per device.

    work: FLOPs times the bfloat16 passes that they take: 6 for products of float32 at
    the highest precision, 3 at high, else 1
    kernels: targets of custom calls whose FLOPs are not in `flops`
    open_loops: loops whose number of rounds only the data knows; where there are some,
      all figures are of one round of each
    around: what such a program costs beside these rounds, once at each call
    """

    flops: float = 0.0
    work: float = 0.0
    bytes_read: float = 0.0
    bytes_written: float = 0.0
    traffic: tuple[Traffic, ...] = ()
    kernels: tuple[str, ...] = ()
    open_loops: tuple[str, ...] = ()
    around: "Costs | None" = None

    @property
    def bytes(self) -> float:
        return self.bytes_read + self.bytes_written

    def sent(self, kind: str | None = None) -> float:
        """Bytes a device sends in collectives of a kind, or of all."""
        return sum(t.bytes for t in self.traffic if kind in (None, t.kind))


def costs(text: str) -> Costs:
    """Of one run of `compiled.as_text()`. Raises ValueError where that is no HLO."""
    module = hlo_text.parse(text)
    whole = _of_module(module, 1)
    if not whole.open_loops:
        return whole
    around = _of_module(module, 0)
    rounds = add([whole, scale(around, -1)])
    return _nonzero(rounds)._replace(around=_nonzero(around)._replace(open_loops=()))


def _of_module(module: Module, open_rounds: int) -> Costs:
    """Of one run, with so many rounds of each loop whose number only the data knows."""

    @functools.cache
    def of(name: str, fused: bool) -> Costs:
        computation = module.computations[name]
        return add(
            [
                _one(module, computation, instruction, fused, of, open_rounds)
                for instruction in computation.instructions.values()
            ]
        )

    return of(module.entry, False)


def _nonzero(part: Costs) -> Costs:
    return part._replace(traffic=tuple(t for t in part.traffic if t.count))


def add(parts: list[Costs]) -> Costs:
    """The sum: counts and bytes of collectives by kind and group size."""
    traffic: dict[tuple[str, int], list[float]] = {}
    for part in parts:
        for t in part.traffic:
            total = traffic.setdefault((t.kind, t.group), [0.0, 0.0])
            total[0] += t.count
            total[1] += t.bytes
    return Costs(
        sum(p.flops for p in parts),
        sum(p.work for p in parts),
        sum(p.bytes_read for p in parts),
        sum(p.bytes_written for p in parts),
        tuple(Traffic(*key, *total) for key, total in sorted(traffic.items())),
        tuple(sorted({k for p in parts for k in p.kernels})),
        tuple(sorted({k for p in parts for k in p.open_loops})),
    )


def scale(part: Costs, times: float) -> Costs:
    """What `times` runs cost."""
    return part._replace(
        flops=part.flops * times,
        work=part.work * times,
        bytes_read=part.bytes_read * times,
        bytes_written=part.bytes_written * times,
        traffic=tuple(
            t._replace(count=t.count * times, bytes=t.bytes * times)
            for t in part.traffic
        ),
        around=part.around and scale(part.around, times),
    )


def _one(module, computation, instruction, fused: bool, of, open_rounds: int) -> Costs:
    """Costs of one instruction with everything that it calls."""
    opcode = instruction.opcode
    if opcode == "while":
        return _loop(module, computation, instruction, fused, of, open_rounds)
    if opcode == "conditional":
        names = called(
            instruction, "branch_computations", "true_computation", "false_computation"
        )
        return max((of(name, fused) for name in names), key=lambda c: c.flops)
    parts = []
    if opcode in ("fusion", "call", "async-start", "custom-call"):
        inner = fused or opcode == "fusion"
        for name in called(instruction, "calls", "to_apply", "called_computations"):
            parts.append(of(name, inner))
    if opcode in ("dot", "convolution"):
        flops = _flops(computation, instruction)
        parts.append(Costs(flops, flops * _passes(computation, instruction)))
    if opcode == "custom-call":
        target = (attribute(instruction, "custom_call_target") or "").strip('"')
        if any(kernel in target for kernel in KERNELS):
            parts.append(_kernel(computation, instruction, target))
    if kind := _collective(opcode):
        parts.append(_traffic(computation, instruction, kind))
    if not fused and opcode not in FREE:
        read, written = hbm_traffic(module, computation, instruction)
        parts.append(Costs(bytes_read=read, bytes_written=written))
    return add(parts)


def _loop(module, computation, instruction, fused, of, open_rounds) -> Costs:
    body, condition = called(instruction, "body") + called(instruction, "condition")
    once = add([of(body, fused), of(condition, fused)])
    rounds = trip_count(module, computation, instruction)
    if rounds is None:
        names = (*once.open_loops, instruction.name)
        return scale(once, open_rounds)._replace(open_loops=names)
    return scale(once, rounds)


def trip_count(
    module: Module, computation: Computation, loop: Instruction
) -> int | None:
    """How often a while loop runs: as XLA noted it, else from its condition.

    The condition must compare a counter from a constant start, some more at each round
    (see `_step`), with a constant. None where it does not.
    """
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    condition = module.computations[called(loop, "condition")[0]]
    compare = condition.instructions[condition.root]
    where = condition
    if compare.opcode == "fusion":
        # The counter and the bound are operands of the fusion.
        inner = module.computations[called(compare, "calls")[0]]
        outer, compare, where = compare, inner.instructions[inner.root], inner
    if compare.opcode != "compare":
        return None

    def value(name: str, at: Computation) -> tuple[str, int] | None:
        """("constant", n), or ("carried", i): element i of what the loop carries."""
        found = at.instructions[name]
        if found.opcode == "constant":
            return _integer(found)
        if found.opcode == "parameter" and at is not condition:
            return value(outer.operands[int(found.inside)], condition)
        if found.opcode == "get-tuple-element":
            return "carried", int(attribute(found, "index"))
        if found.opcode in ("bitcast", "copy", "convert"):
            return value(found.operands[0], at)
        return None

    left, right = (value(name, where) for name in compare.operands)
    direction = attribute(compare, "direction")
    if left and right and left[0] == "constant":  # n > i
        left, right = right, left
        direction = {"GT": "LT", "GE": "LE"}.get(direction, direction)
    if left is None or right is None or left[0] != "carried":
        return None
    start = _carried(computation, loop, left[1])
    stop = right[1] if right[0] == "constant" else None
    if right[0] == "carried":
        stop = _carried(computation, loop, right[1])
    if start is None or stop is None or direction not in ("LT", "LE", "NE"):
        return None
    step = _step(module.computations[called(loop, "body")[0]], left[1])
    return max(0, -(-(stop - start + (direction == "LE")) // step))


def _step(body: Computation, index: int) -> int:
    """What a round adds to element `index` of what it carries; 1 where it is hidden.

    XLA unrolls loops that pass parts of a product round the devices: 2 a round.
    """
    found = body.instructions[body.root]
    if found.opcode != "tuple":
        return 1
    found, total = body.instructions[found.operands[index]], 0
    while found.opcode in ("add", "copy", "bitcast"):
        operands = [body.instructions[name] for name in found.operands]
        others = [i for i in operands if i.opcode != "constant"]
        if len(others) != 1:
            return 1
        total += sum(_integer(i)[1] for i in operands if i.opcode == "constant")
        found = others[0]
    own = found.opcode == "get-tuple-element" and total > 0
    return total if own and int(attribute(found, "index")) == index else 1


def _integer(constant: Instruction) -> tuple[str, int] | None:
    number = re.fullmatch(r"-?\d+", constant.inside.strip())
    return ("constant", int(number[0])) if number else None


def _carried(computation: Computation, loop: Instruction, index: int) -> int | None:
    """Element `index` of what enters a loop, where that is a constant."""
    state = computation.instructions[loop.operands[0]]
    if state.opcode != "tuple":
        return None
    found = computation.instructions[state.operands[index]]
    while found.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        found = computation.instructions[found.operands[0]]
    value = _integer(found) if found.opcode == "constant" else None
    return value[1] if value else None


def _kernel(computation: Computation, instruction: Instruction, target: str) -> Costs:
    """A kernel's FLOPs where they are known; by its target where they are not."""
    given = computation.instructions
    shapes = [given[name].shapes[0] for name in instruction.operands]
    flops = kernel_flops(instruction.name, shapes)
    if flops is None:
        return Costs(kernels=(target,))
    return Costs(flops, flops)  # in bfloat16, one pass


def _flops(computation: Computation, instruction: Instruction) -> float:
    """2 x multiplications, those with the zeros of padding and dilation left out."""
    left, right = (
        computation.instructions[name].shapes[0] for name in instruction.operands[:2]
    )
    if instruction.opcode == "dot":
        axes = _numbers(attribute(instruction, "lhs_contracting_dims"))
        return 2.0 * instruction.shapes[0].size * math.prod(left.dims[a] for a in axes)
    labels = attribute(instruction, "dim_labels")
    lhs, rhs, out = re.fullmatch(r"(\w+)_(\w+)->(\w+)", labels).groups()
    pairs = 1
    for spatial in filter(str.isdigit, out):
        pairs *= _places(
            left.dims[lhs.index(spatial)],
            right.dims[rhs.index(spatial)],
            instruction.shapes[0].dims[out.index(spatial)],
            _window(instruction, int(spatial)),
        )
    groups = int(attribute(instruction, "feature_group_count") or 1)
    groups *= int(attribute(instruction, "batch_group_count") or 1)
    features = left.dims[lhs.index("f")] * right.dims[rhs.index("o")]
    return 2.0 * pairs * features * left.dims[lhs.index("b")] / groups


def _passes(computation: Computation, instruction: Instruction) -> int:
    """Times that a unit for bfloat16 products goes over the operands."""
    kinds = {computation.instructions[n].shapes[0].dtype for n in instruction.operands}
    asked = attribute(instruction, "operand_precision") or ""
    if "f32" not in kinds:
        return 1
    return 6 if "highest" in asked else 3 if "high" in asked else 1


class Window(NamedTuple):
    """How a convolution goes along one axis."""

    stride: int
    low: int
    lhs_dilate: int
    rhs_dilate: int


def _window(instruction: Instruction, axis: int) -> Window:
    given = dict(re.findall(r"(\w+)=([\w\-]+)", attribute(instruction, "window") or ""))

    def at(name: str, default: str) -> str:
        return given[name].split("x")[axis] if name in given else default

    low = at("pad", "0_0").split("_")[0]
    numbers = (at("stride", "1"), low, at("lhs_dilate", "1"), at("rhs_dilate", "1"))
    return Window(*map(int, numbers))


def _places(inputs: int, kernel: int, outputs: int, window: Window) -> int:
    """Pairs (output, kernel) along one axis that meet an element of the input."""
    out = np.arange(outputs)[:, None] * window.stride - window.low
    place = out + np.arange(kernel)[None] * window.rhs_dilate
    source, between = np.divmod(place, window.lhs_dilate)
    return int(np.sum((between == 0) & (source >= 0) & (source < inputs)))


def _numbers(text: str | None) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text or "")]


def _collective(opcode: str) -> str | None:
    kind = opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def _traffic(computation: Computation, instruction: Instruction, kind: str) -> Costs:
    """What a device sends, by the ring algorithms, n devices in a group.

    all-gather and reduce-scatter (n-1)/n of the whole, all-reduce twice that,
    all-to-all (n-1)/n of what a device holds, collective-permute all it holds.
    """
    if "chain_id" in instruction.attributes and not _starts(computation):
        return Costs()  # a later part of an asynchronous collective
    size = sum(
        shape.bytes
        for name in instruction.operands
        for shape in computation.instructions[name].shapes
    )
    if kind == "collective-permute":
        return Costs(traffic=(Traffic(kind, 2, 1, size),))
    group = group_size(instruction)
    if kind == "all-reduce" and "all-reduce-scatter" in computation.name:
        kind = "reduce-scatter"  # as TPUs write it: an all-reduce, then a slice
    whole = size * group if kind == "all-gather" else size
    times = 2 if kind == "all-reduce" else 1
    sent = times * whole * (group - 1) / group
    return Costs(traffic=(Traffic(kind, group, 1, sent),) if group > 1 else ())


def _starts(computation: Computation) -> bool:
    """Whether a fusion begins an asynchronous collective; others go on or end it."""
    return any(
        "AsyncCollectiveStart" in i.attributes
        for i in computation.instructions.values()
        if i.opcode == "custom-call"
    )


def group_size(instruction: Instruction) -> int:
    """Devices of one group, in each of the ways in which HLO writes groups.

    `{{0,1},{2,3}}`, `[2,4]<=[8]` (2 groups of 4), `mesh['x'=4,'y'=2] {'y'}`.
    """
    groups = attribute(instruction, "replica_groups") or "{}"
    if groups.startswith("mesh"):
        sizes, _, axes = groups.partition("]")
        known = {n: int(s) for n, s in re.findall(r"'([^']+)'=(\d+)", sizes)}
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes)
        return math.prod(int(part) if part else known[name] for name, part in parts)
    if iota := re.match(r"\[(\d+),(\d+)\]<=", groups):
        return int(iota[2])
    first = re.search(r"\{([\d,\s]+)\}", groups)
    return len(first[1].split(",")) if first else 1
