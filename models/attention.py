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


def _swap(block: Block, batch: int, x):
    """[B, K, ...] <-> [K, B, ...] for a block that a batch shares; else x as it is.

    The products of a shared block are taken for each kv head over all rows at once.
    With the head in front they are plain matrix products; otherwise XLA's CPU backend
    transposes the scores, twice, which takes longer than the products.
    """
    shared = block.keys.shape[0] != batch
    return x.swapaxes(0, 1) if shared else x


def _scores(q, block: Block, groups: int, precision):
    """Masked float32 scores [B, K, G, T, S] (swapped if shared) of q [B, K, G*T, H]."""
    B = q.shape[0]
    shared = block.keys.shape[0] != B
    s = jnp.einsum(
        "kbth,ksh->kbts" if shared else "bkth,bksh->bkts",
        _swap(block, B, q),
        block.keys[0] if shared else block.keys,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    s = s.reshape(*s.shape[:2], groups, -1, s.shape[-1])
    mask = block.mask[None, :, None] if shared else block.mask[:, None, None]
    return jnp.where(mask, s, -1e30)


def _mix(weights, block: Block, batch: int, precision):
    """Values [B, K, G*T, H] mixed by weights [B, K, G, T, S] (swapped if shared)."""
    shared = block.keys.shape[0] != batch
    weights = weights.reshape(*weights.shape[:2], -1, weights.shape[-1])
    mixed = jnp.einsum(
        "kbts,ksh->kbth" if shared else "bkts,bksh->bkth",
        weights.astype(block.values.dtype),
        block.values[0] if shared else block.values,
        precision=precision,
    )
    return _swap(block, batch, mixed)


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
    scores = [_scores(grouped, block, G, precision) for block in blocks]
    if len(blocks) == 1:
        weights = jax.nn.softmax(scores[0], axis=-1)
        return _mix(weights, blocks[0], B, precision).reshape(B, N, T, H)

    # One softmax over all blocks, without joining their scores in one array.
    pairs = list(zip(blocks, scores, strict=True))
    tops = [_swap(block, B, jnp.max(s, axis=-1)) for block, s in pairs]
    top = jnp.max(jnp.stack(tops), axis=0)
    out, total = 0, 0
    for block, s in pairs:
        weights = jnp.exp(s - _swap(block, B, top)[..., None])
        total += _swap(block, B, jnp.sum(weights, axis=-1))
        out += _mix(weights, block, B, precision).astype(jnp.float32)
    out = out.reshape(B, K, G, T, H) / total[..., None]
    return out.reshape(B, N, T, H).astype(q.dtype)
