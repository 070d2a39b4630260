"""Chapter 7's verdicts: the side of every difference, intervals by enumeration."""

import itertools

import numpy as np
import pytest
from helpers import lean_stages
from helpers.lean_stages import ALL, HALF, NONE

from research.intervals import Resamples, bootstrap
from research.lean_star import claims
from research.lean_star.settings import BestFirst
from research.report import Interval

YES, NO, UNSURE = "reproduced", "not reproduced", "too noisy to tell"
UNTESTED = "not tested here"
# Two expansions of two candidates: the four tactics of one trajectory.
RULES = BestFirst(expansions=2, candidates=2)
BASIC = ("sft", "cot", "sft-data", "sft-tokens", "cot-shuffled", "cot-filler")
CHAINS = [f"{chain}-{regime}-{n}" for chain in ("star", "ei")
          for regime in ("joint", "continue") for n in (1, 2)]  # fmt: skip
SEARCHES = ("sft mean", "cot mean", "cot tactic")
EVERY = dict.fromkeys([*BASIC, *CHAINS, "cot-longer"], HALF)


def verdicts(root, systems, rules=RULES, searches=SEARCHES, **more):
    """{claim: verdict}; all marks HALF where not said otherwise."""
    given = {name: HALF for name in searches} if searches is SEARCHES else searches
    results = lean_stages.results(root, systems, searches=given, **more)
    found = claims.verdicts(results, Resamples(0), rules)
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
    assert len(found) == 31


@pytest.mark.parametrize("system, claim", [
    ("sft-data", "1. Thoughts help to prove, at equal data."),
    ("sft-tokens", "1. Thoughts help to prove, at equal training tokens."),
    ("cot-shuffled",
     "1. It is what thoughts say: they are better than thoughts of other states."),
    ("cot-filler",
     "1. It is what thoughts say: they are better than filler of the same length."),
    ("cot-longer", "2. Expert iteration, joint, adds more than its updates do."),
    ("ei-joint-1", "3. Thoughts add beyond expert iteration alone (joint, round 1)."),
    ("ei-continue-2",
     "3. Thoughts add beyond expert iteration alone (continue, round 2)."),
])  # fmt: skip
def test_what_is_compared_with_decides(tmp_path, system, claim):
    """Where it proves nothing the claim holds, where it proves more, it does not."""
    low = verdicts(tmp_path / "low", EVERY | {system: NONE})
    assert settled(low)[claim] == YES
    # All but some, for what proves all cannot be beaten.
    high = verdicts(tmp_path / "high", EVERY | {system: "222222202222"})
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
    assert found["4. Doubling K to 2 adds: Lean-CoT."].status == UNSURE


def test_search_is_compared_at_equal_cost(tmp_path):
    """As many tactics as one trajectory of two: pass@1, half of what is proved."""
    systems = EVERY | {"cot": "1" * 12, "sft": "1" * 12}
    searches = {"sft mean": ALL, "cot mean": NONE, "cot tactic": ALL}
    found = verdicts(tmp_path / "one", systems, searches=searches)
    told = {c: v.status for c, v in found.items() if c.startswith("5.")}
    assert list(told.values()) == [YES] * 4
    with_thoughts = found[
        "5. With thoughts, best-first search by mean log-probability is worse than "
        "sampling."
    ]
    assert "sampling (K = 1) against search, Lean-CoT: 50.0% and 0.0%" in (
        with_thoughts.evidence
    )
    twice = verdicts(
        tmp_path / "two", systems, BestFirst(expansions=4, candidates=2),
        searches=searches,
    )  # fmt: skip
    assert any("K = 2" in v.evidence and "100.0%" in v.evidence for v in twice.values())
    swapped = {"sft mean": NONE, "cot mean": "222222202222", "cot tactic": NONE}
    worse = verdicts(tmp_path / "three", systems, searches=swapped)
    told = {c: v.status for c, v in worse.items() if c.startswith("5.")}
    assert list(told.values()) == [NO] * 4


def test_gains_are_told_by_difficulty_and_where_rules_are_new(tmp_path):
    """Of hard problems all, of easy ones and novel ones none."""
    last = {"star-joint-2": "000022220000", "sft": "000000000000"}
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
    """Two models alone: of claims 1, 2, 3 and 5 nothing can be said, and that is."""
    found = verdicts(tmp_path, {"sft": HALF, "cot": "222022202220"}, None, searches={})
    untested = [v for v in found.values() if v.status == UNTESTED]
    assert [v.claim[:2] for v in untested] == ["1.", "2.", "3.", "5."]
    assert {v.evidence for v in untested} == {"What it compares was not run."}
    assert found["6. Lean-CoT gains where rules were never trained on, too."].status
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
