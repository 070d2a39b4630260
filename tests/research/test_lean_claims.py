"""Chapter 7's verdicts: the side of every difference, intervals by enumeration."""

import itertools

import numpy as np
import pytest
from helpers import lean_stages
from helpers.lean_stages import ALL, HALF, NONE

from research.intervals import Resamples, bootstrap
from research.lean_star import claims
from research.report import Interval

# Of one seed, as most are here.
YES, NO, UNSURE = "holds in this run", "fails in this run", "too noisy to tell"
UNTESTED, SAME = "not tested here", "no difference"
BASIC = ("sft", "cot", "sft-data", "sft-tokens", "cot-shuffled", "cot-filler")
CHAINS = [f"{chain}-{regime}-{n}" for chain in ("star", "ei")
          for regime in ("joint", "continue") for n in (1, 2)]  # fmt: skip
SEARCHES = ("sft mean", "cot mean", "cot tactic")
LONGER = ("cot-longer", "sft-longer", "ei-tokens")
EVERY = dict.fromkeys([*BASIC, *CHAINS, *LONGER], HALF)
MOST = "222222202222"  # all but some, for what proves all cannot be beaten


def verdicts(root, systems, searches=SEARCHES, **more):
    """{claim: verdict}; all marks HALF where not said otherwise."""
    given = {name: HALF for name in searches} if searches is SEARCHES else searches
    results = lean_stages.results(root, systems, searches=given, **more)
    found = claims.verdicts(results, Resamples(0))
    assert len({v.claim for v in found}) == len(found)
    return {v.claim: v for v in found}


def settled(found) -> dict[str, str]:
    """The claims that have a side."""
    return {c: v.status for c, v in found.items() if v.status in (YES, NO)}


def exact(differences) -> Interval:
    """The paired interval of [seeds, problems] by all resamples of both."""
    d = np.asarray(differences, float)
    seeds, n = d.shape
    means, chances = [], []
    for rows in itertools.product(range(seeds), repeat=seeds):
        for columns in itertools.product(range(n), repeat=n):
            means.append(d[np.ix_(rows, columns)].mean())
            chances.append(1.0)
    order = np.argsort(means)
    at = np.cumsum(np.array(chances)[order]) / sum(chances)
    sorted_means = np.array(means)[order]
    low, high = (sorted_means[np.searchsorted(at, q)] for q in (0.025, 0.975))
    return Interval(float(d.mean()), float(low), float(high))


@pytest.mark.parametrize(
    "better, worse",
    [
        ([[1, 1, 0]], [[0, 0, 0]]),
        ([[1, 0, 1, 1]], [[0, 1, 0, 0]]),
        ([[1, 0, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 1]]),
    ],
)
def test_intervals_are_those_of_all_resamples(better, worse):
    """4,000 draws against all of them: problems are paired, seeds are shared."""
    better, worse = np.array(better, float), np.array(worse, float)
    drawn, whole = bootstrap(better - worse, Resamples(0)), exact(better - worse)
    for ours, theirs in zip(
        (drawn.value, drawn.low, drawn.high),
        (whole.value, whole.low, whole.high),
        strict=True,
    ):
        assert ours == pytest.approx(theirs, abs=1e-9)
    told = claims.compared("c", better, worse, "What", Resamples(0))
    assert told.evidence.startswith(
        f"What: {better.mean():.1%} and {worse.mean():.1%}, {claims.points(drawn)}."
    )


def test_equal_systems_settle_nothing(tmp_path):
    """Every claim is there, by its number, and none has a side but what must have."""
    found = verdicts(tmp_path, EVERY)
    assert {claim[:2] for claim in found} == {f"{i}." for i in range(1, 7)}
    # That search without thoughts is no worse holds where both solve the same.
    assert settled(found) == {"5. Without thoughts it is not.": YES}
    assert len(found) == 36
    others = {v.status for v in found.values()} - {YES}
    assert others == {SAME}
    assert all(
        "whichever problems are drawn. One seed: the interval is over problems alone."
        in v.evidence for v in found.values() if v.status == SAME
    )  # fmt: skip


@pytest.mark.parametrize("system, claim", [
    ("sft-data", "1. Thoughts help to prove, at equal data."),
    ("sft-tokens", "1. Thoughts help to prove, at equal training tokens."),
    ("cot-shuffled",
     "1. It is what thoughts say: they are better than thoughts of other states."),
    ("cot-filler",
     "1. It is what thoughts say: they are better than filler of the same length."),
    ("cot-longer",
     "2. Expert iteration with thoughts, joint, adds more than its updates do."),
    ("sft-longer",
     "2. Expert iteration without thoughts, joint, adds more than its updates do."),
    ("ei-joint-1", "3. Thoughts add beyond expert iteration alone, at equal epochs "
     "(joint, round 1)."),
    ("ei-continue-2", "3. Thoughts add beyond expert iteration alone, at equal epochs "
     "(continue, round 2)."),
    ("ei-tokens", "3. Thoughts add beyond expert iteration alone, at equal training "
     "tokens (joint, last round)."),
    ("sft-data", "6. Lean-STaR, joint, round 2 gains on easy problems."),
    ("sft-data",
     "6. Lean-STaR, joint, round 2 gains where rules were never trained on, too."),
])  # fmt: skip
def test_what_is_compared_with_decides(tmp_path, system, claim):
    """Where it proves nothing the claim holds, where it proves more, it does not."""
    low = verdicts(tmp_path / "low", EVERY | {system: NONE})
    assert settled(low)[claim] == YES
    high = verdicts(tmp_path / "high", EVERY | {system: "222022202220"})
    assert settled(high)[claim] == NO


def test_every_round_is_compared_with_the_one_before(tmp_path):
    """Round 1 with where the chain begins, round 2 with round 1, in its regime."""
    found = verdicts(tmp_path, EVERY | {"star-joint-1": ALL, "ei-continue-2": NONE})
    name = "2. Round {} of expert iteration {} thoughts, {}, adds.".format
    assert settled(found).items() >= {
        name(1, "with", "joint"): YES, name(2, "without", "continue"): NO,
    }.items()  # fmt: skip
    assert name(2, "with", "continue") not in settled(found)
    # What proves everything leaves nothing to the next round.
    assert found[name(2, "with", "joint")].status == UNTESTED
    assert "nothing can beat it" in found[name(2, "with", "joint")].evidence


def test_prediction_is_read_from_greedy_tactics(tmp_path):
    """Not from proofs, which are equal here."""
    found = verdicts(tmp_path, EVERY, right={"cot": ALL, "sft-tokens": NONE})
    claim = "1. Thoughts help to predict the tactic, at equal {}.".format
    assert settled(found).items() >= {
        claim("data"): YES, claim("training tokens"): YES,
    }.items()  # fmt: skip
    assert not any(c.startswith("1. Thoughts help to prove") for c in settled(found))


def test_more_trajectories_are_of_one_run(tmp_path):
    """pass@2 minus pass@1: half a point for every problem that one of two proves."""
    found = verdicts(tmp_path, EVERY | {"sft": "1" * 12})
    told = found["4. Doubling K to 2 adds: SFT."]
    assert told.status == YES and "100.0% and 50.0%, +50.0 [+50.0, +50.0]" in (
        told.evidence
    )
    assert found["4. Doubling K to 2 adds: Lean-CoT."].status == SAME


SEARCH = (
    "5. With thoughts, best-first search by mean log-probability is worse than "
    "sampling."
)


def fifth(found) -> list[str]:
    return [v.status for claim, v in found.items() if claim.startswith("5.")]


def test_search_is_compared_at_as_many_tactics(tmp_path):
    """Two expansions tried four tactics, as many as one trajectory: pass@1, a half."""
    systems = EVERY | {"cot": "1" * 12, "sft": "1" * 12}
    searches = {"sft mean": ALL, "cot mean": NONE, "cot tactic": ALL}
    found = verdicts(tmp_path / "one", systems, searches=searches)
    assert fifth(found) == [YES] * 4
    assert found[SEARCH].evidence.startswith(
        "Proved, sampling (K = 1 in the mean) against search, Lean-CoT: 50.0% and 0.0%"
    )
    assert "Tactics tried of a problem: 4.0 and 4.0." in found[SEARCH].evidence
    swapped = {"sft mean": NONE, "cot mean": MOST, "cot tactic": NONE}
    worse = verdicts(tmp_path / "three", systems, searches=swapped)
    assert fifth(worse) == [NO] * 4


def test_half_the_tactics_are_half_a_trajectory(tmp_path):
    """One expansion: of the problems, every other one is tried once."""
    systems = EVERY | {"cot": ALL}
    searches = {"cot mean": NONE, "cot tactic": ALL}
    found = verdicts(tmp_path, systems, searches=searches, expansions=1)
    assert "(K = 0.5 in the mean)" in found[SEARCH].evidence
    assert ": 50.0% and 0.0%, +50.0 [+50.0, +50.0]" in found[SEARCH].evidence
    # The queue was empty, but another ranking, of other problems solved, tells more.
    assert found[SEARCH].status == YES


def test_empty_queues_say_nothing_of_rankings(tmp_path):
    """One expansion of two, and both rankings prove the same: not tested, all four.

    With all expansions made, the same outcomes are a difference of nothing.
    """
    searches = {"sft mean": HALF, "cot mean": HALF, "cot tactic": HALF}
    dry = verdicts(tmp_path / "dry", EVERY, searches=searches, expansions=1)
    assert fifth(dry) == [UNTESTED] * 4
    assert (
        "Lean-CoT: the queue ran empty on 100% of the problems that were not solved, "
        "and other rankings change 0.0% of the outcomes"
    ) in dry[SEARCH].evidence
    # Of SFT there is no other ranking.
    alone = dry["5. Without thoughts it is not."].evidence
    assert "SFT: the queue ran empty on 100%" in alone and "rankings" not in alone
    full = verdicts(tmp_path / "full", EVERY, searches=searches)
    assert fifth(full) == [SAME, YES, SAME, SAME]


@pytest.mark.parametrize("tokens, K, status", [
    (40, "2", SAME),  # one trajectory with thoughts is two without
    (30, "1.5", NO),
    (41, None, UNTESTED),
    (10, "1", YES),  # both of the former are one of the latter
])  # fmt: skip
def test_as_many_tokens_are_written(tmp_path, tokens, K, status):
    """One of two trajectories proves: 50% by K = 1, 75% by K = 1.5, all by K = 2."""
    systems = {"sft": NONE, "cot": "1" * 12, "sft-data": "1" * 12}
    if tokens == 40:  # for what proves all cannot be beaten
        systems |= {"cot": HALF, "sft-data": HALF}
    found = verdicts(tmp_path, systems, searches={}, tokens={"cot": tokens})
    told = found["1. Thoughts help to prove, at equal generated tokens."]
    assert told.status == status
    k = 2 if tokens == 10 else 1
    if K is None:
        assert "as many as 2.0 of" in told.evidence and "there are 2." in told.evidence
    else:
        assert f"Lean-CoT (K = {k})" in told.evidence
        assert f"(K = {K} in the mean), both with {k * tokens} tokens" in told.evidence
    if K == "1.5":
        assert "50.0% and 75.0%, −25.0 [−25.0, −25.0]" in told.evidence


def test_three_seeds_reproduce_and_one_does_not(tmp_path):
    """The same outcomes in every seed; where seeds differ, so does the interval."""
    systems = EVERY | {"cot-shuffled": NONE, "cot-filler": (NONE, HALF, ALL)}
    three = verdicts(tmp_path, systems, seeds=(0, 1, 2))
    shuffled, filler = (
        f"1. It is what thoughts say: they are better than {what}."
        for what in ("thoughts of other states", "filler of the same length")
    )
    assert three[shuffled].status == "reproduced"
    assert three[filler].status == UNSURE
    assert not any("One seed" in v.evidence for v in three.values())
    one = verdicts(tmp_path / "one", EVERY | {"cot-shuffled": NONE})
    assert one[shuffled].status == YES
    assert one[shuffled].evidence.startswith(three[shuffled].evidence)


def test_gains_are_told_by_difficulty_and_where_rules_are_new(tmp_path):
    """Of hard problems all, of easy ones and novel ones none."""
    last = {"star-joint-2": "000022220000", "sft-data": "000000000000"}
    found = verdicts(tmp_path, EVERY | last)
    side = settled(found)
    name = "Lean-STaR, joint, round 2"
    assert side[f"6. {name} gains on hard problems."] == YES
    hard = found["6. The gain is larger on hard problems than on easy ones, in points."]
    assert hard.status == YES
    assert hard.evidence.startswith("hard +100.0, easy +0.0 points: +100.0 [+100.0, ")
    for claim in (
        f"6. {name} gains on easy problems.",
        f"6. {name} gains where rules were never trained on, too.",
    ):
        assert found[claim].status == UNTESTED
        assert found[claim].evidence.endswith("That says nothing.")


def test_what_was_not_run_is_not_tested(tmp_path):
    """Two models alone: of claim 4 something is told, of others that they were not."""
    found = verdicts(tmp_path, {"sft": HALF, "cot": "222022202220"}, searches={})
    untested = [v for v in found.values() if v.status == UNTESTED]
    assert [v.claim[:2] for v in untested] == ["1.", "2.", "3.", "5.", "6."]
    assert {v.evidence for v in untested} == {"What it compares was not run."}
    nobody = verdicts(tmp_path / "none", dict.fromkeys(EVERY, NONE), searches={})
    assert {v.status for v in nobody.values()} == {UNTESTED}


def test_published_theorems_have_their_own_words(tmp_path):
    """Levels and predictions are of LeanDojo, with known proofs; plus continues."""
    systems = EVERY | {"untuned": NONE, "star-continue-2": "222222222222"}
    found = verdicts(tmp_path, systems, known=False, published="plus")
    name = "Lean-STaR, continued, round 2"
    assert found[f"6. {name} gains where premises were never trained on, too."]
    assert "Proved of 16" in found[f"6. {name} gains on medium problems."].evidence
    assert f"4. Doubling K to 2 adds: {name}." in found
