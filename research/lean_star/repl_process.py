"""One REPL process: questions with a deadline, a watch on its memory, a sure end.

The protocol has neither time-outs nor cancellation, so a question that takes too long
ends the process, with its whole group (`lake env` starts the REPL as its child), and
nothing but that group. No signals of our own are used: any thread may ask.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from research.lean_star.repl_protocol import ProtocolError, Reply, decode, encode

_WATCH_SECONDS = 0.2
_TAIL_BYTES = 4096
_MOST_BYTES = 64 << 20  # of one reply, which is kept in memory until it ends
_END_SECONDS = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Lost(Exception):
    """The process is gone, killed if need be; what it knew must be told to another."""


class Hung(Lost):
    """No whole reply before the deadline."""


class Died(Lost):
    """It ended by itself, perhaps in the middle of a reply, or could not be started."""


class Garbled(Lost):
    """It said what the protocol does not allow, or something that nobody asked for."""


class Overgrown(Lost):
    """Its memory passed the bound while it worked, or its reply did."""


class ReplProcess:
    """A started REPL. One thread at a time may ask; any may kill or close."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None = None,
        variables: Mapping[str, str] | None = None,
    ):
        """Starts `command` in a process group of its own; Died where it cannot be."""
        try:
            self._process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env=None if variables is None else dict(variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise Died(f"{command[0]!r} cannot be started: {error}") from error
        for pipe in self._pipes():
            os.set_blocking(pipe.fileno(), False)
        self.pid = self._process.pid
        self._received = bytearray()
        self._complaints = b""
        self._asking, self._ending = threading.RLock(), threading.Lock()
        # Also when it is forgotten or the interpreter ends; not in a forked copy of us.
        self._finalizer = weakref.finalize(
            self, _end, self._process, self._asking, os.getpid()
        )

    def ask(
        self, request: dict, seconds: float, memory_bytes: int | None = None
    ) -> Reply:
        """The reply to a request of `repl_protocol`.

        Raises ValueError for text that is not Unicode, before anything is sent; one of
        the kinds of Lost otherwise, after the end of the process.
        """
        data = encode(request)
        deadline = time.monotonic() + seconds
        with self._asking:
            try:
                return decode(self._exchange(data, deadline, seconds, memory_bytes))
            except ProtocolError as error:
                self.kill()
                raise Garbled(str(error)) from error
            except BaseException:
                # Also when interrupted: a reply may come that nobody will read.
                self.kill()
                raise

    def memory(self) -> int:
        """Resident bytes of the process and its children (what they map included)."""
        return group_memory(self.pid)

    def complaints(self) -> str:
        """The end of what it wrote on standard error."""
        return self._complaints.decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """Ends the process group at once. Safe to call twice."""
        with self._ending:
            self._finalizer()
        _shut(self._process, self._asking)

    def close(self) -> None:
        """Lets an idle process end by itself, which it does at the end of its input."""
        with self._ending:
            if self._finalizer.alive and self._asking.acquire(blocking=False):
                self._process.stdin.close()
                _wait_unreaped(self.pid, _END_SECONDS)
                self._asking.release()
            self._finalizer()
        _shut(self._process, self._asking)

    def _exchange(self, data, deadline, seconds, memory_bytes) -> bytes:
        if self._process.stdin.closed:
            raise Died("was ended before")
        with selectors.DefaultSelector() as waiting:
            return self._converse(waiting, data, deadline, seconds, memory_bytes)

    def _converse(self, waiting, data, deadline, seconds, memory_bytes) -> bytes:
        stdin, stdout, stderr = self._pipes()
        self._take_waiting(stdout)
        if self._received:
            raise Garbled(f"unasked: {bytes(self._received[:120])!r}")
        waiting.register(stdin, selectors.EVENT_WRITE)
        waiting.register(stdout, selectors.EVENT_READ)
        waiting.register(stderr, selectors.EVENT_READ)
        watched = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise Hung(f"no reply within {seconds:g} s{self._said()}")
            if memory_bytes is not None and now - watched > _WATCH_SECONDS:
                watched, used = now, self.memory()
                if used > memory_bytes:
                    raise Overgrown(f"{used >> 20} MiB, of {memory_bytes >> 20} MiB")
            for key, _ in waiting.select(min(deadline - now, _WATCH_SECONDS)):
                if key.fileobj is stdin:
                    data = data[self._write(stdin, data) :]
                    if not data:
                        waiting.unregister(stdin)
                    continue
                got = os.read(key.fd, 1 << 16)
                if key.fileobj is stderr:
                    self._complaints = (self._complaints + got)[-_TAIL_BYTES:]
                    if not got:
                        waiting.unregister(stderr)
                    continue
                if not got:
                    raise Died(self._last_words())
                # The empty line may come in two parts, hence one byte further back.
                start = max(0, len(self._received) - 1)
                self._received += got
                end = self._received.find(b"\n\n", start)
                if end >= 0:
                    reply = bytes(self._received[:end])
                    del self._received[: end + 2]
                    if data:
                        raise Garbled(f"a reply before the question: {reply[:120]!r}")
                    return reply
                if len(self._received) > _MOST_BYTES:
                    raise Overgrown(f"a reply of more than {_MOST_BYTES} bytes")

    def _write(self, stdin, data: bytes) -> int:
        try:
            return os.write(stdin.fileno(), data[: 1 << 16])
        except BrokenPipeError:
            raise Died(self._last_words()) from None

    def _take_waiting(self, stdout) -> None:
        with contextlib.suppress(BlockingIOError):
            self._received += os.read(stdout.fileno(), 1 << 16)

    def _last_words(self) -> str:
        where = "in the middle of a reply" if self._received.strip() else "by itself"
        with contextlib.suppress(BlockingIOError):
            got = os.read(self._process.stderr.fileno(), 1 << 16)
            self._complaints = (self._complaints + got)[-_TAIL_BYTES:]
        self.kill()
        code = self._process.returncode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        return f"ended {where}, {how}{self._said()}"

    def _said(self) -> str:
        said = self.complaints()
        return f"; it said: {said[-300:]}" if said else ""

    def _pipes(self):
        return self._process.stdin, self._process.stdout, self._process.stderr


def group_memory(group: int) -> int:
    """Resident bytes of all processes of a group; 0 where /proc does not tell."""
    pages = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name, which may hold anything: state, parent, group, ...
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                pages += int(fields[21])
    return pages * _PAGE


def _wait_unreaped(pid: int, seconds: float) -> None:
    """Waits for a child to end, without taking its exit code: its id stays taken."""
    deadline = time.monotonic() + seconds
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PID, pid, flags) is None:
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)


def _end(process: subprocess.Popen, asking, owner: int) -> None:
    if os.getpid() != owner:
        return
    # Until it is waited for, no other group can have its number.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _shut(process, asking)


def _shut(process: subprocess.Popen, asking) -> None:
    """Closes the pipes, unless another thread reads: it sees their end, and calls."""
    if asking.acquire(blocking=False):
        try:
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()
        finally:
            asking.release()
