"""What expert iteration learns from, and the statistics that compare systems.

Identities: every rule of the harvest on examples worked by hand; pass@k against all
subsets; Wilson's interval against its quadratic; McNemar's test against the binomial
sum; a codec's texts read back as they were written.
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from data.errors import DataError
from data.records import write_jsonl
from research.lean_star import star
from research.lean_star.environment import Theorem
from research.lean_star.formats import Format
from research.lean_star.outcomes import Outcome, Proof, Step
from research.lean_star.passk import curve, mcnemar, pass_at_k, wilson
from research.lean_star.vocabulary import tokenizer
from research.lean_star.writer import Codec


def proof(trajectory, iteration, *steps):
    """Steps as pairs "state tactic", a thought before each tactic."""
    pairs = [step.split(" ", 1) for step in steps]
    made = tuple(Step(state, f"so {tactic}", tactic) for state, tactic in pairs)
    return Proof(trajectory, iteration, made)


def outcome(*proofs, name="t"):
    proved = tuple(p.iteration for p in proofs) or (0,)
    return Outcome(Theorem(name, name), proved, proofs, Counter(), "", ())


def harvested(*outcomes, **rules):
    return star.harvest(outcomes, **{"seed": 0} | rules)


def test_the_later_tactic_of_an_unchanged_state_stays():
    """s: a, b, both leave s; c leads on. Kept is c, and what follows."""
    found = harvested(outcome(proof(0, 4, "s a", "s b", "s c", "t d")))
    assert [(e.state, e.tactic) for e in found.examples] == [("s", "c"), ("t", "d")]
    assert found.notes["no_progress"] == 2 and found.notes["mean_length"] == 2
    # A state that comes back later is not compared with: s is kept both times.
    again = harvested(outcome(proof(0, 3, "s a", "t b", "s c")))
    assert [e.state for e in again.examples] == ["s", "t", "s"]


def test_equal_scripts_count_once_and_few_are_kept():
    """Five proofs, of which two share their tactics, whatever their thoughts."""
    proofs = [proof(i, 1, f"s {tactic}") for i, tactic in enumerate("abcad")]
    every = harvested(outcome(*proofs), most=9)
    assert sorted(e.tactic for e in every.examples) == ["a", "b", "c", "d"]
    drawn = [
        tuple(e.tactic for e in harvested(outcome(*proofs), seed=seed).examples)
        for seed in range(40)
    ]
    assert all(len(set(tactics)) == 3 for tactics in drawn)
    assert len(set(drawn)) == 4, "each of the four is left out now and then"
    assert drawn[0] == tuple(e.tactic for e in harvested(outcome(*proofs)).examples)


def test_the_first_of_equal_scripts_is_learned():
    """By iteration, then by trajectory: its words, not another's."""
    late = Proof(0, 5, (Step("s", "late", "a"),))
    early = Proof(3, 2, (Step("s", "early", "a"),))
    (example,) = harvested(outcome(late, early)).examples
    assert example == star.Example("t", "s", "early", "a", ("a",))


def rounds_of(*found):
    """Rounds from {theorem: scripts}, a script a word with a letter for a tactic."""
    return [
        [
            star.Example(theorem, f"s{i}", f"{number} {tactic}", tactic, tuple(script))
            for theorem, scripts in one.items()
            for script in scripts.split()
            for i, tactic in enumerate(script)
        ]
        for number, one in enumerate(found)
    ]


def test_rounds_count_a_script_of_a_theorem_once():
    """The earlier round's words stay; of another theorem the same script is new."""
    rounds = rounds_of({"t": "ab c", "u": "c"}, {"t": "c d ab", "v": "ab"})
    found = star.merged(rounds, most=9, seed=0)
    assert found.notes == {"proofs": 5, "repeated": 2, "beyond": 0}
    new = [one for one in rounds[1] if (one.theorem, *one.script) not in (
        ("t", "c"), ("t", "a", "b"),
    )]  # fmt: skip
    assert found.examples == rounds[0] + new
    assert [one.output for one in new] == ["1 d", "1 a", "1 b"]
    # A round with itself is the round.
    assert star.merged(rounds[:1] * 3, most=9, seed=0).examples == rounds[0]


def test_a_theorem_has_few_proofs_of_all_rounds():
    """Two of round one and three of round two are at most three; the first two stay."""
    rounds = rounds_of({"t": "a b"}, {"t": "b c de f"})
    drawn = [star.merged(rounds, most=3, seed=seed) for seed in range(30)]
    for found in drawn:
        assert found.notes == {"proofs": 3, "repeated": 1, "beyond": 2}
        assert found.examples[:2] == rounds[0]
    newest = {one.examples[2].script for one in drawn}
    assert newest == {("c",), ("d", "e"), ("f",)}, "each is drawn now and then"
    again = star.merged(rounds, most=3, seed=0)
    assert again == drawn[0]
    full = star.merged(rounds, most=2, seed=0)
    assert full.examples == rounds[0] and full.notes["beyond"] == 3


def test_a_script_is_all_that_was_tried_on_the_way():
    """Proofs are told apart before steps without progress are dropped."""
    found = harvested(outcome(proof(0, 3, "s a", "s b\nc", "t d")))
    assert [e.script for e in found.examples] == [("a", "b\nc", "d")]


def test_tactics_of_several_lines_are_dropped():
    """The step, not its proof."""
    found = harvested(outcome(proof(0, 2, "s a\nb", "t c")))
    assert [e.tactic for e in found.examples] == ["c"]
    assert found.notes["newline"] == 1 and found.notes["kept"] == 1


def test_kinds_of_tactics_can_be_capped():
    """Of ten `exact`s two, all of the others, in their order."""
    steps = [f"s{i} exact h{i}" for i in range(10)] + ["t intro h", "u ring"]
    found = harvested(outcome(proof(0, 12, *steps)), per_head=2)
    heads = [e.tactic.split()[0] for e in found.examples]
    assert heads == ["exact", "exact", "intro", "ring"]
    assert found.notes["capped"] == 8


def test_yield_counts_theorems():
    """One of two solved; failures give no examples."""
    found = harvested(outcome(proof(0, 1, "s a")), outcome(name="u"))
    assert found.notes["yield"] == 0.5 and found.notes["examples"] == 1
    assert harvested(outcome()).examples == []


def test_examples_are_read_as_written(tmp_path):
    """None where nothing was proved."""
    made = harvested(outcome(proof(0, 2, "s a", "t b"))).examples
    write_jsonl(tmp_path / "some.jsonl", [e._asdict() for e in made])
    write_jsonl(tmp_path / "none.jsonl", [])
    assert star.read_examples(tmp_path / "some.jsonl") == made
    assert star.read_examples(tmp_path / "none.jsonl") == []
    for text, message in (("{", "bad.jsonl:1"), ('{"state": "s"}', "expected theorem")):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(DataError, match=message):
            star.read_examples(tmp_path / "bad.jsonl")


# --- statistics ---------------------------------------------------------------------


@pytest.mark.parametrize("right", range(6))
def test_pass_at_k_is_the_share_of_subsets(right):
    """Of all subsets of k of five tries, those with a right one."""
    tries = [True] * right + [False] * (5 - right)
    for k in range(1, 6):
        subsets = [any(s) for s in itertools.combinations(tries, k)]
        assert pass_at_k(5, right, k) == pytest.approx(np.mean(subsets))
    assert pass_at_k(5, right, 5) == bool(right)


def test_the_curve_is_of_each_problem():
    """Iterations of proofs, 0 for none: how many are above 0 is what counts."""
    found = curve([(0, 3, 0, 7), (0, 0, 0, 0)], (1, 2, 4))
    np.testing.assert_allclose(found, [[0.5, 1 - 1 / 6, 1], [0, 0, 0]])
    for wrong in ((4, 5, 1), (4, 1, 0), (4, 1, 5)):
        with pytest.raises(ValueError, match="expected 1 <= k <= tries"):
            pass_at_k(*wrong)


@pytest.mark.parametrize(("right", "total"), [(0, 10), (3, 10), (75, 244), (10, 10)])
def test_wilson_solves_its_quadratic(right, total):
    """Its ends are the p with (share - p)^2 = z^2 p (1 - p) / n."""
    z, share = 1.959963984540054, right / total
    for p in wilson(right, total):
        assert (share - p) ** 2 == pytest.approx(z * z * p * (1 - p) / total, abs=1e-9)


def test_mcnemar_is_a_binomial_test_of_the_discordant():
    """Six only one solves, one only the other: 2 (C(7,0) + C(7,1)) / 2^7."""
    both, neither = [(True, True)] * 9, [(False, False)] * 5
    only = [(True, False)] * 6 + [(False, True)]
    one, other = zip(*both, *neither, *only, strict=True)
    expected = 2 * (math.comb(7, 0) + math.comb(7, 1)) / 2**7
    assert mcnemar(one, other) == pytest.approx(expected)
    assert mcnemar(other, one) == pytest.approx(expected)
    assert mcnemar(one, one) == 1


# --- texts and pictures -------------------------------------------------------------

STATE = "p q : Prop\nh1 : p ∧ q\n⊢ q"


@pytest.mark.parametrize("kind", ["sft", "cot"])
def test_targets_are_read_back_and_end_where_sampling_stops(kind):
    """The tactic of a target is the tactic; its last tokens before EOS are the stop."""
    codec = Codec(tokenizer(), Format("base", kind))
    thought = "The goal is q." if kind == "cot" else None
    target = codec.form.target("exact h1", thought)
    example = codec.example(STATE, target)
    learned = example.tokens[example.weights > 0]
    assert learned[-1] == codec.tokenizer.eos_id
    assert codec.text(learned[:-1]) == target
    assert codec.form.tactic(codec.text(learned)) == "exact h1"
    (stop,) = codec.stops()
    assert tuple(learned[-1 - len(stop) : -1]) == stop
    assert stop not in zip(*(learned[i:-2] for i in range(len(stop))), strict=False)
    assert codec.prompt(STATE) == example.tokens[example.weights == 0].tolist()
