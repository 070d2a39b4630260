"""Attention equals its definition, however keys are cut into blocks or shared."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import Block, attention, causal_mask, window_mask

B, N, K, T, S, H = 2, 4, 2, 3, 5, 4


def draw(*shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def by_definition(q, keys, values, mask):
    """One softmax per row, head and query, in float64."""
    q, keys, values = (np.asarray(x, np.float64) for x in (q, keys, values))
    out = np.zeros(q.shape)
    for b, n, t in np.ndindex(q.shape[:3]):
        k = n // (q.shape[1] // keys.shape[1])
        scores = keys[b, k] @ q[b, n, t] / np.sqrt(q.shape[-1])
        weights = np.where(mask[b, t], np.exp(scores), 0)
        out[b, n, t] = weights / weights.sum() @ values[b, k]
    return out


def random_mask(*shape):
    mask = np.random.default_rng(3).random(shape) < 0.6
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_the_definition(kv_heads):
    """Each kv head serves N/K consecutive query heads."""
    q, keys, values = draw(B, N, T, H), draw(B, kv_heads, S, H), draw(B, kv_heads, S, H)
    mask = random_mask(B, T, S)
    got = attention(q, (Block(keys, values, jnp.asarray(mask)),))
    np.testing.assert_allclose(got, by_definition(q, keys, values, mask), atol=1e-6)


def test_blocks_are_one_softmax():
    """Cutting the keys into blocks, or reordering the blocks, changes nothing."""
    q, keys, values = (
        draw(B, N, T, H),
        draw(B, K, S, H, seed=1),
        draw(B, K, S, H, seed=2),
    )
    mask = jnp.asarray(random_mask(B, T, S))
    whole = attention(q, (Block(keys, values, mask),))
    parts = tuple(
        Block(keys[:, :, cut], values[:, :, cut], mask[..., cut])
        for cut in (slice(0, 2), slice(2, 5))
    )
    np.testing.assert_allclose(attention(q, parts), whole, atol=1e-6)
    np.testing.assert_allclose(attention(q, parts[::-1]), whole, atol=1e-6)


def test_shared_block_equals_its_copies():
    """A block of batch 1 is seen by all rows."""
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))
    q, own = draw(B, N, T, H), Block(draw(B, K, T, H), draw(B, K, T, H), causal)
    keys, values = draw(1, K, S, H, seed=4), draw(1, K, S, H, seed=5)
    seen = jnp.asarray(random_mask(1, T, S))
    copied = Block(*(jnp.repeat(x, B, axis=0) for x in (keys, values, seen)))
    np.testing.assert_allclose(
        attention(q, (own, Block(keys, values, seen))),
        attention(q, (own, copied)),
        atol=1e-6,
    )


def test_masked_keys_have_no_influence():
    """Not even keys and values of enormous size."""
    q, keys, values = draw(B, N, T, H), draw(B, K, S, H), draw(B, K, S, H)
    mask = jnp.asarray(random_mask(B, T, S)).at[:, :, 4].set(False)
    before = attention(q, (Block(keys, values, mask),))
    huge = Block(keys.at[:, :, 4].set(1e4), values.at[:, :, 4].set(1e4), mask)
    np.testing.assert_array_equal(attention(q, (huge,)), before)


def test_bfloat16_keeps_its_dtype():
    shapes = (B, N, T, H), (B, K, S, H), (B, K, S, H)
    q, keys, values = (draw(*s).astype(jnp.bfloat16) for s in shapes)
    mask = random_mask(B, T, S)
    got = attention(q, (Block(keys, values, jnp.asarray(mask)),))
    assert got.dtype == jnp.bfloat16
    want = by_definition(q, keys, values, mask)
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.03)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=4), st.integers(1, 4))
def test_masks_by_enumeration(lengths, window):
    """A query sees the keys of its segment that are not later, within the window."""
    rest = np.zeros(13 - sum(lengths), int)  # one shape, to compile once
    segments = np.concatenate(
        [np.full(n, i) for i, n in enumerate(lengths, 1)] + [rest]
    )
    positions = np.concatenate([np.arange(n) for n in lengths] + [rest])
    full = np.asarray(causal_mask(jnp.array([positions]), jnp.array([segments], int)))[
        0
    ]
    near = np.asarray(window_mask(*[jnp.array([positions])] * 2, window))[0]
    for t, s in np.ndindex(full.shape):
        real = segments[t] == segments[s] and s <= t
        assert full[t, s] == (real if segments[t] > 0 else t == s)
        assert near[t, s] == (positions[t] - positions[s] < window)
    assert full.any(-1).all()
