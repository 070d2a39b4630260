"""Thoughts written in retrospect: the oracle is told the tactic and writes forward.

An oracle that is not told proves little; one that is told tends to argue backwards.
So the prompt asks for three parts: a plan, which may name the tactic and draws the
hindsight to itself; the reasoning, which alone becomes the thought; the tactic again.
Structure: one worked example, three jobs, four principles, a fixed output format.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from data.errors import DataError
from data.sets.lean import Place

SYSTEM = "You are an AI assistant that helps people find information."
HEADINGS = ("### PLANNING OF REASONING", "### REASONING", "### TACTIC")
VERSION = 1  # of the prompt: answers to another one are not taken for this one's

_ROLE = (
    "Take the role of a professional mathematician who proves theorems in Lean 4, "
    "accurately and step by step. You are shown the current tactic state, and you are "
    "told the first tactic that the proof takes from there."
)
_JOBS = """You have three jobs:
1. Write the planning of the reasoning.
2. Write the reasoning that can result in the choice of this tactic.
3. Write the tactic."""
_PRINCIPLES = """Keep to four principles:
1. The reasoning is comprehensive yet concise: at best two sentences, if these suffice.
2. It begins from the objective of the theorem and goes forward from there. It is \
never constructed backwards from the tactic.
3. It does not mention the tactic, nor the names of the lemmas that the tactic uses.
4. The conclusion, which is the tactic, comes after all reasons."""
_FORMAT = f"""Write nothing but these three parts, each under its heading:

{HEADINGS[0]}
One sentence that repeats the tactic and says that the reasoning towards it follows, \
but not in the hindsight format.

{HEADINGS[1]}
The reasoning.

{HEADINGS[2]}
The tactic, in a lean4 code block."""
_STATE = """α : Type u_1
s t : Set α
hst : s ⊆ t
x : α
hx : x ∈ s
⊢ x ∈ t"""
_TACTIC = "exact hst hx"
_PLAN = (
    "The tactic that is given is `{tactic}`. I write the reasoning that can result in "
    "it, but not in the hindsight format."
)
_REASONING = (
    "The objective is to show that x is an element of t. As x is known to belong to s, "
    "and all of s is contained in t, its membership in t follows at once."
)


class Answer(NamedTuple):
    """The three parts of what an oracle wrote."""

    planning: str
    reasoning: str
    tactic: str


class Oracle(Protocol):
    """Writes a thought for each (state, tactic), None where it has none to give."""

    def __call__(self, steps: Sequence[tuple[str, str]]) -> list[str | None]: ...


def prompt(state: str, tactic: str) -> str:
    """The user's message about one step."""
    example = "\n\n".join(
        [
            "Here is an example.",
            _given(_STATE, _TACTIC),
            "Assistant Output:",
            f"{HEADINGS[0]}\n{_PLAN.format(tactic=_TACTIC)}",
            f"{HEADINGS[1]}\n{_REASONING}",
            f"{HEADINGS[2]}\n{_fenced(_TACTIC)}",
        ]
    )
    parts = [_ROLE, example, _JOBS, _PRINCIPLES, _FORMAT]
    return "\n\n".join([*parts, "Now it is your turn.", _given(state, tactic)])


def messages(state: str, tactic: str) -> list[dict]:
    """The conversation to complete: the system's text and `prompt`."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": prompt(state, tactic)},
    ]


def parse(output: str) -> Answer:
    """The parts under the three headings, in order, each once. Raises DataError.

    A heading stands alone on its line; emphasis and a colon around it do not matter.
    """
    names = "|".join(re.escape(h.removeprefix("### ")) for h in HEADINGS)
    found = list(
        re.finditer(rf"^[#* \t]*({names})[:* \t]*$", output, re.M | re.IGNORECASE)
    )
    titles = [f"### {match[1].upper()}" for match in found]
    if tuple(titles) != HEADINGS:
        raise DataError(f"expected the headings {HEADINGS}, got {titles}")
    ends = [match.start() for match in found[1:]] + [len(output)]
    parts = [output[m.end() : end].strip() for m, end in zip(found, ends, strict=True)]
    tactic = re.fullmatch(r"```\w*\n(.*?)\n?```.*", parts[2], re.S)
    return Answer(parts[0], parts[1], tactic[1].strip() if tactic else parts[2])


def refused(thought: str | None, tactic: str) -> str | None:
    """Why a thought is no good for a tactic, in a word; None for one that is kept.

    It must not contain the tactic: as a whole, however it is spaced, not as a part of
    a longer word ("simplify" does not contain `simp`).
    """
    if thought is None or not thought.strip():
        return "no_thought"
    words = r"\s+".join(map(re.escape, tactic.split()))
    if re.search(rf"(?<!\w){words}(?!\w)", thought):
        return "mentions_tactic"
    return None


def annotate(oracle: Oracle, places: Iterable[Place], counts: Counter) -> list[dict]:
    """Rows {state, thought, tactic, full_name, file_path} of thoughts to learn from.

    Tactics of several lines are dropped before the oracle is asked. `counts` receives
    what was asked, kept and dropped, by reason.
    """
    asked = []
    for place in places:
        if "\n" in place.step.tactic:
            counts["newline"] += 1
        else:
            asked.append(place)
    counts["asked"] += len(asked)
    thoughts = oracle([(p.step.before, p.step.tactic) for p in asked])
    rows = []
    for place, thought in zip(asked, thoughts, strict=True):
        reason = refused(thought, place.step.tactic)
        counts[reason or "kept"] += 1
        if reason is None:
            rows.append(
                {
                    "state": place.step.before,
                    "thought": thought.strip(),
                    "tactic": place.step.tactic,
                    "full_name": place.name,
                    "file_path": place.file,
                }
            )
    return rows


def _given(state: str, tactic: str) -> str:
    return f"Given Theorem:\n{_fenced(state)}\n\nGiven Tactic:\n{_fenced(tactic)}"


def _fenced(text: str) -> str:
    return f"```lean4\n{text}\n```"
