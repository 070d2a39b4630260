"""Exports: Lean text that reads back, and Coq terms that coqc accepts where it is."""

import random
import re

import pytest
from helpers import minilean_random as made
from hypothesis import given, settings
from hypothesis import strategies as st

from data.minilean import coq, export, kernel, tactics
from data.minilean.parser import parse_statement
from data.minilean.printer import show_statement
from data.minilean.syntax import INT, NAT, var
from data.worlds.theorems import held_out
from research.lean_star import coq as referee
from research.lean_star.embedded import Certificate

# (binders and goal, tactics): every rule of the kernel at least once
PROOFS = [
    ("(p q : Prop) (h : p ∧ q) : q ∧ p", ["obtain ⟨a, b⟩ := h", "exact ⟨b, a⟩"]),
    ("(p q : Prop) (h : p ∨ q) : q ∨ p",
     ["rcases h with a | a", "right", "exact a", "left", "exact a"]),
    ("(p q : Prop) : ((p → q) → p) → p",
     ["intro h", "by_contra k", "apply k", "apply h", "intro a", "contradiction"]),
    ("(p q r : Prop) (h : p ↔ q) : (p ∧ r → ¬p ∨ p) ↔ (q ∧ r → ¬q ∨ q)", ["rw [h]"]),
    ("(P : ℕ → Prop) (p q : Prop) (h : p ↔ q) (k : ∀ n : ℕ, p → P n) "
     ": (∃ n : ℕ, P n ∧ q) → ∀ n : ℕ, q → P n",
     ["rw [h] at k", "intro a n b", "exact k n b"]),
    ("(P Q : ℕ → Prop) (h : ∀ x : ℕ, P x → Q x) (k : ∃ x : ℕ, P x) : ∃ y : ℕ, Q y",
     ["obtain ⟨x, hx⟩ := k", "use x", "apply h", "exact hx"]),
    ("(f : ℤ → ℤ) (x y : ℤ) (h : x = y) (k : f y = x) : f x = y",
     ["rw [h]", "rw [← h]", "rw [h, k]", "exact h"]),
    ("(x y : ℤ) (h : x = y + 1) (k : y = 2) : x = 3",
     ["subst k", "rw [h]", "norm_num"]),
    ("(s : ℕ → ℕ) (h0 : s 0 = 0) (hs : ∀ n : ℕ, s (n + 1) = s n + (2 * n + 1)) "
     ": ∀ n : ℕ, s n = n * n",
     ["intro n", "induction' n with n ih", "norm_num [h0]", "rw [hs, ih]", "ring"]),
    ("(x y : ℤ) (h : 2 * x + y = 7) (k : x - y = 2) : x = 3", ["linarith"]),
    ("(n m : ℕ) (h : n > m) : m + 1 ≤ n", ["linarith"]),
    ("(x y : ℤ) : 2 * x * y ≤ x ^ 2 + y ^ 2", ["nlinarith [sq_nonneg (x - y)]"]),
    ("(x y : ℤ) (h : 0 < x) (k : 0 < y) : 0 < x * y", ["exact mul_pos h k"]),
    ("(x y : ℤ) : (x + y) ^ 2 = x ^ 2 + 2 * x * y + y ^ 2", ["ring"]),
    ("(n : ℕ) : n < 2 ^ n",
     ["induction' n with n ih", "norm_num",
      "have h : (2 : ℕ) ^ (n + 1) = 2 * 2 ^ n := by ring", "linarith"]),
    ("(p : Prop) (x : ℤ) (h : x ≠ x) : p", ["contradiction"]),
    ("(p q : Prop) (h : p ↔ q) : q ↔ p", ["constructor", "exact h.2", "exact h.1"]),
    ("(h₁ β' : Prop) (μ₁ : h₁) : True ∧ h₁", ["constructor", "trivial", "exact μ₁"]),
    # names that the functions of a congruence must not hide
    ("(p q : Prop) (c0 : p ↔ q) (k : p ∧ p) : q ∧ q", ["rw [c0] at k", "exact k"]),
    ("(P Q : ℕ → Prop) (p : Prop) (x : ℕ) (h : ∀ y : ℕ, p ↔ P y) "
     "(k : ∃ x : ℕ, Q x ∧ p) : ∃ z : ℕ, Q z ∧ P x", ["rw [h x] at k", "exact k"]),
]  # fmt: skip


def certificate(text: str, script: list[str]) -> Certificate:
    """The proof of `theorem t text`, accepted by the kernel."""
    statement = parse_statement(f"theorem t {text} := by")
    state = tactics.start(statement)
    for tactic in script:
        state = tactics.run(state, tactic)
        assert type(state) is tactics.State, (tactic, state)
    proof = tactics.proof_of(state)
    verdict = kernel.check(statement.binders, proof, statement.goal)
    assert verdict.ok, verdict.detail
    return Certificate(statement, proof, verdict.axioms)


def true_sequent(rng: random.Random):
    return made.valid_sequent(rng, valid=True)


def random_certificates(count: int, seed: int, statement_of) -> list[Certificate]:
    """Proofs that random tactics found, of random statements."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        statement = statement_of(rng)
        states = [tactics.start(statement)]
        for _ in range(60):
            after = tactics.run(states[-1], made.tactic(rng, states[-1].goals[0]))
            if type(after) is tactics.Fault:
                continue
            if after.goals:
                states.append(after)
                continue
            proof = tactics.proof_of(after)
            verdict = kernel.check(statement.binders, proof, statement.goal)
            found.append(Certificate(statement, proof, verdict.axioms))
            break
    return found


def test_lean_text_is_the_theorem_and_its_tactics():
    """Read back, line by line, it is the same theorem with the same proof."""
    for text, script in PROOFS:
        statement = parse_statement(f"theorem t {text} := by")
        first, *lines = export.lean(statement, script).splitlines()
        assert first == show_statement(statement)
        assert parse_statement(first) == statement
        assert all(line.startswith("  ") for line in lines)
        assert certificate(text, [line.strip() for line in lines])
    file = export.lean_file([(statement, script)])
    assert file.startswith("import Mathlib\n") and "#print axioms t" in file


def test_every_rule_has_a_coq_term():
    """Parentheses match, names are Coq's, and only arithmetic asks Coq's tactics."""
    for text, script in PROOFS:
        found = certificate(text, script)
        shown = coq.lemma(found.statement, found.proof)
        assert shown.count("(") == shown.count(")")
        assert shown.startswith("Lemma v_t : ") and shown.isascii()
        assert shown.endswith("Qed.\nPrint Assumptions v_t.\n")
        assert ("ltac:" in shown) != coq.plain(found.proof)
        assert ("classic " in shown) == bool(found.axioms)


@settings(max_examples=300)
@given(st.lists(st.text("x1₁8321_'·é\n", max_size=8), min_size=2, max_size=8))
def test_different_names_are_different_in_coq(names):
    """And they are names there; x₁ has the number 8321 in it."""
    names = {*names, "x₁", "x_8321_", "x__8321__", "x_95_8321_95_"}
    shown = {coq.show_term(var(name, INT)) for name in names}
    assert len(shown) == len(names)
    assert all(re.fullmatch(r"v_[A-Za-z0-9_']*", text) for text in shown)


def test_what_coqc_prints_is_read():
    closed = "Closed under the global context\n"
    one = "Axioms:\nclassic : forall P : Prop, P \\/ ~ P\n"
    two = "Axioms:\ncheat : False\nother.thing\n  : nat\n"
    found = referee.assumptions(closed + one + two + closed)
    assert found == [(), ("classic",), ("cheat", "other.thing"), ()]


def test_without_coqc_the_referee_says_so(monkeypatch):
    monkeypatch.setattr(referee, "COMMAND", "no-such-coqc")
    for ask in (referee.referee, referee.referee_together):
        with pytest.raises(referee.CoqMissing, match="apt-get install coq"):
            ask([])


needs_coqc = pytest.mark.skipif(not referee.available(), reason=referee.MISSING)


@needs_coqc
def test_coq_accepts_every_rule():
    certificates = [certificate(text, script) for text, script in PROOFS]
    verdicts = referee.referee_together(certificates)
    for (text, _), verdict in zip(PROOFS, verdicts, strict=True):
        assert verdict.ok, (text, verdict.detail)


@needs_coqc
def test_coq_accepts_what_random_tactics_prove():
    """A hundred propositional proofs; their axioms are those the kernel named."""
    certificates = random_certificates(100, 0, true_sequent)
    assert sum(coq.plain(found.proof) for found in certificates) > 80
    verdicts = referee.referee_together(certificates)
    for found, verdict in zip(certificates, verdicts, strict=True):
        assert verdict.ok, verdict.detail
        assert set(verdict.axioms) <= set(found.axioms)


@needs_coqc
def test_coq_accepts_arithmetic():
    """Of random statements on numbers, and known proofs of the held-out problems."""
    certificates = random_certificates(4, 11, made.any_arithmetic)
    for row in held_out()[::24]:
        text = row["statement"].removeprefix(f"theorem {row['full_name']} ")
        certificates.append(certificate(text, row["proof"]))
    assert sum(not coq.plain(found.proof) for found in certificates) > 4
    for verdict in referee.referee_together(certificates):
        assert verdict.ok, verdict.detail


@needs_coqc
def test_coq_refuses_a_false_proof():
    """And what rests on more than it says."""
    good = certificate("(p q : Prop) (h : p) : p ∨ q", ["left", "exact h"])
    wrong = kernel.Proof("inr", good.proof.args)
    refused, accepted = referee.referee([good._replace(proof=wrong), good])
    assert not refused.ok and accepted.ok
    hidden = "theorem t (x₁ x_8321_ : Prop) (h : x₁) : x_8321_"
    hidden = Certificate(parse_statement(hidden), kernel.Proof("hyp", ("h",)), ())
    bound = parse_statement(
        "theorem t (P : ℕ → ℕ → Prop) (h : ∀ x : ℕ, P x x) "
        ": ∀ x₁ x_8321_ : ℕ, P x₁ x_8321_"
    )
    part = kernel.Proof("at", (kernel.Proof("hyp", ("h",)), var("b", NAT)))
    part = kernel.Proof("intro", ("a", kernel.Proof("intro", ("b", part))))
    for false in (hidden, Certificate(bound, part, ())):
        statement = false.statement
        assert not kernel.check(statement.binders, false.proof, statement.goal).ok
        assert not referee.referee([false])[0].ok
    apart = certificate("(p q : Prop) (h₁ : p) (h_8321_ : q) : p", ["exact h₁"])
    assert referee.referee([apart])[0].ok
    classical = certificate(*PROOFS[2])
    (verdict,) = referee.referee([classical._replace(axioms=())])
    assert not verdict.ok and "Classical.em" in verdict.detail
