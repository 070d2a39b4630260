"""What each tactic does to a goal, as Lean 4 with Mathlib prints it, or why it fails.

Expected states are written by hand. Every proof that ends is checked by the kernel.
"""

import pytest

from data.minilean import kernel, tactics
from data.minilean.parser import parse_statement

PROPS = "(p q r : Prop)"


def run(text: str, *script: str):
    """The state or fault after the script; all but its last tactic must apply."""
    state = tactics.start(parse_statement(f"theorem t {text} := by"))
    for i, tactic in enumerate(script):
        after = tactics.run(state, tactic)
        if i + 1 < len(script):
            assert type(after) is tactics.State, (tactic, after)
        state = after
    return state


def goals(state) -> str:
    """The printed goals without the lines of `PROPS`; a fault as its kind."""
    if type(state) is tactics.Fault:
        return f"{state.kind}: {state.message}"
    shown = tactics.show_state(state)
    return shown.replace("p q r : Prop\n", "")


EFFECTS = [
    # binders and goal | tactics | what is left
    ("(h : p) : q → p", ["intro k"], "h : p\nk : q\n⊢ p"),
    (": p → q → p", ["intro a b"], "a : p\nb : q\n⊢ p"),
    (": ¬p → ¬p", ["intros a b"], "a : ¬p\nb : p\n⊢ False"),
    ("(x : ℤ) : x ≠ 1", ["intro h"], "x : ℤ\nh : x = 1\n⊢ False"),
    (": ∀ x : ℕ, x = x", ["intro x"], "x : ℕ\n⊢ x = x"),
    ("(h : p) : p", ["exact h"], "no goals"),
    ("(f : p → q) (h : p) : q", ["exact f h"], "no goals"),
    ("(h : p ∧ (q ∧ r)) : r", ["exact h.2.2"], "no goals"),
    ("(h : p ↔ q) (k : p) : q", ["exact h.mp k"], "no goals"),
    ("(h : p ↔ q) (k : q) : p", ["exact h.2 k"], "no goals"),
    ("(h : p → q → r) (a : p) (b : q) : r", ["exact (h a) b"], "no goals"),
    ("(h : p) (k : q) : p ∧ q ∧ p", ["exact ⟨h, k, h⟩"], "no goals"),
    ("(h : p) : p ∨ q", ["exact Or.inl h"], "no goals"),
    ("(h : p) (k : ¬p) : q", ["exact absurd h k"], "no goals"),
    ("(h : False) : q", ["exact False.elim h"], "no goals"),
    (": True", ["exact True.intro"], "no goals"),
    ("(f : ℕ → ℕ) (n : ℕ) : 0 ≤ f n + 1", ["linarith [Nat.zero_le (f n)]"], "no goals"),
    ("(x y : ℤ) (h : x > y) : y < x", ["exact h"], "no goals"),
    ("(h : p → q) : q", ["apply h"], "h : p → q\n⊢ p"),
    ("(h : p → q → r) : r", ["apply h"],
     "case a\nh : p → q → r\n⊢ p\n\ncase a\nh : p → q → r\n⊢ q"),
    ("(h : p → q → r) : q → r", ["apply h"], "h : p → q → r\n⊢ p"),
    ("(h : ¬p) : False", ["apply h"], "h : ¬p\n⊢ p"),
    ("(P Q : ℕ → Prop) (h : ∀ x : ℕ, P x → Q (x + 1)) : Q (2 + 1)", ["apply h"],
     "case a\nP Q : ℕ → Prop\nh : ∀ (x : ℕ), P x → Q (x + 1)\n⊢ P 2"),
    (": p ∧ q", ["refine ⟨?_, ?_⟩"], "case refine_1\n⊢ p\n\ncase refine_2\n⊢ q"),
    ("(h : p) : p ∧ q", ["refine ⟨h, ?_⟩"], "h : p\n⊢ q"),
    (": p ∧ q", ["constructor"], "case left\n⊢ p\n\ncase right\n⊢ q"),
    (": p ↔ q", ["constructor"], "case mp\n⊢ p → q\n\ncase mpr\n⊢ q → p"),
    (": p ∧ (q ∧ r)", ["constructor", "intro h"], "elaboration: intro: the target is "
     "neither → nor ∀"),
    (": p ∧ q ∧ r", ["refine ⟨?_, ?_⟩", "exact h"], "elaboration: identifier 'h' is "
     "unknown"),
    (": True", ["constructor"], "no goals"),
    (": p ∨ q", ["left"], "case h\n⊢ p"),
    (": p ∨ q", ["right"], "case h\n⊢ q"),
    ("(h : p ∧ q) : r", ["obtain ⟨a, b⟩ := h"], "case intro\na : p\nb : q\n⊢ r"),
    ("(h : p ∧ q ∧ r) : r", ["obtain ⟨a, b, c⟩ := h"],
     "case intro.intro\na : p\nb : q\nc : r\n⊢ r"),
    ("(h : p ∨ q) : r", ["rcases h with a | b"],
     "case inl\na : p\n⊢ r\n\ncase inr\nb : q\n⊢ r"),
    ("(h : p ∧ (q ∨ r)) : r", ["obtain ⟨a, b | b⟩ := h"],
     "case intro.inl\na : p\nb : q\n⊢ r\n\ncase intro.inr\na : p\nb : r\n⊢ r"),
    ("(h : p ∨ q) : r", ["cases' h with a b"],
     "case inl\na : p\n⊢ r\n\ncase inr\nb : q\n⊢ r"),
    ("(h : p ↔ q) : r", ["cases' h with a b"],
     "case intro\na : p → q\nb : q → p\n⊢ r"),
    ("(P : ℤ → Prop) (h : ∃ x : ℤ, P x) : r", ["obtain ⟨x, hx⟩ := h"],
     "case intro\nP : ℤ → Prop\nx : ℤ\nhx : P x\n⊢ r"),
    ("(f : p → q ∧ r) (h : p) : r", ["obtain ⟨a, b⟩ := f h"],
     "case intro\nf : p → q ∧ r\nh : p\na : q\nb : r\n⊢ r"),
    ("(h : p) : q", ["exfalso"], "h : p\n⊢ False"),
    ("(h : p) (k : ¬p) : q", ["contradiction"], "no goals"),
    ("(h : False) : q", ["contradiction"], "no goals"),
    ("(x : ℤ) (h : x ≠ x) : q", ["contradiction"], "no goals"),
    ("(h : p) : p", ["assumption"], "no goals"),
    (": True", ["trivial"], "no goals"),
    ("(h : p) : q", ["have k : p := h"], "h k : p\n⊢ q"),
    ("(f : p → q) (h : p) : r", ["have k := f h"], "f : p → q\nh : p\nk : q\n⊢ r"),
    ("(h : p ∧ q) : r", ["have k : q := by exact h.2"], "h : p ∧ q\nk : q\n⊢ r"),
    ("(x : ℤ) : x + 1 = x + 1", ["rfl"], "no goals"),
    (": p ↔ p", ["rfl"], "no goals"),
    ("(x y : ℤ) (h : x = y) : x + x = 2", ["rw [h]"],
     "x y : ℤ\nh : x = y\n⊢ y + y = 2"),
    ("(x y : ℤ) (h : x = y) : y + 1 = 2", ["rw [← h]"],
     "x y : ℤ\nh : x = y\n⊢ x + 1 = 2"),
    ("(x y : ℤ) (h : x = y) : x = y", ["rw [h]"], "no goals"),
    ("(x y : ℤ) (h : x = y) (k : x = 2) (a : p) : q", ["rw [h] at k"],
     "x y : ℤ\nh : x = y\nk : y = 2\na : p\n⊢ q"),
    ("(f : ℕ → ℕ) (a b : ℕ) (h : ∀ n : ℕ, f n = n + 1) : f a + f b + f a = 0",
     ["rw [h]"], "f : ℕ → ℕ\na b : ℕ\nh : ∀ (n : ℕ), f n = n + 1\n"
     "⊢ a + 1 + f b + (a + 1) = 0"),
    ("(f : ℕ → ℕ) (a b : ℕ) (h : ∀ n : ℕ, f n = n + 1) : f a + f b = 0",
     ["rw [h b]"], "f : ℕ → ℕ\na b : ℕ\nh : ∀ (n : ℕ), f n = n + 1\n"
     "⊢ f a + (b + 1) = 0"),
    ("(h : p ↔ q) : p ∧ r → p", ["rw [h]"], "h : p ↔ q\n⊢ q ∧ r → q"),
    ("(x y : ℤ) (h : x = y) (k : y = 2) : x = 3", ["rw [h, k]"],
     "x y : ℤ\nh : x = y\nk : y = 2\n⊢ 2 = 3"),
    ("(n : ℕ) (h : n = 2) : n + 1 = 3", ["rw [h]"], "no goals"),
    ("(x y : ℤ) (k : x * y = 2) (h : y = x + 1) (a : p) : y = 2", ["subst h"],
     "x : ℤ\na : p\nk : x * (x + 1) = 2\n⊢ x + 1 = 2"),
    ("(x y : ℤ) (h : x = y) : y = 2", ["subst h"], "x : ℤ\n⊢ x = 2"),
    ("(f : ℕ → ℕ) (n : ℕ) (h : ∀ k : ℕ, f k = k) : f (f n) = n", ["simp only [h]"],
     "no goals"),
    ("(x y : ℤ) (h : x = 2) (k : x + y = 5) : q", ["simp only [h] at k"],
     "x y : ℤ\nh : x = 2\nk : 2 + y = 5\n⊢ q"),
    ("(x y : ℤ) (h : x = -2) (k : x < y) : q", ["simp only [h] at k"],
     "x y : ℤ\nh : x = -2\nk : -2 < y\n⊢ q"),
    ("(x y : ℤ) : (x + y) ^ 2 = x ^ 2 + 2 * x * y + y ^ 2", ["ring"], "no goals"),
    (": (2 : ℤ) ^ 10 < 1025", ["norm_num"], "no goals"),
    ("(x : ℤ) (h : x = 3) : x ^ 2 = 9", ["norm_num [h]"], "no goals"),
    ("(h : (2 : ℤ) = 3) : q", ["norm_num at h"], "no goals"),
    ("(x y : ℤ) (h : 2 * x + y = 7) (k : x - y = 2) : x = 3", ["linarith"], "no goals"),
    ("(x : ℤ) (h : x > 2) : 2 * x ≥ 6", ["linarith"], "no goals"),
    ("(n : ℕ) : n + 1 > 0", ["linarith"], "no goals"),
    ("(x : ℤ) (h : ∀ y : ℤ, y ≤ x) : x + 1 ≤ x", ["linarith [h (x + 1)]"], "no goals"),
    ("(x y : ℤ) : 2 * x * y ≤ x ^ 2 + y ^ 2", ["nlinarith [sq_nonneg (x - y)]"],
     "no goals"),
    ("(x y : ℤ) (h : 0 < x) (k : 0 < y) : 0 < x * y + x", ["nlinarith [mul_pos h k]"],
     "no goals"),
    ("(f : ℕ → ℕ) (n : ℕ) : f n = n", ["induction' n with k ih"],
     "case zero\nf : ℕ → ℕ\n⊢ f 0 = 0\n\n"
     "case succ\nf : ℕ → ℕ\nk : ℕ\nih : f k = k\n⊢ f (k + 1) = k + 1"),
    (": ∃ x : ℤ, x * x = 4 * x", ["use 4"], "no goals"),
    (": ∃ x : ℤ, x * x = 16", ["use 4"], "elaboration: what is left has no "
     "variables: prove it in ⟨…, …⟩"),
    ("(y : ℤ) : ∃ x : ℤ, x * x = y", ["use y"], "case h\ny : ℤ\n⊢ y * y = y"),
    ("(y : ℤ) : ∃ x : ℤ, x * x = y", ["exists y"], "y : ℤ\n⊢ y * y = y"),
    ("(y : ℤ) : ∃ x : ℤ, x = y", ["use y"], "no goals"),
    (": ∃ x : ℤ, x + 2 = 5", ["refine ⟨3, ?_⟩"], "⊢ 3 + 2 = 5"),
    ("(f : p → q) : q", ["by_contra h"], "f : p → q\nh : ¬q\n⊢ False"),
    (": q", ["by_cases h : p ∧ q"],
     "case pos\nh : p ∧ q\n⊢ q\n\ncase neg\nh : ¬(p ∧ q)\n⊢ q"),
    ("(h : p) : (p ∧ q) ∨ r", ["left", "constructor", "exact h"],
     "case h.right\nh : p\n⊢ q"),
]  # fmt: skip


@pytest.mark.parametrize("text, script, left", EFFECTS, ids=lambda e: str(e)[:40])
def test_effects(text, script, left):
    after = run(f"{PROPS} {text}", *script)
    assert goals(after) == left
    if left == "no goals":
        proof, statement = tactics.proof_of(after), after.statement
        found = kernel.check(statement.binders, proof, statement.goal)
        assert found.ok, found.detail


FAULTS = [
    # binders and goal | tactic | kind
    (": p", "sorry", "forbidden"), (": p", "admit", "forbidden"),
    (": p", "decide", "forbidden"), (": p", "native_decide", "forbidden"),
    (": p → p", "intro h; exact h", "forbidden"), (": p", "exact h -- x", "forbidden"),
    (": p → p", "intro h <;> exact h", "forbidden"),
    (": p → p", "intro h\nexact h", "forbidden"), (": p", "/- -/ rfl", "forbidden"),
    (": p", "set_option autoImplicit true in rfl", "forbidden"),
    (": p", "have h : q := by sorry", "forbidden"),
    (": p", "", "parse"), (": p", "foo", "parse"), (": p", "exact", "parse"),
    (": p", "intro", "parse"), (": p", "simp", "parse"), (": p", "omega", "parse"),
    (": p", "have h : q := by have k : q := by rfl", "parse"),
    (": p → p", "intro by", "parse"), (": p → p", "intro instance", "parse"),
    (": p", "exact ⟨⟩", "parse"),
    (": p", "x" * 2000, "limits"),
    ("(h : q) : p", "exact h", "elaboration"), (": p", "exact h", "elaboration"),
    ("(h : p) : q → p", "intro h", "elaboration"), (": p", "intro h", "elaboration"),
    (": p → p → p", "intro a a", "elaboration"),
    (": p ∨ q", "constructor", "elaboration"), (": p", "ring", "elaboration"),
    ("(h : p → q) : r", "apply h", "elaboration"), (": p ∧ q", "left", "elaboration"),
    ("(P : ℕ → Prop) (h : ∀ x : ℕ, P x → q) : q", "apply h", "elaboration"),
    ("(h : p ∧ q) : r", "obtain ⟨a, a⟩ := h", "elaboration"),
    ("(h : p ∧ q) : r", "rcases h with a | b", "elaboration"),
    ("(h : p) : q", "assumption", "elaboration"),
    ("(h : p) : q", "contradiction", "elaboration"),
    ("(h : p) : q", "rw [h]", "elaboration"),
    ("(x y : ℤ) (h : x = y) : p", "rw [h]", "elaboration"),
    ("(x : ℤ) (h : x = x + 1) : p", "subst h", "elaboration"),
    ("(x : ℤ) (h : x = x + 1) : x = 0", "simp only [h]", "limits"),
    ("(x y : ℤ) (h : x = y) : p", "simp only [h]", "elaboration"),
    # what Lean evaluates on the way, so that its state is another one
    ("(x : ℤ) (h : x = 2) : x + 3 = 6", "simp only [h]", "elaboration"),
    ("(x : ℤ) (h : x = 2) (k : x < 1) : p", "simp only [h] at k", "elaboration"),
    ("(x y : ℤ) (h : x = y) (k : x = y) : p", "simp only [h] at k", "elaboration"),
    ("(x y : ℤ) : x * y = x + y", "ring", "elaboration"),
    (": (2 : ℤ) + 2 = 5", "norm_num", "elaboration"),
    ("(x : ℤ) : x = 2", "norm_num", "elaboration"),
    ("(x : ℤ) (h : x < 2) : x < 1", "linarith", "elaboration"),
    ("(n : ℕ) (h : n = 0) : n = 0", "induction' n with k ih", "elaboration"),
    (": ∃ x : ℤ, x = x", "use p", "elaboration"), (": p", "use 3", "elaboration"),
    (": p", "exact ?_", "elaboration"), (": p", "rfl", "elaboration"),
    (": ¬p", "by_contra h", "elaboration"), ("(n : ℕ) : p", "have h : n - 1 = 0 := rfl",
     "elaboration"),
    ("(f : ℕ → ℕ) (h : ∀ n : ℕ, f (n + 1) = 0) (m : ℕ) : f (m + 2) = 0", "rw [h]",
     "elaboration"),
]  # fmt: skip


@pytest.mark.parametrize("text, tactic, kind", FAULTS, ids=lambda e: str(e)[:40])
def test_faults(text, tactic, kind):
    """Refused, with a message, and the state is as it was."""
    statement = parse_statement(f"theorem t {PROPS} {text}")
    state = tactics.start(statement)
    fault = tactics.run(state, tactic)
    assert type(fault) is tactics.Fault and fault.kind == kind, fault
    assert fault.message and state == tactics.start(statement)


def test_without_goals_no_tactic_applies():
    done = run("(p : Prop) (h : p) : p", "exact h")
    assert tactics.run(done, "exact h").kind == "no_goals"
    with pytest.raises(ValueError, match="1 goals"):
        tactics.proof_of(tactics.start(done.statement))


def test_the_budget_bounds_the_work():
    """The same tactic with less to spend is a timeout, not an error of the tactic."""
    state = run("(x y z : ℤ) : (x + y + z) ^ 9 = (z + y + x) ^ 9")
    assert tactics.run(state, "ring", budget=100).kind == "timeout"
    assert tactics.run(state, "ring").goals == ()


def test_hidden_names_stay_in_use():
    """After subst the variable is gone from sight; its name is not taken anew."""
    state = run("(x y : ℤ) (h : x = y + 1) : ∀ z : ℤ, z = x", "subst h")
    assert "x" not in tactics.show_state(state)
    assert tactics.run(state, "intro x").kind == "elaboration"
    assert tactics.show_state(tactics.run(state, "intro z")).endswith("⊢ z = y + 1")


PROOFS = [
    ("(s : ℕ → ℕ) (h0 : s 0 = 0) (hs : ∀ n : ℕ, s (n + 1) = s n + (2 * n + 1)) "
     ": ∀ n : ℕ, s n = n ^ 2",
     ["intro n", "induction' n with n ih", "norm_num [h0]", "rw [hs, ih]", "ring"]),
    ("(n : ℕ) : n < 2 ^ n",
     ["induction' n with n ih", "norm_num",
      "have h : (2 : ℕ) ^ (n + 1) = 2 * 2 ^ n := by ring", "linarith"]),
    ("(P Q : ℕ → Prop) (h : ∀ x : ℕ, P x → Q x) (k : ∃ x : ℕ, P x) : ∃ y : ℕ, Q y",
     ["obtain ⟨x, hx⟩ := k", "use x", "apply h", "exact hx"]),
    ("(x y : ℤ) (h : x = y + 1) (k : y = 2) : x = 3",
     ["subst k", "rw [h]", "norm_num"]),
    ("(p q : Prop) : ((p → q) → p) → p",
     ["intro h", "by_cases k : p", "exact k", "apply h", "intro a", "contradiction"]),
    ("(p q r : Prop) (h : p ↔ q) (k : q ↔ r) : p ∧ r ↔ q ∧ r",
     ["rw [h, k]"]),
    ("(a b c : ℤ) : a * b + b * c + c * a ≤ a ^ 2 + b ^ 2 + c ^ 2",
     ["nlinarith [sq_nonneg (a - b), sq_nonneg (b - c), sq_nonneg (c - a)]"]),
    ("(P : ℕ → ℤ → Prop) (h : ∃ x : ℕ, ∀ y : ℤ, P x y) : ∀ y : ℤ, ∃ x : ℕ, P x y",
     ["intro y", "obtain ⟨x, hx⟩ := h", "exact ⟨x, hx y⟩"]),
]  # fmt: skip


@pytest.mark.parametrize("text, script", PROOFS, ids=lambda e: str(e)[:40])
def test_whole_proofs_are_checked(text, script):
    """And every proper prefix leaves goals."""
    state = run(text, *script)
    found = kernel.check(
        state.statement.binders, tactics.proof_of(state), state.statement.goal
    )
    assert found.ok, found.detail
    assert all(run(text, *script[:i]).goals for i in range(len(script)))
