"""PPO finds known optima: a bandit, a two-step chain, a tilted distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_ppo as tiny

from train import ppo as ppo_lib
from train.optim import OptimizerConfig
from train.ppo_terms import Experience, response_scores
from train.prompts import Prompts
from train.rewards import Reward, Term, combine

PROMPT, V = [1, 2], 8
ITERATIONS = 100
SETTINGS = tiny.config(
    iterations=ITERATIONS, prompts=1, samples=256, max_new_tokens=2, minibatch=128,
    whiten_advantages=False, value_coef=1.0, value_clip=10.0,
)  # fmt: skip
ADAM = OptimizerConfig(lr=1e-2, schedule="linear")


@functools.cache
def program():
    """(models, update) for all three tasks: they differ on the host only."""
    models, state = start()
    return ppo_lib.make_update(models, SETTINGS, tiny.SAMPLING, state)


def start():
    zero = jax.tree.map(jnp.zeros_like, tiny.value()[1]["head"])
    value = tiny.CFG, {**tiny.value()[1], "head": zero}
    return ppo_lib.start(tiny.CFG, tiny.policy(), SETTINGS, value, ADAM, ADAM)


def train(reward, kl_coef, iterations=ITERATIONS):
    """The policy's probabilities [V, V] of two tokens, and the rewards on the way."""
    state = start()[1]._replace(kl_coef=jnp.float32(kl_coef))
    step = ppo_lib.make_iteration(
        tiny.CFG, SETTINGS, tiny.SAMPLING, [PROMPT], combine([Term(reward)]), program(),
        tiny.policy(), jax.random.key(0), slots=256,
    )  # fmt: skip
    rows = []
    for i in range(iterations):
        state, metrics = step(state, Prompts(i, np.array([0])))
        rows.append(metrics)
    return probabilities(state.params), [float(m["reward"][0]) / 256 for m in rows]


@functools.cache
def pairs():
    first, second = np.divmod(np.arange(V * V), V)
    n = V * V
    return Experience(
        np.tile(np.int32(PROMPT), (n, 1)), np.full(n, 2, np.int32),
        np.stack([first, second], 1).astype(np.int32), np.full(n, 2, np.int32),
        *([None] * 4),
    )  # fmt: skip


@jax.jit
def pair_scores(params):
    return response_scores(tiny.CFG, tiny.SAMPLING, params, pairs())[0]


def probabilities(params):
    """P(first, second), float64 [V, V]; after EOS the second is fictitious."""
    return np.exp(np.asarray(pair_scores(params), np.float64).sum(1)).reshape(V, V)


def first_token(table):
    table = np.asarray(table, np.float32)

    def fn(rollout, ids):
        credit = np.zeros(rollout.tokens.shape, np.float32)
        credit[:, 0] = table[rollout.tokens[:, 0]]
        return credit

    return Reward("first", "tokens", fn)


def test_a_bandit_reaches_its_best_arm():
    """Known optimum: the arm that pays 1 among arms that pay up to 0.8."""
    found, rewards = train(first_token([0.8, 0, 0.1, 0.7, 0, 1.0, 0, 0.8]), 0.0, 40)
    assert found.sum(1)[5] > 0.95, found.sum(1)
    assert np.mean(rewards[-5:]) > 0.97 > rewards[0]


def test_a_two_step_chain_reaches_its_optimum():
    """Known optimum: 3 then 6 pays 1 at its end; stopping at once pays 0.5 at once."""

    def fn(rollout, ids):
        first, second = rollout.tokens.T
        both = (first == 3) & (second == 6) & (rollout.lengths == 2)
        return both + 0.5 * (first == tiny.EOS)

    found, rewards = train(Reward("chain", "terminal", fn), 0.0)
    assert found[3, 6] > 0.9, found.round(2)
    assert np.mean(rewards[-5:]) > 0.9 and rewards[0] < 0.3


@pytest.mark.parametrize("beta", [0.5])
def test_the_kl_penalty_leads_to_the_tilted_distribution(beta):
    """Closed form: pi(y) = ref(y) exp(r(y) / beta) / Z, total variation < 0.02."""
    table = np.array([0.5, -0.3, 0.0, 0.4, -0.6, 0.8, 0.1, 0.3])
    found, _ = train(first_token(table), beta)
    reference = probabilities(tiny.policy())
    target = reference * np.exp(table / beta)[:, None]
    target /= target.sum()
    ends = [tiny.EOS]  # responses of one token: their second one does not exist

    def whole(p):
        return np.concatenate([np.delete(p, ends, 0).ravel(), p[ends].sum(1)])

    distance = 0.5 * np.abs(whole(found) - whole(target)).sum()
    moved = 0.5 * np.abs(whole(reference) - whole(target)).sum()
    assert moved > 0.2
    assert distance < 0.02, distance
