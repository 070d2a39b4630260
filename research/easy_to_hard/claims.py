"""Whether evaluators are good enough for the claims that are about them."""

import dataclasses
from collections.abc import Mapping, Sequence

from research.stages import StageResult

KINDS = {"orm": "ORM", "prm": "PRM", "oprm": "OPRM", "large": "OPRM, large"}
LEAST_AUC = 0.9  # in the miniature; below, an evaluator's claims are not tested
USES = {"weighted": "voting", "best": "best-of-n"}


@dataclasses.dataclass(frozen=True)
class Judges:
    """How well evaluators rank on easy problems held out from them, in the worst seed.

    A claim is about uses of evaluators: a kind, whose steps are rewarded; or a way of
    choosing among answers, (generator, kind, method), see `reranked.Reranked`.

    steps: the AUC of steps, by kind; an outcome model judges none. None: undefined.
    used: by way, the AUC of the score by which it chooses: that of a whole solution, by
      whether its answer is right, of the sampled answers to easy test problems.
    least: a claim about a use of which one of these is under this is not tested. None:
      there is no bar, and verdicts name the AUC instead.
    """

    steps: Mapping[str, float | None]
    used: Mapping[tuple, float | None] = dataclasses.field(default_factory=dict)
    least: float | None = None

    def reached(self, about: Sequence[str | tuple]) -> dict[str, float | None]:
        """{what is judged: AUC} of all that these uses rely on."""
        found = {}
        for use in about:
            kind = use if isinstance(use, str) else use[1]
            if kind in self.steps:
                found[f"{KINDS[kind]} on steps"] = self.steps[kind]
            if not isinstance(use, str):
                generator = " on the large generator's answers" * (use[0] == "large")
                name = f"{KINDS[kind]} in {USES[use[2]]}{generator}"
                found[name] = self.used[use]
        return found

    def too_weak(self, about: Sequence[str | tuple]) -> list[str]:
        """Why a claim about these uses is not tested: at most one reason."""
        if self.least is None:
            return []
        weak = {
            name: value
            for name, value in self.reached(about).items()
            if value is None or value < self.least
        }
        return [
            f"AUC on held-out easy problems: {_listed(weak)}, under the {self.least} "
            "that a test of this needs"
        ] * bool(weak)

    def said(self, about: Sequence[str | tuple]) -> str:
        """A sentence for the evidence where there is no bar, with a space before it."""
        if self.least is not None or not about:
            return ""
        return f" AUC on held-out easy problems: {_listed(self.reached(about))}."


def judges(
    evaluators: Mapping[str, StageResult], seeds: Sequence[int], miniature: bool
) -> Judges:
    """Of stages named `<kind> <seed>`, without uses. The bar is the miniature's own."""
    kinds = dict.fromkeys(name.split()[0] for name in evaluators)
    steps = {
        kind: lowest([
            evaluators[f"{kind} {seed}"].value["eval/process_auc"] for seed in seeds
        ])
        for kind in kinds
        if kind != "orm"
    }  # fmt: skip
    return Judges(steps, least=LEAST_AUC if miniature else None)


def lowest(values: Sequence[float | None]) -> float | None:
    """None where one is undefined."""
    return None if None in values else min(values)


def auc_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _listed(found: Mapping[str, float | None]) -> str:
    return "; ".join(f"{name} {auc_text(value)}" for name, value in found.items())
