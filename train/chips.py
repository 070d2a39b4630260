"""TPU chips and slices: what a chip can do, and what the name of a slice says.

The numbers are those of Google Cloud's pages on each chip,
https://cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and tpu7x ("System architecture"):
bfloat16 FLOP/s, HBM and its bandwidth, and the bandwidth between chips, which they give
for both directions together. `usable` is what the compiler for the chip lets a program
have; it says so when one needs more ("exceeds available HBM").
"""

import math
from typing import NamedTuple

from train.errors import ConfigError
from train.settings import nearest

GIB = 2**30


class Chip(NamedTuple):
    """One chip. JAX sees `devices` of them, which share everything evenly.

    flops: bfloat16, per second; hbm, usable: bytes
    hbm_bandwidth: bytes per second; ici_bandwidth: bytes per second that it sends, over
    all its links: half of what the pages say
    axes: of the torus; wraps: a slice's axis of a multiple of this is a ring
    """

    name: str
    flops: float
    hbm: float
    usable: float
    hbm_bandwidth: float
    ici_bandwidth: float
    axes: int
    wraps: int
    devices: int = 1


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * GIB, 30.75 * GIB, 1228e9, 150e9, 3, 4),
        Chip("v5e", 197e12, 16 * GIB, 15.75 * GIB, 819e9, 200e9, 2, 16),
        Chip("v5p", 459e12, 95 * GIB, 95.74 * GIB, 2765e9, 600e9, 3, 4),
        Chip("v6e", 918e12, 32 * GIB, 31.25 * GIB, 1638e9, 400e9, 2, 16),
        Chip("tpu7x", 2307e12, 192 * GIB, 94.75 * 2 * GIB, 7380e9, 600e9, 3, 4, 2),
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
    return Slice(chip, tuple(map(int, parts)))


def group_bandwidth(where: Slice, group: int) -> float:
    """Bytes per second that a chip sends in a collective among `group` devices.

    A group is taken to lie along as few axes of the torus as hold it, the longest
    first; an axis that is no ring (see `Chip.wraps`) has one way out in place of two.
    """
    chip = where.chip
    link = chip.ici_bandwidth / (2 * chip.axes)
    lying, total = 1, 0.0
    for size in sorted(where.shape, reverse=True):
        if size == 1 or lying * chip.devices >= group:
            break
        total += link * (2 if size % chip.wraps == 0 else 1)
        lying *= size
    return total or 2 * link  # between the devices of one chip
