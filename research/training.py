"""Training a decoder on examples, from scratch or further, as stages of chapters do."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax

from data.batch import TokenizedExample
from data.batches import batches
from data.tokenizers import Tokenizer
from models.config import DecoderConfig
from models.pretrained import save_pretrained
from train.decoder import train_decoder
from train.loop import LoopConfig
from train.optim import OptimizerConfig
from train.settings import positive


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A decoder trained from scratch; its vocabulary is the world's.

    `lr_scale` multiplies the learning rates of its training, in every phase.
    """

    d_model: int = positive(96)
    n_layers: int = positive(3)
    n_heads: int = positive(4)
    n_kv_heads: int = positive(4)
    d_ff: int = positive(256)
    init_std: float = positive(0.1)
    max_position: int = positive(1024)
    lr_scale: float = positive(1.0)

    def __post_init__(self):
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model: expected an even number per head, got {self.d_model} for "
                f"{self.n_heads} heads"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads: expected a divisor of {self.n_heads} heads, got "
                f"{self.n_kv_heads}"
            )


@dataclasses.dataclass(frozen=True)
class Training:
    """One phase of training; `epochs` over its data, rows packed to `length` tokens."""

    epochs: float = positive()
    batch_size: int = positive()
    length: int = positive()
    optimizer: OptimizerConfig = OptimizerConfig()
    accum: int = positive(1)


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
