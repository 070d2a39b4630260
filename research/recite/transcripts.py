"""What was recited: how well, and ten questions for a person to read."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from research.recite import errors
from research.recite.prompts import BETWEEN, PART
from research.recite.scores import Run, Scores
from research.recite.scoring import contains, exact_match
from research.report import Column, Section, Table, Text

SHOWN = 3  # recitations of a question
MARGIN = 11  # characters, of labels
AGAIN = "(the same exemplars as above)"


def recited(scores: Scores) -> Section:
    """How often a recitation is the evidence itself, and how paths differ."""
    rows = []
    for task in scores.tasks:
        for method, label in (("recite greedily", "greedy"), ("recite", "drawn")):
            if not scores.has(method, task):
                continue
            runs = scores.of(method, task)
            pairs = [pair for run in runs for pair in _pairs(run)]
            found = [(text, entry) for row, entry in pairs for text in row.recitations]
            normalise = runs[0].normalise
            told = np.mean([contains(t, e.answers, normalise) for t, e in found])
            exact = None
            if all(entry.evidence for _, entry in pairs):
                exact = float(np.mean([_is_evidence(t, e) for t, e in found]))
            different = [
                np.mean([len(set(texts)) for texts in each])
                for each in (
                    [row.recitations for row, _ in pairs],
                    [row.answers for row, _ in pairs],
                )
            ]
            rows.append([task, label, exact, float(told), *map(float, different)])
    return Section(
        "What is recited",
        [
            Table(
                [
                    Column("questions"),
                    Column("recitation"),
                    Column("the evidence, word for word", format=".1%"),
                    Column("holds an answer", format=".1%"),
                    Column("different ones", format=".2f"),
                    Column("different answers", format=".2f"),
                ],
                rows,
                "Recitations",
                f"Different ones, and answers, of a question; drawn are "
                f"{scores.settings.paths}. Another passage than the evidence may hold "
                "the answer as well.",
            )
        ],
    )


def _pairs(run: Run):
    return zip(run.rows, run.entries, strict=True)


def _is_evidence(text: str, entry) -> bool:
    return text.split() == PART.join(entry.evidence).split()


def transcripts(scores: Scores, count: int = 10) -> Section:
    """Questions with recitations, answers, vote and gold, at even distances."""
    tasks = list(scores.tasks)
    each = -(-count // len(tasks))
    chosen: dict[tuple[str, int], None] = {}
    for n in range(count):
        task = tasks[n % len(tasks)]
        rows = len(scores.of("recite", task)[0].rows)
        chosen[task, n // len(tasks) * rows // each] = None
    pages, seen = [], set()
    for task, place in chosen:
        run, direct = (scores.of(m, task)[0] for m in ("recite", "direct"))
        prompt = run.rows[place].more["prompt"]
        solved, _, last = prompt.rpartition(BETWEEN)
        if (task, solved) in seen:
            prompt = f"{AGAIN}{BETWEEN}{last}"
        elif solved:
            seen.add((task, solved))
        pages.append(_transcript(task, run, direct, place, prompt))
    told = (
        f"{len(pages)} questions of the first seed, at even distances in the test and "
        f"not by how they ended. Of each: the prompt, the first {SHOWN} recitations "
        "with the answers that they led to, and the vote of all."
    )
    return Section("Transcripts", [Text(told), *pages])


def _transcript(task: str, run: Run, direct: Run, place: int, prompt: str) -> Text:
    row, entry = run.rows[place], run.entries[place]

    def judged(answer: str) -> str:
        right = exact_match(answer, entry.answers, run.normalise)
        return f"{answer or '(none)'} [{'right' if right else 'wrong'}]"

    paths = errors.Paths(row.recitations, row.answers, row.voted, entry.answers)
    lines = [
        _labelled("Question", entry.question),
        _labelled("Prompt", prompt),
        "",
    ]
    for text, answer in [*zip(row.recitations, row.answers, strict=True)][:SHOWN]:
        lines += [
            _labelled("Recited", text or "(nothing)"),
            _labelled("  answer", judged(answer)),
            "",
        ]
    lines += [
        _labelled("Vote", f"{judged(row.voted)}, of {_tally(row.answers)}"),
        _labelled("Direct", judged(direct.rows[place].voted)),
        _labelled("Gold", " | ".join(entry.answers)),
        _labelled("Evidence", PART.join(entry.evidence) or "(not given)"),
        _labelled("Class", errors.question_class(paths, run.normalise)),
    ]
    return Text("\n".join(lines), f"{task}: {entry.id}", verbatim=True)


def _labelled(label: str, text: str) -> str:
    return f"{label:<{MARGIN}}" + text.replace("\n", "\n" + " " * MARGIN)


def _tally(answers: Sequence[str], most: int = 4) -> str:
    """How many paths gave which answer, the most frequent ones."""
    counted = Counter(answer or "(none)" for answer in answers).most_common()
    told = [f"{n} {answer}" for answer, n in counted[:most]]
    if len(counted) > most:
        told.append(f"{sum(n for _, n in counted[most:])} others")
    return f"{len(answers)} paths: {', '.join(told)}"
