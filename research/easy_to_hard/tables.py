"""The generators in the report: Table 6.1 beside the thesis's, plots, verdicts."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from research import plots
from research.easy_to_hard.answers import Answered
from research.easy_to_hard.findings import Contest, Finding, least, settle, untestable
from research.easy_to_hard.selection import curve
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tasks import EASY
from research.intervals import Resamples, bootstrap
from research.report import Column, Figure, Interval, Section, Table, Text

NAMES = {
    "icl-full": "full ICL",
    "icl-hard": "hard ICL",
    "icl-easy": "easy-to-hard ICL",
    "full": "full SFT",
    "easy": "easy-to-hard SFT",
    "large": "easy-to-hard SFT, large",
}
MAIN = ("full", "easy")
# Table 6.1 of the thesis, Llemma-7B (large: 34B): greedy, majority@16, majority@256, in
# percent. Below, what it has of Llemma-34B.
THESIS = {
    "PRM800K": {
        "icl-full": (12.8, 15.6, 20.8),
        "icl-hard": (12.6, 18.0, 27.0),
        "icl-easy": (14.0, 17.6, 24.4),
        "full": (20.6, 32.0, 36.2),
        "easy": (19.8, 31.6, 36.0),
        "large": (24.8, 40.8, 46.0),
    },
    "MetaMath": {
        "icl-full": (16.4, 18.4, 25.6),
        "icl-hard": (16.6, 19.0, 27.0),
        "icl-easy": (14.2, 17.4, 26.8),
        "full": (31.4, 40.2, 41.6),
        "easy": (30.0, 38.6, 42.4),
        "large": (32.2, 42.6, 43.4),
    },
}
THESIS_34B = {
    "PRM800K, 34B": {
        "icl-full": (18.6, 23.6, 36.0),
        "icl-hard": (15.8, 21.4, 34.2),
        "icl-easy": (18.2, 25.2, 36.8),
        "full": (25.6, 41.8, 46.4),
        "easy": (24.8, 40.8, 46.0),
    },
    "MetaMath, 34B": {
        "icl-full": (20.6, 28.8, 39.2),
        "icl-hard": (21.8, 26.4, 38.6),
        "icl-easy": (19.8, 26.8, 37.2),
        "full": (35.4, 44.2, 45.6),
        "easy": (32.2, 42.6, 43.4),
    },
}
GROUPS = ("easy", "hard", "all")
PLACES = {"greedy": 0, 16: 1, 256: 2}  # in the rows of Table 6.1


def in_group(levels: np.ndarray, group: str) -> np.ndarray:
    easy = np.isin(levels, EASY)
    return {"easy": easy, "hard": ~easy, "all": np.ones_like(easy)}[group]


class Scores:
    """Share of right answers [seeds, problems] for each generator and way to answer."""

    def __init__(self, answers: Mapping[str, Answered], seeds, sampled: Sampled):
        self.levels = next(iter(answers.values())).levels
        self.values = {}
        self.names = [name for name in NAMES if f"{name}-{seeds[0]}" in answers]
        self.answers = answers
        for name in self.names:
            found = [answers[f"{name}-{seed}"] for seed in seeds]
            self.values[name, "greedy"] = np.array([a.greedy for a in found])
            for n in sampled.counts:
                votes = []
                for seed, answered in zip(seeds, found, strict=True):
                    rng = np.random.default_rng([seed, n])
                    drawn = curve(answered.pools, "majority", [n], sampled.repeats, rng)
                    votes.append(drawn.accuracy[0])
                self.values[name, n] = np.array(votes)

    def estimate(self, name, how, group, draws) -> Interval:
        return bootstrap(self.values[name, how][:, in_group(self.levels, group)], draws)

    def difference(self, a, b, group, draws) -> Interval:
        """Paired difference a - b; a and b are (generator, how)."""
        kept = in_group(self.levels, group)
        return bootstrap((self.values[a] - self.values[b])[:, kept], draws)


def sections(
    answers: Mapping[str, Answered], seeds, sampled: Sampled, miniature: bool
) -> tuple[list[Section], list, int]:
    """The generators' sections, their findings, and the number of problems."""
    scores = Scores(answers, seeds, sampled)
    draws = Resamples(0)
    parts = [
        Section("Accuracy (Table 6.1)", [table_6_1(scores, sampled, draws, miniature)]),
        Section("By level", by_level(scores, sampled, draws)),
        Section("More votes", votes(scores, sampled, draws)),
        Section("Transcripts", transcripts(scores, seeds)),
    ]
    return parts, verdicts(scores, sampled, draws, miniature), len(scores.levels)


def label(how) -> str:
    return how if how == "greedy" else f"majority@{how}"


def short(how) -> str:
    return how if how == "greedy" else f"maj@{how}"


def table_6_1(scores, sampled, draws, miniature) -> Table:
    """Ours by group of problems, then the thesis's; a dash is not measured there."""
    counts = {n for n in PLACES if n in sampled.counts} | {max(sampled.counts)}
    shown = ["greedy", *sorted(counts)]
    rows = []
    for name in scores.names:
        title = NAMES[name]
        for group in GROUPS:
            cells = [scores.estimate(name, how, group, draws) for how in shown]
            rows.append([title, "here", group, *cells])
    thesis = THESIS if miniature else THESIS | THESIS_34B
    for data, lines in thesis.items():
        for name, numbers in lines.items():
            if name not in scores.names:
                continue
            cells = [
                numbers[PLACES[how]] / 100 if how in PLACES else None for how in shown
            ]
            rows.append([NAMES[name], data, "all", *cells])
    columns = [Column("generator"), Column("source"), Column("problems")]
    columns += [Column(short(how), format=".1%") for how in shown]
    return Table(
        columns,
        rows,
        "Accuracy on held-out problems (the generators' half of Table 6.1)",
        "Full SFT saw solutions of levels 1 to 5, easy-to-hard SFT of levels 1 to 3; "
        "maj@n is a majority of n answers. "
        + "The thesis's majorities of 256 are left out, as none were drawn here. "
        * (256 not in shown)
        + "PRM800K and MetaMath are the thesis's rows: "
        + (
            "Llemma-7B (large: 34B) on MATH500: compare the order and the gaps, not "
            "the levels."
            if miniature
            else "Llemma-7B (large: 34B) on MATH500, or all of Llemma-34B where the "
            "source says so; which are like ours depends on the checkpoint."
        )
        + not_run(scores.names),
    )


def not_run(names: Sequence[str]) -> str:
    """A sentence on the thesis's rows that have none of ours beside them.

    names: the generators that were run. The thesis has of its larger one what it has
    of the smaller; here it is fine-tuned on easy solutions only.
    """
    missing = [title for name, title in NAMES.items() if name not in names]
    missing.append("in-context learning with, and full SFT of, a large generator")
    return f" The thesis has rows of what was not run here: {'; '.join(missing)}."


def by_level(scores, sampled, draws) -> list:
    """Bars and a table of accuracy per level."""
    levels = sorted(set(scores.levels.tolist()))
    ways = [(name, how) for name in MAIN for how in ("greedy", max(sampled.counts))]
    rows, bars = [], {NAMES[name]: [] for name in MAIN}
    for level in levels:
        kept = scores.levels == level
        cells = [bootstrap(scores.values[way][:, kept], draws) for way in ways]
        rows.append([f"level {level}", int(kept.sum()), *cells])
        for (name, how), c in zip(ways, cells, strict=True):
            if how == "greedy":
                bars[NAMES[name]].append((c.value, c.low, c.high))
    columns = [Column("level"), Column("problems", format="d")]
    columns += [Column(f"{name}, {short(how)}", format=".1%") for name, how in ways]
    figure = plots.grouped_bars(
        [f"level {level}" for level in levels], bars, ylabel="greedy accuracy"
    )
    return [
        Figure(
            figure,
            "Greedy accuracy by level; levels 4 and 5 are hard.",
            "Bars of greedy accuracy per level for both generators",
        ),
        Table(columns, rows, "Accuracy by level"),
    ]


def votes(scores, sampled, draws) -> list:
    """Lines of majority accuracy against the number of answers that vote."""
    counts = sorted(sampled.counts)
    series = {}
    for name in MAIN:
        for group in ("easy", "hard"):
            estimates = [scores.estimate(name, n, group, draws) for n in counts]
            series[f"{name} SFT, {group} problems"] = [
                (e.value, e.low, e.high) for e in estimates
            ]
    figure = plots.lines(
        counts,
        series,
        xlabel="sampled answers",
        ylabel="majority accuracy",
        percent=True,
        log_x=True,
    )
    return [
        Figure(
            figure,
            "Majority voting over more answers: sub-samples of one pool of "
            f"{sampled.votes} (temperature {sampled.temperature}, top-k "
            f"{sampled.top_k}). Missing answers do not vote; ties go to the answer "
            "sampled first.",
            "Lines of majority accuracy against the number of sampled answers",
        )
    ]


def verdicts(scores, sampled, draws, miniature: bool) -> list[Finding | Text]:
    """What holds of the chapter's claims about generators, each with its evidence."""
    most = max(sampled.counts)
    out = []

    def compare(claim, a, b, group, what, theirs, more=""):
        """theirs: differences of the thesis, in percent."""
        kept = in_group(scores.levels, group)
        names = (f"{NAMES[name]}, {short(how)}," for name, how in (a, b))
        shares = (float(scores.values[way][:, kept].mean()) for way in (a, b))
        contest = Contest(
            next(names), next(shares), next(names), next(shares), least(theirs)
        )
        gain = scores.difference(a, b, group, draws)
        reasons = untestable([contest], miniature=miniature)
        what = f"{what}, {group} problems"
        out.append(settle(claim, gain, what, points(gain), reasons, more))

    place = PLACES.get(most, PLACES[16])
    for name in MAIN:
        compare(
            f"Majority voting beats greedy decoding: {NAMES[name]}.",
            (name, most),
            (name, "greedy"),
            "all",
            f"majority@{most} minus greedy",
            [lines[name][place] - lines[name][0] for lines in THESIS.values()],
            f" Cost of a problem: {most} answers; against one answer.",
        )
    compare(
        "With good solutions, a generator that saw only easy ones falls short of "
        "one that saw all levels, on hard problems.",
        ("full", "greedy"),
        ("easy", "greedy"),
        "hard",
        "full minus easy-to-hard, greedy",
        [lines["full"][0] - lines["easy"][0] for lines in THESIS.values()],
    )
    for name in scores.names:
        if name.startswith("icl-"):
            compare(
                f"Fine-tuning on easy solutions beats {NAMES[name]}.",
                ("easy", "greedy"),
                (name, "greedy"),
                "all",
                f"easy-to-hard SFT minus {NAMES[name]}, greedy",
                [lines["easy"][0] - lines[name][0] for lines in THESIS.values()],
            )
    loss = scores.difference(("full", "greedy"), ("easy", "greedy"), "easy", draws)
    kept = scores.estimate("easy", "greedy", "hard", draws)
    out.append(
        Text(
            "A generator that saw only easy solutions answers "
            f"{kept.value:.1%} [{kept.low:.1%}, {kept.high:.1%}] of the hard problems "
            "greedily. On easy problems, full minus easy-to-hard is "
            f"{points(loss)}.",
        )
    )
    return out


def in_points(x: Interval) -> Interval:
    """A difference of shares as one of points."""
    return Interval(*(round(100 * v, 1) + 0.0 for v in (x.value, x.low, x.high)))


def points(x: Interval) -> str:
    """A difference of shares in points, with its interval."""
    value, low, high = (
        f"{v:+.1f}".replace("-", "−") for v in dataclasses.astuple(in_points(x))
    )
    return f"{value} points [{low}, {high}]"


def transcripts(scores, seeds) -> list:
    """For each level, the first held-out problem with the easy generator's answers."""
    found = scores.answers[f"easy-{seeds[0]}"]
    blocks = []
    for level in sorted(set(found.levels.tolist())):
        first = int(np.flatnonzero(found.levels == level)[0])
        row, right = found.rows[first], "right" if found.greedy[first] else "wrong"
        pool = ", ".join(a if a is not None else "none" for a in row["pool"])
        text = (
            f"{row['prompt']}{row['greedy_text']}\n\n"
            f"[{right}; the answer is {row['answer']}; sampled answers: {pool}]"
        )
        text = text.replace("\n\n", "\n")
        blocks.append(Text(text, f"Level {level}, first problem", verbatim=True))
    return blocks
