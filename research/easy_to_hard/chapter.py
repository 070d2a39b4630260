"""The settings of the whole chapter, checked before anything runs."""

import dataclasses

from data.worlds.arithmetic import proportional
from models.config import DType, Remat
from research.easy_to_hard.coding import Coding
from research.easy_to_hard.icl import Exemplars
from research.easy_to_hard.published import MathFiles
from research.easy_to_hard.settings import (
    Evaluators,
    Miniature,
    ModelSize,
    Policies,
    Sampled,
    Training,
)
from train.commands import MeshConfig
from train.settings import checked, positive


@dataclasses.dataclass(frozen=True)
class Settings:
    """The whole experiment: two generators per seed, on easy and on all levels.

    The task is exactly one of `miniature` and `published`. To a miniature belong
    `pretrain`, `model`, `large` and `coding`; to published files `mesh`, the devices of
    every stage, and `large_checkpoint`, from which a second generator and a mixed
    evaluator start, with learning rates times `large_lr_scale`. `train_dtype` is that
    of training, if it has its own.
    """

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    sft: Training
    sampled: Sampled
    miniature: Miniature | None = None
    published: MathFiles | None = None
    model: ModelSize = ModelSize()
    large: ModelSize | None = None
    evaluators: Evaluators | None = None
    policies: Policies | None = None
    icl: Exemplars | None = None
    coding: Coding | None = None
    pretrain: Training | None = None
    dtype: DType = "float32"
    train_dtype: DType | None = None
    remat: Remat = "none"
    mesh: MeshConfig = MeshConfig()
    large_checkpoint: str | None = None
    large_lr_scale: float = positive(0.5)

    def __post_init__(self):
        if (self.miniature is None) == (self.published is None):
            raise ValueError("expected exactly one of miniature and published")
        if (self.miniature is None) != (self.pretrain is None):
            raise ValueError("pretrain: expected with miniature, and only then")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )
        if self.published is not None:
            for name in ("large", "coding"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: expected with miniature only")
            labelled = self.published.prm800k or self.published.math_shepherd
            if self.evaluators is not None and not labelled:
                raise ValueError(
                    "evaluators: expected labelled steps, from published.prm800k or "
                    "published.math_shepherd"
                )
        if self.policies is not None and (
            self.evaluators is None or "prm" not in self.evaluators.kinds
        ):
            raise ValueError("policies: expected evaluators, with kind prm among them")
        if self.policies and self.policies.ppo.critic not in self.evaluators.kinds:
            raise ValueError(
                f"policies.ppo.critic: expected one of evaluators.kinds, "
                f"{self.evaluators.kinds}, got {self.policies.ppo.critic!r}"
            )
        if self.miniature is not None:
            for name, unset in (("mesh", MeshConfig()), ("large_checkpoint", None)):
                if getattr(self, name) != unset:
                    raise ValueError(f"{name}: expected with published only")
        if (self.large or self.large_checkpoint) is not None and (
            self.evaluators is None or "oprm" not in self.evaluators.kinds
        ):
            name = "large" if self.large is not None else "large_checkpoint"
            raise ValueError(f"{name}: expected evaluators, with kind oprm among them")
        if self.miniature is not None:
            needed = {"test": self.miniature.sizes.test}
            if self.policies is not None:
                needed["development"] = self.miniature.sizes.development
            for name, total in needed.items():
                counts = proportional(total)
                if not sum(counts[:3]) or not sum(counts[3:]):
                    raise ValueError(
                        f"miniature.sizes.{name}: expected easy and hard problems, got "
                        f"{total} in all"
                    )
        longest = self.sft.length + self.sampled.max_new_tokens
        if self.miniature is not None and longest > self.model.max_position:
            raise ValueError(
                f"model.max_position: {self.model.max_position} is less than "
                f"sft.length + sampled.max_new_tokens, {longest}"
            )
