"""The chapter as stages: models with and without thoughts, proofs, the report.

sft                 on (state, tactic) of all known proofs: a model from scratch, or a
                    published one, which is asked first, too, as it is (untuned)
cot                 on from sft: thoughts for the annotated steps
sft-data, -tokens   on from sft without thoughts, on the same steps as often, or for
                    as many tokens
cot-shuffled, ...   cot with thoughts of other states, or with filler
star-*, ei-*        expert iteration from cot, and from sft-data, in both regimes
cot-longer          cot, for as many updates as the last joint round of star
sft-longer          sft-data, for as many updates as the last joint round of ei
ei-tokens           the last joint round of ei, for as many tokens as star's
"""

from typing import NamedTuple

from research.lean_star import proving, published, stages, world
from research.lean_star import report as chapter_report
from research.lean_star.settings import THOUGHT_CONTROLS, Published, Settings
from research.stages import Handle, Plan

# The names of expert iteration with thoughts and without: where it starts.
CHAINS = {"star": "cot", "ei": "sft-data"}


class System(NamedTuple):
    """A model, or a checkpoint's folder, and what it writes (see `formats.Format`)."""

    model: Handle | str
    kind: str


class Ground(NamedTuple):
    """The data of all seeds, and inputs that stages have because of it.

    held: of those that hold a model, trained: of those that train one, asked: of those
    that look for proofs.
    """

    data: Handle
    held: dict
    trained: dict
    asked: dict


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<which>-<seed>`.

    The theorems are the same for all seeds, which differ in the model's start, the
    order of training, and all that is drawn.
    """
    ground = _published(plan, cfg) if cfg.published else _miniature(plan, cfg)
    made: dict[str, dict[str, Handle]] = {
        "proved": {}, "predicted": {}, "searched": {}, "gathered": {}, "trained": {},
    }  # fmt: skip
    for seed in cfg.seeds:
        _Seed(plan, cfg, ground, seed, made).declare()
    era = {"published": cfg.published.era} if cfg.published else {}
    plan.stage(
        "report",
        chapter_report.write_report,
        data=ground.data,
        **made,
        seeds=cfg.seeds,
        counts=cfg.counts,
        sampled=cfg.sampled,
        best_first=cfg.best_first,
        **era,
    )


def _miniature(plan: Plan, cfg: Settings) -> Ground:
    data = plan.stage("world", world.make_world, task=cfg.miniature, seed=cfg.seeds[0])
    return Ground(data, {}, {"dtype": cfg.dtype}, {"dtype": cfg.dtype})


def _published(plan: Plan, cfg: Settings) -> Ground:
    given: Published = cfg.published
    thoughts = given.thoughts.file
    if thoughts is None:
        thoughts = plan.stage(
            "thoughts",
            published.write_thoughts,
            train=given.leandojo.train,
            thoughts=given.thoughts,
        )
    data = plan.stage(
        "data",
        published.read_theorems,
        leandojo=given.leandojo,
        minif2f=given.minif2f,
        thoughts=thoughts,
        seed=cfg.seeds[0],
    )
    lean = given.leandojo.prover
    provers = {"test": given.minif2f.prover, "novel": lean, "statements": lean}
    return Ground(
        data,
        {"era": given.era, "mesh": given.mesh},
        {"dtype": given.train_dtype, "remat": given.remat},
        {"dtype": cfg.dtype, "provers": provers},
    )


class _Seed:
    """The stages of one seed; `made` receives those that the report reads."""

    def __init__(self, plan: Plan, cfg: Settings, ground: Ground, seed: int, made):
        self.plan, self.cfg, self.ground = plan, cfg, ground
        self.seed, self.made = seed, made
        self.common = {"data": ground.data, "seed": seed, **ground.held}
        self.systems: dict[str, System] = {}

    def declare(self) -> None:
        cfg = self.cfg
        if cfg.published is None:
            sft = self.plan.stage(
                f"sft-{self.seed}",
                stages.pretrain,
                model=cfg.model,
                training=cfg.sft,
                **self.ground.trained,
                **self.common,
            )
            self.made["trained"][f"sft {self.seed}"] = sft
            self.add("sft", System(sft, "sft"))
        else:
            kind = "few-shot" if cfg.published.era == "base" else "sft"
            self.add("untuned", System(cfg.published.checkpoint, kind))
            more = {"training": cfg.sft, "annotated": False}
            self.tune("sft", "sft", "untuned", **more)
        cot = self.tune("cot", "cot")
        self.tune("sft-data", "sft")
        # Rounds wait for each other: declared first, they leave the rest to fill gaps.
        if cfg.iteration is not None:
            self.iterate()
        self.tune("sft-tokens", "sft", tokens_of=cot)
        for control in (name for name in THOUGHT_CONTROLS if name in cfg.controls):
            self.tune(f"cot-{control}", "cot", thoughts=control)
        if cfg.best_first is not None:
            for score in cfg.best_first.scores:
                self.search("cot", score)
                if score != "tactic":  # without thoughts it is the mean
                    self.search("sft", score)
            if cfg.published is not None:
                self.search("untuned", "mean")

    def tune(self, name: str, kind: str, start: str = "sft", **more) -> Handle:
        """A model that goes on from another; see `stages.finetune`."""
        inputs = {"training": self.cfg.cot} | more
        model = self.plan.stage(
            f"{name}-{self.seed}",
            stages.finetune,
            start=self.systems[start].model,
            kind=kind,
            **inputs,
            **self.ground.trained,
            **self.common,
        )
        self.made["trained"][f"{name} {self.seed}"] = model
        self.add(name, System(model, kind))
        return model

    def add(self, name: str, system: System) -> None:
        """What a model proves, and how often it predicts the known tactic."""
        cfg, seed = self.cfg, self.seed
        self.systems[name] = system
        asked = self.asked(system)
        key = f"{name} {seed}"
        self.made["proved"][key] = self.plan.stage(
            f"prove-{name}-{seed}", proving.prove, sampled=cfg.sampled, **asked
        )
        asked.pop("provers", None)
        self.made["predicted"][key] = self.plan.stage(
            f"predict-{name}-{seed}", proving.predict, **asked
        )

    def asked(self, system: System) -> dict:
        """Inputs of the stages in which a system writes."""
        thinks = system.kind == "cot"
        return {
            "model": system.model,
            "kind": system.kind,
            "drawn": self.cfg.thought_drawn if thinks else self.cfg.drawn,
            **self.ground.asked,
            **self.common,
        }

    def iterate(self) -> None:
        """Rounds of expert iteration, with thoughts and without, in every regime."""
        cfg = self.cfg
        joint: dict[str, list[Handle]] = {}  # of every chain, what its rounds found
        for chain, first in CHAINS.items():
            kind = self.systems[first].kind
            one = self.gather(chain, 1, first)
            for regime in cfg.regimes:
                last, harvests = first, []
                for number in range(1, cfg.rounds + 1):
                    name = f"{chain}-{regime}-{number}"
                    of_round = one
                    if number > 1:
                        of_round = self.gather(f"{chain}-{regime}", number, last)
                    harvests.append(of_round)
                    if regime == "joint":
                        joint[chain] = list(harvests)
                        self.tune(name, kind, harvests=list(harvests))
                    else:
                        self.tune(
                            name, kind, last, harvests=[of_round], known=False,
                            training=cfg.star,
                        )  # fmt: skip
                    last = name
        if joint:
            self.controls(joint["ei"])

    def controls(self, harvests: list[Handle]) -> None:
        """What training as long does by itself; harvests: of ei, the joint rounds'."""
        star, ei = (
            self.systems[f"{chain}-joint-{self.cfg.rounds}"].model for chain in CHAINS
        )
        self.tune("cot-longer", "cot", updates_of=star)
        if "sft-longer" in self.cfg.controls:
            self.tune("sft-longer", "sft", updates_of=ei)
        if "ei-tokens" in self.cfg.controls:
            self.tune("ei-tokens", "sft", harvests=harvests, tokens_of=star)

    def gather(self, chain: str, number: int, name: str) -> Handle:
        """The proofs that a model finds for the statements of a round."""
        handle = self.plan.stage(
            f"gather-{chain}-{number}-{self.seed}",
            proving.gather,
            iteration=self.cfg.iteration,
            number=number,
            **self.asked(self.systems[name]),
        )
        self.made["gathered"][f"{chain} {number} {self.seed}"] = handle
        return handle

    def search(self, name: str, score: str) -> None:
        """Best-first search with a system's candidates."""
        key = f"{name} {score} {self.seed}"
        self.made["searched"][key] = self.plan.stage(
            f"search-{name}-{score}-{self.seed}",
            proving.best_first_search,
            score=score,
            rules=self.cfg.best_first,
            **self.asked(self.systems[name]),
        )
