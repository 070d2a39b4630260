"""T5 and UL2 checkpoints in the Hugging Face format, in and out."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from models import hf_weights, t5
from models import tensor_files as files
from models.config import DType
from models.errors import CheckpointError
from models.hf_weights import Place, Row
from models.loading import load_params
from models.params import flatten_names
from models.sharding import RULES as DECODER_RULES
from models.sharding import Rule
from models.t5 import ACTIVATIONS, T5Config

MODEL_TYPES = ("t5",)
# A decoder's, and the same for what a decoder does not have.
RULES = (
    *DECODER_RULES,
    Rule(r"layers/cross/[qkv]/kernel", P(None, "fsdp", "tensor", None)),
    Rule(r"layers/cross/out/kernel", P(None, "tensor", None, "fsdp")),
    Rule(r"layers/cross_norm/scale", P()),
    Rule(r"(encoder|decoder)/bias/embedding", P()),
)


def _attention(ours: str, theirs: str) -> tuple[Row, ...]:
    return (
        *(
            Row(f"{ours}/{n}/kernel", f"{theirs}.{n}.weight", "nh d -> d n h")
            for n in "qkv"
        ),
        Row(f"{ours}/out/kernel", f"{theirs}.o.weight", "d nh -> n h d"),
    )


def _stack(name: str, gated: bool, crosses: bool) -> tuple[Row, ...]:
    layer, own, last = f"{name}.block.{{i}}.layer.", f"{name}/layers", 1 + crosses
    dense = f"{layer}{last}.DenseReluDense"
    first = ("gate", "wi_0"), ("up", "wi_1")
    rows = (
        Row(f"{own}/attn_norm/scale", f"{layer}0.layer_norm.weight", "d -> d"),
        *_attention(f"{own}/attn", f"{layer}0.SelfAttention"),
        Row(f"{own}/mlp_norm/scale", f"{layer}{last}.layer_norm.weight", "d -> d"),
        *(
            Row(f"{own}/mlp/{ours}/kernel", f"{dense}.{theirs}.weight", "f d -> d f")
            for ours, theirs in (first if gated else (("up", "wi"),))
        ),
        Row(f"{own}/mlp/down/kernel", f"{dense}.wo.weight", "d f -> f d"),
        Row(
            f"{name}/bias/embedding",
            f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "b n -> b n",
        ),
        Row(f"{name}/final_norm/scale", f"{name}.final_layer_norm.weight", "d -> d"),
    )
    if crosses:
        rows += (
            Row(f"{own}/cross_norm/scale", f"{layer}1.layer_norm.weight", "d -> d"),
            *_attention(f"{own}/cross", f"{layer}1.EncDecAttention"),
        )
    return rows


def weight_places(cfg: T5Config) -> list[Place]:
    """Where every parameter is in a checkpoint."""
    rows = (
        Row("embed/embedding", "shared.weight", "v d -> v d"),
        *_stack("encoder", cfg.gated, False),
        *_stack("decoder", cfg.gated, True),
        Row("lm_head/kernel", "lm_head.weight", "v d -> d v"),
    )
    sizes = {
        "v": cfg.vocab_size,
        "d": cfg.d_model,
        "n": cfg.n_heads,
        "h": cfg.head_dim,
        "f": cfg.d_ff,
        "b": cfg.buckets,
    }
    return hf_weights.places(rows, flatten_names(t5.param_shapes(cfg)), sizes)


def _tensors(cfg: T5Config) -> dict[str, tuple[Place, int | None]]:
    """{their tensor: (its place, the layer or None)}, in the order of the rows."""
    found: dict[str, tuple[Place, int | None]] = {}
    for place in weight_places(cfg):
        if not place.stacked:
            found[place.source] = place, None
            continue
        depth = cfg.n_layers if place.name.startswith("enc") else cfg.n_decoder_layers
        for layer in range(depth):
            found[place.source.format(i=layer)] = place, layer
    return found


class Pretrained(NamedTuple):
    """A model from a folder: config, parameters, and its config.json."""

    cfg: T5Config
    params: Any
    hf_config: dict


def read_config(directory: str | Path, dtype: DType = "float32") -> T5Config:
    """The model that a folder's config.json describes; no weights are looked at."""
    path = Path(directory) / "config.json"
    return from_hf(files.read_json(path), str(path), dtype)


def from_hf(config: Mapping[str, Any], where: str, dtype: DType = "float32"):
    """The architecture of a config.json; CheckpointError names what it cannot be."""
    if config.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(
            f"{where}: model_type is {config.get('model_type')!r}; expected 't5'"
        )
    needed = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    for name in needed:
        if type(config.get(name)) is not int or config[name] < 1:
            raise CheckpointError(
                f"{where}: {name}: expected an integer above 0, got "
                f"{config.get(name)!r}"
            )
    shape = str(config.get("feed_forward_proj", "relu")).split("-")
    gated, activation = shape[0] == "gated", shape[-1]
    activation = "gelu_new" if shape == ["gated", "gelu"] else activation
    if activation not in ACTIVATIONS or len(shape) > 2 or (len(shape) == 2) != gated:
        raise CheckpointError(
            f"{where}: feed_forward_proj: expected relu, gated-gelu or gated-silu, got "
            f"{config.get('feed_forward_proj')!r}"
        )
    return T5Config(
        vocab_size=config["vocab_size"],
        d_model=config["d_model"],
        n_heads=config["num_heads"],
        head_dim=config["d_kv"],
        d_ff=config["d_ff"],
        n_layers=config["num_layers"],
        n_decoder_layers=config.get("num_decoder_layers") or config["num_layers"],
        gated=gated,
        activation=activation,
        tied=config.get(
            "scale_decoder_outputs", config.get("tie_word_embeddings", True)
        ),
        buckets=config.get("relative_attention_num_buckets", 32),
        max_distance=config.get("relative_attention_max_distance", 128),
        norm_eps=config.get("layer_norm_epsilon", 1e-6),
        start_id=config.get("decoder_start_token_id") or 0,
        dtype=dtype,
    )


def to_hf(cfg: T5Config) -> dict:
    """The config.json of a model."""
    name = {"gelu_new": "gelu"}.get(cfg.activation, cfg.activation)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": cfg.vocab_size,
        "d_model": cfg.d_model,
        "d_kv": cfg.head_dim,
        "d_ff": cfg.d_ff,
        "num_layers": cfg.n_layers,
        "num_decoder_layers": cfg.n_decoder_layers,
        "num_heads": cfg.n_heads,
        "relative_attention_num_buckets": cfg.buckets,
        "relative_attention_max_distance": cfg.max_distance,
        "layer_norm_epsilon": cfg.norm_eps,
        "feed_forward_proj": f"gated-{name}" if cfg.gated else name,
        "tie_word_embeddings": cfg.tied,
        "is_encoder_decoder": True,
        "decoder_start_token_id": cfg.start_id,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "dropout_rate": 0.0,
    }


def from_pretrained(
    directory: str | Path,
    dtype: DType = "float32",
    mesh: jax.sharding.Mesh | None = None,
) -> Pretrained:
    """Reads a T5 folder; parameters over a mesh by `RULES`, each device its slice.

    Raises CheckpointError for a folder, config or weights that cannot be used; missing
    and misshapen tensors are named together.
    """
    directory = Path(directory)
    config = files.read_json(directory / "config.json")
    cfg = from_hf(config, str(directory / "config.json"), dtype)
    folder = files.open_folder(directory)
    if not cfg.tied and "lm_head.weight" not in folder.shapes:
        # Some exporters leave a tied matrix out whatever the config says.
        cfg = dataclasses.replace(cfg, tied=True)
    wrong = []
    for name, (place, _) in _tensors(cfg).items():
        found = folder.shapes.get(name)
        if found != place.their_shape:
            told = "is missing" if found is None else f"has shape {found}"
            wrong.append(f"{name} {told}, expected {place.their_shape}")
    if wrong:
        raise CheckpointError(f"{directory}: {files.listed(wrong)}")
    files.check_dtypes(folder, _tensors(cfg))
    shapes = t5.param_shapes(cfg)
    params = load_params(weight_places(cfg), shapes, folder, mesh, RULES)
    return Pretrained(dataclasses.replace(cfg, mesh=mesh), params, config)


def save_pretrained(
    directory: str | Path,
    cfg: T5Config,
    params,
    tokenizer_files: Mapping[str, bytes] | None = None,
    max_shard_bytes: float = 5e9,
) -> None:
    """Writes a folder that `transformers` and `from_pretrained` read.

    It appears whole, by a rename. Raises CheckpointError where something is already.
    """
    directory = Path(directory)
    if directory.exists():
        raise CheckpointError(f"{directory}: exists already; expected a new folder")
    flat, found = flatten_names(params), _tensors(cfg)
    nbytes = {
        name: int(np.prod(place.their_shape)) * flat[place.name].dtype.itemsize
        for name, (place, _) in found.items()
    }

    def tensor(name: str) -> np.ndarray:
        place, layer = found[name]
        value = flat[place.name] if layer is None else flat[place.name][layer]
        return hf_weights.write([place], {place.name: np.asarray(value)})

    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        shards = files.plan_shards(nbytes, max_shard_bytes)
        files.write_shards(partial, shards, nbytes, tensor)
        files.write_json(partial / "config.json", to_hf(cfg))
        for name, content in (tokenizer_files or {}).items():
            (partial / name).write_bytes(content)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
