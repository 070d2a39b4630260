"""Tiny random checkpoints made by transformers, one per family and variant.

All parameters are random, biases and norm scales included, and large enough that logits
differ by whole units: an error in any of them shows.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZES = dict(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
)
THETA = dict(rope_type="default", rope_theta=500.0)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
QWEN_WINDOW = dict(use_sliding_window=True, sliding_window=7, max_window_layers=1)

# name -> (model_type, fields over SIZES)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-linear": (
        "llama",
        dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=3.0)),
    ),
    "llama-dynamic": (
        "llama",
        dict(
            rope_parameters=dict(rope_type="dynamic", rope_theta=500.0, factor=2.0),
            max_position_embeddings=20,
        ),
    ),
    "llama3": ("llama", dict(rope_parameters=LLAMA3)),
    "llama-mha": ("llama", dict(num_key_value_heads=4, head_dim=10)),
    "llama-tied-bias": (
        "llama",
        dict(
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
            num_key_value_heads=1,
        ),
    ),
    "mistral": ("mistral", dict(sliding_window=7)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2-sliding": ("qwen2", QWEN_WINDOW),
    "qwen3": ("qwen3", dict(head_dim=8)),
    "qwen3-bias-sliding": (
        "qwen3",
        dict(head_dim=8, attention_bias=True, **QWEN_WINDOW),
    ),
}
# name -> the Llama variant whose weights it stores in InternLM2's format
INTERNLM2 = {"internlm2": "llama", "internlm2-bias-dynamic": "llama-bias-dynamic"}
VARIANTS["llama-bias-dynamic"] = (
    "llama",
    VARIANTS["llama-dynamic"][1] | dict(attention_bias=True),
)
ALL = [n for n in VARIANTS if n != "llama-bias-dynamic"] + list(INTERNLM2)


class Made(NamedTuple):
    """A checkpoint folder and the torch model it was saved from (eager, float32)."""

    folder: Path
    model: Any


def make(name: str, folder: Path, seed: int = 0) -> Made:
    """Builds the variant, saves it under `folder`."""
    if name in INTERNLM2:
        model_type, fields = VARIANTS[INTERNLM2[name]]
        model = torch_model(model_type, seed, **fields)
        as_internlm2(model, folder)
        return Made(folder, model)
    model_type, fields = VARIANTS[name]
    model = torch_model(model_type, seed, **fields)
    model.save_pretrained(folder)
    return Made(folder, model)


def torch_model(model_type: str, seed: int = 0, **fields):
    """A random transformers model in float32, eval mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    fields = SIZES | dict(rope_parameters=dict(THETA)) | fields
    config = AutoConfig.for_model(model_type, **fields)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.3 * noise)
    return model.eval()


def torch_logits(model, tokens, mask=None, positions=None) -> np.ndarray:
    """Logits [B, T, V] of int arrays [B, T]; the rope of 'dynamic' starts afresh."""
    import torch

    rotary = model.model.rotary_emb
    if rotary.rope_type == "dynamic":
        # It keeps the frequencies of the longest sequence that it has met.
        rotary.max_seq_len_cached = rotary.original_max_seq_len
        rotary.inv_freq = rotary.original_inv_freq

    def as_tensor(x):
        return None if x is None else torch.tensor(np.asarray(x)).long()

    with torch.no_grad():
        out = model(
            input_ids=as_tensor(tokens),
            attention_mask=as_tensor(mask),
            position_ids=as_tensor(positions),
            use_cache=False,
        )
    return out.logits.numpy()


def as_internlm2(model, folder: Path) -> None:
    """Writes a Llama model's weights as an InternLM2 checkpoint.

    Independent of the code under test: written from InternLM2's published modelling
    file, where wqkv's rows are (kv head, [its queries, key, value], head dim).
    """
    import json

    import torch
    from safetensors.torch import save_file

    c = model.config
    K, G, H = (
        c.num_key_value_heads,
        c.num_attention_heads // c.num_key_value_heads,
        c.head_dim,
    )
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("inv_freq")}
    out = {
        "model.tok_embeddings.weight": state["model.embed_tokens.weight"],
        "model.norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    names = {
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for i in range(c.num_hidden_layers):
        layer = f"model.layers.{i}."
        for theirs, internlm2 in names.items():
            for kind in ("weight", "bias"):
                if layer + f"{theirs}.{kind}" in state:
                    value = state[layer + f"{theirs}.{kind}"]
                    out[layer + f"{internlm2}.{kind}"] = value
        for kind in ("weight", "bias"):
            if layer + f"self_attn.q_proj.{kind}" not in state:
                continue
            q, k, v = (state[layer + f"self_attn.{x}_proj.{kind}"] for x in "qkv")
            rows = []
            for head in range(K):
                rows += [q[head * G * H : (head + 1) * G * H]]
                rows += [k[head * H : (head + 1) * H], v[head * H : (head + 1) * H]]
            out[layer + f"attention.wqkv.{kind}"] = torch.cat(rows)
    folder.mkdir(parents=True)
    save_file(
        {k: v.contiguous().clone() for k, v in out.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = dict(
        architectures=["InternLM2ForCausalLM"],
        auto_map={"AutoConfig": "configuration_internlm2.InternLM2Config"},
        model_type="internlm2",
        bias=bool(c.attention_bias),
        hidden_act="silu",
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        max_position_embeddings=c.max_position_embeddings,
        num_attention_heads=c.num_attention_heads,
        num_hidden_layers=c.num_hidden_layers,
        num_key_value_heads=K,
        rms_norm_eps=c.rms_norm_eps,
        rope_theta=c.rope_parameters["rope_theta"],
        rope_scaling={"type": "dynamic", "factor": c.rope_parameters["factor"]}
        if c.rope_parameters["rope_type"] == "dynamic"
        else None,
        tie_word_embeddings=False,
        torch_dtype="float32",
        vocab_size=c.vocab_size,
    )
    (folder / "config.json").write_text(json.dumps(config))
