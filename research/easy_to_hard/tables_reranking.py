"""Re-ranking in the report: evaluators, voting and best-of-n, figures 6.4 and 6.5."""

from collections.abc import Mapping, Sequence

import numpy as np

from research import plots
from research.easy_to_hard.answers import Answered
from research.easy_to_hard.claims import KINDS, LEAST_AUC, Judges, lowest_auc
from research.easy_to_hard.claims_reranking import verdicts
from research.easy_to_hard.reranked import BEST, Reranked, name_of, ways_of
from research.easy_to_hard.selection import AGGREGATIONS
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tables import GROUPS
from research.intervals import Resamples, bootstrap
from research.report import Column, Figure, Section, Table
from research.stages import StageResult

LLEMMA = {"easy": "7B", "large": "34B"}  # the thesis's generators
# Appendix figures 1 to 6: Llemma on MATH500 with 1024 samples, easy, hard, all.
THESIS = {
    ("easy", None, "majority"): (56.76, 19.19, 37.10),
    ("easy", "orm", "weighted"): (60.81, 21.23, 39.98),
    ("easy", "prm", "weighted"): (60.19, 22.77, 40.47),
    ("easy", "oprm", "weighted"): (63.20, 24.12, 42.74),
    ("easy", "large", "weighted"): (66.54, 27.81, 46.27),
    ("easy", "orm", "best"): (50.91, 16.34, 32.77),
    ("easy", "prm", "best"): (49.09, 15.66, 31.55),
    ("easy", "oprm", "best"): (55.06, 19.91, 36.66),
    ("easy", "large", "best"): (None, None, 44.3),
    ("large", None, "majority"): (None, 26.41, 46.53),
    ("large", "oprm", "weighted"): (None, None, 50.67),
    ("large", "oprm", "best"): (None, None, 42.96),
    ("large", "large", "weighted"): (None, 32.58, 52.45),
    ("large", "large", "best"): (None, None, 46.31),
}


def section(
    answers: Mapping[str, Answered],
    scores: Mapping[str, StageResult],
    evaluators: Mapping[str, StageResult],
    judges: Judges,
    seeds: Sequence[int],
    sampled: Sampled,
    *,
    miniature: bool,
    voting: str = "product",
    joined: bool = False,
) -> tuple[Section, list]:
    """The section of re-ranking, and the verdicts for the top of the report.

    scores: stages named `<generator> <kind> <seed>`; evaluators: `<kind> <seed>`.
    voting: the aggregation for weighted votes; joined: see `rules.Rules`.
    """
    named = {tuple(name.split()): stage for name, stage in scores.items()}
    split = {(g, k, int(s)): stage for (g, k, s), stage in named.items()}
    read = Reranked(answers, split, seeds, sampled, voting, joined)
    draws = Resamples(64)
    blocks = [
        quality(evaluators, judges, seeds),
        table(read, draws, miniature),
        *figures(read, draws),
        spreads(read, sampled),
        aggregations(read, draws),
    ]
    title = "Re-ranking (figures 6.4 and 6.5)"
    return Section(title, blocks), verdicts(read, judges, draws)


def quality(evaluators, judges: Judges, seeds) -> Table:
    """How well evaluators rank and calibrate on easy problems held out from them."""
    rows = []
    for kind in judges.auc:
        values = [evaluators[f"{kind} {seed}"].value for seed in seeds]

        def over_seeds(metric, of, values=values):
            found = [v[f"eval/{metric}"] for v in values]
            return None if None in found else float(of(found))  # None: undefined

        row = [KINDS[kind]]
        for metric in ("process_auc", "outcome_auc"):
            measured = all(f"eval/{metric}" in v for v in values)
            row.append(over_seeds(metric, np.mean) if measured else None)
        row.append(lowest_auc(evaluators, kind, seeds))
        row += [over_seeds(m, np.mean) for m in ("accuracy", "brier", "ece")]
        rows.append(row)
    columns = [Column("evaluator"), Column("AUC of steps", format=".3f")]
    columns += [Column("AUC of answers", format=".3f")]
    columns += [Column("lowest", format=".3f"), Column("accuracy", format=".1%")]
    columns += [Column("Brier", format=".3f"), Column("ECE", format=".3f")]
    lowest = "Lowest: of the seeds' AUC of steps, for an ORM of answers"
    return Table(
        columns,
        rows,
        "Evaluators on held-out easy problems",
        "Means over seeds, where scores are read; the best evaluation was "
        f"chosen by the loss on the same problems. {lowest}"
        + (
            "."
            if judges.least is None
            else f"; under {LEAST_AUC} an evaluator is too weak for verdicts."
        ),
    )


def sizes(read: Reranked) -> dict[str, str]:
    """What generators are called: small and large only beside each other."""
    if any(way[0] == "large" for way in read.curves):
        return {"easy": "small", "large": "large"}
    return {"easy": "easy-to-hard"}


def table(read: Reranked, draws, miniature: bool) -> Table:
    """Every way with the whole pool, ours and the thesis's."""
    names, ways = sizes(read), ways_of(read)
    rows = [
        [names[way[0]], name_of(way), "here"]
        + [read.estimate(way, group, draws) for group in GROUPS]
        for way in ways
    ]
    # One that was published may be of either of the thesis's sizes.
    rows += [
        [LLEMMA[way[0]], name_of(way, "OPRM, 34B"), "thesis"]
        + [None if x is None else x / 100 for x in numbers]
        for way, numbers in THESIS.items()
        if way in ways or not miniature
    ]
    columns = [Column("generator"), Column("way"), Column("source")]
    columns += [Column(group, format=".1%") for group in GROUPS]
    most = read.counts[-1]
    return Table(
        columns,
        rows,
        f"Re-ranking {most} answers of the easy-to-hard generator",
        f"Voting weighs every answer by the {read.voting} of its solution's scores; "
        f"best-of-n takes the solution with the highest {BEST}. The thesis's rows: "
        "Llemma on PRM800K and MATH500, 1024 answers, evaluators of 7B unless they say "
        "34B.",
    )


def figures(read: Reranked, draws) -> list[Figure]:
    """Accuracy against the number of answers, on hard and on all problems."""
    out = []
    for generator in dict.fromkeys(way[0] for way in read.curves):
        ways = [way for way in read.curves if way[0] == generator]
        size = sizes(read)[generator]
        for group in ("hard", "all"):
            series = {}
            for way in ways:
                estimates = [read.estimate(way, group, draws, n) for n in read.counts]
                series[name_of(way)] = [(e.value, e.low, e.high) for e in estimates]
            figure = plots.lines(
                read.counts,
                series,
                xlabel="sampled answers",
                ylabel=f"accuracy on {group} problems",
                percent=True,
                log_x=True,
            )
            out.append(
                Figure(
                    figure,
                    f"{size.capitalize()} generator, {group} problems: voting and "
                    "best-of-n over sub-samples of one pool.",
                    f"Lines of accuracy on {group} problems against sampled answers",
                )
            )
    return out


def spreads(read: Reranked, sampled: Sampled) -> Table:
    """How much accuracy varies between sub-samples of one pool, small generator."""
    rows = [
        [name_of(way), group]
        + [None if x is None else 100 * x for x in read.spread(way, group)]
        for way in read.curves
        if way[0] == "easy"
        for group in ("hard", "all")
    ]
    columns = [Column("way"), Column("problems")]
    columns += [Column(f"n = {n}", format=".2f") for n in read.counts]
    return Table(
        columns,
        rows,
        "Standard deviation of accuracy over sub-samples, in points (figure 6.4)",
        f"Of {sampled.repeats} sub-samples of n from one pool of {sampled.votes} "
        "answers; over seeds, the root of the mean variance. It is the noise of "
        "sampling alone, and too small where n is near the pool, since sub-samples "
        "then share most answers. A dash is the pool itself, of which there is one.",
    )


def aggregations(read: Reranked, draws) -> Table:
    """Every aggregation of step scores, whole pool, all problems, small generator."""
    kinds = [kind for kind in read.kinds if kind != "orm"]  # it has one score
    rows = []
    for name in AGGREGATIONS:
        cells = [
            bootstrap(read.found["easy", kind, method, name], draws)
            for kind in kinds
            for method in ("weighted", "best")
        ]
        rows.append([name, *cells])
    columns = [Column("aggregation")] + [
        Column(f"{KINDS[kind]}, {short}", format=".1%")
        for kind in kinds
        for short in ("voting", "best")
    ]
    return Table(columns, rows, "Aggregation of step scores, all problems")
