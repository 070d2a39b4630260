"""Table 6.3 at paper size, an experiment of its own: Code Llama on APPS."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from research import versions
from research.easy_to_hard import apps, tables_coding
from research.easy_to_hard.apps import Apps
from research.easy_to_hard.report import SOURCES
from research.report import Report, provenance, write
from research.stages import Plan, RunInfo, StageResult
from train.settings import checked


@dataclasses.dataclass(frozen=True)
class Settings:
    """The experiment: generators and an outcome model for every seed."""

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    apps: Apps

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages of `apps.declare`, and the report."""
    results = apps.declare(plan, cfg.apps, cfg.seeds)
    made = {handle.name: handle for handle in plan.handles}
    plan.stage(
        "report",
        write_report,
        results=results,
        judges=[made[f"apps-orm-{seed}"] for seed in cfg.seeds],
        seeds=cfg.seeds,
    )


def write_report(
    folder: Path,
    *,
    results: Sequence[StageResult],
    judges: Sequence[StageResult],
    seeds: tuple[int, ...],
    run_info: RunInfo,
) -> dict:
    """Stage: Table 6.3 beside the thesis's, and what holds of its claim."""
    section = tables_coding.section(results, [judge.value for judge in judges])
    report = Report(
        "Easy-to-hard generalization on programs",
        "Generators are fine-tuned from the same base model: on solutions of all "
        "difficulties, or on introductory problems only. An outcome model learns from "
        "the second one's programs for introductory problems, and chooses the best of "
        "several. Brackets are 95% intervals from a bootstrap over problems "
        + (f"and {len(seeds)} seeds." if len(seeds) > 1 else "only."),
        [section],
    )
    write(report, folder, provenance(run_info, seeds))
    return {"results": len(results)}


write_report.version = versions.of_sources(*SOURCES)
