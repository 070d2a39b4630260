"""Bad input of any kind ends in exit code 2 and one line, with nothing half-written.

Invariant of every case here: stderr is one line `error: ...`, no traceback, the inputs
are as they were, the run's folder has no model and no report.
"""

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from helpers.entry import (
    CONFIGS,
    ROOT,
    assert_refused,
    call,
    checkpoint,
    snapshot,
    write_rows,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research import run as research_run
from train import sft

ROW = {"prompt": "1 plus 1 is ", "completion": "2."}
TALK = {
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]
}
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of inputs that work: checkpoint/ and data.jsonl."""
    folder = tmp_path_factory.mktemp("good")
    checkpoint(folder / "checkpoint", n_layers=1)
    write_rows(folder / "data.jsonl", [ROW] * 8)
    return folder


class Bench:
    """Inputs to spoil, in a folder of their own, and the commands that read them."""

    def __init__(self, good: Path, folder: Path):
        self.inputs = folder / "inputs"
        shutil.copytree(good, self.inputs)
        self.checkpoint = self.inputs / "checkpoint"
        self.data = self.inputs / "data.jsonl"
        self.work = folder / "run"

    def arguments(self, *more):
        return [
            f"--config={CONFIGS / 'sft.py'}:mini",
            f"--config.checkpoint={self.checkpoint}",
            f"--config.data={self.data}",
            f"--workdir={self.work}",
            *more,
        ]

    def sft(self, *more):
        """The command up to where it would compute; code 0 means that it got there."""
        before = snapshot(self.inputs)
        with mock.patch.object(sft, "train_decoder", side_effect=SystemExit(0)):
            done = call(sft, *self.arguments(*more))
        assert snapshot(self.inputs) == before
        assert not (self.work / "hf").is_dir() or not any(
            (self.work / "hf").glob("*.safetensors")
        )
        assert not (self.work / "checkpoints").is_dir()
        return done

    def refused(self, *mentions, more=()):
        assert_refused(self.sft(*more), *mentions)


@pytest.fixture
def bench(good, tmp_path):
    return Bench(good, tmp_path)


def test_the_untouched_inputs_are_accepted(bench):
    """What every case below starts from reaches the training step."""
    done = bench.sft()
    assert done.code == 0 and done.err == ""
    done = bench.sft("--show_batch")
    assert done.code == 0 and "'+'" not in done.err and "row 0" in done.out


# --- checkpoint folders ---------------------------------------------------------------


def edit(name, **fields):
    """Replaces fields of a JSON file; a value of `...` removes the field."""

    def spoil(folder):
        value = json.loads((folder / name).read_text())
        value |= fields
        value = {k: v for k, v in value.items() if v is not ...}
        (folder / name).write_text(json.dumps(value))

    return spoil


def put(name, content):
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name, share=0.5):
    def spoil(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return spoil


def as_folder(name):
    def spoil(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


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


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def gone(folder):
    shutil.rmtree(folder)


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


WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SETTINGS = "tokenizer_config.json"
DEEP = "[" * 100_000 + "]" * 100_000
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


def accepted_or_refused(bench, *more):
    done = bench.sft(*more)
    if done.code != 0:
        assert_refused(done)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "llama", "float32", "16", "\ud800", "é"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "type", "content", "factor"]), inner)
    ),
    max_leaves=4,
)
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


# --- data -----------------------------------------------------------------------------


def parquet(**columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


GOOD = lines(ROW) * 3
DATA = {
    "empty": ("d.jsonl", b"", ["d.jsonl"]),
    "blank": ("d.jsonl", b"\n \n\n", ["d.jsonl"]),
    "binary": ("d.jsonl", bytes(range(256)) * 9, ["d.jsonl:1"]),
    "utf-8": ("d.jsonl", GOOD + b'{"prompt": "\xff"}\n', ["d.jsonl:4: not UTF-8"]),
    "half a row": ("d.jsonl", GOOD + b'{"prompt": "a', ["d.jsonl:4: not JSON"]),
    "a list": ("d.jsonl", GOOD + b"[1]\n", ["d.jsonl:4", "list"]),
    "a number": ("d.jsonl", b"3\n", ["d.jsonl:1", "int"]),
    "nan": ("d.jsonl", b'{"prompt": NaN, "completion": "a"}\n', ["d.jsonl:1", "NaN"]),
    "nesting": ("d.jsonl", DEEP.encode(), ["d.jsonl:1"]),
    "twice": ("d.jsonl", b'{"prompt": "a", "prompt": "b"}\n', ["'prompt'", "once"]),
    "keys": ("d.jsonl", lines({"promt": "a", "completion": "b"}), ["'prompt'"]),
    "number": ("d.jsonl", GOOD + lines(ROW | {"completion": 3}),
               ["d.jsonl:4: completion: expected a string, got int"]),
    "null": ("d.jsonl", lines(ROW | {"prompt": None}), ["d.jsonl:1: prompt", "null"]),
    "silent": ("d.jsonl", lines(ROW | {"completion": " "}), ["d.jsonl:1: completion"]),
    "other shape": ("d.jsonl", GOOD + lines(TALK), ["d.jsonl:4", "'prompt'"]),
    "surrogate": ("d.jsonl", b'{"prompt": "\\ud800", "completion": "a"}\n',
                  ["d.jsonl:1: prompt", "surrogate"]),
    "role": ("d.jsonl", lines({"messages": [{"role": "assistent", "content": "a"}]}),
             ["messages[0].role", "did you mean 'assistant'"]),
    "no messages": ("d.jsonl", lines({"messages": []}), ["d.jsonl:1: messages"]),
    "messages text": ("d.jsonl", lines({"messages": "hi"}), ["d.jsonl:1: messages"]),
    "no answer": ("d.jsonl", lines({"messages": TALK["messages"][:1]}),
                  ["messages[0].role"]),
    "json object": ("d.json", b'{"prompt": "a"}', ["d.json", "list"]),
    "json half": ("d.json", b'[{"prompt": "a"', ["d.json"]),
    "suffix": ("d.csv", b"prompt,completion\n", ["d.csv", ".jsonl"]),
    "parquet half": ("d.parquet", parquet(prompt=["a"] * 9, completion=["b"] * 9)[:-9],
                     ["d.parquet"]),
    "parquet text": ("d.parquet", GOOD, ["d.parquet"]),
    "parquet columns": ("d.parquet", parquet(a=[1]), ["d.parquet:1", "'prompt'"]),
    "parquet types": ("d.parquet", parquet(prompt=[1], completion=[2]),
                      ["d.parquet:1: prompt"]),
    "parquet empty": ("d.parquet", parquet(prompt=[], completion=[]), ["d.parquet"]),
    "parquet null": ("d.parquet", parquet(prompt=["a"], completion=[None]),
                     ["d.parquet:1: completion"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_broken_data_files(name, bench):
    file, content, mentions = DATA[name]
    bench.data = bench.inputs / file
    bench.data.write_bytes(content)
    bench.refused(*mentions)
    bench.data.rename(bench.inputs / f"eval_{file}")
    bench.data = bench.inputs / "data.jsonl"
    bench.refused(
        *mentions, more=[f"--config.eval_data={bench.inputs / 'eval_'}{file}"]
    )


def test_missing_data_files(bench):
    bench.data = bench.inputs / "no.jsonl"
    bench.refused("no.jsonl", "No such file")
    bench.data = bench.inputs
    bench.refused("inputs")
    bench.data.joinpath("d.jsonl").mkdir()
    bench.data = bench.inputs / "d.jsonl"
    bench.refused("d.jsonl", "folder")


def test_skipping_bad_rows_still_needs_good_ones(bench):
    bench.data.write_bytes(b"no\n" * 3)
    bench.refused("at least one row", "data.jsonl:3", more=["--config.on_bad_row=skip"])
    bench.data.write_bytes(b"no\n" + GOOD)
    assert bench.sft("--config.on_bad_row=skip").code == 0
    skipped = json.loads((bench.work / "skipped.jsonl").read_text())
    assert skipped["line"] == 1 and skipped["raw"] == "no"


def test_rows_that_do_not_fit(bench):
    write_rows(bench.data, [ROW | {"prompt": "long " * 100}] * 3)
    whole = ["--config.length=64", "--config.on_long=error"]
    bench.refused("tokens", "length of 64", more=whole)
    bench.refused("no row", more=["--config.length=64", "--config.on_long=drop"])
    write_rows(bench.data, [ROW])
    bench.refused("config.eval_fraction", "nothing to train on")


@FUZZ
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["prompt", "completion", "messages", "output", "x"]),
            JSON
            | st.just([{"role": "assistant", "content": "a"}])
            | st.text(max_size=9),
            max_size=3,
        )
        | JSON,
        max_size=3,
    ),
    st.sampled_from(["error", "skip"]),
)
def test_any_rows_are_used_or_refused(good, rows, on_bad_row):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        write_rows(bench.data, [ROW, ROW, *rows])
        accepted_or_refused(bench, f"--config.on_bad_row={on_bad_row}")


# --- overrides ------------------------------------------------------------------------

KEYS = (
    "length", "batch_size", "accum", "epochs", "steps", "seed", "dtype", "remat",
    "eval_fraction", "template", "row_shape", "on_bad_row", "on_long", "packing",
    "buckets", "export_dtype", "optimizer.kind", "optimizer.lr", "optimizer.schedule",
    "optimizer.warmup", "optimizer.clip_norm", "optimizer.frozen", "optimizer.b1",
    "loop.log_every", "loop.eval_every", "loop.keep_last", "loop.keep_best",
    "mesh.data", "mesh.fsdp", "optimizer", "lopp.keep_last", "checkpoint", "data",
    "eval_data",
)  # fmt: skip
VALUES = ("0", "1", "-1", "2", "3", "nan", "inf", "1e-3", "1e400", "", "None", "True",
          "x", "(1,2)", "()", "(0,128)", "(64,128)", "('*',)", "'", "1_0", "9" * 30,
          "alpaca", "full", "/", ".", "cosine")  # fmt: skip


@settings(parent=FUZZ, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)),
        min_size=1,
        max_size=2,
    )
)
def test_any_overrides_are_used_or_refused(good, pairs):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        accepted_or_refused(bench, *[f"--config.{k}={v}" for k, v in pairs])


# --- folders of runs ------------------------------------------------------------------


def test_run_folders_that_cannot_be_used(bench, tmp_path):
    for work in (bench.data, bench.data / "run", Path("/dev/null/run")):
        bench.work = work
        bench.refused("--workdir", "is a file")
    bench.work = tmp_path / "run"
    (bench.work / "hf").mkdir(parents=True)
    (bench.work / "hf" / "notes.txt").write_text("mine")
    bench.refused("notes.txt", "not replaced")
    assert (bench.work / "hf" / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_run_folders_without_the_right_to_write(bench, tmp_path):
    bench.work = tmp_path / "locked"
    bench.work.mkdir(mode=0o500)
    bench.refused("locked")


def test_a_run_folder_inside_the_inputs_is_no_excuse_to_change_them(bench):
    """The exported model must not land in the checkpoint that it came from."""
    bench.work = bench.checkpoint
    before = snapshot(bench.checkpoint)
    with mock.patch.object(sft, "train_decoder", side_effect=SystemExit(0)):
        done = call(sft, *bench.arguments())
    assert_refused(done, "checkpoint")
    assert snapshot(bench.checkpoint) == before


@pytest.mark.parametrize("name", ["notes.txt", "00000010/notes.txt", "12"])
def test_foreign_checkpoints_in_a_run_folder(name, bench):
    """Resume never guesses: what is not ours is named."""
    path = bench.work / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    done = call(sft, *bench.arguments())
    assert_refused(done, "checkpoints")
    assert path.read_text() == "mine" and not (bench.work / "hf").exists()


# --- experiments ----------------------------------------------------------------------

WORLD = (
    "--config.miniature.sizes.train=(3,3,3,3,3)",
    "--config.miniature.sizes.test=4",
    "--config.miniature.sizes.development=4",
    "--config.miniature.facts=9",
)


def experiment(work, *more, variant="mini"):
    config = f"--config={CONFIGS / 'ch6_easy_to_hard.py'}:{variant}"
    return call(research_run, config, f"--workdir={work}", *more)


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["--only=dta"], ["'dta'", "data"]),
        (["--only=report"], ["--only", "report", "not run yet"]),
        (["--only=data,"], ["no stage ''"]),
        (["--from=nothing"], ["'nothing'"]),
        (["--config.experiment=os:system"], ["config.experiment"]),
        (["--config.experiment=research.nothing:f"], ["config.experiment"]),
        (["--config.experiment=research.run:nothing"], ["'nothing'"]),
        (["--config.experiment=research.run:main"], ["config.experiment"]),
        (["--config.experiment=research.stages:Plan"], ["config.experiment"]),
        (["--config.experiment=research.stages:folder_of"], ["config.experiment"]),
        (["--config.experiment=research.plots:__doc__"], ["config.experiment"]),
        (["--config.experiment="], ["config.experiment"]),
        (["--config.miniature.sizes.train=(1,2)"], ["sizes", "5 levels"]),
        (["--config.miniature.sizes.test=0"], ["sizes"]),
        (["--config.miniature.sizes.development=-1"], ["sizes"]),
        (["--config.miniature.world.steps=((1,2),)"], ["world", "5 levels"]),
        (["--config.miniature.world.rare_fraction=0.0"], ["rare_fraction"]),
        (["--config.sampled.counts=()"], ["config.sampled: counts"]),
        (["--config.sampled.votes=0"], ["config.sampled.votes"]),
        (["--config.sft.optimizer.lr=-1.0"], ["config.sft.optimizer.lr"]),
        (["--config.seeds=(0,0)"], ["config: seeds"]),
        (["--config.seeds=(-1,)"], ["config.seeds"]),
    ],
)
def test_bad_experiments(arguments, mentions, tmp_path):
    """Refused while the plan is declared: no stage has run."""
    work = tmp_path / "run"
    assert_refused(experiment(work, *arguments), *mentions)
    assert not (work / "stages").exists() and not (work / "report.html").exists()
    assert not (work / "config.json").exists()


def test_a_world_that_is_too_small_is_an_error_of_its_stage(tmp_path):
    done = experiment(
        tmp_path / "run", *WORLD, "--config.miniature.sizes.test=9000", "--only=data"
    )
    assert_refused(done, "too few problems")
    assert not list((tmp_path / "run").glob("stages/data/*/result.json"))


def tampered(text: str) -> dict[str, bytes]:
    record = json.loads(text)
    return {
        "empty": b"",
        "half": text[: len(text) // 2].encode(),
        "binary": b"\xff\xfe\x00",
        "null": b"null",
        "other stage": json.dumps(record | {"stage": "x"}).encode(),
        "other inputs": json.dumps(record | {"fingerprint": "0" * 64}).encode(),
        "other format": json.dumps(record | {"format": 99}).encode(),
        "no value": json.dumps(record | {"value": 3}).encode(),
        "deep": DEEP.encode(),
    }


def test_tampered_results_are_never_used(tmp_path):
    """A damaged record stops the run and is named; it is left for the user to see."""
    work = tmp_path / "run"
    assert experiment(work, *WORLD, "--only=data").code == 0
    [record] = work.glob("stages/data/*/result.json")
    good = record.read_text()
    for name, content in tampered(good).items():
        record.write_bytes(content)
        done = experiment(work, *WORLD, "--only=data")
        assert_refused(done, str(record)), name
        assert record.read_bytes() == content
    record.write_text(good)
    assert "cached" in experiment(work, *WORLD, "--only=data").out


def test_folders_of_experiments_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("mine")
    for work in (tmp_path / "file", tmp_path / "file" / "run", "/dev/null/run"):
        assert_refused(
            experiment(work, *WORLD, "--only=data"), "--workdir", "is a file"
        )
    assert (tmp_path / "file").read_text() == "mine"
    work = checkpoint(tmp_path / "checkpoint", n_layers=1)
    before = snapshot(work)
    assert_refused(
        experiment(work, *WORLD, "--only=data"), "config.json is not of a run"
    )
    assert {k: v for k, v in snapshot(work).items() if k != ".lock"} == before
    work = tmp_path / "run"
    work.mkdir()
    with open(work / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert_refused(experiment(work, *WORLD, "--only=data"), "in use")
    assert not (work / "stages").exists()
    (work / "stages").write_text("mine")
    assert_refused(experiment(work, *WORLD, "--only=data"), "stages")


@pytest.mark.parametrize(
    ("spoil", "mention"),
    [
        (lambda b: b.data.unlink(), "data.jsonl"),
        (lambda b: b.data.write_text("{}\n"), "data.jsonl:1: prompt"),
        (lambda b: gone(b.checkpoint), "checkpoint"),
        (lambda b: remove(TOKENIZER)(b.checkpoint), TOKENIZER),
        (lambda b: cut(WEIGHTS)(b.checkpoint), WEIGHTS),
        (lambda b: only_pickle(b.checkpoint), "pytorch_model.bin"),
    ],
)
def test_bad_published_files(spoil, mention, bench):
    """The paper's variant reads files: they are checked before any training."""
    write_rows(bench.data, [ROW | {"answer": "2", "level": i} for i in (1, 2, 4)])
    spoil(bench)
    before = snapshot(bench.inputs)
    with mock.patch(
        "research.easy_to_hard.generators.train_decoder", side_effect=AssertionError
    ):
        done = experiment(
            bench.work,
            f"--config.published.checkpoint={bench.checkpoint}",
            f"--config.published.train={bench.data}",
            f"--config.published.test={bench.data}",
            variant="paper",
        )
    assert_refused(done, mention)
    assert snapshot(bench.inputs) == before
    assert not (bench.work / "report.html").exists()


# --- real processes -------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["train.sft"],
        ["train.sft", "--config=configs/sft.py", "--config.checkpoint=/nowhere",
         "--config.data=/nowhere.jsonl", "--workdir=RUN"],
        ["research.run", "--config=configs/ch6_easy_to_hard.py:mini", "--workdir=RUN",
         "--from=nothing"],
        ["research.run", "--config=configs/\udcff.py", "--workdir=RUN"],
    ],
)  # fmt: skip
def test_processes_end_the_same_way(command, tmp_path):
    """The same from outside: exit code, one line, nothing written."""
    command = [a.replace("RUN", str(tmp_path / "run")) for a in command]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    err = done.stderr.decode()
    assert done.returncode == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert not (tmp_path / "run" / "hf").exists()
    assert not (tmp_path / "run" / "stages").exists()
