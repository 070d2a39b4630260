"""The chapter's report."""

from collections.abc import Mapping
from pathlib import Path

from research import versions
from research.intervals import Resamples
from research.recite import (
    claims,
    reasons,
    tables,
    tables_paper,
    tables_paths,
    transcripts,
)
from research.recite.scores import Scores
from research.recite.settings import Methods, Task
from research.report import Report, Section, provenance, write
from research.stages import RunInfo, StageResult


def write_report(
    folder: Path,
    *,
    answers: Mapping[str, StageResult],
    tasks: tuple[Task, ...],
    settings: Methods,
    seeds: tuple[int, ...],
    run_info: RunInfo,
    system: str | None = None,
    titles: Mapping[str, str] | None = None,
    shots: Mapping[str, int] | None = None,
) -> dict:
    """Stage: the report of what was run.

    answers: stages of `research.recite.answering` by "<method> <task> <seed>", and data
    by "world <seed>".
    system, titles, shots: of a published model; see `tables_paper.Beside`.
    """
    scores, draws = Scores(answers, tasks, settings, seeds), Resamples(0)
    paths, curves = tables_paths.more_paths(scores)
    found = claims.verdicts(scores, curves, draws, system)
    if system is None:
        found = reasons.explained(found, scores)
        accuracy = tables.accuracy(scores, draws)
        contexts = tables.contexts(scores, draws)
    else:
        beside = tables_paper.Beside(system, titles, shots)
        accuracy, contexts = tables_paper.answers(scores, draws, beside), None
    if titles is None:
        trivia = [name for name, task in scores.tasks.items() if task.hops == 1]
    else:
        trivia = [name for name, title in titles.items() if title == "TriviaQA"]
    sections = [
        Section("What holds", [claims.summary(found), *(f.verdict() for f in found)]),
        accuracy,
        tables.hints(scores, draws),
        contexts,
        paths,
        tables.losses(scores, trivia),
        tables.robustness(scores),
        transcripts.recited(scores),
        transcripts.transcripts(scores),
    ]
    counts = {t: scores.right("direct", t).shape[1] for t in scores.tasks}
    asked = ", ".join(f"{n} {name}" for name, n in counts.items())
    world = (
        "" if system is not None else WORLD.format(**scores.values[f"world {seeds[0]}"])
    )
    report = Report(
        "Recitation-augmented generation",
        "A model answers without any text at hand: at once, or after reciting passages "
        f"that it has read.{world} Questions of every seed: {asked}. Brackets are 95% "
        "intervals from a bootstrap over questions "
        + (
            f"and {len(seeds)} seeds; so few seeds show little of how they vary."
            if len(seeds) > 1
            else "only. With one seed, how seeds vary is not known."
        ),
        [section for section in sections if section is not None],
    )
    write(report, folder, provenance(run_info, seeds))
    told = [f._asdict() for f in found]
    return {"questions": counts, "claims": told}


WORLD = (
    " Here it is a small one, trained from scratch on an encyclopedia of {passages} "
    "passages about people, their clubs, towns and firms who exist nowhere else, a new "
    "one for every seed. Questions about half of the people taught it the formats; the "
    "test asks about others, of whom it has read the pages and never seen a question. "
    "Questions of one hop are answered by one passage, of two hops by two in order."
)
# A page takes seconds; one of earlier code would pass for this code's.
SOURCES = (Path(__file__).parent, Path(versions.__file__).parent)
write_report.version = versions.of_sources(*SOURCES)
