"""Splash attention: the Pallas kernel for TPUs that comes with JAX.

It is imported where it is used: without a TPU nobody should wait for it.

Letters: B batch, T queries, S keys, N heads, K kv heads, H head dim.
"""

import jax
import jax.numpy as jnp

from models.matmul import NAME

# Of queries and of keys that are on the chip together. Small blocks make many steps.
BLOCKS = (512, 384, 256, 128)
HEAD_DIMS = (64, 128, 256)


def takes(length: int, parts: int, head_dim: int) -> bool:
    """Whether rows can be computed: in parts of whole blocks, by heads of known sizes.

    length: T; parts: those that queries are split into over devices.
    """
    return length % (parts * BLOCKS[-1]) == 0 and head_dim in HEAD_DIMS


def make_kernel(
    heads: int, length: int, window: int | None, parts: int = 1, interpret: bool = False
):
    """The kernel for rows of this length; a tree of small arrays (see `splash_spec`).

    Args:
      heads: N of one device.
      window: a query sees that many places, its own included; None: all before it.
      parts: equal ones that queries are split into; keys are not.
      interpret: compute without a TPU, slowly.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    if window is None:
        mask = splash.CausalMask((length, length))
    else:
        mask = splash.LocalMask((length, length), (window - 1, 0), 0)
    c = next(c for c in BLOCKS if length // parts % c == 0)
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(*(c,) * 8),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=NAME,
        interpret=interpret,
    )


def splash_attention(kernel, q, k, v, query_ids, key_ids):
    """Causal attention within segments (equal ids), as `chunked_attention` has it.

    Its window is one of places: in a segment positions must go up by one.

    Args:
      kernel: of `make_kernel`, or a device's part of it.
      q: [B, N, T, H]; k, v: [B, K, S, H]; query_ids: int32 [B, T]; key_ids: [B, S].

    Returns:
      [B, N, T, H] in q's dtype.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    return jax.vmap(kernel)(q, k, v, splash.SegmentIds(query_ids, key_ids))
