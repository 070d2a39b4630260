"""Verdicts on the chapter's six claims, each with its evidence."""

import numpy as np

from data.worlds.theorems_checked import LEVELS
from research.intervals import UNTESTED, Resamples, bootstrap, unbeatable, verdict
from research.lean_star.results import Results, title
from research.report import Column, Interval, Verdict, cell

LEAST_GAP = 0.01  # one point: what "not worse" may be missed by


def points(gain: Interval) -> str:
    """A difference of shares in percentage points, with its interval."""
    scaled = Interval(*(100 * x for x in (gain.value, gain.low, gain.high)))
    return f"{cell(scaled, Column('', format='+.1f'))} points"


def compared(claim: str, better, worse, what: str, draws: Resamples) -> Verdict:
    """Whether one is above the other: both [seeds, problems], of the same problems."""
    gain = bootstrap(better - worse, draws)
    full = unbeatable(worse.mean(), "The latter")
    text = f"{what}: {better.mean():.1%} and {worse.mean():.1%}, {points(gain)}.{full}"
    return Verdict(claim, UNTESTED if full else verdict(gain), text)


def verdicts(results: Results, draws: Resamples) -> list[Verdict]:
    """All claims that what was run can speak to, in the order of the issue's list."""
    made = [*_thoughts(results, draws), *_iterations(results, draws)]
    made += [*_beyond(results, draws), *_doubling(results, draws)]
    return [*made, *_searching(results, draws), *_where(results, draws)]


def _pair(results, claim, one, other, draws, split="test", read=None):
    """`compared` of two systems, where there are both."""
    if not results.has(one, other):
        return
    read = results.passed if read is None else read
    what = "Proved" if read == results.passed else "Predicted"
    names = f"{title(one)} against {title(other)}"
    yield compared(
        claim, read(one, split), read(other, split), f"{what}, {names}", draws
    )


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
            last, number = first, 1
            while results.has(name := f"{chain}-{regime}-{number}"):
                claim = f"2. Round {number} of {words}, {regime}, adds."
                yield from _pair(results, claim, name, last, draws)
                last, number = name, number + 1
    if results.last is not None:
        claim = "2. Expert iteration adds more than its updates do."
        yield from _pair(results, claim, results.last[0], "cot-longer", draws)


def _beyond(results: Results, draws: Resamples):
    for regime in ("joint", "continue"):
        number = 1
        while results.has(name := f"star-{regime}-{number}"):
            claim = (
                "3. Thoughts add beyond expert iteration alone "
                f"({regime}, round {number})."
            )
            yield from _pair(results, claim, name, f"ei-{regime}-{number}", draws)
            number += 1


def _doubling(results: Results, draws: Resamples):
    K = max(results.counts)
    if K // 2 not in results.counts:
        return
    for system in ("sft", "cot", *(results.last or ())[:1]):
        if results.has(system):
            yield compared(
                f"4. Doubling K to {K} adds: {title(system)}.",
                results.passed(system),
                results.passed(system, k=K // 2),
                f"pass@{K} against pass@{K // 2} of one run, which cannot be above",
                draws,
            )


def _searching(results: Results, draws: Resamples):
    """Sampling minus best-first search by the mean, with thoughts and without."""
    found = {
        system: (results.passed(system), results.searched(f"{system} mean"))
        for system in ("sft", "cot")
        if f"{system} mean" in results.names("searched")
    }
    if "cot" in found:
        yield compared(
            "5. With thoughts, best-first search by mean log-probability is worse than "
            "sampling.",
            *found["cot"],
            "Proved, sampling against search, Lean-CoT",
            draws,
        )
    if "sft" in found:
        gap = bootstrap(found["sft"][0] - found["sft"][1], draws)
        status = "too noisy to tell"
        if gap.high < LEAST_GAP:
            status = "reproduced"
        elif gap.low > LEAST_GAP:
            status = "not reproduced"
        yield Verdict(
            "5. Without thoughts it is not.",
            status,
            f"Proved, sampling minus search, SFT: {points(gap)}; not worse means that "
            f"sampling is less than {100 * LEAST_GAP:.0f} point above.",
        )
    if len(found) == 2:
        gaps = {system: pair[0] - pair[1] for system, pair in found.items()}
        gain = bootstrap(gaps["cot"] - gaps["sft"], draws)
        yield Verdict(
            "5. Search loses more on sampling with thoughts than without.",
            verdict(gain),
            f"Sampling minus search, Lean-CoT minus SFT: {points(gain)}.",
        )
    if "cot" in found and "cot tactic" in results.names("searched"):
        yield compared(
            "5. Ranking by the tactic's tokens alone mends it (not in the thesis).",
            results.searched("cot tactic"),
            found["cot"][1],
            "Proved by search, tactic against mean, Lean-CoT",
            draws,
        )


def _where(results: Results, draws: Resamples):
    best = results.last[0] if results.last else "cot"
    for one, other in (("cot", "sft-data"), (best, "sft")):
        claim = f"6. {title(one)} gains where rules were never trained on, too."
        yield from _pair(results, claim, one, other, draws, split="novel")
    if not results.has(best, "sft"):
        return
    levels = results.levels()
    gains = results.passed(best) - results.passed("sft")
    for level in (name for name in LEVELS if name in levels):
        chosen = levels == level
        yield compared(
            f"6. {title(best)} gains on {level} problems.",
            results.passed(best)[:, chosen],
            results.passed("sft")[:, chosen],
            f"Proved of {int(np.sum(chosen))}, against SFT",
            draws,
        )
    if {LEVELS[0], LEVELS[-1]} <= set(levels):
        yield Verdict(
            "6. The gain is larger on hard problems than on easy ones, in points.",
            *_larger(gains, levels, draws),
        )


def _larger(gains, levels, draws: Resamples) -> tuple[str, str]:
    """Status and evidence on gains [seeds, problems], hard minus easy."""
    # Each group's resamples are drawn apart: their problems are different ones.
    by = {x: bootstrap(gains[:, levels == x], draws) for x in ("easy", "hard")}
    spread = np.hypot(*((by[x].high - by[x].low) / 2 for x in ("easy", "hard")))
    value = by["hard"].value - by["easy"].value
    gain = Interval(value, value - spread, value + spread)
    text = f"Hard {points(by['hard'])}, easy {points(by['easy'])}: {points(gain)}."
    return verdict(gain), f"{text} The interval adds the two in squares."
