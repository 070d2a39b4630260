"""An experiment of stages that only wait and write, for tests of workers.

    python -m tests.helpers.staged WORKDIR JOBS [--from=STAGE] [--worker]

`a` and `b` need nothing, `c` needs both. A stage leaves a line in WORKDIR/log when it
begins and one when it ends; a file WORKDIR/<stage>.do says what it does in between.
WORKDIR/<stage>.flags is what XLA was told.
"""

import os
import signal
import sys
import time
from pathlib import Path

from research.stages import CONTINUES, Plan, RunInfo, execute
from research.workers import Workers, serve
from train.cli import BAD_INPUT, OK, PREEMPTED
from train.errors import ConfigError, Preempted


def work(folder, called, parts=()):
    workdir = folder.parents[2]

    def note(what):
        with open(workdir / "log", "a") as f:
            f.write(f"{called} {what} {time.time()}\n")

    note("begins")
    (workdir / f"{called}.flags").write_text(os.environ.get("XLA_FLAGS", ""))
    todo = workdir / f"{called}.do"
    match todo.read_text() if todo.exists() else "":
        case "wait":
            time.sleep(0.5)
        case "hang":
            time.sleep(60)
        case "refuse":
            raise ConfigError("no such thing")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "quit":
            os._exit(0)
    print(f"{called} speaks")
    note("ends")
    return {"text": called + "".join(p.value["text"] for p in parts)}


def plan():
    made = Plan()
    parts = [made.stage(name, work, called=name) for name in "ab"]
    made.stage("c", work, called="c", parts=parts)
    return made


def main(argv) -> int:
    workdir, jobs = Path(argv[0]), int(argv[1])
    if "--worker" in argv:
        serve(plan(), workdir, RunInfo(workdir=workdir), CONTINUES)
        return OK
    command = [sys.executable, "-m", "tests.helpers.staged", *argv, "--worker"]
    workers = Workers(jobs, command) if jobs > 1 else None
    redo = next((a.removeprefix("--from=") for a in argv if "--from=" in a), None)
    results = execute(plan(), workdir, workers=workers, redo_from=redo)
    print(results["c"].value["text"])
    return OK


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except Preempted as e:
        print(f"stopped: {e}", file=sys.stderr)
        code = PREEMPTED
    except Exception as e:
        print(f"error: {e}", file=sys.stderr)
        code = BAD_INPUT
    sys.exit(code)
