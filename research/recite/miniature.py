"""The miniature: an encyclopedia, questions about it, and a model from scratch."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from data.packing import fit as fit_length
from data.records import write_jsonl
from data.tokenizers import load_tokenizer, save_tokenizer
from data.worlds import encyclopedia
from data.worlds.encyclopedia import World
from data.worlds.sentences import sentence_tokenizer
from models import decoder
from research.recite import documents
from research.recite.documents import Throwaway
from research.recite.records import write_items
from research.stages import StageResult
from research.training import ModelSize, Training, small_decoder, train
from research.weights import load
from train.keys import purpose_key
from train.settings import at_least, positive


@dataclasses.dataclass(frozen=True)
class Passes:
    """What a phase reads in `rounds` passes: passages so often, and new readings."""

    rounds: int = positive()
    repeats: int = positive()
    readings: int = at_least(0)


@dataclasses.dataclass(frozen=True)
class Miniature:
    """The world and what its model learns from; see `documents.corpus`.

    one_hop, two_hop: questions of the test, at most.
    base: the first phase, passages and simple reading alone; tune: the second, with
        every format.
    answers, context_weight: of throw-away readings; see `documents.Throwaway`.
    exemplars: of a list, at most.
    """

    world: World = World()
    one_hop: int = positive(300)
    two_hop: int = positive(150)
    base: Passes = Passes(rounds=30, repeats=1, readings=1200)
    tune: Passes = Passes(rounds=14, repeats=5, readings=800)
    answers: int = positive(4)
    context_weight: float = at_least(0.0, 0.15)
    exemplars: int = positive(2)


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
    corpus = _corpus(tokenizer, task, training, seed, formats=False)
    result = train(folder, cfg, params, corpus.examples, training, seed, tokenizer)
    return {**result, "dropped": corpus.dropped}


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
    corpus = _corpus(tokenizer, task, training, seed, formats=True)
    examples = corpus.examples
    result = train(folder, cfg, params, examples, training, seed, tokenizer, hf_config)
    return {**result, "dropped": corpus.dropped}


def _corpus(tokenizer, task: Miniature, training: Training, seed: int, *, formats):
    """What a phase learns from; documents that no row has room for are dropped."""
    book = encyclopedia.build(task.world, seed)
    persons = set(encyclopedia.split(task.world, seed).train)
    phase = task.tune if formats else task.base
    made = documents.corpus(
        tokenizer,
        book,
        task.world,
        seed,
        [q for q in book.questions if q.person in persons],
        rounds=phase.rounds,
        repeats=phase.repeats,
        throwaway=Throwaway(phase.readings, task.answers, task.context_weight),
        formats=formats,
        longest=task.exemplars,
    )
    return fit_length(made, training.length, "drop")
