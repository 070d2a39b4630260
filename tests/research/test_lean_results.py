"""What chapter 7's claims are computed from: costs, searches, trained controls.

Closed forms on a few trajectories, and pass@K between whole numbers by enumeration.
"""

import importlib
import itertools

import numpy as np
import pytest
from helpers import lean_stages
from helpers.lean_stages import ALL, HALF, NONE

from research.lean_star.experiment import CHAINS
from research.lean_star.outcomes import SearchFacts, search_facts
from research.lean_star.passk import between, pass_at_k
from research.lean_star.results import title
from research.run import declare

CONFIGS = importlib.import_module("configs.ch7_lean_star")
LONGER = ("sft-longer", "ei-tokens")


@pytest.mark.parametrize("k", [0, 0.25, 1, 1.5, 2.75, 3])
def test_a_share_of_the_problems_gets_one_try_more(k):
    """Of all sets of floor(k) tries and of one more, so that k is their mean number."""
    proved = (0, 4, 0)
    low, share = int(k), k - int(k)

    def hit(n):
        return np.mean([any(of) for of in itertools.combinations(proved, min(n, 3))])

    expected = (1 - share) * hit(low) + share * hit(low + 1)
    assert between(proved, k) == pytest.approx(expected)
    if k == low and k > 0:
        assert between(proved, k) == pass_at_k(3, 1, k)


@pytest.mark.parametrize("k", [-0.5, 3.1])
def test_more_tries_than_there_are_cannot_be_drawn(k):
    with pytest.raises(ValueError, match="0 <= k <= tries, got k="):
        between((0, 1, 0), k)


def node(parent, tactic, expanded=0, failed=()):
    return {"parent": parent, "tactic": tactic, "expanded": expanded,
            "failed": list(failed)}  # fmt: skip


def outcome(solved, expansions, tactics, tree=(), crashed="", **more):
    counts = {"expansions": expansions, "tactics": tactics, "tokens": 5 * tactics}
    return {"solved": solved, "crashed": crashed, "counts": counts | more,
            "tree": list(tree)}  # fmt: skip


def test_searches_are_told_by_their_trees():
    """Counted by hand: of three expansions 3, 1 and 2 different tactics.

    A tactic that two thoughts lead to is one, also where one failed; of a limit of
    three, an end before it is an empty queue, but for one of time, or of a crash.
    """
    tree = [
        node(-1, "", 1, [("ring", "illegal"), ("a", "illegal")]),
        node(0, "a", 2, [("b", "illegal"), ("b", "timeout")]),
        node(0, "a"),
        node(0, "c"),
    ]
    rows = [
        outcome(False, 2, 7, tree),
        outcome(True, 1, 2, [node(-1, "", 1), node(0, "x"), node(0, "y")]),
        outcome(False, 3, 9),
        outcome(False, 1, 2, out_of_time=1),
        outcome(False, 0, 0, crashed="no"),
    ]
    found = search_facts(rows, 3)
    assert found == SearchFacts(7 / 5, 20 / 5, 100 / 5, 1 / 3, 6 / 3, 1 / 3)
    solved = search_facts([outcome(True, 1, 1)], 3)
    assert np.isnan([solved.empty, solved.distinct, solved.single]).all()


def test_sampling_costs_what_its_trajectories_took(tmp_path):
    """Four tactics and twenty tokens of each; a search of four tactics is one."""
    results = lean_stages.results(
        tmp_path, {"sft": HALF, "cot": "1" * 12}, seeds=(0, 1), tokens={"cot": 60},
        searches={"cot mean": HALF, "sft mean": (ALL, NONE)},
    )  # fmt: skip
    assert [results.spent("cot", what) for what in ("tactics", "tokens")] == [4, 60]
    assert results.spent("sft", "tokens") == 20
    assert results.as_many("cot mean") == 1
    n = 8 * lean_stages.EACH
    np.testing.assert_array_equal(results.passed_at("cot", 1.5), np.full((2, n), 0.75))
    for k in (1, 2):  # as the curve has it
        np.testing.assert_allclose(
            results.passed_at("sft", k, "novel"), results.passed("sft", "novel", k)
        )
    facts = results.search_facts("sft mean")
    assert (facts.expansions, facts.tactics, facts.tokens) == (2, 4, 40)


def test_a_search_of_more_tactics_than_were_sampled_is_met_by_all(tmp_path):
    """Two expansions of two against half a tactic of each of two trajectories."""
    results = lean_stages.results(
        tmp_path, {"cot": HALF}, searches={"cot mean": HALF}
    )  # fmt: skip
    results.spent = lambda system, what: 0.5
    assert results.as_many("cot mean") == 2


# --- controls of training -----------------------------------------------------------


def declared(**given) -> dict:
    config = CONFIGS.get_config("smoke")
    for name, value in given.items():
        config[name] = value
    return {handle.name: handle for handle in declare(config).handles}


def test_controls_train_as_long_as_the_last_joint_round():
    """sft-data's recipe with ei's updates; what ei learned with star's tokens."""
    found = declared(controls=("filler", *LONGER))
    longer, same = (found[f"{name}-0"].inputs for name in ("sft-longer", "sft-data"))
    assert longer["updates_of"] is found["ei-joint-2-0"]
    assert longer | {"updates_of": None} == same | {"updates_of": None}
    tokens, last = (found[f"{name}-0"].inputs for name in ("ei-tokens", "ei-joint-2"))
    assert tokens["tokens_of"] is found["star-joint-2-0"]
    assert tokens | {"tokens_of": None} == last | {"tokens_of": None}
    assert len(tokens["harvests"]) == 2
    for name in LONGER:
        assert found[f"prove-{name}-0"].inputs["kind"] == "sft"
        assert found["report"].inputs["proved"][f"{name} 0"]
        assert title(name)
    assert "cot-filler-0" in found and "cot-shuffled-0" not in found
    assert tuple(CHAINS) == ("star", "ei")


@pytest.mark.parametrize("given", [
    {"controls": ()},
    {"controls": LONGER, "regimes": ("continue",)},
    {"controls": LONGER, "iteration": None, "star": None},
])  # fmt: skip
def test_controls_are_there_where_asked_for_and_possible(given):
    """Not without their names, nor without a joint round."""
    names = set(declared(**given))
    assert not names & {f"{name}-0" for name in LONGER}
    assert "sft-data-0" in names
    assert ("cot-longer-0" in names) == (given["controls"] == ())
