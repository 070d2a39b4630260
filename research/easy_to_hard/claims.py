"""Verdicts on claims about evaluators, with how well these rank."""

import dataclasses
from collections.abc import Mapping, Sequence

from research.easy_to_hard.tables import points
from research.intervals import UNTESTED, verdict
from research.report import Interval, Verdict
from research.stages import StageResult

KINDS = {"orm": "ORM", "prm": "PRM", "oprm": "OPRM", "large": "OPRM, large"}
LEAST_AUC = 0.9  # in the miniature; below, an evaluator's claims are not tested


@dataclasses.dataclass(frozen=True)
class Judges:
    """Evaluators by kind, and their AUC on easy problems held out from them.

    auc: the lowest of the seeds, of an evaluator's own task: answers for an outcome
      model, steps for the others (the mixed one's of answers stands in its table).
      None: undefined.
    least: a claim about an evaluator under this is not tested. None: there is no bar,
      and verdicts name the AUC instead.
    """

    auc: Mapping[str, float | None]
    least: float | None = None

    def weak(self, kind: str) -> bool:
        value = self.auc[kind]
        return self.least is not None and (value is None or value < self.least)

    def said(self, kinds: Sequence[str]) -> str:
        """What a verdict's evidence adds about evaluators, with a space before it."""
        shown = [k for k in kinds if self.least is None or self.weak(k)]
        if not shown:
            return ""
        values = (f"{KINDS[k]} {auc_text(self.auc[k])}" for k in shown)
        under = f", under the {self.least} that a test of this needs"
        return (
            f" AUC on held-out easy problems: {', '.join(values)}"
            f"{'' if self.least is None else under}."
        )

    def verdict(
        self, claim: str, gain: Interval, evidence: str, about: Sequence[str]
    ) -> Verdict:
        """By the side of 0 on which `gain` lies, if all kinds in `about` can judge."""
        status = UNTESTED if any(map(self.weak, about)) else verdict(gain)
        return Verdict(claim, status, evidence + self.said(about))

    def compare(
        self, claim: str, gain: Interval, what: str, about: Sequence[str]
    ) -> Verdict:
        """`verdict` of a paired difference of accuracies; what: of what, and where."""
        return self.verdict(claim, gain, f"{what}: {points(gain)}.", about)


def judges(
    evaluators: Mapping[str, StageResult], seeds: Sequence[int], miniature: bool
) -> Judges:
    """Of stages named `<kind> <seed>`. The bar is the miniature's own."""
    kinds = dict.fromkeys(name.split()[0] for name in evaluators)
    found = {kind: lowest_auc(evaluators, kind, seeds) for kind in kinds}
    return Judges(found, LEAST_AUC if miniature else None)


def lowest_auc(evaluators, kind: str, seeds: Sequence[int]) -> float | None:
    """Of an evaluator's own task over the seeds: steps, or answers for an ORM."""
    metric = "eval/outcome_auc" if kind == "orm" else "eval/process_auc"
    found = [evaluators[f"{kind} {seed}"].value[metric] for seed in seeds]
    return None if None in found else min(found)


def auc_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
