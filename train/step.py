"""One update: gradients of sums over micro-batches, divided once, then optimizer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from data.batches import Batches
from train.losses import Loss
from train.mesh import batch_sharding, row_parts
from train.optim import Optimizer, in_float32, merge, split
from train.state import TrainState, state_shardings


def make_train_step(
    loss_fn: Callable[..., Loss],
    optimizer: Optimizer,
    *,
    accum: int = 1,
    state: TrainState | None = None,
    constants: tuple = (),
    noise: jax.Array | None = None,
):
    """A jitted `step(state, batch) -> (state, metrics)` that consumes its state.

    Args:
      loss_fn: `(params, batch, *constants) -> Loss`; with noise also `key=`.
      accum: micro-batches per update; rows are dealt to them in turn (row r to
        micro-batch r mod accum), and the result is that of the whole batch at once.
      state: where given, the new state keeps the shardings of this one.
      constants: trees of arrays that stay as they are, such as a frozen base: passed to
        every step, as a closure over them would make them part of the program.
      noise: a PRNG key; update s has fold_in(noise, s), as dropout's.

    Returns:
      metrics: device scalars: "loss" and each of the loss's extras as (sum, weight),
      its maxima, "grad_norm" of the trainable parameters before clipping, "lr".
    """

    def step(state: TrainState, batch, *constants):
        trainable, frozen = split(state.params, optimizer.mask)
        keyed = {}
        if noise is not None:
            keyed = {"key": jax.random.fold_in(noise, state.step)}

        def loss_sum(trainable, batch):
            loss = loss_fn(merge(trainable, frozen), batch, *constants, **keyed)
            loss = loss._replace(extras=dict(loss.extras), maxima=dict(loss.maxima))
            return loss.sum, loss

        grad_fn = jax.grad(loss_sum, has_aux=True)
        if accum == 1:
            grads, loss = grad_fn(trainable, batch)
            grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        else:
            grads, loss = _accumulate(grad_fn, trainable, batch, accum)
        weight = jnp.where(loss.weight > 0, loss.weight, 1)
        grads = jax.tree.map(lambda g: g / weight, grads)
        metrics = {
            "loss": (loss.sum, loss.weight),
            **loss.extras,
            **loss.maxima,
            "grad_norm": optax.tree_utils.tree_norm(grads),
            "lr": optimizer.lr(state.step),
        }
        floats = in_float32(trainable)
        updates, opt_state = optimizer.tx.update(grads, state.opt_state, floats)
        trainable = optax.apply_updates(trainable, updates)
        params = merge(trainable, frozen)
        return TrainState(params, opt_state, state.step + 1), metrics

    shardings = None if state is None else (state_shardings(state), None)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=shardings)
    if not constants:
        return jitted
    return lambda state, batch: jitted(state, batch, *constants)


def own_rows(data: Batches, mesh: Mesh | None) -> Batches:
    """What this process loads of each batch: the rows that its devices hold."""
    if mesh is None or jax.process_count() == 1:
        return data
    parts = row_parts(mesh)
    return data.for_parts(parts[jax.process_index()], parts)


def placer(mesh: Mesh | None):
    """`place(batch)`: host arrays to the devices of a mesh, rows split over it.

    With several processes a batch is this process's share of the rows, see `own_rows`.
    None: whole batches on the default device.
    """
    if mesh is None:
        return jax.device_put
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return lambda batch: jax.device_put(batch, sharding)
    return lambda batch: jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
    )


def whole_placer(mesh: Mesh | None):
    """As `placer`, of batches that every process has whole, such as a rollout.

    The batch of process 0 counts: rewards that look at a clock may differ in others.
    """
    if mesh is None or jax.process_count() == 1:
        return placer(mesh)
    from jax.experimental import multihost_utils

    sharding = batch_sharding(mesh)

    def place(x):
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return lambda batch: jax.tree.map(
        place, multihost_utils.broadcast_one_to_all(batch)
    )


def _accumulate(grad_fn, trainable, batch, accum: int):
    """Sums of gradients and losses over micro-batches, in float32."""

    def deal(x):
        if x.shape[0] % accum:
            rows = x.shape[0]
            raise ValueError(f"{rows} rows do not divide into {accum} micro-batches")
        # Dealt in turn, every micro-batch holds rows of every device's share.
        return jnp.moveaxis(x.reshape(-1, accum, *x.shape[1:]), 1, 0)

    def add(total, micro):
        part = grad_fn(trainable, micro)
        largest = jax.tree.map(jnp.maximum, total[1].maxima, part[1].maxima)
        total = jax.tree.map(lambda t, p: t + p.astype(jnp.float32), total, part)
        return (total[0], total[1]._replace(maxima=largest)), None

    micros = jax.tree.map(deal, batch)
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), micros)
    shape = jax.eval_shape(grad_fn, trainable, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shape)
    return jax.lax.scan(add, zeros, micros)[0]
