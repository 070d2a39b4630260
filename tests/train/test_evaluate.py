"""The held-out loss is one weighted mean over all examples, however batched."""

import math
from functools import partial

import jax
import numpy as np
from helpers import tiny_run
from helpers.tiny_run import CFG

from data.batch import TokenBatch
from train.evaluate import make_evaluate, perplexity
from train.losses import token_nll

loss = jax.jit(partial(token_nll, CFG))


def cut(batch, size):
    """The rows in batches of a size, the last one filled with padding."""
    rows = len(batch.tokens)
    padded = TokenBatch(
        *(
            np.concatenate([x, np.zeros((-rows % size, *x.shape[1:]), x.dtype)])
            for x in batch
        )
    )
    return [
        TokenBatch(*(x[i : i + size] for x in padded)) for i in range(0, rows, size)
    ]


def test_the_batch_size_does_not_change_the_value():
    batch, params = tiny_run.batch(0, rows=6), tiny_run.params()
    values = [
        make_evaluate(loss, cut(batch, n), jax.device_put)(params) for n in (1, 4, 6)
    ]
    total, weight, *_ = loss(params, batch)
    expected = float(total) / float(weight)
    for row in values:
        assert row.keys() == {"eval/loss", "eval/perplexity"}
        np.testing.assert_allclose(row["eval/loss"], expected, rtol=1e-6)
        assert row["eval/perplexity"] == math.exp(row["eval/loss"])


def test_uniform_logits_have_the_vocabulary_as_perplexity():
    params = jax.tree.map(lambda x: 0 * x, tiny_run.params())
    row = make_evaluate(loss, [tiny_run.batch(0)], jax.device_put)(params)
    np.testing.assert_allclose(row["eval/perplexity"], CFG.vocab_size, rtol=1e-5)


def test_extras_are_reported_by_name_and_nothing_without_weight():
    def with_extras(params, batch):
        value = loss(params, batch)
        return value._replace(
            extras={"accuracy": (value.weight, 2 * value.weight), "none": (0.0, 0.0)}
        )

    row = make_evaluate(with_extras, [tiny_run.batch(0)], jax.device_put, "test")(
        tiny_run.params()
    )
    assert row["test/accuracy"] == 0.5 and "test/none" not in row


def test_no_batches_no_numbers():
    assert make_evaluate(loss, [], jax.device_put)(tiny_run.params()) == {}


def test_perplexity_overflows_to_infinity():
    assert perplexity(1e4) == math.inf and perplexity(0.0) == 1.0
