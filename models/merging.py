"""Adapters and a base as the plain parameters that they amount to, a layer at a time.

For writing a checkpoint: a base in 4 bits may fit where its parameters in full do not,
so nothing is widened or merged before it is asked for, and nothing is kept.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.adapters import merge
from models.kernels import is_node
from models.params import flatten_names, unflatten_names
from models.quantized import dequantize


class Merged:
    """A kernel that is computed by `np.asarray`; `kernel[layer]` is one layer of it.

    base: an array or a node of arrays; adapter: {"a", "b"} or None. Instead of arrays,
    anything that `np.asarray` and a layer's index take.
    """

    def __init__(self, base, adapter, scale: float, dtype):
        self._base, self._adapter = base, adapter
        self._scale, self.dtype = scale, np.dtype(dtype)
        self.shape = tuple(base.shape)

    def __getitem__(self, layer: int) -> "Merged":
        base, adapter = jax.tree.map(lambda x: x[layer], (self._base, self._adapter))
        return Merged(base, adapter, self._scale, self.dtype)

    def __array__(self, dtype=None, copy=None):
        base, adapter = jax.tree.map(np.asarray, (self._base, self._adapter))
        value = np.asarray(_merged(base, adapter, self._scale, self.dtype))
        return value if dtype is None else value.astype(dtype)


@partial(jax.jit, static_argnums=(2, 3))
def _merged(base, adapter, scale, dtype):
    if adapter is None:
        return dequantize(base, dtype)
    return merge(base, adapter, scale, dtype)


def by_layer(params, adapters, scale: float, dtype=None) -> Any:
    """What `models.adapters.merge` returns, all plain: a tree of `Merged` and arrays.

    Args:
      params: of a decoder, layers stacked; kernels may be quantised.
      dtype: of the kernels that are adapted or quantised; None keeps that of the base,
        and means float32 where it is quantised.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_node)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
    parts = flatten_names(adapters)
    made = {}
    for name, (_, base) in zip(names, leaves, strict=True):
        adapter = None
        if f"{name}/a" in parts:
            adapter = {part: parts.pop(f"{name}/{part}") for part in "ab"}
        if adapter is None and not is_node(base):
            made[name] = base
            continue
        kept = jnp.float32 if is_node(base) else base.dtype
        made[name] = Merged(base, adapter, scale, dtype or kept)
    if parts:
        absent = ", ".join(parts)
        raise ValueError(f"adapters for parameters that are not there: {absent}")
    return unflatten_names(made)
