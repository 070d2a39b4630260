"""Claims 2 to 5 of the chapter, on re-ranking, each with its evidence."""

import numpy as np

from research.easy_to_hard.claims import KINDS, UNTESTED, Judges
from research.easy_to_hard.reranked import Reranked
from research.easy_to_hard.tables import in_group, points
from research.intervals import bootstrap_of
from research.report import Interval, Text, Verdict


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


def verdicts(read: Reranked, judges: Judges, draws) -> list:
    """The verdicts; those about evaluators that are too weak are not tested."""
    kinds = read.kinds
    small = [kind for kind in kinds if kind != "large"]
    main = "oprm" if "oprm" in small else small[0]
    label = KINDS[main]
    weighted, majority = ("easy", main, "weighted"), ("easy", None, "majority")
    out = []

    def compare(text, a, b, group, what, *about):
        gain = read.difference(a, b, group, draws)
        out.append(judges.compare(text, gain, f"{what}, {group} problems", about))

    for group in ("hard", "all"):
        compare(
            f"An evaluator trained on easy problems raises accuracy on {group} ones: "
            "weighted voting beats majority voting.",
            weighted,
            majority,
            group,
            f"{label} voting minus majority",
            main,
        )
    compare(
        "Weighted voting beats greedy decoding on hard problems.",
        weighted,
        ("easy", "greedy", None),
        "hard",
        f"{label} voting minus greedy",
        main,
    )
    out += easy_and_hard(*gains(read, main, draws), judges, main)
    compare(
        "Weighted voting beats best-of-n.",
        weighted,
        ("easy", main, "best"),
        "all",
        f"{label}, voting minus best-of-n",
        main,
    )
    for other in ("prm", "orm"):
        if main == "oprm" and other in kinds:
            compare(
                f"The mixed evaluator is better than the {KINDS[other]}.",
                weighted,
                ("easy", other, "weighted"),
                "all",
                f"OPRM minus {KINDS[other]}, voting",
                main,
                other,
            )
    if main == "oprm" and "large" in kinds:
        larger = ("easy", "large", "weighted")
        compare(
            "A larger evaluator helps a smaller generator.",
            larger,
            majority,
            "all",
            "large OPRM voting minus majority of the small generator",
            "large",
        )
        compare(
            "A larger evaluator helps a smaller generator more than one of its own "
            "size.",
            larger,
            weighted,
            "all",
            "large minus small OPRM, voting",
            "large",
            main,
        )
        compare(
            "A smaller evaluator still helps a larger generator.",
            ("large", "oprm", "weighted"),
            ("large", None, "majority"),
            "all",
            "small OPRM voting minus majority of the large generator",
            main,
        )
    if len(kinds) == 1:
        out.append(Text("Other evaluators and sizes are in the full experiment."))
    return out


def easy_and_hard(
    in_points: Interval | None, relative: Interval | None, judges: Judges, kind: str
) -> list[Verdict]:
    """Where re-ranking helps more, counted in the thesis's two ways; see `gains`."""
    counted = (
        (
            "In points, re-ranking helps more on easy problems than on hard ones, as "
            "in the thesis's figures (6.4 against 4.9 points).",
            in_points,
            lambda x: f"gain on easy minus gain on hard: {points(x)}.",
            "some resample has no easy or no hard problem",
        ),
        (
            "Relative to majority voting, re-ranking helps more on hard problems than "
            "on easy ones, as in the thesis's figures (1.26 against 1.11 times).",
            relative,
            lambda x: (
                f"voting over majority, hard over easy: {1 + x.value:.2f} times "
                f"[{1 + x.low:.2f}, {1 + x.high:.2f}]."
            ),
            "in some resample a majority is right on no easy or no hard problem, so "
            "that the ratio to it has no value",
        ),
    )
    return [
        Verdict(claim, UNTESTED, f"No interval: {reason}.")
        if gain is None
        else judges.verdict(claim, gain, evidence(gain), (kind,))
        for claim, gain, evidence, reason in counted
    ]
