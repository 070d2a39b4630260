"""A refused command writes nothing; one that begins lists what it read and skipped."""

import contextlib
import dataclasses
import json

import pytest
from helpers.entry import (
    CONFIGS,
    assert_refused,
    call,
    checkpoint,
    snapshot,
    write_rows,
)

from train import commands, dpo, reward, sft
from train.errors import ConfigError

ROWS = {
    sft: {"prompt": "1+1=", "completion": "2"},
    dpo: {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
    reward: {"prompt": "1+1=", "completion": "2", "label": 1},
}
MODULES = pytest.mark.parametrize("module", ROWS, ids=lambda m: m.__name__[6:])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base") / "base", n_layers=1)


@pytest.fixture
def command(base, tmp_path):
    """call(module, ...) of `module` on 8 good rows and a bad one, which is skipped."""

    def made(module, *more, prompts=8):
        rows = [{**ROWS[module], "prompt": f"{i % prompts}+1="} for i in range(8)]
        data = write_rows(tmp_path / "data.jsonl", [*rows, {"prompt": 1}])
        return call(
            module,
            f"--config={CONFIGS / module.__name__[6:]}.py:mini",
            f"--config.checkpoint={base}",
            f"--config.data={data}",
            "--config.on_bad_row=skip",
            f"--workdir={tmp_path / 'run'}",
            *more,
        )

    return made


@MODULES
def test_a_command_that_is_refused_leaves_its_folder_alone(
    module, command, base, tmp_path
):
    """Equality of the folder, none or with a file, whatever was read before."""
    small = tmp_path / "small"
    small.mkdir()
    for path in base.iterdir():
        (small / path.name).symlink_to(path)
    (small / "config.json").unlink()
    settings = json.loads((base / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(settings | {"vocab_size": 20}))
    cases = (
        (("--config.steps=0",), "config.steps: expected > 0"),
        ((f"--config.steps={2**31}",), "config.steps: expected between 1"),
        ((f"--config.checkpoint={small}",), "has only 20 embeddings"),
        (("--config.eval_fraction=1.0",), "leaves nothing to train on"),
        (("--config.loop.keep_best=True", "--config.eval_fraction=0.0"), "held-out"),
        (("--config.optimizer.frozen=('x',)",), "optimizer.frozen"),
        ((f"--config.eval_data={tmp_path / 'no.jsonl'}",), "no.jsonl"),
    )
    work = tmp_path / "run"
    for arguments, mention in cases:
        assert_refused(command(module, *arguments), mention)
        assert not work.exists()
    if module is not sft:  # by prompt: eight answers to one question cannot be split
        assert_refused(command(module, prompts=1), "1 examples leaves nothing")
        assert not work.exists()
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    before = snapshot(work)
    for arguments, mention in cases:
        assert_refused(command(module, *arguments), mention)
        assert snapshot(work) == before


@MODULES
def test_a_run_that_begins_lists_the_rows_it_skipped(module, command, tmp_path):
    """Equality: line and text of the bad row, beside config.json; also held-out data.

    `from_pretrained`, what comes next, is where each command is stopped.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "from_pretrained", stop)
        same = f"--config.eval_data={tmp_path / 'data.jsonl'}"
        done = command(module, same)
    assert done.code == 0 and "1 bad rows skipped" in done.out, done.err
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {".lock", "config.json", "skipped.jsonl", "skipped_eval.jsonl"}
    for name in ("skipped.jsonl", "skipped_eval.jsonl"):
        (bad,) = (tmp_path / "run" / name).read_text().splitlines()
        assert json.loads(bad)["line"] == 9
        assert json.loads(json.loads(bad)["raw"]) == {"prompt": 1}


def stop(*_, **__):
    raise SystemExit(0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """A config of the fewest settings that `running` and `check_free` look at."""

    checkpoint: str
    data: str
    optimizer: int = 0
    loop: int = 0


def ready(skipped):
    return commands.Prepared(None, None, None, None, 3, ("read",), skipped)


def test_a_folder_of_another_run_keeps_its_files(tmp_path, capsys):
    """Equality: config and lists are of the run whose checkpoints are there."""
    with commands.running(Settings("a", "b"), tmp_path, ready({"s.jsonl": [{"n": 1}]})):
        pass
    assert capsys.readouterr().out == "read\n3 steps\n"
    (tmp_path / "checkpoints").mkdir()
    before = snapshot(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["checkpoint"] == "a"
    assert json.loads((tmp_path / "s.jsonl").read_text()) == {"n": 1}
    with commands.running(Settings("c", "d"), tmp_path, ready({"s.jsonl": []})):
        assert snapshot(tmp_path) == before


def test_a_config_is_ours_if_it_has_what_ours_need(tmp_path):
    """Error, unless all settings without a default are there, and the shared ones."""
    whole = dataclasses.asdict(Settings("a", "b"))
    for missing in (None, *whole):
        kept = {k: v for k, v in whole.items() if k != missing}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        refused = missing and pytest.raises(ConfigError, match="config.json is not of")
        with refused or contextlib.nullcontext():
            commands.check_free(Settings("x", "y"), tmp_path)
