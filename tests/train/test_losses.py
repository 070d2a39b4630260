"""A loss is a sum of per-token terms: packing, chunking and order do not change it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_run
from helpers.tiny_run import CFG

from data.batch import TokenBatch, TokenizedExample, collate
from models import decoder
from train.losses import chunk_columns, shifted, target_nll, token_nll


def numpy_nll(logits, target):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target]


def examples(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [
        TokenizedExample(
            rng.integers(0, CFG.vocab_size, n).astype(np.int32),
            rng.random(n).astype(np.float32),
        )
        for n in lengths
    ]


def test_the_sum_is_that_of_the_definition_token_by_token():
    params, batch = tiny_run.params(), tiny_run.batch(0)
    forward = jax.jit(partial(decoder.forward, CFG))
    hidden = forward(params, *batch[:1], *batch[2:])
    logits = np.asarray(decoder.logits(CFG, params, hidden))
    total, weight = 0.0, 0.0
    for b, t in np.ndindex(batch.tokens.shape):
        segment = batch.segment_ids[b, t]
        if t and segment and segment == batch.segment_ids[b, t - 1]:
            w = float(batch.weights[b, t])
            total += w * numpy_nll(logits[b, t - 1], batch.tokens[b, t])
            weight += w
    loss = jax.jit(partial(token_nll, CFG))(params, batch)
    np.testing.assert_allclose(loss.sum, total, rtol=1e-5)
    np.testing.assert_allclose(loss.weight, weight, rtol=1e-6)


def test_the_first_token_of_a_segment_is_never_predicted_whatever_its_weight():
    batch = tiny_run.batch(1)
    targets, weights = shifted(batch._replace(weights=np.ones_like(batch.weights)))
    lengths = [np.bincount(row)[1:] for row in batch.segment_ids]
    assert float(weights.sum()) == sum(n - 1 for row in lengths for n in row if n)
    for b, t in zip(*np.nonzero(np.asarray(weights)), strict=True):
        assert batch.segment_ids[b, t] == batch.segment_ids[b, t + 1]
        assert targets[b, t] == batch.tokens[b, t + 1]


def test_packed_rows_have_the_loss_and_the_gradient_of_unpacked_ones():
    parts = examples([5, 7, 3, 4])
    packed = collate([parts[:2], parts[2:]], 12, 0)
    single = collate([[e] for e in parts], 9, 3)

    def value(params, batch: TokenBatch):
        loss = token_nll(CFG, params, batch)
        return loss.sum, loss.weight

    grad = jax.jit(jax.value_and_grad(value, has_aux=True))
    (a, wa), ga = grad(tiny_run.params(), packed)
    (b, wb), gb = grad(tiny_run.params(), single)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert wa == wb
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), ga, gb)


@pytest.mark.parametrize("chunk", [1, 5, 11, 12, 99])
def test_chunks_of_columns_give_the_same_loss_and_gradient(chunk):
    batch = tiny_run.batch(2)

    def grad(chunk):
        value = partial(token_nll, CFG, batch=batch, chunk=chunk)
        return jax.jit(jax.value_and_grad(lambda p: value(p).sum))(tiny_run.params())

    (a, ga), (b, gb) = grad(None), grad(chunk)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), ga, gb)


def test_chunked_logits_are_never_held_whole():
    # The identity: no array of the program has as many elements as [B, T, V].
    batch = tiny_run.batch(3)
    whole = batch.tokens.size * CFG.vocab_size

    def sizes(chunk):
        f = jax.grad(lambda p: token_nll(CFG, p, batch, chunk=chunk).sum)
        text = jax.jit(f).lower(tiny_run.params()).as_text()
        shapes = {s.split(">")[0] for s in text.split("tensor<")[1:]}
        dims = [[int(d) for d in s.split("x")[:-1]] for s in shapes]
        return [int(np.prod(d)) for d in dims if d and d[-1] == CFG.vocab_size]

    assert max(sizes(None)) >= whole
    assert max(sizes(3)) < whole


def test_the_gradient_of_the_nll_is_softmax_minus_one_hot():
    logits = jax.random.normal(jax.random.key(0), (3, 7)) * 4
    targets = jnp.array([0, 6, 3])
    grad = jax.grad(lambda x: target_nll(x, targets).sum())(logits)
    expected = jax.nn.softmax(logits) - jax.nn.one_hot(targets, 7)
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_a_batch_without_weight_has_loss_zero_and_weight_zero():
    batch = tiny_run.batch(4)
    empty = batch._replace(weights=0 * batch.weights)
    loss = jax.jit(partial(token_nll, CFG))(tiny_run.params(), empty)
    assert loss.sum == 0 and loss.weight == 0


def test_chunk_columns_keeps_logits_under_the_limit():
    assert chunk_columns(8, 128, 512) is None
    assert chunk_columns(16, 2048, 32000) == (1 << 28) // (4 * 16 * 32000)
    assert chunk_columns(10**6, 64, 10**6) == 1
