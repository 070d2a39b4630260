"""The KL penalty: estimates from log-probs of sampled tokens, and its coefficient.

With l = log pi(token) - log ref(token) of a token drawn from pi, k1 = l, k2 = l^2 / 2
and k3 = exp(-l) - 1 + l (Schulman, "Approximating KL divergence", 2020). k1 and k3 are
unbiased; k1 is negative for single tokens, which is no error and is not clamped.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from train.settings import at_least, positive

# A token that top-k or top-p leaves out of the reference's distribution has an infinite
# log-ratio; it counts as this many nats, so that a penalty stays finite.
LIMIT = 20.0


def log_ratio(log_probs, reference):
    """log pi - log ref, float32 of any shape, within +-LIMIT; exactly 0 for equals."""
    return jnp.clip(log_probs - reference, -LIMIT, LIMIT)


ESTIMATORS = {
    "k1": lambda ratio: ratio,
    "k2": lambda ratio: 0.5 * ratio**2,
    "k3": lambda ratio: jnp.expm1(-ratio) + ratio,
}


@dataclasses.dataclass(frozen=True)
class KLConfig:
    """How much, and how, rewards are lowered by the KL from the reference.

    `coef` stays ("fixed"), or is steered towards `target` nats per response over
    `horizon` responses ("adaptive": Ziegler et al. 2019, section 2.2).
    """

    coef: float = at_least(0.0, 0.01)
    estimator: Literal["k1", "k2", "k3"] = "k1"
    control: Literal["fixed", "adaptive"] = "fixed"
    target: float | None = positive(None)
    horizon: int = positive(10_000)

    def __post_init__(self):
        if self.control == "adaptive" and (self.target is None or not self.coef):
            raise ValueError(
                "control: 'adaptive' needs a target in nats per response, and a coef "
                f"> 0 to start from; got {self.target} and {self.coef:g}"
            )


def next_coefficient(cfg: KLConfig, coef, kl, responses: int):
    """The coefficient after an iteration.

    Args:
      coef: float32 []; kl: float32 [], nats per response; responses: how many.
    """
    if cfg.control == "fixed":
        return coef
    error = jnp.clip(kl / cfg.target - 1.0, -0.2, 0.2)
    return coef * (1.0 + error * responses / cfg.horizon)
