"""Rotary position embeddings with the scalings of published Llama-family configs.

Convention of `transformers`: the head dimension is split in halves (not interleaved).
"""

import math

import jax
import jax.numpy as jnp

from models.config import RopeConfig


def frequencies(rope: RopeConfig, head_dim: int, length=None):
    """Inverse frequencies of the rotations.

    Args:
      length: int array [...], the length of the sequence each token belongs to. Only
        'dynamic' reads it: past ``original_max_position`` its base grows with the
        length (NTK-aware scaling).

    Returns:
      float32 [H/2], or [..., H/2] when the kind is 'dynamic'.
    """
    exponent = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    if rope.kind == "dynamic":
        original = rope.original_max_position
        length = jnp.maximum(length, original).astype(jnp.float32)
        scale = rope.factor * length / original - (rope.factor - 1)
        base = rope.theta * scale ** (head_dim / (head_dim - 2))
        return 1.0 / base[..., None] ** exponent
    inverse = 1.0 / rope.theta**exponent
    if rope.kind == "linear":
        return inverse / rope.factor
    if rope.kind == "llama3":
        wavelength = 2 * math.pi / inverse
        low = rope.original_max_position / rope.low_freq_factor
        high = rope.original_max_position / rope.high_freq_factor
        smooth = rope.original_max_position / wavelength - rope.low_freq_factor
        smooth = smooth / (rope.high_freq_factor - rope.low_freq_factor)
        mixed = (1 - smooth) * inverse / rope.factor + smooth * inverse
        scaled = jnp.where(wavelength > low, inverse / rope.factor, inverse)
        between = (wavelength <= low) & (wavelength >= high)
        return jnp.where(between, mixed, scaled)
    return inverse


def segment_lengths(positions, segment_ids):
    """Length of the segment that each token belongs to, int32 [B, T]; ids <= T."""

    def row(positions, ids):
        longest = jnp.zeros(ids.size + 1, jnp.int32).at[ids].max(positions + 1)
        return longest[ids]

    return jax.vmap(row)(positions, segment_ids)


def rotations(rope: RopeConfig, head_dim: int, positions, lengths=None):
    """(cos, sin), each float32 [B, 1, T, H/2], for tokens at ``positions`` [B, T]."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(
        rope, head_dim, lengths
    )
    return jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]


def rotate(x, rotation):
    """Rotate x [B, N, T, H] by (cos, sin) [B, 1, T, H/2], in float32."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return turned.astype(x.dtype)
