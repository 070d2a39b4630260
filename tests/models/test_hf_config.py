"""config.json -> DecoderConfig -> config.json is the identity on architectures."""

import dataclasses
import json

import pytest
from helpers import checkpoints as ckpt
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import RopeConfig
from models.errors import CheckpointError
from models.hf_config import FAMILIES, default_model_type, from_hf, to_hf

MINIMAL = dict(
    model_type="llama",
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)

# Excerpts of published config.json files, in the spellings of their time.
LLAMA_31_8B = dict(
    model_type="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
    max_position_embeddings=131072, rms_norm_eps=1e-05, rope_theta=500000.0,
    attention_bias=False, mlp_bias=False, tie_word_embeddings=False, hidden_act="silu",
    rope_scaling=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=8192, rope_type="llama3"),
    eos_token_id=[128001, 128008, 128009], torch_dtype="bfloat16",
)  # fmt: skip
VICUNA_16K = dict(
    model_type="llama", vocab_size=32000, hidden_size=4096, intermediate_size=11008,
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    max_position_embeddings=4096, rms_norm_eps=1e-05,
    rope_scaling=dict(factor=4.0, type="linear"),
)  # fmt: skip
LLAMA_1_7B = dict(
    model_type="llama", vocab_size=32000, hidden_size=4096, intermediate_size=11008,
    num_hidden_layers=32, num_attention_heads=32, hidden_act="silu",
    initializer_range=0.02, max_position_embeddings=2048, rms_norm_eps=1e-06,
)  # fmt: skip
MISTRAL_V01 = dict(
    model_type="mistral", vocab_size=32000, hidden_size=4096, intermediate_size=14336,
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
    max_position_embeddings=32768, rms_norm_eps=1e-05, rope_theta=10000.0,
    sliding_window=4096,
)  # fmt: skip
QWEN2_05B = dict(
    model_type="qwen2", vocab_size=151936, hidden_size=896, intermediate_size=4864,
    num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
    max_position_embeddings=131072, max_window_layers=24, rms_norm_eps=1e-06,
    rope_theta=1000000.0, sliding_window=131072, use_sliding_window=False,
    tie_word_embeddings=True,
)  # fmt: skip
QWEN3_06B = dict(
    model_type="qwen3", vocab_size=151936, hidden_size=1024, intermediate_size=3072,
    num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
    max_position_embeddings=40960, max_window_layers=28, rms_norm_eps=1e-06,
    rope_theta=1000000, rope_scaling=None, sliding_window=None,
    use_sliding_window=False, attention_bias=False, tie_word_embeddings=True,
)  # fmt: skip
INTERNLM2_7B = dict(
    model_type="internlm2", vocab_size=92544, hidden_size=4096, intermediate_size=14336,
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, bias=False,
    max_position_embeddings=32768, rms_norm_eps=1e-05, rope_theta=1000000,
    rope_scaling=dict(type="dynamic", factor=2.0), tie_word_embeddings=False,
)  # fmt: skip


def test_llama3():
    cfg = from_hf(LLAMA_31_8B)
    assert (cfg.head_dim, cfg.n_kv_heads, cfg.d_ff) == (128, 8, 14336)
    assert cfg.rope == RopeConfig(500000.0, "llama3", 8.0, 8192, 1.0, 4.0)


def test_linear_and_old_defaults():
    assert from_hf(VICUNA_16K).rope == RopeConfig(kind="linear", factor=4.0)
    cfg = from_hf(LLAMA_1_7B)
    assert cfg.n_kv_heads == 32 and cfg.rope == RopeConfig(theta=10000.0)
    assert not (cfg.qkv_bias or cfg.out_bias or cfg.mlp_bias or cfg.tie_embeddings)


def test_mistral_window():
    assert from_hf(MISTRAL_V01).sliding_window == 4096
    assert from_hf(MISTRAL_V01 | dict(sliding_window=None)).sliding_window is None


def test_qwen():
    cfg = from_hf(QWEN2_05B)
    assert cfg.qkv_bias and not cfg.out_bias and cfg.tie_embeddings
    assert cfg.sliding_window is None
    cfg = from_hf(QWEN2_05B | dict(use_sliding_window=True, max_window_layers=20))
    assert cfg.sliding_layers == (False,) * 20 + (True,) * 4
    cfg = from_hf(QWEN3_06B)
    assert cfg.qk_norm and cfg.head_dim == 128 and not cfg.qkv_bias


def test_internlm2():
    cfg = from_hf(INTERNLM2_7B)
    assert cfg.rope == RopeConfig(1e6, "dynamic", 2.0, original_max_position=32768)


PUBLISHED = [LLAMA_31_8B, VICUNA_16K, LLAMA_1_7B, MISTRAL_V01, QWEN2_05B, QWEN3_06B,
             INTERNLM2_7B]  # fmt: skip


@pytest.mark.parametrize("config", PUBLISHED)
def test_unchanged_architecture_keeps_the_file(config):
    assert to_hf(from_hf(config), config["model_type"], config) == config


@pytest.mark.parametrize("config", PUBLISHED)
def test_changed_architecture_keeps_other_fields(config):
    cfg = dataclasses.replace(from_hf(config), vocab_size=7, max_position=64)
    if cfg.rope.kind == "dynamic":
        rope = dataclasses.replace(cfg.rope, original_max_position=64)
        cfg = dataclasses.replace(cfg, rope=rope)
    out = to_hf(cfg, config["model_type"], config | dict(eos_token_id=5))
    assert out["eos_token_id"] == 5 and from_hf(out) == cfg
    assert from_hf(json.loads(json.dumps(out))) == cfg


@pytest.mark.parametrize("name", ckpt.VARIANTS)
def test_reads_what_transformers_writes(name):
    """Both spellings of rope read alike, and transformers reads ours as its own."""
    from transformers import AutoConfig

    model_type, fields = ckpt.VARIANTS[name]
    fields = ckpt.SIZES | dict(rope_parameters=dict(ckpt.THETA)) | fields
    theirs = json.loads(AutoConfig.for_model(model_type, **fields).to_json_string())
    cfg = from_hf(theirs)
    old = dict(theirs)
    rope = old.pop("rope_parameters")
    old["rope_theta"] = rope.pop("rope_theta")
    assert from_hf(old | dict(rope_scaling=rope)) == cfg

    again = AutoConfig.for_model(**to_hf(cfg, model_type))
    assert from_hf(json.loads(again.to_json_string())) == cfg


ropes = st.one_of(
    st.builds(RopeConfig, theta=st.floats(10, 1e6)),
    st.builds(
        RopeConfig, theta=st.floats(10, 1e6), kind=st.just("linear"),
        factor=st.floats(1, 64),
    ),
    st.builds(
        RopeConfig, kind=st.just("llama3"), factor=st.floats(1, 64),
        original_max_position=st.integers(1, 9999),
        low_freq_factor=st.floats(0.5, 2), high_freq_factor=st.floats(3, 9),
    ),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    fields=st.fixed_dictionaries(
        dict(
            rope=ropes,
            norm_eps=st.floats(0, 1e-2),
            tie_embeddings=st.booleans(),
            sliding_window=st.none() | st.integers(1, 99),
            sliding_layers=st.none() | st.tuples(*[st.booleans()] * 3),
            qkv_bias=st.booleans(),
            out_bias=st.booleans(),
            mlp_bias=st.booleans(),
            qk_norm=st.booleans(),
        )
    ),
)
def test_expressible_or_refused(family, fields):
    """to_hf either writes what is read back the same, or says which types would fit."""
    cfg = dataclasses.replace(from_hf(MINIMAL), **fields)
    try:
        best = default_model_type(cfg)
    except CheckpointError:
        best = None
    try:
        config = to_hf(cfg, family)
    except CheckpointError as e:
        assert "cannot express" in str(e)
        assert best != family
        return
    again = from_hf(config)
    assert best is not None and to_hf(again, family) == config
    for key in ("rope", "norm_eps", "qkv_bias", "out_bias", "mlp_bias", "qk_norm"):
        assert getattr(again, key) == getattr(cfg, key)


def test_a_family_that_refuses_the_sizes_is_not_chosen():
    """InternLM2 and OPT have heads of d_model / n_heads; a Llama need not."""
    cfg = dataclasses.replace(from_hf(MINIMAL), head_dim=10)
    assert default_model_type(cfg) == "llama"


BAD = [
    (dict(model_type="gpt2"), "model_type", "llama, mistral, qwen2, qwen3, internlm2"),
    (dict(model_type=None), "model_type", "a string"),
    (dict(hidden_size="24"), "hidden_size", "an integer >= 1"),
    (dict(hidden_size=True), "hidden_size", "an integer"),
    (dict(hidden_size=0), "hidden_size", ">= 1"),
    (dict(hidden_size=26), "hidden_size", "a multiple of 4"),
    (dict(hidden_size=12), "head_dim is 3", "even"),
    (dict(num_key_value_heads=3), "num_key_value_heads", "a divisor of 4"),
    (dict(hidden_act="gelu"), "hidden_act", "silu"),
    (dict(rms_norm_eps=float("nan")), "rms_norm_eps", "a number"),
    (dict(rope_theta=0), "rope_theta", ">= 1"),
    (dict(rope_scaling=[1]), "rope_scaling", "an object"),
    (dict(rope_scaling=dict(type="yarn", factor=2.0)), "'yarn'", "default, linear"),
    (dict(rope_parameters=dict(rope_type="longrope")), "'longrope'", "llama3"),
    (dict(rope_scaling=dict(type="linear")), "rope_scaling.factor", "a number"),
    (
        dict(rope_scaling=dict(type="llama3", factor=8.0)),
        "rope_scaling.low_freq_factor",
        "a number",
    ),
    (dict(partial_rotary_factor=0.5), "partial_rotary_factor", "1"),
    (dict(tie_word_embeddings="yes"), "tie_word_embeddings", "true or false"),
    (
        dict(model_type="qwen2", layer_types=["full_attention"]),
        "layer_types",
        "3 entries",
    ),
    (
        dict(model_type="qwen2", layer_types=["sliding_attention"] * 3),
        "layer_types",
        "use_sliding_window",
    ),
]


@pytest.mark.parametrize(("change", "field", "expected"), BAD)
def test_errors_name_file_field_and_expectation(change, field, expected):
    with pytest.raises(CheckpointError) as e:
        from_hf(MINIMAL | change, "/some/config.json")
    assert "/some/config.json: " in str(e.value)
    assert field in str(e.value) and expected in str(e.value)


@pytest.mark.parametrize("field", [f for f in MINIMAL if f != "num_key_value_heads"])
def test_missing_fields_are_named(field):
    config = {k: v for k, v in MINIMAL.items() if k != field}
    with pytest.raises(CheckpointError, match=f"{field} is missing; expected a"):
        from_hf(config)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "factor", "rope_type"]), inner)
    ),
    max_leaves=4,
)
KEYS = [*MINIMAL, "rope_scaling", "rope_parameters", "rope_theta", "head_dim",
        "layer_types", "sliding_window", "use_sliding_window", "max_window_layers",
        "rms_norm_eps", "max_position_embeddings", "attention_bias"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    change=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3),
)
def test_any_values_give_a_config_or_a_checkpoint_error(family, change):
    try:
        from_hf(MINIMAL | dict(model_type=family) | change)
    except CheckpointError:
        pass


def test_how_a_decoder_is_computed_is_not_written():
    """Equality: config.json is the same under every choice of computation."""
    cfg = from_hf(MINIMAL)
    other = dataclasses.replace(
        cfg, dtype="bfloat16", remat="full", layer_loop="scan", attention="chunked"
    )
    assert to_hf(other, "llama") == to_hf(cfg, "llama")
