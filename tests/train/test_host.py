"""A command starts again at most once, only where it helps, and is the same."""

import os
import subprocess
import sys

import pytest

from train import host

SCRIPT = """
import sys
from train.host import tune_host
if __name__ == "__main__":
    tune_host()
    import os
    print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode)
"""
linux = pytest.mark.skipif(
    sys.platform != "linux" or host.platform.libc_ver()[0] != "glibc",
    reason="needs glibc",
)


def start(tmp_path, **environment):
    (tmp_path / "script.py").write_text(SCRIPT)
    clean = {k: v for k, v in os.environ.items() if k not in host_names()}
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "script.py", "--a=b c", ""],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def host_names():
    return ("GLIBC_TUNABLES", host.TUNED, host.NO_TUNE)


@linux
def test_the_command_starts_again_with_its_arguments_and_options(tmp_path):
    assert start(tmp_path) == f"{host.TUNABLES} ['--a=b c', ''] 1"


@linux
@pytest.mark.parametrize(
    "environment, shown",
    [
        ({host.NO_TUNE: "1"}, "None"),
        ({host.TUNED: "1"}, "None"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, "glibc.malloc.arena_max=4"),
        ({"JAX_PLATFORMS": "tpu,cpu"}, "None"),
    ],
)
def test_it_is_left_alone(tmp_path, environment, shown):
    assert start(tmp_path, **environment) == f"{shown} ['--a=b c', ''] 1"


def test_never_in_a_test_or_a_notebook():
    cpu = {"JAX_PLATFORMS": "cpu"}
    assert not host.wants_tuning(cpu, {"pytest": 1})
    assert not host.wants_tuning(cpu, {"ipykernel": 1})
    host.tune_host()  # returns: this is a test


@pytest.mark.parametrize(
    "platforms, cpu",
    [("cpu", True), ("cpu,tpu", True), ("tpu", False), ("cuda", False)],
)
def test_the_platform_that_is_asked_for_decides(platforms, cpu):
    assert host.uses_cpu({"JAX_PLATFORMS": platforms}) == cpu
