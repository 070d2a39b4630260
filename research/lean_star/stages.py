"""Stages that train a model on steps of proofs."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from data.batch import TokenizedExample
from data.batches import batches
from data.packing import fit as fit_length
from data.tokenizers import load_tokenizer
from models import decoder
from models.pretrained import save_pretrained
from research.lean_star import oracle
from research.lean_star.formats import Format
from research.lean_star.star import merged, read_examples
from research.lean_star.world import Pair, read_pairs
from research.lean_star.writer import Codec
from research.stages import StageResult
from research.training import ModelSize, Training, small_decoder, train
from research.weights import devices, load
from train.commands import MeshConfig
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
    start: StageResult | str,
    kind: str,
    training: Training,
    dtype: str,
    seed: int,
    annotated: bool = True,
    thoughts: str = "own",
    harvests: Sequence[StageResult] = (),
    known: bool = True,
    updates_of: StageResult | None = None,
    tokens_of: StageResult | None = None,
    era: str = ERA,
    remat: str = "none",
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: goes on from a model, on known steps and on what models proved.

    kind: "sft" without thoughts, "cot" with. known: learn the known steps; annotated:
    only those that have thoughts, as all with kind "cot" have. thoughts: "own", or a
    control, "shuffled" or "filler". updates_of, tokens_of: a stage whose number of
    updates, or of tokens, is taken over in place of the epochs. Without anything to
    learn, or no updates to make, the model stays as it is.
    harvests: rounds of expert iteration, first to last, see `star.merged`. Their proofs
    that are left out are counted, and tactics that the format could not give back.
    Raises ValueError for updates_of beside tokens_of.
    """
    if updates_of is not None and tokens_of is not None:
        raise ValueError("updates_of, tokens_of: expected one of the two at most")
    mesh = devices(mesh)
    cfg, params, tokenizer, hf_config = load(start, dtype, remat, mesh)
    codec = Codec(tokenizer, Format(era, kind))
    counts = Counter(unwritable=0, proofs=0, repeated_proofs=0, proofs_beyond=0)
    examples = []
    if known:
        pairs = read_pairs(data)
        if annotated or kind == "cot":
            pairs = [pair for pair in pairs if pair.thought is not None]
        texts = [None] * len(pairs)
        if kind == "cot":
            texts = _thoughts(pairs, thoughts, seed, codec)
        examples += _examples(codec, pairs, texts, counts)
    if harvests:
        examples += _proved(codec, harvests, seed, counts)
    updates = None if updates_of is None else updates_of.value["steps"]
    tokens = None if tokens_of is None else tokens_of.value["tokens"]
    more = (tokenizer, hf_config, updates, tokens, mesh)
    made = _train(folder, cfg, params, examples, training, seed, *more)
    return {**made, **counts}


def _thoughts(pairs: Sequence[Pair], kind: str, seed: int, codec: Codec) -> list[str]:
    own = [pair.thought for pair in pairs]
    if kind == "shuffled":
        return oracle.shuffled(own, seed)
    if kind == "filler":
        encode = codec.tokenizer.encode
        return [oracle.filler(text, lambda t: len(encode(t))) for text in own]
    return own


def _examples(
    codec: Codec, pairs: Sequence[Pair], texts: Sequence[str | None], counts: Counter
) -> Iterator[TokenizedExample]:
    for pair, text in zip(pairs, texts, strict=True):
        try:
            target = codec.form.target(pair.tactic, text)
        except ValueError:  # with a fence inside
            counts["unwritable"] += 1
        else:
            yield codec.example(pair.state, target)


def _proved(
    codec: Codec, harvests: Sequence[StageResult], seed: int, counts: Counter
) -> Iterator[TokenizedExample]:
    """Of a theorem no more than a round may keep, whatever the number of rounds."""
    rounds = [read_examples(stage.folder / "examples.jsonl") for stage in harvests]
    found = merged(rounds, most=harvests[-1].value["most"], seed=seed)
    counts["proofs"] = found.notes["proofs"]
    counts["repeated_proofs"] = found.notes["repeated"]
    counts["proofs_beyond"] = found.notes["beyond"]
    for one in found.examples:
        yield codec.example(one.state, codec.form.own(one.output))


def cut(example: TokenizedExample, length: int) -> TokenizedExample:
    """The last `length` tokens, where the target fits: the prompt loses its beginning.

    As the original does, and as sampling does. Else the example as it is.
    """
    if len(example.tokens) <= length or example.weights[: 1 - length].any():
        return example
    return TokenizedExample(*(field[-length:] for field in example))


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
    tokens: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> dict:
    shortened = [cut(example, training.length) for example in examples]
    fitted = fit_length(shortened, training.length, "drop")
    dropped = {
        "cut": sum(
            len(a.tokens) > len(b.tokens)
            for a, b in zip(examples, shortened, strict=True)
        ),
        "dropped": fitted.dropped,
    }
    # A round that proved nothing leaves its model as it is, and so does what is trained
    # for as long as it.
    if not fitted.examples or updates == 0 or tokens == 0:
        files = tokenizer.files.contents
        save_pretrained(folder / "hf", cfg, params, hf_config, tokenizer_files=files)
        return {"steps": 0, "examples": 0, "places": 0, "tokens": 0, **dropped}
    rows = batches(
        fitted.examples,
        batch_size=training.batch_size,
        length=training.length,
        pad_id=tokenizer.pad_id,
        seed=seed,
        packing=True,
    )
    if tokens is not None:
        a_row = rows.tokens_per_epoch / len(rows.rows)
        updates = max(1, round(tokens / a_row / training.batch_size))
    if updates is not None:
        # Half an update less, so that rounding up gives their number.
        epochs = (updates - 0.5) / rows.steps_per_epoch
        training = dataclasses.replace(training, epochs=epochs)
    result = train(
        folder,
        cfg,
        params,
        fitted.examples,
        training,
        seed,
        tokenizer,
        hf_config,
        mesh,
    )
    seen = result["steps"] * training.batch_size / len(rows.rows)  # passes
    learned = sum(float(example.weights.sum()) for example in fitted.examples)
    return {
        **result,
        **dropped,
        "epochs": seen,
        "places": result["steps"] * training.batch_size * training.length,
        "tokens": seen * rows.tokens_per_epoch,
        "learned_per_epoch": learned,
    }
