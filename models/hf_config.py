"""A checkpoint's own config.json <-> DecoderConfig, for the Llama family and OPT.

`FAMILIES` says what a `model_type` leaves unsaid: the defaults of its optional fields,
which projections have biases, and how its sliding window is written. Everything else is
read from the file; what cannot be represented is an error that names the field. OPT's
fields are others (`models.hf_opt`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from models import hf_opt
from models.config import DecoderConfig, RopeConfig
from models.errors import CheckpointError
from models.hf_fields import Fields

ROPE_KINDS = ("default", "linear", "dynamic", "llama3")
# How a decoder is computed is not the checkpoint's business.
COMPUTATION = ("dtype", "remat", "layer_loop", "attention", "mesh")


class Family(NamedTuple):
    """What a model_type implies: `architecture` for transformers, field defaults."""

    architecture: str
    max_position: int
    window: Callable[[Fields, int], tuple[int | None, tuple[bool, ...] | None]]
    kv_heads_optional: bool = False
    head_dim: int | None = None  # None: d_model / n_heads
    qkv_bias: str | bool = False  # a field's name, or what always holds
    out_bias: str | bool = False
    mlp_bias: str | bool = False
    bias_default: bool = False
    qk_norm: bool = False
    square: bool = False  # heads times head_dim must be d_model


def _no_window(fields: Fields, n_layers: int):
    return None, None


def _mistral_window(fields: Fields, n_layers: int):
    return fields.get("sliding_window", int, default=4096, low=1, optional=True), None


def _qwen_window(fields: Fields, n_layers: int):
    """Layers from max_window_layers on slide, unless layer_types says which do."""
    kinds = ("full_attention", "sliding_attention")
    width = None
    if fields.get("use_sliding_window", bool, default=False):
        width = fields.get("sliding_window", int, default=4096, low=1, optional=True)
    first = fields.get("max_window_layers", int, default=28, low=0)
    layer_types = fields.get("layer_types", list, default=None, optional=True)
    if layer_types is None:
        slides = tuple(width is not None and i >= first for i in range(n_layers))
    elif len(layer_types) != n_layers or any(t not in kinds for t in layer_types):
        raise fields.error(
            "layer_types", f"{n_layers} entries out of {kinds[0]!r}, {kinds[1]!r}"
        )
    else:
        slides = tuple(t == kinds[1] for t in layer_types)
        if any(slides) and width is None:
            raise fields.error(
                "layer_types",
                "no 'sliding_attention' while use_sliding_window is false",
            )
    if not any(slides):
        return None, None
    return width, None if all(slides) else slides


OPT = Family("OPTForCausalLM", 2048, _no_window)
FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM", 2048, _no_window, kv_heads_optional=True,
        qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias",
    ),
    "mistral": Family("MistralForCausalLM", 131072, _mistral_window),
    "qwen2": Family("Qwen2ForCausalLM", 32768, _qwen_window, qkv_bias=True),
    "qwen3": Family(
        "Qwen3ForCausalLM", 32768, _qwen_window, head_dim=128,
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=True,
    ),
    "internlm2": Family(
        "InternLM2ForCausalLM", 2048, _no_window, kv_heads_optional=True,
        qkv_bias="bias", out_bias="bias", bias_default=True, square=True,
    ),
    "opt": OPT,
}  # fmt: skip


def from_hf(config: Mapping[str, Any], where: str = "config.json") -> DecoderConfig:
    """The decoder that a config.json describes, computed in float32.

    Reads both spellings of rope: `rope_parameters` (transformers 5) and `rope_theta`
    with `rope_scaling`. `where` names the file in errors.

    Raises:
      CheckpointError: an unknown model_type, or a field that is missing, of the wrong
        type, impossible, or not supported.
    """
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{where}: expected a JSON object of model settings")
    fields = Fields(config, where)
    family = family_of(config, where)
    if family is OPT:
        return hf_opt.read(fields)
    act = fields.get("hidden_act", str, default="silu")
    if act not in ("silu", "swish"):
        raise fields.error("hidden_act", "'silu', the only activation supported")

    d_model = fields.get("hidden_size", int, low=1)
    n_layers = fields.layers()
    n_heads = fields.get("num_attention_heads", int, low=1)
    if family.kv_heads_optional and "num_key_value_heads" not in config:
        n_kv_heads = n_heads
    else:
        n_kv_heads = fields.get("num_key_value_heads", int, low=1, optional=True)
        n_kv_heads = n_kv_heads or n_heads
    if n_heads % n_kv_heads:
        raise fields.error("num_key_value_heads", f"a divisor of {n_heads} heads")
    head_dim = fields.get("head_dim", int, default=None, low=2, optional=True)
    if head_dim is None:
        head_dim = family.head_dim or d_model // n_heads
        if family.head_dim is None and d_model % n_heads:
            raise fields.error("hidden_size", f"a multiple of {n_heads} heads")
    if family.square and head_dim * n_heads != d_model:
        raise fields.error("head_dim", f"hidden_size / {n_heads} for this model_type")
    if head_dim % 2:
        raise CheckpointError(f"{where}: head_dim is {head_dim}; rope needs it even")
    max_position = fields.get(
        "max_position_embeddings", int, default=family.max_position, low=1
    )
    window, sliding_layers = family.window(fields, n_layers)

    def bias(rule: str | bool) -> bool:
        if isinstance(rule, bool):
            return rule
        return fields.get(rule, bool, default=family.bias_default)

    return DecoderConfig(
        vocab_size=fields.get("vocab_size", int, low=1),
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=fields.get("intermediate_size", int, low=1),
        head_dim=head_dim,
        rope=_read_rope(fields, head_dim, max_position),
        norm_eps=fields.get("rms_norm_eps", float, default=1e-6, low=0),
        max_position=max_position,
        sliding_window=window,
        sliding_layers=sliding_layers,
        qkv_bias=bias(family.qkv_bias),
        out_bias=bias(family.out_bias),
        mlp_bias=bias(family.mlp_bias),
        qk_norm=family.qk_norm,
        tie_embeddings=fields.get("tie_word_embeddings", bool, default=False),
        init_std=fields.get("initializer_range", float, default=0.02, low=0),
    )


def family_of(config: Mapping[str, Any], where: str = "config.json") -> Family:
    """The family that `model_type` names; CheckpointError when there is none."""
    fields = Fields(config, where)
    model_type = fields.get("model_type", str)
    if model_type not in FAMILIES:
        raise fields.error("model_type", f"one of {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def to_hf(
    cfg: DecoderConfig, model_type: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A config.json from which `from_hf` reads the same architecture.

    Args:
      extra: the original config.json, if there was one: its other fields (token ids,
        dtype, architectures) are kept, and all of it where the architecture agrees.

    Raises:
      CheckpointError: the model_type cannot express the config; names the fields.
    """
    extra = dict(extra or {})
    if extra.get("model_type") == model_type and not _lost(cfg, extra):
        return extra
    config = _write(cfg, model_type, extra)
    lost = _lost(cfg, config)
    if lost:
        raise CheckpointError(
            f"model_type {model_type!r} cannot express this decoder: "
            + "; ".join(lost)
            + f"; it fits: {', '.join(_fitting(cfg)) or 'no supported model_type'}"
        )
    return config


SCORED = "ForSequenceClassification"


def for_head(config: Mapping[str, Any], scored: bool) -> dict[str, Any]:
    """The config.json of the same decoder with one score a token, or with logits.

    scored: as transformers' ...ForSequenceClassification with one label.
    """
    config = dict(config)
    names = config.get("architectures") or ()
    if scored:
        family = family_of(config)
        config["architectures"] = [family.architecture.replace("ForCausalLM", SCORED)]
        config["id2label"], config["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
        config.pop("num_labels", None)
    elif any(str(name).endswith(SCORED) for name in names):
        config["architectures"] = [family_of(config).architecture]
        for key in ("id2label", "label2id", "num_labels"):
            config.pop(key, None)
    return config


def default_model_type(cfg: DecoderConfig) -> str:
    """The first model_type that can express a decoder that has no config.json yet."""
    fitting = _fitting(cfg)
    if not fitting:
        raise CheckpointError(
            f"no supported model_type ({', '.join(FAMILIES)}) can express {cfg}"
        )
    return fitting[0]


def _fitting(cfg: DecoderConfig) -> list[str]:
    """The model_types that can express a decoder."""

    def fits(name: str) -> bool:
        try:
            return not _lost(cfg, _write(cfg, name, {}))
        except CheckpointError:  # sizes that this family refuses
            return False

    return [name for name in FAMILIES if fits(name)]


def _write(cfg: DecoderConfig, model_type: str, extra) -> dict[str, Any]:
    """The fields of config.json, as far as the family has them."""
    cfg = _effective(cfg)
    family = family_of({"model_type": model_type})
    named = {"architectures": [family.architecture], "model_type": model_type}
    if family is OPT:
        return extra | named | hf_opt.write(cfg)
    slides = cfg.sliding_layers or (cfg.sliding_window is not None,) * cfg.n_layers
    config = extra | named
    config |= {
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.d_model,
        "intermediate_size": cfg.d_ff,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": cfg.max_position,
        "rms_norm_eps": cfg.norm_eps,
        "initializer_range": cfg.init_std,
        "tie_word_embeddings": cfg.tie_embeddings,
    }
    for key, value in (
        (family.qkv_bias, cfg.qkv_bias),
        (family.out_bias, cfg.out_bias),
        (family.mlp_bias, cfg.mlp_bias),
    ):
        if isinstance(key, str):
            config[key] = value
    if family.window is _mistral_window:
        config["sliding_window"] = cfg.sliding_window
    elif family.window is _qwen_window:
        config["use_sliding_window"] = cfg.sliding_window is not None
        config["sliding_window"] = cfg.sliding_window
        first = slides.index(True) if True in slides else cfg.n_layers
        config["max_window_layers"] = first
        config["layer_types"] = [
            "sliding_attention" if s else "full_attention" for s in slides
        ]
    _write_rope(cfg.rope, config)
    return config


def _lost(cfg: DecoderConfig, config: Mapping[str, Any]) -> list[str]:
    """What reading a config.json back would change in a decoder; [] if nothing."""
    ours, theirs = _effective(cfg), _effective(from_hf(config))
    return [
        f"{name} is {getattr(ours, name)!r} and would be {getattr(theirs, name)!r}"
        for name in (f.name for f in dataclasses.fields(cfg))
        if name not in COMPUTATION and getattr(ours, name) != getattr(theirs, name)
    ]


def _effective(cfg: DecoderConfig) -> DecoderConfig:
    """The config without the values that its other fields leave unread."""
    read = {
        "default": (),
        "linear": ("factor",),
        "dynamic": ("factor", "original_max_position"),
        "llama3": tuple(f.name for f in dataclasses.fields(RopeConfig)[2:]),
    }[cfg.rope.kind]
    rope = RopeConfig(**{k: getattr(cfg.rope, k) for k in ("theta", "kind", *read)})
    window, layers = cfg.sliding_window, cfg.sliding_layers
    if layers is not None and not any(layers):
        window = None
    if window is None or all(layers or ()):
        layers = None
    return dataclasses.replace(
        cfg, rope=rope, sliding_window=window, sliding_layers=layers
    )


def _read_rope(fields: Fields, head_dim: int, max_position: int) -> RopeConfig:
    new = fields.get("rope_parameters", dict, default=None, optional=True)
    old = fields.get("rope_scaling", dict, default=None, optional=True)
    key = "rope_parameters" if new else "rope_scaling"
    rope = Fields(new or old or {}, fields.where, key + ".")
    theta = fields.get("rope_theta", float, default=10000.0, low=1, optional=True)
    theta = rope.get("rope_theta", float, default=theta or 10000.0, low=1)
    kind = rope.get("rope_type", str, default=rope.get("type", str, default="default"))
    if kind not in ROPE_KINDS:
        raise rope.error("rope_type", f"one of {', '.join(ROPE_KINDS)}", kind)
    for reader in (fields, rope):
        if reader.get("partial_rotary_factor", float, default=1.0, optional=True) != 1:
            raise reader.error("partial_rotary_factor", "1: all of each head rotates")
    if kind == "default":
        return RopeConfig(theta=theta)
    factor = rope.get("factor", float, low=1)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=factor)
    if kind == "dynamic":
        if head_dim == 2:
            raise rope.error("rope_type", "another type for a head_dim of 2", kind)
        return RopeConfig(
            theta=theta,
            kind="dynamic",
            factor=factor,
            original_max_position=max_position,
        )
    key = "original_max_position_embeddings"
    original = fields.get(key, int, default=max_position, low=1, optional=True)
    low = rope.get("low_freq_factor", float)
    high = rope.get("high_freq_factor", float)
    if not 0 < low < high:
        raise rope.error("high_freq_factor", f"more than low_freq_factor ({low})")
    return RopeConfig(
        theta=theta,
        kind="llama3",
        factor=factor,
        original_max_position=rope.get(key, int, default=original, low=1),
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _write_rope(rope: RopeConfig, config: dict[str, Any]) -> None:
    """In the spelling that the config has already; else in the old one.

    transformers reads the old spelling in versions 4 and 5.
    """
    scaling: dict[str, Any] = {"rope_type": rope.kind}
    if rope.kind != "default":
        scaling["factor"] = rope.factor
    if rope.kind == "llama3":
        scaling["low_freq_factor"] = rope.low_freq_factor
        scaling["high_freq_factor"] = rope.high_freq_factor
        scaling["original_max_position_embeddings"] = rope.original_max_position
    if config.get("rope_parameters"):
        config.pop("rope_theta", None)
        config.pop("rope_scaling", None)
        config["rope_parameters"] = scaling | {"rope_theta": rope.theta}
        return
    config["rope_theta"] = rope.theta
    if rope.kind != "default":
        # InternLM2's own code, and transformers before 4.43, read "type".
        scaling["type"] = rope.kind
    config["rope_scaling"] = None if rope.kind == "default" else scaling
