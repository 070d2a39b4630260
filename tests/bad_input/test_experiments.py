"""A bad experiment is refused before a stage runs; a damaged record is never used."""

import fcntl
import json
from unittest import mock

import pytest
from helpers.bad_input import (
    DEEP,
    TOKENIZER,
    WEIGHTS,
    cut,
    gone,
    only_pickle,
    remove,
)
from helpers.entry import (
    CONFIGS,
    assert_refused,
    call,
    checkpoint,
    snapshot,
)
from helpers.published_files import write_math_files

from research import run as research_run

WORLD = (
    "--config.miniature.sizes.train=(3,3,3,3,3)",
    "--config.miniature.sizes.test=4",
    "--config.miniature.sizes.development=4",
    "--config.miniature.facts=9",
)


def experiment(work, *more, variant="mini"):
    config = f"--config={CONFIGS / 'ch6_easy_to_hard.py'}:{variant}"
    # In this process: a worker's error would reach the terminal, not the test.
    return call(research_run, config, f"--workdir={work}", "--jobs=1", *more)


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
        (lambda b: (b.inputs / "train.jsonl").unlink(), "train.jsonl"),
        (
            lambda b: (b.inputs / "test.jsonl").write_text("{}\n"),
            "test.jsonl:1: level",
        ),
        (
            lambda b: (b.inputs / "phase2_train.jsonl").write_text("{}\n"),
            "phase2_train.jsonl:1: question",
        ),
        (lambda b: gone(b.checkpoint), "checkpoint"),
        (lambda b: remove(TOKENIZER)(b.checkpoint), TOKENIZER),
        (lambda b: cut(WEIGHTS)(b.checkpoint), WEIGHTS),
        (lambda b: only_pickle(b.checkpoint), "pytorch_model.bin"),
    ],
)
def test_bad_published_files(spoil, mention, bench):
    """The paper's variant reads files: they are checked before any training."""
    files = write_math_files(bench.inputs)
    spoil(bench)
    before = snapshot(bench.inputs)
    with mock.patch("research.training.train_decoder", side_effect=AssertionError):
        done = experiment(
            bench.work,
            f"--config.published.checkpoint={bench.checkpoint}",
            *(
                f"--config.published.{name}={files[name]}"
                for name in ("math_train", "math_test", "prm800k")
            ),
            "--config.published.on_bad_row=error",
            variant="paper",
        )
    assert_refused(done, mention)
    assert snapshot(bench.inputs) == before
    assert not (bench.work / "report.html").exists()
