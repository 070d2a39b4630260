"""Why a claim does not hold in the miniature, as far as its answers can tell.

A reason is a measurement beside the verdict: it says what the miniature is like where
it differs from the thesis's data, and by how much. It changes no verdict.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from research.recite.claims import Found
from research.recite.scores import Run, Scores
from research.recite.scoring import contains, exact_match


def explained(found: Sequence[Found], scores: Scores) -> list[Found]:
    """The claims, those that are not reproduced with a reason where one is known."""
    made = []
    for claim in found:
        number = claim.claim.partition(".")[0]
        reason = REASONS.get(number)
        if claim.status == "not reproduced" and reason is not None:
            said = f"{claim.evidence} {reason(scores, claim.task)}".strip()
            claim = claim._replace(evidence=said)
        made.append(claim)
    return made


def several_passages(scores: Scores, task: str) -> str:
    """Of claims 4 and 4b: what one context of several passages loses."""
    runs = scores.of("diversified", task)
    together = np.concatenate([run.right(run.voted) for run in runs])
    votes = np.concatenate(
        [run.right([row.more["weighted"] for row in run.rows]) for run in runs]
    )
    alone = np.array(
        [len(set(row.recitations)) <= 1 for run in runs for row in run.rows]
    )
    parts = []
    for name, which in (("a single passage", alone), ("several", ~alone)):
        if which.any():
            one, voted = together[which].mean(), votes[which].mean()
            parts.append(
                f"of {name} ({which.mean():.0%} of the questions) {one:.1%} are right, "
                f"and {voted:.1%} by a vote of the same passages one by one, each as "
                "often as its hint was drawn"
            )
    return "Why, it seems: where the one context is " + "; ".join(parts) + "."


def names_in_questions(scores: Scores, task: str) -> str:
    """Of claim 6c: how often what is read holds an answer."""
    retrieved, recited = (
        np.mean([holds(run) for run in scores.of(method, task)])
        for method in ("retrieved", "recite")
    )
    return (
        "Why, it seems: a question has the name of its page in it, word for word, so "
        f"that BM25's passage holds an answer for {retrieved:.1%}; recitations, by a "
        f"small model that must remember and not only find, hold one in {recited:.1%}."
    )


def holds(run: Run) -> float:
    """The share of paths whose text holds an answer."""
    return float(
        np.mean(
            [
                contains(text, entry.answers, run.normalise)
                for row, entry in zip(run.rows, run.entries, strict=True)
                for text in row.recitations
            ]
        )
    )


def few_answers(scores: Scores, task: str) -> str:
    """Of claim 7: how often paths are right by chance."""
    found = np.mean([by_chance(run) for run in scores.of("recite", task)])
    return (
        "Why, it seems: there are few things that an answer can be, so that many paths "
        "meet the right one by chance. The paths of another question that asks for the "
        f"same kind of thing have it for {found:.1%} of the questions."
    )


def by_chance(run: Run) -> float:
    """The share of questions that a path of the next one of its type answers rightly.

    Types with a single question are left out; 0.0 if there is no other.
    """
    of_type = defaultdict(list)
    for i, entry in enumerate(run.entries):
        of_type[entry.type].append(i)
    met = [
        any(
            exact_match(answer, run.entries[i].answers, run.normalise)
            for answer in run.rows[group[(k + 1) % len(group)]].answers
        )
        for group in of_type.values()
        if len(group) > 1
        for k, i in enumerate(group)
    ]
    return float(np.mean(met)) if met else 0.0


REASONS: dict[str, Callable[[Scores, str], str]] = {
    "4": several_passages,
    "4b": several_passages,
    "6c": names_in_questions,
    "7": few_answers,
}
