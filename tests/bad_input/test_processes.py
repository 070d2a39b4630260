"""Bad input as a shell sees it: exit code 2, one line, nothing written."""

import os
import subprocess
import sys

import pytest
from helpers.entry import ROOT


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
