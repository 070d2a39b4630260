"""Kernels of a frozen base in 4 or 8 bits: quantised once, widened where they are used.

NF4 (Dettmers et al. 2023, QLoRA): a kernel is cut into blocks of 64 along its input
axis, as bitsandbytes does; each is divided by its largest magnitude and rounded to the
nearest of 16 quantiles of a normal distribution. Those magnitudes are quantised in
turn (double quantisation), in groups along the last axis: 4.13 bits per parameter.
Int8: one scale per output channel.

Every part keeps the axes of its kernel, shortened: layers stay stacked on axis 0, and
a kernel's PartitionSpec fits its parts. Axes are named from the end, so that a node
sliced to one layer means the same.
"""

import dataclasses
import math
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from models.params import flatten_names, matches

Kind = Literal["nf4", "int8"]
BLOCK = 64
GROUP = 256

# As published, to the bit; the quantiles that they are follow in the tests.
NF4_CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022833334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "absmax", "step", "mean"],
    meta_fields=["axis", "block"],
)
@dataclasses.dataclass(frozen=True)
class NF4:
    """A kernel [..., I, ..., O] of four-bit codes, in blocks along axis I.

    codes: uint8 [..., I/2, ..., O], two to a byte: the first half of a block is in the
      low bits, the second half in the high ones
    absmax: int8 [..., I/block, ..., O]; a block's largest magnitude is
      mean + step * absmax
    step, mean: float32 [..., I/block, ..., O/group]
    axis: of I, from the end; block: numbers in one block
    """

    codes: jax.Array
    absmax: jax.Array
    step: jax.Array
    mean: jax.Array
    axis: int
    block: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        shape = list(self.codes.shape)
        shape[self.axis] *= 2
        return tuple(shape)


@partial(
    jax.tree_util.register_dataclass, data_fields=["codes", "scale"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Int8:
    """A kernel scale * codes: codes int8 [..., I, O], scale float32 [..., 1, O]."""

    codes: jax.Array
    scale: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.codes.shape


def contracted(name: str, ndim: int) -> tuple[int, ...]:
    """The axes, from the end, that a product with the kernel of this name sums over.

    One axis, but two (heads, head dim) for the attention output; layers come first.
    """
    first = is_stacked(name) - ndim
    return (first, first + 1) if name.endswith("attn/out/kernel") else (first,)


def is_stacked(name: str) -> bool:
    """Whether axis 0 of the parameter of this name counts layers."""
    return "layers" in name.split("/")


@partial(jax.jit, static_argnames=("kind", "axes", "block"))
def quantize(kernel, kind: Kind, axes: tuple[int, ...] = (-2,), block: int = BLOCK):
    """A kernel [..., I, ..., O] as `NF4` or `Int8`.

    Args:
      axes: those that are summed over, from the end (see `contracted`); not the last.
        NF4 cuts the last of them into blocks.
      block: the most numbers of an NF4 block; the largest even divisor of the axis.

    Raises:
      ValueError: an unknown kind, or an odd axis, which two codes to a byte do not fit.
    """
    if kind not in get_args(Kind):
        raise ValueError(
            f"kind is {kind!r}; expected one of {', '.join(get_args(Kind))}"
        )
    kernel = kernel.astype(jnp.float32)
    if kind == "int8":
        scale = jnp.max(jnp.abs(kernel), axis=axes, keepdims=True) / 127
        return Int8(_round8(kernel, scale), scale)
    axis = axes[-1]
    size = kernel.shape[axis]
    if size % 2:
        raise ValueError(f"nf4 needs an even axis {axis}; the kernel is {kernel.shape}")
    block = 2 * _divisor(size // 2, block // 2)
    blocks = _split(kernel, axis, block)
    absmax = jnp.max(jnp.abs(blocks), axis=axis, keepdims=True)
    unit = blocks / jnp.where(absmax > 0, absmax, 1)
    middles = np.convolve(np.float32(NF4_CODE), np.float32([0.5, 0.5]), "valid")
    codes = sum((unit > m).astype(jnp.uint8) for m in middles)
    low, high = jnp.split(codes, 2, axis=axis)
    absmax = absmax.squeeze(axis)
    groups = _split(absmax, -1, _divisor(absmax.shape[-1], GROUP))
    mean = jnp.mean(groups, axis=-1, keepdims=True)
    step = jnp.max(jnp.abs(groups - mean), axis=-1, keepdims=True) / 127
    return NF4(
        codes=_join(low | high << 4, axis),
        absmax=_join(_round8(groups - mean, step), -1),
        step=step[..., 0],
        mean=mean[..., 0],
        axis=axis,
        block=block,
    )


def dequantize(kernel: NF4 | Int8, dtype=jnp.float32):
    """The kernel in full, [..., I, ..., O]; computed in float32, rounded once."""
    if isinstance(kernel, Int8):
        return (kernel.codes.astype(jnp.float32) * kernel.scale).astype(dtype)
    axis = kernel.axis
    packed = _split(kernel.codes, axis, kernel.block // 2)
    codes = jnp.concatenate([packed & 15, packed >> 4], axis)
    # Tied to a part of the kernel: on their own the code's 16 constants, widened to the
    # size of a kernel, would be moved out of the loop over layers and kept all along.
    step, code = jax.lax.optimization_barrier((kernel.step, jnp.float32(NF4_CODE)))
    groups = _split(kernel.absmax, -1, kernel.absmax.shape[-1] // step.shape[-1])
    absmax = groups * step[..., None] + kernel.mean[..., None]
    absmax = jnp.expand_dims(_join(absmax, -1), axis)
    return _join((_look_up(code, codes) * absmax).astype(dtype), axis)


def quantize_params(params, kind: Kind, patterns=("layers/*/kernel",)):
    """The same tree with the kernels that a pattern names as `NF4` or `Int8` nodes.

    Norms, biases, embeddings and the output head are left as they are by default, as
    in bitsandbytes. Works kernel by kernel, also on shapes (under `jax.eval_shape`).

    Args:
      patterns: shell-style, of whole names ("layers/mlp/*"); only kernels are taken.

    Raises:
      ValueError: a pattern that names no kernel.
    """
    names = [n for n in flatten_names(params) if n.split("/")[-1] == "kernel"]
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            raise ValueError(
                f"pattern {pattern!r} names no kernel; kernels are: {', '.join(names)}"
            )

    def convert(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in names or not matches(name, patterns):
            return leaf
        return quantize(leaf, kind, contracted(name, leaf.ndim))

    return jax.tree_util.tree_map_with_path(convert, params)


def _look_up(code, codes):
    """code[codes] by four choices of two: accelerators gather slowly."""
    values = list(code)
    for bit in range(4):
        odd = (codes >> bit) & 1 == 1
        pairs = zip(values[1::2], values[::2], strict=True)
        values = [jnp.where(odd, high, low) for high, low in pairs]
    return values[0]


def _round8(x, step):
    return jnp.round(x / jnp.where(step > 0, step, 1)).astype(jnp.int8)


def _divisor(size: int, most: int) -> int:
    """The largest divisor of ``size`` that is at most ``most``."""
    return next(d for d in range(min(size, most), 0, -1) if size % d == 0)


def _split(x, axis: int, size: int):
    """[..., n * size, ...] -> [..., n, size, ...]; ``axis`` counts from the end."""
    at = x.ndim + axis
    return x.reshape(*x.shape[:at], -1, size, *x.shape[at + 1 :])


def _join(x, axis: int):
    """The inverse of `_split`."""
    at = x.ndim + axis
    joined = math.prod(x.shape[at - 1 : at + 1])
    return x.reshape(*x.shape[: at - 1], joined, *x.shape[at + 1 :])
