"""Any checkpoint folder is used, or refused in one line with nothing half-written."""

import json
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
from helpers.bad_input import (
    DEEP,
    FUZZ,
    JSON,
    SETTINGS,
    TALK,
    TOKENIZER,
    WEIGHTS,
    Bench,
    accepted_or_refused,
    as_folder,
    cut,
    edit,
    gone,
    only_pickle,
    put,
    remove,
)
from helpers.entry import write_rows
from hypothesis import given
from hypothesis import strategies as st


def test_the_untouched_inputs_are_accepted(bench):
    """What every case below starts from reaches the training step."""
    done = bench.sft()
    assert done.code == 0 and done.err == ""
    done = bench.sft("--show_batch")
    assert done.code == 0 and "'+'" not in done.err and "row 0" in done.out


def indexed(weight_map):
    def spoil(folder):
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        index = {"weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def retyped(dtype):
    """The tensors called another dtype of four bytes."""

    def spoil(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"F32"', f'"{dtype}"'.encode()))

    return spoil


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("a file")


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def only_weights(folder):
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            path.unlink()


CHECKPOINTS = {
    "missing": (gone, ["checkpoint"]),
    "a file": (a_file, ["checkpoint"]),
    "empty": (empty, ["config.json"]),
    "only weights": (only_weights, ["config.json: no such file"]),
    "no config": (remove("config.json"), ["config.json: no such file"]),
    "config is a folder": (as_folder("config.json"), ["config.json"]),
    "config empty": (put("config.json", ""), ["config.json:1: not valid JSON"]),
    "config half": (cut("config.json"), ["config.json", "not valid JSON"]),
    "config binary": (put("config.json", b"\xff\xfe\0"), ["config.json", "UTF-8"]),
    "config a list": (put("config.json", "[1]"), ["config.json", "JSON object"]),
    "config null": (put("config.json", "null"), ["config.json", "JSON object"]),
    "config deep": (put("config.json", DEEP), ["config.json"]),
    "config no type": (edit("config.json", model_type=...), ["model_type is missing"]),
    "config gpt2": (edit("config.json", model_type="gpt2"), ["'gpt2'", "llama"]),
    "config type 3": (edit("config.json", model_type=3), ["model_type is 3"]),
    "width text": (edit("config.json", hidden_size="16"), ["hidden_size is '16'"]),
    "width 0": (edit("config.json", hidden_size=0), ["hidden_size is 0"]),
    "width 1.5": (edit("config.json", hidden_size=1.5), ["hidden_size is 1.5"]),
    "width null": (edit("config.json", hidden_size=None), ["hidden_size"]),
    "width true": (edit("config.json", hidden_size=True), ["hidden_size is True"]),
    "width list": (edit("config.json", hidden_size=[16]), ["hidden_size"]),
    "no vocabulary": (edit("config.json", vocab_size=...), ["vocab_size is missing"]),
    "a billion layers": (
        edit("config.json", num_hidden_layers=10**9),
        ["num_hidden_layers"],
    ),
    "heads 3": (edit("config.json", num_attention_heads=3), ["config.json"]),
    "eps nan": (edit("config.json", rms_norm_eps=float("nan")), ["rms_norm_eps"]),
    "rope text": (edit("config.json", rope_scaling="linear"), ["rope_scaling"]),
    "rope kind": (edit("config.json", rope_scaling={"type": "yarn"}), ["'yarn'"]),
    "activation": (edit("config.json", hidden_act="gelu"), ["hidden_act is 'gelu'"]),
    "more layers": (edit("config.json", num_hidden_layers=2), ["missing", "layers.1"]),
    "wider": (edit("config.json", intermediate_size=25), ["misshapen", "[24, 16]"]),
    "tied": (edit("config.json", tie_word_embeddings=True), ["tie_word_embeddings"]),
    "no weights": (remove(WEIGHTS), ["no weights", WEIGHTS]),
    "weights empty": (put(WEIGHTS, b""), [WEIGHTS]),
    "weights half": (cut(WEIGHTS), [WEIGHTS, "truncated"]),
    "weights header": (put(WEIGHTS, struct.pack("<Q", 2**60) + b"{}"), [WEIGHTS]),
    "weights text": (put(WEIGHTS, "<html>not found</html>"), [WEIGHTS]),
    "weights pointer": (
        put(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        [WEIGHTS],
    ),
    "weights folder": (as_folder(WEIGHTS), [WEIGHTS]),
    "weights ints": (retyped("I32"), ["I32"]),
    "pickle": (only_pickle, ["pytorch_model.bin", "safe_serialization"]),
    "index absent": (indexed({"x": "b.safetensors"}), ["b.safetensors"]),
    "index wrong": (indexed({"x": "a.safetensors"}), ["x in a.safetensors"]),
    "index empty": (indexed({}), ["weight_map"]),
    "index list": (indexed([]), ["weight_map"]),
    "index out": (indexed({"x": "../a.safetensors"}), ["'../a.safetensors'"]),
    "index number": (indexed({"x": 3}), ["weight_map['x'] is 3"]),
    "no tokenizer": (remove(TOKENIZER), [TOKENIZER, "tokenizer.model"]),
    "tokenizer empty": (put(TOKENIZER, ""), [TOKENIZER]),
    "tokenizer half": (cut(TOKENIZER), [TOKENIZER]),
    "tokenizer binary": (put(TOKENIZER, b"\xff\0"), [TOKENIZER, "UTF-8"]),
    "tokenizer other": (put(TOKENIZER, "{}"), [TOKENIZER]),
    "tokenizer folder": (as_folder(TOKENIZER), [TOKENIZER]),
    "tokenizer huge": (
        lambda folder: edit(
            TOKENIZER,
            added_tokens=json.loads((folder / TOKENIZER).read_text())["added_tokens"]
            + [
                {
                    "id": 5000 + i,
                    "content": f"<x{i}>",
                    "special": True,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                }
                for i in range(3)
            ],
        )(folder),
        None,
    ),
    "sentencepiece": (
        lambda folder: [
            remove(TOKENIZER)(folder),
            put("tokenizer.model", b"x")(folder),
        ],
        ["tokenizer.model"],
    ),
    "settings list": (put(SETTINGS, "[]"), [SETTINGS]),
    "settings half": (cut(SETTINGS), [SETTINGS, "JSON"]),
    "settings deep": (put(SETTINGS, DEEP), [SETTINGS]),
    "eos a number": (edit(SETTINGS, eos_token=3), ["end-of-sequence"]),
    "eos a list": (edit(SETTINGS, eos_token=["</s>"]), ["checkpoint"]),
    "eos unknown": (edit(SETTINGS, eos_token="<no>"), ["end-of-sequence"]),
    "added a list": (edit(SETTINGS, added_tokens_decoder=[]), ["checkpoint"]),
    "added odd": (edit(SETTINGS, added_tokens_decoder={"x": 1}), ["checkpoint"]),
    "added null": (edit(SETTINGS, added_tokens_decoder=None), ["checkpoint"]),
    "map a list": (put("special_tokens_map.json", "[]"), ["special_tokens_map.json"]),
    "generation text": (put("generation_config.json", "{"), ["generation_config.json"]),
    "generation list": (
        put("generation_config.json", "[]"),
        ["generation_config.json"],
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_broken_checkpoint_folders(name, bench):
    spoil, mentions = CHECKPOINTS[name]
    spoil(bench.checkpoint)
    if mentions is None:  # harmless: it may be accepted, but not crash
        return accepted_or_refused(bench)
    bench.refused(*mentions)


@pytest.mark.parametrize(
    ("template", "mention"),
    [
        (5, "chat_template"),
        ([1], "checkpoint"),
        ("{% if", "chat template"),
        ("{{ messages[9].content }}", "chat template"),
        ("{{ raise_exception('no') }}", "chat template: no"),
        ("{% for x in range(10**9) %}{{ x }}{% endfor %}", "chat template"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "chat template"),
        ("no answer in it", "chat template"),
    ],
)  # fmt: skip
def test_broken_chat_templates(template, mention, bench):
    edit(SETTINGS, chat_template=template)(bench.checkpoint)
    write_rows(bench.data, [TALK] * 4)
    bench.refused(mention)


FIELDS = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "head_dim",
    "num_attention_heads", "num_key_value_heads", "intermediate_size", "rms_norm_eps",
    "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "sliding_window", "hidden_act",
    "initializer_range", "torch_dtype", "eos_token_id", "bos_token_id",
)  # fmt: skip


@FUZZ
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=2))
def test_any_config_json_is_used_or_refused(good, fields):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        edit("config.json", **fields)(bench.checkpoint)
        accepted_or_refused(bench)


@FUZZ
@given(
    st.sampled_from([SETTINGS, "special_tokens_map.json", "generation_config.json"]),
    st.dictionaries(
        st.sampled_from(
            ["bos_token", "eos_token", "pad_token", "unk_token", "eos_token_id",
             "added_tokens_decoder", "chat_template", "add_bos_token", "legacy"]
        ),
        JSON,
        min_size=1,
        max_size=2,
    ),
)  # fmt: skip
def test_any_tokenizer_settings_are_used_or_refused(good, name, fields):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        if not (bench.checkpoint / name).exists():
            put(name, "{}")(bench.checkpoint)
        edit(name, **fields)(bench.checkpoint)
        accepted_or_refused(bench)


@FUZZ
@given(
    st.sampled_from(["config.json", WEIGHTS, TOKENIZER, SETTINGS, "../data.jsonl"]),
    st.floats(0, 1),
    st.binary(max_size=4),
    st.booleans(),
)
def test_damaged_files_are_used_or_refused(good, name, where, data, end):
    """Bytes changed anywhere in any input file, or the file cut there."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        path = bench.checkpoint / name
        old = path.read_bytes()
        at = int(where * len(old))
        path.write_bytes(old[:at] + data + (b"" if end else old[at + len(data) :]))
        accepted_or_refused(bench)
