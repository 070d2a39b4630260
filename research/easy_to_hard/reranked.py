"""What voting and best-of-n choose from pools of answers, read from the stages."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.records import read_records
from research.easy_to_hard.answers import Answered
from research.easy_to_hard.claims import KINDS, lowest
from research.easy_to_hard.evaluators import logits_for
from research.easy_to_hard.selection import (
    AGGREGATIONS,
    MISSING,
    Pool,
    aggregate,
    curve,
)
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tables import GROUPS, in_group
from research.intervals import bootstrap
from research.report import Interval
from train.calibration import auc

# The thesis takes the minimum for best-of-n, and for weighted voting the product with
# labels of people, the minimum with labels from rollouts.
BEST = "min"


class Reranked:
    """Accuracy [seeds, problems] of ways to choose among a pool's answers.

    A way is (generator, evaluator or None, method); the numbers of answers are those of
    `counts`, all of which every evaluator has of the same sub-samples.
    """

    def __init__(
        self,
        answers: Mapping[str, Answered],
        scores,
        seeds: Sequence[int],
        sampled: Sampled,
        voting: str,
        joined: bool,
    ):
        """scores[generator, evaluator, seed] is a stage that left scores.jsonl."""
        self.voting, self.joined = voting, joined
        self.counts = tuple(sorted(sampled.counts))
        self.levels = None
        self.curves: dict[tuple, np.ndarray] = {}
        self.spreads: dict[tuple, list] = {}  # [*way, group]: of each seed, by count
        self.greedy: dict[str, np.ndarray] = {}
        self.found: dict[tuple, np.ndarray] = {}  # by aggregation, the whole pool
        self.aucs: dict[tuple, list] = {}  # of the score that a way uses, of each seed
        ways = dict.fromkeys(key[:2] for key in scores)
        for generator in dict.fromkeys(generator for generator, _ in ways):
            self._add(generator, None, answers, scores, seeds, sampled)
        for generator, kind in ways:
            self._add(generator, kind, answers, scores, seeds, sampled)

    def _add(self, generator, kind, answers, scores, seeds, sampled):
        methods = ("majority",) if kind is None else ("weighted", "best")
        values = {method: [] for method in methods}
        whole = {(how, m): [] for how in AGGREGATIONS for m in methods}
        greedy = []
        for seed in seeds:
            answered = answers[f"{generator}-{seed}"]
            self.levels = answered.levels
            greedy.append(answered.greedy)
            logits = None
            if kind is not None:
                folder = scores[generator, kind, seed].folder
                asked = "oprm" if kind == "large" else kind
                logits = [
                    logits_for(asked, r.row, self.joined)
                    for r in read_records(folder / "scores.jsonl")
                ]

            def pools(how, made=answered.pools, logits=logits):
                if logits is None:
                    return made
                return [
                    pool._replace(log_weights=aggregate(s, how))
                    for pool, s in zip(made, logits, strict=True)
                ]

            def chosen(method, how, counts, seed=seed, pools=pools):
                rng = np.random.default_rng([seed, 64])
                return curve(pools(how), method, counts, sampled.repeats, rng)

            for method in methods:
                how = BEST if method == "best" else self.voting
                made = chosen(method, how, self.counts)
                values[method].append(made.accuracy)
                for group in GROUPS:
                    key = (generator, kind, method, group)
                    spread = made.spread(in_group(self.levels, group))
                    self.spreads.setdefault(key, []).append(spread)
                if kind is not None:
                    easy = in_group(self.levels, "easy")
                    judged = zip(pools(how), easy, strict=True)
                    reached = ranking([pool for pool, kept in judged if kept])
                    self.aucs.setdefault((generator, kind, method), []).append(reached)
                    for name in AGGREGATIONS:
                        most = chosen(method, name, (self.counts[-1],))
                        whole[name, method].append(most.accuracy[0])
        for method in methods:
            self.curves[generator, kind, method] = np.array(values[method])
            if kind is not None:
                for name in AGGREGATIONS:
                    self.found[generator, kind, method, name] = np.array(
                        whole[name, method]
                    )
        self.greedy[generator] = np.array(greedy, float)

    def at(self, way, count=None) -> np.ndarray:
        """[seeds, problems] of a way, with `count` answers (default: all)."""
        if way[1] == "greedy":
            return self.greedy[way[0]]
        i = self.counts.index(self.counts[-1] if count is None else count)
        return self.curves[way][:, i]

    def estimate(self, way, group, draws, count=None) -> Interval:
        return bootstrap(self.at(way, count)[:, in_group(self.levels, group)], draws)

    def difference(self, a, b, group, draws) -> Interval:
        """Paired difference a - b of two ways."""
        kept = in_group(self.levels, group)
        return bootstrap((self.at(a) - self.at(b))[:, kept], draws)

    def spread(self, way, group) -> list[float | None]:
        """Standard deviation over sub-samples for each count, see `Curve.spread`.

        Over seeds, the root of the mean variance.
        """
        return [
            None if None in of_seeds else float(np.sqrt(np.mean(np.square(of_seeds))))
            for of_seeds in zip(*self.spreads[*way, group], strict=True)
        ]

    @property
    def used(self) -> dict[tuple, float | None]:
        """The AUC of the score that each way uses, in its worst seed; see `ranking`."""
        return {way: lowest(of_seeds) for way, of_seeds in self.aucs.items()}

    @property
    def kinds(self) -> list[str]:
        """Evaluators that scored the easy-to-hard generator's answers."""
        return [k for g, k, m in self.curves if g == "easy" and m == "weighted"]


def ranking(pools: Sequence[Pool]) -> float | None:
    """AUC of the weights of solutions, by whether their answers are right.

    Of all solutions together that have an answer, since others do not vote. None where
    all are right, or all wrong.
    """
    if not pools:
        return None
    voting = np.concatenate([pool.classes for pool in pools]) != MISSING
    weights = np.concatenate([pool.log_weights for pool in pools])
    right = np.concatenate([pool.values for pool in pools])
    value = auc(weights[voting], right[voting])
    return None if np.isnan(value) else float(value)


def ways_of(read: Reranked) -> list[tuple]:
    """Greedy, majority and the evaluators' ways, generator by generator."""
    generators = dict.fromkeys(way[0] for way in read.curves)
    return [
        way
        for generator in generators
        for way in [(generator, "greedy", None), *read.curves]
        if way[0] == generator
    ]


def name_of(way, large: str = KINDS["large"]) -> str:
    """A way in words; large: what the larger evaluator is called."""
    _, kind, method = way
    if kind == "greedy":
        return "greedy"
    if kind is None:
        return "majority"
    judge = large if kind == "large" else KINDS[kind]
    return f"{judge}, {'voting' if method == 'weighted' else 'best-of-n'}"
