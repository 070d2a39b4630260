"""Runs a command on all hosts of a TPU slice; restarts it when they are taken away.

    python -m research.launch --tpu=v5e-64 --zone=us-west4-a --name=ppo --queued \
        --spot -- python -m train.ppo --config=configs/ppo.py:prm800k --workdir=gs://B/ppo
        --yes             do it; without, only print the commands, to read or to paste
        --queued          wait in the queue for the slice (else it must be free now)
        --spot            cheaper, and may be taken away at any time
        --restarts=N      at most so many restarts, see below (default 20)
        --project=P, --runtime=IMAGE    instead of gcloud's project, the usual image
        --shared_workdir  all hosts mount the command's --workdir, which is not on gs://
    python -m research.launch --name=ppo --zone=us-west4-a --yes --attach
        --attach          follow the run's log (the launch command, given again, does
                          that as well, and restarts after preemptions)
        --stop            have the run save and end; the slice stays
        --delete          delete the slice: until then it costs

A command of train gets `--distributed=auto` where the slice has several hosts. It makes
the slice, unless it is there, copies the code of HEAD to all hosts, installs
requirements.txt and requirements-tpu.txt, starts the command on each, detached, and
shows worker 0's log. Ctrl-C ends the showing, not the run. A slice that was taken away
is deleted and made again; where one host was lost (exit codes 76 and 134 on the others)
the rest is stopped. Then the same command is started again: it continues from its
--workdir, which therefore has to be on gs://, in a bucket whose objects the slice's
service account may read and write (roles/storage.objectAdmin); checkpoints and data may
be there, too. After each step the same launch command goes on where it is.

Exit codes: 0 the run ended well on all hosts, 1 it failed on one (its last lines are
shown), 2 wrong input, 4 interrupted too often, 5 gcloud or git failed, 75 the run was
stopped with --stop after saving, 130 detached by Ctrl-C: the run goes on.
"""

import re
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from models.paths import is_remote
from research import slice_runs, slices
from research.slice_runs import Runner
from research.slices import Request
from train.cli import BAD_INPUT, BUG, INTERRUPTED, OK
from train.errors import ConfigError
from train.remote import SHAPE

ROOT = Path(__file__).parents[1]


def main(argv: Sequence[str], runner: Runner | None = None, root: Path = ROOT) -> int:
    """The whole program on a command line; returns the exit code."""
    runner = runner or Runner(
        slice_runs.call, slice_runs.show, time.sleep, slice_runs.say
    )
    request = None
    try:
        values, command = parse(argv)
        if values.help:
            print(__doc__)
            return OK
        request = read_request(values, command)
        if command:
            check_workdir(request, values.shared_workdir, runner.say)
        if values.yes and not shutil.which("gcloud"):
            raise ConfigError(
                "--yes: gcloud is not on PATH; expected the Google Cloud CLI: "
                "https://cloud.google.com/sdk/docs/install"
            )
        if request.command:
            request = request._replace(commit=check_code(request, runner, root))
        if not values.yes:
            print_commands(commands(request, values))
            runner.say("nothing was done: this is a dry run; --yes does it")
            return OK
        if values.attach:
            return slice_runs.attach(request, runner)
        if values.stop:
            return slice_runs.stop(request, runner)
        if values.delete:
            return slice_runs.delete(request, runner)
        return slice_runs.launch(request, runner, values.restarts, root)
    except slice_runs.CommandFailed as e:
        return report("error", e, slice_runs.GCLOUD)
    except slice_runs.Gone as e:
        return report(
            "interrupted", f"{e}; the launch command goes on", slice_runs.TOO_OFTEN
        )
    except KeyboardInterrupt:
        runner.say(
            "\ndetached: what was started goes on, and the slice costs until deleted"
        )
        if request:
            slice_runs.say_how(request, runner.say)
        return INTERRUPTED
    except Exception as e:
        if getattr(e, "user_error", False):
            return report("error", e, BAD_INPUT)
        traceback.print_exc()
        return BUG


def define_flags(values: flags.FlagValues) -> None:
    given = {"flag_values": values}
    flags.DEFINE_bool("help", False, "show this help", **given)
    flags.DEFINE_string("name", None, "of the slice", **given)
    flags.DEFINE_string("zone", None, "of the slice, e.g. us-west4-a", **given)
    flags.DEFINE_string("tpu", None, "kind and size, e.g. v5e-64 or v5e:8x8", **given)
    flags.DEFINE_string("project", None, "of Google Cloud", **given)
    flags.DEFINE_string("runtime", None, "image of the VMs", **given)
    flags.DEFINE_bool("queued", False, "wait in the queue for the slice", **given)
    flags.DEFINE_bool("spot", False, "a slice that may be taken away", **given)
    flags.DEFINE_integer("restarts", 20, "at most so many", 0, **given)
    flags.DEFINE_bool("shared_workdir", False, "all hosts mount --workdir", **given)
    flags.DEFINE_bool("yes", False, "run the commands", **given)
    flags.DEFINE_bool("attach", False, "follow the run", **given)
    flags.DEFINE_bool("stop", False, "have the run save and end", **given)
    flags.DEFINE_bool("delete", False, "delete the slice", **given)


def parse(argv: Sequence[str]) -> tuple[flags.FlagValues, tuple[str, ...]]:
    """(flags, the run's command): what stands before and after the first `--`.

    Raises ConfigError for flags that are unknown or have wrong values.
    """
    own = list(argv[1:])
    cut = own.index("--") if "--" in own else len(own)
    values = flags.FlagValues()
    define_flags(values)
    try:
        extra = values([argv[0], *own[:cut]])[1:]
    except flags.Error as e:
        raise ConfigError(" ".join(str(e).split())) from e
    if extra:
        raise ConfigError(
            f"unexpected argument {extra[0]!r}; the run's command comes after `--`"
        )
    return values, tuple(own[cut + 1 :])


# What Google Cloud allows; and so that nothing is taken for a flag of gcloud.
SHAPES = {
    "name": (r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and -"),
    "zone": (r"[a-z]+(-[a-z]+)+[0-9]+-[a-z]", "a zone such as us-west4-a"),
    "project": (r"([a-z0-9.-]+:)?[a-z][-a-z0-9]*", "the id of a project"),
    "runtime": (r"[a-z0-9][-a-z0-9._]*", "an image such as v2-alpha-tpuv5-lite"),
}


def read_request(values: flags.FlagValues, command: tuple[str, ...]) -> Request:
    """The flags as a request; raises ConfigError for what does not fit together."""
    for flag, (shape, expected) in SHAPES.items():
        value = values[flag].value
        if value is None and flag in ("name", "zone"):
            raise ConfigError(f"--{flag}: missing; expected {expected}")
        if value is not None and not re.fullmatch(shape, value):
            raise ConfigError(f"--{flag}: expected {expected}, got {value!r}")
    chosen = [f for f in ("attach", "stop", "delete") if values[f].value]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[1]}: not together with --{chosen[0]}")
    if chosen and command:
        raise ConfigError(f"--{chosen[0]}: takes no command, got {command[0]!r}")
    if not chosen:
        if not values.tpu:
            raise ConfigError("--tpu: missing; expected e.g. v5e-64 or v5e:8x8")
        if not command:
            raise ConfigError(
                "the run's command is missing; expected `-- python -m ...` at the end"
            )
    tpu = slices.parse_tpu(values.tpu) if values.tpu else None
    if tpu and tpu.hosts > 1:
        command = joining(command, tpu.hosts)
    return Request(
        values.name, values.zone, values.project, tpu, values.queued, values.spot,
        values.runtime, command=command,
    )  # fmt: skip


def joining(command: tuple[str, ...], hosts: int) -> tuple[str, ...]:
    """The command of a run on several hosts, whose processes find one another.

    Raises ConfigError for an experiment, of which each host would make its own.
    """
    if "research.run" in command:
        raise ConfigError(
            f"--tpu: research.run works on one host, this slice has {hosts}; expected "
            "a smaller slice, or a command of train"
        )
    ways = ("--distributed", "--nodistributed", "--coordinator")
    told = any(word.partition("=")[0] in ways for word in command)
    if told or not any(word.startswith("train.") for word in command):
        return command
    return (*command, "--distributed=auto")


def check_workdir(request: Request, shared: bool, say: Callable[[str], None]) -> None:
    """Raises ConfigError for a --workdir that the run would refuse, or would lose.

    A spot slice takes its disks along; what research.run makes is only on disks. Hosts
    have disks of their own, unless it is `shared`.
    """
    workdir = option(request.command, "--workdir")
    experiment = "research.run" in request.command
    if workdir and is_remote(workdir):
        if experiment:
            raise ConfigError(
                "--workdir: research.run keeps its stages on a local disk; expected a "
                f"folder of the slice, got {workdir!r}"
            )
        if not SHAPE.fullmatch(workdir):
            raise ConfigError(f"--workdir: expected gs://BUCKET/NAME, got {workdir!r}")
        return
    if request.spot and experiment:
        raise ConfigError(
            "--spot: a preempted slice takes its disks along, where research.run keeps "
            "its stages; leave --spot out"
        )
    if request.spot:
        raise ConfigError(
            f"--spot: a preempted slice takes its disks along; expected "
            f"--workdir=gs://... in the command, got {workdir!r}"
        )
    if request.tpu.hosts == 1 or shared:
        return
    lone = f"is a folder of its own on each of the {request.tpu.hosts} hosts"
    if workdir or any(word.startswith("train.") for word in request.command):
        raise ConfigError(
            f"--workdir: {workdir} {lone}; expected gs://BUCKET/NAME, or "
            "--shared_workdir where all mount it"
        )
    say(f"warning: what the command writes on disk {lone}; gs://... is shared")


def option(command: Sequence[str], name: str) -> str | None:
    """The value of `--name=VALUE` or `--name VALUE`; the last one wins."""
    found = None
    for word, after in zip(command, [*command[1:], None], strict=True):
        if word == name:
            found = after
        elif word.startswith(name + "="):
            found = word.partition("=")[2]
    return found


def check_code(request: Request, runner: Runner, root: Path) -> str:
    """HEAD's commit; warns of what is not in it.

    Raises ConfigError for a config that is not in it: the slice would not have it.
    """
    if not shutil.which("git"):
        raise ConfigError("git is not on PATH; the code is copied with git archive")
    commit = git(runner, root, "rev-parse", "HEAD").strip()
    changed = git(runner, root, "status", "--porcelain").splitlines()
    if changed:
        runner.say(
            f"warning: {len(changed)} uncommitted changes are not copied, "
            f"e.g. {changed[0][3:]}; the slice gets commit {commit[:12]}"
        )
    needed = ["requirements.txt", "requirements-tpu.txt", slices.WORKER_FILE]
    config = option(request.command, "--config")
    if config:
        needed.append(config.partition(":")[0])
    for path in needed:
        exists = ["git", "-C", str(root), "cat-file", "-e", f"{commit}:{path}"]
        if runner.call(exists).code:
            raise ConfigError(
                f"{path}: not in commit {commit[:12]}, which is what is copied; "
                "expected a path from the repository's root: commit the file"
            )
    return commit


def git(runner: Runner, root: Path, *arguments: str) -> str:
    return slice_runs.step(runner, ["git", "-C", str(root), *arguments]).out


def commands(request: Request, values) -> list[tuple[str, list[str]]]:
    """(what it is for, command) in the order in which they run on a new slice."""
    ends = [
        ("have the run save and end", slices.stop(request)),
        ("delete the slice", slices.delete(request, request.queued)),
    ]
    if values.stop:
        return ends[:1]
    if values.delete:
        return ends[1:]
    watch = [
        ("worker 0's log", slices.follow(request, 0, 10**6)),
        ("how it ended on each worker", slices.status(request)),
    ]
    if values.attach:
        return watch
    file = f"{tempfile.gettempdir()}/{slices.HOME}-{request.commit[:12]}.tar.gz"
    tpu = request.tpu
    size = f"{tpu.accelerator}: {tpu.chips} chips, {tpu.shape}, on {tpu.hosts} hosts"
    waiting = ("again until it is ACTIVE", slices.describe(request, True))
    return [
        (f"a slice {size}", slices.create(request)),
        *([waiting] if request.queued else []),
        (f"the code of commit {request.commit[:12]}", slices.archive(request, file)),
        ("... to every host", slices.copy(request, file)),
        ("... unpacked", slices.unpack(request)),
        ("the environment", slices.install(request)),
        ("the run, detached", slices.start(request)),
        *watch,
        *ends,
    ]


def print_commands(steps: Sequence[tuple[str, list[str]]]) -> None:
    """Prints commands such that a shell can run them as they are."""
    for what, command in steps:
        print(f"# {what}\n{shlex.join(command)}")


def report(kind: str, error, code: int) -> int:
    slice_runs.say(f"{kind}: {error}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
