"""Stages in several processes give what they give one by one, and end as orderly."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from research.run import count_jobs
from research.workers import environment
from train.cli import BAD_INPUT, OK, PREEMPTED
from train.errors import ConfigError


def start(workdir, jobs=2, *more, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.staged", str(workdir), str(jobs), *more],
        **options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def log(workdir):
    """{stage: [(what, when)]} of what the stages noted."""
    found = {}
    for line in (workdir / "log").read_text().splitlines():
        name, what, when = line.split()
        found.setdefault(name, []).append((what, float(when)))
    return found


def wait_for(workdir, text):
    for _ in range(600):
        if (workdir / "log").exists() and text in (workdir / "log").read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} never came")


def tell(workdir, **what):
    for name, text in what.items():
        (workdir / f"{name}.do").write_text(text)


def results(workdir):
    """Stored results without their times."""
    out = {}
    for path in workdir.glob("stages/*/*/result.json"):
        record = json.loads(path.read_text())
        for changing in ("started", "finished", "seconds", "dependencies"):
            del record[changing]
        out[record["stage"]] = record
    return out


def test_two_workers_run_at_once_what_is_independent_and_give_the_same(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, jobs in ((one, 1), (two, 2)):
        folder.mkdir()
        tell(folder, a="wait", b="wait")
        code, out, err = finish(start(folder, jobs))
        assert code == OK, err
        assert out.splitlines()[-1] == "cab"
    assert results(one) == results(two)
    times = {name: [when for _, when in seen] for name, seen in log(two).items()}
    assert max(times["a"][0], times["b"][0]) < min(times["a"][1], times["b"][1])
    assert times["c"][0] > max(times["a"][1], times["b"][1])
    # what a stage prints is shown behind its name, and the answers are not disturbed
    assert "a: a speaks" in err.splitlines()


def test_a_refused_stage_ends_the_run_with_its_code_and_the_next_run_goes_on(tmp_path):
    tell(tmp_path, a="wait", b="refuse")
    code, _, err = finish(start(tmp_path))
    assert code == BAD_INPUT
    assert "no such thing" in err
    (tmp_path / "b.do").unlink()
    code, out, _ = finish(start(tmp_path))
    assert code == OK and out.splitlines()[-1] == "cab"


def test_sigterm_stops_the_workers_and_the_same_command_continues(tmp_path):
    tell(tmp_path, b="hang")
    process = start(tmp_path)
    wait_for(tmp_path, "a ends")
    wait_for(tmp_path, "b begins")
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == PREEMPTED
    assert "in stage 'b'" in err and "the same command continues" in err
    (tmp_path / "b.do").unlink()
    assert finish(start(tmp_path))[0] == OK
    begun = [what for what, _ in log(tmp_path)["a"]]
    assert begun == ["begins", "ends"]  # what was finished was not done again


def test_an_interrupted_from_is_not_to_be_repeated(tmp_path):
    assert finish(start(tmp_path))[0] == OK
    tell(tmp_path, c="hang")
    (tmp_path / "log").unlink()
    process = start(tmp_path, 2, "--from=a")
    wait_for(tmp_path, "c begins")
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == PREEMPTED and "the same command without --from continues" in err
    assert set(log(tmp_path)) == {"a", "c"}


@pytest.mark.parametrize(
    ("end", "how"), [("die", "was killed by SIGKILL"), ("quit", "ended without")]
)
def test_a_worker_that_ends_is_an_error_that_names_the_stage(tmp_path, end, how):
    tell(tmp_path, b=end)
    code, _, err = finish(start(tmp_path))
    assert code == BAD_INPUT
    assert f"stage 'b': its process {how}" in err


def test_a_worker_refuses_a_stage_that_was_declared_otherwise(tmp_path):
    worker = start(tmp_path, 2, "--worker", stdin=subprocess.PIPE)
    _, err = worker.communicate("a 0123\n", timeout=60)
    assert worker.returncode == BAD_INPUT
    assert "stage 'a': the config or the code changed since this run began" in err
    assert not (tmp_path / "log").exists()


def test_the_folder_is_locked_until_the_last_worker_of_a_killed_run_ends(tmp_path):
    tell(tmp_path, b="hang")
    process = start(tmp_path)
    wait_for(tmp_path, "b begins")
    process.kill()
    process.wait()  # its pipes stay open: the workers have them too
    code, _, err = finish(start(tmp_path))
    assert code == BAD_INPUT and "in use by process" in err
    for path in os.listdir("/proc"):
        if path.isdigit():
            try:
                with open(f"/proc/{path}/cmdline") as f:
                    mine = str(tmp_path) in f.read()
            except OSError:
                continue
            if mine:
                os.kill(int(path), signal.SIGKILL)
    (tmp_path / "b.do").unlink()
    time.sleep(0.2)
    assert finish(start(tmp_path))[0] == OK


def test_jobs_come_from_the_command_line_or_from_the_config(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert count_jobs(1, None) == 1
    assert count_jobs(10**6, None) == os.cpu_count()
    assert count_jobs(1, 3) == 3
    with pytest.raises(ConfigError, match=r"config\.jobs"):
        count_jobs(0, None)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert count_jobs(2, None) == 1
    with pytest.raises(ConfigError, match="--jobs: 2 processes"):
        count_jobs(1, 2)


def test_workers_share_cores_by_not_spreading_products():
    """With a core each, or fewer; else, and where the flag is set, as outside."""
    flag = "--xla_cpu_multi_thread_eigen"
    spread, told = {"XLA_FLAGS": "--a=1", "B": "2"}, {"XLA_FLAGS": f"{flag}=true"}
    assert environment(spread, 1, 2) == spread and environment(told, 2, 2) == told
    for jobs in (2, 3):
        shared = environment(spread, jobs, 2)
        assert shared == {"XLA_FLAGS": f"--a=1 {flag}=false", "B": "2"}
    assert environment({}, 1, 1) == {"XLA_FLAGS": f"{flag}=false"}


def test_a_stage_that_nothing_can_run_beside_has_every_core(tmp_path):
    """`a` and `b` share them, and spread no products; `c`, which needs both, does."""
    flags = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    code, _, err = finish(start(tmp_path, max(2, os.cpu_count()), env=flags))
    assert code == OK, err
    told = {name: (tmp_path / f"{name}.flags").read_text() for name in "abc"}
    shared = "--xla_cpu_multi_thread_eigen=false"
    assert told == {"a": shared, "b": shared, "c": ""}
