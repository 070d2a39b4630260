"""Claims 2 to 5 of the chapter, on re-ranking, each with its evidence."""

import numpy as np

from research.easy_to_hard.claims import KINDS, Judges
from research.easy_to_hard.findings import Contest, Finding, least, settle, untestable
from research.easy_to_hard.reranked import Reranked, name_of
from research.easy_to_hard.tables import in_group, points
from research.easy_to_hard.thesis_curves import (
    COUNTS,
    ahead,
    compared_at,
    nearest,
    percent,
    said,
)
from research.intervals import bootstrap_of
from research.report import Interval, Text

# Whose gains on easy and on hard problems the thesis's figures show: voting's over the
# majority's.
THESIS_GAIN = ("easy", "oprm", "weighted"), ("easy", None, "majority")


def gains(read: Reranked, kind: str, draws) -> tuple[Interval | None, Interval | None]:
    """What voting gains over majority: (points, ratio), as the thesis's figures differ.

    In points, the gain on easy problems less that on hard ones. As a ratio to majority,
    hard over easy, less 1. None where a resample has no value, see `bootstrap_of`.
    """
    voting = read.at(("easy", kind, "weighted"))
    majority = read.at(("easy", None, "majority"))
    hard = np.broadcast_to(in_group(read.levels, "hard").astype(float), voting.shape)
    easy = 1 - hard
    shares = [
        voting * hard,
        majority * hard,
        hard,
        voting * easy,
        majority * easy,
        easy,
    ]

    def in_points(wh, mh, h, we, me, e):
        return (we - me) / e - (wh - mh) / h

    def relative(wh, mh, h, we, me, e):
        return (wh / mh) / (we / me) - 1

    return bootstrap_of(in_points, shares, draws), bootstrap_of(relative, shares, draws)


def contest(read: Reranked, a: tuple, b: tuple, group: str) -> Contest:
    """That way `a` beats way `b` on a group of problems, here and in the thesis.

    Its effect there is that of as many answers as here, see `compared_at`: with more
    answers it is larger.
    """

    def here(way):
        return float(read.at(way)[:, in_group(read.levels, group)].mean())

    theirs = ahead(a, b, group, compared_at(a, b, group, read.counts[-1]))
    names = (f"{name_of(way)}, {group} problems," for way in (a, b))
    return Contest(next(names), here(a), next(names), here(b), least([theirs]))


def uses(*ways: tuple) -> list[tuple]:
    """The ways that an evaluator decides."""
    return [way for way in ways if way[1] in KINDS]


def cost(read: Reranked, a: tuple, b: tuple) -> str:
    """A sentence on what two ways cost a problem, where that differs."""
    most = read.counts[-1]

    def of(way):
        if way[1] == "greedy":
            return "one answer"
        if way[1] not in KINDS:
            return f"{most} answers"
        size = "the large" if way[1] == "large" else "an"
        return f"{most} answers, each scored by {size} evaluator"

    return f" Cost of a problem: {of(a)}; against {of(b)}." * (of(a) != of(b))


def verdicts(read: Reranked, judges: Judges, draws, miniature: bool) -> list:
    """The findings; those about evaluators that are too weak are not tested."""
    kinds = read.kinds
    small = [kind for kind in kinds if kind != "large"]
    main = "oprm" if "oprm" in small else small[0]
    label = KINDS[main]
    weighted, majority = ("easy", main, "weighted"), ("easy", None, "majority")
    out = []

    def compare(claim, a, b, group, what):
        gain = read.difference(a, b, group, draws)
        about = uses(a, b)
        reasons = untestable([contest(read, a, b, group)], miniature=miniature)
        out.append(
            settle(
                claim,
                gain,
                f"{what}, {group} problems",
                points(gain),
                reasons + judges.too_weak(about),
                said(a, b, group, read.counts[-1])
                + cost(read, a, b)
                + judges.said(about),
            )
        )

    for group, problems in (("hard", "hard ones"), ("all", "problems of all levels")):
        compare(
            f"An evaluator trained on easy problems raises accuracy on {problems}: "
            "weighted voting beats majority voting.",
            weighted,
            majority,
            group,
            f"{label} voting minus majority",
        )
    compare(
        "Weighted voting beats greedy decoding on hard problems.",
        weighted,
        ("easy", "greedy", None),
        "hard",
        f"{label} voting minus greedy",
    )
    out += easy_and_hard(read, main, judges, draws, miniature)
    compare(
        "Weighted voting beats best-of-n.",
        weighted,
        ("easy", main, "best"),
        "all",
        f"{label}, voting minus best-of-n",
    )
    for other in ("prm", "orm"):
        if main == "oprm" and other in kinds:
            compare(
                f"The mixed evaluator is better than the {KINDS[other]}.",
                weighted,
                ("easy", other, "weighted"),
                "all",
                f"OPRM minus {KINDS[other]}, voting",
            )
    if main == "oprm" and "large" in kinds:
        larger = ("easy", "large", "weighted")
        compare(
            "A larger evaluator helps a smaller generator.",
            larger,
            majority,
            "all",
            "large OPRM voting minus majority of the small generator",
        )
        compare(
            "A larger evaluator helps a smaller generator more than one of its own "
            "size.",
            larger,
            weighted,
            "all",
            "large minus small OPRM, voting",
        )
        compare(
            "A smaller evaluator still helps a larger generator.",
            ("large", "oprm", "weighted"),
            ("large", None, "majority"),
            "all",
            "small OPRM voting minus majority of the large generator",
        )
    if len(kinds) == 1:
        out.append(Text("Other evaluators and sizes are in the full experiment."))
    return out


def easy_and_hard(
    read: Reranked, kind: str, judges: Judges, draws, miniature: bool
) -> list[Finding]:
    """Where re-ranking helps more, counted in the thesis's two ways; see `gains`.

    Both compare a gain on easy problems with one on hard ones: where either has no
    room, neither is tested. The room of a gain is that for the largest of the thesis's
    gains that the claim names, not the least: a ceiling just above a smaller one would
    all but give the sign of their difference.
    """
    in_points, relative = gains(read, kind, draws)
    most = read.counts[-1]
    voting, majority = ("easy", kind, "weighted"), ("easy", None, "majority")
    counts, contests = (nearest(most), COUNTS[-1]), []
    for group in ("easy", "hard"):
        largest = max(ahead(*THESIS_GAIN, group, count) for count in counts)
        compared = contest(read, voting, majority, group)
        contests.append(compared._replace(effect=largest / 100))
    about = uses(voting)
    reasons = untestable(contests, miniature=miniature) + judges.too_weak(about)
    counted = (
        (
            "In points, re-ranking helps more on easy problems than on hard ones, as "
            f"in the thesis's figures of its mixed evaluator ({in_thesis(most)[0]}).",
            in_points,
            "gain on easy minus gain on hard",
            points,
            "no interval, as some resample has no easy or no hard problem",
        ),
        (
            "Relative to majority voting, re-ranking helps more on hard problems than "
            "on easy ones, as in the thesis's figures of its mixed evaluator "
            f"({in_thesis(most)[1]}).",
            relative,
            "voting over majority, hard over easy",
            times,
            "no interval, as in some resample a majority is right on no easy or no "
            "hard problem, so that the ratio to it has no value",
        ),
    )
    return [
        settle(
            claim,
            gain,
            what,
            "–" if gain is None else words(gain),
            [*reasons, *[undefined] * (gain is None)],
            judges.said(about),
        )
        for claim, gain, what, words, undefined in counted
    ]


def in_thesis(votes: int) -> tuple[str, str]:
    """The thesis's gains of voting, with answers like ours and with most.

    In points, easy against hard; and as ratios to the majority, hard against easy.
    """
    voting, majority = THESIS_GAIN
    in_points, relative = [], []
    for count in dict.fromkeys((nearest(votes), COUNTS[-1])):
        easy, hard = (ahead(voting, majority, g, count) for g in ("easy", "hard"))
        in_points.append(f"{easy:.1f} against {hard:.1f} points with {count} answers")
        easy, hard = (
            percent(voting, g, count) / percent(majority, g, count)
            for g in ("easy", "hard")
        )
        relative.append(f"{hard:.2f} against {easy:.2f} times with {count} answers")
    return "; ".join(in_points), "; ".join(relative)


def times(x: Interval) -> str:
    """A ratio less 1, as a ratio."""
    return f"{1 + x.value:.2f} times [{1 + x.low:.2f}, {1 + x.high:.2f}]"
