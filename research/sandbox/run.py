"""Running programs one by one or many at once, and judging what they print.

The expected output stays here, in the parent, and is compared with what came through
the pipe: a program can neither read it nor pretend to be the one who compares."""

import json
import math
import os
import re
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from research.sandbox.launch import Mode, Running, require_isolation, start
from research.sandbox.limits import (
    Limits,
    ProgramResult,
    SandboxError,
    SlowSetUp,
    Status,
)

_SETUP_SECONDS = 30.0
_SAMPLE_SECONDS = 0.05  # between two looks at the clock and the resident memory
_CHUNK = 1 << 16
PACKAGES = ("numpy",)  # that programs may import, beside the standard library
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# One way to read each text: with two, a long word that is no number takes hours.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


class Case(NamedTuple):
    """One test of a program: what it reads and what it has to print."""

    stdin: str
    expected: str


@dataclass(frozen=True)
class Job:
    """One program to run, see `run_program`."""

    source: str
    stdin: str = ""
    files: Mapping[str, str | bytes] | None = None


def run_program(
    source: str,
    stdin: str = "",
    limits: Limits | None = None,
    files: Mapping[str, str | bytes] | None = None,
    *,
    mode: Mode = "isolated",
) -> ProgramResult:
    """Run an untrusted Python program on a standard input; see `launch` and `Limits`.

    files: name -> content, put into the scratch folder, where the program starts.
    mode: 'limits' has to be asked for by name and is no sandbox: resource limits only,
    and none of `PACKAGES`. A set-up that takes too long is tried once more.
    Raises SandboxUnavailable on a host that cannot isolate, SandboxError if one set-up
    failed, ValueError for a bad file name; never because of what the program does."""
    limits = limits or Limits()
    if mode != "limits":
        require_isolation()
    try:
        return _run(source, stdin, limits, files, mode)
    except SlowSetUp:
        # Nothing of the program ran, and one of many runs must not lose the others.
        return _run(source, stdin, limits, files, mode)


def _run(source, stdin, limits, files, mode) -> ProgramResult:
    if mode != "limits":
        running = start(source, limits, files, mode=mode, packages=PACKAGES)
        return _watch(running, stdin, limits)
    with tempfile.TemporaryDirectory() as scratch:
        running = start(source, limits, files, mode=mode, scratch=scratch)
        return _watch(running, stdin, limits)


def run_many(
    jobs: Iterable[Job],
    limits: Limits | None = None,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    mode: Mode = "isolated",
) -> list[ProgramResult]:
    """`run_program` for every job, `workers` at a time; results in the jobs' order.

    progress(done, total) is called in the calling thread, in order."""
    jobs = list(jobs)

    def run(job):
        return run_program(job.source, job.stdin, limits, job.files, mode=mode)

    results = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for result in pool.map(run, jobs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(jobs))
    return results


def passes(result: ProgramResult, expected: str) -> bool:
    """Ended well, and printed the expected words, line by line.

    White space between words, and empty lines at either end, do not count; empty lines
    in between do. Of two numbers one of which is no integer it is enough that they are
    near, as `numpy.allclose` has it: |a - b| <= 1e-8 + 1e-5 |expected|.

    APPS's own checker accepts more, which is wrong here: integers that are only near;
    empty lines in between left out; the lines in any order, and the words of a line, or
    some of them repeated (it compares sets of sets, rounded to three digits)."""

    def lines(text):
        return [line.split() for line in text.strip().splitlines()]

    if result.status != "ok":
        return False
    found, wanted = lines(result.stdout), lines(expected)
    return list(map(len, found)) == list(map(len, wanted)) and all(
        same_word(a, b)
        for row, other in zip(found, wanted, strict=True)
        for a, b in zip(row, other, strict=True)
    )


def same_word(word: str, expected: str) -> bool:
    """Equal, or two numbers, not both integers, that are near: see `passes`."""
    if word == expected:
        return True
    if not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(expected)):
        return False
    if _INTEGER.fullmatch(word) and _INTEGER.fullmatch(expected):
        return False
    a, b = float(word), float(expected)
    # An integer of over 308 digits is infinite as a float, and all are near to that.
    finite = math.isfinite(a) and math.isfinite(b)
    return finite and abs(a - b) <= 1e-8 + 1e-5 * abs(b)


def judge(
    source: str,
    cases: Sequence[Case],
    limits: Limits | None = None,
    *,
    workers: int = 1,
    stop_at_failure: bool = False,
) -> list[bool]:
    """Whether the program passes each case, in a fresh process for each.

    With stop_at_failure all cases from the first failure on are False, unrun: enough
    for strict accuracy."""
    if not stop_at_failure:
        jobs = [Job(source, case.stdin) for case in cases]
        results = run_many(jobs, limits, workers=workers)
        return [passes(r, c.expected) for r, c in zip(results, cases, strict=True)]
    verdicts = [False] * len(cases)
    for i, case in enumerate(cases):
        verdicts[i] = passes(run_program(source, case.stdin, limits), case.expected)
        if not verdicts[i]:
            break
    return verdicts


def _watch(running: Running, stdin: str, limits: Limits) -> ProgramResult:
    """Feed, read, and end the program when it passes a limit."""
    streams = [running.process.stdout, running.process.stderr, running.control]
    out, err, control = (bytearray() for _ in streams)
    buffers = dict(zip(streams, (out, err, control), strict=True))
    pending = memoryview(stdin.encode("utf-8", "surrogatepass"))
    status: Status | None = None
    begun, started = time.monotonic(), None
    try:
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream, selectors.EVENT_READ)
            pipe = running.process.stdin
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE)
            sampled = begun
            while status is None and streams:
                for key, _ in selector.select(_SAMPLE_SECONDS):
                    if key.fileobj is pipe:
                        pending = _feed(pipe, pending)
                        if not pending:
                            selector.unregister(pipe)
                            pipe.close()
                        continue
                    data = os.read(key.fd, _CHUNK)
                    buffers[key.fileobj] += data
                    if not data:
                        selector.unregister(key.fileobj)
                        streams.remove(key.fileobj)
                now = time.monotonic()
                if started is None and control:
                    started = now
                if max(len(out), len(err)) > limits.output_bytes:
                    status = "output"
                elif started is None:
                    if now - begun > _SETUP_SECONDS:
                        raise SlowSetUp("the set-up of a program did not end")
                elif now - started > limits.wall_seconds:
                    status = "timeout"
                elif now - sampled >= _SAMPLE_SECONDS:
                    sampled = now
                    if _resident(running.process.pid) > limits.memory_bytes:
                        status = "memory"
    finally:
        running.close()
    seconds = time.monotonic() - (started or begun)
    told = {}
    for line in control.splitlines():
        told |= json.loads(line)
    if "error" in told:
        raise SandboxError(told["error"])
    code = told.get("returncode") if status is None else None
    texts = [b[: limits.output_bytes].decode("utf-8", "replace") for b in (out, err)]
    status = status or _status(code, told.get("cpu", 0.0), texts[1], limits)
    return ProgramResult(status, code, texts[0], texts[1], seconds)


def _feed(pipe, pending: memoryview) -> memoryview:
    """Write what fits; nothing is left to write once the reader is gone."""
    if not pending:
        return pending
    try:
        return pending[os.write(pipe.fileno(), pending[:_CHUNK]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        return pending[:0]


def _status(code: int | None, cpu: float, stderr: str, limits: Limits) -> Status:
    if code == 0:
        return "ok"
    if code is None:
        return "killed"
    if code < 0:
        # Reported and enforced processor time differ by a few clock ticks.
        spent = code == -signal.SIGKILL and cpu >= 0.9 * limits.cpu_seconds
        return "timeout" if spent or code == -signal.SIGXCPU else "killed"
    last = stderr.rstrip().rpartition("\n")[2]
    return "memory" if last.startswith("MemoryError") else "error"


def _resident(root: int) -> int:
    """Bytes resident in a process and all below it; 0 where the kernel cannot tell."""
    total, page, seen = 0, os.sysconf("SC_PAGE_SIZE"), [root]
    for pid in seen:
        # A process may end while it is looked at.
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text()
                seen += map(int, children.split())
    return total
