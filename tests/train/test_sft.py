"""Checkpoint and file in, better checkpoint out; bad input ends before any compute."""

import dataclasses
import json
import os
import shutil
import string
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny_run import exact

from data.errors import DataError
from data.tokenizers import char_tokenizer, load_tokenizer
from models import decoder
from models.config import DecoderConfig
from models.errors import CheckpointError
from models.params import flatten_names
from models.pretrained import from_pretrained, save_pretrained
from train import cli, commands, sft
from train.commands import MeshConfig, split_examples
from train.errors import ConfigError, Preempted
from train.locks import locked
from train.loop import LoopConfig
from train.optim import OptimizerConfig
from train.settings import build
from train.sft import SFTConfig, prepare

ROOT = Path(__file__).parents[2]
BEST = LoopConfig(eval_every=4, checkpoint_every=4, keep_best=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A tiny random checkpoint with a character tokenizer, and files of sums."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = char_tokenizer(string.printable)
    cfg = DecoderConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, n_layers=1, n_heads=2,
        n_kv_heads=1, d_ff=32, head_dim=8, max_position=64,
    )  # fmt: skip
    params = decoder.init_params(cfg, jax.random.key(0))
    files = tokenizer.files.contents
    save_pretrained(folder / "base", cfg, params, tokenizer_files=files)
    rng = np.random.default_rng(0)
    sums = [tuple(map(int, rng.integers(0, 50, 2))) for _ in range(40)]
    rows = {
        "prompt": [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a, b in sums],
        "alpaca": [{"instruction": f"{a}+{b}", "output": str(a + b)} for a, b in sums],
        "messages": [
            {"messages": [{"role": "user", "content": f"{a}+{b}"},
                          {"role": "assistant", "content": str(a + b)}]}
            for a, b in sums
        ],
    }  # fmt: skip
    for shape, items in rows.items():
        lines = "".join(json.dumps(row) + "\n" for row in items)
        (folder / f"{shape}.jsonl").write_text(lines)
    return folder


def config(inputs, shape="prompt", **changes):
    base = SFTConfig(
        checkpoint=str(inputs / "base"),
        data=str(inputs / f"{shape}.jsonl"),
        length=32,
        batch_size=4,
        steps=8,
        eval_fraction=0.1,
        optimizer=OptimizerConfig(lr=1e-2),
        loop=LoopConfig(
            log_every=2, eval_every=4, checkpoint_every=4, progress=False,
            tensorboard=False,
        ),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def result(inputs, tmp_path_factory):
    return sft.sft(config(inputs, steps=40), tmp_path_factory.mktemp("sft"))


def test_training_lowers_both_losses_and_exports_a_model(inputs, result):
    losses = [row["train/loss"] for row in result.rows if "train/loss" in row]
    evals = [row["eval/loss"] for row in result.rows if "eval/loss" in row]
    assert losses[-1] < 0.7 * losses[0] and evals[-1] < evals[0]
    assert result.metrics["eval/perplexity"] == np.exp(evals[-1])
    before, after = from_pretrained(inputs / "base"), from_pretrained(result.folder)
    assert after.cfg == before.cfg
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params),
                        strict=True)
    ]  # fmt: skip
    assert all(changed)
    assert load_tokenizer(result.folder).encode("1+1=") == load_tokenizer(
        inputs / "base"
    ).encode("1+1=")


def test_the_export_is_the_trained_state(inputs, result):
    # The held-out loss of the exported folder is the last one reported.
    again = sft.sft(
        config(inputs, checkpoint=str(result.folder), steps=1,
               optimizer=OptimizerConfig(lr=1e-30)),
        result.folder.parent / "again",
    )  # fmt: skip
    np.testing.assert_allclose(
        again.metrics["eval/loss"], result.metrics["eval/loss"], rtol=1e-6
    )


@pytest.mark.parametrize(
    "shape, template", [("alpaca", "alpaca"), ("messages", "llama2")]
)
def test_the_other_row_shapes(inputs, tmp_path, shape, template):
    cfg = config(
        inputs, shape, template=template, steps=1, length=64, on_long="truncate"
    )
    if shape == "alpaca":  # its preamble alone is longer than this model
        with pytest.raises(DataError, match="no row has a learned token within 64"):
            sft.sft(cfg, tmp_path)
        return
    assert sft.sft(cfg, tmp_path).folder == tmp_path / "hf"


def test_an_interrupted_run_continues_to_the_same_bits(
    inputs, tmp_path, monkeypatch, capsys
):
    cfg = config(inputs, steps=10)
    straight = sft.sft(cfg, tmp_path / "a")
    stopped = Stop(at=5)
    monkeypatch.setattr(commands, "batches", stopped.batches)
    with pytest.raises(Preempted):
        sft.sft(cfg, tmp_path / "b")
    assert not (tmp_path / "b" / "hf").exists()
    monkeypatch.undo()
    resumed = sft.sft(cfg, tmp_path / "b")
    assert exact(resumed.rows) == exact(straight.rows)
    files = [(r.folder / "model.safetensors").read_bytes() for r in (straight, resumed)]
    assert files[0] == files[1]
    with pytest.raises(ConfigError, match="config.optimizer.lr is 0.5, was 0.01"):
        sft.sft(
            dataclasses.replace(cfg, optimizer=OptimizerConfig(lr=0.5)), tmp_path / "b"
        )
    assert (
        json.loads((tmp_path / "b/config.json").read_text())["optimizer"]["lr"] == 0.01
    )


class Stop:
    """Batches that send SIGTERM when one step is asked for."""

    def __init__(self, at):
        self.at = at
        self.make = commands.batches

    def batches(self, *args, **kwargs):
        made = self.make(*args, **kwargs)
        stop = self

        class Wrapped(type(made)):
            def __getitem__(self, step):
                if step == stop.at:
                    os.kill(os.getpid(), 15)
                return super().__getitem__(step)

        fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
        return Wrapped(**fields)


def test_frozen_parameters_leave_as_they_came(inputs, tmp_path):
    optimizer = OptimizerConfig(lr=1e-2, frozen=("embed/*", "*norm*"))
    done = sft.sft(config(inputs, optimizer=optimizer), tmp_path)
    before = flatten_names(from_pretrained(inputs / "base").params)
    after = flatten_names(from_pretrained(done.folder).params)
    for name in before:
        frozen = name.startswith("embed") or "norm" in name
        assert np.array_equal(before[name], after[name]) == frozen, name


def test_held_out_examples_are_a_function_of_the_seed_and_never_trained_on(inputs):
    examples = list(range(50))
    kept, held = split_examples(examples, 0.2, seed=1)
    assert (kept, held) == split_examples(examples, 0.2, seed=1)
    assert sorted(kept + held) == examples and len(held) == 10
    assert held != split_examples(examples, 0.2, seed=2)[1]
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        split_examples(examples, 1.0, seed=1)
    ready = prepare(config(inputs, eval_data=str(inputs / "prompt.jsonl")))
    assert sum(len(row) for row in ready.held_out.rows) == 40
    assert prepare(config(inputs, eval_fraction=0.0)).held_out is None


def test_epochs_become_steps(inputs):
    ready = prepare(config(inputs, steps=None, epochs=2.5, packing=False))
    assert ready.batches.steps_per_epoch == 9  # 36 rows, 4 to a batch
    assert ready.steps == 23


@pytest.mark.parametrize(
    "changes, error, words",
    [
        (dict(checkpoint="nowhere"), CheckpointError, "nowhere"),
        (dict(data="nowhere.jsonl"), DataError, "nowhere.jsonl: cannot be read"),
        (dict(length=65), ConfigError, "config.length: 65 is more than the 64 pos"),
        (dict(length=6), DataError, "prompt.jsonl:1: .* tokens, more than the length"),
        (dict(template="vicuna"), DataError, "did you mean 'vicuna_v1'"),
        (dict(row_shape="alpaca"), DataError, "prompt.jsonl:1: expected the key"),
        (
            dict(batch_size=6, accum=4),
            ConfigError,
            "config.batch_size: .* multiple of 4",
        ),
        (dict(mesh=MeshConfig(tensor=64)), ConfigError, "do not divide by 64"),
        (dict(steps=2**31), ConfigError, "config.steps: expected between"),
        (dict(steps=None, epochs=1e308), ConfigError, "config.epochs: .* got inf"),
        (
            dict(eval_fraction=0.0, loop=BEST),
            ConfigError,
            "config.loop.keep_best: needs held-out data",
        ),
        (dict(optimizer=OptimizerConfig(warmup=9)), ConfigError, "optimizer.warmup"),
        (
            dict(optimizer=OptimizerConfig(frozen=("x",))),
            ConfigError,
            "optimizer.frozen",
        ),
    ],
)
def test_bad_input_is_named_before_any_step(inputs, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        sft.sft(config(inputs, **changes), tmp_path / "w")
    assert not (tmp_path / "w" / "metrics.jsonl").exists()
    assert not (tmp_path / "w" / "hf").exists()


def test_a_folder_in_the_way_of_the_export_is_noticed_first(inputs, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="thesis.txt"):
        sft.sft(config(inputs), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("config.json", '{"model_type": "llama"}'),
        ("config.json", "[]"),
        ("config.json", "not json"),
        ("metrics.jsonl", '{"step": 1}'),
    ],
)
def test_files_of_others_are_never_replaced(inputs, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=f"--workdir: .*{name} is not of a run"):
        sft.sft(config(inputs), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_a_folder_in_use_is_refused_and_one_killed_before_saving_is_not(
    inputs, tmp_path
):
    cfg = config(inputs, steps=1)
    with locked(tmp_path / ".lock", ConfigError):
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            sft.sft(cfg, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    sft.sft(cfg, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    assert sft.sft(cfg, tmp_path).steps == 1


@pytest.mark.parametrize("variant", ["default", "mini", "paper"])
def test_the_trace_and_the_best_metric_are_set_on_the_command_line(variant):
    given = ["--config.checkpoint=a", "--config.data=b", "--config.loop.profile=(1,2)"]
    given += ["--config.loop.best=eval/perplexity"]
    parsed, _ = cli.parse(["sft", f"--config={ROOT}/configs/sft.py:{variant}", *given])
    loop = build(SFTConfig, parsed).loop
    assert loop.profile == (1, 2) and loop.best == "eval/perplexity"


def test_bad_rows_are_skipped_listed_and_counted(inputs, tmp_path, capsys):
    path = tmp_path / "d.jsonl"
    path.write_text((inputs / "prompt.jsonl").read_text() + '{"prompt": 1}\nnot json\n')
    cfg = config(inputs, data=str(path), steps=1)
    with pytest.raises(DataError, match="d.jsonl:41"):
        sft.sft(cfg, tmp_path / "w")
    sft.sft(dataclasses.replace(cfg, on_bad_row="skip"), tmp_path / "w")
    assert "2 bad rows skipped" in capsys.readouterr().out
    lines = (tmp_path / "w/skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [41, 42]


def test_a_tokenizer_that_is_too_large_for_the_model_is_refused(inputs, tmp_path):
    tokenizer = char_tokenizer(string.printable)
    cfg = DecoderConfig(
        vocab_size=20, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8,
        head_dim=4,
    )  # fmt: skip
    params = decoder.init_params(cfg, jax.random.key(0))
    files = tokenizer.files.contents
    save_pretrained(tmp_path / "small", cfg, params, tokenizer_files=files)
    with pytest.raises(ConfigError, match="has only 20 embeddings"):
        prepare(config(inputs, checkpoint=str(tmp_path / "small")))


@pytest.mark.parametrize("variant", ["default", "mini", "paper"])
def test_every_shipped_variant_runs(inputs, tmp_path, variant):
    shipped = cli.load_config(f"{ROOT}/configs/sft.py:{variant}")
    with shipped.unlocked():
        shipped.checkpoint = str(inputs / "base")
        shipped.data = str(inputs / "prompt.jsonl")
        shipped.template = "plain"
        shipped.length, shipped.steps, shipped.batch_size = 64, 2, 4
        shipped.buckets = None if shipped.packing else (32, 64)
        shipped.loop.checkpoint_every = shipped.loop.eval_every = 1
    done = sft.sft(build(SFTConfig, shipped), tmp_path)
    assert done.steps == 2 and np.isfinite(done.metrics["eval/loss"])
    dtype = shipped.export_dtype or "float32"
    assert json.loads((done.folder / "config.json").read_text())["dtype"] == dtype


def call(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "train.sft", "--config=configs/sft.py:mini", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"SALIGN_NO_TUNE": "1"},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_shows_a_batch_or_trains_and_says_where(inputs, tmp_path):
    given = [
        f"--config.checkpoint={inputs / 'base'}",
        f"--config.data={inputs}/prompt.jsonl",
    ]
    given += ["--config.length=32", "--config.steps=2", f"--workdir={tmp_path / 'w'}"]
    code, out, err = call(*given, "--show-batch")
    assert code == 0 and "'='" in out and "'</s>'" in out and err == ""
    assert not (tmp_path / "w").exists()
    code, out, err = call(*given)
    assert code == 0, err
    assert out.splitlines()[-1] == f"model: {tmp_path / 'w' / 'hf'}"


def test_the_command_reports_bad_input_in_one_line(tmp_path):
    code, out, err = call("--config.checkpoint=nowhere", "--config.data=x.jsonl")
    assert (code, out) == (2, "") and err.startswith("error: --workdir")
    code, out, err = call(
        "--config.checkpoint=nowhere", "--config.data=x.jsonl", f"--workdir={tmp_path}"
    )
    assert (code, out) == (2, "") and err.startswith("error: nowhere")
    assert len(err.splitlines()) == 1 and list(tmp_path.iterdir()) == []
