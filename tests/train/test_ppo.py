"""What an iteration of PPO must keep, and published code breaks."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from helpers import tiny_ppo as tiny
from helpers.tiny_run import same_bits

from models import sampler
from models.sampling import LENGTH, Sampling
from train import ppo as ppo_lib
from train import ppo_terms, rewards
from train.errors import ConfigError
from train.prompts import Prompts

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

    def __init__(self, cfg=SETTINGS, kind="full"):
        self.cfg, self.begin = cfg, tiny.STARTS[kind]()
        models, state = self.start()
        self.update = ppo_lib.make_update(models, cfg, RULES, state)
        self.key = jax.random.key(cfg.seed)
        self.reward = rewards.combine([rewards.Term(tiny.token_reward(TABLE))])

    def start(self):
        return ppo_lib.start(
            tiny.CFG, self.begin.params, self.cfg, self.begin.value, tiny.ADAM,
            tiny.ADAM, self.begin.roles,
        )  # fmt: skip

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
            tiny.CFG, self.cfg, RULES, tiny.PROMPTS, reward_fn, update,
            self.begin.reference, self.key, roles=self.begin.roles, slots=8,
        )  # fmt: skip
        state, metrics = step(self.start()[1], wanted)
        return Ran(seen["rollout"], seen["rows"], state, jax.device_get(metrics))


@functools.cache
def program_of(kind) -> Program:
    return Program(kind=kind)


@functools.cache
def ran_of(kind) -> Ran:
    return program_of(kind).run(Prompts(0, np.arange(4)))


@pytest.fixture(scope="module")
def program():
    return program_of("full")


@pytest.fixture(scope="module")
def ran():
    return ran_of("full")


KINDS = pytest.mark.parametrize("kind", ["full", "lora"])


def mean(pair):
    return float(pair[0]) / float(pair[1])


@KINDS
def test_the_first_iteration_has_no_kl_and_the_samplers_log_probs(kind):
    """Equality: KL metrics are 0.0; old log-probs are the sampler's to 1e-4."""
    ran = ran_of(kind)
    for name in ("k1", "k2", "k3", "response"):
        assert float(ran.metrics[f"kl/{name}"][0]) == 0.0
    assert mean(ran.metrics["sampler_error"]) < 1e-4


@KINDS
def test_the_first_ratio_is_one(kind):
    """Equality to 1e-5 of every token of the first minibatch; not of all of them."""
    ran = ran_of(kind)
    assert ran.metrics["first_ratio_error"].shape == ()
    assert ran.metrics["first_ratio_error"] < 1e-5
    assert mean(ran.metrics["ratio_error"]) > 1e-3
    assert ran.metrics["largest_ratio_error"] > mean(ran.metrics["ratio_error"])


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
    batch = tiny.plain_estimate(ran.rows)
    np.testing.assert_allclose(batch.returns[:, 0], 0.3, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("kind", "whitened"), [("full", False), ("lora", False), ("full", True)]
)
def test_neither_micro_batches_nor_padding_change_the_update(kind, whitened):
    """Invariance: 4 micro-batches and wider, dirty padding give the same parameters.

    Whitened rewards are divided by a number that all rows and no padding decide.
    """
    ran, settings = ran_of(kind), SETTINGS
    rows = ran.rows
    if whitened:
        settings = dataclasses.replace(SETTINGS, whiten_rewards=True)
        whole, plain = Program(settings, kind), ran.metrics
        state, metrics = whole.update(
            whole.start()[1], whole.begin.reference, jax.device_put(rows), whole.key
        )
        ran = ran._replace(state=state, metrics=metrics)
        assert abs(mean(plain["value/loss"]) / mean(metrics["value/loss"]) - 1) > 0.1
    cfg = dataclasses.replace(settings, accum=4, max_new_tokens=9)
    other = Program(cfg, kind)
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
        other.start()[1], other.begin.reference, jax.device_put(padded), other.key
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


@KINDS
def test_noise_differs_between_iterations_and_replays_exactly(kind):
    """Equality of a replay, bit by bit; other tokens for another iteration number."""
    program, ran = program_of(kind), ran_of(kind)
    again = program.run(Prompts(0, np.arange(4)))
    assert same_bits(again.rows, ran.rows)
    assert same_bits(again.state, ran.state)
    later = program.run(Prompts(1, np.arange(4)))
    assert np.mean(later.rows.tokens != ran.rows.tokens) > 0.2
    samples = ran.rows.tokens.reshape(4, 4, -1)
    assert all(len({tuple(s) for s in group.tolist()}) > 1 for group in samples)


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


@KINDS
def test_the_reference_stays(kind):
    """Equality: the reference's parameters are not consumed; the policy's moved."""
    ran, begin = ran_of(kind), tiny.STARTS[kind]()
    frozen = begin.params, begin.reference
    assert not any(x.is_deleted() for x in jax.tree.leaves(frozen))
    assert not same_bits(ran.state.params, begin.params)
    assert not same_bits(ran.state.value.params, begin.value[1])


def test_truncated_responses_pay_where_configured(program, ran):
    """Equality: the penalty's metric is minus the share of reason "length"."""
    pays = rewards.combine([rewards.Term(rewards.missing_eos(), 2.0)])
    found = program.run(Prompts(0, np.arange(4)), pays)
    cut = np.mean(ran.rollout.reasons == LENGTH)
    assert 0 < cut < 1
    assert mean(found.metrics["reward/missing_eos"]) == pytest.approx(-2 * cut)
    assert mean(found.metrics["eos"]) == pytest.approx(1 - cut)
    assert mean(found.metrics["length"]) == pytest.approx(ran.rows.lengths.mean())


def test_gae_without_a_critic_is_refused():
    """Error: names the estimator."""
    with pytest.raises(ConfigError, match="estimator: 'gae' needs a critic"):
        ppo_lib.start(tiny.CFG, tiny.policy(), SETTINGS, None, tiny.ADAM, tiny.ADAM)
