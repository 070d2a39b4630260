"""Estimators: a NumPy transcription, closed forms, exact gradients by enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.advantages import ESTIMATORS, Signals, scale_rewards, whiten
from train.ppo_config import PPOConfig, Quirks
from train.ppo_terms import Experience, estimate, policy_loss


def signals(seed, rows=6, width=5, baseline=None):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    mask = (np.arange(width) < lengths[:, None]).astype(np.float32)
    rewards, values = rng.normal(size=(2, rows, width)).astype(np.float32)
    baseline = np.zeros(rows, np.float32) if baseline is None else baseline
    # Values past the end are left in: an estimator has to ignore them.
    return Signals(rewards * mask, values, mask, baseline), lengths


@functools.cache
def compiled(name):
    return jax.jit(ESTIMATORS[name].fn, static_argnums=3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_textbook_loop(seed, gamma, lam):
    """Equality with a NumPy transcription of Schulman et al. 2016, eq. 16."""
    s, lengths = signals(seed)
    found = compiled("gae")(s, gamma, lam, 1)
    for row, n in enumerate(lengths):
        following, advantage = 0.0, 0.0
        for t in reversed(range(n)):
            delta = s.rewards[row, t] + gamma * following - s.values[row, t]
            advantage = delta + gamma * lam * advantage
            following = s.values[row, t]
            assert found.advantages[row, t] == pytest.approx(advantage, abs=1e-4)
            target = advantage + s.values[row, t]
            assert found.returns[row, t] == pytest.approx(target, abs=1e-4)
        assert not np.any(found.advantages[row, n:])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_with_lambda_one_is_returns_minus_values(gamma):
    """Closed form: A_t = sum_l gamma^l r_{t+l} - V_t."""
    s, lengths = signals(0)
    found = compiled("gae")(s, gamma, 1.0, 1).advantages
    for row, n in enumerate(lengths):
        for t in range(n):
            r = s.rewards[row, t:n]
            expected = np.sum(gamma ** np.arange(n - t) * r) - s.values[row, t]
            assert found[row, t] == pytest.approx(expected, abs=1e-5)


def test_group_estimators_are_their_formulas():
    """Closed forms: less the mean of the others, of the group, the greedy reward."""
    baseline = np.repeat([0.5, -1.0], 3).astype(np.float32)
    s, _ = signals(1, baseline=baseline)
    totals = s.rewards.sum(1)
    groups = totals.reshape(2, 3)
    others = (groups.sum(1, keepdims=True) - groups) / 2
    expected = {
        "rloo": (groups - others).reshape(-1),
        "group_mean": (groups - groups.mean(1, keepdims=True)).reshape(-1),
        "remax": totals - baseline,
    }
    for name, advantages in expected.items():
        found = compiled(name)(s, 1.0, 1.0, 3).advantages
        np.testing.assert_allclose(found, advantages[:, None] * s.mask, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 4))
def test_whitening_sees_the_mask_only(seed, padding):
    """Invariance: mean 0, variance 1 over the mask, whatever is past the ends."""
    s, _ = signals(seed)
    x = np.asarray(whiten(jnp.array(s.values), s.mask))
    inside = x[s.mask > 0]
    assert abs(inside.mean()) < 1e-5 and inside.std() == pytest.approx(1, abs=1e-3)
    assert not np.any(x[s.mask == 0])
    wide = [np.pad(a, ((0, 0), (0, padding)), constant_values=c)
            for a, c in ((s.values, 7.0), (s.mask, 0.0))]  # fmt: skip
    again = np.asarray(whiten(*wide))[:, :-padding]
    np.testing.assert_allclose(again, x, atol=1e-5)


def test_rewards_are_scaled_and_shifted_only_on_request():
    """Closed form: x / std, or (x - mean) / std + mean; equal numbers stay finite."""
    x, mask = jnp.array([[1.0, 2.0, 6.0, 9.0]]), jnp.array([[1.0, 1.0, 1.0, 0.0]])
    std = np.sqrt(14 / 3)
    found, scale = scale_rewards(x, mask)
    np.testing.assert_allclose(found, [[1 / std, 2 / std, 6 / std, 0]], rtol=1e-5)
    assert scale == pytest.approx(1 / std, rel=1e-5)
    found, _ = scale_rewards(x, mask, shift=True)
    expected = [[3 - 2 / std, 3 - 1 / std, 3 + 3 / std, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    equal = jnp.full((1, 3), 0.1)
    np.testing.assert_allclose(whiten(equal, mask[:, :3]), 0, atol=1e-6)
    np.testing.assert_array_equal(scale_rewards(equal, mask[:, :3])[0], equal)


@pytest.mark.parametrize("estimator", ["remax", "rloo", "returns"])
def test_advantages_grow_with_the_unit_of_rewards(estimator):
    """Equality: whitened rewards divide every advantage by one number, the std."""
    rows = experience(RESPONSES, baseline=0.8)
    rows = rows._replace(**{k: v[:6] for k, v in rows._asdict().items()})
    plain, scaled = (
        estimate(
            PPOConfig(
                prompts=3, samples=2, minibatch=6, max_new_tokens=2,
                estimator=estimator, whiten_advantages=False, whiten_rewards=whitened,
            ),
            rows, *np.zeros((3, 6, 2), np.float32), jnp.float32(0),
        )[0].advantages
        for whitened in (False, True)
    )  # fmt: skip
    inside = rows.rewards[np.arange(2)[None] < rows.lengths[:, None]]
    np.testing.assert_allclose(scaled, plain / inside.std(), rtol=1e-4, atol=1e-6)


# Three states of three actions: in state 0 action 0 ends; 1 and 2 lead to states 1 and
# 2, where any action ends. So there are seven responses, of one or two tokens.
RESPONSES = [(0,), *itertools.product((1, 2), (0, 1, 2))]
REWARD = np.array([[0.3, -0.2, 0.5], [1.0, 0.1, -0.7], [-0.4, 0.9, 0.2]], np.float32)
THETA = np.random.default_rng(3).normal(size=(3, 3)).astype(np.float32)
REFERENCE = np.random.default_rng(4).normal(size=(3, 3)).astype(np.float32)
BETA = 0.3


def states(tokens):
    """The state before each token [..., 2]."""
    return jnp.stack([jnp.zeros_like(tokens[..., 0]), tokens[..., 0]], axis=-1)


def tabular(theta, rows):
    log_p = jax.nn.log_softmax(theta)[states(rows.tokens), rows.tokens]
    real = jnp.arange(2) < rows.lengths[:, None]
    return jnp.where(real, log_p, 0.0), jnp.zeros_like(log_p)


def experience(responses, baseline=0.0):
    lengths = np.array([len(r) for r in responses], np.int32)
    tokens = np.array([(*r, 0)[:2] for r in responses], np.int32)
    real = np.arange(2) < lengths[:, None]
    rewards = np.where(real, REWARD[np.asarray(states(tokens)), tokens], 0)
    n = len(responses)
    return Experience(
        prompts=np.zeros((n, 1), np.int32),
        prompt_lengths=np.ones(n, np.int32),
        tokens=tokens,
        lengths=lengths,
        ended=np.zeros(n, bool),
        sampled=np.zeros((n, 2), np.float32),
        rewards=rewards.astype(np.float32),
        baseline=np.full(n, baseline, np.float32),
    )


ALL = experience(RESPONSES)


def objective(theta, beta=BETA):
    """E[R] - beta KL(pi || ref) over whole responses, exactly."""
    log_p = tabular(theta, ALL)[0].sum(1)
    log_ref = tabular(REFERENCE, ALL)[0].sum(1)
    value = ALL.rewards.sum(1) - beta * (log_p - log_ref)
    return jnp.sum(jnp.exp(log_p) * value)


def true_values(beta=BETA):
    """V of the three states under THETA, KL included, by the Bellman equation."""
    log_p = np.asarray(jax.nn.log_softmax(THETA))
    reward = REWARD - beta * (log_p - np.asarray(jax.nn.log_softmax(REFERENCE)))
    v = (np.exp(log_p) * reward).sum(1)
    v[0] = (np.exp(log_p[0]) * (reward[0] + [0, v[1], v[2]])).sum()
    return v


CASES = {
    "gae, any values": ("gae", 1.0, "any", 1.0),
    "gae, lambda 0.4, true values": ("gae", 0.4, "true", 1.0),
    "returns": ("returns", 1.0, "any", 1.0),
    "rloo": ("rloo", 1.0, "any", 1.0),
    "remax": ("remax", 1.0, "any", 1.0),
    "group_mean": ("group_mean", 1.0, "any", 1 / 2),  # (G - 1) / G
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_exact_in_expectation(case):
    """Equality: mean PPO gradient at ratio 1 over all pairs of responses = grad J.

    With `whiten_advantages` and "tokens" to divide by, the defaults, it is another: the
    batch's own spread and length, by which they divide, depend on what was drawn, so
    that no mean over batches is the gradient (nor meant to be: Adam rescales it).
    """
    name, lam, kind, factor = CASES[case]
    cfg = PPOConfig(
        prompts=1, samples=2, minibatch=2, max_new_tokens=2, estimator=name, lam=lam,
        whiten_advantages=False, divide="responses",
    )  # fmt: skip
    values = true_values() if kind == "true" else np.array([0.7, -1.1, 0.4])
    pairs = list(itertools.product(RESPONSES, repeat=2))
    rows = [experience(pair, baseline=0.8) for pair in pairs]
    rows = jax.tree.map(lambda *x: np.stack(x), *rows)  # [49, 2, ...]

    def loss(theta, rows):
        old, _ = tabular(THETA, rows)
        ref, _ = tabular(REFERENCE, rows)
        v = jnp.asarray(values, jnp.float32)[states(rows.tokens)]
        batch, _ = estimate(cfg, rows, old, ref, v, jnp.float32(BETA))
        found = policy_loss(cfg, tabular, theta, batch)
        return found.sum / found.weight, jnp.exp(jnp.sum(old))

    def mean(theta):
        losses, weights = jax.vmap(lambda r: loss(theta, r))(rows)
        return jnp.sum(jax.lax.stop_gradient(weights) * losses)

    exact = jax.grad(objective)(jnp.array(THETA))
    found = -jax.jit(jax.grad(mean))(jnp.array(THETA))
    assert float(jnp.abs(exact).max()) > 0.05
    np.testing.assert_allclose(found, factor * exact, atol=1e-4)


def test_the_clamp_of_the_original_biases_the_gradient():
    """Inequality: with `kl_clamp` the mean of -beta kl is below -beta KL."""
    old, ref = tabular(THETA, ALL)[0], tabular(REFERENCE, ALL)[0]
    p = np.exp(np.asarray(old).sum(1))
    totals = {}
    for clamp in (False, True):
        cfg = PPOConfig(
            prompts=7, minibatch=7, max_new_tokens=2, estimator="returns",
            whiten_advantages=False, quirks=Quirks(kl_clamp=clamp),
        )  # fmt: skip
        batch, _ = estimate(cfg, ALL, old, ref, jnp.zeros((7, 2)), jnp.float32(BETA))
        totals[clamp] = float(np.sum(p * np.asarray(batch.returns)[:, 0]))
    assert totals[False] == pytest.approx(float(objective(THETA)), abs=1e-5)
    assert totals[True] < totals[False] - 0.01
