"""Losses as sums and weights, divided once, at the end.

So a loss does not depend on the micro-batch size, the packing or the device count.
Letters: B batch, T time, D model, V vocab.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data.batch import TokenBatch
from models import decoder
from models.config import DecoderConfig


class Loss(NamedTuple):
    """sum / weight is the loss; float32 scalars.

    `extras` maps the name of a metric to its own (sum, weight).
    """

    sum: jax.Array
    weight: jax.Array
    extras: Mapping[str, tuple[jax.Array, jax.Array]] = {}


def token_nll(
    cfg: DecoderConfig, params, batch: TokenBatch, *, chunk: int | None = None
) -> Loss:
    """Negative log-likelihood of tokens, weighted, in nats.

    tokens[b, t] is predicted from t-1 with weights[b, t]; what has no predecessor in
    its own segment is not predicted, whatever its weight.

    Args:
      chunk: columns whose logits are held at once, so that float32 [B, T, V] never is;
        they are computed again in the backward pass. None: all.
    """
    hidden = decoder.forward(
        cfg, params, batch.tokens, batch.positions, batch.segment_ids
    )
    targets, weights = shifted(batch)
    if chunk is None or chunk >= targets.shape[1]:
        nll = target_nll(decoder.logits(cfg, params, hidden), targets)
        return Loss(jnp.sum(nll * weights), jnp.sum(weights))

    def chunk_sum(total, xs):
        h, y, w = xs
        nll = target_nll(decoder.logits(cfg, params, h), y)
        return total + jnp.sum(nll * w), None

    xs = jax.tree.map(lambda x: _columns(x, chunk), (hidden, targets, weights))
    total, _ = jax.lax.scan(jax.checkpoint(chunk_sum), jnp.float32(0), xs)
    return Loss(total, jnp.sum(weights))


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


def _columns(x, chunk: int):
    """[B, T, ...] -> [ceil(T / chunk), B, chunk, ...], zeros after the end."""
    B, T, *rest = x.shape
    x = jnp.pad(x, ((0, 0), (0, -T % chunk)) + ((0, 0),) * len(rest))
    return jnp.moveaxis(x.reshape(B, -1, chunk, *rest), 1, 0)


def chunk_columns(
    rows: int, length: int, vocab: int, limit: int = 1 << 28
) -> int | None:
    """`chunk` for `token_nll` such that float32 logits take at most `limit` bytes.

    rows: those of a micro-batch on one device. None where all columns fit.
    """
    columns = max(1, limit // (4 * rows * vocab))
    return None if columns >= length else columns
