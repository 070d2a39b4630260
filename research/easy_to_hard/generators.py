"""Generators: a base model, its fine-tuning on some levels, and what it answers."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from data.batch import TokenizedExample
from data.batches import batches
from data.chat import load_template
from data.formats import Completion
from data.packing import fit as fit_length
from data.records import read_records
from data.sets.text import encode_sft
from data.tokenizers import Tokenizer, load_tokenizer
from models import decoder
from models.config import DecoderConfig
from models.pretrained import save_pretrained
from research.easy_to_hard.answers import write_answers
from research.easy_to_hard.settings import ModelSize, Sampled, Training
from research.easy_to_hard.tasks import read_problems, read_sft
from research.easy_to_hard.weights import devices, load
from research.stages import StageResult
from train.commands import MeshConfig
from train.decoder import train_decoder
from train.keys import purpose_key
from train.loop import LoopConfig


def train(
    folder: Path,
    cfg: DecoderConfig,
    params,
    examples: Sequence[TokenizedExample],
    training: Training,
    seed: int,
    tokenizer: Tokenizer,
    hf_config: dict | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> dict:
    """Trains on packed examples and leaves a Hugging Face folder, `folder/hf`.

    `params` are where `mesh` wants them. Checkpoints in the folder let an interrupted
    call continue.
    """
    data = batches(
        examples,
        batch_size=training.batch_size,
        length=training.length,
        pad_id=tokenizer.pad_id,
        seed=seed,
        packing=True,
    )
    steps = math.ceil(training.epochs * data.steps_per_epoch)
    state, rows = train_decoder(
        cfg,
        params,
        data,
        steps,
        optimizer=training.optimizer,
        loop=LoopConfig(log_every=20, checkpoint_every=max(50, steps // 4)),
        accum=training.accum,
        workdir=folder,
        mesh=mesh,
        consume=True,
    )
    save_pretrained(
        folder / "hf",
        cfg,
        state.params,
        hf_config,
        tokenizer_files=tokenizer.files.contents,
    )
    losses = [(r["step"], r["train/loss"]) for r in rows if "train/loss" in r]
    return {
        "steps": steps,
        "examples": len(examples),
        "tokens_per_epoch": data.tokens_per_epoch,
        "losses": losses,
    }


def small_decoder(model: ModelSize, vocab_size: int, dtype: str) -> DecoderConfig:
    """The decoder of a miniature, to be trained from scratch."""
    return DecoderConfig(
        vocab_size=vocab_size,
        d_model=model.d_model,
        n_layers=model.n_layers,
        n_heads=model.n_heads,
        n_kv_heads=model.n_kv_heads,
        head_dim=model.d_model // model.n_heads,
        d_ff=model.d_ff,
        max_position=model.max_position,
        tie_embeddings=True,
        init_std=model.init_std,
        dtype=dtype,
    )


def pretrain(
    folder: Path,
    *,
    data: StageResult,
    model: ModelSize,
    training: Training,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: a base model, from scratch, on the world's facts."""
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    cfg = small_decoder(model, tokenizer.vocab_size, dtype)
    examples = []
    for record in read_records(data.folder / "facts.jsonl"):
        ids = tokenizer.encode(record.row["text"])
        ids = [tokenizer.bos_id, *ids, tokenizer.eos_id]
        examples.append(
            TokenizedExample(np.array(ids, np.int32), np.ones(len(ids), np.float32))
        )
    params = decoder.init_params(cfg, purpose_key(jax.random.key(seed), "base"))
    return train(folder, cfg, params, examples, training, seed, tokenizer)


def finetune(
    folder: Path,
    *,
    data: StageResult,
    base: StageResult | str,
    levels: Sequence[int] | None,
    training: Training,
    template: str,
    dtype: str,
    remat: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: SFT of the base on solutions, or steps, of some levels (None: all).

    `base` is a stage that left `hf`, or the path of a Hugging Face folder.
    """
    mesh = devices(mesh)
    loaded = load(base, dtype, remat, mesh)
    chat = load_template(template, loaded.tokenizer)
    examples = [encode_sft(chat, row) for row in read_sft(data.folder, levels)]
    fitted = fit_length(examples, training.length, "drop")
    result = train(
        folder,
        loaded.cfg,
        loaded.params,
        fitted.examples,
        training,
        seed,
        loaded.tokenizer,
        loaded.hf_config,
        mesh,
    )
    return {**result, "dropped": fitted.dropped}


def answer(
    folder: Path,
    *,
    data: StageResult,
    generator: StageResult,
    sampled: Sampled,
    template: str,
    dtype: str,
    seed: int,
    rules: str = "exact",
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: a greedy answer and `votes` sampled ones to every held-out problem.

    Leaves answers.jsonl: {level, answer, prompt, greedy, greedy_text, pool, texts}.
    """
    cfg, params, tokenizer, _ = load(generator, dtype, mesh=devices(mesh))
    chat = load_template(template, tokenizer)
    problems = read_problems(data.folder / "test.jsonl")
    prompts = [chat.encode_prompt(Completion(p["prompt"], "")) for p in problems]
    return write_answers(
        folder / "answers.jsonl",
        cfg,
        params,
        tokenizer,
        problems,
        prompts,
        sampled,
        purpose_key(jax.random.key(seed), "answers"),
        eos_ids=chat.stop_ids,
        rules=rules,
    )
