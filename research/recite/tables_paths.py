"""Figure 4.4: votes of fewer paths, by sub-samples of the pool that was drawn."""

import numpy as np

from research import plots
from research.recite.scores import Scores
from research.recite.voting import PathCurve, path_curve, vote
from research.report import Column, Figure, Section, Table


def more_paths(scores: Scores) -> tuple[Section, dict[str, list[PathCurve]]]:
    """Figure 4.4, and its curves {task: [curve of each seed]} for the verdicts."""
    made, curves, blocks = {}, {}, []
    counts = scores.settings.counts
    for task in scores.tasks:
        for label in ("exact match", "F1"):
            found = _curves(scores, task, label)
            mean = np.mean([curve.mean for curve in found], axis=0)
            spread = np.mean([curve.deviation for curve in found], axis=0)
            made[f"{task}, {label}"] = [
                (m, m - s, m + s) for m, s in zip(mean, spread, strict=True)
            ]
            if label == "exact match":
                curves[task] = found
                rows = [
                    [count, float(m), float(s)]
                    for count, m, s in zip(counts, mean, spread, strict=True)
                ]
                blocks.append(_table(scores, task, rows))
    figure = Figure(
        plots.lines(
            counts, made, xlabel="paths", ylabel="Right, or F1, by vote", log_x=True
        ),
        f"Figure 4.4: votes of fewer paths, {scores.settings.repeats} sub-samples of "
        "one pool each; bands are one standard deviation of them.",
        "Curves of exact match and F1 over the number of paths.",
    )
    return Section("More paths (Figure 4.4)", [figure, *blocks]), curves


def _curves(scores: Scores, task: str, label: str) -> list[PathCurve]:
    found = []
    for seed, run in zip(scores.seeds, scores.of("recite", task), strict=True):

        def score(q, answer, run=run):
            one = run._replace(entries=[run.entries[q]])
            how = one.right if label == "exact match" else one.overlap
            return float(how([answer])[0])

        rng = np.random.default_rng([seed, 10])
        pools = [row.answers for row in run.rows]
        settings = scores.settings
        found.append(
            path_curve(pools, score, settings.counts, settings.repeats, rng, vote)
        )
    return found


def _table(scores: Scores, task: str, rows) -> Table:
    K = scores.settings.paths
    one = scores.single("recite", task).mean()
    as_scored = [
        run.right([vote(row.answers, key=run.normalise) for row in run.rows]).mean()
        for run in scores.of("recite", task)
    ]
    return Table(
        [
            Column("paths"),
            Column("exact match", format=".1%"),
            Column("deviation of a repeat", format=".2%"),
        ],
        rows,
        f"Figure 4.4 in numbers: {task}",
        f"All {K} paths one by one: {one:.1%}, which is what one path has in "
        "expectation. Answers are counted as they are written, as in the original "
        "code; if those that are scored alike voted together, the vote of "
        f"{K} would have {np.mean(as_scored):.1%}.",
    )
