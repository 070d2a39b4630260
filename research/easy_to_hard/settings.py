"""The settings of the chapter's experiment, checked before anything runs."""

import dataclasses

from data.worlds.arithmetic import ArithmeticWorld, SplitSizes
from models.config import DType, Remat
from train.optim import OptimizerConfig
from train.settings import at_least, checked, fraction, positive


@dataclasses.dataclass(frozen=True)
class Miniature:
    """Problems made here, and a base model trained from scratch on facts of the world.

    `facts` are the base's documents; `wrong_share` of them carry the verdict "no".
    """

    world: ArithmeticWorld = ArithmeticWorld()
    sizes: SplitSizes = SplitSizes()
    facts: int = positive(20000)
    wrong_share: float = fraction(0.35)

    def __post_init__(self):
        if not self.sizes.test or not any(self.sizes.train[:3]):
            raise ValueError("sizes: expected test problems, and easy ones to train on")


@dataclasses.dataclass(frozen=True)
class Published:
    """Problems in files, and a base model from a Hugging Face folder.

    `train` and `test` are JSON lines {prompt, completion, answer, level}: a solution
    ends in the marker "# Answer", a blank line and the answer.
    """

    checkpoint: str
    train: str
    test: str
    template: str = "plain"


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A decoder trained from scratch; its vocabulary is the world's."""

    d_model: int = positive(96)
    n_layers: int = positive(3)
    n_heads: int = positive(4)
    n_kv_heads: int = positive(4)
    d_ff: int = positive(256)
    init_std: float = positive(0.1)
    max_position: int = positive(1024)

    def __post_init__(self):
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model: expected an even number per head, got {self.d_model} for "
                f"{self.n_heads} heads"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads: expected a divisor of {self.n_heads} heads, got "
                f"{self.n_kv_heads}"
            )


@dataclasses.dataclass(frozen=True)
class Training:
    """One phase of training; `epochs` over its data, rows packed to `length` tokens."""

    epochs: float = positive()
    batch_size: int = positive()
    length: int = positive()
    optimizer: OptimizerConfig = OptimizerConfig()
    accum: int = positive(1)


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
class Settings:
    """The whole experiment: two generators per seed, on easy and on all levels.

    The task is exactly one of `miniature` and `published`; `pretrain` and `model`
    belong to a miniature.
    """

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    sft: Training
    sampled: Sampled
    miniature: Miniature | None = None
    published: Published | None = None
    model: ModelSize = ModelSize()
    pretrain: Training | None = None
    dtype: DType = "float32"
    remat: Remat = "none"

    def __post_init__(self):
        if (self.miniature is None) == (self.published is None):
            raise ValueError("expected exactly one of miniature and published")
        if (self.miniature is None) != (self.pretrain is None):
            raise ValueError("pretrain: expected with miniature, and only then")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )
        longest = self.sft.length + self.sampled.max_new_tokens
        if self.miniature is not None and longest > self.model.max_position:
            raise ValueError(
                f"model.max_position: {self.model.max_position} is less than "
                f"sft.length + sampled.max_new_tokens, {longest}"
            )
