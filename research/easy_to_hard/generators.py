"""Generators: a base model, its fine-tuning on some levels, and what it answers."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from data.batch import TokenizedExample
from data.chat import load_template
from data.formats import Completion
from data.packing import fit as fit_length
from data.records import read_records
from data.sets.text import encode_sft
from data.tokenizers import load_tokenizer
from models import decoder
from research.easy_to_hard.answers import write_answers
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tasks import read_problems, read_sft
from research.stages import StageResult
from research.training import ModelSize, Training, small_decoder, train
from research.weights import devices, load
from train.commands import MeshConfig
from train.keys import purpose_key


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
