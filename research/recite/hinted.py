"""A model that recites by hints: questions made for passages, and learning from them.

Few questions have a known passage, but passages there are many. The model itself, shown
passages with their questions, asks one about each; then it learns from such a question
to tell the hint of its passage, and the passage (thesis, section 4.2.4). The thesis
does not say how questions are chosen or how long the model learns; what is done here is
in the settings.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from data.errors import DataError
from data.packing import fit as fit_length
from data.records import read_records, write_jsonl
from research.recite import prompts, scoring
from research.recite.answering import exemplars
from research.recite.documents import list_document, text_document
from research.recite.generation import Checkpoint, Drawn, draw, open_model
from research.recite.prompts import Item
from research.recite.published import cut_bytes
from research.recite.records import read_items
from research.recite.settings import Methods, Task
from research.stages import StageResult
from research.training import Training, train
from research.weights import devices, load
from train.commands import MeshConfig
from train.keys import purpose_key
from train.settings import at_least, fraction, positive

MOST_BYTES = 512  # of a passage and its hint, as in the original code


@dataclasses.dataclass(frozen=True)
class Hinted:
    """Questions made for `passages` of the corpus, `each` for one, and what is learned.

    copied: a question with so many words in a row from its passage is no question.
    plain: rows of mere passages among what is learned, as a share of the others.
    """

    training: Training
    passages: int = positive(1000)
    each: int = positive(2)
    temperature: float = positive(0.7)
    top_k: int = at_least(0, 40)
    question_tokens: int = positive(32)
    copied: int = positive(8)
    plain: float = fraction(0.5)


def make_questions(
    folder: Path,
    *,
    data: StageResult,
    model: StageResult | Checkpoint,
    task: Task,
    settings: Methods,
    hinted: Hinted,
    dtype: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: questions for passages at random, in questions.jsonl.

    Left out, and counted: texts that do not end in a question mark, where all questions
    that were shown do (those of Natural Questions don't); that copy their passage, that
    are there already, or that the test asks.
    """
    pages = _pages(data)
    asking = open_model(model, dtype, devices(mesh))
    if asking.reads:
        raise DataError("hinted: expected a decoder, not a model of the T5 family")
    rng = np.random.default_rng([seed, 8])
    chosen = [pages[i] for i in rng.permutation(len(pages))[: hinted.passages]]
    shown = exemplars(data, task, settings.shots, seed)
    room = min(settings.length, asking.room(hinted.question_tokens))
    ids = []
    for page in chosen:

        def text(some, page=page):
            bare = Item("", "", (page["passage"],))
            return prompts.few_shot(prompts.question_block, some, bare)

        ids.append(prompts.fit(asking.encode, text, shown, room).ids)
    drawn = Drawn(
        hinted.question_tokens,
        hinted.temperature,
        hinted.top_k,
        hinted.each,
        settings.slots,
        (prompts.PART, prompts.BETWEEN),
    )
    key = purpose_key(jax.random.key(seed), "questions")
    texts = draw(asking, ids, drawn, key)
    test = [e.question for e in read_items(data.folder / f"{task.name}.jsonl")]
    marked = all(item.question.endswith("?") for item in shown)
    kept, left_out = choose(chosen, texts, test, hinted.copied, marked)
    write_jsonl(folder / "questions.jsonl", kept)
    return {"kept": len(kept), "left_out": left_out, "passages": len(chosen)}


def _pages(data: StageResult) -> list[dict]:
    """Rows {hint, passage} to ask about and to learn: the beginnings of long ones.

    Pages of Wikipedia have tables that no prompt has room for. Raises DataError for
    passages without hints.
    """
    made = []
    for record in read_records(data.folder / "passages.jsonl"):
        if not record.row["hint"]:
            raise DataError(
                f"{record.where}: hint: expected the passage's name, for a model that "
                "recites by hints; the file of passages has none"
            )
        names = ("hint", "passage")
        made.append({k: cut_bytes(record.row[k], MOST_BYTES) for k in names})
    return made


def choose(
    pages: Sequence[dict],
    texts: Sequence[Sequence[str]],
    test: Sequence[str],
    copied: int,
    marked: bool,
) -> tuple[list[dict], dict[str, int]]:
    """Rows {question, hint, passage} of usable questions, and why others are not.

    marked: whether a question has to end in a question mark.
    """
    known = {scoring.trivia(question) for question in test}
    seen: set[str] = set()
    kept: list[dict] = []
    left_out = dict.fromkeys(("no question", "copied", "twice", "of the test"), 0)
    for page, row in zip(pages, texts, strict=True):
        for text in row:
            question = prompts.cut(text, "\n")
            plain = scoring.trivia(question)
            if not plain or marked and not question.endswith("?"):
                left_out["no question"] += 1
            elif plain in known:
                left_out["of the test"] += 1
            elif plain in seen:
                left_out["twice"] += 1
            elif _copies(plain, scoring.trivia(page["passage"]), copied):
                left_out["copied"] += 1
            else:
                seen.add(plain)
                kept.append({"question": question, **page})
    return kept, left_out


def _copies(question: str, passage: str, length: int) -> bool:
    words, inside = question.split(), f" {passage} "
    starts = range(len(words) - length + 1)
    return any(f" {' '.join(words[i : i + length])} " in inside for i in starts)


def learn_hints(
    folder: Path,
    *,
    data: StageResult,
    questions: StageResult,
    model: StageResult | Checkpoint,
    hinted: Hinted,
    dtype: str,
    remat: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: the model fine-tuned on question -> hint, passage."""
    mesh = devices(mesh)
    start = model.path if isinstance(model, Checkpoint) else model
    cfg, params, tokenizer, hf_config = load(start, dtype, remat, mesh)
    file = questions.folder / "questions.jsonl"
    rows = [r.row for r in read_records(file)] if questions.value["kept"] else []
    examples = [
        list_document(
            tokenizer,
            prompts.recitation_block,
            [Item(row["question"], "", (row["passage"],), row["hint"])],
        )
        for row in rows
    ]
    rng = np.random.default_rng([seed, 9])
    pages = [page["passage"] for page in _pages(data)]
    # Without a single question, too, there is something to learn: the passages.
    plain = rng.choice(len(pages), max(1, round(hinted.plain * len(rows))))
    length = hinted.training.length
    fitted = fit_length(examples, length, "drop")
    texts = [text_document(tokenizer, pages[i]) for i in plain]
    texts = fit_length(texts, length, "truncate")
    result = train(
        folder,
        cfg,
        params,
        [*fitted.examples, *texts.examples],
        hinted.training,
        seed,
        tokenizer,
        hf_config,
        mesh,
    )
    return {**result, "dropped": fitted.dropped, "truncated": texts.truncated}
