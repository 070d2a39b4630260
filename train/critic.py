"""A critic's head that starts at the returns, in closed form.

A reward model's logit is no return, and a head of zeros needs hundreds of updates to
become one. Until then advantages are nearly raw returns, and their noise moves the
policy more than the rewards do. The states of the reward model are worth keeping: the
head is fitted to them by ridge regression, on a rollout of the policy as it starts.

The tokens of a response share most of their return, so that a few hundred responses
are a few hundred examples, however many tokens they have: with thousands of dimensions
a weak ridge fits them all and is worse than nothing on others. So the ridge is the one
that does best on responses it was not fitted to.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import sampler
from models.config import DecoderConfig
from models.rollout import Rollout
from models.sampling import Sampling
from train.errors import ConfigError
from train.keys import purpose_key
from train.ppo_config import PPOConfig
from train.ppo_roles import WHOLE, Roles
from train.ppo_terms import (
    Experience,
    critic_states,
    dealt,
    estimate,
    experience,
)
from train.prompts import PromptOrder
from train.rewards import Rewards
from train.state import all_finite

# Of the mean squared state; the last is so strong that values stay near zero.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3)


class FittedHead(NamedTuple):
    """head: {"kernel": [D, 1]}; explained: share of the squared returns of other
    responses that a head from half of them explained, by the ridge chosen; float32 [].
    """

    head: dict
    explained: jax.Array


class _Moments(NamedTuple):
    """Sums over tokens: h h^T [D, D], h G [D], G^2 [], of states h and returns G."""

    gram: jax.Array
    target: jax.Array
    square: jax.Array


@functools.partial(jax.jit, static_argnames=("cfg", "model", "chunks"))
def fit_head(
    cfg: PPOConfig, model: DecoderConfig, params, rows: Experience, chunks: int
) -> FittedHead:
    """The head that predicts the returns of responses best, by ridge regression.

    Minimises sum (h w - G)^2 + ridge * tr(sum h h^T) / D * |w|^2 over the tokens of the
    responses: h the state before a token, G its return without a KL penalty (lambda 1,
    rewards scaled as the updates' are). The ridge is fitted on every second response
    and judged on the others; the head is then fitted to all.

    Args:
      params: of the critic; rows: N responses, N a multiple of 2 * `chunks`.
    """
    still = jnp.zeros(rows.tokens.shape, jnp.float32)
    plain = dataclasses.replace(cfg, estimator="gae", lam=1.0)
    batch, _ = estimate(plain, rows, still, still, still, 0.0)

    def add(sums, part):
        rows, G, mask = part
        hidden, before = critic_states(model, params, rows)
        h = jnp.take_along_axis(hidden, before[..., None], axis=1).astype(jnp.float32)
        product = functools.partial(jnp.einsum, precision="highest")
        real = h * mask[..., None]
        return _Moments(
            sums.gram + product("nrd,nre->de", real, h),
            sums.target + product("nrd,nr->d", real, G),
            sums.square + jnp.sum(mask * G**2),
        ), None

    def moments(half):
        some = jax.tree.map(lambda x: x[half::2], (rows, batch.returns, batch.mask))
        D = model.d_model
        zeros = _Moments(jnp.zeros((D, D)), jnp.zeros(D), jnp.zeros(()))
        return jax.lax.scan(add, zeros, dealt(some, chunks))[0]

    first, second = moments(0), moments(1)
    ridges = jnp.array(RIDGES)
    tried = jax.vmap(lambda ridge: _explained(_solve(first, ridge), second))(ridges)
    best = jnp.argmax(tried)
    w = _solve(jax.tree.map(jnp.add, first, second), ridges[best])[:, None]
    kernel = w.astype(params["head"]["kernel"].dtype)
    return FittedHead({"kernel": kernel}, tried[best])


def with_fitted_head(
    model: DecoderConfig,
    params,
    prompts: Sequence[Sequence[int]],
    reward_fn: Callable[[Rollout, Sequence[int]], Rewards],
    cfg: PPOConfig,
    sampling: Sampling,
    value: tuple[DecoderConfig, Any],
    place: Callable[[Any], Any] = jax.device_put,
    *,
    reference=None,
    roles: Roles = WHOLE,
    **options,
) -> tuple[DecoderConfig, Any]:
    """The critic with a head for the returns of `cfg.fit_critic` first responses.

    Args: as `train.ppo.ppo` has them; params and value are what is trained of each.

    Raises ConfigError where they tell nothing: no tokens, or numbers that are none.
    """
    ids = PromptOrder(prompts, cfg.fit_critic, cfg.seed)[0].ids
    rollout = sampler.generate(
        model,
        roles.policy(params, reference),
        [prompts[i] for i in ids],
        sampling,
        purpose_key(jax.random.key(cfg.seed), "critic"),
        max_new_tokens=cfg.max_new_tokens,
        **options,
    )
    width = sampler.bucket(max(map(len, prompts)))
    rewards = reward_fn(rollout, ids)
    rows = place(experience(rollout, rewards, np.zeros(len(ids)), width))
    architecture, critic = value
    chunks = cfg.fit_critic // cfg.fit_rows
    whole = roles.value(critic, reference)
    fitted = fit_head(cfg, architecture, whole, rows, chunks)
    if not all_finite(fitted):
        raise ConfigError(
            f"ppo.fit_critic: the returns of {cfg.fit_critic} responses give no head; "
            "expected responses with tokens that count, and finite rewards"
        )
    return architecture, {**critic, "head": fitted.head}


def _solve(m: _Moments, ridge):
    D = len(m.target)
    penalty = ridge * jnp.trace(m.gram) / D * jnp.eye(D)
    return jax.scipy.linalg.solve(m.gram + penalty, m.target, assume_a="pos")


def _explained(w, m: _Moments):
    """1 - sum (h w - G)^2 / sum G^2."""
    errors = m.square - 2 * w @ m.target + w @ (m.gram @ w)
    return 1.0 - errors / jnp.maximum(m.square, 1e-8)
