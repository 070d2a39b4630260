"""One command runs, continues and reports; bad input stops before any stage."""

import json
import os
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from research import run as research_run
from research.report import Report, Section, Text, provenance, write
from research.stages import Plan, RunInfo
from train import cli
from train.settings import positive

CONFIG = """
from ml_collections import config_dict
VARIANTS = ("mini", "paper")
def get_config(variant="mini"):
    return config_dict.create(
        experiment="research.toy.experiment:experiment",
        steps=3 if variant == "mini" else 300,
        model=config_dict.create(width=8),
    )
"""


@dataclass(frozen=True)
class Model:
    width: int = positive(4)


@dataclass(frozen=True)
class Toy:
    steps: int = positive()
    model: Model = Model()


def train(folder, steps, model):
    return {"loss": 1 / (steps * model.width)}


def summary(folder, trained, run_info):
    text = f"loss {trained.value['loss']:.3f}"
    write(
        Report("Toy", text, [Section("s", [Text(text)])]), folder, provenance(run_info)
    )
    return {}


def experiment(plan: Plan, cfg: Toy) -> None:
    trained = plan.stage("train", train, steps=cfg.steps, model=cfg.model)
    plan.stage("report", summary, trained=trained)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    module = types.ModuleType("research.toy.experiment")
    module.experiment = experiment
    monkeypatch.setitem(sys.modules, "research.toy", types.ModuleType("research.toy"))
    monkeypatch.setitem(sys.modules, "research.toy.experiment", module)
    (tmp_path / "c.py").write_text(CONFIG)

    def run(*arguments, config="c.py", workdir="w"):
        argv = ["run", f"--config={tmp_path / config}"]
        argv += [f"--workdir={tmp_path / workdir}"] if workdir else []
        monkeypatch.setattr(sys, "argv", [*argv, *arguments])
        code = cli.run(research_run.main, sys.argv, research_run.define_flags)
        return code, *capsys.readouterr()

    return run


def test_a_run_leaves_its_report_config_and_command(command, tmp_path):
    code, out, err = command("--config.steps=4")
    assert code == 0 and err == ""
    assert out.splitlines()[-1] == f"report: {tmp_path / 'w' / 'report.html'}"
    assert "loss 0.031" in (tmp_path / "w" / "report.md").read_text()
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    assert config["steps"] == 4 and config["model"] == {"width": 8}
    text = (tmp_path / "w" / "command.txt").read_text()
    assert text.startswith("python -m research.run ") and "--config.steps=4" in text
    assert "steps=4" in (tmp_path / "w" / "report.html").read_text()
    code, out, _ = command("--config.steps=4")
    assert code == 0 and "running" not in out and "report.html" in out


def test_dry_run_runs_and_writes_nothing(command, tmp_path):
    code, out, _ = command("--dry-run")
    assert code == 0 and not (tmp_path / "w").exists()
    assert out.split() == ["train", "to", "run", "new", "report", "to", "run", "new"]
    command()
    _, out, _ = command("--dry_run", "--config.model.width=9")
    assert "model.width 8 -> 9" in out and "trained changed" in out


def test_only_and_from(command):
    code, _, err = command("--only=report")
    assert code == 2 and err == (
        "error: --only: stage 'report' needs train, not run yet\n"
    )
    _, out, _ = command("--only=train")
    assert "report: " not in out.replace("[2/2] report: left out", "")
    command()
    _, out, _ = command("--from=train")
    assert out.count("running") == 2


@pytest.mark.parametrize(
    "arguments, message",
    [(["--config.steps=0"], "config.steps: expected > 0, got 0 (int)"),
     (["--config.stesp=1"], "config.stesp: unknown key; did you mean 'steps'?"),
     (["--config.experiment=os:system"], "config.experiment: expected 'research."),
     (["--config.experiment=research.toi.x:f"], "no module 'research.toi'"),
     (["--config.experiment=research.toy.experiment:f"], "no function 'f'"),
     (["--only=trian"], "no stage 'trian'"), (["--from=x"], "no stage 'x'"),
     (["--onyl=train"], "Did you mean: only")],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    command, tmp_path, arguments, message
):
    code, out, err = command(*arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "w" / "stages").exists()
    assert not (tmp_path / "w" / "config.json").exists()


def test_workdir_and_settings_are_required(command, tmp_path):
    assert "--workdir: missing" in command(workdir=None)[2]
    (tmp_path / "d.py").write_text(CONFIG.replace("steps=3", "stepz=3"))
    _, _, err = command(config="d.py")
    assert "config.stepz: unknown key; did you mean 'steps'?" in err


def test_published_report_is_the_last_stage_only(tmp_path):
    plan = Plan()
    plan.stage("train", train, steps=1, model=Model())
    results = research_run.execute(
        plan, tmp_path, run_info=RunInfo(), say=lambda s: None
    )
    assert research_run.publish(results["train"], tmp_path) is None


SLOW = """
import dataclasses, time
from research.stages import Plan

@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 3

def count(folder, steps):
    done = folder / "done.txt"
    for i in range(len(done.read_text()) if done.exists() else 0, steps):
        with open(done, "a") as f:
            f.write(".")
        print("step", i, flush=True)
        time.sleep(0.0 if (folder.parents[2] / "fast").exists() else 60.0)
    return {"steps": steps}

def experiment(plan: Plan, cfg: Settings):
    first = plan.stage("first", count, steps=0)
    plan.stage("second", count, steps=cfg.steps)
"""
# An experiment outside this source tree, for the length of the test.
LAUNCH = """
import sys, runpy, research
research.__path__.append(sys.argv.pop(1))
runpy.run_module("research.run", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "kill, code",
    [(signal.SIGINT, 75), (signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_killed_run_continues_inside_its_stage(tmp_path, kill, code):
    (tmp_path / "slow.py").write_text(SLOW)
    config = CONFIG.replace("research.toy.experiment", "research.slow")
    (tmp_path / "c.py").write_text(
        config.replace("model=config_dict.create(width=8),", "")
    )
    command = [sys.executable, "-c", LAUNCH, str(tmp_path)]
    command += [f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path / 'w'}"]
    root = Path(research_run.__file__).parents[1]
    how = {"cwd": root, "env": {**os.environ, "PYTHONPATH": str(root)}, "text": True}
    process = subprocess.Popen(command, stdout=-1, stderr=-1, **how)
    while (line := process.stdout.readline()) and line != "step 0\n":
        pass
    process.send_signal(kill)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert "Traceback" not in err and ("stopped: in stage 'second'" in err) == (
        code > 0
    )
    (tmp_path / "w" / "fast").touch()
    again = subprocess.run(command, capture_output=True, **how)
    assert again.returncode == 0, again.stderr
    out = again.stdout
    assert "first: cached" in out and "second: running (unfinished)" in out
    assert "step 0" not in out and "step 1\nstep 2\n" in out
