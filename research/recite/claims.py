"""What became of the chapter's claims, each with its evidence."""

from collections.abc import Mapping, Sequence

import numpy as np

from research.intervals import (
    UNTESTED,
    Resamples,
    bootstrap,
    bootstrap_of,
    unbeatable,
    verdict,
)
from research.recite import errors
from research.recite.scores import Scores
from research.recite.tables import paths_of
from research.recite.voting import PathCurve
from research.report import Column, Interval, Verdict, cell

LEAST_GAP = 0.01  # one point: what "as robust as" may be missed by


def points(gain: Interval, format: str = "+.1f") -> str:
    """A difference of shares in percentage points, with its interval."""
    scaled = Interval(*(100 * x for x in (gain.value, gain.low, gain.high)))
    return f"{cell(scaled, Column('', format=format))} points"


def verdicts(
    scores: Scores, curves: Mapping[str, Sequence[PathCurve]], draws: Resamples
) -> list[Verdict]:
    """The seven claims, in the order of the chapter."""
    one = [name for name, task in scores.tasks.items() if task.hops == 1]
    two = [name for name, task in scores.tasks.items() if task.hops == 2]
    made: list[Verdict] = []
    K = scores.settings.paths

    def compare(claim: str, task: str, better: str, worse: str, evidence: str):
        if not (scores.has(better, task) and scores.has(worse, task)):
            return
        right, other = scores.right(better, task), scores.right(worse, task)
        gain = bootstrap(right - other, draws)
        full = unbeatable(other.mean(), evidence.split(" minus ")[-1].capitalize())
        status = UNTESTED if full else verdict(gain)
        made.append(
            Verdict(
                f"{claim}: {task}.",
                status,
                f"{evidence}, exact match: {points(gain)}.{full}",
            )
        )

    for task in one:
        compare(
            "Reciting and answering beats answering directly",
            task, "recite", "direct", f"vote of {K} recitations minus direct answers",
        )  # fmt: skip
        compare(
            "The same with as many samples on both sides",
            task, "recite", "direct votes",
            f"vote of {K} recitations minus vote of {K} direct answers",
        )  # fmt: skip
    for task in (*one, *two):
        made += _more_paths(scores, curves[task], task, draws)
    for task in two:
        compare(
            "On questions of two hops, two recitations beat answering directly",
            task, "recite", "direct", f"vote of {K} recitations minus direct answers",
        )  # fmt: skip
        compare(
            "On questions of two hops, two recitations beat a chain of thought",
            task, "recite", "chain of thought",
            f"vote of {K} recitations minus vote of {K} chains of thought",
        )  # fmt: skip
    first = next(iter(scores.tasks))
    compare(
        "Diversified recitation, from hints, beats sampled recitation",
        first, "diversified", "recite",
        f"one context of all passages minus vote of {K} recitations",
    )  # fmt: skip
    compare(
        "The same with one model on both sides",
        first, "diversified", "hinted votes",
        "one context of all passages minus vote of the hinted model's recitations",
    )  # fmt: skip
    robust = [task for task in scores.tasks if scores.has("robust", task)]
    made += [_robust(scores, task, draws) for task in robust]
    for task in one:
        compare(
            "The gold passage is worth more than a retrieved one",
            task, "gold", "retrieved", "gold minus BM25's passage",
        )  # fmt: skip
        compare(
            "Recitation falls short of the gold passage",
            task, "gold", "recite", f"gold passage minus vote of {K} recitations",
        )  # fmt: skip
        compare(
            "A strong model's recitation is worth more than BM25's passage",
            task, "recite", "retrieved",
            f"vote of {K} recitations minus BM25's passage",
        )  # fmt: skip
    made += [_lost(scores, task, draws) for task in scores.tasks]
    return made


def _more_paths(scores: Scores, curves: Sequence[PathCurve], task, draws):
    K = scores.settings.paths
    gain = bootstrap(
        scores.right("recite", task) - scores.single("recite", task), draws
    )
    full = unbeatable(scores.single("recite", task).mean(), "One path")
    yield Verdict(
        f"More paths are better: {task}.",
        UNTESTED if full else verdict(gain),
        f"vote of {K} minus one path, exact match: {points(gain)}.{full}",
    )
    counts = curves[0].counts
    most = max((c for c in counts if c < K), default=counts[0])
    few, many = counts.index(min(counts)), counts.index(most)
    if few == many:
        return
    # Sub-samples are drawn for each question by itself, so the variance of a repeat's
    # mean is the mean of the questions' variances over their number.
    spread = np.array([curve.scores.var(axis=1, ddof=1) for curve in curves])
    fall = bootstrap(spread[:, few] - spread[:, many], draws)
    deviations = [float(np.mean([c.deviation[i] for c in curves])) for i in (few, many)]
    yield Verdict(
        f"More paths vary less: {task}.",
        verdict(fall),
        f"Deviation of a repeat: {deviations[0]:.2%} with {counts[few]} path, "
        f"{deviations[1]:.2%} with {most}. Variance of a question's score, the former "
        f"minus the latter: {fall.value:.3f} [{fall.low:.3f}, {fall.high:.3f}].",
    )


def _robust(scores: Scores, task: str, draws: Resamples) -> Verdict:
    """Whether recitations vary by at most a point more with the exemplars."""
    values = {}
    for method in ("direct", "recite"):
        runs = scores.of("robust", task)
        values[method] = np.array(
            [
                [run.right([row.more[method][d] for row in run.rows]) for run in runs]
                for d in range(scores.settings.exemplar_seeds)
            ]
        )  # [draws of exemplars, seeds, questions]

    def statistic(*means):
        both = np.array(means)
        half = len(both) // 2
        return both[half:].std(axis=0, ddof=1) - both[:half].std(axis=0, ddof=1)

    gap = bootstrap_of(statistic, [*values["direct"], *values["recite"]], draws)
    status = "too noisy to tell"
    if gap.high < LEAST_GAP:
        status = "reproduced"
    elif gap.low > LEAST_GAP:
        status = "not reproduced"
    return Verdict(
        f"Recitation is as robust to the exemplars as direct answers: {task}.",
        status,
        f"Deviation over {scores.settings.exemplar_seeds} draws of exemplars, of the "
        f"mean over seeds, recitations minus direct answers: {points(gap, '+.2f')}; as "
        f"robust means less than {100 * LEAST_GAP:.0f} point more.",
    )


def _lost(scores: Scores, task: str, draws: Resamples) -> Verdict:
    """Whether most of what is lost was never recited."""
    normalise = scores.of("recite", task)[0].normalise
    found = [errors.question_class(p, normalise) for p in paths_of(scores, task)]
    shape = len(scores.seeds), -1

    def share(name):
        return np.array([x == name for x in found], float).reshape(shape)

    shares = {name: share(name).mean() for name in errors.CLASSES}
    other = max(errors.PATH, errors.RECITED, key=shares.get)
    gap = bootstrap(share(errors.NOT_RECITED) - share(other), draws)
    wrong = ", ".join(f"{n} {shares[n]:.1%}" for n in errors.CLASSES[1:])
    return Verdict(
        f"Most lost answers were not recited on any path: {task}.",
        verdict(gap),
        f"Of all questions: {wrong}. Not recited minus {other}: {points(gap)}.",
    )
