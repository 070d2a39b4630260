"""A critic's head, fitted to returns."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny_ppo

from train import ppo_terms
from train.critic import RIDGE, fit_head
from train.ppo import ppo, with_fitted_head

CFG, PARAMS = tiny_ppo.value()


def states_and_returns(cfg, rows):
    """Float64 [tokens, D] and [tokens], by loops over rows and tokens."""
    hidden, before = ppo_terms.critic_states(CFG, PARAMS, rows)
    states, returns = [], []
    for i, length in enumerate(rows.lengths):
        for t in range(length):
            discount = cfg.gamma ** np.arange(length - t)
            states.append(np.asarray(hidden[i, before[i, t]], np.float64))
            returns.append(float(rows.rewards[i, t:length] @ discount))
    return np.array(states), np.array(returns)


@pytest.mark.parametrize("chunks", [1, 2, 8])
def test_the_head_solves_the_normal_equations(chunks):
    cfg = tiny_ppo.config(gamma=0.9)
    rows = tiny_ppo.random_rows(np.random.default_rng(0), rows=16)
    H, G = states_and_returns(cfg, rows)
    penalty = RIDGE * np.trace(H.T @ H) / H.shape[1]
    w = np.linalg.solve(H.T @ H + penalty * np.eye(H.shape[1]), H.T @ G)
    head = fit_head(cfg, CFG, PARAMS, rows, chunks)["kernel"][:, 0]
    np.testing.assert_allclose(head, w, rtol=2e-3, atol=2e-4)


def test_values_are_the_returns_where_states_can_tell_them():
    """Returns that are linear in the state are found again."""
    cfg = tiny_ppo.config()
    rows = tiny_ppo.random_rows(np.random.default_rng(1), rows=64)
    values = ppo_terms.state_values(CFG, PARAMS, rows)
    following = np.concatenate([values[:, 1:], np.zeros((64, 1))], axis=1)
    real = np.arange(5)[None] < rows.lengths[:, None]
    following = following * np.roll(real, -1, axis=1) * (np.arange(5) < 4)
    rows = rows._replace(rewards=np.asarray((values - following) * real, np.float32))
    head = fit_head(cfg, CFG, PARAMS, rows, 8)
    found = ppo_terms.state_values(CFG, {**PARAMS, "head": head}, rows)
    explained = ppo_terms.explained_variance(values, found, real)
    assert explained > 0.999


def test_the_price_of_kl_plays_no_part():
    """The starting policy is the reference: its KL is zero whatever it costs."""
    rows = tiny_ppo.random_rows(np.random.default_rng(2), rows=16)
    heads = [
        fit_head(tiny_ppo.config(kl=tiny_ppo.KLConfig(coef=c)), CFG, PARAMS, rows)
        for c in (0.0, 5.0)
    ]
    jax.tree.map(np.testing.assert_array_equal, *heads)


def test_a_run_begins_with_the_fitted_critic():
    """The first iteration's values are those of the head, not those of the model."""
    cfg = tiny_ppo.config(iterations=1, fit_critic=64)
    reward_fn = tiny_ppo.rewards(tiny_ppo.token_reward(tiny_ppo.TABLE))
    given = (
        tiny_ppo.CFG, tiny_ppo.policy(), tiny_ppo.PROMPTS, reward_fn, cfg,
        tiny_ppo.SAMPLING,
    )  # fmt: skip

    def explained(cfg, value):
        fitted = ppo(
            *given[:4], cfg, given[5], value=value, optimizer=tiny_ppo.ADAM,
            loop=tiny_ppo.LOOP,
        )  # fmt: skip
        return fitted.rows[0]["train/explained_variance"]

    value = with_fitted_head(*given, tiny_ppo.value())
    plain = dataclasses.replace(cfg, fit_critic=0)
    assert explained(cfg, tiny_ppo.value()) == explained(plain, value)
    assert explained(cfg, tiny_ppo.value()) > explained(plain, tiny_ppo.value())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit_critic": 5}, "multiple of the 8 responses of a micro-batch"),
        ({"fit_critic": 8, "estimator": "rloo"}, "'rloo' has no critic"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_ppo.config(**settings)
