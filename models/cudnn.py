"""cuDNN's flash attention on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

It knows lengths of rows, not segments: packed rows would need a mask of T x T, and are
computed in blocks instead. Which of the two a batch needs is known when it runs only.

Letters: B batch, T time, N heads, K kv heads, H head dim.
"""

from functools import partial

import jax
import jax.numpy as jnp

from models.chunked import At, chunked_attention


def takes(dtype, head_dim: int) -> bool:
    """Whether cuDNN computes in this dtype with heads of this size."""
    return dtype in (jnp.bfloat16, jnp.float16) and head_dim % 8 == 0 <= head_dim <= 128


def unpacked(ids):
    """bool []: each row is one segment from its first place on, then padding at most.

    ids: int32 [B, T], positive in segments.
    """
    real = ids > 0
    starts = real[:, 1:] & ~real[:, :-1]  # after padding
    changes = real[:, 1:] & (ids[:, 1:] != ids[:, :-1])
    return ~jnp.any(starts | changes)


def by_lengths(q, k, v, lengths, *, window: int | None, implementation: str = "cudnn"):
    """Causal attention of rows that are one sequence each, padded on the right.

    Args:
      q: [B, N, T, H]; k, v: [B, K, T, H]; lengths: int32 [B].
      window: a query sees that many places, its own included; None: all before it.

    Returns:
      [B, N, T, H]; zeros after a row's length.
    """
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out = jax.nn.dot_product_attention(
        q,
        k,
        v,
        is_causal=True,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        local_window_size=None if window is None else (window - 1, 0),
        implementation=implementation,
    )
    return out.swapaxes(1, 2)


def cudnn_attention(
    q, k, v, at: At, *, window: int | None = None, implementation: str = "cudnn"
):
    """As `chunked_attention`, but for padding: where no row is packed, by cuDNN.

    What padding gets is finite. Args: see `by_lengths`; at: At [B, T].
    """
    lengths = jnp.sum(at.ids > 0, axis=1, dtype=jnp.int32)
    rows = partial(by_lengths, window=window, implementation=implementation)
    return jax.lax.cond(
        unpacked(at.ids),
        lambda q, k, v: rows(q, k, v, lengths),
        lambda q, k, v: chunked_attention(q, k, v, at, at, window=window),
        q,
        k,
        v,
    )
