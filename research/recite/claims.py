"""What became of the chapter's seven claims, each with its evidence.

Every claim is in the report of every run: one that the run cannot test says why. The
rule for that is one for all, and does not look at who won:

- something that the claim compares was not run;
- ceiling: the baseline is right on more than `CEILING` of the questions, so that it
  cannot be beaten;
- floor: neither side is right on more than `FLOOR`. The model cannot do the task in
  either way, and a comparison would be one of noise.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.intervals import (
    CEILING,
    UNTESTED,
    Resamples,
    bootstrap,
    bootstrap_of,
    unbeatable,
    verdict,
)
from research.recite import errors, thesis
from research.recite.scores import Scores
from research.recite.tables import name_of, paths_of
from research.recite.voting import PathCurve
from research.report import Column, Interval, Status, Table, Verdict, cell

LEAST_GAP = 0.01  # one point: what "as robust as" may be missed by
FLOOR = 0.02  # what is right no more often cannot do the task
NOWHERE = "–"  # the task of a claim that no task can test
WEAK = "UL2-20B"  # for which a retrieved passage is worth more than its recitation


class Found(NamedTuple):
    """What became of a claim on a task; `difference` is its number, for a table."""

    claim: str
    task: str
    status: Status
    difference: str
    evidence: str

    def verdict(self) -> Verdict:
        where = "" if self.task == NOWHERE else f": {self.task}"
        return Verdict(f"{self.claim}{where}.", self.status, self.evidence)


class Contest(NamedTuple):
    """A claim that one method beats another on questions of so many hops."""

    claim: str
    better: str
    worse: str
    hops: tuple[int, ...] = (1,)


def contests(system: str | None) -> dict[int, list[Contest]]:
    """Claims that are differences of exact match, by their numbers in the chapter."""
    third = Contest(
        "6c. A strong model's recitation is worth more than BM25's passage",
        "recite",
        "retrieved",
    )
    if system is None:  # which is neither strong nor weak
        third = third._replace(claim="6c. Recitation is worth more than BM25's passage")
    if system == WEAK:
        third = Contest(
            "6c. A weak model's recitation is worth less than BM25's passage",
            "retrieved",
            "recite",
        )
    return {
        1: [
            Contest("1. Reciting and answering beats answering directly",
                    "recite", "direct"),
            Contest("1b. The same with as many samples on both sides",
                    "recite", "direct votes"),
        ],
        3: [
            Contest("3. Two recitations beat answering directly",
                    "recite", "direct", (2,)),
            Contest("3b. Two recitations beat a chain of thought",
                    "recite", "chain of thought", (2,)),
        ],
        4: [
            Contest("4. Diversified recitation, from hints, beats sampled recitation",
                    "diversified", "recite", (1, 2)),
            Contest("4b. The same with one model on both sides",
                    "diversified", "hinted votes", (1, 2)),
        ],
        6: [
            Contest("6a. The gold passage is worth more than a retrieved one",
                    "gold", "retrieved"),
            Contest("6b. The gold passage is worth more than recitation",
                    "gold", "recite"),
            third,
        ],
    }  # fmt: skip


FURTHER = (
    " The model of the hints was trained further, which may be all of the gain: 4b "
    "has it on both sides."
)
# Why a method may be missing, by the name that `Scores` has it by.
MISSING = {
    "direct votes": "the tasks' methods are without votes of direct answers",
    "chain of thought": "the tasks' methods are without chains of thought",
    "diversified": "no model was taught to recite by hints (the setting hinted)",
    "hinted votes": "no model was taught to recite by hints (the setting hinted)",
    "gold": "no task has the gold passage among its contexts",
    "retrieved": "no task has retrieved passages among its contexts",
}


def points(gain: Interval, format: str = "+.1f") -> str:
    """A difference of shares in percentage points, with its interval."""
    scaled = Interval(*(100 * x for x in (gain.value, gain.low, gain.high)))
    return f"{cell(scaled, Column('', format=format))} points"


def verdicts(
    scores: Scores,
    curves: Mapping[str, Sequence[PathCurve]],
    draws: Resamples,
    system: str | None = None,
) -> list[Found]:
    """All claims, in the order of the chapter.

    curves: of every task and seed. system: a model of the thesis; None: a miniature.
    """
    compared = {
        number: [f for c in group for f in _compare(scores, c, draws)]
        for number, group in contests(system).items()
    }
    return [
        *compared[1],
        *(f for t in scores.tasks for f in _more_paths(scores, curves[t], t, draws)),
        *compared[3],
        *compared[4],
        *_robust(scores, draws),
        *compared[6],
        *(_lost(scores, task, draws) for task in scores.tasks),
    ]


def summary(found: Sequence[Found]) -> Table:
    """All claims at a glance."""
    tested = sum(f.status != UNTESTED for f in found)
    return Table(
        [Column("claim"), Column("questions"), Column("verdict"), Column("difference")],
        [[f.claim, f.task, f.status, f.difference] for f in found],
        "The chapter's claims",
        "Reproduced: the whole interval is above 0; not reproduced: below. Of claim 5: "
        f"below, or above, {100 * LEAST_GAP:.0f} point. Each of the {tested} tested "
        "lines has its own interval at 95%, not corrected for their number; they "
        "share models and questions, so that their errors come together.",
    )


def _untested(claim: str, task: str, why: str) -> Found:
    return Found(claim, task, UNTESTED, "–", f"Not tested: {why}.")


def _out_of_reach(better: float, worse: float, name: str) -> str:
    """Why a difference of two shares says nothing; "" where it does."""
    if max(better, worse) <= FLOOR:
        return (
            f" Neither is right on more than {FLOOR:.0%}: the model cannot do this "
            "task, in either way."
        )
    return unbeatable(worse, name)


def _in_the_thesis(better: str, worse: str, hops: int) -> str:
    """The thesis's differences in points, as a sentence; "" where it has none."""
    found = thesis.differences(better, worse, hops)
    if not found:
        return ""
    low, high = (f"{x:+.1f}".replace("-", "−") for x in (min(found), max(found)))
    return f" In the thesis: {low}" + f" to {high}" * (low != high) + "."


def _compare(scores: Scores, contest: Contest, draws: Resamples) -> list[Found]:
    """A line for every task that has both methods; one that says why, without any."""
    claim, better, worse, hops = contest
    tasks = [name for name, task in scores.tasks.items() if task.hops in hops]
    if not tasks:
        kind = "two hops" if hops == (2,) else "one hop"
        return [_untested(claim, NOWHERE, f"no questions of {kind} were asked")]
    made = []
    for task in tasks:
        if not (scores.has(better, task) and scores.has(worse, task)):
            continue
        right, other = scores.right(better, task), scores.right(worse, task)
        gain = bootstrap(right - other, draws)
        reached, baseline = right.mean(), other.mean()
        name = name_of(worse, scores)
        why = _out_of_reach(reached, baseline, name.capitalize())
        told = _in_the_thesis(better, worse, scores.tasks[task].hops)
        if (better, worse) == ("diversified", "recite"):
            told += FURTHER
        evidence = (
            f"Exact match: {name_of(better, scores)} ({reached:.1%}) minus {name} "
            f"({baseline:.1%}), {points(gain)}.{told}{why}"
        )
        status = UNTESTED if why else verdict(gain)
        made.append(Found(claim, task, status, points(gain), evidence))
    if made:
        return made
    lacking = [m for m in (better, worse) if not any(scores.has(m, t) for t in tasks)]
    why = "; ".join(dict.fromkeys(MISSING.get(m, f"no {m}") for m in lacking))
    return [_untested(claim, NOWHERE, why or "no task has both methods")]


def _more_paths(scores: Scores, curves: Sequence[PathCurve], task, draws):
    """That a vote of all paths beats one path, and that more paths vary less."""
    K = scores.settings.paths
    voted, single = scores.right("recite", task), scores.single("recite", task)
    gain = bootstrap(voted - single, draws)
    why = _out_of_reach(voted.mean(), single.mean(), "One path")
    told = _in_the_thesis("recite", "one path", scores.tasks[task].hops)
    yield Found(
        "2. More paths are better",
        task,
        UNTESTED if why else verdict(gain),
        points(gain),
        f"Exact match: vote of {K} ({voted.mean():.1%}) minus one path, the mean of "
        f"all ({single.mean():.1%}), {points(gain)}.{told}{why}",
    )
    claim = "2b. Votes of more paths vary less"
    counts = curves[0].counts
    # At most half of the pool, so that two sub-samples are mostly of different paths.
    most = max((c for c in counts if 2 * c <= K), default=min(counts))
    few, many = counts.index(min(counts)), counts.index(most)
    if few == many:
        yield _untested(
            claim, task, f"of {K} paths at most half are one number of the counts"
        )
        return
    # Sub-samples are drawn for each question by itself, so the variance of a repeat's
    # mean is the mean of the questions' variances over their number.
    spread = np.array([curve.scores.var(axis=1, ddof=1) for curve in curves])
    if not spread[:, [few, many]].any():
        yield _untested(claim, task, "the paths of every question are equally right")
        return
    fall = bootstrap(spread[:, few] - spread[:, many], draws)
    # What a repeat's mean deviates by, of so many questions: five repeats would show
    # it by chance alone.
    mean = spread[:, [few, many]].mean(axis=(0, 2)) / spread.shape[-1]
    deviations = np.sqrt(mean).tolist()
    shown = f"{fall.value:.3f} [{fall.low:.3f}, {fall.high:.3f}]".replace("-", "−")
    yield Found(
        claim,
        task,
        verdict(fall),
        f"{shown} of variance",
        "Deviation of a repeat, by the variances of its questions: "
        f"{deviations[0]:.2%} with {counts[few]} path, {deviations[1]:.2%} with "
        f"{most}. Variance of a question's score, the former minus the latter: "
        f"{shown}. Sub-samples of one pool of {K} overlap, the more the larger they "
        "are: a part of the fall is of that, here as in the thesis.",
    )


def _robust(scores: Scores, draws: Resamples) -> list[Found]:
    """Whether recitations vary by at most a point more with the exemplars."""
    claim = "5. Recitation is as robust to the exemplars as direct answers"
    made = []
    for task in scores.tasks:
        if not scores.has("robust", task):
            continue
        values = {m: scores.by_exemplars(m, task) for m in ("direct", "recite")}
        gap = deviation_gap(values["direct"], values["recite"], draws)
        shares = {m: float(v.mean()) for m, v in values.items()}
        stuck = [m for m, s in shares.items() if not FLOOR < s <= CEILING]
        why = "".join(
            f" {m.capitalize()} is right on {shares[m]:.1%}: nothing is left to vary."
            for m in stuck
        )
        status: Status = "too noisy to tell"
        if why:
            status = UNTESTED
        elif gap.high < LEAST_GAP:
            status = "reproduced"
        elif gap.low > LEAST_GAP:
            status = "not reproduced"
        made.append(
            Found(
                claim,
                task,
                status,
                points(gap, "+.2f"),
                f"Deviation over {scores.settings.exemplar_seeds} draws of exemplars, "
                "the mean of all seeds, recitations minus direct answers: "
                f"{points(gap, '+.2f')}; as robust means less than "
                f"{100 * LEAST_GAP:.0f} point more. Recitations are drawn anew with "
                "every draw of exemplars, and vary by that alone, too; direct answers "
                f"are greedy. The interval is over questions, for these draws.{why}",
            )
        )
    return made or [
        _untested(claim, NOWHERE, "no task was asked with several draws of exemplars")
    ]


def deviation_gap(direct: np.ndarray, recite: np.ndarray, draws: Resamples) -> Interval:
    """By how much the deviation over draws of exemplars is larger with recitations.

    direct, recite: exact match, float64 [draws, seeds, questions]. The deviation is of
    the mean over questions, within each seed; then the mean over seeds. To resample the
    questions adds their noise to every deviation once more: resamples are moved by as
    much as they are off in the mean.
    """
    seeds, problems = draws.shares(*direct.shape[1:])

    def gaps(weights):  # [resamples, questions] -> [seeds, resamples]
        one, other = (
            (values @ weights.T).std(axis=0, ddof=1) for values in (recite, direct)
        )
        return one - other

    even = np.full((1, direct.shape[2]), 1 / direct.shape[2])
    value = float(gaps(even).mean())
    drawn = np.einsum("rs,sr->r", seeds, gaps(problems))
    low, high = np.quantile(drawn + value - drawn.mean(), [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _lead(never, a, b):
    """By how much the first share leads the larger of the others."""
    return never - np.maximum(a, b)


def _lost(scores: Scores, task: str, draws: Resamples) -> Found:
    """Whether the largest class of lost answers is of those never recited."""
    normalise = scores.of("recite", task)[0].normalise
    found = [errors.question_class(p, normalise) for p in paths_of(scores, task)]
    shape = len(scores.seeds), -1
    of_class = {
        name: np.array([x == name for x in found], float).reshape(shape)
        for name in errors.CLASSES
    }
    shares = {name: float(values.mean()) for name, values in of_class.items()}
    wrong = errors.CLASSES[1:]
    others = of_class[errors.PATH], of_class[errors.RECITED]
    gap = bootstrap_of(_lead, [of_class[errors.NOT_RECITED], *others], draws)
    right = shares[errors.MAJORITY]
    why = ""
    if right <= FLOOR:
        why = f" {right:.1%} are right: the model cannot do this task."
    elif right > CEILING:
        why = f" {right:.1%} are right: too little is lost."
    told = " In the thesis: +1.3 and +1.6." * (scores.tasks[task].hops == 1)
    largest = max(wrong, key=shares.get)
    listed = ", ".join(f"{name} {shares[name]:.1%}" for name in wrong)
    return Found(
        "7. The largest class of lost answers is of those that no path recited",
        task,
        UNTESTED if why else verdict(gap),
        points(gap),
        f"Of all questions: {listed}; the largest is {largest!r}. Not recited minus "
        f"the larger of the others: {points(gap)}.{told}{why}",
    )
