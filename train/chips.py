"""TPU chips and slices: what a chip can do, and what the name of a slice says.

The numbers are those of Google Cloud's pages on each chip,
https://cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and tpu7x ("System architecture" and
"Configurations"): bfloat16 FLOP/s, HBM and its bandwidth, the bandwidth between chips,
which they give for both directions together (of v4 only what all chips of a pod reach
in an all-reduce, 1.1 PB/s: six links of 45 GB/s each way), and the slices that there
are. `usable` is what the compiler for the chip lets a program have; it says so when one
needs more ("exceeds available HBM").
"""

import itertools
import math
from typing import NamedTuple

from train.errors import ConfigError
from train.settings import nearest

GIB = 2**30


class Chip(NamedTuple):
    """One chip. JAX sees `devices` of them, which share everything evenly.

    flops: bfloat16, per second; hbm, usable: bytes
    hbm_bandwidth: bytes per second; ici_bandwidth: bytes per second that it sends, over
    all its links, which is what each chip of a whole pod adds to an all-reduce
    shapes: of its slices, small ones first
    ring: an axis of a multiple of this closes to a ring; whole: only if all axes do
    """

    name: str
    flops: float
    hbm: float
    usable: float
    hbm_bandwidth: float
    ici_bandwidth: float
    shapes: tuple[str, ...]
    ring: int
    whole: bool = False
    devices: int = 1

    @property
    def axes(self) -> int:
        """Of the torus."""
        return self.shapes[0].count("x") + 1


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = (
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x12",
    "8x8x16", "8x16x16",
)  # fmt: skip
CUBES = (*DEEP, "16x16x16", "16x16x24")

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * GIB, 30.75 * GIB, 1228e9, 270e9, DEEP, 4, True),
        Chip("v5e", 197e12, 16 * GIB, 15.75 * GIB, 819e9, 200e9, FLAT, 16),
        Chip("v5p", 459e12, 95 * GIB, 95.74 * GIB, 2765e9, 600e9, CUBES, 4, True),
        Chip("v6e", 918e12, 32 * GIB, 31.25 * GIB, 1638e9, 400e9, FLAT, 16),
        Chip("tpu7x", 2307e12, 192 * GIB, 189.5 * GIB, 7380e9, 600e9, DEEP, 4, True, 2),
    )
}


class Slice(NamedTuple):
    """A slice: its chip, and how many along each axis of the torus."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As `jax.experimental.topologies` takes it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """What JAX sees."""
        return self.chips * self.chip.devices


def parse_slice(text: str) -> Slice:
    """`v5e:16x16` or `v5p:2x2x1`. Raises ConfigError naming --topology."""
    name, colon, sizes = text.partition(":")
    if name not in CHIPS:
        raise ConfigError(f"--topology: unknown chip {name!r}{nearest(name, CHIPS)}")
    chip = CHIPS[name]
    parts = sizes.split("x")
    example = f"{name}:{'x'.join(['4'] * chip.axes)}"
    if not colon or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise ConfigError(f"--topology: expected e.g. {example}, got {text!r}")
    if len(parts) != chip.axes:
        raise ConfigError(
            f"--topology: a slice of {name} has {chip.axes} axes, e.g. {example}; "
            f"got {text!r}"
        )
    if sizes not in chip.shapes:
        raise ConfigError(
            f"--topology: no slice {text!r}; expected one of "
            + ", ".join(f"{name}:{shape}" for shape in chip.shapes)
        )
    return Slice(chip, tuple(map(int, parts)))


def group_bandwidth(where: Slice, group: int) -> float:
    """Bytes per second that a chip sends in a collective among `group` devices.

    A group is taken to lie along whole axes of the torus, those with the most links
    where it can fill some exactly, else along as few as hold it, the longest first. An
    axis that it fills and that is a ring (see `Chip`) has two ways out of each chip. A
    part of an axis, or one that is no ring, is a line, whose ends have one way out.
    """
    chip = where.chip
    link = chip.ici_bandwidth / (2 * chip.axes)
    chips = math.ceil(group / chip.devices)
    if chips == 1:
        return 2 * link  # between the devices of one chip
    wrapped = [size % chip.ring == 0 for size in where.shape]
    if chip.whole and not all(wrapped):
        wrapped = [False] * len(wrapped)
    axes = [(n, 2 if ring else 1) for n, ring in zip(where.shape, wrapped, strict=True)]
    axes = sorted((axis for axis in axes if axis[0] > 1), reverse=True)
    filled = [
        sum(links for _, links in chosen)
        for count in range(1, len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
        if math.prod(n for n, _ in chosen) == chips
    ]
    if filled:
        return link * max(filled)
    total = 0
    for size, links in axes:
        if chips == 1:
            break
        total += links if chips >= size else 1
        chips = math.ceil(chips / size)
    return link * total
