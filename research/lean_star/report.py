"""The chapter's report."""

from collections.abc import Mapping
from pathlib import Path

from research import versions
from research.intervals import Resamples
from research.lean_star import (
    analysis,
    claims,
    costs,
    familiar,
    pages,
    summary,
    tables,
)
from research.lean_star.results import Results
from research.lean_star.settings import BestFirst, Sampled
from research.report import Report, Section, provenance, write
from research.stages import RunInfo, StageResult

MINIATURE = (
    "Lean-STaR in miniature",
    "A model proves theorems tactic by tactic, with a thought before each or without, "
    "in a prover whose proofs a small checker judges.",
)
PUBLISHED = (
    "Lean-STaR",
    "InternLM2-{} proves theorems of Lean 4 tactic by tactic, with a thought before "
    "each or without; Lean judges every proof anew, as a whole.",
)


def write_report(
    folder: Path,
    *,
    data: StageResult,
    proved: Mapping[str, StageResult],
    predicted: Mapping[str, StageResult],
    searched: Mapping[str, StageResult],
    gathered: Mapping[str, StageResult],
    trained: Mapping[str, StageResult],
    sampled: Sampled,
    best_first: BestFirst | None,
    seeds: tuple[int, ...],
    counts: tuple[int, ...],
    run_info: RunInfo,
    published: str | None = None,
) -> dict:
    """Stage: the report of what was run; for the stages see `results.Results`.

    published: the era of a published model; None for a miniature.
    """
    made = {
        "proved": proved, "predicted": predicted, "searched": searched,
        "gathered": gathered, "trained": trained,
    }  # fmt: skip
    results = Results(data, made, seeds, counts, published)
    draws = Resamples(0)
    rounds = tables.present([tables.table_7_3(results, draws), tables.rounds(results)])
    verdicts = claims.verdicts(results, draws)
    sections = [
        summary.in_short(verdicts),
        Section("What holds", verdicts),
        tables.sampling(results, draws),
        Section("Expert iteration", rounds) if rounds else None,
        tables.curves(results, draws),
        tables.search(results, draws, best_first),
        tables.difficulty(results, draws),
        analysis.analysis(results, draws),
        familiar.with_other_numbers(results, draws),
        pages.proofs(results),
        pages.trees(results),
        costs.costs(results, run_info.config.get("jobs", 1)),
        Section("The data", [tables.data(results)]),
    ]
    title, intro = PUBLISHED if published else MINIATURE
    report = Report(
        title,
        f"{intro.format(published)} {_how(sampled, best_first)} {_intervals(seeds)}",
        tables.present(sections),
    )
    write(report, folder, provenance(run_info, seeds))
    return {"problems": len(results.rows)}


def _how(sampled: Sampled, best_first: BestFirst | None) -> str:
    search = ""
    if best_first is not None:
        search = (
            f" Best-first search: {best_first.expansions} expansions of "
            f"{best_first.candidates} candidates, "
            + ("of a beam." if best_first.beam else "sampled.")
        )
    return (
        f"Sampling: K = {sampled.trajectories} trajectories of at most "
        f"N = {sampled.tactics} tactics, those that do not apply included.{search}"
    )


def _intervals(seeds: tuple[int, ...]) -> str:
    drawn = "Brackets are 95% intervals from a bootstrap over problems"
    if len(seeds) == 1:
        return f"{drawn} only. With one seed, how seeds vary is not known."
    return (
        f"{drawn} and {len(seeds)} seeds, paired where systems are compared; so few "
        "seeds show little of how they vary."
    )


# A page takes seconds; one of earlier code would pass for this code's.
SOURCES = (Path(__file__).parent, Path(versions.__file__).parent)
write_report.version = versions.of_sources(*SOURCES)
