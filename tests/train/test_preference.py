"""The pair kernel against closed forms and TRL, and the log-probs that feed it."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_run
from helpers.tiny_run import CFG
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import PairBatch, collate
from data.pairs import token_pair
from models import decoder
from train.losses import token_nll
from train.preference import (
    MARGIN_LOSSES,
    PreferenceConfig,
    pair_log_probs,
    pair_loss,
    policy_loss,
    token_log_probs,
)

numbers = st.floats(-20, 20, width=32)
probabilities = st.floats(0, 1, width=32)
POLICY = np.array([[-3.25, -7.5, -12.0, -1.5], [-4.0, -5.25, -12.5, -9.75]]).T
REFERENCE = np.array([[-3.5, -6.0, -11.0, -4.5], [-3.75, -6.5, -11.5, -5.25]]).T
# (loss, beta, label smoothing): losses of the four pairs, their gradients by the chosen
# log-prob. Made by `DPOTrainer.dpo_loss` of TRL 0.24.0 itself, in float64; later
# versions compute a loss only together with a model's forward pass.
TRL = {
    ("sigmoid", 0.1, 0.0): (
        [0.668459648, 0.840070668, 0.693147181, 0.386871006],
        [-0.04875026, -0.056831998, -0.05, -0.03208213],
    ),
    ("sigmoid", 0.5, 0.0): (
        [0.57593942, 1.600412652, 0.693147181, 0.023245464],
        [-0.21891175, -0.399093389, -0.25, -0.011488685],
    ),
    ("sigmoid", 0.5, 0.2): (
        [0.62593942, 1.325412652, 0.693147181, 0.773245464],
        [-0.11891175, -0.299093389, -0.15, 0.088511315],
    ),
    ("robust", 0.5, 0.2): (
        [0.492606087, 2.058745985, 0.693147181, -1.226754536],
        [-0.385578416, -0.565760056, -0.416666667, -0.178155352],
    ),
    ("exo", 0.1, 0.0): (
        [2.675226659, 3.24246459, 2.761230709, 1.589347571],
        [-0.171311777, -0.176191699, -0.172668869, -0.134152604],
    ),
    ("exo", 0.5, 0.2): (
        [0.144700505, 0.826759548, 0.223143551, 0.145586348],
        [-0.139840385, -0.222401062, -0.173286795, 0.026531899],
    ),
    ("hinge", 0.1, 0.0): ([0.95, 1.275, 1.0, 0.25], [-0.1, -0.1, -0.1, -0.1]),
    ("hinge", 0.5, 0.0): ([0.75, 2.375, 1.0, 0.0], [-0.5, -0.5, -0.5, 0.0]),
    ("ipo", 0.1, 0.0): ([20.25, 60.0625, 25.0, 6.25], [-9.0, -15.5, -10.0, 5.0]),
    ("ipo", 0.5, 0.0): ([0.25, 14.0625, 1.0, 42.25], [-1.0, -7.5, -2.0, 13.0]),
}


def pairs_of(weights, labels=1.0, offsets=0.0) -> PairBatch:
    """What `policy_loss` looks at of a batch."""
    weights = jnp.asarray(weights, jnp.float32)
    ones = jnp.ones_like(weights)
    return PairBatch(None, None, weights, labels * ones, offsets * ones)


def losses_of(cfg, log_probs, reference=REFERENCE, labels=1.0):
    """Each pair's loss and its gradient by the log-probs, in one pass over pairs."""
    inputs = (log_probs, reference, labels)
    return _losses_of(cfg, *(np.asarray(x, np.float32) for x in inputs))


@partial(jax.jit, static_argnums=0)
def _losses_of(cfg, log_probs, reference, labels):
    def one(x, ref):
        made = pairs_of([1.0], labels)
        return policy_loss(cfg, x[None], ref[None], jnp.ones((1, 2)), made).sum

    return jax.vmap(jax.value_and_grad(one))(log_probs, reference)


@pytest.mark.parametrize(("kind", "beta", "smoothing"), TRL)
def test_losses_and_gradients_are_those_of_trl(kind, beta, smoothing):
    """Equality with another library, on the same log-probs; see TRL above."""
    cfg = PreferenceConfig(loss=kind, beta=beta)
    losses, grads = losses_of(cfg, POLICY, labels=1 - smoothing)
    expected, by_chosen = TRL[kind, beta, smoothing]
    np.testing.assert_allclose(losses, expected, rtol=5e-6)
    np.testing.assert_allclose(grads[:, 0], by_chosen, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grads[:, 1], -grads[:, 0], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, st.sampled_from([0.02, 0.1, 2.0]), probabilities)
def test_dpo_is_its_closed_form(chosen, rejected, beta, p):
    """-p log s(z) - (1-p) log s(-z); d/d chosen = beta (s(z) - p), z = beta delta."""
    z = beta * (np.float64(chosen) - rejected)
    losses, grads = losses_of(
        PreferenceConfig(beta=beta), [[chosen, rejected]], np.zeros((1, 2)), p
    )
    loss = p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
    slope = beta * (1 / (1 + np.exp(-z)) - p)
    np.testing.assert_allclose(losses[0], loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads[0], [slope, -slope], rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(numbers, st.sampled_from([0.05, 0.5]), probabilities)
def test_ipo_pulls_the_margin_to_its_target(delta, beta, p):
    """d/d delta of p (delta - c)^2 + (1-p) (delta + c)^2 is 2 (delta - (2p-1) c)."""
    _, grads = losses_of(
        PreferenceConfig(loss="ipo", beta=beta), [[delta, 0.0]], np.zeros((1, 2)), p
    )
    target = (2 * p - 1) / (2 * beta)
    np.testing.assert_allclose(grads[0, 0], 2 * (delta - target), rtol=2e-4, atol=2e-4)


def test_small_beta_makes_dpo_and_ipo_linear_and_alike():
    """beta -> 0: (log 2 - DPO) / beta -> delta / 2, beta (1/(4 beta^2) - IPO) -> delta.

    So both gradients are constant, whatever the margin.
    """
    delta, beta = POLICY[:, 0] - POLICY[:, 1], 1e-3
    dpo, slopes = losses_of(PreferenceConfig(beta=beta), POLICY, 0 * REFERENCE)
    np.testing.assert_allclose((math.log(2) - dpo) / beta, delta / 2, atol=0.02)
    np.testing.assert_allclose(slopes[:, 0] / beta, -0.5, rtol=5e-3)
    _, slopes = losses_of(
        PreferenceConfig(loss="ipo", beta=beta), POLICY, 0 * REFERENCE
    )
    np.testing.assert_allclose(slopes[:, 0] * beta, -1.0, rtol=2e-2)


@pytest.mark.parametrize("kind", [k for k in MARGIN_LOSSES if k != "robust"])
def test_a_coin_for_a_label_teaches_nothing_at_margin_zero(kind):
    """Label probability 1/2: zero gradient at zero margin, and a loss even in it."""
    cfg = PreferenceConfig(loss=kind)
    _, grads = losses_of(cfg, [[-3.0, -3.0]], np.zeros((1, 2)), 0.5)
    np.testing.assert_allclose(grads, 0, atol=1e-6)
    losses, _ = losses_of(cfg, [[-3.0, -5.0], [-5.0, -3.0]], np.zeros((2, 2)), 0.5)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(MARGIN_LOSSES)), numbers, st.floats(0.625, 1, width=32))
def test_swapping_a_pair_is_turning_its_label(kind, z, p):
    """l(z; p) = l(-z; 1 - p), and the margin changes its sign."""
    a = pair_loss(kind, jnp.float32(z), jnp.float32(1), jnp.float32(1), labels=p)
    b = pair_loss(kind, jnp.float32(1), jnp.float32(z), jnp.float32(1), labels=1 - p)
    assert float(a.extras["margin"][0]) == -float(b.extras["margin"][0])
    np.testing.assert_allclose(a.sum, b.sum, rtol=1e-4, atol=1e-5)
    assert float(a.extras["accuracy"][0]) == 1 - float(b.extras["accuracy"][0])


@settings(max_examples=40, deadline=None)
@given(numbers, st.floats(0.625, 1, width=32))
def test_robust_labels_average_to_dpo(z, p):
    """p l(z) + (1-p) l(-z) under noisy labels = DPO's loss under right ones."""
    robust = MARGIN_LOSSES["robust"]
    z = jnp.float32(z)
    mean = p * robust(z, p, 1.0) + (1 - p) * robust(-z, p, 1.0)
    np.testing.assert_allclose(mean, jax.nn.softplus(-z), rtol=1e-4, atol=1e-4)


def test_a_policy_that_is_the_reference_has_loss_log_2_and_accuracy_one_half():
    """Equal log-probs: log 2 for every pair, margin 0, ties counted 1/2, KL 0."""
    reference = jnp.asarray(REFERENCE)
    weights = [1.0, 0.5, 2.0, 0.0]
    loss = policy_loss(
        PreferenceConfig(), reference, reference, jnp.ones((4, 2)), pairs_of(weights)
    )
    np.testing.assert_allclose(loss.sum / loss.weight, math.log(2), rtol=1e-6)
    values = {k: float(a / b) for k, (a, b) in loss.extras.items()}
    assert values["accuracy"] == 0.5 and values["margin"] == values["kl"] == 0
    chosen = np.average(REFERENCE[:, 0], weights=weights)
    np.testing.assert_allclose(values["chosen_log_prob"], chosen, rtol=1e-6)


def test_metrics_are_weighted_means():
    """Accuracy, margin and KL by their definitions, pair by pair, weight 0 left out."""
    weights = np.array([1.0, 0.5, 2.0, 0.0])
    cfg = PreferenceConfig(beta=0.25)
    loss = policy_loss(cfg, POLICY, REFERENCE, np.ones((4, 2)), pairs_of(weights))
    ratios = POLICY - REFERENCE
    margin = 0.25 * (ratios[:, 0] - ratios[:, 1])
    for name, each in {
        "margin": margin,
        "accuracy": (margin > 0) + 0.5 * (margin == 0),
        "kl": -ratios.mean(axis=1),
        "rejected_log_prob": POLICY[:, 1],
    }.items():
        total, weight = loss.extras[name]
        expected = np.average(each, weights=weights)
        np.testing.assert_allclose(total / weight, expected, rtol=1e-5, err_msg=name)


def test_offset_average_nll_and_no_reference():
    """Each option by its definition on one pair of 4 and 2 tokens."""
    lengths, x, ref = [4.0, 2.0], POLICY[:1], REFERENCE[:1]

    def loss(offset=0.0, **options):
        cfg = PreferenceConfig(beta=0.5, **options)
        made = pairs_of([1.0], offsets=offset)
        found = policy_loss(cfg, x, ref, np.array([lengths]), made)
        assert ("kl" in found.extras) == (not cfg.reference_free)
        return float(found.sum)

    def softplus(z):
        return np.logaddexp(0, z)

    delta = (x - ref)[0]
    plain = softplus(-0.5 * (delta[0] - delta[1]))
    assert loss() == pytest.approx(plain, rel=1e-6)
    assert loss(0.3) == pytest.approx(
        softplus(0.3 - 0.5 * (delta[0] - delta[1])), rel=1e-6
    )
    assert loss(average=True) == pytest.approx(
        softplus(-0.5 * (delta[0] / 4 - delta[1] / 2)), rel=1e-6
    )
    assert loss(nll=0.7) == pytest.approx(plain - 0.7 * x[0, 0] / 4, rel=1e-6)
    assert loss(reference_free=True) == pytest.approx(
        softplus(-0.5 * (x[0, 0] - x[0, 1])), rel=1e-6
    )


def test_a_reward_model_is_the_other_front_end():
    """Bradley-Terry on scores: mean of log(1 + exp(-(a - b))), a closed form."""
    a, b = np.array([0.5, -1.0, 2.0]), np.array([0.0, 1.0, 2.0])
    loss = pair_loss("sigmoid", a, b, np.ones(3))
    expected = np.mean(np.log1p(np.exp(-(a - b))))
    np.testing.assert_allclose(loss.sum / loss.weight, expected, rtol=1e-6)
    assert float(loss.extras["accuracy"][0]) == 1.5


def random_pairs(count=4, seed=0):
    rng = np.random.default_rng(seed)

    def ids(low, high):
        return rng.integers(0, CFG.vocab_size, rng.integers(low, high))

    return [
        token_pair(ids(1, 4), ids(1, 6), ids(1, 6), label=0.9, weight=float(1 + i))
        for i in range(count)
    ]


def batch_of(pairs, length=12):
    return collate([(p,) for p in pairs], length, 0, type(pairs[0]))


SCORE = jax.jit(partial(pair_log_probs, CFG), static_argnames="chunk")


@jax.jit
def logits_of(params, batch):
    hidden = decoder.forward(
        CFG, params, batch.tokens, batch.positions, batch.segment_ids
    )
    return decoder.logits(CFG, params, hidden)


def test_log_probs_are_sums_over_the_response():
    """By hand: the log-softmax of every response token, given all before it."""
    pairs, params = random_pairs(), tiny_run.params()
    batch = batch_of(pairs)
    log_probs, lengths = SCORE(params, batch)
    for s, name in enumerate(("chosen", "rejected")):
        side = getattr(batch, name)
        logits = np.float64(logits_of(params, side))
        for i, pair in enumerate(pairs):
            tokens, weights = pair[s]
            expected = sum(
                logits[i, t - 1, tokens[t]] - np.log(np.exp(logits[i, t - 1]).sum())
                for t in range(1, len(tokens))
                if weights[t]
            )
            np.testing.assert_allclose(log_probs[i, s], expected, rtol=1e-5)
            assert lengths[i, s] == weights[1:].sum()


def test_log_probs_do_not_depend_on_padding_order_or_chunks():
    """Invariance: wider rows, other rows beside, padding rows, columns at a time."""
    pairs, params = random_pairs(), tiny_run.params()
    expected = np.asarray(SCORE(params, batch_of(pairs))[0])
    turned = SCORE(params, batch_of(pairs[::-1]))[0]
    np.testing.assert_allclose(turned[::-1], expected, rtol=1e-5, atol=1e-5)
    rows = [(p,) for p in pairs] + [()] * 2
    wide = collate(rows, 17, 0, type(pairs[0]))
    found, lengths = SCORE(params, wide, chunk=5)
    np.testing.assert_allclose(found[:4], expected, rtol=1e-5, atol=1e-5)
    assert not np.asarray(found[4:]).any() and not np.asarray(lengths[4:]).any()


def test_token_log_probs_sum_to_the_token_loss():
    """The weighted sum is minus that of `train.losses.token_nll`, packed rows too."""
    params, batch = tiny_run.params(), tiny_run.batch(0)
    log_probs, weights = jax.jit(partial(token_log_probs, CFG, chunk=5))(params, batch)
    loss = jax.jit(partial(token_nll, CFG))(params, batch)
    np.testing.assert_allclose(-(log_probs * weights).sum(), loss.sum, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(), loss.weight, rtol=1e-6)


def test_the_config_knows_the_losses_of_the_table():
    """Every name of the table is a choice, and the other way round."""
    hint = PreferenceConfig.__annotations__["loss"]
    assert set(hint.__args__) == set(MARGIN_LOSSES)
