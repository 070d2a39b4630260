"""Stages that train a model on steps of proofs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from data.batch import TokenizedExample
from data.batches import batches
from data.packing import fit as fit_length
from data.tokenizers import load_tokenizer
from models import decoder
from models.pretrained import save_pretrained
from research.easy_to_hard.generators import small_decoder, train
from research.easy_to_hard.settings import ModelSize, Training
from research.easy_to_hard.weights import load
from research.lean_star import oracle
from research.lean_star.formats import Format
from research.lean_star.star import read_examples
from research.lean_star.world import Pair, read_pairs
from research.lean_star.writer import Codec
from research.stages import StageResult
from train.keys import purpose_key

ERA = "base"


def pretrain(
    folder: Path,
    *,
    data: StageResult,
    model: ModelSize,
    training: Training,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: a decoder from scratch, on (state, tactic) of all known proofs."""
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    cfg = small_decoder(model, tokenizer.vocab_size, dtype)
    codec = Codec(tokenizer, Format(ERA, "sft"))
    params = decoder.init_params(cfg, purpose_key(jax.random.key(seed), "base"))
    examples = [
        codec.example(pair.state, codec.form.target(pair.tactic))
        for pair in read_pairs(data)
    ]
    return _train(folder, cfg, params, examples, training, seed, tokenizer)


def finetune(
    folder: Path,
    *,
    data: StageResult,
    start: StageResult,
    kind: str,
    training: Training,
    dtype: str,
    seed: int,
    annotated: bool = True,
    thoughts: str = "own",
    harvests: Sequence[StageResult] = (),
    known: bool = True,
    updates_of: StageResult | None = None,
) -> dict:
    """Stage: goes on from a model, on known steps and on what models proved.

    kind: "sft" without thoughts, "cot" with. known: learn the known steps; annotated:
    only those that have thoughts, as all with kind "cot" have. thoughts: "own", or a
    control, "shuffled" or "filler". updates_of: a stage whose number of updates is
    taken over, in place of the epochs: with rows of one length, its tokens. Without
    anything to learn the model stays as it is.
    """
    cfg, params, tokenizer, hf_config = load(start, dtype)
    codec = Codec(tokenizer, Format(ERA, kind))
    examples = []
    if known:
        pairs = read_pairs(data)
        if annotated or kind == "cot":
            pairs = [pair for pair in pairs if pair.thought is not None]
        texts = (
            _thoughts(pairs, thoughts, seed) if kind == "cot" else [None] * len(pairs)
        )
        examples += [
            codec.example(pair.state, codec.form.target(pair.tactic, text))
            for pair, text in zip(pairs, texts, strict=True)
        ]
    for stage in harvests:
        for one in read_examples(stage.folder / "examples.jsonl"):
            examples.append(codec.example(one.state, codec.form.own(one.output)))
    return _train(
        folder,
        cfg,
        params,
        examples,
        training,
        seed,
        tokenizer,
        hf_config,
        updates_of and updates_of.value["steps"],
    )


def _thoughts(pairs: Sequence[Pair], kind: str, seed: int) -> list[str]:
    own = [pair.thought for pair in pairs]
    if kind == "shuffled":
        return oracle.shuffled(own, seed)
    return [oracle.filler(text) for text in own] if kind == "filler" else own


def _train(
    folder,
    cfg,
    params,
    examples: Sequence[TokenizedExample],
    training: Training,
    seed: int,
    tokenizer,
    hf_config=None,
    updates: int | None = None,
) -> dict:
    fitted = fit_length(examples, training.length, "drop")
    if not fitted.examples:  # a round that proved nothing leaves its model as it is
        files = tokenizer.files.contents
        save_pretrained(folder / "hf", cfg, params, hf_config, tokenizer_files=files)
        return {"steps": 0, "examples": 0, "places": 0, "dropped": fitted.dropped}
    if updates is not None:
        rows = batches(
            fitted.examples,
            batch_size=training.batch_size,
            length=training.length,
            pad_id=tokenizer.pad_id,
            seed=seed,
            packing=True,
        )
        # Half an update less, so that rounding up gives their number.
        epochs = (updates - 0.5) / rows.steps_per_epoch
        training = dataclasses.replace(training, epochs=epochs)
    result = train(
        folder, cfg, params, fitted.examples, training, seed, tokenizer, hf_config
    )
    learned = sum(float(example.weights.sum()) for example in fitted.examples)
    rounds = result["steps"] * training.batch_size * training.length
    return {
        **result,
        "dropped": fitted.dropped,
        "epochs": training.epochs,
        "places": rounds,
        "learned_per_epoch": learned,
    }
