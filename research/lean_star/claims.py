"""Verdicts on the chapter's six claims, each with its evidence.

With one seed an interval is over problems alone, though training anew moves results as
much: such a claim holds, or fails, in this run, and is neither reproduced nor not.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.worlds.theorems_checked import LEVELS
from research.intervals import (
    SAME,
    UNTESTED,
    Resamples,
    bootstrap,
    bootstrap_of,
    unbeatable,
    verdict,
)
from research.lean_star.results import Results, title
from research.report import Column, Interval, Verdict, cell

LEAST_GAP = 0.01  # one point: what "not worse" may be missed by
WITHOUT = "sft-data"  # on the same steps as long as Lean-CoT, without thoughts
EMPTY = 0.5  # of the problems without a proof: more than this is most queues
ONE_RUN = {
    "reproduced": "holds in this run",
    "not reproduced": "fails in this run",
}
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


def compared(
    claim: str,
    better,
    worse,
    what: str,
    draws: Resamples,
    more: str = "",
    why: str = "",
) -> Verdict:
    """Whether one is above the other: both [seeds, problems], of the same problems.

    Not tested where the latter cannot be beaten, or neither does anything at all, or
    for a reason `why`, a sentence. more: sentences for the evidence.
    """
    gain = bootstrap(better - worse, draws)
    why = unbeatable(worse.mean(), "The latter") or nothing(better, worse) or why
    told = f"{better.mean():.1%} and {worse.mean():.1%}, {points(gain)}"
    return Verdict(
        claim,
        UNTESTED if why else verdict(gain),
        f"{what}: {told}.{more}{why or same(gain)}",
    )


def same(difference: Interval) -> str:
    """A sentence for the evidence where nothing differs at all; else nothing."""
    sentence = " The two are the same, whichever problems are drawn."
    return sentence * (verdict(difference) == SAME)


def of_one_run(found: Verdict) -> Verdict:
    """A verdict in the words for what one seed shows."""
    if found.status == UNTESTED:
        return found
    evidence = f"{found.evidence} One seed: the interval is over problems alone."
    return Verdict(found.claim, ONE_RUN.get(found.status, found.status), evidence)


def nothing(*shares: np.ndarray) -> str:
    """A sentence for the evidence where all shares are 0; else nothing."""
    return " That says nothing." * (not any(np.any(share) for share in shares))


def verdicts(results: Results, draws: Resamples) -> list[Verdict]:
    """All claims, in the order of the issue's list.

    Those that nothing that was run can speak to say so.
    """
    made = [
        [*_thoughts(results, draws)],
        [*_iterations(results, draws)],
        [*_beyond(results, draws)],
        [*_doubling(results, draws)],
        [*_searching(results, draws)],
        [*_where(results, draws)],
    ]
    found = []
    for claim, own in zip(CLAIMS, made, strict=True):
        found += own or [Verdict(claim, UNTESTED, "What it compares was not run.")]
    return [of_one_run(v) for v in found] if len(results.seeds) == 1 else found


def _pair(results, claim, one, other, draws, split="test", read=None, more=""):
    """`compared` of two systems, where there are both."""
    if not results.has(one, other):
        return
    names = f"{title(one)} against {title(other)}"
    if read is None:
        pair = [results.passed(system, split) for system in (one, other)]
        yield compared(claim, *pair, f"Proved, {names}", draws, more)
    else:
        what = f"Predicted (mean over problems), {names}"
        yield compared(claim, read(one), read(other), what, draws)


def _thoughts(results: Results, draws: Resamples):
    for other, at in (
        ("sft-data", "at equal data"),
        ("sft-tokens", "at equal training tokens"),
    ):
        claim = f"1. Thoughts help to prove, {at}."
        yield from _pair(results, claim, "cot", other, draws)
        claim = f"1. Thoughts help to predict the tactic, {at}."
        yield from _pair(results, claim, "cot", other, draws, read=results.predicted)
    if results.has("cot", "sft-data"):
        yield _as_many_tokens(results, "cot", "sft-data", draws)
    for control, what in (
        ("cot-shuffled", "thoughts of other states"),
        ("cot-filler", "filler of the same length"),
    ):
        claim = f"1. It is what thoughts say: they are better than {what}."
        yield from _pair(results, claim, "cot", control, draws)
        claim = f"1. They predict the tactic better than {what}."
        yield from _pair(results, claim, "cot", control, draws, read=results.predicted)


def _as_many_tokens(results: Results, one: str, other: str, draws) -> Verdict:
    """Both with as many tokens written of a problem: one with thoughts, one without.

    The first with as many trajectories as the second's can pay for.
    """
    claim = "1. Thoughts help to prove, at equal generated tokens."
    tokens, others = (results.spent(system, "tokens") for system in (one, other))
    ratio, most = tokens / max(others, 1e-9), max(results.counts)
    few = [k for k in results.counts if k * ratio <= most]
    if not few:
        return Verdict(
            claim,
            UNTESTED,
            f"A trajectory of {title(one)} writes {tokens:.0f} tokens, as many as "
            f"{ratio:.1f} of {title(other)}, of which there are {most}.",
        )
    k = max(few)
    return compared(
        claim,
        results.passed(one, k=k),
        results.passed_at(other, k * ratio),
        f"Proved, {title(one)} (K = {k}) against {title(other)} (K = {k * ratio:.3g} "
        f"in the mean), both with {k * tokens:.0f} tokens of a problem",
        draws,
    )


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
    for chain, control, words in (
        ("star", "cot-longer", "with"),
        ("ei", "sft-longer", "without"),
    ):
        last = f"{chain}-joint-{results.rounds(f'{chain}-joint')}"
        claim = (
            f"2. Expert iteration {words} thoughts, joint, adds more than its updates "
            "do."
        )
        yield from _pair(results, claim, last, control, draws)


def _beyond(results: Results, draws: Resamples):
    def of(name: str, other: str, at: str, what: str) -> Iterator[Verdict]:
        claim = f"3. Thoughts add beyond expert iteration alone, at {at} ({what})."
        read = [results.trained(system, "tokens")[0] for system in (name, other)]
        told = " and ".join("–" if n is None else f"{n:,.0f}" for n in read)
        more = f" Tokens read in training: {told}."
        return _pair(results, claim, name, other, draws, more=more)

    for regime in ("joint", "continue"):
        for number in range(1, results.rounds(f"star-{regime}") + 1):
            names = (f"star-{regime}-{number}", f"ei-{regime}-{number}")
            if results.has(*names):
                yield from of(*names, "equal epochs", f"{regime}, round {number}")
    last = f"star-joint-{results.rounds('star-joint')}"
    if results.has(last, "ei-tokens"):
        yield from of(last, "ei-tokens", "equal training tokens", "joint, last round")


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


def _searching(results: Results, draws: Resamples):
    """Sampling minus best-first search by the mean, with thoughts and without.

    Sampling with as many tactics as the search tried, or all that were drawn.
    """
    found = {
        system: _against_sampling(results, system)
        for system in ("sft", "cot")
        if f"{system} mean" in results.names("searched")
    }
    if "cot" in found:
        claim = (
            "5. With thoughts, best-first search by mean log-probability is worse than "
            "sampling."
        )
        sampled, searched, what, more, why = found["cot"]
        yield compared(claim, sampled, searched, what, draws, more, why)
    if "sft" in found:
        yield _not_worse(found["sft"], draws)
    if len(found) == 2:
        cot, sft = found["cot"], found["sft"]
        gaps = [pair.sampled - pair.searched for pair in (cot, sft)]
        gain = bootstrap(gaps[0] - gaps[1], draws)
        why = nothing(cot.sampled, cot.searched, sft.sampled, sft.searched)
        reasons = why or cot.why + sft.why * (sft.why != cot.why)
        yield Verdict(
            "5. Search loses more on sampling with thoughts than without.",
            UNTESTED if reasons else verdict(gain),
            f"Sampling minus search, Lean-CoT minus SFT: {points(gain)}."
            f"{reasons or same(gain)}",
        )
    if "cot" in found and "cot tactic" in results.names("searched"):
        yield compared(
            "5. Ranking by the tactic's tokens alone mends it (not in the thesis).",
            results.searched("cot tactic"),
            found["cot"].searched,
            "Proved by search, tactic against mean, Lean-CoT",
            draws,
            why=found["cot"].why,
        )


class _Pair(NamedTuple):
    """Sampling and search of one system, both [seeds, problems].

    what, more: of the evidence. why: a sentence that says why this tests no ranking;
    "" where it does.
    """

    sampled: np.ndarray
    searched: np.ndarray
    what: str
    more: str
    why: str


def _against_sampling(results: Results, system: str) -> _Pair:
    """Search by the mean, and sampling with as many tactics as that tried."""
    name = f"{system} mean"
    K, facts = results.as_many(name), results.search_facts(name)
    searched = results.searched(name)
    own = K * results.spent(system, "tactics")
    return _Pair(
        results.passed_at(system, K),
        searched,
        f"Proved, sampling (K = {K:.3g} in the mean) against search, {title(system)}",
        f" Tactics tried of a problem: {own:.1f} and {facts.tactics:.1f}. Search made "
        f"{facts.expansions:.1f} expansions, of {facts.distinct:.1f} different tactics "
        "each.",
        _exhausted(results, system, searched, facts.empty),
    )


def _exhausted(results: Results, system: str, searched, empty: float) -> str:
    """Why the order of the queue cannot have mattered; "" where it can.

    Of a state that is expanded whatever the order is, the rank decides nothing. So the
    queues of most problems without a proof ran empty, and other rankings, where there
    are any, solve the same but for LEAST_GAP of the problems.
    """
    others = [
        results.searched(name)
        for name in results.names("searched")
        if name.rpartition(" ")[0] == system and name != f"{system} mean"
    ]
    changed = max((np.mean(other != searched) for other in others), default=0.0)
    if not empty > EMPTY or changed > LEAST_GAP:
        return ""
    told = f", and other rankings change {changed:.1%} of the outcomes" * bool(others)
    return (
        f" {title(system)}: the queue ran empty on {empty:.0%} of the problems that "
        f"were not solved{told}: there it is too few candidates, not their order, that "
        "ended the search."
    )


def _not_worse(pair: _Pair, draws: Resamples) -> Verdict:
    """Whether search without thoughts is as good as sampling, but for LEAST_GAP."""
    gap = bootstrap(pair.sampled - pair.searched, draws)
    why = nothing(pair.sampled, pair.searched) or pair.why
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
        f"{pair.what}: {pair.sampled.mean():.1%} and {pair.searched.mean():.1%}, "
        f"{points(gap)}; not worse means that sampling is less than "
        f"{100 * LEAST_GAP:.0f} point above.{pair.more}{why}",
    )


def _where(results: Results, draws: Resamples):
    best = results.last[0] if results.last else "cot"
    unseen = results.words.unseen
    for one in dict.fromkeys(["cot", best]):
        claim = f"6. {title(one)} gains where {unseen} were never trained on, too."
        yield from _pair(results, claim, one, WITHOUT, draws, split="novel")
    if not results.has(best, WITHOUT):
        return
    levels, split = results.levels(), results.known
    after, before = results.passed(best, split), results.passed(WITHOUT, split)
    for level in (name for name in LEVELS if name in levels):
        chosen = levels == level
        yield compared(
            f"6. {title(best)} gains on {level} problems.",
            after[:, chosen],
            before[:, chosen],
            f"Proved of {int(np.sum(chosen))}, against {title(WITHOUT)}",
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
    text = f"{told} points: {points(gain)}.{why or same(gain)}"
    return UNTESTED if why else verdict(gain), text
