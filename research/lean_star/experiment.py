"""The chapter as stages: models with and without thoughts, proofs, the report.

sft                 from scratch, on (state, tactic) of all known proofs
cot                 on from sft: thoughts for the annotated steps
sft-data, -tokens   on from sft without thoughts, on the same steps as often, or for
                    as many tokens
cot-shuffled, ...   cot with thoughts of other states, or with filler
star-*, ei-*        expert iteration from cot, and from sft-data, in both regimes
cot-longer          cot, for as many updates as the last joint round
"""

from typing import NamedTuple

from research.lean_star import proving, stages, world
from research.lean_star import report as chapter_report
from research.lean_star.settings import Settings
from research.stages import Handle, Plan

# The names of expert iteration with thoughts and without: where it starts.
CHAINS = {"star": "cot", "ei": "sft-data"}


class System(NamedTuple):
    """A trained model, and whether it writes thoughts ("cot") or not ("sft")."""

    model: Handle
    kind: str


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<which>-<seed>`.

    The theorems are the same for all seeds, which differ in the model's start, the
    order of training, and all that is drawn.
    """
    data = plan.stage("world", world.make_world, task=cfg.miniature, seed=cfg.seeds[0])
    made: dict[str, dict[str, Handle]] = {
        "proved": {}, "predicted": {}, "searched": {}, "gathered": {}, "trained": {},
    }  # fmt: skip
    for seed in cfg.seeds:
        _Seed(plan, cfg, data, seed, made).declare()
    plan.stage(
        "report",
        chapter_report.write_report,
        data=data,
        **made,
        seeds=cfg.seeds,
        counts=cfg.counts,
        sampled=cfg.sampled,
        best_first=cfg.best_first,
    )


class _Seed:
    """The stages of one seed; `made` receives those that the report reads."""

    def __init__(self, plan: Plan, cfg: Settings, data: Handle, seed: int, made):
        self.plan, self.cfg, self.seed, self.made = plan, cfg, seed, made
        self.common = {"data": data, "dtype": cfg.dtype, "seed": seed}
        self.systems: dict[str, System] = {}

    def declare(self) -> None:
        cfg, seed = self.cfg, self.seed
        sft = self.plan.stage(
            f"sft-{seed}",
            stages.pretrain,
            model=cfg.model,
            training=cfg.sft,
            **self.common,
        )
        self.add("sft", System(sft, "sft"))
        cot = self.tune("cot", "cot")
        self.tune("sft-data", "sft")
        self.tune("sft-tokens", "sft", updates_of=cot)
        for control in cfg.controls:
            self.tune(f"cot-{control}", "cot", thoughts=control)
        if cfg.iteration is not None:
            self.iterate()
        if cfg.best_first is not None:
            for score in cfg.best_first.scores:
                self.search("cot", score)
                if score != "tactic":  # without thoughts it is the mean
                    self.search("sft", score)

    def tune(self, name: str, kind: str, start: str = "sft", **more) -> Handle:
        """A model that goes on from another; see `stages.finetune`."""
        inputs = {"training": self.cfg.cot} | more
        model = self.plan.stage(
            f"{name}-{self.seed}",
            stages.finetune,
            start=self.systems[start].model,
            kind=kind,
            **inputs,
            **self.common,
        )
        self.add(name, System(model, kind))
        return model

    def add(self, name: str, system: System) -> None:
        """What a model proves, and how often it predicts the known tactic."""
        cfg, seed = self.cfg, self.seed
        self.systems[name] = system
        asked = {
            "model": system.model,
            "kind": system.kind,
            "drawn": cfg.thought_drawn if system.kind == "cot" else cfg.drawn,
            **self.common,
        }
        key = f"{name} {seed}"
        self.made["trained"][key] = system.model
        self.made["proved"][key] = self.plan.stage(
            f"prove-{name}-{seed}", proving.prove, sampled=cfg.sampled, **asked
        )
        self.made["predicted"][key] = self.plan.stage(
            f"predict-{name}-{seed}", proving.predict, **asked
        )

    def iterate(self) -> None:
        """Rounds of expert iteration, with thoughts and without, in every regime."""
        iteration = self.cfg.iteration
        for chain, first in CHAINS.items():
            kind = self.systems[first].kind
            one = self.gather(chain, 1, first)
            for regime in iteration.regimes:
                last, harvests = first, []
                for number in range(1, iteration.rounds + 1):
                    name = f"{chain}-{regime}-{number}"
                    of_round = one
                    if number > 1:
                        of_round = self.gather(f"{chain}-{regime}", number, last)
                    harvests.append(of_round)
                    if regime == "joint":
                        self.tune(name, kind, harvests=list(harvests))
                    else:
                        self.tune(
                            name, kind, last, harvests=[of_round], known=False,
                            training=self.cfg.star,
                        )  # fmt: skip
                    last = name
        if "joint" in iteration.regimes:
            longest = self.systems[f"star-joint-{iteration.rounds}"].model
            self.tune("cot-longer", "cot", updates_of=longest)

    def gather(self, chain: str, number: int, name: str) -> Handle:
        """The proofs that a model finds for the statements of a round."""
        system = self.systems[name]
        cfg = self.cfg
        handle = self.plan.stage(
            f"gather-{chain}-{number}-{self.seed}",
            proving.gather,
            model=system.model,
            kind=system.kind,
            iteration=cfg.iteration,
            drawn=cfg.thought_drawn if system.kind == "cot" else cfg.drawn,
            number=number,
            **self.common,
        )
        self.made["gathered"][f"{chain} {number} {self.seed}"] = handle
        return handle

    def search(self, name: str, score: str) -> None:
        """Best-first search with a system's candidates."""
        system, cfg = self.systems[name], self.cfg
        key = f"{name} {score} {self.seed}"
        self.made["searched"][key] = self.plan.stage(
            f"search-{name}-{score}-{self.seed}",
            proving.best_first_search,
            model=system.model,
            kind=system.kind,
            score=score,
            rules=cfg.best_first,
            drawn=cfg.thought_drawn if system.kind == "cot" else cfg.drawn,
            **self.common,
        )
