"""Rotations: relative, norm-preserving, and scaled as published configs ask."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import checkpoints as ckpt
from hypothesis import given, settings
from hypothesis import strategies as st

from models import rope
from models.config import RopeConfig

H = 8
ROPES = {
    "default": RopeConfig(500.0),
    "linear": RopeConfig(500.0, "linear", 3.0),
    "dynamic": RopeConfig(500.0, "dynamic", 2.0, original_max_position=20),
    "llama3": RopeConfig(500.0, "llama3", 4.0, 32, 1.0, 4.0),
}


def rotate(config, x, position, length=1):
    """x [H] rotated as the token at a position of a sequence of some length."""
    positions, lengths = jnp.array([[position]]), jnp.array([[length]])
    rotation = rope.rotations(config, H, positions, lengths)
    return np.asarray(rope.rotate(jnp.asarray(x)[None, None, None], rotation))[0, 0, 0]


vectors = st.integers(0, 2**31).map(
    lambda seed: np.random.default_rng(seed).standard_normal((2, H)).astype(np.float32)
)


@settings(max_examples=30, deadline=None)
@given(vectors, st.sampled_from(sorted(ROPES)), *[st.integers(0, 50)] * 3)
def test_scores_depend_on_distance_only(pair, kind, i, j, shift):
    """<R_i q, R_j k> = <R_(i+s) q, R_(j+s) k>, and rotations keep norms."""
    q, k = pair
    here, there = (
        rotate(ROPES[kind], q, i + s, 101) @ rotate(ROPES[kind], k, j + s, 101)
        for s in (0, shift)
    )
    np.testing.assert_allclose(here, there, atol=1e-4)
    turned = rotate(ROPES[kind], q, i, 101)
    np.testing.assert_allclose(np.linalg.norm(turned), np.linalg.norm(q), rtol=1e-5)


def test_position_zero_is_the_identity():
    x = np.arange(H, dtype=np.float32)
    for config in ROPES.values():
        np.testing.assert_array_equal(rotate(config, x, 0), x)


def test_closed_form():
    """Halves (i, i + H/2) turn by position * theta^(-2i/H)."""
    x = np.arange(1, H + 1, dtype=np.float32)
    angles = 5 * 500.0 ** (-np.arange(H // 2) / (H // 2))
    want = (x[: H // 2] + 1j * x[H // 2 :]) * np.exp(1j * angles)
    got = rotate(ROPES["default"], x, 5)
    np.testing.assert_allclose(got, np.r_[want.real, want.imag], rtol=1e-5)


def test_linear_divides_positions():
    x = np.random.default_rng(0).standard_normal(H).astype(np.float32)
    want = rotate(ROPES["default"], x, 4)
    np.testing.assert_allclose(rotate(ROPES["linear"], x, 12), want, atol=1e-5)


def test_llama3_keeps_short_waves_and_stretches_long_ones():
    config = ROPES["llama3"]
    plain = np.asarray(rope.frequencies(ROPES["default"], 64))
    scaled = np.asarray(rope.frequencies(config, 64))
    wavelength = 2 * np.pi / plain
    short, long = wavelength < 32 / 4, wavelength > 32
    assert short.any() and long.any() and (~short & ~long).any()
    np.testing.assert_array_equal(scaled[short], plain[short])
    np.testing.assert_allclose(scaled[long], plain[long] / 4, rtol=1e-6)
    between = ~short & ~long
    assert (scaled[between] <= plain[between]).all()
    assert (scaled[between] >= plain[between] / 4).all()


def test_dynamic_is_plain_up_to_the_original_length():
    config = ROPES["dynamic"]
    lengths = jnp.array([[1, 20, 21, 60]])
    got = np.asarray(rope.frequencies(config, H, lengths))[0]
    plain = np.asarray(rope.frequencies(ROPES["default"], H))
    np.testing.assert_allclose(got[:2], [plain, plain], rtol=1e-6)
    assert (got[2, 1:] < plain[1:]).all() and (got[3, 1:] < got[2, 1:]).all()
    # The lowest frequency is divided by factor * n / original - factor + 1.
    np.testing.assert_allclose(got[3, -1], plain[-1] / (2 * 3 - 1), rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3"])
@pytest.mark.parametrize("length", [7, 48])
def test_equals_transformers(kind, length):
    """The same inverse frequencies as transformers' own functions."""
    import torch
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    name = "llama3" if kind == "llama3" else f"llama-{kind}"
    model_type, fields = ckpt.VARIANTS[name]
    config = AutoConfig.for_model(
        model_type, **(ckpt.SIZES | dict(head_dim=H) | fields)
    )
    want, scaling = ROPE_INIT_FUNCTIONS[kind](
        config, torch.device("cpu"), seq_len=torch.tensor(length)
    )
    assert scaling == 1
    got = rope.frequencies(ROPES[kind], H, jnp.array(length))
    np.testing.assert_allclose(got, want.numpy(), rtol=2e-6)


def test_segment_lengths():
    positions = jnp.array([[0, 1, 2, 0, 1, 0, 0]])
    segments = jnp.array([[1, 1, 1, 2, 2, 0, 0]])
    got = rope.segment_lengths(positions, segments)
    np.testing.assert_array_equal(got[0, :5], [3, 3, 3, 2, 2])
