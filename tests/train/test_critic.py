"""A critic's head, fitted to returns."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny_ppo

from train import ppo_terms
from train.critic import RIDGES, fit_head
from train.errors import ConfigError
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


def solved(H, G, ridge):
    penalty = ridge * np.trace(H.T @ H) / H.shape[1]
    return np.linalg.solve(H.T @ H + penalty * np.eye(H.shape[1]), H.T @ G)


@pytest.mark.parametrize("chunks", [1, 2, 8])
def test_the_head_solves_the_normal_equations(chunks):
    """Closed form in float64, with the ridge that does best on every second row."""
    cfg = tiny_ppo.config(gamma=0.9)
    rows = tiny_ppo.random_rows(np.random.default_rng(0), rows=32)
    halves = [jax.tree.map(lambda x, i=i: x[i::2], rows) for i in (0, 1)]
    (H, G), (H2, G2) = (states_and_returns(cfg, half) for half in halves)
    scores = [
        1 - ((H2 @ solved(H, G, r) - G2) ** 2).sum() / (G2**2).sum() for r in RIDGES
    ]
    ridge = RIDGES[int(np.argmax(scores))]
    found = fit_head(cfg, CFG, PARAMS, rows, chunks)
    assert float(found.explained) == pytest.approx(max(scores), abs=2e-3)
    w = solved(np.concatenate([H, H2]), np.concatenate([G, G2]), ridge)
    np.testing.assert_allclose(found.head["kernel"][:, 0], w, rtol=2e-3, atol=2e-4)


def test_values_are_the_returns_where_states_can_tell_them():
    """Returns that are linear in the state are found again."""
    cfg = tiny_ppo.config()
    rows = tiny_ppo.random_rows(np.random.default_rng(1), rows=64)
    values = ppo_terms.state_values(CFG, PARAMS, rows)
    following = np.concatenate([values[:, 1:], np.zeros((64, 1))], axis=1)
    real = np.arange(5)[None] < rows.lengths[:, None]
    following = following * np.roll(real, -1, axis=1) * (np.arange(5) < 4)
    rows = rows._replace(rewards=np.asarray((values - following) * real, np.float32))
    fitted = fit_head(cfg, CFG, PARAMS, rows, 8)
    found = ppo_terms.state_values(CFG, {**PARAMS, "head": fitted.head}, rows)
    assert ppo_terms.explained_variance(values, found, real) > 0.999
    assert fitted.explained > 0.99


def test_returns_that_states_do_not_tell_leave_values_near_zero():
    """As many responses as dimensions, and noise: on others the chosen ridge costs a
    few hundredths, the weakest half of what there is to explain.
    """
    others = tiny_ppo.random_rows(np.random.default_rng(7), rows=128)
    states, returns = states_and_returns(tiny_ppo.config(), others)
    chosen, weakest = [], []
    for seed in range(12):
        rows = tiny_ppo.random_rows(np.random.default_rng([6, seed]), rows=16)
        head = fit_head(tiny_ppo.config(), CFG, PARAMS, rows, 1).head["kernel"]
        chosen.append(np.mean((states @ head[:, 0] - returns) ** 2))
        weak = solved(*states_and_returns(tiny_ppo.config(), rows), RIDGES[0])
        weakest.append(np.mean((states @ weak - returns) ** 2))
    nothing = np.mean(returns**2)
    assert np.mean(chosen) < 1.15 * nothing
    assert np.mean(weakest) > 1.4 * nothing


def test_the_price_of_kl_plays_no_part():
    """The starting policy is the reference: its KL is zero whatever it costs."""
    rows = tiny_ppo.random_rows(np.random.default_rng(2), rows=16)
    heads = [
        fit_head(tiny_ppo.config(kl=tiny_ppo.KLConfig(coef=c)), CFG, PARAMS, rows, 1)
        for c in (0.0, 5.0)
    ]
    jax.tree.map(np.testing.assert_array_equal, *heads)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_critic(tmp_path):
    """Equality, bit by bit, with a run in one go; the head is fitted once."""
    reward_fn = tiny_ppo.rewards(tiny_ppo.token_reward(tiny_ppo.TABLE))
    cfg = tiny_ppo.config(iterations=3, fit_critic=64)
    drawn = []

    def run(folder, fails_at=None):
        def rewarded(rollout, ids):
            drawn.append(len(ids))
            if len(drawn) == fails_at:
                raise InterruptedError
            return reward_fn(rollout, ids)

        return ppo(
            tiny_ppo.CFG, tiny_ppo.policy(), tiny_ppo.PROMPTS, rewarded, cfg,
            tiny_ppo.SAMPLING, value=tiny_ppo.value(), optimizer=tiny_ppo.ADAM,
            loop=dataclasses.replace(tiny_ppo.LOOP, checkpoint_every=1),
            workdir=folder,
        ).state  # fmt: skip

    whole = run(tmp_path / "whole")
    assert drawn == [64, 16, 16, 16]
    drawn.clear()
    with pytest.raises(InterruptedError):
        run(tmp_path / "parts", fails_at=3)
    again = run(tmp_path / "parts")
    assert drawn == [64, 16, 16, 16, 16]
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_responses_without_a_token_that_counts_are_refused():
    """With EOS outside, a policy that ends at once has nothing to fit."""
    cfg = tiny_ppo.config(
        fit_critic=16, quirks=tiny_ppo.ppo_terms.Quirks(eos_outside=True)
    )
    reward_fn = tiny_ppo.rewards(tiny_ppo.token_reward(tiny_ppo.TABLE))
    ends = tiny_ppo.SAMPLING.__class__(eos_ids=tuple(range(8)))
    with pytest.raises(ConfigError, match="fit_critic: the returns of 16 responses"):
        with_fitted_head(
            tiny_ppo.CFG, tiny_ppo.policy(), tiny_ppo.PROMPTS, reward_fn, cfg, ends,
            tiny_ppo.value(),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit_critic": 8}, "multiple of 16, twice the responses of a micro-batch"),
        ({"fit_critic": 16, "estimator": "rloo"}, "'rloo' has no critic"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_ppo.config(**settings)
