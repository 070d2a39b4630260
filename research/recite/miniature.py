"""The miniature: an encyclopedia, questions about it, and a model from scratch."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from data.records import write_jsonl
from data.tokenizers import load_tokenizer, save_tokenizer
from data.worlds import encyclopedia
from data.worlds.encyclopedia import World
from data.worlds.sentences import sentence_tokenizer
from models import decoder
from research.recite import documents
from research.recite.records import write_items
from research.stages import StageResult
from research.training import ModelSize, Training, small_decoder, train
from research.weights import load
from train.keys import purpose_key
from train.settings import at_least, positive


@dataclasses.dataclass(frozen=True)
class Miniature:
    """The world and what its model learns from; see `documents.corpus`.

    one_hop, two_hop: questions of the test, at most.
    reading_rounds: passes of the first phase, passages and reading alone, each passage
        `repeats` times; rounds: those of the second, with every format.
    readings: throw-away readings of a pass. exemplars: of a list, at most.
    """

    world: World = World()
    one_hop: int = positive(300)
    two_hop: int = positive(150)
    reading_rounds: int = positive(8)
    rounds: int = positive(10)
    repeats: int = positive(3)
    readings: int = at_least(0, 400)
    exemplars: int = positive(3)


def make_world(folder: Path, *, task: Miniature, seed: int) -> dict:
    """Stage: the pages, the questions of the test, exemplars, and the tokenizer.

    Leaves passages.jsonl ({hint, passage}), one_hop.jsonl and two_hop.jsonl, those of
    development with `development_` in front, exemplars_*.jsonl, and the tokenizer.
    """
    world = task.world
    book = encyclopedia.build(world, seed)
    split = encyclopedia.split(world, seed)
    tokenizer = sentence_tokenizer(documents.vocabulary(world, seed), documents.PHRASES)
    save_tokenizer(tokenizer, folder / "tokenizer")
    rows = [{"hint": p.hint, "passage": p.text} for p in book.passages]
    write_jsonl(folder / "passages.jsonl", rows)
    rng = np.random.default_rng([seed, 6])
    counts = {}
    for name, persons, most in (
        ("", split.test, True),
        ("development_", split.development, True),
        ("exemplars_", split.train, False),
    ):
        for hops, limit in ((1, task.one_hop), (2, task.two_hop)):
            found = [
                q for q in book.questions if q.person in persons and q.hops == hops
            ]
            if name == "exemplars_":  # who cannot be asked: it has no one direction
                found = [q for q in found if q.type != "who"]
            found = [found[i] for i in rng.permutation(len(found))]
            kept = found[:limit] if most else found
            file = f"{name}{'one' if hops == 1 else 'two'}_hop"
            write_items(folder / f"{file}.jsonl", book, kept)
            counts[file] = len(kept)
    return {**counts, "passages": len(rows), "vocab_size": tokenizer.vocab_size}


def pretrain(
    folder: Path,
    *,
    data: StageResult,
    task: Miniature,
    model: ModelSize,
    training: Training,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: a decoder from scratch, on the passages and on reading."""
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    cfg = small_decoder(model, tokenizer.vocab_size, dtype)
    params = decoder.init_params(cfg, purpose_key(jax.random.key(seed), "base"))
    examples = _corpus(tokenizer, task, seed, task.reading_rounds, formats=False)
    return train(folder, cfg, params, examples, training, seed, tokenizer)


def tune(
    folder: Path,
    *,
    base: StageResult,
    task: Miniature,
    training: Training,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: the same model goes on with every format, the passages among them."""
    cfg, params, tokenizer, hf_config = load(base, dtype)
    examples = _corpus(tokenizer, task, seed, task.rounds, formats=True)
    return train(folder, cfg, params, examples, training, seed, tokenizer, hf_config)


def _corpus(tokenizer, task: Miniature, seed: int, rounds: int, *, formats: bool):
    book = encyclopedia.build(task.world, seed)
    persons = set(encyclopedia.split(task.world, seed).train)
    return documents.corpus(
        tokenizer,
        book,
        task.world,
        seed,
        [q for q in book.questions if q.person in persons],
        rounds=rounds,
        repeats=task.repeats,
        readings=task.readings,
        formats=formats,
        longest=task.exemplars,
    )
