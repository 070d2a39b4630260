"""The chapter's report: generators, evaluators, further training, programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from research import versions
from research.easy_to_hard import (
    claims,
    tables,
    tables_coding,
    tables_policies,
    tables_reranking,
)
from research.easy_to_hard.answers import read_answers
from research.easy_to_hard.findings import Finding
from research.easy_to_hard.rules import RULES
from research.easy_to_hard.settings import Policies, Sampled
from research.easy_to_hard.summary import bare, summary
from research.report import Report, Section, provenance, write
from research.stages import RunInfo, StageResult

# What evaluators learn from, by whether the run is the miniature.
LEARNED = {
    True: "Evaluators learn from the easy generator's solutions of easy problems. ",
    False: "Evaluators learn from published labels of steps in solutions of easy "
    "problems (process models), from whether the easy generator's solutions of easy "
    "problems are right (outcome models), or from both. ",
}


def write_report(
    folder: Path,
    *,
    answers: dict[str, StageResult],
    scores: Mapping[str, StageResult],
    evaluators: Mapping[str, StageResult],
    policies: Mapping[str, Sequence[Sequence[StageResult]]],
    programs: Sequence[StageResult],
    program_judges: Sequence[StageResult],
    seeds: tuple[int, ...],
    sampled: Sampled,
    miniature: bool,
    run_info: RunInfo,
    rules: str = "exact",
    voting: str = "product",
    further: Policies | None = None,
) -> dict:
    """Stage: the report of what was run; parts that were not are left out.

    rules: how answers are compared. voting: the aggregation of step scores for votes.
    further: the settings of `policies`, where there are such.
    """
    read = {name: read_answers(stage, rules) for name, stage in answers.items()}
    generators, found, problems = tables.sections(read, seeds, sampled, miniature)
    made = [(generators[0], found)]
    judges = claims.judges(evaluators, seeds, miniature)
    if scores:
        made.append(
            tables_reranking.section(
                read,
                scores,
                evaluators,
                judges,
                seeds,
                sampled,
                miniature=miniature,
                voting=voting,
                joined=RULES[rules].joined,
            )
        )
    if policies:
        made.append(
            tables_policies.section(
                policies, judges, further, miniature=miniature, rules=rules
            )
        )
    if programs:
        judged = [stage.value for stage in program_judges]
        made.append(tables_coding.parts(programs, judged, miniature=miniature))
    said = [x for _, of_part in made for x in of_part]
    findings = [x for x in said if isinstance(x, Finding)]
    glance = Section("At a glance", summary(findings, miniature))
    holds = [x.verdict() if isinstance(x, Finding) else x for x in said]
    sections = [glance, Section("What holds", holds)]
    sections += [bare(part) for part in (*(part for part, _ in made), *generators[1:])]
    where = "in miniature" if miniature else "on published problems"
    report = Report(
        f"Easy-to-hard generalization {where}",
        "Generators are fine-tuned from the same base model: on solutions of all "
        "levels, or on solutions of the easy levels 1 to 3 only. "
        + (LEARNED[miniature] if scores else "")
        + f"All answer the same {problems} held-out problems. Brackets are 95% "
        "intervals from a bootstrap over problems "
        + (
            f"and {len(seeds)} seeds; so few seeds show little of how they vary."
            if len(seeds) > 1
            else "only. With one seed, how seeds vary is not known."
        )
        + " A share of ours without brackets is the same in every resample, so that "
        "these say nothing of how it varies: all answers are right, or all are wrong.",
        sections,
    )
    write(report, folder, provenance(run_info, seeds))
    return {"problems": problems}


# A page takes seconds; one of earlier code would pass for this code's.
SOURCES = (Path(__file__).parent, Path(versions.__file__).parent)
write_report.version = versions.of_sources(*SOURCES)
