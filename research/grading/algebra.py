"""Equality of formulas by sympy, in a long-lived process that can be lost.

The process runs in the sandbox, with limits on time and memory. An answer that makes it
hang or die is unequal; the next question starts another. On a host without isolation
it runs with resource limits alone: what comes in is data for our own parser there."""

import atexit
import functools
import importlib.util
import json
import os
import selectors
import tempfile
import threading
import time
from pathlib import Path

from research.sandbox.launch import Running, start, why_not_isolated
from research.sandbox.limits import Limits, SandboxError

_START_SECONDS = 60.0
_REPLY_SECONDS = 5.0  # the worker itself stops after 1 to 2 of processor time
_TOO_SOON = 0.5
_LIMITS = Limits(
    cpu_seconds=10**6,
    memory_bytes=512 << 20,
    scratch_bytes=1 << 20,
    processes=1,
)


class Algebra:
    """A worker, started at the first question and again after each one that kills it.

    Safe to share between threads. `starts` counts its processes."""

    def __init__(self):
        self.starts = 0
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._owner = 0
        self._scratch = None

    def equal(self, a: str, b: str) -> bool:
        """Whether two formulas of `worker`'s language are equal; False if undecided."""
        question = json.dumps([a, b]).encode() + b"\n"
        with self._lock:
            begun = time.monotonic()
            reply = self._ask(question)
            if reply is None and time.monotonic() - begun < _TOO_SOON:
                # It may have died of something else, before it read this.
                reply = self._ask(question)
            return reply == b"true"

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _ask(self, question: bytes) -> bytes | None:
        """The line it answers; None, and the process ended, if none came in time."""
        self._ensure_started()
        try:
            self._running.process.stdin.write(question)
            reply = self._line(_REPLY_SECONDS)
        except BrokenPipeError:
            reply = None
        if reply is None:
            self._stop()
        return reply

    def _ensure_started(self) -> None:
        running = self._running
        # After a fork the pipes belong to the parent.
        if running and (
            self._owner != os.getpid() or running.process.poll() is not None
        ):
            self._stop()
        if self._running is None:
            self._start()

    def _start(self) -> None:
        mode = "limits" if why_not_isolated() else "isolated"
        self._scratch = tempfile.TemporaryDirectory() if mode == "limits" else None
        folders = [
            Path(importlib.util.find_spec(name).origin).resolve().parent
            for name in ("sympy", "mpmath")
        ]
        path = list(dict.fromkeys(str(folder.parent) for folder in folders))
        self._running = start(
            Path(__file__).with_name("worker.py").read_text("utf-8"),
            _LIMITS,
            {"path.json": json.dumps(path)},
            mode=mode,
            read_only=tuple(map(str, folders)),
            scratch=self._scratch and self._scratch.name,
        )
        self._owner = os.getpid()
        self.starts += 1
        if self._line(_START_SECONDS) != b"ready":
            self._stop()
            raise SandboxError("the algebra worker did not start")

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None and self._owner == os.getpid():
            running.close()
            if self._scratch is not None:
                self._scratch.cleanup()

    def _line(self, seconds: float) -> bytes | None:
        pipe, line, deadline = self._running.process.stdout, b"", time.monotonic()
        deadline += seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                data = os.read(pipe.fileno(), 4096)
                if not data:
                    return None
                line += data
        return line.strip()


_shared = Algebra()
atexit.register(_shared.close)


@functools.lru_cache(1 << 16)
def _equal(a: str, b: str) -> bool:
    return _shared.equal(a, b)


def equal_formulas(a: str, b: str) -> bool:
    """`Algebra.equal` by one worker that this process shares; answers are kept."""
    return _equal(*sorted((a, b)))
