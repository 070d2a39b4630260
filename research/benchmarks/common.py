"""What the benchmarks share: the model, a process for each side, and the result file.

A side is a process of its own, with the allocator's best settings, that answers a line
of JSON with another. The sides take turns: both see the same load of the machine.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from train.host import NO_TUNE, TUNABLES

MODEL = {"vocab": 512, "width": 256, "layers": 4, "heads": 8, "ffn": 1024}
CORES = len(os.sched_getaffinity(0))


def require(*modules: str) -> None:
    """Ends the command with exit code 2 and what to install, if a module is missing."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        names = " and ".join(missing)
        print(
            f"error: this benchmark compares with {names}, which this environment has "
            "not: run `make test-env` first",
            file=sys.stderr,
        )
        sys.exit(2)


def decoder_config(max_position: int = 2048):
    """The benchmark's model as a `DecoderConfig`."""
    from models.config import DecoderConfig

    return DecoderConfig(
        vocab_size=MODEL["vocab"],
        d_model=MODEL["width"],
        n_layers=MODEL["layers"],
        n_heads=MODEL["heads"],
        n_kv_heads=MODEL["heads"],
        d_ff=MODEL["ffn"],
        head_dim=MODEL["width"] // MODEL["heads"],
        max_position=max_position,
    )


class SideEnded(RuntimeError):
    """A side's process ended instead of answering; says what it said last."""


class Side:
    """A side's process: a command that answers a line of JSON with another.

    log: a file for its other output; None leaves it on the terminal.
    """

    def __init__(self, command: Sequence[str], log: Path | None = None):
        environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES, NO_TUNE: "1"}
        # Else libtpu, where it is installed, would look for a TPU.
        environment.setdefault("JAX_PLATFORMS", "cpu")
        self.log = log
        with nullcontext() if log is None else open(log, "w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self._answer()

    def ask(self, **question) -> dict:
        """The side's answer to one question."""
        with suppress(BrokenPipeError):  # it has ended: there is no answer either
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            said = "" if self.log is None else f": {last_lines(self.log)}"
            raise SideEnded(f"a side ended with code {code}{said}")
        return json.loads(line)


def own_side(module: str, name: str, *arguments: str) -> Side:
    """A side in this environment: ``python -m module --worker=name arguments``."""
    return Side([sys.executable, "-m", module, f"--worker={name}", *arguments])


def last_lines(file: Path, count: int = 3) -> str:
    """The last lines of a file that say something, as one."""
    lines = [x.strip() for x in file.read_text(errors="replace").splitlines()]
    return " | ".join([x for x in lines if x][-count:]) or "(it said nothing)"


def serve(answer: Callable[..., dict]) -> None:
    """A side's loop: `Side.ask(**question)` gets ``answer(**question)``."""
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def write(result: dict, path: Path | None) -> None:
    """Writes the result as JSON, if there is a path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written: {path}")
