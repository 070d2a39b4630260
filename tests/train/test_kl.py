"""KL estimators against exact sums over small distributions; the controller's steps."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.kl import ESTIMATORS, LIMIT, KLConfig, log_ratio, next_coefficient

numbers = st.lists(st.floats(-3, 3), min_size=2, max_size=6)


@settings(deadline=None)
@given(numbers, st.integers(0, 99))
def test_k1_and_k3_are_unbiased_and_k2_is_second_order(logits, seed):
    """Closed form: the mean under pi of k1 and of k3 is sum pi log(pi / ref)."""
    p = np.exp(logits) / np.exp(logits).sum()
    noise = np.random.default_rng(seed).normal(size=len(p))
    q = p * np.exp(noise) / (p * np.exp(noise)).sum()
    ratio = np.asarray(log_ratio(np.log(p), np.log(q)))
    exact = np.sum(p * np.log(p / q))
    for name in ("k1", "k3"):
        assert np.sum(p * ESTIMATORS[name](ratio)) == pytest.approx(exact, abs=1e-4)
    expected = 0.5 * np.sum(p * np.log(p / q) ** 2)
    assert np.sum(p * ESTIMATORS["k2"](ratio)) == pytest.approx(expected, rel=1e-3)


def test_k1_is_not_clamped_and_k3_is_never_negative():
    """Closed form: a token twice as likely under the reference has k1 = -log 2."""
    ratio = log_ratio(jnp.log(0.2), jnp.log(0.4))
    assert float(ESTIMATORS["k1"](ratio)) == pytest.approx(-np.log(2), rel=1e-6)
    assert float(ESTIMATORS["k3"](ratio)) == pytest.approx(1 - np.log(2), rel=1e-5)


def test_a_token_outside_the_support_costs_a_finite_number_of_nats():
    """Invariant: |log-ratio| <= LIMIT, and equal log-probs give exactly 0."""
    banned = jnp.float32(-1e10)
    assert float(log_ratio(jnp.float32(-1.0), banned)) == LIMIT
    assert float(log_ratio(banned, banned)) == 0.0


def test_the_controller_is_zieglers():
    """Closed form: coef (1 + clip(kl / target - 1, +-0.2) n / horizon)."""
    cfg = KLConfig(coef=0.1, control="adaptive", target=2.0, horizon=100)
    for kl, error in ((9.0, 0.2), (2.2, 0.1), (2.0, 0.0), (0.0, -0.2)):
        found = next_coefficient(cfg, jnp.float32(0.1), jnp.float32(kl), 50)
        assert float(found) == pytest.approx(0.1 * (1 + error / 2), rel=1e-5)
    fixed = KLConfig(coef=0.1)
    assert float(next_coefficient(fixed, jnp.float32(0.1), jnp.float32(9), 50)) == (
        pytest.approx(0.1)
    )


@pytest.mark.parametrize("fields", [{}, {"target": 1.0, "coef": 0.0}])
def test_a_controller_without_target_or_start_is_refused(fields):
    """Error: names the setting and what it needs."""
    with pytest.raises(ValueError, match="control.*target"):
        KLConfig(control="adaptive", **fields)
