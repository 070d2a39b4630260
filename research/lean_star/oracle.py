"""Thoughts for the miniature: a rule-based oracle that is told the tactic.

A thought is one or two sentences. It starts from the goal, then names the facts that
make a step sensible: the goal's shape, which hypothesis concludes it, what remains. It
never contains the tactic, nor the name of any. Which of several wordings is taken
depends on a hash of state and tactic alone.

Controls: `shuffled` gives every step the thought of another; `filler` is text without
meaning of the same length.
"""

import functools
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from research.lean_star.reading import Goal, first_goal
from research.lean_star.retrospect import refused
from research.lean_star.rules import RULES, unknown
from research.lean_star.vocabulary import tokenizer
from research.lean_star.wordings import TEMPLATES

MAX_TOKENS = 40  # of a thought
FILLER = "so "  # one token


class RuleOracle:
    """Writes a thought for each (state, tactic); None where it has none to give."""

    def __call__(self, steps: Sequence[tuple[str, str]]) -> list[str | None]:
        return [thought(state, tactic) for state, tactic in steps]


def thought(state: str, tactic: str) -> str | None:
    """The thought that leads from the state to the tactic.

    None where the state has no goal, or where no wording passes the filter.
    """
    try:
        goal = first_goal(state)
    except ValueError:
        return None
    options = [w for w in wordings(goal, tactic) if keeps(w, tactic)]
    if not options:
        return None
    return options[zlib.crc32(f"{state}\0{tactic}".encode()) % len(options)]


def wordings(goal: Goal, tactic: str) -> tuple[str, ...]:
    """All the thoughts for a tactic on a goal, before the filter."""
    head = re.match(r"[A-Za-z_]*'?", tactic)[0]
    case, slots = RULES.get(head, unknown)(goal, tactic[len(head) :].strip())
    return tuple(template.format(**slots) for template in TEMPLATES[case])


def keeps(text: str, tactic: str) -> bool:
    """Whether a thought may be learned from: short enough, and without the tactic."""
    return (
        "\n" not in tactic
        and refused(text, tactic) is None
        and tokens(text) <= MAX_TOKENS
    )


@functools.lru_cache(maxsize=1 << 14)
def tokens(text: str) -> int:
    """Tokens of a text in the miniature's tokenizer."""
    return len(tokenizer().encode(text))


# --- controls -----------------------------------------------------------------------


def shuffled(thoughts: Sequence[str], seed: int) -> list[str]:
    """The same thoughts, each in the place of another one of them.

    Raises ValueError for fewer than two.
    """
    if len(thoughts) < 2:
        raise ValueError(f"thoughts: expected at least 2, got {len(thoughts)}")
    order = np.random.default_rng([seed, 7]).permutation(len(thoughts))
    moved: list[str] = [""] * len(thoughts)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        moved[here] = thoughts[there]
    return moved


def filler(text: str, count: Callable[[str], int] = tokens) -> str:
    """Text without meaning, of as many tokens as `text` by `count`."""
    return FILLER * count(text)
