"""The settings of the chapter's experiment, checked before anything runs."""

import dataclasses
from typing import Literal

from data.worlds.theorems import TheoremWorld
from models.config import DType
from research.easy_to_hard.settings import ModelSize, Training
from train.settings import at_least, checked, choice, fraction, positive

NoProgress = Literal["accept", "count", "reject"]
Score = Literal["mean", "sum", "tactic"]
Regime = Literal["joint", "continue"]
CONTROLS = ("shuffled", "filler")
SPLITS = ("test", "novel")


@dataclasses.dataclass(frozen=True)
class Miniature:
    """Theorems with known proofs.

    known: theorems whose proofs are imitated; `annotated` of them, a share, have
        thoughts too. statements: further ones that expert iteration may try to prove;
        their known proofs are shown to nobody.
    held_out: problems of the test, of the 244, the first of every source; novel: of
        those whose rules were never trained on.
    """

    world: TheoremWorld = TheoremWorld()
    known: int = positive(1500)
    annotated: float = fraction(1.0)
    statements: int = positive(500)
    held_out: int = positive(244)
    novel: int = positive(120)

    def __post_init__(self):
        if self.held_out > 244:
            raise ValueError(f"held_out: expected at most 244, got {self.held_out}")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """How one completion is drawn; a state of more than `prompt_tokens` is cut in
    front, as the original does."""

    temperature: float = at_least(0.0, 0.7)
    max_new_tokens: int = positive(64)
    prompt_tokens: int = positive(256)
    slots: int = positive(256)


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Proof search by sampling: K `trajectories` of at most N `tactics` each.

    N counts illegal tactics as well: the state stays, and the same is asked again.
    stop_all_on_first: a theorem's first proof ends all its trajectories. repeat: so
        often the whole is begun anew where no proof was found.
    dedup_states: a tactic that leads to a state where its trajectory has been is
        ignored. no_progress: what becomes of one that leaves the state as it is.
    waves: groups of theorems; tactics of one are checked while the model writes for the
        next. Results do not depend on it.
    """

    trajectories: int = positive(32)
    tactics: int = positive(50)
    stop_all_on_first: bool = True
    repeat: int = positive(1)
    dedup_states: bool = False
    no_progress: NoProgress = "accept"
    waves: int = positive(2)


@dataclasses.dataclass(frozen=True)
class BestFirst:
    """Best-first search: at most N `expansions`, of S `candidates` each.

    beam: candidates are the hypotheses of a beam of that width, as in the original;
        else they are sampled. scores: how they are ranked; see `best_first.SCORES`.
    """

    expansions: int = positive(50)
    candidates: int = positive(32)
    beam: bool = True
    scores: tuple[str, ...] = choice(("mean", "sum", "tactic"), ("mean",))
    waves: int = positive(2)


@dataclasses.dataclass(frozen=True)
class Iteration:
    """Expert iteration: statements tried by the last model, its proofs learned.

    most: proofs of a theorem that are kept. per_head: examples of one kind of tactic,
        such as "exact", at most; None for no limit.
    """

    sampled: Sampled
    rounds: int = positive(2)
    regimes: tuple[str, ...] = choice(("joint", "continue"), ("joint", "continue"))
    most: int = positive(3)
    per_head: int | None = positive(None)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The whole experiment: models of every seed, all asked to prove the same theorems.

    sft trains a decoder from scratch on (state, tactic); cot goes on from it, with
    thoughts or without, and so does every joint round of expert iteration; star is a
    round that continues. drawn, thought_drawn: completions without and with thoughts.
    counts: the K that are reported of one run. controls: what thoughts are replaced by.
    """

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    miniature: Miniature
    sft: Training
    cot: Training
    sampled: Sampled
    star: Training | None = None
    model: ModelSize = ModelSize()
    drawn: Drawn = Drawn()
    thought_drawn: Drawn = Drawn()
    controls: tuple[str, ...] = choice(CONTROLS, ())
    iteration: Iteration | None = None
    best_first: BestFirst | None = None
    counts: tuple[int, ...] = positive((1, 2, 4, 8, 16, 32))
    dtype: DType = "float32"

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )
        K = self.sampled.trajectories
        if not self.counts or max(self.counts) > K:
            raise ValueError(
                f"counts: expected some, at most sampled.trajectories, {K}"
            )
        if self.sampled.stop_all_on_first or self.sampled.repeat > 1:
            raise ValueError(
                "sampled: expected stop_all_on_first=False and repeat=1, as pass@k of "
                "every k is read from one run"
            )
        continues = self.iteration and "continue" in self.iteration.regimes
        if bool(continues) != (self.star is not None):
            raise ValueError("star: expected with iteration.regimes continue, and only")
        for name in ("drawn", "thought_drawn"):
            drawn = getattr(self, name)
            longest = drawn.prompt_tokens + drawn.max_new_tokens
            if longest > self.model.max_position:
                raise ValueError(
                    f"model.max_position: {self.model.max_position} is less than what "
                    f"{name} may need, {longest}"
                )
