"""Re-ranking in the report: evaluators, voting and best-of-n, figures 6.4 and 6.5."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from research import plots
from research.easy_to_hard.answers import Answered
from research.easy_to_hard.claims import KINDS, Judges
from research.easy_to_hard.claims_reranking import verdicts
from research.easy_to_hard.reranked import BEST, Reranked, name_of, ways_of
from research.easy_to_hard.selection import AGGREGATIONS
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tables import GROUPS
from research.easy_to_hard.thesis_curves import COUNTS, CURVES, nearest, percent
from research.intervals import Resamples, bootstrap
from research.report import Column, Figure, Section, Table
from research.stages import StageResult

LLEMMA = {"easy": "7B", "large": "34B"}  # the thesis's generators


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
    judges = dataclasses.replace(judges, used=read.used)
    draws = Resamples(64)
    blocks = [
        quality(evaluators, judges, read, seeds),
        table(read, draws, miniature),
        *figures(read, draws),
        thesis_points(read, miniature),
        spreads(read, sampled),
        aggregations(read, draws),
    ]
    title = "Re-ranking (figures 6.4 and 6.5)"
    return Section(title, blocks), verdicts(read, judges, draws, miniature)


def quality(evaluators, judges: Judges, read: Reranked, seeds) -> Table:
    """How well evaluators rank and calibrate on easy problems held out from them."""
    kinds = dict.fromkeys(name.split()[0] for name in evaluators)
    rows = []
    for kind in kinds:
        values = [evaluators[f"{kind} {seed}"].value for seed in seeds]

        def over_seeds(metric, values=values):
            if not all(f"eval/{metric}" in v for v in values):
                return None
            return _mean([v[f"eval/{metric}"] for v in values])

        row = [KINDS[kind], over_seeds("process_auc"), judges.steps.get(kind)]
        row.append(over_seeds("outcome_auc"))
        for method in ("weighted", "best"):
            way = ("easy", kind, method)
            row += [_mean(read.aucs[way]), judges.used[way]]
        row += [over_seeds(m) for m in ("accuracy", "brier", "ece")]
        rows.append([*row, _mean([float(v["step"]) for v in values])])
    columns = [Column("evaluator")]
    columns += [
        Column(name, format=".3f")
        for name in (
            "AUC of steps",
            "its lowest seed",
            "AUC of answers",
            "AUC, voting",
            "its lowest seed",
            "AUC, best-of-n",
            "its lowest seed",
        )
    ]
    columns += [Column("accuracy", format=".1%")]
    columns += [Column("Brier", format=".3f"), Column("ECE", format=".3f")]
    columns += [Column("updates", format=",.0f")]
    return Table(
        columns,
        rows,
        "Evaluators on held-out easy problems",
        "Means over seeds. AUC of steps and of answers, accuracy, Brier and ECE are of "
        "labelled solutions of training problems kept from the evaluator, where scores "
        "are read; its best evaluation was chosen by the loss on the same problems. "
        "AUC of voting and of best-of-n is of the score by which these choose, that of "
        "a whole solution: over the easy-to-hard generator's answers to easy test "
        "problems. These are drawn at a lower temperature and are not balanced, so "
        "that they are easier to tell apart."
        + (
            ""
            if judges.least is None
            else f" Under {judges.least} in any seed, on steps (an ORM judges none) or "
            "in the use that a claim makes of it, an evaluator is too weak for a "
            "verdict. No claim uses the score of the answer as labelled solutions "
            "have it: its AUC is shown only."
        ),
    )


def _mean(values) -> float | None:
    """None where one is undefined."""
    return None if None in values else float(np.mean(values))


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
    most = read.counts[-1]
    same = nearest(most)
    # One that was published may be of either of the thesis's sizes.
    rows += [
        [LLEMMA[way[0]], name_of(way, "OPRM, 34B"), "thesis"]
        + [_share(way, group, same) for group in GROUPS]
        for way in CURVES
        if way in ways or not miniature
    ]
    columns = [Column("generator"), Column("way"), Column("source")]
    columns += [Column(group, format=".1%") for group in GROUPS]
    return Table(
        columns,
        rows,
        f"Re-ranking {most} answers of the easy-to-hard generator",
        f"Voting weighs every answer by the {read.voting} of its solution's scores; "
        f"best-of-n takes the solution with the highest {BEST}. The thesis's rows: "
        f"Llemma on PRM800K and MATH500, {same} answers"
        + ("" if same == most else f", which of those it reports is nearest to {most}")
        + ", evaluators of 7B unless they say 34B; with other numbers of answers, up "
        f"to {COUNTS[-1]}, they are below the figures.",
    )


def _share(way: tuple, group: str, count: int) -> float | None:
    found = percent(way, group, count)
    return None if found is None else found / 100


def thesis_points(read: Reranked, miniature: bool) -> Table:
    """The thesis's points of the curves that the figures show of ours."""
    rows = []
    for way in CURVES:
        if way not in read.curves and miniature:
            continue
        for group in GROUPS:
            cells = [_share(way, group, count) for count in COUNTS]
            if any(cells):
                name = name_of(way, "OPRM, 34B")
                rows.append([LLEMMA[way[0]], name, group, *cells])
    columns = [Column("generator"), Column("way"), Column("problems")]
    columns += [Column(f"n = {count}", format=".1%") for count in COUNTS]
    return Table(
        columns,
        rows,
        "The thesis's points of figures 6.4 and 6.5",
        "Of Llemma on PRM800K and MATH500, evaluators of 7B unless they say 34B; a "
        "dash is not printed there. What more answers add shows in the order and the "
        "gaps: not the levels, but these are to be compared with ours above.",
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
    found = {
        (way, group): read.spread(way, group)
        for way in read.curves
        if way[0] == "easy"
        for group in ("hard", "all")
    }
    # The whole pool is one sub-sample, which has no deviation.
    shown = [i for i, _ in enumerate(read.counts) if any(x[i] for x in found.values())]
    rows = [
        [name_of(way), group, *(None if x[i] is None else 100 * x[i] for i in shown)]
        for (way, group), x in found.items()
    ]
    columns = [Column("way"), Column("problems")]
    columns += [Column(f"n = {read.counts[i]}", format=".2f") for i in shown]
    return Table(
        columns,
        rows,
        "Standard deviation of accuracy over sub-samples, in points (figure 6.4)",
        f"Of {sampled.repeats} sub-samples of n from one pool of {sampled.votes} "
        "answers; over seeds, the root of the mean variance. It is the noise of "
        "sampling alone, and too small where n is near the pool, since sub-samples "
        f"then share most answers. With n = {sampled.votes} there is no other "
        "sub-sample to differ from.",
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
