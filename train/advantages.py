"""Advantage estimators, picked by name, on the whole rollout batch; and whitening.

All take float32 [N, R] arrays whose rows are in the order of a rollout: the G samples
of a prompt stand together. Masks are prefixes: they come from lengths.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Signals(NamedTuple):
    """What an estimator may use.

    rewards: float32 [N, R], of each token, zero past the end
    values: float32 [N, R], of the state before each token; zeros without a critic
    mask: float32 [N, R]
    baseline: float32 [N], a reward known before the response was drawn (ReMax)
    """

    rewards: jax.Array
    values: jax.Array
    mask: jax.Array
    baseline: jax.Array


class Estimated(NamedTuple):
    """advantages, and returns (the critic's target), each float32 [N, R]."""

    advantages: jax.Array
    returns: jax.Array


def discounted(x, decay: float, mask):
    """y_t = x_t + decay * y_{t+1}, along the last axis; zero where the mask is."""

    def back(following, now):
        x, real = now
        y = real * (x + decay * following)
        return y, y

    columns = jnp.moveaxis(x, -1, 0), jnp.moveaxis(mask, -1, 0)
    _, y = jax.lax.scan(back, jnp.zeros_like(columns[0][0]), columns, reverse=True)
    return jnp.moveaxis(y, 0, -1)


def gae(s: Signals, gamma: float, lam: float, samples: int) -> Estimated:
    """Generalised advantages (Schulman et al. 2016, eq. 16); V is 0 after the end.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum (gamma lam)^l delta_{t+l}; the
    critic's target is A + V. A response cut at the budget ends like any other.
    """
    values = s.values * s.mask
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    delta = (s.rewards + gamma * following - values) * s.mask
    advantages = discounted(delta, gamma * lam, s.mask)
    return Estimated(advantages, advantages + values)


def returns_to_go(s: Signals, gamma: float, lam: float, samples: int) -> Estimated:
    """REINFORCE without a baseline: the discounted rewards from the token on."""
    returns = discounted(s.rewards * s.mask, gamma, s.mask)
    return Estimated(returns, returns)


def rloo(s: Signals, gamma: float, lam: float, samples: int) -> Estimated:
    """Return of the response less the mean of its G - 1 siblings' (Ahmadian 2024)."""
    totals = _totals(s, gamma).reshape(-1, samples)
    others = (totals.sum(1, keepdims=True) - totals) / (samples - 1)
    return _whole(s, gamma, (totals - others).reshape(-1))


def group_mean(s: Signals, gamma: float, lam: float, samples: int) -> Estimated:
    """Return of the response less the mean of its group, itself included.

    Its gradient is (G - 1) / G of the true one in expectation (GRPO without the
    division by the standard deviation, which would change the direction).
    """
    totals = _totals(s, gamma).reshape(-1, samples)
    centred = totals - totals.mean(1, keepdims=True)
    return _whole(s, gamma, centred.reshape(-1))


def remax(s: Signals, gamma: float, lam: float, samples: int) -> Estimated:
    """Return of the response less the reward of the greedy one (Li et al. 2024)."""
    return _whole(s, gamma, _totals(s, gamma) - s.baseline)


class Estimator(NamedTuple):
    """A function (signals, gamma, lam, samples) -> Estimated, and what it needs."""

    fn: Callable[..., Estimated]
    critic: bool = False
    siblings: bool = False
    greedy: bool = False


ESTIMATORS = {
    "gae": Estimator(gae, critic=True),
    "returns": Estimator(returns_to_go),
    "rloo": Estimator(rloo, siblings=True),
    "group_mean": Estimator(group_mean, siblings=True),
    "remax": Estimator(remax, greedy=True),
}


def whiten(x, mask):
    """(x - mean) / std over all places of the mask; zero elsewhere.

    Statistics are of the whole array, over all devices and micro-batches.
    """
    mean, scale = _statistics(x, mask)
    return mask * (x - mean) * scale


def scale_rewards(x, mask, *, shift: bool = False):
    """x / std over all places of the mask, so that a reward of 0 stays 0; and 1 / std.

    Where all are equal, there is no scale to speak of, and they stay as they are.

    Args:
      shift: (x - mean) / std + mean instead, as TRL and the original code: every token
        gets mean - mean / std, and returns depend on the length of a response.
    """
    mean, scale = _statistics(x, mask)
    return mask * ((x - mean) * scale + mean if shift else x * scale), scale


def _statistics(x, mask):
    """(mean, 1 / std) over the places of a mask; 1 for the latter where std is 0."""
    weight = jnp.maximum(jnp.sum(mask), 1.0)
    mean = jnp.sum(x * mask) / weight
    variance = jnp.sum(mask * (x - mean) ** 2) / weight
    # An absolute bound would call rewards of 1e-5 equal: rounding is relative.
    equal = variance <= 1e-12 * mean**2
    return mean, jnp.where(equal, 1.0, jax.lax.rsqrt(variance + 1e-8))


def _totals(s: Signals, gamma: float):
    """Discounted return of each response, float32 [N]."""
    return discounted(s.rewards * s.mask, gamma, s.mask)[:, 0]


def _whole(s: Signals, gamma: float, advantages) -> Estimated:
    """One advantage [N] for all tokens of a response."""
    returns = discounted(s.rewards * s.mask, gamma, s.mask)
    return Estimated(advantages[:, None] * s.mask, returns)
