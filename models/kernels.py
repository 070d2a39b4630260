"""x @ kernel, where a kernel is an array, a quantised one, or either with an adapter.

A kernel is a leaf of the parameter tree or a small node in its place, so that one model
serves full training, LoRA and QLoRA: `Linear` and `logits` call `project` and do not
know which it is.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from models.matmul import NAME, matmul
from models.quantized import NF4, Int8, dequantize


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["base", "a", "b", "key"],
    meta_fields=["scale", "dropout"],
)
@dataclasses.dataclass(frozen=True)
class Adapted:
    """base + scale * a @ b (Hu et al. 2021, LoRA); the base is frozen: no gradient.

    base: array, `NF4` or `Int8` of one kernel
    a: [..., I, r], b: [..., r, *outs]; I is the product of the input sizes. With an
      axis R of roles before these ([..., R, I, r], [..., R, r, *outs]) the rows of a
      batch are R equal groups in order, each with its own adapter
    key: of the dropout of the adapter's input, [...]; None means no dropout
    scale: a number, or one per role

    Leading axes (...) are the layers, absent where a layer has been sliced out.
    """

    base: Any
    a: jax.Array
    b: jax.Array
    key: jax.Array | None = None
    scale: float | tuple[float, ...] = 1.0
    dropout: float = 0.0


def is_node(kernel) -> bool:
    """Whether a kernel is a node of several arrays, not an array itself."""
    return isinstance(kernel, NF4 | Int8 | Adapted)


def matrix(kernel, inputs: int, dtype):
    """An array, `NF4` or `Int8` as a matrix [inputs, outputs] in ``dtype``."""
    if is_node(kernel):
        return dequantize(kernel, dtype).reshape(inputs, -1)
    return kernel.astype(dtype).reshape(inputs, -1)


def project(x, kernel, compute_dtype, precision=None, dtype=None):
    """x [..., I] @ kernel [*ins, *outs] -> [..., O], flat on ins (I) and outs (O).

    Args:
      kernel: of one layer: an array, `NF4`, `Int8` or `Adapted`. All but arrays are
        frozen: differentiated with respect to them (`allow_int`), the result is zero.
      dtype: of the result; None means ``compute_dtype``.
    """
    if isinstance(kernel, Adapted):
        y = _frozen(x.astype(compute_dtype), kernel.base, precision, dtype)
        y = checkpoint_name(y, NAME)
        return y + _low_rank(x, kernel, compute_dtype, precision, dtype)
    if is_node(kernel):
        y = _frozen(x.astype(compute_dtype), kernel, precision, dtype)
        return checkpoint_name(y, NAME)
    return matmul(x, matrix(kernel, x.shape[-1], compute_dtype), precision, dtype)


# By autodiff each product would keep its kernel, widened, for the backward pass: over
# a scan that is a full copy of the base. Here it keeps what the kernel is stored as.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _frozen(x, kernel, precision, dtype):
    w = matrix(kernel, x.shape[-1], x.dtype)
    return jnp.dot(x, w, precision=precision, preferred_element_type=dtype)


def _frozen_forward(x, kernel, precision, dtype):
    inputs = jax.ShapeDtypeStruct(x.shape[-1:], x.dtype)
    return _frozen(x, kernel, precision, dtype), (kernel, _Static(inputs))


def _frozen_backward(precision, dtype, saved, g):
    kernel, x = saved[0], saved[1].value
    w = matrix(kernel, *x.shape, x.dtype)
    last = ((g.ndim - 1,), (1,))
    return jax.lax.dot_general(g, w, (last, ((), ())), precision, x.dtype), None


_frozen.defvjp(_frozen_forward, _frozen_backward)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["value"])
@dataclasses.dataclass(frozen=True)
class _Static:
    """What a backward pass needs to know and no array holds."""

    value: Any


def _low_rank(x, kernel: Adapted, compute_dtype, precision, dtype):
    """scale * dropout(x) @ a @ b, [..., O]."""
    if kernel.key is not None and kernel.dropout:
        kept = jax.random.bernoulli(kernel.key, 1 - kernel.dropout, x.shape)
        x = jnp.where(kept, x / (1 - kernel.dropout), 0)

    def product(x, a, b):
        a, b = a.astype(compute_dtype), b.astype(compute_dtype)
        low = matmul(x.astype(compute_dtype), a, precision)
        return matmul(low, b.reshape(b.shape[0], -1), precision, dtype)

    if kernel.a.ndim == 2:
        return kernel.scale * product(x, kernel.a, kernel.b)
    roles = kernel.a.shape[0]
    if x.shape[0] % roles:
        raise ValueError(
            f"adapters of {roles} roles need a batch of {roles} equal groups of rows; "
            f"it has {x.shape[0]}"
        )
    groups = x.reshape(roles, -1, *x.shape[1:])
    y = jax.vmap(product)(groups, kernel.a, kernel.b)
    scale = jnp.asarray(kernel.scale, y.dtype).reshape(-1, *[1] * (y.ndim - 1))
    return (scale * y).reshape(*x.shape[:-1], -1)
