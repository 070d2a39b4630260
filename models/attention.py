"""Attention over blocks of keys: the tokens' own, a cache, a shared prefix.

A query attends to the union of its blocks with one softmax. A block may have batch 1:
then its keys are shared by all rows and the product is one large matrix product.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Block(NamedTuple):
    """Keys and values that queries may see.

    keys, values: [B or 1, K, S, H]
    mask: bool [B or 1, T, S], True where query t may see key s
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array


def causal_mask(positions, segment_ids):
    """bool [B, T, T]: same segment, not later; padding (segment 0) sees itself only.

    Order is by place in the row, which within a segment is also order by position.
    Padding rows keep one visible key, so that their softmax stays finite.
    """
    T = positions.shape[1]
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    not_later = jnp.tril(jnp.ones((T, T), bool))
    real = (segment_ids > 0)[:, :, None]
    return jnp.where(real, same & not_later, jnp.eye(T, dtype=bool))


def window_mask(query_positions, key_positions, window: int):
    """bool [B, T, S]: the key is among the last ``window`` ones, the query included."""
    return query_positions[:, :, None] - key_positions[:, None, :] < window


def attention(q, blocks: tuple[Block, ...], *, precision=None):
    """Softmax attention of q over all blocks together, softmax in float32.

    Args:
      q: [B, N, T, H], N a multiple of K (grouped queries).
      blocks: what the queries may see; each query must see at least one key.

    Returns:
      [B, N, T, H] in q's dtype.
    """
    B, N, T, H = q.shape
    K = blocks[0].keys.shape[1]
    G = N // K
    grouped = q.reshape(B, K, G * T, H) * jnp.asarray(H**-0.5, q.dtype)

    def scores(block):
        if block.keys.shape[0] == 1 and B > 1:
            s = jnp.einsum(
                "bkth,ksh->bkts",
                grouped,
                block.keys[0],
                precision=precision,
                preferred_element_type=jnp.float32,
            )
        else:
            s = jnp.einsum(
                "bkth,bksh->bkts",
                grouped,
                block.keys,
                precision=precision,
                preferred_element_type=jnp.float32,
            )
        s = s.reshape(B, K, G, T, -1)
        return jnp.where(block.mask[:, None, None], s, -1e30)

    weights = jnp.concatenate([scores(b) for b in blocks], axis=-1)
    weights = jax.nn.softmax(weights, axis=-1).astype(q.dtype)
    weights = weights.reshape(B, K, G * T, -1)
    out, start = 0, 0
    for block in blocks:
        S = block.keys.shape[2]
        w = weights[..., start : start + S]
        start += S
        if block.values.shape[0] == 1 and B > 1:
            part = jnp.einsum(
                "bkts,ksh->bkth", w, block.values[0], precision=precision
            )
        else:
            part = jnp.einsum("bkts,bksh->bkth", w, block.values, precision=precision)
        out = out + part
    return out.reshape(B, N, T, H)
