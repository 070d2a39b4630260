"""Attention in blocks of queries and keys: at no time are T x T numbers held.

Online softmax and its backward pass, as in FlashAttention-2 (Dao 2023, algorithms 1
and 2), in plain XLA: it runs everywhere, and in float32 as exactly as dense attention.

Letters: B batch, T queries, S keys, N heads, K kv heads, G = N / K, H head dim; a block
has c places, and there are I blocks of queries, J of keys.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from models.matmul import NAME

CHUNK = 256
HIDDEN = -1e30  # the score of a key that a query does not see
NOBODY = np.iinfo(np.int32).min  # the segment of keys that fill up the last block


class At(NamedTuple):
    """Where tokens stand. Equal ids see each other: padding has one id per token.

    positions, ids: int32 [B, T]
    """

    positions: jax.Array
    ids: jax.Array


class Rules(NamedTuple):
    """What is known when tracing.

    window: a query sees that many keys, itself included; None: all
    chunk: c, places of a block
    """

    window: int | None
    chunk: int
    precision: str | None


def chunked_attention(
    q,
    k,
    v,
    queries: At,
    keys: At,
    offset=None,
    *,
    window: int | None = None,
    chunk: int = CHUNK,
    precision: str | None = None,
):
    """Causal attention within segments; softmax in float32.

    Query t, at place offset + t of the row, sees the keys with its id at places that
    are not later and, with a window, at positions less than ``window`` before its own.
    Within a segment positions must grow from place to place.

    Args:
      q: [B, N, T, H]; k, v: [B, K, S, H]; N a multiple of K.
      offset: int32 [], where q is a part of the row; None: q is the row. Known to be
        None, blocks that no query can see are left out of the program; else they are
        passed over when it runs.

    Returns:
      [B, N, T, H] in q's dtype.
    """
    B, N, T, H = q.shape
    K, S = k.shape[1:3]
    rules = Rules(window, min(chunk, max(T, S)), precision)
    q = q * jnp.asarray(H**-0.5, q.dtype)
    out = _attend(
        rules,
        _split(q.reshape(B, K, N // K, T, H), 3, rules.chunk),
        _split(k, 2, rules.chunk),
        _split(v, 2, rules.chunk),
        At(*(_split(x, 1, rules.chunk, NOBODY + 1) for x in queries)),
        At(*(_split(x, 1, rules.chunk, NOBODY) for x in keys)),
        offset,
    )
    return _join(out, 3, T).reshape(B, N, T, H)


def _split(x, axis: int, chunk: int, fill=0):
    """Axis of T -> a first axis of blocks, and c in its place; filled up at the end."""
    widths = [(0, -x.shape[axis] % chunk if i == axis else 0) for i in range(x.ndim)]
    x = jnp.pad(x, widths, constant_values=fill)
    x = x.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _join(x, axis: int, length: int):
    """The reverse of `_split`; axis is that of T in the result."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


def _meet(rules: Rules, i, j, offset):
    """Whether a query of block i may see a key of block j, segments apart."""
    query, key, c = offset + i * rules.chunk, j * rules.chunk, rules.chunk
    meet = key <= query + c - 1
    if rules.window is not None:
        meet &= query - (key + c - 1) < rules.window
    return meet


def _block(x, i):
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _visit(rules: Rules, counts, offset, update, carry, sides):
    """For all blocks (i, j) that meet: blocks of the carry = update(blocks, i, j).

    Keys come in order, so that a query meets its own place after all others.

    Args:
      counts: (I, J).
      carry: arrays of blocks; sides: 0 for each that is indexed by i, 1 by j.
    """
    i, j = (x.reshape(-1).astype(np.int32) for x in np.indices(counts))
    if offset is None:
        meet = _meet(rules, i, j, 0)
        i, j = i[meet], j[meet]

    def step(carry, pair):
        places = [pair[side] for side in sides]
        old = tuple(map(_block, carry, places))
        if offset is None:
            new = update(old, *pair)
        else:
            meet = _meet(rules, *pair, offset)
            new = jax.lax.cond(meet, update, lambda old, i, j: old, old, *pair)
        put = partial(jax.lax.dynamic_update_index_in_dim, axis=0)
        return tuple(map(put, carry, new, places)), None

    return jax.lax.scan(step, carry, (jnp.asarray(i), jnp.asarray(j)))[0]


def _scores(rules: Rules, q, k, queries: At, keys: At, offset, i, j):
    """Masked float32 [B, K, G, c, c] of block i of q with block j of k."""
    q, k = _block(q, i), _block(k, j)
    s = _product("bkth,bksh->bkts", _flat(q), k, rules)
    s = s.reshape(*q.shape[:-1], -1)
    q_at, k_at = (At(_block(x.positions, n), _block(x.ids, n)) for x, n in
                  ((queries, i), (keys, j)))  # fmt: skip
    place = jnp.arange(rules.chunk)
    first = (0 if offset is None else offset) + (i - j) * rules.chunk
    seen = (first + place)[:, None] >= place
    seen = seen & (q_at.ids[:, :, None] == k_at.ids[:, None])
    if rules.window is not None:
        apart = q_at.positions[:, :, None] - k_at.positions[:, None]
        seen = seen & (apart < rules.window)
    return jnp.where(seen[:, None, None], s, HIDDEN)


def _flat(x):
    """[B, K, G, c, X] -> [B, K, G * c, X]: one matrix product for all of a group."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _product(equation: str, x, y, rules: Rules):
    """In float32, of operands in the dtype of y."""
    x = x.astype(y.dtype)
    return jnp.einsum(
        equation, x, y, precision=rules.precision, preferred_element_type=jnp.float32
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rules: Rules, q, k, v, queries: At, keys: At, offset):
    """[I, B, K, G, c, H] of q of that shape (scaled) and k, v [J, B, K, c, H].

    queries, keys: [I, B, c], [J, B, c]
    """
    return _forward(rules, q, k, v, queries, keys, offset)[0]


def _forward(rules: Rules, q, k, v, queries: At, keys: At, offset):
    def update(old, i, j):
        out, top, total = old
        s = _scores(rules, q, k, queries, keys, offset, i, j)
        new_top = jnp.maximum(top, jnp.max(s, axis=-1))
        weights, kept = jnp.exp(s - new_top[..., None]), jnp.exp(top - new_top)
        mixed = _product("bkts,bksh->bkth", _flat(weights), _block(v, j), rules)
        out = out * kept[..., None] + mixed.reshape(out.shape)
        return out, new_top, total * kept + jnp.sum(weights, axis=-1)

    start = (
        jnp.zeros(q.shape, jnp.float32),
        jnp.full(q.shape[:-1], HIDDEN, jnp.float32),
        jnp.zeros(q.shape[:-1], jnp.float32),
    )
    counts = q.shape[0], k.shape[0]
    out, top, total = _visit(rules, counts, offset, update, start, (0, 0, 0))
    # A query that no visited key could see (in the last block's fill) has a total of 0.
    total = jnp.maximum(total, 1.0)
    out = checkpoint_name((out / total[..., None]).astype(q.dtype), NAME)
    logs = checkpoint_name(top + jnp.log(total), NAME)
    return out, (q, k, v, queries, keys, offset, out, logs)


def _backward(rules: Rules, saved, g):
    q, k, v, queries, keys, offset, out, logs = saved
    mean = jnp.sum(out.astype(jnp.float32) * g.astype(jnp.float32), axis=-1)

    def update(old, i, j):
        dq, dk, dv = old
        s = _scores(rules, q, k, queries, keys, offset, i, j)
        weights = jnp.exp(s - _block(logs, i)[..., None])
        g_i, q_i = _flat(_block(g, i)), _flat(_block(q, i))
        dv += _product("bkts,bkth->bksh", _flat(weights), g_i, rules)
        dw = _product("bkth,bksh->bkts", g_i, _block(v, j), rules).reshape(s.shape)
        ds = _flat(weights * (dw - _block(mean, i)[..., None]))
        dq += _product("bkts,bksh->bkth", ds, _block(k, j), rules).reshape(dq.shape)
        dk += _product("bkts,bkth->bksh", ds, q_i, rules)
        return dq, dk, dv

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    counts = q.shape[0], k.shape[0]
    grads = _visit(rules, counts, offset, update, start, (0, 1, 1))
    grads = (x.astype(y.dtype) for x, y in zip(grads, (q, k, v), strict=True))
    return *grads, None, None, None


_attend.defvjp(_forward, _backward)
