"""Starting programs in the sandbox, and finding out whether this host has one.

Isolation needs Linux 5.12 or newer on x86_64 or aarch64, and either root with
CAP_SYS_ADMIN (namespaces made directly; the program runs as nobody) or unprivileged
user namespaces (the program keeps the caller's id, mapped, without capabilities). Both
give: own process, network, mount and message namespaces; a file system of the Python
installation, system libraries and the packages that were asked for, read-only, and a
scratch folder in memory; no /proc;
a system-call filter; resource limits. Only the process count does not bind a real root
who forces the unprivileged way, which nothing here does."""

import base64
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from research.sandbox.limits import Limits, SandboxUnavailable
from research.sandbox.seccomp import deny_filter

Mode = Literal["isolated", "unprivileged", "limits"]
_CHILD = Path(__file__).with_name("child.py")
_PROGRAM = "program.py"
_END_SECONDS = 5.0
_TRIAL_SECONDS = 60.0
# Packages lie here, not where the host has them: that may be in somebody's home.
_PACKAGES = "/packages"
# Runs the program as if it were started by its name, with the packages on the path and
# nothing of this among its names. One thread: more would count as processes.
_START = f"""\
import posix, sys
sys.path.append({_PACKAGES!r})
posix.putenv("OPENBLAS_NUM_THREADS", "1")
sys.argv[:] = [{_PROGRAM!r}]
__file__ = "/box/{_PROGRAM}"
del posix, sys
exec(compile(open(__file__, "rb").read(), {_PROGRAM!r}, "exec"))
"""


@dataclass(frozen=True)
class Running:
    """A started program: its outermost process, and the pipe that tells its end."""

    process: subprocess.Popen
    control: int
    isolated: bool

    def kill(self) -> None:
        """End everything inside and wait until it is gone. Safe to call twice."""
        if self.process.poll() is not None:
            return
        if self.isolated:
            # The outer process ends the namespace, and itself when that is empty.
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
                return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Kill and close every pipe."""
        self.kill()
        os.close(self.control)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def start(
    source: str,
    limits: Limits,
    files: Mapping[str, str | bytes] | None = None,
    *,
    mode: Mode = "isolated",
    read_only: Sequence[str] = (),
    packages: Sequence[str] = (),
    scratch: str | None = None,
) -> Running:
    """Start `python -I -S` on a source with empty environment; pipes for its streams.

    files: name -> content in the scratch folder, which is the working folder.
    read_only: further absolute paths that the program may read.
    packages: names of Python packages that it may import, as far as this host has them;
    none in mode 'limits'.
    mode: 'isolated' picks by privilege; 'unprivileged' forces that way; 'limits' has
    resource limits and, where known, the call filter only, in `scratch`: no sandbox.
    Raises ValueError for a file name that leaves the folder or is the program's."""
    given = {_PROGRAM: source, **{_checked(k): v for k, v in (files or {}).items()}}
    python = os.path.realpath(sys.executable)
    code = deny_filter(os.uname().machine)
    visible = [*_system_paths(python), *map(os.path.realpath, read_only)]
    shown = {} if mode == "limits" else _folders(tuple(packages))
    program = ["-c", _START] if shown else [_PROGRAM]
    plan = {
        "mode": "limits" if mode == "limits" else "isolated",
        "as_root": mode == "isolated",
        "limits": asdict(limits),
        "files": {k: _base64(v) for k, v in given.items()},
        "read_only": visible,
        "packages": shown,
        "base": scratch if mode == "limits" else _base([*visible, *shown]),
        "filter": code and _base64(code),
        "argv": [python, "-I", "-S", "-X", "utf8", *program],
    }
    control, write_end = os.pipe()
    try:
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(plan).encode())
            file.seek(0)
            process = subprocess.Popen(
                [python, "-I", "-S", str(_CHILD), str(file.fileno()), str(write_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                pass_fds=(file.fileno(), write_end),
                start_new_session=True,
            )
    except BaseException:
        os.close(control)
        raise
    finally:
        os.close(write_end)
    return Running(process, control, mode != "limits")


def require_isolation() -> None:
    """Raise SandboxUnavailable, with the reason, on a host that cannot isolate."""
    reason = why_not_isolated()
    if reason:
        raise SandboxUnavailable(
            f"this host cannot isolate untrusted programs: {reason}; expected Linux "
            "5.12 or newer on x86_64 or aarch64 that allows namespaces"
        )


class _Undecided(Exception):
    """The trial program neither ran nor failed in its time."""


def why_not_isolated() -> str | None:
    """None if a trial program ran isolated, else the reason.

    Found out once; but where the trial did not end in time, which says more of how busy
    the host is than of what it can, the next call tries again."""
    try:
        return _tried()
    except _Undecided as error:
        return str(error)


@functools.cache
def _tried() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"it runs {sys.platform}"
    machine = os.uname().machine
    if deny_filter(machine) is None:
        return f"no system-call filter for {machine}"
    trial = start("print(6 * 7)", Limits())
    try:
        output, _ = trial.process.communicate(timeout=_TRIAL_SECONDS)
        if output == b"42\n":
            return None
        messages = os.read(trial.control, 1 << 16).decode().splitlines()
        return next(
            (m["error"] for m in map(json.loads, messages) if "error" in m),
            "a trial program did not run",
        )
    except subprocess.TimeoutExpired:
        # Not returned, for what is returned is kept.
        raise _Undecided("a trial program did not end") from None
    finally:
        trial.close()


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"files: expected names inside the folder, got {name!r}")
    if str(path) == _PROGRAM:
        raise ValueError(f"files: {_PROGRAM!r} is the program itself")
    return str(path)


def _base64(data: str | bytes) -> str:
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return base64.b64encode(data).decode()


def _base(visible: Sequence[str]) -> str:
    """A folder to mount the new root over, above none of what it has to show."""
    for path in ("/mnt", "/media", "/srv", "/opt", "/tmp", "/sys"):
        above = any(Path(p).is_relative_to(path) for p in visible)
        if os.path.isdir(path) and not os.path.islink(path) and not above:
            return path
    raise SandboxUnavailable("no folder to mount the programs' file system over")


@functools.cache
def _folders(packages: tuple[str, ...]) -> dict[str, str]:
    """{where packages and their libraries are: where they are shown}."""
    shown = {}
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            folder = os.path.dirname(os.path.realpath(spec.origin))
            for path in (folder, f"{folder}.libs"):
                if os.path.isdir(path):
                    shown[path] = f"{_PACKAGES}/{os.path.basename(path)}"
    return shown


@functools.cache
def _system_paths(python: str) -> tuple[str, ...]:
    """The interpreter, its library and the system's, as far as they exist."""
    library = os.path.realpath(os.path.join(sys.base_prefix, "lib"))
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    wanted = dict.fromkeys([*system, library, python])
    return tuple(
        path
        for path in wanted
        if os.path.exists(path)
        # Below another one it is there already.
        and not any(p != path and Path(path).is_relative_to(p) for p in wanted)
    )
