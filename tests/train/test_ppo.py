"""What an iteration of PPO must keep, and published code breaks."""

import ast
import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_ppo as tiny
from helpers.tiny_run import same_bits

from models import sampler
from models.sampling import LENGTH, Sampling
from train import kl as kl_lib
from train import ppo as ppo_lib
from train import ppo_config, ppo_terms, rewards
from train.errors import ConfigError
from train.ppo_config import FAITHFUL, PPOConfig, Quirks
from train.prompts import PromptOrder, Prompts

RULES = Sampling(temperature=0.7, top_k=6, eos_ids=(tiny.EOS,))
SETTINGS = tiny.config(epochs=2)
TABLE = [0.1, -0.2, 0.3, 0.0, 0.5, -0.4, 0.2, 1.0]


class Ran(NamedTuple):
    """One iteration: what went in, and what came out."""

    rollout: object
    rows: ppo_terms.Experience
    state: ppo_lib.PPOState
    metrics: dict


class Program:
    """An update compiled once, and the iterations that use it."""

    def __init__(self, cfg=SETTINGS, width=None):
        self.cfg = cfg
        models, state = self.start()
        self.update = ppo_lib.make_update(models, cfg, RULES, state)
        self.key = jax.random.key(cfg.seed)
        self.reward = rewards.combine([rewards.Term(tiny.token_reward(TABLE))])

    def start(self):
        return ppo_lib.start(
            tiny.CFG, tiny.policy(), self.cfg, tiny.value(), tiny.ADAM, tiny.ADAM
        )

    def run(self, wanted, reward=None) -> Ran:
        """One iteration from the start, with all that passes through it."""
        seen = {}

        def reward_fn(rollout, ids):
            seen["rollout"] = rollout
            return (reward or self.reward)(rollout, ids)

        def update(state, reference, rows, key):
            seen["rows"] = jax.tree.map(np.asarray, jax.device_get(rows))
            return self.update(state, reference, rows, key)

        step = ppo_lib.make_iteration(
            tiny.CFG, self.cfg, RULES, tiny.PROMPTS, reward_fn, update, tiny.policy(),
            self.key, slots=8,
        )  # fmt: skip
        state, metrics = step(self.start()[1], wanted)
        return Ran(seen["rollout"], seen["rows"], state, jax.device_get(metrics))


@pytest.fixture(scope="module")
def program():
    return Program()


@pytest.fixture(scope="module")
def ran(program):
    return program.run(Prompts(0, np.arange(4)))


def mean(pair):
    return float(pair[0]) / float(pair[1])


# The distribution that counts.


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
    rows = random_rows(rng)

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


def random_rows(rng, rows=6, width=5):
    lengths = rng.integers(1, width + 1, rows).astype(np.int32)
    real = np.arange(width) < lengths[:, None]
    return ppo_terms.Experience(
        prompts=rng.integers(0, 7, (rows, 3)).astype(np.int32),
        prompt_lengths=rng.integers(1, 4, rows).astype(np.int32),
        tokens=rng.integers(0, 7, (rows, width)).astype(np.int32),
        lengths=lengths,
        ended=np.zeros(rows, bool),
        sampled=np.zeros((rows, width), np.float32),
        rewards=(rng.normal(size=(rows, width)) * real).astype(np.float32),
        baseline=np.zeros(rows, np.float32),
    )


def test_the_first_iteration_has_no_kl_and_the_samplers_log_probs(ran):
    """Equality: KL metrics are 0.0; old log-probs are the sampler's to 1e-4."""
    for name in ("k1", "k2", "k3", "response"):
        assert float(ran.metrics[f"kl/{name}"][0]) == 0.0
    assert mean(ran.metrics["sampler_error"]) < 1e-4


def test_the_first_ratio_is_one(ran):
    """Equality to 1e-5 in the first minibatch; not in the mean over all of them."""
    assert mean(ran.metrics["first_ratio_error"]) < 1e-5
    assert mean(ran.metrics["ratio_error"]) > 1e-3


def test_greedy_rollouts_are_refused():
    """Error: a policy gradient needs draws."""
    with pytest.raises(ConfigError, match="temperature"):
        ppo_terms.scoring_rules(Sampling(temperature=0.0), Quirks())


# Where rewards and masks lie.


def test_three_tenths_on_eos_arrive_as_three_tenths(program):
    """Equality: the reward's metric, and the update's own rewards, are float32 0.3."""
    once = rewards.combine(
        [
            rewards.Term(
                rewards.Reward("r", "terminal", lambda r, ids: np.full(len(ids), 0.3))
            )
        ]
    )
    ran = program.run(Prompts(0, np.arange(4)), once)
    assert mean(ran.metrics["reward"]) == pytest.approx(0.3, rel=1e-6)
    assert ran.rows.rewards.dtype == np.float32
    last = ran.rows.rewards[np.arange(16), ran.rows.lengths - 1]
    assert set(last.tolist()) == {np.float32(0.3).item()}
    assert np.any(ran.rows.ended) and not np.all(ran.rows.ended)
    ended = ran.rows.tokens[np.arange(16), ran.rows.lengths - 1] == tiny.EOS
    np.testing.assert_array_equal(ended, ran.rows.ended)
    batch = plain_estimate(ran.rows)
    np.testing.assert_allclose(batch.returns[:, 0], 0.3, rtol=1e-6)


def plain_estimate(rows, **settings):
    """Advantages without KL and whitening, from values of zero."""
    zeros = jnp.zeros(rows.tokens.shape)
    cfg = PPOConfig(
        prompts=len(rows.lengths), minibatch=len(rows.lengths),
        **{"whiten_advantages": False, **settings},
    )  # fmt: skip
    ratio = ppo_terms.estimate(cfg, rows, zeros, zeros, zeros, jnp.float32(0))
    return ratio[0]


def test_eos_is_inside_the_mask_and_pad_ids_are_tokens():
    """Equality: masks are 1 up to the length, for ids that are 0 as for EOS."""
    rows = random_rows(np.random.default_rng(1), rows=3)._replace(
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
    batch = plain_estimate(rows)
    np.testing.assert_array_equal(batch.returns, mask)  # gamma 1: 1 up to the reward
    outside = plain_estimate(rows, quirks=Quirks(eos_outside=True))
    expected = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(outside.mask, expected)
    np.testing.assert_array_equal(outside.returns, expected)


def test_eos_learns(program, ran):
    """Inequality: rewarded only for EOS, its probability grows where it was drawn."""
    table = np.eye(8)[tiny.EOS]
    reward = rewards.combine([rewards.Term(tiny.token_reward(table))])
    after = program.run(Prompts(0, np.arange(4)), reward)
    drawn = ran.rows.tokens == tiny.EOS

    @jax.jit
    def chances(params):
        return ppo_terms.response_scores(tiny.CFG, Sampling(), params, ran.rows)[0]

    before, now = (
        np.exp(chances(p))[drawn] for p in (tiny.policy(), after.state.params)
    )
    assert len(before) > 3 and now.mean() > before.mean() + 0.02


# What results must not depend on.


def test_neither_micro_batches_nor_padding_change_the_update(program, ran):
    """Invariance: 4 micro-batches and wider, dirty padding give the same parameters."""
    cfg = dataclasses.replace(SETTINGS, accum=4, max_new_tokens=9)
    other = Program(cfg)
    rows = ran.rows
    dirty = np.random.default_rng(0)

    def wider(x, grow, low, high):
        new = dirty.integers(low, high, (len(x), grow)).astype(x.dtype)
        return np.concatenate([x, new], axis=1)

    place = np.arange(rows.tokens.shape[1])[None] < rows.lengths[:, None]
    junk = np.where(place, rows.tokens, dirty.integers(0, 8, rows.tokens.shape))
    padded = rows._replace(
        prompts=wider(rows.prompts, 5, 0, 8),
        tokens=wider(junk.astype(np.int32), 4, 0, 8),
        rewards=wider(rows.rewards, 4, 3, 5),
        sampled=wider(rows.sampled, 4, 3, 5),
    )
    state, metrics = other.update(
        other.start()[1], tiny.policy(), jax.device_put(padded), other.key
    )
    close = dict(rtol=2e-3, atol=2e-5)  # Adam divides by small second moments
    for a, b in zip(
        jax.tree.leaves((state.policy.params, state.value.params)),
        jax.tree.leaves((ran.state.policy.params, ran.state.value.params)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, **close)
    for name, value in metrics.items():
        expected = ran.metrics[name]
        np.testing.assert_allclose(value, expected, rtol=2e-3, atol=1e-4, err_msg=name)


def test_noise_differs_between_iterations_and_replays_exactly(program, ran):
    """Equality of a replay, bit by bit; other tokens for another iteration number."""
    again = program.run(Prompts(0, np.arange(4)))
    assert same_bits(again.rows, ran.rows)
    assert same_bits(again.state, ran.state)
    later = program.run(Prompts(1, np.arange(4)))
    assert np.mean(later.rows.tokens != ran.rows.tokens) > 0.2
    samples = ran.rows.tokens.reshape(4, 4, -1)
    assert all(len({tuple(s) for s in group.tolist()}) > 1 for group in samples)


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


def test_the_order_of_prompts_is_a_function_of_seed_and_iteration():
    """Invariance: each prompt once per epoch, across the borders of iterations."""
    prompts = [[i] for i in range(10)]
    order = PromptOrder(prompts, 4, seed=3)
    drawn = np.concatenate([order[i].ids for i in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert list(drawn[:10]) != list(drawn[10:])
    again = PromptOrder(prompts, 4, seed=3)
    np.testing.assert_array_equal(again[2].ids, drawn[8:12])  # asked for alone
    assert again.fingerprint == order.fingerprint
    assert PromptOrder(prompts[1:], 4, 3).fingerprint != order.fingerprint
    assert PromptOrder(prompts, 4, 4).fingerprint != order.fingerprint


# What an iteration is.


def test_an_iteration_is_one_rollout_and_one_update(program, monkeypatch):
    """Equality: one call each, epochs and minibatches inside; nothing in between."""
    calls = []
    generate = sampler.generate

    def counted(*args, **kwargs):
        calls.append("rollout")
        return generate(*args, **kwargs)

    def update(state, reference, rows, key):
        assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(rows))
        calls.append("update")
        return program.update(state, reference, rows, key)

    def reward_fn(rollout, ids):
        calls.append("rewards")
        return program.reward(rollout, ids)

    monkeypatch.setattr(ppo_lib.sampler, "generate", counted)
    step = ppo_lib.make_iteration(
        tiny.CFG, SETTINGS, RULES, tiny.PROMPTS, reward_fn, update, tiny.policy(),
        program.key, slots=8,
    )  # fmt: skip
    state = program.start()[1]
    for i in range(2):
        state, _ = step(state, Prompts(i, np.arange(4)))
    assert calls == ["rollout", "rewards", "update"] * 2
    assert int(state.iteration) == 2
    assert int(state.policy.step) == int(state.value.step) == 2 * SETTINGS.updates == 8


def test_the_update_moves_nothing_from_or_to_the_host(program, ran):
    """Error in the control only: under the guard host rows are refused, placed pass."""
    state = program.start()[1]
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="[Dd]isallowed host-to-device"):
            program.update(state, tiny.policy(), ran.rows, program.key)
    state, placed = program.start()[1], jax.device_put(ran.rows)
    with jax.transfer_guard("disallow"):
        state, _ = program.update(state, tiny.policy(), placed, program.key)
    assert same_bits(state, ran.state)


def test_remax_knows_the_reward_of_the_greedy_response(program):
    """Equality: every sample's baseline is what its prompt's greedy response earns."""
    cfg = tiny.config(estimator="remax")
    models, state = ppo_lib.start(
        tiny.CFG, tiny.policy(), cfg, None, tiny.ADAM, tiny.ADAM
    )
    assert state.value is None
    drawn = []

    def reward_fn(rollout, ids):
        drawn.append((rollout, list(ids)))
        return program.reward(rollout, ids)

    def update(state, reference, rows, key):
        made = ppo_lib.make_update(models, cfg, RULES)
        return jax.eval_shape(made, state, reference, rows, key)[0], {"rows": rows}

    step = ppo_lib.make_iteration(
        tiny.CFG, cfg, RULES, tiny.PROMPTS, reward_fn, update, tiny.policy(),
        program.key, slots=8,
    )  # fmt: skip
    new, metrics = step(state, Prompts(0, np.array([2, 0, 1, 3])))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    (_, ids), (greedy, greedy_ids) = drawn
    assert ids == [2] * 4 + [0] * 4 + [1] * 4 + [3] * 4 and greedy_ids == [2, 0, 1, 3]
    assert not np.any(greedy.sampling_log_probs)
    earned = rewards.totals(program.reward(greedy, greedy_ids))
    np.testing.assert_array_equal(metrics["rows"].baseline, np.repeat(earned, 4))


def test_the_reference_stays(program, ran):
    """Equality: the reference's parameters are not consumed; the policy's moved."""
    assert not any(x.is_deleted() for x in jax.tree.leaves(tiny.policy()))
    assert not same_bits(ran.state.params, tiny.policy())


# The losses.


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
    rows = random_rows(np.random.default_rng(2))
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


# The quirks of the original code, by name.


def test_padded_whitening_makes_returns_depend_on_length():
    """Closed form: every place past the end gets mean - mean / std of all places."""
    rows = random_rows(np.random.default_rng(3))
    r = rows.rewards
    level = r.mean() - r.mean() / np.sqrt(r.var() + 1e-8)
    batch = plain_estimate(rows, whiten_rewards=True, quirks=Quirks(pad_whitening=True))
    scaled = (r - r.mean()) / np.sqrt(r.var() + 1e-8) + r.mean()
    np.testing.assert_allclose(scaled[r == 0], level, atol=1e-5)
    np.testing.assert_allclose(batch.returns[:, 0], scaled.sum(1), atol=1e-4)
    fixed = plain_estimate(rows, whiten_rewards=True)
    real = r[np.arange(5)[None] < rows.lengths[:, None]]
    expected = (real[: rows.lengths[0]] - real.mean()) / real.std() + real.mean()
    np.testing.assert_allclose(fixed.returns[0, 0], expected.sum(), atol=1e-4)


def test_full_softmax_ignores_truncation_only():
    """Equality: the rules without top-k, top-p, min-p; temperature and bans stay."""
    rules = Sampling(temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, banned=(3,))
    found = ppo_terms.scoring_rules(rules, Quirks(full_softmax=True))
    assert found == Sampling(temperature=0.7, banned=(3,))
    assert ppo_terms.scoring_rules(rules, Quirks()) == rules


def test_quirks_are_off_unless_asked_for():
    """Equality: the default has none, the faithful preset all."""
    assert not any(dataclasses.astuple(Quirks()))
    assert all(dataclasses.astuple(FAITHFUL))


def test_truncated_responses_pay_where_configured(program, ran):
    """Equality: the penalty's metric is minus the share of reason "length"."""
    pays = rewards.combine([rewards.Term(rewards.missing_eos(), 2.0)])
    found = program.run(Prompts(0, np.arange(4)), pays)
    cut = np.mean(ran.rollout.reasons == LENGTH)
    assert 0 < cut < 1
    assert mean(found.metrics["reward/missing_eos"]) == pytest.approx(-2 * cut)
    assert mean(found.metrics["eos"]) == pytest.approx(1 - cut)
    assert mean(found.metrics["length"]) == pytest.approx(ran.rows.lengths.mean())


# The settings.


def test_every_setting_is_read():
    """Invariance: each field of the settings is an attribute somewhere in the code."""
    folder = Path(ppo_config.__file__).parent
    read = set()
    for name in ("ppo.py", "ppo_terms.py", "kl.py", "ppo_config.py"):
        for node in ast.walk(ast.parse((folder / name).read_text())):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
    for cls in (PPOConfig, Quirks, kl_lib.KLConfig):
        for field in dataclasses.fields(cls):
            assert field.name in read, f"{cls.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"minibatch": 6}, "minibatch: expected a divisor of the 16 responses"),
        ({"minibatch": 8, "accum": 3}, "multiple of accum 3"),
        ({"estimator": "rloo", "samples": 1, "minibatch": 4}, "samples.*at least 2"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    """Error: names the setting and what was expected."""
    with pytest.raises(ValueError, match=message):
        tiny.config(**fields)


def test_gae_without_a_critic_is_refused():
    """Error: names the estimator."""
    with pytest.raises(ConfigError, match="estimator: 'gae' needs a critic"):
        ppo_lib.start(tiny.CFG, tiny.policy(), SETTINGS, None, tiny.ADAM, tiny.ADAM)
