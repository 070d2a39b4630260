"""Reward models: losses equal closed forms, training does what it says, runs resume."""

import dataclasses
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny_run
from helpers.tiny_run import exact, same_bits

from data.batch import (
    LabelBatch,
    LabelledExample,
    PairExample,
    TokenizedExample,
    collate,
)
from data.batches import eval_batches
from models import decoder, reward_model
from models.params import flatten_names
from train import calibration, reward, reward_terms
from train.errors import Preempted
from train.loop import LoopConfig
from train.optim import OptimizerConfig, make_optimizer
from train.state import init_state
from train.step import make_train_step

CFG = dataclasses.replace(tiny_run.CFG, n_layers=1, init_std=0.2)
QUIET = LoopConfig(tensorboard=False, progress=False)
FROZEN = ("decoder/embed/*", "*norm*")


@pytest.fixture(scope="module")
def params():
    """A reward model whose scores differ by whole units."""
    model = reward_model.init(CFG, decoder.init_params(CFG, jax.random.key(0)))
    kernel = np.random.default_rng(0).standard_normal((CFG.d_model, 1))
    return {**model, "head": {"kernel": jnp.asarray(kernel, jnp.float32)}}


def labelled(n, seed=0, soft=True):
    """Random examples of 3 to 12 tokens; labels and weights random, some weights 0."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        size = int(rng.integers(3, 13))
        labels = rng.random(size) if soft else rng.integers(0, 2, size)
        weights = rng.random(size) * rng.integers(0, 2, size)
        weights[-1] = 1
        tokens = rng.integers(0, CFG.vocab_size, size)
        out.append(
            LabelledExample(
                tokens.astype(np.int32),
                labels.astype(np.float32),
                weights.astype(np.float32),
            )
        )
    return out


def some_pairs(n, seed=0):
    rng = np.random.default_rng(seed)

    def example():
        size = int(rng.integers(2, 13))
        tokens = rng.integers(0, CFG.vocab_size, size).astype(np.int32)
        return TokenizedExample(tokens, np.ones(size, np.float32))

    return [
        PairExample(example(), example(), *map(float, rng.random(2)), float(i % 3) / 4)
        for i in range(n)
    ]


def scores_of(params, sequences):
    """The scores of every token of each sequence on its own."""
    every = [range(len(tokens)) for tokens in sequences]
    return reward_model.score_places(CFG, params, sequences, every)


label_loss = jax.jit(lambda p, b: reward_terms.label_loss(CFG, p, b))
pairwise_loss = jax.jit(lambda p, b: reward_terms.pairwise_loss(CFG, p, b))


def test_label_loss_is_optax_on_scores_alone(params):
    """Equality with optax's sigmoid BCE, example by example; hard and soft labels."""
    examples = labelled(6)
    batch = collate([[e] for e in examples], 12, 0, LabelledExample)
    assert isinstance(batch, LabelBatch)
    loss = label_loss(params, batch)
    want, right = 0.0, 0.0
    found = scores_of(params, [e.tokens for e in examples])
    for scores, (_, labels, weights) in zip(found, examples, strict=True):
        bce = optax.sigmoid_binary_cross_entropy(scores, labels)
        want += float(np.sum(np.asarray(bce) * weights))
        right += np.sum(np.where(scores > 0, labels, 1 - labels) * weights)
    weight = sum(e.weights.sum() for e in examples)
    np.testing.assert_allclose(loss.sum, want, rtol=1e-5)
    np.testing.assert_allclose(loss.weight, weight, rtol=1e-6)
    np.testing.assert_allclose(loss.extras["accuracy"][0], right, rtol=1e-5)


def test_pairwise_loss_is_log_one_plus_exp_of_minus_the_margin(params):
    """Closed form: log(1 + exp(-z)), z = s(chosen) - s(rejected) - offset, weighted."""
    pairs = some_pairs(5)
    loss = pairwise_loss(
        params, collate([[p] for p in pairs] + [[]], 12, 0, PairExample)
    )
    want, margins = 0.0, []
    chosen = scores_of(params, [p.chosen.tokens for p in pairs])
    rejected = scores_of(params, [p.rejected.tokens for p in pairs])
    for a, b, (*_, weight, label, offset) in zip(chosen, rejected, pairs, strict=True):
        margin = float(a[-1] - b[-1])
        z = margin - offset
        want += weight * label * math.log1p(math.exp(-z))
        want += weight * (1 - label) * math.log1p(math.exp(z))
        margins.append(weight * margin)
    weight = sum(p.weight for p in pairs)
    np.testing.assert_allclose(loss.sum, want, rtol=1e-5)
    np.testing.assert_allclose(loss.weight, weight, rtol=1e-6)
    np.testing.assert_allclose(loss.extras["margin"][0], sum(margins), rtol=1e-4)


def test_a_zero_head_gives_one_half():
    """p = 1/2: loss log 2 for every label, accuracy 1/2, margin 0."""
    model = reward_model.init(CFG, decoder.init_params(CFG, jax.random.key(0)))
    pairs = [[p._replace(offset=0.0)] for p in some_pairs(5)] + [[]]
    for loss in (
        label_loss(model, collate([[e] for e in labelled(6)], 12, 0, LabelledExample)),
        pairwise_loss(model, collate(pairs, 12, 0, PairExample)),
    ):
        np.testing.assert_allclose(loss.sum / loss.weight, math.log(2), rtol=1e-6)
        np.testing.assert_allclose(loss.extras["accuracy"][0] / loss.weight, 0.5)


def test_packing_padding_and_order_do_not_matter(params):
    """Equal sums and gradients however the same examples are laid out."""
    examples = labelled(8, seed=3)
    alone = collate([[e] for e in examples], 12, 0, LabelledExample)
    mixed = [[], *(examples[i : i + 2] for i in (6, 4, 2, 0)), []]
    packed = collate(mixed, 26, 5, LabelledExample)
    grad = jax.jit(jax.value_and_grad(lambda p, b: label_loss(p, b).sum))
    (want, ours), (got, theirs) = grad(params, alone), grad(params, packed)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, float(jnp.abs(a).max())))


def test_micro_batches_do_not_matter(params):
    """One update on pairs in one or four micro-batches: equal parameters, metrics."""
    batch = collate([[p] for p in some_pairs(8, seed=4)], 12, 0, PairExample)
    optimizer = make_optimizer(OptimizerConfig(lr=1e-3, schedule="constant"), 5, params)
    found = []
    for accum in (1, 4):
        step = make_train_step(pairwise_loss, optimizer, accum=accum)
        state, metrics = step(init_state(params, optimizer), batch)
        found.append((state.params, metrics["loss"], metrics["grad_norm"]))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def tiny_world(n, seed):
    """Sequences of digits; the label of every token: whether a 1 has come by then."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        tokens = rng.integers(1, 8, 8).astype(np.int32)
        labels = (np.cumsum(tokens == 1) > 0).astype(np.float32)
        out.append(LabelledExample(tokens, labels, np.ones(8, np.float32)))
    return out


@pytest.fixture(scope="module")
def learned():
    """(parameters before, the result) of training on what can be learned."""
    before = reward_model.init(CFG, decoder.init_params(CFG, jax.random.key(1)))
    fitted = reward.train_reward(
        CFG,
        before,
        tiny_world(300, 0),
        tiny_world(200, 1),
        length=32,
        pad_id=0,
        batch_size=32,
        steps=60,
        optimizer=OptimizerConfig(lr=1e-2, warmup=10, frozen=FROZEN),
        loop=dataclasses.replace(QUIET, eval_every=20, use_best=True),
    )
    return before, fitted


def test_a_labelling_is_learned(learned):
    """Held-out AUC above 0.9; metrics are those of the returned parameters."""
    _, fitted = learned
    evals = [row for row in fitted.rows if "eval/auc" in row]
    assert evals[-1]["eval/auc"] > 0.9 and evals[-1]["eval/accuracy"] > 0.8
    held = tiny_world(200, 1)
    rows = [e.tokens for e in held]
    scores = scores_of(fitted.state.params, rows)
    want = calibration.calibration(
        np.concatenate(scores), np.concatenate([e.labels for e in held])
    )
    best = min(evals, key=lambda row: row["eval/loss"])
    assert int(fitted.state.step) == best["step"]
    for name, value in want.items():
        assert best[f"eval/{name}"] == pytest.approx(value, abs=1e-5)


def test_frozen_tensors_are_bit_equal(learned):
    """Embeddings and norms of the decoder stay; all else, the head too, moves."""
    before, fitted = learned
    old, new = flatten_names(before), flatten_names(fitted.state.params)
    for name, value in old.items():
        frozen = name == "decoder/embed/embedding" or "norm" in name
        assert same_bits(value, new[name]) == frozen, name


def test_pairs_are_learned_by_their_last_token(params):
    """Chosen ends in a small id: pair accuracy and margin rise on held-out pairs."""
    rng = np.random.default_rng(0)

    def example(end):
        tokens = np.append(rng.integers(0, 20, 4), end).astype(np.int32)
        return TokenizedExample(tokens, np.ones(5, np.float32))

    data = [
        PairExample(example(rng.integers(0, 10)), example(rng.integers(10, 20)))
        for _ in range(160)
    ]
    start = {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}
    fitted = reward.train_reward(
        CFG, start, data[:128], data[128:], length=8, pad_id=0, batch_size=16,
        epochs=5, optimizer=OptimizerConfig(lr=5e-3),
        loop=dataclasses.replace(QUIET, eval_every=10),
    )  # fmt: skip
    evals = [row for row in fitted.rows if "eval/margin" in row]
    assert evals[-1]["eval/accuracy"] > 0.95 and evals[-1]["eval/margin"] > 1
    assert evals[-1]["eval/loss"] < 0.3
    assert not any("perplexity" in name for row in fitted.rows for name in row)


def test_metrics_do_not_depend_on_the_batches(params):
    """Packed, padded, in batches of any size: equal; what has weight 0 never counts."""
    examples = labelled(9, seed=6, soft=False)
    found = []
    for size, packing in ((4, False), (2, True)):
        held = eval_batches(
            examples, batch_size=size, length=24, pad_id=3, packing=packing
        )
        found.append(reward_terms.label_metrics(CFG, held, jax.device_put)(params))
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-5)
    scores = np.concatenate(scores_of(params, [e.tokens for e in examples]))
    want = calibration.calibration(
        scores, *(np.concatenate([e[i] for e in examples]) for i in (1, 2))
    )
    assert found[0] == pytest.approx(
        {f"eval/{k}": v for k, v in want.items()}, abs=1e-5
    )


def test_a_stopped_run_continues_bit_for_bit(params, tmp_path):
    """Interrupted between evaluations: equal to a run without a stop, best included."""
    examples, held = labelled(64, seed=8), labelled(16, seed=9)
    start = {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}
    loop = dataclasses.replace(
        QUIET, eval_every=4, checkpoint_every=4, keep_best=True, use_best=True,
        patience=3, keep_last=1,
    )  # fmt: skip

    def run(folder):
        return reward.train_reward(
            CFG, start, examples, held, length=16, pad_id=0, batch_size=8, steps=40,
            packing=False, optimizer=OptimizerConfig(lr=1e-2), loop=loop,
            workdir=folder,
        )  # fmt: skip

    straight = run(tmp_path / "straight")
    stops = [row for row in straight.rows if "stop/best" in row]
    assert len(stops) == 1 and stops[0]["step"] < 40  # noise overfits at once
    fit = reward.fit

    def stopping(state, step, data, *args, **kwargs):
        class Stops:
            fingerprint = data.fingerprint

            def __getitem__(self, i):
                if i == 6:
                    os.kill(os.getpid(), signal.SIGTERM)
                return data[i]

        return fit(state, step, Stops(), *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "fit", stopping)
        with pytest.raises(Preempted):
            run(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped")
    assert same_bits(resumed.state, straight.state)
    assert exact(resumed.rows) == exact(straight.rows)
