"""Makes a slice run a command to its end: creating, starting, watching, restarting.

What is to be done next is read from the slice itself each time, so that whoever comes
later (the same command again, another laptop) goes on where things are. The commands
are in `research.slices`, the command line is in `research.launch`.
"""

import codecs
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from research import slice_workers, slices
from research.slices import Request
from train.cli import OK
from train.errors import ConfigError

FAILED, TOO_OFTEN, GCLOUD, STOPPED = 1, 4, 5, 75
LINES = 30  # of the log of a worker that failed
SILENCES = 10  # polls in a row that a slice may leave unanswered
SHOWN = 4000  # bytes of the log that one sees first on attaching


class CommandFailed(RuntimeError):
    """A command of gcloud or git failed; the message has its last lines."""


class Gone(RuntimeError):
    """The slice, a host or the run on it was taken away; the message says how."""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Runner(NamedTuple):
    """All by which this program touches the world.

    call: runs a command; show: the same, with its output shown as it comes in place of
    `out`, returns (how it ended, bytes shown); say: a line to the user
    poll, window: seconds between questions, and of log between two of them
    """

    call: Callable[[Sequence[str]], Done]
    show: Callable[[Sequence[str]], tuple[Done, int]]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
    poll: float = 30
    window: int = 60


def launch(request: Request, runner: Runner, restarts: int, root: Path) -> int:
    """The run from wherever it is to its end; returns the exit code."""
    for restart in range(restarts + 1):
        try:
            hosts = ready_slice(request, runner, again=restart > 0)
            offset = start(request, runner, hosts, root)
            return watch(request, runner, hosts, offset)
        except Gone as e:
            runner.say(f"interrupted: {e}; restart {restart + 1} of at most {restarts}")
    runner.say("no restart is left; the same command begins anew")
    return TOO_OFTEN


def look(request: Request, runner: Runner, queued: bool) -> dict | None:
    """gcloud's description of the VM or of its request; None where there is none."""
    done = runner.call(slices.describe(request, queued))
    if done.code == 0:
        return json.loads(done.out)
    if "NOT_FOUND" in done.err:
        return None
    raise CommandFailed(tail(f"describe {request.name}", done))


def ready_slice(request: Request, runner: Runner, again: bool) -> int:
    """Waits until the slice can be used, making what is missing; returns its hosts.

    Args:
      again: it was there before, so a zone without room for it is waited for.
    """
    told = None
    while True:
        # In this order: a request that is active has its VM already.
        queue = look(request, runner, queued=True)
        node = look(request, runner, queued=False)
        action = slices.next_step(request, queue, node)
        state = node["state"] if node else slices.queue_state(queue)
        if action == "ready":
            return len(node.get("networkEndpoints") or ()) or request.tpu.hosts
        if action == "delete":
            runner.say(f"{request.name} is {state}: deleting what is left of it")
            step(runner, slices.delete(request, queue is not None))
        elif action == "create":
            runner.say(f"creating {request.name}, {request.tpu.accelerator}")
            create(request, runner, patient=again)
        else:
            if state != told:
                runner.say(f"{request.name} is {state}: waiting")
            told = state
            runner.sleep(runner.poll)


def create(request: Request, runner: Runner, patient: bool) -> None:
    """Asks for the slice; raises CommandFailed where there is no room for it.

    Args:
      patient: waits a while instead; the caller asks again.
    """
    done = runner.call(slices.create(request))
    if not done.code or "ALREADY_EXISTS" in done.err:
        return
    full = re.search(r"capacity|RESOURCE_EXHAUSTED|stockout", done.err, re.IGNORECASE)
    if full and patient:
        runner.say("the zone has no room for it: waiting")
        runner.sleep(10 * runner.poll)
        return
    hint = "; --queued waits for room" if full and not request.queued else ""
    raise CommandFailed(tail(f"create {request.name}", done) + hint)


def start(request: Request, runner: Runner, hosts: int, root: Path) -> int:
    """The run started on all workers, unless it is going on there already.

    Returns: bytes of its log to leave out. Raises ConfigError where another run is.
    """
    workers = ask(request, runner)
    going = [w for w in workers if w.state == "running"]
    if any(w.run != request.run for w in going):
        raise ConfigError(
            f"--name: {request.name} has another run going on, of another commit or "
            "command; --attach to it, or --stop it first"
        )
    if going and slice_workers.verdict(workers, hosts) in ("running", "failed"):
        runner.say("the run is going on already")
        return shown_from(workers)
    if going:  # on some workers only: they would wait for the others for ever
        on_slice(request, runner, "stop the rest", slices.stop(request))
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/{slices.HOME}.tar.gz"
        pack = slices.archive(request, file)
        step(runner, [pack[0], "-C", str(root), *pack[1:]])
        runner.say(f"copying commit {request.commit[:12]} to {hosts} hosts")
        on_slice(request, runner, "copy the code", slices.copy(request, file))
    on_slice(request, runner, "unpack the code", slices.unpack(request))
    runner.say("installing the requirements: some minutes on a new slice")
    on_slice(request, runner, "install", slices.install(request))
    on_slice(request, runner, "start the run", slices.start(request))
    runner.say(f"started on {hosts} hosts: {shlex.join(request.command)}")
    say_how(request, runner.say)
    return 0


def watch(request: Request, runner: Runner, hosts: int, offset: int) -> int:
    """Shows worker 0's log from byte `offset` until the run ends on all workers.

    Returns the exit code; raises Gone where the run has to be started again.
    """
    silent = 0
    while True:
        shown = runner.show(slices.follow(request, offset, runner.window))
        offset += shown[1]
        check_there(request, runner)
        answer = runner.call(slices.status(request))
        workers = slice_workers.read_status(answer.out)
        how = slice_workers.verdict(workers, hosts)
        if how == "unknown":
            silent += 1
            if silent == SILENCES:
                raise CommandFailed(tail("cannot reach all workers", answer))
            runner.sleep(runner.poll)
            continue
        silent = 0
        if how != "running" and offset < workers[0].bytes:  # written in the meantime
            runner.show(slices.follow(request, offset, runner.window))
        if how == "finished":
            runner.say("the run ended well on all hosts; the slice is still there")
            say_how(request, runner.say)
            return OK
        if how == "stopped":
            runner.say("the run was stopped; the same command continues it")
            return STOPPED
        if how in ("interrupted", "idle"):
            if gone := slice_workers.lost(workers):
                wait_for_news(request, runner)
                raise Gone(f"the run lost a host: {told(gone)}")
            raise Gone("the system stopped the run")
        if how == "failed":
            wait_for_news(request, runner)
            return show_failure(request, runner, workers)
        if shown[0].code or workers[0].state != "running":
            runner.sleep(runner.poll)  # no log comes: do not ask without pause


def wait_for_news(request: Request, runner: Runner) -> None:
    """Raises Gone if it turns out soon that a spot slice was taken away.

    Its VMs do not go at once: the run fails on those that are left before the state of
    the slice says why.
    """
    for _ in range(4 if request.spot else 1):
        if request.spot:
            runner.sleep(runner.poll)
        check_there(request, runner)


def check_there(request: Request, runner: Runner) -> None:
    """Raises Gone for a slice that was taken away."""
    node = look(request, runner, queued=False)
    if node is None or node.get("state") in slices.GONE:
        state = "is deleted" if node is None else f"is {node['state']}"
        raise Gone(f"{request.name} {state}")


def show_failure(request: Request, runner: Runner, workers) -> int:
    """Shows why the first worker failed, ends the run on the others; returns 1."""
    failed = slice_workers.failures(workers)
    if any(w.state == "running" for w in workers):
        runner.call(slices.stop(request))
    first = failed[0]
    lines = runner.call(slices.last_lines(request, first.index, LINES)).out
    runner.say(f"the last lines of worker {first.index} ({first.host}):\n{lines}")
    runner.say(f"error: the run failed on {told(failed)}")
    say_how(request, runner.say)
    return FAILED


def told(workers: Sequence[slice_workers.Worker]) -> str:
    """Workers with how they ended, such as `workers 0 (76), 1 (lost)`."""
    return "workers " + ", ".join(f"{w.index} ({w.code or w.state})" for w in workers)


def attach(request: Request, runner: Runner) -> int:
    """Follows the run that is on the slice, or was the last one there."""
    hosts = existing(request, runner)
    workers = ask(request, runner)
    if slice_workers.verdict(workers, hosts) == "idle":
        raise ConfigError(f"--attach: there is no run on all workers of {request.name}")
    return watch(request, runner, hosts, shown_from(workers))


def stop(request: Request, runner: Runner) -> int:
    """Has the run save and end on all workers."""
    existing(request, runner)
    on_slice(request, runner, "stop the run", slices.stop(request))
    for w in ask(request, runner):
        code = "" if w.code is None else f", exit code {w.code}"
        runner.say(f"worker {w.index}: {w.state}{code}")
    return OK


def delete(request: Request, runner: Runner) -> int:
    """Deletes the slice and its request, whichever there are."""
    queue = look(request, runner, queued=True)
    node = look(request, runner, queued=False)
    if queue or node:
        step(runner, slices.delete(request, queue is not None))
    runner.say(f"{request.name} " + ("is deleted" if queue or node else "is not there"))
    return OK


def existing(request: Request, runner: Runner) -> int:
    """Hosts of a slice that can be reached; raises ConfigError where there is none."""
    node = look(request, runner, queued=False)
    if node is None:
        raise ConfigError(f"--name: no slice {request.name} in {request.zone}")
    if node.get("state") != "READY":
        raise ConfigError(f"--name: {request.name} is {node['state']}; expected READY")
    return len(node.get("networkEndpoints") or ()) or 1


def ask(request: Request, runner: Runner) -> list[slice_workers.Worker]:
    """How the run is on each worker."""
    out = on_slice(request, runner, "ask the workers", slices.status(request)).out
    return slice_workers.read_status(out)


def shown_from(workers: Sequence[slice_workers.Worker]) -> int:
    return max(0, workers[0].bytes - SHOWN) if workers else 0


def on_slice(request: Request, runner: Runner, what: str, command: list[str]) -> Done:
    """`step`, but raises Gone if the slice is no longer there."""
    done = runner.call(command)
    if done.code:
        check_there(request, runner)
        raise CommandFailed(tail(what, done))
    return done


def step(runner: Runner, command: list[str]) -> Done:
    """Runs a command; raises CommandFailed unless it succeeds."""
    done = runner.call(command)
    if done.code:
        raise CommandFailed(tail(shlex.join(command[:6]), done))
    return done


def tail(what: str, done: Done, lines: int = 8) -> str:
    last = "\n  ".join((done.err.strip() or done.out.strip()).splitlines()[-lines:])
    return f"{what}: exit code {done.code}\n  {last}"


def call(command: Sequence[str]) -> Done:
    """Runs a command to its end, its output kept."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, errors="replace"
    )
    return Done(done.returncode, done.stdout, done.stderr)


def show(command: Sequence[str]) -> tuple[Done, int]:
    """Runs a command and passes its output on to stdout.

    Returns: how it ended, and how many bytes were passed on.
    """
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    size = 0
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            while chunk := process.stdout.read1(1 << 16):
                # As text: what stands for stdout may have no bytes (notebooks, tests).
                print(decode(chunk), end="", flush=True)
                size += len(chunk)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            process.stdout.close()
        errors.seek(0)
        err = errors.read().decode(errors="replace")
    return Done(process.returncode, "", err), size


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def say_how(request: Request, say: Callable[[str], None]) -> None:
    project = [f"--project={request.project}"] if request.project else []
    where = [f"--name={request.name}", f"--zone={request.zone}", *project, "--yes"]
    for verb in ("attach", "stop", "delete"):
        line = shlex.join(["python", "-m", "research.launch", *where, f"--{verb}"])
        say(f"  {verb + ':':<8}{line}")
