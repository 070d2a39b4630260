"""The words of the theorem world's states and tactics, for a miniature's tokenizer.

Symbols come with the spaces that Lean prints around them, names and digits without, so
that a variable is the same token wherever it stands. The text of a proof state then has
about as many tokens as symbols.
"""

import functools
from collections.abc import Sequence

from data.tokenizers import JsonTokenizer, word_tokenizer

LETTERS = tuple("pqrstuvabcdmxyznkfgPQ")
HYPOTHESES = tuple(f"h{i}" for i in range(1, 16))
SYMBOLS = (
    " → ", " ∧ ", " ∨ ", " ↔ ", " = ", " ≠ ", " < ", " ≤ ", " > ", " ≥ ",
    " + ", " - ", " * ", " ^ ", "-", "¬", "(", ")", "∀ (", "∃ ", "∀ ", ", ", " : ", " ",
    "ℕ", "ℤ", "Prop", "True", "False", " : Prop\n", " : ℤ\n", " : ℕ\n", "ih",
    " : ℕ → ℕ\n", " : ℕ → ℤ\n", " : ℤ → ℤ\n", " : ℕ → Prop\n", " : ℤ → Prop\n",
    " : ℕ), ", " : ℤ), ", " + 1)", " (", "\n", "\n\n", "\n⊢ ", "⊢ ", "no goals", "_1",
)  # fmt: skip
# Tags of goals nest: "case left.inl.h".
CASES = ("left", "right", "mp", "mpr", "inl", "inr", "zero", "succ", "intro", "h", "a")
TAGS = ("case ", *CASES, "refine_", "pos", "neg", ".")
TACTICS = (
    "intro ", "intros ", "exact ", "exact ⟨", "apply ", "refine ⟨", "?_", "constructor",
    "left", "right", "obtain ⟨", "⟨", "⟩", "⟩ := ", "rcases ", "cases' ", " with ",
    " | ", "exfalso", "contradiction", "assumption", "have ", " := by ", "rfl", "rw [",
    " [", "← ", "]", " at ", "subst ", "simp only [", "ring", "norm_num", "linarith",
    "nlinarith [", "sq_nonneg ", "induction' ", "use ", "exists ",
)  # fmt: skip
# The text formats of `facts`: the same in both eras but for the fence.
FORMATS = (
    "Tactic state:\n---\n", "\n---\nNext tactic:\n---\n", "\n---\nReasoning:\n---\n",
    "```lean4\n", "\n```\n---", "\n---",
)  # fmt: skip


def vocabulary(more: Sequence[str] = ()) -> list[str]:
    """Every word of states, tactics and prompts in a fixed order, and `more`."""
    digits = [str(i) for i in range(10)]
    cases = [f"case {case}\n" for case in CASES]
    words = (*LETTERS, *HYPOTHESES, *digits, *SYMBOLS, *cases, *TAGS, *TACTICS)
    return list(dict.fromkeys((*words, *FORMATS, *more)))


@functools.cache
def tokenizer() -> JsonTokenizer:
    """The tokenizer of states and tactics alone, to measure them."""
    return word_tokenizer(vocabulary())


def length(text: str) -> int:
    """Tokens of a state or a tactic."""
    return len(tokenizer().encode(text))
