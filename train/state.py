"""The train state: parameters, optimizer state, step; one immutable tuple of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from train.optim import Optimizer, in_float32, split


class TrainState(NamedTuple):
    """`opt_state` covers the trainable parameters only; `step` int32 counts updates."""

    params: Any
    opt_state: Any
    step: jax.Array


def init_state(params, optimizer: Optimizer, *, copy: bool = True) -> TrainState:
    """The state before the first update, optimizer moments sharded like parameters.

    A train step consumes its state; `copy=False` lets it consume the caller's `params`.
    """
    if copy:
        params = jax.tree.map(jnp.copy, params)
    trainable, _ = split(params, optimizer.mask)

    def init(trainable):
        return optimizer.tx.init(in_float32(trainable))

    shape = jax.eval_shape(init, trainable)
    shardings = moment_shardings(optimizer.tx, shape, trainable)
    opt_state = jax.jit(init, out_shardings=shardings)(trainable)
    step = jax.device_put(jnp.int32(0), _replicated(params))
    state = TrainState(params, opt_state, step)
    # Committed to their devices, as a train step returns them: an uncommitted first
    # state would make the step compile twice.
    return jax.device_put(state, state_shardings(state))


def state_shardings(state: TrainState):
    """The shardings of a state's arrays, as a tree like it."""
    return jax.tree.map(lambda x: x.sharding, state)


def abstract_state(state: TrainState):
    """Shapes, dtypes and shardings of a state, without its arrays."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


@jax.jit
def all_finite(tree):
    """bool scalar: no NaN or infinity in any floating array of the tree."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


def moment_shardings(tx, opt_shape, params):
    """The sharding of every optimizer slot, as a tree like `opt_shape`.

    Moments lie as their parameters do. Whole everywhere lie single numbers (counters)
    and factored moments, which lack one axis of their parameter (Shazeer & Stern 2018).
    Raises ValueError naming any other slot: it would silently be on all devices.
    """
    everywhere = _replicated(params)

    def like(slot, param):
        if slot.shape == param.shape:
            return param.sharding
        shape = param.shape
        factors = (shape[:i] + shape[i + 1 :] for i in range(len(shape)))
        return everywhere if slot.shape in factors else alone(slot)

    def alone(slot):
        return everywhere if slot.size == 1 else _Uncovered(slot.shape)

    found = optax.tree_utils.tree_map_params(
        tx, like, opt_shape, params, transform_non_params=alone
    )
    for path, x in jax.tree_util.tree_leaves_with_path(found):
        if isinstance(x, _Uncovered):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"no sharding is stated for the optimizer's {name} of shape {x.shape}"
            )
    return found


class _Uncovered:
    """In the place of a sharding: what has this shape has none."""

    def __init__(self, shape):
        self.shape = shape


def _replicated(params):
    sharding = jax.tree.leaves(params)[0].sharding
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return sharding
