"""A run killed at a random moment continues to the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_run import exact, run, same_bits

ROOT = Path(__file__).parents[2]
STEPS = 40


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return run(tmp_path_factory.mktemp("straight"), STEPS)


def start(workdir, *options):
    paths = f"{ROOT}:{ROOT / 'tests'}"
    return subprocess.Popen(
        [
            sys.executable,
            ROOT / "tests/helpers/tiny_run.py",
            workdir,
            str(STEPS),
            *options,
        ],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, line):
    for out in process.stdout:
        if out.strip() == line:
            return
    raise AssertionError(process.stderr.read()[-3000:])


def check_continued(workdir, straight):
    resumed = run(workdir, STEPS)
    assert same_bits(resumed.state, straight.state)
    assert exact(resumed.rows) == exact(straight.rows)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert exact(map(json.loads, lines)) == exact(straight.rows)


@pytest.mark.parametrize("attempt", range(3))
def test_kill_minus_nine_at_a_random_moment(straight, tmp_path, attempt):
    process = start(tmp_path, "--slow=0.01")
    at = random.SystemRandom().uniform(1, STEPS - 2)
    wait_for(process, f"batch {int(at)}")
    time.sleep(0.02 * (at % 1))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    check_continued(tmp_path, straight)


def test_sigterm_saves_and_has_its_own_exit_code(straight, tmp_path):
    process = start(tmp_path, "--signal=11")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err[-3000:]
    assert "SIGTERM after step 11 of 40, which is saved" in out
    check_continued(tmp_path, straight)


def test_a_second_signal_kills(tmp_path):
    process = start(tmp_path, "--slow=3")
    wait_for(process, "batch 1")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None  # it waits for the step to end
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM


def test_the_script_and_the_fixture_are_the_same_run(straight, tmp_path):
    process = start(tmp_path)
    assert process.wait(timeout=120) == 0
    state = run(tmp_path, STEPS).state  # restored: nothing is left to train
    assert same_bits(state, straight.state)
