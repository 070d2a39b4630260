"""Stages at the same time, in worker processes.

The parent decides what runs when; a worker reads names of stages from its standard
input, runs each as `research.stages` does, and answers with a line of its own. Results
pass through the run's folder alone, so a run may change the number of its workers at
any time. Workers share the parent's lock on that folder: should the parent be killed,
no other run begins there before they have ended.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from research.interrupts import interruptible
from research.records import StageError
from research.stages import Handle, Plan, RunInfo, Status, run_stage
from train.errors import Preempted


def environment(outer: Mapping[str, str], jobs: int, cores: int) -> dict[str, str]:
    """That of one of `jobs` workers at a time on a machine of so many cores.

    With a worker per core, XLA's matrix products do not spread over threads: those of
    one worker would wait for those of another. The results have the same bits.
    """
    if jobs < cores or "xla_cpu_multi_thread_eigen" in outer.get("XLA_FLAGS", ""):
        return dict(outer)
    flags = f"{outer.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    return {**outer, "XLA_FLAGS": flags.strip()}


class Workers:
    """At most `jobs` processes of `command`, each of which calls `serve`."""

    def __init__(self, jobs: int, command: Sequence[str]):
        self._jobs, self._command = jobs, list(command)
        # Workers that run alone, and workers that share the cores.
        self._idle: dict[bool, list[subprocess.Popen]] = {True: [], False: []}
        self._alone: set[subprocess.Popen] = set()
        self._busy: dict[subprocess.Popen, Handle] = {}

    def run(
        self,
        todo: Sequence[Status],
        label: Callable[[Handle], str],
        say: Callable[[str], None],
        lock,
        command: str,
    ) -> None:
        """Runs the stages `todo`, each after those of them that it depends on.

        Of those that could run, the first declared goes first. `command` is what
        continues the run, in words. Raises SystemExit with a
        worker's exit code when a stage failed there (it has said why), StageError when
        one was killed, Preempted on SIGINT or SIGTERM; the others are stopped first.
        """
        waiting = {status.handle: status.reason for status in todo}
        try:
            with interruptible():
                while waiting or self._busy:
                    unmet = {*waiting, *self._busy.values()}
                    ready = [h for h in waiting if not unmet & set(h.dependencies)]
                    # Nothing can begin beside it before it ends, so that it may have
                    # every core: the stages of one seed are a chain at first.
                    alone = not self._busy and len(ready) == 1
                    for handle in ready[: self._jobs - len(self._busy)]:
                        say(f"{label(handle)}: running ({waiting.pop(handle)})")
                        self._begin(handle, lock, alone)
                    handle, seconds = self._next_done()
                    say(f"{label(handle)}: {seconds:.1f} s")
        except KeyboardInterrupt:
            raise Preempted(f"what is finished is kept, {command} continues") from None
        finally:
            self._end()

    def _begin(self, handle: Handle, lock, alone: bool) -> None:
        idle = self._idle[alone]
        worker = idle.pop() if idle else self._start(lock, alone)
        self._busy[worker] = handle
        with contextlib.suppress(BrokenPipeError):  # its end is seen in _next_done
            worker.stdin.write(f"{handle.name} {handle.fingerprint}\n")
            worker.stdin.flush()

    def _start(self, lock, alone: bool) -> subprocess.Popen:
        # In a session of its own: Ctrl-C reaches the parent only, which passes it on
        # once. A training loop takes a second signal as an order to drop everything.
        worker = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
            env=environment(
                os.environ, 1 if alone else self._jobs, os.cpu_count() or 1
            ),
        )
        if alone:
            self._alone.add(worker)
        return worker

    def _next_done(self) -> tuple[Handle, float]:
        """Waits for a worker to finish its stage; returns the stage and its seconds."""
        by_file = {worker.stdout: worker for worker in self._busy}
        ready, _, _ = select.select(list(by_file), [], [])
        worker = by_file[ready[0]]
        answer = worker.stdout.readline()
        handle = self._busy.pop(worker)
        if answer.endswith("\n"):
            self._idle[worker in self._alone].append(worker)
            return handle, float(answer)
        code = worker.wait()
        if code > 0:
            raise SystemExit(code)
        how = "ended without an answer"
        if code:
            how = f"was killed by {signal.Signals(-code).name} (out of memory, perhaps)"
        raise StageError(
            f"stage {handle.name!r}: its process {how}; what is finished is kept"
        )

    def _end(self) -> None:
        """Lets idle workers go and stops busy ones, which save what they have."""
        for worker in self._busy:
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()
        everyone = [*self._idle[True], *self._idle[False], *self._busy]
        for worker in everyone:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()
        try:
            for worker in everyone:
                worker.wait()
        finally:  # interrupted once more: at once, then
            for worker in everyone:
                worker.kill()
                worker.wait()
                worker.stdout.close()
            self._idle, self._busy = {True: [], False: []}, {}
            self._alone.clear()


def serve(plan: Plan, workdir: Path, info: RunInfo, command: str) -> None:
    """A worker: runs the stages whose names arrive on standard input, until it ends.

    What a stage prints goes to standard error, behind its name. Raises StageError over
    a stage that the parent declared otherwise: the config was edited in between.
    """
    answers = os.fdopen(os.dup(1), "w")
    by_name = {handle.name: handle for handle in plan.handles}
    for line in iter(sys.stdin.readline, ""):
        name, fingerprint = line.split()
        handle = by_name.get(name)
        if handle is None or handle.fingerprint != fingerprint:
            raise StageError(
                f"stage {name!r}: the config or the code changed since this run began; "
                "run the command again"
            )
        with _prefixed(f"{name}: "):
            seconds = run_stage(plan, workdir, handle, info, command)
        print(seconds, file=answers, flush=True)


@contextlib.contextmanager
def _prefixed(prefix: str):
    """Sends what is printed to standard error, with a prefix before every line."""
    shown = _Lines(sys.stderr, prefix)
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        yield
    shown.write("\n" if shown.pending else "")


class _Lines:
    """A text stream that passes whole lines on, each behind a prefix."""

    def __init__(self, stream, prefix: str):
        self._stream, self._prefix, self._rest = stream, prefix, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._stream.write(f"{self._prefix}{line}\n")
        return len(text)

    @property
    def pending(self) -> bool:
        """Whether a line was begun and not ended."""
        return bool(self._rest)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False  # bars of several stages would overwrite each other
