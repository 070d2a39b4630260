"""A run on gs:// is the run on a disk: the same rows, models and ways to go on.

The bucket is a server on this machine; TensorStore, gcsfs and google-cloud-storage talk
to it as they would to Google's.
"""

import json
from unittest import mock

import jax
import jax.numpy as jnp
import pyarrow as pa
import pytest
from helpers.bucket import needs_gcsfs, served
from helpers.entry import CONFIGS, assert_refused, call, checkpoint, write_rows
from helpers.tiny_run import exact
from pyarrow import parquet

from data.errors import DataError
from data.records import read_rows
from models import reward_model
from models.errors import CheckpointError
from models.paths import as_path
from models.pretrained import from_pretrained
from research import run as runner
from train import dpo, ppo_run, reward, sft
from train.appended import AppendedFile, AppendedObject
from train.board import Board
from train.checkpoint import Checkpoints
from train.errors import ConfigError
from train.locks import locked
from train.metrics import MetricsLog
from train.state import abstract_state

pytestmark = needs_gcsfs

ROWS = [
    {"prompt": f"{a} plus {b} is", "completion": f" {a + b}"}
    for a in range(4)
    for b in range(4)
]
SETTINGS = (
    "--config.steps=6", "--config.batch_size=4", "--config.length=32",
    "--config.eval_fraction=0.2", "--config.loop.log_every=1",
    "--config.loop.eval_every=3", "--config.loop.checkpoint_every=2",
    "--config.loop.keep_last=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def bucket():
    with served("bucket") as buckets:
        yield buckets


@pytest.fixture(scope="module")
def base(tmp_path_factory, bucket):
    """A folder with a checkpoint and data, which is in the bucket, too."""
    folder = tmp_path_factory.mktemp("base")
    checkpoint(folder / "model")
    write_rows(folder / "rows.jsonl", ROWS)
    bucket.upload("bucket", folder, "base")
    return folder


def run(module, root, workdir, *settings):
    return call(
        module,
        f"--config={CONFIGS / 'sft.py'}",
        f"--config.checkpoint={root}/model",
        f"--config.data={root}/rows.jsonl",
        f"--workdir={workdir}",
        *SETTINGS,
        *settings,
    )


def rows_of(content: bytes):
    return exact(map(json.loads, content.splitlines()))


def test_fine_tuning_on_a_bucket_is_that_on_a_disk(base, bucket, tmp_path, monkeypatch):
    """From data to export, through an interruption between two checkpoints."""
    monkeypatch.chdir(tmp_path)
    done = run(sft, base, tmp_path / "run")
    assert done.code == 0, done.err
    write = MetricsLog.write

    def cut(log, step, values):
        if step == 5:
            raise KeyboardInterrupt
        write(log, step, values)

    with mock.patch.object(MetricsLog, "write", cut):
        assert run(sft, "gs://bucket/base", "gs://bucket/run").code == 130
    assert "checkpoints/00000004/commit_success.txt" in bucket.folder("bucket", "run")
    done = run(sft, "gs://bucket/base", "gs://bucket/run")
    assert done.code == 0, done.err
    ours = bucket.folder("bucket", "run")
    local = {
        p.relative_to(tmp_path / "run").as_posix(): p.read_bytes()
        for p in (tmp_path / "run").rglob("*")
        if p.is_file()
    }
    assert rows_of(ours["metrics.jsonl"]) == rows_of(local["metrics.jsonl"])
    exported = {n: c for n, c in local.items() if n.startswith("hf/")}
    assert exported == {n: c for n, c in ours.items() if n.startswith("hf/")}
    steps = {name.split("/")[1] for name in ours if name.startswith("checkpoints/")}
    assert steps == {p.name for p in (tmp_path / "run/checkpoints").iterdir()}
    here, there = json.loads(local["config.json"]), json.loads(ours["config.json"])
    assert there["data"] == "gs://bucket/base/rows.jsonl"
    assert here == there | {k: here[k] for k in ("checkpoint", "data")}
    assert any(n.startswith("tensorboard/events") and c for n, c in ours.items())
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # no folder "gs:"


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_rows_in_a_bucket_are_those_on_a_disk(bucket, tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == "json":
        path.write_text(json.dumps(ROWS))
    else:
        write_rows(path, [*ROWS, []])
    bucket.upload("bucket", tmp_path, "rows")
    there = f"gs://bucket/rows/rows.{suffix}"
    here, away = (read_rows(p, lambda r: r, "skip") for p in (path, there))
    assert [r.row for r in away.items] == [r.row for r in here.items] == ROWS
    assert [r.where for r in away.items] == [f"{there}:{i + 1}" for i in range(16)]
    assert len(away.skipped) == len(here.skipped) == (suffix == "jsonl")
    bucket.put("bucket", f"rows/bad.{suffix}", b"{")
    with pytest.raises(DataError, match=f"^gs://bucket/rows/bad.{suffix}"):
        read_rows(f"gs://bucket/rows/bad.{suffix}", lambda r: r)
    with pytest.raises(DataError, match="no.*cannot be read"):
        read_rows(f"gs://bucket/rows/no.{suffix}", lambda r: r)


def test_a_log_is_stored_by_the_clock_and_before_every_checkpoint(bucket, tmp_path):
    now = [0.0]
    path = as_path("gs://bucket/log/x.jsonl")
    log = AppendedObject(path, 0, every=30.0, clock=lambda: now[0])
    log.write(b"one\n")
    assert not bucket.folder("bucket", "log")
    now[0] = 30.0
    log.write(b"two\n")
    assert bucket.folder("bucket", "log") == {"x.jsonl": b"one\ntwo\n"}
    log.write(b"three\n")
    assert log.position() == 14
    log.write(b"four\n")
    log.close()
    assert bucket.folder("bucket", "log") == {"x.jsonl": b"one\ntwo\nthree\nfour\n"}
    for again in (AppendedObject(path, 14), AppendedFile(tmp_path / "x", 0)):
        again.write(b"4\n")
        assert again.position() in (16, 2)
        again.close()
    assert bucket.folder("bucket", "log") == {"x.jsonl": b"one\ntwo\nthree\n4\n"}
    with pytest.raises(CheckpointError, match="expected the 999 bytes"):
        MetricsLog("gs://bucket/log", position=999, tensorboard=False)


def test_a_checkpoint_that_was_not_finished_is_none(bucket):
    """Its objects are there, but not the last one; the next save clears it away."""
    folder = "gs://bucket/ck"
    state = {"x": jnp.arange(3.0)}
    with Checkpoints(folder, keep_last=2) as store:
        for step in (1, 2, 3):
            store.save(step, jax.tree.map(lambda x, s=step: x * s, state), {})
    # The right to read and write objects is enough: nobody asks about the bucket.
    asked = {path.partition("?")[0] for _, path in bucket.log}
    assert "/storage/v1/b/bucket" not in asked
    commit = "00000003/commit_success.txt"
    del bucket.objects["bucket", f"ck/{commit}"]
    with Checkpoints(folder, keep_last=2) as store:
        assert store.steps() == [2] and store.latest() == 2
        like = abstract_state(state)
        assert store.restore(2, like)["x"].tolist() == [0, 2, 4]
        store.save(3, state, {"note": "again"})
        store.wait()
        assert store.latest() == 3 and store.meta(3)["note"] == "again"
        assert store.restore(3, like)["x"].tolist() == [0, 1, 2]
    data = next(n for n in bucket.folder("bucket", "ck/00000003/state/d"))
    cut = f"ck/00000003/state/d/{data}"
    bucket.put("bucket", cut, b"x")
    with Checkpoints(folder, keep_last=2) as store:
        with pytest.raises(CheckpointError, match="expected .* bytes, found 1"):
            store.restore(3, like)
        del bucket.objects["bucket", cut]
        with pytest.raises(CheckpointError, match=f"{data}: missing"):
            store.restore(3, like)
    bucket.put("bucket", "ck/mine.txt", b"")
    with pytest.raises(CheckpointError, match="mine.txt: not a checkpoint"):
        Checkpoints(folder).steps()


def test_there_is_no_lock_on_a_bucket(bucket):
    with locked(as_path("gs://bucket/run/.lock"), ConfigError) as held:
        assert held is None


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("data", "gs://bucket/no.jsonl", "no such file or folder"),
        ("checkpoint", "gs://bucket/no", "no such file or folder"),
        ("eval_data", "gs://refused/x.jsonl", "cannot be reached: Forbidden"),
        ("data", "gs:/bucket/x.jsonl", "expected gs://BUCKET/NAME"),
        ("data", "gs://bucket", "expected gs://BUCKET/NAME"),
        ("workdir", "gs://", "expected gs://BUCKET/NAME"),
        ("workdir", "gs://refused/x", "cannot be reached: Forbidden"),
        ("workdir", "gs://absent/x", "gs://absent/x: cannot be written"),
        ("workdir", "gs://bucket/base/model", "is the checkpoint itself"),
    ],
)
def test_what_cannot_be_reached_is_named_first(base, bucket, key, value, message):
    bucket.refused.add("refused")
    flag = f"--workdir={value}" if key == "workdir" else f"--config.{key}={value}"
    done = run(sft, "gs://bucket/base", "gs://bucket/other", flag)
    assert_refused(done, f"{key}: ", message)
    assert not bucket.folder("bucket", "other")


def test_without_gcsfs_the_error_says_where_it_is(base, bucket):
    with mock.patch("importlib.util.find_spec", return_value=None):
        done = run(sft, base, "gs://bucket/other")
    assert_refused(done, "--workdir: ", "pip install -r requirements-tpu.txt")


def test_what_needs_a_disk_says_so(base, bucket):
    done = run(sft, base, "gs://bucket/other", "--config.loop.profile=(1, 2)")
    assert_refused(done, "config.loop.profile: is written to local disks only")
    config = CONFIGS / "ch6_easy_to_hard.py"
    done = call(runner, f"--config={config}", "--workdir=gs://bucket/other")
    assert_refused(done, "--workdir: ", "keeps its stages on a local disk")
    assert not bucket.folder("bucket", "other")


PAIRS = [{"prompt": f"{a}?", "chosen": "yes", "rejected": "no"} for a in range(8)]
LOOP = (
    "--config.loop.checkpoint_every=1", "--config.loop.log_every=1",
    "--config.loop.eval_every=1", "--config.loop.progress=False",
)  # fmt: skip
FITTED = (
    *LOOP, "--config.steps=2", "--config.batch_size=4", "--config.length=24",
    "--config.eval_fraction=0.25",
)  # fmt: skip
PAIRED = {"checkpoint": "model", "data": "pairs.jsonl"}
OTHERS = {
    "dpo": (dpo, PAIRED, FITTED),
    "reward": (reward, PAIRED, FITTED),
    "ppo": (
        ppo_run,
        {"policy": "model", "reward_model": "judge", "prompts": "prompts.jsonl"},
        (
            *LOOP, "--config.ppo.iterations=2", "--config.ppo.prompts=4",
            "--config.ppo.minibatch=4", "--config.ppo.max_new_tokens=8",
            "--config.rewards.model=0.1", "--config.loop.keep_best=False",
        ),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_algorithms_do_so_too(base, bucket, tmp_path, name):
    module, inputs, more = OTHERS[name]
    write_rows(base / "pairs.jsonl", PAIRS)
    write_rows(base / "prompts.jsonl", [{"prompt": r["prompt"]} for r in PAIRS])
    loaded = from_pretrained(base / "model")
    judge = reward_model.init(loaded.cfg, loaded.params)
    judge["head"]["kernel"] += 1
    reward_model.save_reward_model(base / "judge", loaded.cfg, judge, loaded.hf_config)
    bucket.upload("bucket", base, "base")

    def run(root, workdir):
        given = [f"--config.{key}={root}/{file}" for key, file in inputs.items()]
        config = f"--config={CONFIGS / name}.py:mini"
        done = call(module, config, *given, *more, f"--workdir={workdir}")
        assert done.code == 0, done.err

    run(base, tmp_path / name)
    for _ in range(2):  # the second time all is done, and read again
        run("gs://bucket/base", f"gs://bucket/{name}")
        ours = bucket.folder("bucket", name)
        here = (tmp_path / name / "metrics.jsonl").read_bytes()
        assert rows_of(ours["metrics.jsonl"]) == rows_of(here)
        for file in (tmp_path / name / "hf").iterdir():
            assert ours[f"hf/{file.name}"] == file.read_bytes()
    if name == "dpo":  # found again, not made anew
        made = [p for m, p in bucket.log if m == "POST" and "reference.npz" in p]
        assert len(made) == 1


def test_tensorboard_files_are_copied_by_the_clock_and_at_the_end(bucket):
    now = [0.0]
    board = Board(as_path("gs://bucket/board"), 1, every=120.0, clock=lambda: now[0])

    def copied():
        return list(bucket.folder("bucket", "board").values())

    board.write(1, {"train/loss": 0.5})
    assert not copied()
    now[0] = 120.0
    board.write(2, {"train/loss": 0.25})
    assert len(copied()) == 1
    board.close()
    (events,) = copied()
    assert events.count(b"train/loss") == 2
