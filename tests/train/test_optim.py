"""Schedules have closed forms; frozen parameters stay and have no state."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st

from models.params import count, flatten_names
from train.errors import ConfigError
from train.losses import token_nll
from train.optim import (
    OptimizerConfig,
    decay_mask,
    make_optimizer,
    make_schedule,
    merge,
    split,
)
from train.state import init_state
from train.step import make_train_step

loss = jax.jit(partial(token_nll, tiny_run.CFG))
SCHEDULES = ("constant", "linear", "cosine")


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 300),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_schedules_equal_their_closed_forms(kind, steps, warm, end, at):
    warmup = int(warm * steps)
    s = min(steps, round(at * steps))
    cfg = OptimizerConfig(lr=0.3, schedule=kind, warmup=warmup, end_factor=end)
    p = (s - warmup) / max(1, steps - warmup)
    shape = {
        "constant": 1.0,
        "linear": 1 - p + p * end,
        "cosine": end + (1 - end) * (1 + math.cos(math.pi * p)) / 2,
    }[kind]
    expected = 0.3 * ((s + 1) / warmup if s < warmup else shape)
    np.testing.assert_allclose(make_schedule(cfg, steps)(s), expected, atol=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_reach_lr_after_warmup_and_end_at_the_end_factor(kind):
    lr = make_schedule(
        OptimizerConfig(lr=2.0, schedule=kind, warmup=4, end_factor=0.25), 20
    )
    assert [float(lr(s)) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert float(lr(4)) == 2.0
    end = 2.0 if kind == "constant" else 0.5
    np.testing.assert_allclose(lr(20), end, rtol=1e-6)


def test_a_warmup_below_one_is_a_share_of_the_run():
    a = make_schedule(OptimizerConfig(warmup=0.1), 50)
    b = make_schedule(OptimizerConfig(warmup=5), 50)
    assert [float(a(s)) for s in range(50)] == [float(b(s)) for s in range(50)]


def test_adamw_equals_its_definition():
    # m, v, bias correction, decoupled decay, in float64 numpy, for three updates.
    cfg = OptimizerConfig(
        lr=0.1, schedule="constant", weight_decay=0.05, clip_norm=None, b1=0.8, b2=0.9
    )
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
    optimizer = make_optimizer(cfg, 3, params)
    opt_state = optimizer.tx.init(params)
    p = {k: np.float64(v) for k, v in params.items()}
    m, v = ({k: np.zeros_like(x) for k, x in p.items()} for _ in range(2))
    for t in range(1, 4):
        grads = {k: np.sin(x * t) for k, x in p.items()}
        updates, opt_state = optimizer.tx.update(
            jax.tree.map(jnp.float32, grads), opt_state, params
        )
        params = jax.tree.map(jnp.add, params, updates)
        for k, g in grads.items():
            m[k] = 0.8 * m[k] + 0.2 * g
            v[k] = 0.9 * v[k] + 0.1 * g * g
            adam = (m[k] / (1 - 0.8**t)) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-8)
            decay = 0.05 * p[k] if k == "kernel" else 0
            p[k] = p[k] - 0.1 * (adam + decay)
    for k in p:
        np.testing.assert_allclose(params[k], p[k], rtol=2e-5)


def test_clipping_scales_the_gradient_to_the_norm():
    cfg = OptimizerConfig(kind="adamw", clip_norm=1.0)
    params = {"kernel": jnp.zeros((2, 2))}
    tx = make_optimizer(cfg, 10, params).tx
    small = {"kernel": jnp.full((2, 2), 0.3)}
    large = {"kernel": jnp.full((2, 2), 0.5 * 100)}  # clipped to 0.5 each
    half = {"kernel": jnp.full((2, 2), 0.5)}

    def moments(grads):
        return jax.tree.leaves(tx.update(grads, tx.init(params), params)[1])

    for a, b in zip(moments(large), moments(half), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    first = [m for m in moments(small) if m.shape == (2, 2)][0]
    np.testing.assert_allclose(first, 0.1 * 0.3, rtol=1e-6)


def test_frozen_parameters_stay_and_have_no_state():
    frozen = ("embed/*", "*norm*")
    params = tiny_run.params()
    optimizer = make_optimizer(OptimizerConfig(lr=0.1, frozen=frozen), 5, params)
    state = init_state(params, optimizer)
    kept = {n for n, m in flatten_names(optimizer.mask).items() if not m}
    assert kept and all(n.startswith("embed") or "norm" in n for n in kept)
    names = flatten_names(params)
    trained = sum(names[n].size for n in names.keys() - kept)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert count(moments) == 2 * trained
    state, _ = make_train_step(loss, optimizer)(state, tiny_run.batch(0))
    for name, after in flatten_names(state.params).items():
        assert np.array_equal(after, names[name]) == (name in kept), name


def test_the_gradient_norm_is_that_of_the_trainable_parameters():
    params = tiny_run.params()
    frozen = ("layers/*",)
    optimizer = make_optimizer(OptimizerConfig(frozen=frozen), 5, params)
    _, metrics = make_train_step(loss, optimizer)(
        init_state(params, optimizer), tiny_run.batch(0)
    )
    value = loss(params, tiny_run.batch(0))
    grads = jax.jit(jax.grad(lambda p: loss(p, tiny_run.batch(0)).sum))(params)
    squares = [
        np.sum(np.float64(g) ** 2)
        for n, g in flatten_names(grads).items()
        if not n.startswith("layers/")
    ]
    expected = np.sqrt(sum(squares)) / float(value.weight)
    np.testing.assert_allclose(metrics["grad_norm"], expected, rtol=1e-5)


def test_adafactor_keeps_rows_and_columns_instead_of_a_matrix():
    params = {"kernel": jnp.ones((256, 512)), "scale": jnp.ones(8)}
    optimizer = make_optimizer(OptimizerConfig(kind="adafactor"), 5, params)
    assert count(optimizer.tx.init(params)) < 256 + 512 + 64
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.tx.update(grads, optimizer.tx.init(params), params)
    assert all(bool((u < 0).all()) for u in jax.tree.leaves(updates))


def test_adafactor_lowers_a_loss():
    params = tiny_run.params()
    cfg = OptimizerConfig(kind="adafactor", lr=0.01, schedule="constant")
    optimizer = make_optimizer(cfg, 30, params)
    state, step = init_state(params, optimizer), make_train_step(loss, optimizer)
    losses = []
    for _ in range(30):
        state, metrics = step(state, tiny_run.batch(0))
        losses.append(float(metrics["loss"][0]))
    assert losses[-1] < 0.7 * losses[0]


def test_decay_spares_stacked_norms_and_biases():
    flags = flatten_names(decay_mask(tiny_run.params()))
    spared = {name for name, decayed in flags.items() if not decayed}
    assert spared == {
        "final_norm/scale",
        "layers/attn_norm/scale",
        "layers/mlp_norm/scale",
    }


def test_merge_inverts_split():
    params = tiny_run.params()
    mask = jax.tree.map(lambda x: x.ndim > 2, params)
    assert tiny_run.same_bits(merge(*split(params, mask)), params)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(frozen=("embd/*",)), "optimizer.frozen.*'embd/\\*'"),
        (dict(frozen=("*",)), "optimizer.frozen.*nothing to train"),
        (dict(warmup=11), "optimizer.warmup.*at most the 10 steps.*11"),
    ],
)
def test_impossible_settings_are_named(changes, words):
    cfg = dataclasses.replace(OptimizerConfig(), **changes)
    with pytest.raises(ConfigError, match=words):
        make_optimizer(cfg, 10, tiny_run.params())
