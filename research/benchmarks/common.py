"""What the benchmarks share: the model, a process for each side, and the result file.

A side is a process of its own, with the allocator's best settings, that answers a line
of JSON with another. The sides take turns: both see the same load of the machine.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
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


class Side:
    """A side's process: ``python -m module --worker=name arguments``."""

    def __init__(self, module: str, name: str, *arguments: str):
        environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES, NO_TUNE: "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, f"--worker={name}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def ask(self, **question) -> dict:
        """The side's answer to one question."""
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended with code {self.process.wait()}")
        return json.loads(line)


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
