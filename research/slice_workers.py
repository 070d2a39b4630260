"""How a run is on the workers of a slice, by what `launch/worker.sh status` says."""

import re
import signal
from collections.abc import Sequence
from typing import NamedTuple

from train.cli import LOST, OK, PREEMPTED

LOST_CODES = (LOST, 128 + signal.SIGABRT)


class Worker(NamedTuple):
    """How one worker's run is (see `launch/worker.sh`).

    run: the id that it was started with, or '-'; state: as there, or 'absent' before
    the code came; code: exit code, None while it runs; bytes: of its log
    """

    host: str
    run: str
    state: str
    code: int | None
    bytes: int

    @property
    def index(self) -> int:
        """The number that gcloud's --worker takes; VMs are named ...-w-NUMBER."""
        match = re.search(r"-w-(\d+)$", self.host)
        return int(match[1]) if match else 0


def read_status(out: str) -> list[Worker]:
    """The workers that answered, in order; everything else in the output is ignored."""
    line = r"^salign-worker (\S+) (\S+) ([a-z]+) (-|\d+) (\d+)\r?$"
    found = [
        Worker(host, run, state, None if code == "-" else int(code), int(size))
        for host, run, state, code, size in re.findall(line, out, re.MULTILINE)
    ]
    return sorted(found, key=lambda w: w.index)


def lost(workers: Sequence[Worker]) -> list[Worker]:
    """Those that a lost host ended: itself without a code, or the others beside it.

    Of those it is told by `train.cli` (76) or by JAX's service, which aborts them (134,
    SIGABRT); where there is no other host, an abort is a failure.
    """
    told = LOST_CODES if len(workers) > 1 else ()
    return [
        w
        for w in workers
        if w.state == "lost" or (w.state == "exited" and w.code in told)
    ]


def failures(workers: Sequence[Worker]) -> list[Worker]:
    """Those whose run ended by itself: not well, not saved, not by a lost host."""
    others = lost(workers)
    return [
        w
        for w in workers
        if w.state == "exited" and w.code not in (OK, PREEMPTED) and w not in others
    ]


def verdict(workers: Sequence[Worker], hosts: int) -> str:
    """How the run is as a whole.

    Returns: 'unknown' (some did not answer), 'failed', 'running', 'stopped' (somebody
    asked for it), 'interrupted' (it saved, exit code 75, or lost a host, and may go on
    on others: the same command continues), 'finished', or 'idle' (there is no run).
    """
    if len(workers) < hosts:
        return "unknown"
    states = {w.state for w in workers}
    if failures(workers):
        return "failed"
    if states & {"absent", "idle"}:
        return "idle"
    if lost(workers) and "stopped" not in states:
        return "interrupted"
    if "running" in states:
        return "running"
    if "stopped" in states:
        return "stopped"
    return "interrupted" if any(w.code == PREEMPTED for w in workers) else "finished"
