"""The settings of the whole chapter, checked before anything runs."""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from data.tokenizers import word_tokenizer
from data.worlds.arithmetic import (
    EASY,
    LEVELS,
    ArithmeticWorld,
    problem,
    proportional,
    solution,
    vocabulary,
)
from models.config import DType, Remat
from research.easy_to_hard.coding import Coding
from research.easy_to_hard.icl import Exemplars, make_shots
from research.easy_to_hard.published import MathFiles
from research.easy_to_hard.settings import (
    Drawn,
    Evaluators,
    EvaluatorTraining,
    Miniature,
    Policies,
    Sampled,
)
from research.training import ModelSize, Training
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
        for name, training in self._judging():
            if training.held_out >= 1:
                raise ValueError(
                    f"{name}.held_out: expected under 1, got {training.held_out}"
                )
        if self.miniature is not None:
            self._check_lengths()
            self._check_budgets()

    def _judging(self) -> list[tuple[str, EvaluatorTraining]]:
        """How evaluators are trained, by key."""
        if self.evaluators is None:
            return []
        found = [("evaluators.training", self.evaluators.training)]
        if self.evaluators.prm_training is not None:
            found.append(("evaluators.prm_training", self.evaluators.prm_training))
        return found

    def _check_lengths(self) -> None:
        """Whether a solved problem of the miniature fits into what learns from such."""
        world = self.miniature.world
        shortest = solved_tokens(world, EASY, longest=False)
        lengths = {"sft.length": self.sft.length}
        lengths |= {f"{name}.length": t.length for name, t in self._judging()}
        if self.policies is not None:
            lengths["policies.dpo.length"] = self.policies.dpo.length
        for key, length in lengths.items():
            if length < shortest:
                raise ValueError(
                    f"{key}: {length} tokens are fewer than the shortest solved "
                    f"problem takes, {shortest}"
                )
        longest = solved_tokens(world, LEVELS, longest=True)
        if self.icl is not None and self.icl.length < longest:
            raise ValueError(
                f"icl.length: {self.icl.length} tokens are fewer than one exemplar may "
                f"take, {longest}"
            )

    def _check_budgets(self) -> None:
        """Whether prompts and all that is drawn fit into the miniature's models."""
        drawn = {"sampled": self.sampled}
        if self.evaluators is not None:
            drawn["evaluators.drawn"] = self.evaluators.drawn
        if self.policies is not None:
            for name in ("rest", "dpo", "ppo"):
                drawn[f"policies.{name}.drawn"] = getattr(self.policies, name).drawn
        for key, rules in drawn.items():
            _fits("model", self.model, "sft.length", self.sft.length, key, rules)
        if self.large is not None:
            length = self.sft.length
            _fits("large", self.large, "sft.length", length, "sampled", self.sampled)
        if self.icl is not None:
            world = self.miniature.world
            length = self.sft.length + solved_tokens(world, LEVELS, longest=True)
            what = "sft.length + an exemplar"
            _fits("model", self.model, what, length, "sampled", self.sampled)
        if self.coding is not None:
            model, rules = self.coding.model, self.coding.sampled
            length = self.coding.sft.length
            _fits("coding.model", model, "coding.sft.length", length, "coding.sampled",
                  rules)  # fmt: skip


def _fits(
    name: str,
    model: ModelSize,
    before: str,
    length: int,
    key: str,
    rules: Sampled | Drawn,
) -> None:
    """ValueError where `length` tokens and what `rules` draw are too many for a model.

    name, before, key: what the model, the tokens before and the rules are called.
    """
    longest = length + rules.max_new_tokens
    if longest > model.max_position:
        raise ValueError(
            f"{name}.max_position: {model.max_position} is less than {before} + "
            f"{key}.max_new_tokens, {longest}"
        )


def solved_tokens(
    world: ArithmeticWorld, levels: Sequence[int], *, longest: bool
) -> int:
    """Tokens that a solved problem of these levels may take, at most or at least.

    As an exemplar, with a break behind it. Numbers are single words, so that all
    problems with as many equations, solved in as many lines, are as long.
    """
    bounds = [world.steps[level - 1][longest] for level in levels]
    steps = (max(bounds) if longest else min(bounds),) * 2
    always = 1.0 if longest else 0.0
    like = dataclasses.replace(
        world, steps=(steps,) * len(LEVELS), scale_rare=always, scale_common=always
    )
    rng = np.random.default_rng(0)
    asked = problem(like, 1, rng)
    solved = {"prompt": asked.text, "completion": solution(like, asked, rng)}
    tokenizer = word_tokenizer(vocabulary(like))
    return len(make_shots(tokenizer, [solved], sys.maxsize).ids)
