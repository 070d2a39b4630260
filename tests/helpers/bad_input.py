"""Inputs that work, ways to spoil them, and what holds of the command that reads them.

Invariant of every case: stderr is one line `error: ...`, no traceback, the inputs are
as they were, the run's folder has no model and no report.
"""

import json
import shutil
from pathlib import Path
from unittest import mock

from helpers.entry import CONFIGS, assert_refused, call, snapshot
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

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
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SETTINGS = "tokenizer_config.json"
DEEP = "[" * 100_000 + "]" * 100_000
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


def accepted_or_refused(bench, *more):
    done = bench.sft(*more)
    if done.code != 0:
        assert_refused(done)


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


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def gone(folder):
    shutil.rmtree(folder)
