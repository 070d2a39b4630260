"""What the stages of the chapter left, read once, as arrays."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.records import read_records
from research.lean_star.outcomes import SearchFacts, search_facts
from research.lean_star.passk import between, curve
from research.lean_star.settings import SPLITS
from research.lean_star.world import read_rows
from research.stages import StageResult

# Systems in words, in the order of the tables; <n> is a round.
TITLES = {
    "untuned": "the published model as it is",
    "sft": "SFT",
    "sft-data": "SFT, as many epochs more (equal data)",
    "sft-tokens": "SFT, as many tokens more",
    "cot": "Lean-CoT",
    "cot-longer": "Lean-CoT, for as many updates as the last joint round",
    "sft-longer": "SFT, for as many updates as the last joint round without thoughts",
    "cot-shuffled": "control: thoughts of other states",
    "cot-filler": "control: filler instead of thoughts",
    "star-joint": "Lean-STaR, joint, round {}",
    "star-continue": "Lean-STaR, continued, round {}",
    "ei-joint": "expert iteration without thoughts, joint, round {}",
    "ei-continue": "expert iteration without thoughts, continued, round {}",
    "ei-tokens": "expert iteration without thoughts, for as many tokens as Lean-STaR",
}


def title(system: str, names: Mapping[str, str] = TITLES) -> str:
    """A system in words, or what else `names` call it; a round has its number."""
    if system in names:
        return names[system]
    chain, _, number = system.rpartition("-")
    return names[chain].format(number)


def kind_of(system: str) -> str:
    """ "sft" for a system that writes no thoughts, else "cot"."""
    return "sft" if system.startswith(("sft", "ei")) else "cot"


class Words(NamedTuple):
    """What the two splits are called, and what of the second was never trained on."""

    test: str
    novel: str
    unseen: str


MINIATURE = Words("held-out", "novel", "rules")
PUBLISHED = Words("miniF2F-test", "LeanDojo", "premises")
THESIS_K = 32  # trajectories, in the thesis's tables


class Results:
    """pass@k of every system, seed and problem, and what searches and rounds gave.

    All are stages by "<system> <seed>": proved of `proving.prove`, predicted of
    `predict`, trained of `stages`; searched by "<system> <score> <seed>", gathered by
    "<chain> <round> <seed>". rows: the problems, of both splits, in the order of all
    arrays. published: the era of a published model; None for a miniature.
    """

    def __init__(
        self,
        data: StageResult,
        made: Mapping[str, Mapping[str, StageResult]],
        seeds: Sequence[int],
        counts: Sequence[int],
        published: str | None = None,
    ):
        self.data, self.made, self.seeds = data, made, seeds
        self.counts, self.published = tuple(counts), published
        self.era = published or "base"
        self.words = PUBLISHED if published else MINIATURE
        self.rows = read_rows(data, SPLITS)
        self._curves: dict[str, np.ndarray] = {}
        self._found: dict[Path, list[dict]] = {}

    @property
    def k(self) -> int:
        """Trajectories of the tables: the thesis's, where these were reported."""
        return THESIS_K if THESIS_K in self.counts else max(self.counts)

    @cached_property
    def known(self) -> str:
        """The split whose problems have known proofs: predicted, and of some level."""
        tests = [row for row in self.rows if row["split"] == "test"]
        return "test" if all(row["proof"] for row in tests) else "novel"

    @cached_property
    def systems(self) -> list[str]:
        """In the order of TITLES."""
        return sorted(self.names("proved"), key=lambda s: (self._place(s), s))

    def _place(self, system: str) -> int:
        chain = system if system in TITLES else system.rpartition("-")[0]
        return [*TITLES].index(chain)

    def names(self, kind: str) -> list[str]:
        """What was made, without the seed."""
        return list(dict.fromkeys(name.rsplit(" ", 1)[0] for name in self.made[kind]))

    def has(self, *systems: str) -> bool:
        return set(systems) <= set(self.systems)

    def stages(self, kind: str, name: str) -> list[StageResult]:
        """Of every seed."""
        return [self.made[kind][f"{name} {seed}"] for seed in self.seeds]

    def outcomes(self, system: str, seed: int) -> list[dict]:
        """Of every problem; see `outcomes.Outcome.row`."""
        return self.found(self.made["proved"][f"{system} {seed}"])

    def found(self, stage: StageResult) -> list[dict]:
        """A search's outcomes of every problem, read once: many tables are of them."""
        if stage.folder not in self._found:
            rows = read_records(stage.folder / "outcomes.jsonl")
            self._found[stage.folder] = [record.row for record in rows]
        return self._found[stage.folder]

    def curve(self, system: str) -> np.ndarray:
        """pass@k [seeds, problems, counts]."""
        if system not in self._curves:
            proved = [
                [row["proved"] for row in self.outcomes(system, seed)]
                for seed in self.seeds
            ]
            found = [curve(of_seed, self.counts) for of_seed in proved]
            self._curves[system] = np.stack(found)
        return self._curves[system]

    def passed(self, system: str, split: str = "test", k: int | None = None):
        """pass@k [seeds, problems of the split]; by default of `self.k`."""
        at = self.counts.index(self.k if k is None else k)
        return self.curve(system)[:, self.of(split), at]

    def passed_at(self, system: str, k: float, split: str = "test") -> np.ndarray:
        """pass@k [seeds, problems of the split] of any k; see `passk.between`."""
        found = [
            [between(row["proved"], k) for row in self._own(system, seed, split)]
            for seed in self.seeds
        ]
        return np.array(found)

    def spent(self, system: str, what: str, split: str = "test") -> float:
        """What one trajectory of sampling took of `what`, "tactics" or "tokens".

        The mean over seeds and problems of the split, of a run that no proof ended:
        k trajectories take k times this.
        """
        found = [
            row["counts"].get(what, 0) / len(row["proved"])
            for seed in self.seeds
            for row in self._own(system, seed, split)
        ]
        return float(np.mean(found))

    def _own(self, system: str, seed: int, split: str) -> list[dict]:
        rows = zip(self.outcomes(system, seed), self.of(split), strict=True)
        return [row for row, own in rows if own]

    def as_many(self, name: str) -> float:
        """The K of sampling that tries as many tactics as a search did, in the mean.

        Mostly between two whole numbers; at most as many trajectories as there were.
        """
        system = name.rpartition(" ")[0]
        K = self.search_facts(name).tactics / max(self.spent(system, "tactics"), 1e-9)
        return min(K, float(max(self.counts)))

    def search_facts(self, name: str, split: str = "test") -> SearchFacts:
        """How far a search went, the mean over seeds; name: "<system> <score>"."""
        found = []
        for stage in self.stages("searched", name):
            rows = zip(self.found(stage), self.of(split), strict=True)
            own = [row for row, is_in in rows if is_in]
            found.append(search_facts(own, stage.value["rules"]["expansions"]))
        return SearchFacts(*map(float, np.mean(found, axis=0)))

    def searched(self, name: str, split: str = "test") -> np.ndarray:
        """Whether best-first search proved each problem [seeds, problems]."""
        found = [
            [row["solved"] for row in self.found(stage)]
            for stage in self.stages("searched", name)
        ]
        return np.array(found, float)[:, self.of(split)]

    def predicted(self, system: str, split: str | None = None) -> np.ndarray:
        """Shares of a problem's known steps that are predicted [seeds, problems].

        By default of the problems of `self.known`.
        """
        split = self.known if split is None else split
        names = [row["name"] for row in self.rows if row["split"] == split]
        found = []
        for stage in self.stages("predicted", system):
            right: dict[str, list[bool]] = {}
            for record in read_records(stage.folder / "predicted.jsonl"):
                row = record.row
                if row["split"] == split:
                    right.setdefault(row["name"], []).append(row["right"])
            found.append([np.mean(right[name]) for name in names])
        return np.array(found)

    def of(self, split: str) -> np.ndarray:
        """Which problems are of a split: bool [problems]."""
        return np.array([row["split"] == split for row in self.rows])

    def levels(self) -> np.ndarray:
        """easy, medium or hard, of the problems of the split `self.known`."""
        split = self.known
        return np.array([row["level"] for row in self.rows if row["split"] == split])

    def mean(self, system: str, *path: str) -> float:
        """The mean over seeds of a number in the value of a system's proof search."""
        found = []
        for stage in self.stages("proved", system):
            value = stage.value
            for key in path:
                value = value.get(key, 0)
            found.append(value)
        return float(np.mean(found))

    @property
    def last(self) -> tuple[str, str] | None:
        """The last rounds with thoughts and without, of one regime; None without any.

        As in the thesis, its base model's rounds are joint, its plus model's continue.
        """
        regimes = ("joint", "continue")
        for regime in regimes[::-1] if self.era == "plus" else regimes:
            if rounds := self.rounds(f"star-{regime}"):
                return f"star-{regime}-{rounds}", f"ei-{regime}-{rounds}"
        return None

    def rounds(self, chain: str) -> int:
        """How many rounds there are of a chain and its regime, such as "star-joint"."""
        names = [name.rpartition("-") for name in self.systems]
        return max((int(n) for which, _, n in names if which == chain), default=0)

    def trained(self, system: str, *keys: str) -> list[float | None]:
        """Means over seeds of numbers of a system's training; None without any."""
        if f"{system} {self.seeds[0]}" not in self.made["trained"]:
            return [None] * len(keys)
        values = [stage.value for stage in self.stages("trained", system)]
        return [float(np.mean([value[key] for value in values])) for key in keys]
