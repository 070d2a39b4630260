"""An update is a function of the batch, not of how it is cut, placed or accumulated."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_run
from helpers.tiny_run import CFG

from data.batch import TokenBatch
from models import decoder
from train.losses import Loss, token_nll
from train.optim import OptimizerConfig, make_optimizer
from train.state import abstract_state, all_finite, init_state
from train.step import make_train_step

loss = jax.jit(partial(token_nll, CFG))
# With this epsilon an update is g / (|g| + 1), so that differences of g show in it.
LINEAR = OptimizerConfig(lr=0.1, schedule="constant", clip_norm=None, eps=1.0)


def update(accum, batch, cfg=LINEAR, loss_fn=loss):
    params = tiny_run.params()
    optimizer = make_optimizer(cfg, 10, params)
    state = init_state(params, optimizer)
    return make_train_step(loss_fn, optimizer, accum=accum)(state, batch)


def uneven(rows=8):
    """Micro-batches differ in weight by orders of magnitude; some have none."""
    batch = tiny_run.batch(0, rows=rows)
    scale = np.array([0, 0, 1e-3, 1, 0, 0, 10, 1][:rows], np.float32)
    return batch._replace(weights=batch.weights * scale[:, None])


@pytest.mark.parametrize("accum", [2, 4, 8])
def test_accumulated_micro_batches_equal_the_large_batch(accum):
    whole, m1 = update(1, uneven())
    parts, m2 = update(accum, uneven())
    for a, b in zip(m1["loss"], m2["loss"], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)
    np.testing.assert_allclose(m1["grad_norm"], m2["grad_norm"], rtol=2e-5)
    start = tiny_run.params()
    jax.tree.map(
        lambda s, a, b: np.testing.assert_allclose(a - s, b - s, rtol=1e-4, atol=2e-7),
        start,
        whole.params,
        parts.params,
    )
    moved = jax.tree.map(lambda s, a: float(jnp.abs(a - s).max()), start, whole.params)
    assert min(jax.tree.leaves(moved)) > 1e-6


def test_the_mean_of_micro_batch_means_would_be_another_update():
    # Guards the test above: with these weights the common mistake is visible.
    batch = uneven()
    _, metrics = update(1, batch)
    rights = float(metrics["loss"][0] / metrics["loss"][1])
    halves = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in (0, 1)]
    means = []
    for half in halves:
        total, weight, *_ = loss(tiny_run.params(), half)
        means.append(float(total / weight))
    assert abs(np.mean(means) - rights) > 1e-3


def test_the_gradient_is_that_of_the_mean_over_all_weights():
    batch = tiny_run.batch(3)

    def mean(params):
        total, weight, *_ = loss(params, batch)
        return total / weight

    grads = jax.jit(jax.grad(mean))(tiny_run.params())
    norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in jax.tree.leaves(grads)))
    _, metrics = update(1, batch)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize("accum", [1, 2])
def test_a_batch_without_weight_changes_nothing(accum):
    batch = tiny_run.batch(0)
    state, metrics = update(accum, batch._replace(weights=0 * batch.weights))
    assert metrics["grad_norm"] == 0
    assert tiny_run.same_bits(state.params, tiny_run.params())
    assert state.step == 1


def test_padding_rows_change_nothing():
    batch = tiny_run.batch(5)
    padded = TokenBatch(*(np.concatenate([x, np.zeros_like(x)]) for x in batch))
    (a, m1), (b, m2) = update(1, batch), update(1, padded)
    np.testing.assert_allclose(m1["grad_norm"], m2["grad_norm"], rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a.params, b.params
    )


def test_maxima_are_the_greatest_of_any_micro_batch():
    """Equality: the largest of the weights, in two micro-batches as in one."""

    def with_maxima(params, batch):
        return loss(params, batch)._replace(maxima={"top": batch.weights.max()})

    batch = tiny_run.batch(0)
    weights = np.array(batch.weights)
    weights[1, 2] = 7.0
    batch = batch._replace(weights=weights)
    found = [update(n, batch, loss_fn=with_maxima)[1]["top"] for n in (1, 2)]
    assert [float(x) for x in found] == [7.0, 7.0]


def test_extras_are_summed_over_micro_batches_as_the_loss_is():
    def with_extras(params, batch):
        value = loss(params, batch)
        tokens = jnp.sum(batch.segment_ids > 0).astype(jnp.float32)
        return value._replace(extras={"tokens": (tokens, jnp.float32(1))})

    batch = tiny_run.batch(0)
    _, metrics = update(2, batch, loss_fn=with_extras)
    assert metrics["tokens"][0] == np.count_nonzero(batch.segment_ids)
    assert metrics["tokens"][1] == 2


def test_rows_that_do_not_divide_are_an_error():
    with pytest.raises(ValueError, match="4 rows do not divide into 3"):
        update(3, tiny_run.batch(0))


def test_a_step_makes_no_transfer_and_consumes_its_state():
    params = tiny_run.params()
    optimizer = make_optimizer(OptimizerConfig(), 10, params)
    state = init_state(params, optimizer)
    step = make_train_step(loss, optimizer, accum=2, state=state)
    batch = jax.device_put(tiny_run.batch(0))
    with jax.transfer_guard("disallow"):
        after, _ = step(state, batch)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))
    assert jax.tree.leaves(abstract_state(after)) == jax.tree.leaves(
        abstract_state(init_state(params, optimizer))
    )


def test_without_a_copy_the_state_holds_the_parameters_themselves():
    params = tiny_run.params()
    state = init_state(
        params, make_optimizer(OptimizerConfig(), 10, params), copy=False
    )
    for a, b in zip(*map(jax.tree.leaves, (params, state.params)), strict=True):
        assert a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer()


def test_bfloat16_parameters_are_updated_from_float32_sums():
    cfg = dataclasses.replace(CFG, dtype="bfloat16")
    params = decoder.init_params(cfg, jax.random.key(0))
    optimizer = make_optimizer(dataclasses.replace(LINEAR, lr=1.0), 10, params)
    state = init_state(params, optimizer)
    fn = partial(token_nll, cfg)
    state, metrics = make_train_step(fn, optimizer, accum=2)(state, tiny_run.batch(0))
    assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert metrics["grad_norm"].dtype == jnp.float32
    assert all_finite(state)


def test_all_finite_sees_one_bad_number_and_ignores_integers():
    tree = {"a": jnp.ones((3, 3)), "b": jnp.arange(3), "c": jnp.zeros(2, jnp.bfloat16)}
    assert all_finite(tree)
    for bad in (jnp.nan, jnp.inf):
        assert not all_finite({**tree, "a": tree["a"].at[1, 2].set(bad)})


def test_a_loss_is_a_pair_with_extras():
    assert Loss(1, 2) == (1, 2, {}, {})


@pytest.mark.parametrize("dtype", ["float32", "bf16_compute", "bfloat16"])
@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_a_step_keeps_every_dtype_and_compiles_once(dtype, kind):
    cfg = dataclasses.replace(CFG, dtype=dtype)
    params = decoder.init_params(cfg, jax.random.key(0))
    optimizer = make_optimizer(OptimizerConfig(kind=kind), 10, params)
    state = init_state(params, optimizer)
    step = make_train_step(partial(token_nll, cfg), optimizer, state=state)
    before, batch = abstract_state(state), jax.device_put(tiny_run.batch(0))
    for _ in range(2):
        state, _ = step(state, batch)
        assert jax.tree.leaves(abstract_state(state)) == jax.tree.leaves(before)
    assert step._cache_size() == 1
