"""A critic's head that starts at the returns, in closed form.

A reward model's logit is no return, and a head of zeros needs hundreds of updates to
become one. Until then advantages are nearly raw returns, and their noise moves the
policy more than the rewards do. The states of the reward model are worth keeping: the
head is fitted to them by ridge regression, on a rollout of the policy as it starts.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from models.config import DecoderConfig
from train.ppo_config import PPOConfig
from train.ppo_terms import Experience, critic_states, dealt, estimate

RIDGE = 1e-4  # of the mean squared state: decides only where states say nothing


@functools.partial(jax.jit, static_argnames=("cfg", "model", "chunks"))
def fit_head(cfg: PPOConfig, model: DecoderConfig, params, rows: Experience, chunks=2):
    """The head {"kernel": [D, 1]} that predicts the returns of some rows best.

    Minimises mean (h w - G)^2 + ridge |w|^2 over the tokens of the responses: h the
    state before a token, G its return without a KL penalty (lambda 1, rewards scaled
    as the updates' are).

    Args:
      params: of the critic; rows: N responses, N a multiple of `chunks`.
    """
    still = jnp.zeros(rows.tokens.shape, jnp.float32)
    plain = dataclasses.replace(cfg, estimator="gae", lam=1.0)
    batch, _ = estimate(plain, rows, still, still, still, 0.0)

    def add(sums, part):
        rows, G, mask = part
        hidden, before = critic_states(model, params, rows)
        h = jnp.take_along_axis(hidden, before[..., None], axis=1).astype(jnp.float32)
        real = h * mask[..., None]
        product = functools.partial(jnp.einsum, precision="highest")
        gram, target = product("nrd,nre->de", real, h), product("nrd,nr->d", real, G)
        return (sums[0] + gram, sums[1] + target), None

    D = model.d_model
    zeros = jnp.zeros((D, D)), jnp.zeros(D)
    parts = dealt((rows, batch.returns, batch.mask), chunks)
    (gram, target), _ = jax.lax.scan(add, zeros, parts)
    penalty = RIDGE * jnp.trace(gram) / D * jnp.eye(D)
    w = jnp.linalg.solve(gram + penalty, target)[:, None]
    return {"kernel": w.astype(params["head"]["kernel"].dtype)}
