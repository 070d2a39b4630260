"""The settings of the chapter's experiment, checked before anything runs."""

import dataclasses
from typing import Literal

from data.worlds.theorems import TheoremWorld
from models.config import DType, Remat
from research.lean_star.oracle_endpoint import Endpoint
from research.training import ModelSize, Training
from train.commands import MeshConfig
from train.settings import at_least, checked, choice, fraction, positive

NoProgress = Literal["accept", "count", "reject"]
Score = Literal["mean", "sum", "tactic"]
Regime = Literal["joint", "continue"]
REGIMES = ("joint", "continue")
# Of thoughts: what they are replaced by. Of training: see `experiment`.
THOUGHT_CONTROLS = ("shuffled", "filler")
CONTROLS = (*THOUGHT_CONTROLS, "sft-longer", "ei-tokens")
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
    seconds: an attempt at a theorem ends at the first iteration before which it has
        used up more, of writing and of checking, see `search.Clock`; None for no limit.
    """

    trajectories: int = positive(32)
    tactics: int = positive(50)
    stop_all_on_first: bool = True
    repeat: int = positive(1)
    dedup_states: bool = False
    no_progress: NoProgress = "accept"
    waves: int = positive(2)
    seconds: float | None = positive(None)


@dataclasses.dataclass(frozen=True)
class BestFirst:
    """Best-first search: at most N `expansions`, of S `candidates` each.

    beam: candidates are the hypotheses of a beam of that width, as in the original;
        else they are sampled. scores: how they are ranked; see `best_first.SCORES`.
    seconds: of a theorem, see `Sampled`.
    """

    expansions: int = positive(50)
    candidates: int = positive(32)
    beam: bool = True
    scores: tuple[str, ...] = choice(("mean", "sum", "tactic"), ("mean",))
    waves: int = positive(2)
    seconds: float | None = positive(None)


@dataclasses.dataclass(frozen=True)
class Iteration:
    """A round of expert iteration: statements tried by a model, its proofs learned.

    most: proofs of a theorem that are kept. per_head: examples of one kind of tactic,
        such as "exact", at most; None for no limit.
    """

    sampled: Sampled
    most: int = positive(3)
    per_head: int | None = positive(None)


@dataclasses.dataclass(frozen=True)
class Prover:
    """A Lean 4 REPL, for the theorems of one Lean project.

    command: as a shell reads it, run in `project`, whose toolchain built the REPL.
    imports: of theorems whose header names none. workers: processes; each imports once
    and keeps it. at_once: theorems that are open at the same time. Seconds are of one
    request, memory is of one process; see `repl_worker.ReplSettings`.
    """

    command: str
    project: str
    imports: tuple[str, ...] = ("Mathlib",)
    workers: int = positive(8)
    at_once: int = positive(64)
    heartbeats: int = at_least(0, 400_000)
    tactic_seconds: float = positive(30.0)
    start_seconds: float = positive(300.0)
    verify_seconds: float = positive(120.0)
    memory_gib: float = positive(16.0)
    pickles: str | None = None


@dataclasses.dataclass(frozen=True)
class Thoughts:
    """Thoughts written in retrospect, for known tactics of LeanDojo's training split.

    file: rows {state, thought, tactic, full_name, file_path} that are there already.
    Without one an OpenAI-compatible endpoint, `url` and `model`, is asked about steps
    drawn as in the original: `per_theorem` steps of `per_file` theorems of every file
    (None: of all), of these the first `steps`.
    """

    file: str | None = None
    url: str = "https://api.openai.com/v1"
    model: str = "gpt-4-0125-preview"
    key_variable: str = "OPENAI_API_KEY"
    parallel: int = positive(8)
    seed: int = at_least(0, 42)
    per_file: int | None = positive(5)
    per_theorem: int = positive(4)
    steps: int | None = positive(None)

    def __post_init__(self):
        _ = self.endpoint  # it refuses a url that is none

    @property
    def endpoint(self) -> Endpoint:
        """Whom to ask. Raises ValueError for a url that is none."""
        return Endpoint(self.url, self.model, self.key_variable, parallel=self.parallel)


@dataclasses.dataclass(frozen=True)
class LeanDojo:
    """LeanDojo Benchmark 4: steps to imitate, statements to try, problems of the test.

    train, test: files of one split of the benchmark. statements: theorems of train that
    expert iteration tries. problems: theorems of test, drawn once. Both are drawn of
    those with a tactic proof whose source is in the project of the prover.
    """

    train: str
    test: str
    prover: Prover
    statements: int = positive(20_000)
    problems: int = positive(320)


@dataclasses.dataclass(frozen=True)
class MiniF2F:
    """The problems of miniF2F's split "test"."""

    file: str
    prover: Prover


@dataclasses.dataclass(frozen=True)
class Published:
    """A published model, and published theorems in Lean 4.

    checkpoint: a Hugging Face folder. era: of the formats, and of the thesis's numbers
    that stand beside ours. train_dtype, remat: of what is fine-tuned.
    """

    checkpoint: str
    leandojo: LeanDojo
    minif2f: MiniF2F
    thoughts: Thoughts
    era: Literal["base", "plus"] = "base"
    train_dtype: DType = "bf16_compute"
    remat: Remat = "full"
    mesh: MeshConfig = MeshConfig()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The whole experiment: models of every seed, all asked to prove the same theorems.

    Either a `miniature`, whose `model` is trained from scratch, or `published` models
    and theorems. sft trains on (state, tactic); cot goes on from it, with thoughts or
    without, and so does every joint round of expert iteration; star is a round that
    continues. iteration: every one of the `rounds`, in each of the `regimes`; None for
    none. drawn, thought_drawn: completions without and with thoughts.
    counts: the K that are reported of one run. controls: what thoughts are replaced by,
    and models that are trained for as long as a joint round; see `experiment`.
    """

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    sft: Training
    cot: Training
    sampled: Sampled
    miniature: Miniature | None = None
    published: Published | None = None
    star: Training | None = None
    model: ModelSize | None = None
    drawn: Drawn = Drawn()
    thought_drawn: Drawn = Drawn()
    controls: tuple[str, ...] = choice(CONTROLS, ())
    iteration: Iteration | None = None
    rounds: int = positive(2)
    regimes: tuple[str, ...] = choice(REGIMES, REGIMES)
    best_first: BestFirst | None = None
    counts: tuple[int, ...] = positive((1, 2, 4, 8, 16, 32))
    dtype: DType = "float32"

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )
        if (self.miniature is None) == (self.published is None):
            raise ValueError("miniature, published: expected one of the two")
        if (self.miniature is None) != (self.model is None):
            raise ValueError("model: expected with a miniature, and only there")
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
        continues = self.iteration and "continue" in self.regimes
        if bool(continues) != (self.star is not None):
            raise ValueError(
                "star: expected with iteration in the regime continue, and only there"
            )
        self._check_thoughts()
        for name in ("drawn", "thought_drawn"):
            if not getattr(self, name).temperature:
                self._check_greedy(name)
        for name in ("drawn", "thought_drawn") if self.model else ():
            drawn = getattr(self, name)
            longest = drawn.prompt_tokens + drawn.max_new_tokens
            if longest > self.model.max_position:
                raise ValueError(
                    f"model.max_position: {self.model.max_position} is less than what "
                    f"{name} may need, {longest}"
                )

    def _check_thoughts(self) -> None:
        if self.miniature is None:
            return
        given, known = self.miniature.annotated, self.miniature.known
        least = 2 if "shuffled" in self.controls else 1
        if round(given * known) < least:
            raise ValueError(
                "miniature.annotated: expected a share that gives thoughts to at least "
                f"{least} of {known} theorems, as Lean-CoT learns them, got {given}"
            )

    def _check_greedy(self, name: str) -> None:
        """Without a temperature all completions of a state are the same."""
        drawn = {"sampled.trajectories": self.sampled.trajectories}
        if self.iteration is not None:
            rules = self.iteration.sampled
            drawn["iteration.sampled.trajectories"] = rules.trajectories
            drawn["iteration.sampled.repeat"] = rules.repeat
        if self.best_first is not None and not self.best_first.beam:
            drawn["best_first.candidates"] = self.best_first.candidates
        for key, number in drawn.items():
            if number > 1:
                raise ValueError(
                    f"{name}.temperature: expected > 0, as {key} = {number} would all "
                    "be equal, got 0.0"
                )
