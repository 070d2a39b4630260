"""A run's folder that cannot be used, or holds other files, is refused and kept."""

import os
from pathlib import Path
from unittest import mock

import pytest
from helpers.entry import assert_refused, call, snapshot

from train import sft


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
