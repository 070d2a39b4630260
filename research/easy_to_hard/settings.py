"""The settings of the chapter's experiment, checked before anything runs."""

import dataclasses
from typing import Literal

from data.worlds.arithmetic import ArithmeticWorld, SplitSizes
from research.easy_to_hard.selection import AGGREGATIONS
from train.optim import OptimizerConfig
from train.ppo_config import PPOConfig
from train.settings import at_least, choice, fraction, positive


@dataclasses.dataclass(frozen=True)
class Miniature:
    """Problems made here, and a base model trained from scratch on facts of the world.

    `facts` are the base's documents; `wrong_share` of them carry the verdict "no",
    `scale_share` are about scaling an equation, the rest about single products.
    """

    world: ArithmeticWorld = ArithmeticWorld()
    sizes: SplitSizes = SplitSizes()
    facts: int = positive(20000)
    wrong_share: float = fraction(0.35)
    scale_share: float = fraction(0.0)

    def __post_init__(self):
        if not self.sizes.test or not any(self.sizes.train[:3]):
            raise ValueError("sizes: expected test problems, and easy ones to train on")


@dataclasses.dataclass(frozen=True)
class Sampled:
    """How answers are drawn: one greedily, and `votes` by sampling, from each problem.

    `counts` are the numbers of votes that are reported, each at most `votes`.
    """

    votes: int = positive(16)
    counts: tuple[int, ...] = positive((1, 4, 16))
    temperature: float = positive(0.7)
    top_k: int = at_least(0, 20)
    max_new_tokens: int = positive(128)
    slots: int = positive(64)
    repeats: int = positive(20)

    def __post_init__(self):
        if not self.counts:
            raise ValueError("counts: expected at least one")
        if max(self.counts) > self.votes:
            raise ValueError(f"counts: {max(self.counts)} is over votes, {self.votes}")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Solutions drawn to learn from: `samples` of each problem."""

    samples: int = positive(8)
    temperature: float = positive(1.0)
    top_k: int = at_least(0, 0)
    max_new_tokens: int = positive(128)
    slots: int = positive(64)


@dataclasses.dataclass(frozen=True)
class EvaluatorTraining:
    """How an evaluator is trained.

    `where` a step's label is learned: at "all" its tokens or at its "end". `held_out`
    is the share of the easy problems that the choice of the best evaluation, every
    `eval_every` updates, and the metrics look at.
    """

    steps: int = positive(1000)
    batch_size: int = positive(32)
    length: int = positive(128)
    where: Literal["all", "end"] = "end"
    held_out: float = fraction(0.1)
    eval_every: int = positive(100)
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclasses.dataclass(frozen=True)
class Evaluators:
    """Evaluators trained on the easy generator's solutions of easy problems.

    They start from that generator, or from the `base` that it started from. With
    `epochs`, they are trained for so many passes over their rows, instead of
    `training.steps`; `prm_training` is the prm's, if it has its own; `large_steps` are
    the updates of the large one, where they are others;
    updates are made in `accum` micro-batches. `voting` is how the scores of steps
    become the weight of a vote.
    """

    training: EvaluatorTraining
    drawn: Drawn = Drawn()
    kinds: tuple[str, ...] = ("orm", "prm", "oprm")
    start: Literal["generator", "base"] = "generator"
    epochs: float | None = positive(None)
    prm_training: EvaluatorTraining | None = None
    large_steps: int | None = positive(None)
    accum: int = positive(1)
    voting: str = choice(AGGREGATIONS, "product")

    def __post_init__(self):
        known = {"orm", "prm", "oprm"}
        if not self.kinds or not set(self.kinds) <= known:
            raise ValueError(
                f"kinds: expected some of {', '.join(sorted(known))}, got {self.kinds}"
            )
        if self.prm_training is not None and "prm" not in self.kinds:
            raise ValueError("prm_training: expected None, as kinds has no prm")


@dataclasses.dataclass(frozen=True)
class ReST:
    """ReST-EM: at most `most` right solutions of a problem, in `rounds` rounds."""

    drawn: Drawn = Drawn()
    most: int = positive(10)
    rounds: int = positive(2)


@dataclasses.dataclass(frozen=True)
class DPORounds:
    """Iterative DPO: pairs whose scores differ by more than `gap`, `most` a problem."""

    drawn: Drawn = Drawn()
    gap: float = at_least(0.0, 1.0)
    most: int = positive(3)
    rounds: int = positive(2)
    epochs: float = positive(1.0)
    batch_size: int = positive(64)
    length: int = positive(128)
    beta: float = positive(0.1)
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclasses.dataclass(frozen=True)
class PPORuns:
    """PPO, and the rewards beside the final answer's 0 or 1.

    `unavailable` is the answer's reward where no truth is known, `process` the weight
    of the process model's; `upper` and `bonus` as in `train.rewards.process`. The
    critic starts as the evaluator that `critic` names: an outcome model knows what is
    left to hope for at every token, a process model what the last step was worth. (The
    faithful run's is the process model.)

    The original reads a step's logit as the lowest of its last word's and of the two
    newlines' behind it, and rewards the newlines: `faithful_read` 3, `faithful_spread`
    2. Where a process model learns at the ends of steps only, the other logits mean
    nothing: 1 and 1.
    """

    ppo: PPOConfig = PPOConfig()
    drawn: Drawn = Drawn()
    optimizer: OptimizerConfig = OptimizerConfig()
    eval_every: int = positive(10)
    unavailable: float = fraction(0.25)
    process: float = positive(1.0)
    upper: float = fraction(0.5)
    bonus: float = at_least(0.0, 0.25)
    critic: Literal["orm", "prm", "oprm"] = "prm"
    faithful_read: int = positive(1)
    faithful_spread: int = positive(1)


@dataclasses.dataclass(frozen=True)
class Policies:
    """Generators trained further from the easy one, each in its way.

    `value_frozen` names the critic's parameters that stay; None: as the policy's.
    `dpo_accum` is the number of micro-batches of an update by DPO.
    """

    rest: ReST = ReST()
    dpo: DPORounds = DPORounds()
    ppo: PPORuns = PPORuns()
    value_frozen: tuple[str, ...] | None = None
    dpo_accum: int = positive(1)
