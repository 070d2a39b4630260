"""Stages that answer the questions of a task, each by one method; all leave one shape.

answers.jsonl: a line a question, {id, recitations, answers, voted, more}; K recitations
and answers, "more" whatever else the method has to show.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data.errors import DataError
from data.records import read_records, write_jsonl
from research.recite import methods, prompts
from research.recite.generation import Checkpoint, open_model
from research.recite.methods import Answered, Asked
from research.recite.records import Entry, read_items
from research.recite.retrieval import retrieve
from research.recite.settings import Methods, Task
from research.stages import StageResult
from research.weights import devices
from train.commands import MeshConfig
from train.keys import purpose_key


class Row(NamedTuple):
    """What became of one question."""

    id: str
    recitations: list[str]
    answers: list[str]
    voted: str
    more: dict[str, Any]


def _gold(entries: Sequence[Entry]) -> list[str]:
    return [prompts.PART.join(entry.evidence) for entry in entries]


def _retrieved(data: StageResult, entries: Sequence[Entry]) -> list[str]:
    pages = [r.row["passage"] for r in read_records(data.folder / "passages.jsonl")]
    return [pages[i] for i in retrieve(pages, [entry.question for entry in entries])]


METHODS: dict[str, Callable[[Asked], Answered]] = {
    "direct": methods.direct,
    "direct votes": lambda a: methods.direct(a, a.settings.paths),
    "recite greedily": lambda a: methods.recite(a, 0),
    "recite": lambda a: methods.recite(a, a.settings.paths),
    "first recitation": lambda a: methods.recite(a, 0, first_only=True),
    "chain of thought": lambda a: methods.chain_of_thought(a, a.settings.paths),
}


def answer(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | Checkpoint,
    task: Task,
    settings: Methods,
    method: str,
    dtype: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: one of METHODS, on all questions of a task."""
    asked, entries = prepare(data, model, task, settings, dtype, seed, mesh)
    return write_rows(folder, entries, METHODS[method](asked))


def answer_in_context(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | Checkpoint,
    task: Task,
    settings: Methods,
    context: str,
    dtype: str,
    seed: int,
    recited: StageResult | None = None,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: greedy answers in a context from elsewhere.

    context: "gold", the evidence; "retrieved", the best passage by BM25; "shuffled",
    the greedy recitation of the next question, which must help nobody.
    """
    asked, entries = prepare(data, model, task, settings, dtype, seed, mesh)
    if context == "gold":
        contexts = _gold(entries)
    elif context == "retrieved":
        contexts = _retrieved(data, entries)
    else:
        own = [row.recitations[0] for row in read_rows(recited)]
        contexts = [*own[1:], own[0]]
    found = methods.answer_from(asked, [[text] for text in contexts])
    return write_rows(folder, entries, found)


def robust(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | Checkpoint,
    task: Task,
    settings: Methods,
    dtype: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: direct answers and recitations under several draws of exemplars.

    Leaves answers.jsonl with "more" = {"direct": [answer per draw], "recite": [...]}.
    """
    asked, entries = prepare(data, model, task, settings, dtype, seed, mesh)
    entries = entries[: settings.robust_questions]
    found: dict[str, list[list[str]]] = {"direct": [], "recite": []}
    for number in range(settings.exemplar_seeds):
        each = asked._replace(
            exemplars=exemplars(data, task, settings.shots, number + 1000),
            questions=[entry.question for entry in entries],
            key=purpose_key(asked.key, "exemplars", number),
        )
        found["direct"].append(methods.direct(each).voted)
        found["recite"].append(methods.recite(each, settings.robust_paths).voted)
    write_jsonl(
        folder / "answers.jsonl",
        [
            Row(
                entry.id,
                [],
                [],
                "",
                {name: [row[i] for row in draws] for name, draws in found.items()},
            )._asdict()
            for i, entry in enumerate(entries)
        ],
    )
    return {"questions": len(entries), "draws": settings.exemplar_seeds}


def diversify(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | Checkpoint,
    reciter: StageResult | Checkpoint,
    task: Task,
    settings: Methods,
    dtype: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: hints and passages of `reciter`, answers of `model` from all together.

    "more" has the hints and how often they were drawn, the answer by each passage, and
    the votes of these.
    """
    reader, entries = prepare(data, model, task, settings, dtype, seed, mesh)
    asked, _ = prepare(data, reciter, task, settings, dtype, seed, mesh)
    found, lost = methods.diversified(asked._replace(exemplars=[]), reader)
    rows = []
    for entry, *of_one in zip(entries, *found, strict=True):
        one = methods.Diversified(*of_one)
        more = {name: getattr(one, name) for name in ("hints", "counts")}
        more |= {name: getattr(one, name) for name in ("voted", "weighted")}
        rows.append(Row(entry.id, one.passages, one.by_passage, one.answers, more))
    write_jsonl(folder / "answers.jsonl", [row._asdict() for row in rows])
    return {"questions": len(entries), **lost}


diversify.version = 2  # counts what did not fit


def answer_hinted(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | Checkpoint,
    reciter: StageResult | Checkpoint,
    task: Task,
    settings: Methods,
    dtype: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: sampled recitations of `reciter`, hints and all, each answered; a vote.

    The other half of the comparison with `diversify`: the same fine-tuned model, whose
    paths are drawn as those of any recitation. Here as there the passage is read, and
    not its hint.
    """
    reader, entries = prepare(data, model, task, settings, dtype, seed, mesh)
    asked, _ = prepare(data, reciter, task, settings, dtype, seed, mesh)
    texts = methods.recitations(asked._replace(exemplars=[]), settings.paths)
    passages = [[prompts.without_hint(text) for text in row] for row in texts]
    found = methods.answer_from(reader, passages)
    return write_rows(folder, entries, found._replace(recitations=texts))


answer_hinted.version = 2  # reads passages without their hints


def prepare(
    data, model, task: Task, settings: Methods, dtype, seed, mesh=None
) -> tuple[Asked, list[Entry]]:
    """What a method is given, and the questions as they are on disk."""
    entries = read_items(data.folder / f"{task.name}.jsonl")
    asked = Asked(
        open_model(model, dtype, devices(mesh)),
        task,
        settings,
        exemplars(data, task, settings.shots, seed),
        [entry.question for entry in entries],
        purpose_key(jax.random.key(seed), task.name),
    )
    return asked, entries


def exemplars(data: StageResult, task: Task, count: int, seed: int):
    """`count` solved items at random; those of a smaller count begin a larger one.

    Raises DataError where there are fewer.
    """
    rng = np.random.default_rng([seed, 7])
    path = data.folder / f"exemplars_{task.name}.jsonl"
    found = read_items(path)
    if len(found) < count:
        raise DataError(f"{path}: {len(found)} exemplars; expected {count} at least")
    chosen = rng.permutation(len(found))[:count]
    return [found[i].item(task.hints) for i in chosen]


def write_rows(folder: Path, entries: Sequence[Entry], found: Answered) -> dict:
    """Leaves answers.jsonl; returns how many questions, and what prompts left out."""
    rows = zip(entries, *found[:4], strict=True)
    write_jsonl(
        folder / "answers.jsonl",
        [Row(e.id, r, a, v, {"prompt": p})._asdict() for e, r, a, v, p in rows],
    )
    return {"questions": len(entries), **found.left_out}


def read_rows(stage: StageResult) -> list[Row]:
    """What such a stage left, in the order of the questions."""
    return [Row(**r.row) for r in read_records(stage.folder / "answers.jsonl")]
