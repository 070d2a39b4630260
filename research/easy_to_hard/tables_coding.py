"""Table 6.3 in our numbers beside the thesis's, and what becomes of its claim."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.records import read_records
from research.easy_to_hard.claims import LEAST_AUC, auc_text
from research.easy_to_hard.findings import Contest, Finding, least, settle, untestable
from research.easy_to_hard.tables import points
from research.intervals import Resamples, bootstrap
from research.report import Column, Interval, Section, Table, Text
from research.stages import StageResult

DIFFICULTIES = ("introductory", "interview", "competition")
GROUPS = (*DIFFICULTIES, "hard", "all")
METRICS = ("average", "strict")
# Table 6.3 of the thesis, APPS in percent: introductory, interview, competition, all.
# 0.1 stands for 6.1 in best-of-1 of 7B: the mean of all problems tells so.
THESIS = {
    "Code Llama 7B": {
        "full-greedy": ((31.4, 15.5, 12.2, 18.0), (17.0, 2.3, 2.0, 5.2)),
        "easy-greedy": ((26.8, 14.1, 9.5, 15.7), (11.0, 3.0, 0.0, 4.0)),
        "best-of-1": ((25.4, 12.0, 6.1, 13.5), (16.0, 2.7, 0.0, 4.8)),
        "best-of-4": ((27.1, 13.8, 8.1, 15.3), (14.0, 4.0, 0.0, 5.2)),
        "best-of-16": ((29.7, 16.3, 11.3, 18.0), (19.0, 5.0, 3.0, 7.4)),
    },
    "Code Llama 34B": {
        "full-greedy": ((37.6, 19.9, 11.3, 21.7), (22.0, 5.0, 2.0, 7.8)),
        "easy-greedy": ((33.9, 19.4, 8.5, 20.1), (21.0, 6.0, 1.0, 8.0)),
        "best-of-1": ((28.5, 14.5, 4.4, 15.3), (21.0, 3.3, 0.0, 6.2)),
        "best-of-4": ((36.3, 21.3, 10.5, 22.1), (24.0, 8.7, 1.0, 10.2)),
        "best-of-16": ((45.9, 25.8, 10.0, 26.6), (30.0, 10.7, 3.0, 13.0)),
    },
}
NAMES = {"full-greedy": "all levels, greedy", "easy-greedy": "introductory, greedy"}


class Results:
    """Values [seeds, problems] of every way to answer; `levels` of the problems."""

    def __init__(self, results: Sequence[StageResult]):
        runs = [
            [record.row for record in read_records(stage.folder / "results.jsonl")]
            for stage in results
        ]
        self.difficulty = np.array([row["difficulty"] for row in runs[0]])
        self.values = {
            (metric, way): np.array([[row[metric][way] for row in run] for run in runs])
            for metric in METRICS
            for way in runs[0][0][metric]
        }
        self.ways = [way for metric, way in self.values if metric == "average"]

    def kept(self, group: str) -> np.ndarray:
        if group == "all":
            return np.ones(len(self.difficulty), bool)
        if group == "hard":
            return self.difficulty != "introductory"
        return self.difficulty == group

    def estimate(self, metric, way, group, draws) -> Interval | None:
        kept = self.kept(group)
        if not kept.any() or (metric, way) not in self.values:
            return None
        return bootstrap(self.values[metric, way][:, kept], draws)

    def difference(self, metric, a, b, group, draws) -> Interval:
        """Paired difference a - b of two ways."""
        values = self.values[metric, a] - self.values[metric, b]
        return bootstrap(values[:, self.kept(group)], draws)


def section(results: Sequence[StageResult], models: Sequence[Mapping]) -> Section:
    """Table 6.3 on APPS with its verdicts, for a report of its own; see `parts`."""
    tables, found = parts(results, models, miniature=False)
    return Section(tables.title, [*(x.verdict() for x in found), *tables.blocks])


def parts(
    results: Sequence[StageResult], models: Sequence[Mapping], *, miniature: bool
) -> tuple[Section, list[Finding]]:
    """The section of programs, and the findings for the top of the report.

    Args:
      results: stages that left results.jsonl, one per seed, of the same problems.
      models: what the outcome models' stages returned, one per seed.
      miniature: whether an outcome model that ranks badly tests nothing.
    """
    read, draws = Results(results), Resamples(63)
    tested = [stage.value["ranking"] for stage in results]
    found = verdicts(read, models, tested, draws, miniature)
    blocks = [table_6_3(read, metric, draws) for metric in METRICS]
    blocks.append(ranking(models, results))
    return Section("Programs (Table 6.3)", blocks), found


def table_6_3(read: Results, metric: str, draws) -> Table:
    """Ours, then the thesis's; a dash is not reported there."""
    rows = []
    ways = [*read.ways]
    if metric == "strict":
        ways += [w for m, w in read.values if m == metric and w not in ways]
    for way in ways:
        cells = [read.estimate(metric, way, group, draws) for group in GROUPS]
        rows.append([_name(way), "here", *cells])
    for model, lines in THESIS.items():
        for way, numbers in lines.items():
            first, second, third, whole = (
                x / 100 for x in numbers[METRICS.index(metric)]
            )
            hard = _hard(second, third)
            rows.append([_name(way), model, first, second, third, hard, whole])
    columns = [Column("trained on, decoding"), Column("source")]
    columns += [Column(group, format=".1%") for group in GROUPS]
    means = {
        "average": "share of hidden tests passed, mean over problems",
        "strict": "share of problems with all hidden tests passed",
    }
    return Table(
        columns,
        rows,
        f"{metric.capitalize()} accuracy of programs: {means[metric]}",
        "Best-of-n is the expected value over all sub-samples of n from one pool, "
        "chosen by the outcome model's score at the final token. The thesis's rows are "
        "of APPS: compare the order and the gaps, not the levels. hard is interview "
        "and competition together; in the thesis's rows we computed it. Best-of-1 of "
        "7B on competition problems is printed as 0.1 there; its mean needs 6.1."
        + (
            " pass@n is the share that a perfect judge would reach."
            if metric == "strict"
            else ""
        ),
    )


def verdicts(
    read: Results,
    models: Sequence[Mapping],
    tested: Sequence[Mapping],
    draws,
    miniature: bool,
) -> list[Finding]:
    """Claim 7, against a random sample and, as the thesis does, against greedy.

    The bar is on introductory problems of the test where there are such: on those of
    development the settings were chosen.
    """
    most = max(int(w.rpartition("-")[2]) for w in read.ways if w.startswith("best-of-"))
    best = f"best-of-{most}"
    reached = [
        ranked.get("introductory", model)["auc"]
        for ranked, model in zip(tested, models, strict=True)
    ]
    weak = miniature and any(v is None or v < LEAST_AUC for v in reached)
    shown = ", ".join(map(auc_text, reached))
    judged = f"AUC of the outcome model on introductory problems, by seed: {shown}"
    too_weak = [f"{judged}, under the {LEAST_AUC} that a test of this needs"] * weak
    out = []
    for other, words in (
        ("best-of-1", "one of its samples"),
        ("easy-greedy", "its greedy programs"),
    ):
        strict = read.difference("strict", best, other, "hard", draws)
        average = read.difference("average", best, other, "hard", draws)
        names = {best: f"{best} on hard problems", other: f"{other} on hard problems"}
        shares = {
            way: float(read.values["strict", way][:, read.kept("hard")].mean())
            for way in (best, other)
        }
        contest = Contest(
            names[best], shares[best], names[other], shares[other], _effect(other)
        )
        out.append(
            settle(
                "An outcome model trained on introductory programs only helps on "
                f"harder ones: best of {most} beats {words}.",
                strict,
                f"Hard problems, {best} minus {other}, strict",
                points(strict),
                untestable([contest], miniature=miniature) + too_weak,
                f" Average: {points(average)}. Cost of a problem: {most} scored "
                "programs; against one." + ("" if weak else f" {judged}."),
            )
        )
    return out


def _hard(interview: float, competition: float) -> float:
    """Of the thesis's 400 harder problems 300 are of interview difficulty."""
    return (3 * interview + competition) / 4


def _effect(other: str) -> float:
    """What the best of 16 solves more than another way, of the thesis's hard ones."""
    strict = METRICS.index("strict")

    def hard(lines, way):
        return _hard(*lines[way][strict][1:3])

    return least(
        hard(lines, "best-of-16") - hard(lines, other) for lines in THESIS.values()
    )


def ranking(models: Sequence[Mapping], results: Sequence[StageResult]) -> Table | Text:
    """How well the outcome model ranks, by difficulty and seed."""
    rows = []
    for i, (model, stage) in enumerate(zip(models, results, strict=True)):
        held = ("development, introductory", model)
        tested = stage.value["ranking"].items()
        for where, found in [held, *((f"test, {name}", r) for name, r in tested)]:
            cells = [found[k] for k in ("auc", "auc_within", "mixed_problems")]
            rows.append([str(i), where, *cells])
    return Table(
        [
            Column("run"),
            Column("problems"),
            Column("AUC", format=".3f"),
            Column("AUC within a problem", format=".3f"),
            Column("problems with both kinds", format="d"),
        ],
        rows,
        "The outcome model as a judge of its generator's programs",
        "AUC: the chance that a right program scores above a wrong one. Within a "
        "problem is what choosing the best of n depends on.",
    )


def _name(way: str) -> str:
    if way.startswith("pass-at-"):
        return f"introductory, pass@{way.rpartition('-')[2]}"
    return NAMES.get(way, f"introductory, {way}")
