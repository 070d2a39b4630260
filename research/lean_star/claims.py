"""Verdicts on the chapter's six claims, each with its evidence."""

import numpy as np

from data.worlds.theorems_checked import LEVELS
from research.intervals import (
    UNTESTED,
    Resamples,
    bootstrap,
    bootstrap_of,
    unbeatable,
    verdict,
)
from research.lean_star.results import Results, title
from research.lean_star.settings import BestFirst
from research.report import Column, Interval, Verdict, cell

LEAST_GAP = 0.01  # one point: what "not worse" may be missed by
# In a few words, for those that nothing that was run can speak to.
CLAIMS = (
    "1. Thoughts help to predict tactics and to prove.",
    "2. Each round of expert iteration adds.",
    "3. Thoughts add beyond expert iteration alone.",
    "4. Doubling K adds.",
    "5. Best-first search by the mean log-probability is worse than sampling once "
    "thoughts are written, and not before.",
    "6. What is gained by difficulty, and where nothing like it was trained on.",
)


def points(gain: Interval) -> str:
    """A difference of shares in percentage points, with its interval."""
    scaled = Interval(*(100 * x for x in (gain.value, gain.low, gain.high)))
    return f"{cell(scaled, Column('', format='+.1f'))} points"


def compared(claim: str, better, worse, what: str, draws: Resamples) -> Verdict:
    """Whether one is above the other: both [seeds, problems], of the same problems.

    Not tested where the latter cannot be beaten, or neither does anything at all.
    """
    gain = bootstrap(better - worse, draws)
    why = unbeatable(worse.mean(), "The latter") or nothing(better, worse)
    text = f"{what}: {better.mean():.1%} and {worse.mean():.1%}, {points(gain)}.{why}"
    return Verdict(claim, UNTESTED if why else verdict(gain), text)


def nothing(*shares: np.ndarray) -> str:
    """A sentence for the evidence where all shares are 0; else nothing."""
    return " That says nothing." * (not any(np.any(share) for share in shares))


def verdicts(
    results: Results, draws: Resamples, rules: BestFirst | None = None
) -> list[Verdict]:
    """All claims, in the order of the issue's list; rules: of the search that was run.

    Those that nothing that was run can speak to say so.
    """
    made = [
        [*_thoughts(results, draws)],
        [*_iterations(results, draws)],
        [*_beyond(results, draws)],
        [*_doubling(results, draws)],
        [*_searching(results, draws, rules)],
        [*_where(results, draws)],
    ]
    found = []
    for claim, own in zip(CLAIMS, made, strict=True):
        found += own or [Verdict(claim, UNTESTED, "What it compares was not run.")]
    return found


def _pair(results, claim, one, other, draws, split="test", read=None):
    """`compared` of two systems, where there are both."""
    if not results.has(one, other):
        return
    names = f"{title(one)} against {title(other)}"
    if read is None:
        pair = [results.passed(system, split) for system in (one, other)]
        yield compared(claim, *pair, f"Proved, {names}", draws)
    else:
        yield compared(claim, read(one), read(other), f"Predicted, {names}", draws)


def _thoughts(results: Results, draws: Resamples):
    for other, at in (
        ("sft-data", "at equal data"),
        ("sft-tokens", "at equal training tokens"),
    ):
        claim = f"1. Thoughts help to prove, {at}."
        yield from _pair(results, claim, "cot", other, draws)
        claim = f"1. Thoughts help to predict the tactic, {at}."
        yield from _pair(results, claim, "cot", other, draws, read=results.predicted)
    for control, what in (
        ("cot-shuffled", "thoughts of other states"),
        ("cot-filler", "filler of the same length"),
    ):
        claim = f"1. It is what thoughts say: they are better than {what}."
        yield from _pair(results, claim, "cot", control, draws)


def _iterations(results: Results, draws: Resamples):
    for chain, first, words in (
        ("star", "cot", "expert iteration with thoughts"),
        ("ei", "sft-data", "expert iteration without thoughts"),
    ):
        for regime in ("joint", "continue"):
            last = first
            for number in range(1, results.rounds(f"{chain}-{regime}") + 1):
                name = f"{chain}-{regime}-{number}"
                claim = f"2. Round {number} of {words}, {regime}, adds."
                yield from _pair(results, claim, name, last, draws)
                last = name
    if rounds := results.rounds("star-joint"):
        claim = "2. Expert iteration, joint, adds more than its updates do."
        last = f"star-joint-{rounds}"
        yield from _pair(results, claim, last, "cot-longer", draws)


def _beyond(results: Results, draws: Resamples):
    for regime in ("joint", "continue"):
        for number in range(1, results.rounds(f"star-{regime}") + 1):
            claim = (
                "3. Thoughts add beyond expert iteration alone "
                f"({regime}, round {number})."
            )
            names = (f"star-{regime}-{number}", f"ei-{regime}-{number}")
            yield from _pair(results, claim, *names, draws)


def _doubling(results: Results, draws: Resamples):
    K = max(results.counts)
    if K // 2 not in results.counts:
        return
    for system in ("sft", "cot", *(results.last or ())[:1]):
        if results.has(system):
            yield compared(
                f"4. Doubling K to {K} adds: {title(system)}.",
                results.passed(system, k=K),
                results.passed(system, k=K // 2),
                f"pass@{K} against pass@{K // 2} of one run, which cannot be above",
                draws,
            )


def _searching(results: Results, draws: Resamples, rules: BestFirst | None):
    """Sampling minus best-first search by the mean, with thoughts and without.

    Sampling with as many tactics as the search may try.
    """
    if rules is None:
        return
    K = results.as_costly(rules)
    found = {
        system: (results.passed(system, k=K), results.searched(f"{system} mean"))
        for system in ("sft", "cot")
        if f"{system} mean" in results.names("searched")
    }
    if "cot" in found:
        yield compared(
            "5. With thoughts, best-first search by mean log-probability is worse than "
            "sampling.",
            *found["cot"],
            f"Proved, sampling (K = {K}) against search, Lean-CoT",
            draws,
        )
    if "sft" in found:
        yield _not_worse(*found["sft"], K, draws)
    if len(found) == 2:
        gaps = {system: pair[0] - pair[1] for system, pair in found.items()}
        gain = bootstrap(gaps["cot"] - gaps["sft"], draws)
        why = nothing(*found["cot"], *found["sft"])
        yield Verdict(
            "5. Search loses more on sampling with thoughts than without.",
            UNTESTED if why else verdict(gain),
            f"Sampling minus search, Lean-CoT minus SFT: {points(gain)}.{why}",
        )
    if "cot" in found and "cot tactic" in results.names("searched"):
        yield compared(
            "5. Ranking by the tactic's tokens alone mends it (not in the thesis).",
            results.searched("cot tactic"),
            found["cot"][1],
            "Proved by search, tactic against mean, Lean-CoT",
            draws,
        )


def _not_worse(sampled, searched, K: int, draws: Resamples) -> Verdict:
    """Whether search without thoughts is as good as sampling, but for LEAST_GAP."""
    gap, why = bootstrap(sampled - searched, draws), nothing(sampled, searched)
    status = "too noisy to tell"
    if why:
        status = UNTESTED
    elif gap.high < LEAST_GAP:
        status = "reproduced"
    elif gap.low > LEAST_GAP:
        status = "not reproduced"
    return Verdict(
        "5. Without thoughts it is not.",
        status,
        f"Proved, sampling (K = {K}) minus search, SFT: {points(gap)}; not worse means "
        f"that sampling is less than {100 * LEAST_GAP:.0f} point above.{why}",
    )


def _where(results: Results, draws: Resamples):
    best = results.last[0] if results.last else "cot"
    unseen = results.words.unseen
    for one, other in dict.fromkeys([("cot", "sft-data"), (best, "sft")]):
        claim = f"6. {title(one)} gains where {unseen} were never trained on, too."
        yield from _pair(results, claim, one, other, draws, split="novel")
    if not results.has(best, "sft"):
        return
    levels, split = results.levels(), results.known
    after, before = results.passed(best, split), results.passed("sft", split)
    for level in (name for name in LEVELS if name in levels):
        chosen = levels == level
        yield compared(
            f"6. {title(best)} gains on {level} problems.",
            after[:, chosen],
            before[:, chosen],
            f"Proved of {int(np.sum(chosen))}, against SFT",
            draws,
        )
    if {LEVELS[0], LEVELS[-1]} <= set(levels):
        yield Verdict(
            "6. The gain is larger on hard problems than on easy ones, in points.",
            *_larger(after, before, levels, draws),
        )


def _larger(after, before, levels, draws: Resamples) -> tuple[str, str]:
    """Status and evidence: gains [seeds, problems] of hard problems minus of easy ones.

    Each resample takes the same seeds for both, and as many problems of either as come.
    """
    gains = after - before
    hard, easy = (
        np.broadcast_to(levels == name, gains.shape).astype(float)
        for name in (LEVELS[-1], LEVELS[0])
    )
    gain = bootstrap_of(
        lambda a, b, c, d: a / b - c / d,
        (gains * hard, hard, gains * easy, easy),
        draws,
    )
    of = {
        name: float(gains[:, levels == name].mean()) for name in (LEVELS[-1], LEVELS[0])
    }
    told = ", ".join(f"{name} {100 * value:+.1f}" for name, value in of.items())
    told = told.replace("-", "\N{MINUS SIGN}")
    if gain is None:
        return UNTESTED, f"{told} points; too few problems for an interval."
    why = nothing(after, before)
    text = f"{told} points: {points(gain)}.{why}"
    return UNTESTED if why else verdict(gain), text
