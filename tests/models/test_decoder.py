"""Layer loops, remat, packing and contexts do not change what a decoder computes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward

from models import decoder
from models.config import DecoderConfig, RopeConfig
from models.params import flatten_names

WIDTH = 12
# A window in one of two layers, so that scanned layers differ.
SLIDING = dataclasses.replace(
    forward.TINY, sliding_window=3, sliding_layers=(False, True), qk_norm=True
)


@functools.cache
def params_of(cfg):
    plain = dataclasses.replace(cfg, layer_loop="auto", remat="none")
    return forward.random_params(plain)


def sequences(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 31, n) for n in lengths]


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(cfg, params, *batch):
    return jax.value_and_grad(forward.nll, argnums=1)(cfg, params, *batch)


@functools.cache
def reference(cfg):
    batch = forward.rows(sequences(WIDTH, WIDTH), WIDTH)
    cfg = dataclasses.replace(cfg, layer_loop="unroll", remat="none")
    return batch, loss_and_gradient(cfg, params_of(cfg), *batch)


@pytest.mark.parametrize(
    ("cfg", "loop", "remat"),
    [
        (forward.TINY, "scan", "full"),
        (SLIDING, "scan", "none"),
        (SLIDING, "scan", "dots"),
        (SLIDING, "unroll", "full"),
    ],
)
def test_loops_and_remat_agree(cfg, loop, remat):
    """Loss and every gradient are those of the plain unrolled loop."""
    batch, (loss, gradient) = reference(cfg)
    variant = dataclasses.replace(cfg, layer_loop=loop, remat=remat)
    got_loss, got = loss_and_gradient(variant, params_of(cfg), *batch)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-6)
    want = flatten_names(gradient)
    for name, value in flatten_names(got).items():
        atol = 1e-6 + 2e-6 * np.abs(want[name]).max()
        np.testing.assert_allclose(value, want[name], atol=atol, err_msg=name)


def test_unstacked_layers_are_the_same_parameters():
    cfg, batch = forward.TINY, forward.rows(sequences(WIDTH, 5), WIDTH)
    apart = decoder.unstack_layers(params_of(cfg))
    assert isinstance(apart["layers"], tuple) and len(apart["layers"]) == cfg.n_layers
    np.testing.assert_allclose(
        forward.logits(cfg, apart, *batch),
        forward.logits(cfg, params_of(cfg), *batch),
        atol=1e-6,
    )


def test_causal():
    """A changed token changes no earlier logits, and does change its own."""
    batch = forward.rows(sequences(WIDTH, WIDTH), WIDTH)
    changed = (batch[0].copy(), *batch[1:])
    changed[0][:, 7] = (changed[0][:, 7] + 1) % 31
    a, b = (forward.logits(forward.TINY, params_of(forward.TINY), *x)
            for x in (batch, changed))  # fmt: skip
    np.testing.assert_array_equal(a[:, :7], b[:, :7])
    assert (np.abs(a - b)[:, 7:].max(-1) > 0).all()


@pytest.mark.parametrize("cfg", [forward.TINY, SLIDING], ids=["plain", "sliding"])
def test_packing_and_padding(cfg):
    """Neither neighbours in the row nor the ids of padding reach a sequence."""
    seqs = sequences(5, 4, seed=1)
    packed = forward.packed([seqs, seqs[::-1]], WIDTH)
    junk = (np.where(packed[2] == 0, 30, packed[0]), *packed[1:])
    apart = forward.logits(cfg, params_of(cfg), *forward.rows(seqs, WIDTH))
    for batch in (packed, junk):
        got = forward.logits(cfg, params_of(cfg), *batch)
        for row, order in enumerate([(0, 1), (1, 0)]):
            for segment, which in enumerate(order, 1):
                np.testing.assert_allclose(
                    got[row][batch[2][row] == segment],
                    apart[which, : len(seqs[which])],
                    atol=2e-6,
                )
    assert np.isfinite(got).all()


def test_sliding_window_is_local():
    """With one sliding layer, a token is blind to what left its window."""
    cfg = dataclasses.replace(
        SLIDING, n_layers=1, sliding_layers=None, sliding_window=3
    )
    batch = forward.rows(sequences(WIDTH, WIDTH), WIDTH)
    changed = (batch[0].copy(), *batch[1:])
    changed[0][:, 2] = (changed[0][:, 2] + 1) % 31
    a, b = (forward.logits(cfg, params_of(cfg), *x) for x in (batch, changed))
    differs = np.abs(a - b).max((0, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(differs), [2, 3, 4])


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_context_equals_one_pass(loop, shared):
    """Tokens after a context, own or shared by all, equal the whole text at once."""
    cfg = dataclasses.replace(SLIDING, layer_loop=loop)
    text = np.stack(sequences(WIDTH, WIDTH))
    if shared:
        text[1, :5] = text[0, :5]
    whole = forward.logits(cfg, params_of(cfg), *forward.rows(text, WIDTH))
    tokens, positions, segments = forward.rows(text[: 1 if shared else 2, :5], 5)

    @jax.jit
    def in_two(params):
        _, (keys, values) = decoder.run(cfg, params, tokens, positions, segments)
        seen = jnp.ones(tokens.shape, bool)
        context = decoder.Context(keys, values, positions, seen)
        later = jnp.broadcast_to(jnp.arange(5, WIDTH), (2, WIDTH - 5))
        rest = text[:, 5:], later, jnp.ones_like(later)
        hidden, _ = decoder.run(cfg, params, *rest, (context,))
        return decoder.logits(cfg, params, hidden)

    np.testing.assert_allclose(in_two(params_of(cfg)), whole[:, 5:], atol=5e-6)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_cached_steps_equal_one_pass(loop):
    """Token by token through a cache, with sliding layers, equals the whole text."""
    cfg = dataclasses.replace(SLIDING, layer_loop=loop)
    text = np.stack(sequences(WIDTH, WIDTH))
    whole = forward.logits(cfg, params_of(cfg), *forward.rows(text, WIDTH))
    place = jnp.arange(WIDTH)

    @jax.jit
    def step(params, keys, values, t):
        cache = decoder.Cache(
            keys,
            values,
            t,
            jnp.broadcast_to(place, (2, WIDTH)),
            jnp.broadcast_to(place <= t, (2, WIDTH)),
        )
        now = jnp.full((2,), t)
        tokens = jnp.asarray(text)[:, t]
        hidden, kv = decoder.run_cached(cfg, params, tokens, now, cache)
        return decoder.logits(cfg, params, hidden), kv

    shape = (2, cfg.n_kv_heads, WIDTH, cfg.head_dim)
    if loop == "unroll":
        keys = values = tuple(jnp.zeros(shape) for _ in range(cfg.n_layers))
    else:
        keys = values = jnp.zeros((cfg.n_layers, *shape))
    for t in range(WIDTH):
        got, (keys, values) = step(params_of(cfg), keys, values, t)
        np.testing.assert_allclose(got, whole[:, t], atol=5e-6)


@pytest.mark.parametrize(
    ("policy", "stored", "compute"),
    [
        ("float32", jnp.float32, jnp.float32),
        ("bf16_compute", jnp.float32, jnp.bfloat16),
        ("bfloat16", jnp.bfloat16, jnp.bfloat16),
    ],
)
def test_dtype_policies(policy, stored, compute):
    """Which dtype parameters, hidden states and logits have."""
    cfg = dataclasses.replace(forward.TINY, dtype=policy, qkv_bias=True)
    shapes = decoder.param_shapes(cfg)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(stored)}
    inputs = [jax.ShapeDtypeStruct((2, 3), jnp.int32)] * 3
    hidden = jax.eval_shape(functools.partial(decoder.forward, cfg), shapes, *inputs)
    assert hidden.dtype == compute and hidden.shape == (2, 3, cfg.d_model)
    out = jax.eval_shape(functools.partial(decoder.logits, cfg), shapes, hidden)
    assert out.dtype == jnp.float32 and out.shape == (2, 3, cfg.vocab_size)


def test_random_start():
    """Kernels and embeddings are normal(0, init_std), layers differ, keys decide."""
    cfg = forward.TINY
    init = jax.jit(decoder.init_params, static_argnums=0)
    first, again, other = (
        flatten_names(init(cfg, jax.random.key(k))) for k in (0, 0, 1)
    )
    shapes = flatten_names(decoder.param_shapes(cfg))
    for name, value in first.items():
        assert value.shape == shapes[name].shape
        np.testing.assert_array_equal(value, again[name])
        if name.endswith("scale"):
            np.testing.assert_array_equal(value, 1)
            continue
        assert not np.array_equal(value, other[name])
        assert 0.8 * cfg.init_std < np.std(value) < 1.2 * cfg.init_std
        if name.startswith("layers/"):
            assert not np.array_equal(value[0], value[1])


def test_plain_inputs():
    positions, segments = decoder.plain_inputs(jnp.array([2, 3, 0]), 3)
    np.testing.assert_array_equal(positions, [[0, 1, 0], [0, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(segments, [[1, 1, 0], [1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_kv_heads=3), "n_kv_heads"),
        (dict(head_dim=5), "head_dim"),
        (dict(sliding_layers=(True,)), "sliding_layers has 1 entries for 2 layers"),
    ],
)
def test_impossible_configs(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(forward.TINY, **change)


def test_configs_are_values():
    """Equal configs hash alike, so that they serve as static jit arguments."""
    a, b = (DecoderConfig(7, 8, 1, 2, 1, 8, 4, RopeConfig(5.0)) for _ in range(2))
    assert a == b and hash(a) == hash(b)
