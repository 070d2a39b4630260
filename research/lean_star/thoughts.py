"""What a thought says, held against the goal before it and the tactic behind it.

For the miniature's thoughts, whose words are those of `wordings`: every other word in
them is a name or a number.
"""

import functools
import re
from typing import NamedTuple

from research.lean_star.oracle import wordings
from research.lean_star.reading import first_goal
from research.lean_star.rules import RULES, unknown
from research.lean_star.wordings import TEMPLATES, words

_NAMES = re.compile(r"[^\W\d_]\w*|\d+")
# Words of the templates; 0 and 1 are in them, too.
WORDS = frozenset(word.strip() for word in words()) | {"0", "1"}


class Reading(NamedTuple):
    """What holds of a thought.

    grounded: every name and number in it is in the first goal. kind: it is worded as
    the oracle words a step by this tactic, whatever it names. true: it is what the
    oracle says of this tactic on this goal, word for word. points: whether the tactic
    uses a hypothesis that the thought names; None where one of them names none.
    """

    grounded: bool
    kind: bool
    true: bool
    points: bool | None


def read(thought: str, state: str, tactic: str) -> Reading:
    """A thought on the first goal of a state, followed by a tactic.

    ValueError for a state without a goal.
    """
    goal = first_goal(state)
    here = names(state.partition("\n\n")[0])
    said, used = (names(text) & goal.hypotheses.keys() for text in (thought, tactic))
    first = head(tactic)
    case, _ = RULES.get(first, unknown)(goal, tactic[len(first) :].strip())
    return Reading(
        grounded=names(thought) - WORDS <= here,
        kind=any(pattern.fullmatch(thought) for pattern in _patterns(case)),
        true=thought in wordings(goal, tactic),
        points=bool(said & used) if said and used else None,
    )


def names(text: str) -> set[str]:
    """The words, names and numbers of a text."""
    return set(_NAMES.findall(text))


def head(tactic: str) -> str:
    """The name that a tactic begins with; "" for none."""
    return re.match(r"[\w']*", tactic)[0]


@functools.cache
def _patterns(case: str) -> tuple[re.Pattern, ...]:
    """The templates of a case, with anything in their slots."""
    return tuple(
        re.compile(".+".join(map(re.escape, re.split(r"{\w+}", template))), re.DOTALL)
        for template in TEMPLATES[case]
    )
