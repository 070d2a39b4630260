"""Shapes of published models, for planning where no checkpoint is at hand.

Sizes are those of each model's config.json on the Hugging Face hub.
"""

import dataclasses
from pathlib import Path

from models import hf_config, t5_files
from models import tensor_files as files
from models.config import DecoderConfig, RopeConfig
from models.paths import as_path
from models.t5 import T5Config
from train.errors import ConfigError
from train.remote import check_remote
from train.settings import nearest


def _llama(
    d_model: int,
    n_layers: int,
    d_ff: int,
    n_kv_heads: int | None = None,
    vocab_size: int = 32000,
    max_position: int = 4096,
    theta: float = 1e4,
) -> DecoderConfig:
    """Heads of 128, as all of these have."""
    heads = d_model // 128
    return DecoderConfig(
        vocab_size=vocab_size, d_model=d_model, n_layers=n_layers, n_heads=heads,
        n_kv_heads=n_kv_heads or heads, d_ff=d_ff, head_dim=128,
        rope=RopeConfig(theta=theta), norm_eps=1e-5, max_position=max_position,
    )  # fmt: skip


def _opt(d_model: int, n_layers: int, heads: int) -> DecoderConfig:
    return hf_config.from_hf(
        {
            "model_type": "opt",
            "vocab_size": 50272,
            "hidden_size": d_model,
            "ffn_dim": 4 * d_model,
            "num_hidden_layers": n_layers,
            "num_attention_heads": heads,
        }
    )


LLAMA_7B = _llama(4096, 32, 11008)
CODE_7B = _llama(4096, 32, 11008, None, 32016, 16384, 1e6)
CODE_34B = _llama(8192, 48, 22016, 8, 32000, 16384, 1e6)

T5 = t5_files.MODEL_TYPES
UL2 = T5Config(  # 20B
    vocab_size=32128, d_model=4096, n_heads=16, head_dim=256, d_ff=16384, n_layers=32,
    n_decoder_layers=32, activation="silu",
)  # fmt: skip

MODELS: dict[str, DecoderConfig | T5Config] = {
    "llama-7b": dataclasses.replace(LLAMA_7B, max_position=2048),
    "llama-65b": _llama(8192, 80, 22016, max_position=2048),
    "llama2-7b": LLAMA_7B,
    "llama2-13b": _llama(5120, 40, 13824),
    "llama2-70b": _llama(8192, 80, 28672, 8),
    "llama3-8b": _llama(4096, 32, 14336, 8, 128256, 8192, 5e5),
    "llama3-70b": _llama(8192, 80, 28672, 8, 128256, 8192, 5e5),
    "llama3.1-8b": dataclasses.replace(
        _llama(4096, 32, 14336, 8, 128256, 131072),
        rope=RopeConfig(5e5, "llama3", 8.0, 8192),
    ),
    "codellama-7b": CODE_7B,
    "codellama-34b": CODE_34B,
    "llemma-7b": dataclasses.replace(CODE_7B, max_position=4096),
    "llemma-34b": dataclasses.replace(CODE_34B, max_position=4096),
    "vicuna-7b": LLAMA_7B,
    "vicuna-13b": _llama(5120, 40, 13824),
    "internlm2-7b": _llama(4096, 32, 14336, 8, 92544, 8192, 1e6),
    "opt-1.3b": _opt(2048, 24, 32),
    "opt-13b": _opt(5120, 40, 40),
    "opt-30b": _opt(7168, 48, 56),
    "ul2": UL2,
}
# Names on the Hugging Face hub, without the owner's, that are not those above.
PUBLISHED = {
    "ul2-20b": "ul2",
    "llama-2-7b": "llama2-7b",
    "llama-2-13b": "llama2-13b",
    "llama-2-70b": "llama2-70b",
    "meta-llama-3-8b": "llama3-8b",
    "meta-llama-3-70b": "llama3-70b",
    "llama-3.1-8b": "llama3.1-8b",
    "meta-llama-3.1-8b": "llama3.1-8b",
    "vicuna-7b-v1.5": "vicuna-7b",
    "vicuna-13b-v1.5": "vicuna-13b",
    "internlm2-math-base-7b": "internlm2-7b",
    "internlm2-math-plus-7b": "internlm2-7b",
}


def by_checkpoint(checkpoint: str | None) -> str | None:
    """The name in MODELS of a hub name or a path that ends so; None where unknown.

    `EleutherAI/llemma_7b`, `checkpoints/CodeLlama-34b-hf`
    """
    last = Path(checkpoint or "").name.lower().replace("_", "-").removesuffix("-hf")
    name = PUBLISHED.get(last, last)
    return name if name in MODELS else None


def model_shape(
    flag: str, name: str | None, checkpoint: str | None, key: str, dtype: str
) -> DecoderConfig | T5Config:
    """The architecture to plan with: named by a flag, else that of a checkpoint.

    Args:
      flag, name: a flag and its value: a name in MODELS, a config.json or its folder.
      key, checkpoint: a key of the config and its value: a folder, or the name of a
        published one. Files may be on gs://.

    Raises ConfigError where neither is given or known, CheckpointError for a folder or
    file that is not a model's.
    """
    if name is None and checkpoint is not None and as_path(checkpoint).is_dir():
        return _described(as_path(checkpoint) / "config.json", dtype)
    name = by_checkpoint(checkpoint) if name is None else name
    if name is None:
        known = f"one of {', '.join(MODELS)}, or a config.json"
        if checkpoint is None:
            raise ConfigError(f"{flag}: missing, as is {key}; expected {known}")
        raise ConfigError(
            f"{key}: no folder {checkpoint!r} here; to plan without the checkpoint "
            f"give {flag}={known}"
        )
    if name in MODELS:
        return dataclasses.replace(MODELS[name], dtype=dtype)
    check_remote(flag, name, there=True)
    path = as_path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"{flag}: unknown model {name!r}{nearest(name, MODELS)}")
    return _described(path, dtype)


def _described(path, dtype: str) -> DecoderConfig | T5Config:
    """The architecture that a config.json describes."""
    config = files.read_json(path)
    if isinstance(config, dict) and config.get("model_type") in T5:
        return t5_files.from_hf(config, str(path), dtype)
    return dataclasses.replace(hf_config.from_hf(config, str(path)), dtype=dtype)
