"""A scalar head is <hidden, kernel>; it starts at zero, is read at the last token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.heads import at_last, init_scalar_head, scalar


def test_starts_at_zero():
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5)))
    scores = scalar(init_scalar_head(5), hidden)
    assert scores.shape == (2, 3) and scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, 0)


def test_is_an_inner_product_in_float32():
    """Also of bfloat16 hidden states: only their own rounding counts."""
    head = init_scalar_head(5, jax.random.key(1), std=0.5)
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5)))
    want = np.asarray(hidden, np.float64) @ np.asarray(head["kernel"])[:, 0]
    np.testing.assert_allclose(scalar(head, hidden), want, atol=1e-5)
    half = hidden.astype(jnp.bfloat16)
    want = np.asarray(half.astype(jnp.float32)) @ np.asarray(head["kernel"])[:, 0]
    np.testing.assert_allclose(scalar(head, half), want, atol=1e-5)


def test_random_start_needs_a_key():
    with pytest.raises(ValueError, match="needs a key"):
        init_scalar_head(5, std=0.1)
    a, b = (init_scalar_head(64, jax.random.key(k), std=0.1)["kernel"] for k in (0, 1))
    assert a.shape == (64, 1) and not np.array_equal(a, b)
    assert 0.05 < np.std(a) < 0.2


def test_at_last():
    scores = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(at_last(scores, jnp.array([1, 4, 2])), [0, 7, 9])
