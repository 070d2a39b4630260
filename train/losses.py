"""Losses as sums and weights, divided once, at the end.

So a loss does not depend on the micro-batch size, the packing or the device count.
Letters: B batch, T time, D model, V vocab.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from data.batch import TokenBatch
from models import decoder
from models.config import DecoderConfig
from models.sharding import ROWS, constrain
from train.mesh import column_parts


class Loss(NamedTuple):
    """sum / weight is the loss; float32 scalars.

    `extras` maps the name of a metric to its own (sum, weight); `maxima` that of one
    whose greatest value counts, a number >= 0.
    """

    sum: jax.Array
    weight: jax.Array
    extras: Mapping[str, tuple[jax.Array, jax.Array]] = {}
    maxima: Mapping[str, jax.Array] = {}


def token_nll(
    cfg: DecoderConfig, params, batch: TokenBatch, *, chunk: int | None = None
) -> Loss:
    """Negative log-likelihood of tokens, weighted, in nats.

    tokens[b, t] is predicted from t-1 with weights[b, t]; what has no predecessor in
    its own segment is not predicted, whatever its weight.

    Args:
      chunk: see `map_columns`; so float32 [B, T, V] is never held.
    """
    hidden = decoder.forward(
        cfg, params, batch.tokens, batch.positions, batch.segment_ids
    )
    targets, weights = shifted(batch)

    def nll(xs):
        h, y = xs
        return target_nll(decoder.logits(cfg, params, h), y)

    found = map_columns(nll, (hidden, targets), chunk, cfg.mesh)
    return Loss(jnp.sum(found * weights), jnp.sum(weights))


def map_columns(fn, xs, chunk: int | None, mesh: Mesh | None = None):
    """fn of arrays [B, T, ...] -> [B, T], a part of the columns at a time.

    What fn holds is held for one part only: it is computed again in the backward pass.

    Args:
      fn: tree of [B, c, ...] -> [B, c], each column by itself.
      chunk: columns that a device computes at once; None: all.
      mesh: the columns of xs lie in order over its axis `sequence`. A part is made of
        some from every device, so that all of them work on it, and on what they hold.
    """
    T = jax.tree.leaves(xs)[0].shape[1]
    shares = column_parts(mesh, T)
    if chunk is None or chunk * shares >= T:
        return fn(xs)
    parts = jax.tree.map(lambda x: _columns(x, chunk, shares), xs)
    if shares > 1:
        parts = jax.tree.map(
            lambda x: constrain(x, mesh, None, ROWS, "sequence"), parts
        )
    found = jax.lax.map(jax.checkpoint(fn), parts)
    found = found.reshape(*found.shape[:2], shares, chunk)
    found = jnp.moveaxis(found, 0, 2).reshape(found.shape[1], shares, -1)
    return found[:, :, : T // shares].reshape(-1, T)


def shifted(batch: TokenBatch):
    """(targets int32 [B, T], weights float32 [B, T]) of what each place predicts.

    The last place, and the last of every segment, predicts nothing: weight 0. T is
    kept, so that sharded and tiled shapes stay what they are.
    """
    segments = batch.segment_ids
    following = jnp.roll(segments, -1, axis=1).at[:, -1].set(0)
    inside = (segments == following) & (segments > 0)
    weights = jnp.where(inside, jnp.roll(batch.weights, -1, axis=1), 0)
    return jnp.roll(batch.tokens, -1, axis=1), weights.astype(jnp.float32)


def target_nll(logits, targets):
    """-log softmax(logits)[target], float32 [...], of logits [..., V]."""
    logits = logits.astype(jnp.float32)
    # A select and a sum, not a gather: its gradient is elementwise, not a scatter.
    chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=bool)
    picked = jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - picked


def _columns(x, chunk: int, shares: int):
    """[B, T, ...] -> [n, B, shares * chunk, ...], zeros after the end of a share."""
    B, T, *rest = x.shape
    x = x.reshape(B, shares, T // shares, *rest)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % chunk)) + ((0, 0),) * len(rest))
    x = jnp.moveaxis(x.reshape(B, shares, -1, chunk, *rest), 2, 0)
    return x.reshape(-1, B, shares * chunk, *rest)


def chunk_columns(
    rows: int, length: int, vocab: int, limit: int = 1 << 28
) -> int | None:
    """`chunk` for `map_columns` such that float32 logits take at most `limit` bytes.

    rows, length: those of a micro-batch on one device. None where all columns fit.
    """
    columns = max(1, limit // (4 * rows * vocab))
    return None if columns >= length else columns
