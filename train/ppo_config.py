"""The settings of PPO, and the original code's quirks by name."""

import dataclasses
from typing import Literal

from train.advantages import ESTIMATORS
from train.kl import KLConfig
from train.settings import at_least, choice, fraction, positive


@dataclasses.dataclass(frozen=True)
class Quirks:
    """What the original code of chapter 6 did otherwise, each by its name.

    kl_clamp: a token's k1 is never negative, which biases the penalty upwards.
    eos_outside: EOS gets no gradient and no KL; its reward is on the token before it.
    pad_whitening: statistics count places past the end, and GAE runs through them.
    shift_rewards: whitened rewards get their mean back, an equal share on every token,
      which makes returns depend on length; without, they are divided by their std only.
    pad_means: losses are divided by all places, so that padding dilutes them.
    full_softmax: log-probs ignore the top-k, top-p, min-p that tokens were drawn with.
    unshuffled: minibatches are taken in the order of the rollout.
    """

    kl_clamp: bool = False
    eos_outside: bool = False
    pad_whitening: bool = False
    shift_rewards: bool = False
    pad_means: bool = False
    full_softmax: bool = False
    unshuffled: bool = False


FAITHFUL = Quirks(*(True for _ in dataclasses.fields(Quirks)))


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """The settings of the algorithm.

    An iteration has `prompts` x `samples` responses of at most `max_new_tokens`; an
    update takes `minibatch` of them, in `accum` micro-batches. `divide` says what a
    policy loss is divided by: the tokens, or the responses, of its minibatch. With
    `fit_critic`, the critic's head is first fitted to the returns of so many responses
    of the policy as it starts (`train.critic`); 0 leaves it as it is.
    """

    iterations: int = positive(500)
    prompts: int = positive(512)
    samples: int = positive(1)
    max_new_tokens: int = positive(768)
    minibatch: int = positive(64)
    accum: int = positive(1)
    epochs: int = positive(1)
    estimator: str = choice(ESTIMATORS, "gae")
    gamma: float = fraction(1.0)
    lam: float = fraction(1.0)
    clip: float = positive(0.2)
    value_clip: float = positive(0.2)
    value_coef: float = at_least(0.0, 0.1)
    fit_critic: int = at_least(0, 0)
    entropy_coef: float = at_least(0.0, 0.0)
    divide: Literal["tokens", "responses"] = "tokens"
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    seed: int = at_least(0, 0)
    kl: KLConfig = KLConfig()
    quirks: Quirks = Quirks()

    def __post_init__(self):
        if self.responses % self.minibatch or self.minibatch % self.accum:
            raise ValueError(
                f"minibatch: expected a divisor of the {self.responses} responses of "
                f"an iteration and a multiple of accum {self.accum}, got "
                f"{self.minibatch}"
            )
        if self.fit_critic % self.fit_rows:
            raise ValueError(
                f"fit_critic: expected a multiple of {self.fit_rows}, twice the "
                f"responses of a micro-batch, got {self.fit_critic}"
            )
        if self.fit_critic and not ESTIMATORS[self.estimator].critic:
            raise ValueError(
                f"fit_critic: expected 0, as {self.estimator!r} has no critic"
            )
        if ESTIMATORS[self.estimator].siblings and self.samples < 2:
            raise ValueError(
                f"samples: {self.estimator!r} compares the responses to one prompt; "
                f"expected at least 2, got {self.samples}"
            )

    @property
    def responses(self) -> int:
        return self.prompts * self.samples

    @property
    def fit_rows(self) -> int:
        """Responses of `fit_critic` at once: two halves, each a micro-batch."""
        return 2 * (self.minibatch // self.accum)

    @property
    def updates(self) -> int:
        """Updates of an iteration."""
        return self.epochs * (self.responses // self.minibatch)
