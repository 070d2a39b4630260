"""What a plan says: memory by part, roofline of each function, cost of the run.

All figures are per chip unless they say otherwise; seconds are those of the roofline, a
bound from below: no program is faster, and a good one is within a factor of two.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from train.chips import Slice, group_bandwidth
from train.hlo_costs import Costs, scale

HOUR = 3600.0


class Roofline(NamedTuple):
    """Seconds that computing, memory and network alone would take."""

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """With all three at once: the longest of them."""
        return max(self)

    @property
    def bound(self) -> str:
        return max(zip(self, self._fields, strict=True))[1]


class Function(NamedTuple):
    """One jitted function of a run, compiled for the slice.

    parts: bytes a chip, by what they hold; `needed` their sum, `available` the chip's
    costs, roofline: of one call; None where it does not fit
    calls: in a step of the run; model_flops: of a call, of all chips together, each
    product of the model counted once
    """

    name: str
    calls: float
    parts: Mapping[str, float]
    needed: float
    available: float
    model_flops: float
    costs: Costs | None = None
    roofline: Roofline | None = None

    @property
    def fits(self) -> bool:
        return self.needed <= self.available

    def mfu(self, where: Slice) -> float | None:
        """Share of the slice's peak that the model's own FLOPs make at the roofline."""
        if self.roofline is None or not self.roofline.seconds:
            return None
        peak = where.chip.flops * where.chips
        return self.model_flops / (peak * self.roofline.seconds)


class Plan(NamedTuple):
    """A run on a slice: its functions, and how often it steps (None: not known).

    left_out: what it computes beside them
    """

    run: str
    model: str
    where: Slice
    mesh: Mapping[str, int]
    settings: Mapping[str, Any]
    functions: tuple[Function, ...]
    steps: int | None
    left_out: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return all(f.fits for f in self.functions)

    @property
    def step_seconds(self) -> float | None:
        """A step, or iteration, at the roofline; None where something does not fit."""
        if not self.fits:
            return None
        return sum(f.calls * f.roofline.seconds for f in self.functions)

    @property
    def chip_hours(self) -> float | None:
        if self.steps is None or self.step_seconds is None:
            return None
        return self.steps * self.step_seconds / HOUR * self.where.chips


def roofline(costs: Costs, where: Slice) -> Roofline:
    """Of the costs of a chip."""
    chip = where.chip
    return Roofline(
        costs.work / chip.flops,
        costs.bytes / chip.hbm_bandwidth,
        sum(t.bytes / group_bandwidth(where, t.group) for t in costs.traffic),
    )


def per_chip(costs: Costs, where: Slice) -> Costs:
    """From a device's costs to a chip's."""
    return scale(costs, where.chip.devices)


def shard_bytes(tree, chosen: Mapping = {}) -> int:  # noqa: B006 (never mutated)
    """Bytes of a tree of shapes that lie on each device.

    By each one's sharding, or that of its (shape, dtype) in `chosen`, else whole.
    """

    def size(x) -> int:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return shard_bytes(jax.eval_shape(jax.random.key_data, x))
        sharding = x.sharding or chosen.get((x.shape, x.dtype))
        shape = sharding.shard_shape(x.shape) if sharding else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))
