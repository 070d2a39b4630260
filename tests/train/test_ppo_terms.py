"""The mathematics of PPO: KL, masks, losses, and the original code's quirks."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_ppo as tiny
from helpers.devices import run_on_devices

from models.sampling import Sampling
from train import kl as kl_lib
from train import ppo_terms
from train.errors import ConfigError
from train.ppo_config import Quirks


@pytest.mark.parametrize(
    "rules",
    [
        {"temperature": 0.7},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.3},
        {"banned": (2, 5), "bias": ((1, 2.0),), "temperature": 1.3},
        {"ngram_penalties": (0.0, 1.5), "top_k": 5, "temperature": 0.9},
    ],
    ids=lambda rules: "+".join(rules),
)
def test_the_kl_of_a_policy_with_itself_is_zero(rules):
    """Equality, bit by bit: every estimator is 0 on every token, drawn or not."""
    rules = Sampling(**rules)
    rng = np.random.default_rng(0)
    rows = tiny.random_rows(rng)

    def scored(params):
        score = partial(ppo_terms.response_scores, tiny.CFG, rules, params)
        return ppo_terms.by_chunks(score, rows, 1)[0]

    @jax.jit
    def kl(policy, reference):
        old, ref = scored(policy), scored(reference)
        ratio = kl_lib.log_ratio(old, ref)
        return old, {k: fn(ratio) for k, fn in kl_lib.ESTIMATORS.items()}

    same = jax.tree.map(jnp.copy, tiny.policy())
    old, estimates = kl(tiny.policy(), same)
    assert np.any(old < -0.5)
    for value in estimates.values():
        assert not np.any(value)
    _, other = kl(tiny.policy(), tiny.policy(5))
    assert np.all(np.isfinite(other["k1"])) and np.any(other["k1"])


def test_greedy_rollouts_are_refused():
    """Error: a policy gradient needs draws."""
    with pytest.raises(ConfigError, match="temperature"):
        ppo_terms.scoring_rules(Sampling(temperature=0.0), Quirks())


def test_eos_is_inside_the_mask_and_pad_ids_are_tokens():
    """Equality: masks are 1 up to the length, for ids that are 0 as for EOS."""
    rows = tiny.random_rows(np.random.default_rng(1), rows=3)._replace(
        tokens=np.array([[0, 0, 7, 0, 0], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32),
        lengths=np.array([3, 1, 5], np.int32),
        ended=np.array([True, True, False]),
        rewards=np.array(
            [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], np.float32
        ),
    )
    mask = ppo_terms.response_mask(rows, Quirks())
    np.testing.assert_array_equal(
        mask, [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    )
    batch = tiny.plain_estimate(rows)
    np.testing.assert_array_equal(batch.returns, mask)  # gamma 1: 1 up to the reward
    outside = tiny.plain_estimate(rows, quirks=Quirks(eos_outside=True))
    expected = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(outside.mask, expected)
    np.testing.assert_array_equal(outside.returns, expected)


def test_minibatches_are_permutations_that_change():
    """Invariance: every epoch has every row once; epochs and iterations differ."""
    cfg = tiny.config(epochs=3)
    orders = [
        np.asarray(ppo_terms.minibatch_rows(cfg, jax.random.key(i))) for i in (0, 1)
    ]
    for order in orders:
        assert order.shape == (6, 8)
        for epoch in order.reshape(3, 16):
            assert sorted(epoch) == list(range(16))
    flat = [tuple(epoch) for order in orders for epoch in order.reshape(3, 16)]
    assert len(set(flat)) == 6
    cfg = dataclasses.replace(cfg, quirks=Quirks(unshuffled=True))
    plain = np.asarray(ppo_terms.minibatch_rows(cfg, jax.random.key(0)))
    np.testing.assert_array_equal(plain.reshape(3, 16), [range(16)] * 3)


def tabular_batch(log_probs, advantages, mask, values=None, returns=None):
    zeros = np.zeros_like(advantages)
    return ppo_terms.Batch(
        None, mask, log_probs, zeros if values is None else values, advantages,
        zeros if returns is None else returns,
    )  # fmt: skip


def test_the_policy_loss_is_the_clipped_surrogate():
    """Closed form: mean over tokens of max(-A r, -A clip(r)), for every divisor."""
    rng = np.random.default_rng(0)
    old, new, A = rng.normal(0, 0.4, (3, 4, 3)).astype(np.float32)
    mask = np.tril(np.ones((4, 3), np.float32))
    r = np.exp(new - old)
    expected = np.sum(np.maximum(-A * r, -A * np.clip(r, 0.9, 1.1)) * mask)

    def score(params, rows):
        return new, np.full((4, 3), 2.0, np.float32)

    for settings, weight in (
        ({}, mask.sum()),
        ({"divide": "responses"}, 4),
        ({"quirks": Quirks(pad_means=True)}, 12),
    ):
        cfg = tiny.config(clip=0.1, **settings)
        found = ppo_terms.policy_loss(cfg, score, None, tabular_batch(old, A, mask))
        assert float(found.sum) == pytest.approx(expected, rel=1e-5)
        assert float(found.weight) == weight
        cfg = dataclasses.replace(cfg, entropy_coef=0.1)
        found = ppo_terms.policy_loss(cfg, score, None, tabular_batch(old, A, mask))
        bonus = 0.1 * 2.0 * mask.sum()
        assert float(found.sum) == pytest.approx(expected - bonus, rel=1e-5)


def test_the_value_loss_is_the_larger_square():
    """Closed form: coef / 2 * mean of the larger of two squared errors."""
    rng = np.random.default_rng(0)
    old, new, returns = rng.normal(0, 1, (3, 4, 3)).astype(np.float32)
    mask = np.tril(np.ones((4, 3), np.float32))
    near = old + np.clip(new - old, -0.3, 0.3)
    squares = np.maximum((new - returns) ** 2, (near - returns) ** 2)
    cfg = tiny.config(value_clip=0.3, value_coef=0.5)
    batch = tabular_batch(old, returns, mask, old, returns)
    found = ppo_terms.value_loss(cfg, lambda params, rows: new, None, batch)
    expected = 0.25 * np.sum(squares * mask)
    assert float(found.sum) == pytest.approx(expected, rel=1e-5)
    assert float(found.weight) == mask.sum()
    cfg = dataclasses.replace(cfg, value_coef=0.0)  # zero is not "unset"
    assert float(ppo_terms.value_loss(cfg, lambda *_: new, None, batch).sum) == 0.0


def test_values_are_of_the_state_before_the_token():
    """Equality: V_t is the head on the token before t, whatever comes from t on."""
    rows = tiny.random_rows(np.random.default_rng(2))
    cfg, params = tiny.value()
    values = jax.jit(lambda rows: ppo_terms.state_values(cfg, params, rows))
    found = np.asarray(values(rows))
    changed = rows.tokens.copy()
    changed[:, 2:] = (changed[:, 2:] + 1) % 7
    after = np.asarray(values(rows._replace(tokens=changed)))
    np.testing.assert_allclose(found[:, :3], after[:, :3], atol=1e-6)
    longer = rows.lengths > 3
    assert np.all(np.abs(found[longer, 3] - after[longer, 3]) > 1e-6)
    assert not np.any(found[np.arange(5)[None] >= rows.lengths[:, None]])


def test_padded_whitening_makes_returns_depend_on_length():
    """Closed form: every place past the end gets mean - mean / std of all places."""
    rows = tiny.random_rows(np.random.default_rng(3))
    r = rows.rewards
    level = r.mean() - r.mean() / np.sqrt(r.var() + 1e-8)
    quirks = Quirks(pad_whitening=True, shift_rewards=True)
    batch = tiny.plain_estimate(rows, whiten_rewards=True, quirks=quirks)
    scaled = (r - r.mean()) / np.sqrt(r.var() + 1e-8) + r.mean()
    np.testing.assert_allclose(scaled[r == 0], level, atol=1e-5)
    np.testing.assert_allclose(batch.returns[:, 0], scaled.sum(1), atol=1e-4)


def test_whitened_rewards_say_nothing_of_length():
    """Identity: returns of right and wrong responses are 1 / std and 0, at any length.

    With the original's shift, two right responses differ by (mean - mean / std) for
    each token that one is longer.
    """
    rows = tiny.random_rows(np.random.default_rng(3), rows=16, width=9)
    right = np.arange(16) % 5 < 2
    rewards = np.zeros((16, 9), np.float32)
    rewards[np.arange(16), rows.lengths - 1] = right
    rows = rows._replace(rewards=rewards)
    real = rewards[np.arange(9) < rows.lengths[:, None]]
    mean, std = real.mean(), real.std()
    assert len(set(rows.lengths[right])) > 2 and len(set(rows.lengths[~right])) > 2
    fixed = tiny.plain_estimate(rows, whiten_rewards=True).returns[:, 0]
    np.testing.assert_allclose(fixed, right / std, rtol=1e-4)
    quirk = Quirks(shift_rewards=True)
    found = tiny.plain_estimate(rows, whiten_rewards=True, quirks=quirk).returns[:, 0]
    expected = right / std + rows.lengths * (mean - mean / std)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_full_softmax_ignores_truncation_only():
    """Equality: the rules without top-k, top-p, min-p; temperature and bans stay."""
    rules = Sampling(temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, banned=(3,))
    found = ppo_terms.scoring_rules(rules, Quirks(full_softmax=True))
    assert found == Sampling(temperature=0.7, banned=(3,))
    assert ppo_terms.scoring_rules(rules, Quirks()) == rules


def test_eight_devices_whiten_estimate_and_lose_as_one(tmp_path):
    """Equality to rounding: statistics are of all rows, not of a device's own."""
    found = run_on_devices(8, "spread_terms.py", tmp_path)
    assert set(found) == {"advantages", "returns", "policy", "value", "measured"}
    for name, (difference, largest) in found.items():
        assert difference < 1e-5 * max(1, largest) and largest > 0.01, name
