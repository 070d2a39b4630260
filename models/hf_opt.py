"""OPT's config.json (Zhang et al. 2022) <-> DecoderConfig.

Of the variants that transformers has, those published but for OPT-350m: that one has
norms behind its blocks and embeddings of another width, which `DecoderConfig` does not.
"""

from collections.abc import Mapping
from typing import Any

from models.config import DecoderConfig
from models.hf_fields import Fields

# What the config leaves unsaid: torch's LayerNorm, and rows of the table of positions
# that were meant for padding.
NORM_EPS = 1e-5
POSITION_OFFSET = 2
# What has to be so: (field, value, also where the field is absent; why).
FIXED = (
    ("do_layer_norm_before", True, "true: norms before each block (OPT-350m's follow)"),
    ("_remove_final_layer_norm", False, "false: a norm before the output"),
    ("layer_norm_elementwise_affine", True, "true: norms with scales and biases"),
)


def read(fields: Fields) -> DecoderConfig:
    """The decoder that OPT's config.json describes, computed in float32.

    Raises CheckpointError for a field that is missing, impossible or not supported.
    """
    for key, value, expected in FIXED:
        if fields.get(key, bool, default=value) is not value:
            raise fields.error(key, expected)
    if fields.get("activation_function", str, default="relu") != "relu":
        raise fields.error("activation_function", "'relu', the only one of OPT's")
    d_model = fields.get("hidden_size", int, low=1)
    n_heads = fields.get("num_attention_heads", int, low=1)
    if d_model % n_heads:
        raise fields.error("hidden_size", f"a multiple of {n_heads} heads")
    width = fields.get("word_embed_proj_dim", int, default=None, low=1, optional=True)
    if width not in (None, d_model):
        raise fields.error(
            "word_embed_proj_dim",
            f"{d_model}, as hidden_size: embeddings of another width (OPT-350m's) are "
            "not supported",
        )
    bias = fields.get("enable_bias", bool, default=True)
    return DecoderConfig(
        vocab_size=fields.get("vocab_size", int, low=1),
        d_model=d_model,
        n_layers=fields.layers(),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_ff=fields.get("ffn_dim", int, low=1),
        head_dim=d_model // n_heads,
        norm_eps=NORM_EPS,
        max_position=fields.get("max_position_embeddings", int, default=2048, low=1),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        tie_embeddings=fields.get("tie_word_embeddings", bool, default=True),
        norm="layer",
        mlp="relu",
        positions="learned",
        position_offset=POSITION_OFFSET,
        init_std=fields.get("init_std", float, default=0.02, low=0),
    )


def write(cfg: DecoderConfig) -> Mapping[str, Any]:
    """The fields of config.json, as far as OPT has them."""
    return {
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.d_model,
        "word_embed_proj_dim": cfg.d_model,
        "ffn_dim": cfg.d_ff,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "activation_function": "relu",
        "max_position_embeddings": cfg.max_position,
        "enable_bias": cfg.qkv_bias,
        "init_std": cfg.init_std,
        "tie_word_embeddings": cfg.tie_embeddings,
        **{key: value for key, value, _ in FIXED},
    }
