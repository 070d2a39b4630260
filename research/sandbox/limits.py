"""What a program may use, and what came of it."""

from dataclasses import dataclass, fields
from typing import Literal

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclass(frozen=True)
class Limits:
    """Ceilings of one run. Raises ValueError, naming the field, for one below 1.

    cpu_seconds counts per process, wall_seconds from the program's first instruction.
    memory_bytes bounds the address space of each process and the resident memory of
    all of them together (sampled). scratch_bytes and scratch_files bound the scratch
    folder, which lies in memory and is gone after the run. processes counts threads
    too. Standard output and standard error may each have output_bytes."""

    cpu_seconds: int = 4
    wall_seconds: float = 10.0
    memory_bytes: int = 512 << 20
    scratch_bytes: int = 16 << 20
    scratch_files: int = 256
    open_files: int = 64
    processes: int = 8
    output_bytes: int = 1 << 20

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            real = field.name == "wall_seconds"
            kind = (int, float) if real else int
            good = isinstance(value, kind) and not isinstance(value, bool)
            if not (good and value > 0):
                expected = "a number" if real else "an integer"
                raise ValueError(
                    f"limits.{field.name}: expected {expected} above 0, got {value!r}"
                )


@dataclass(frozen=True)
class ProgramResult:
    """The end of a run. Only status 'ok' may be scored: all else is a failure.

    'ok': exit code 0. 'error': another exit code. 'timeout': CPU or wall clock.
    'memory': the resident memory of all processes passed the limit, or Python said
    MemoryError. 'output': too much of it; what came first is kept. 'killed': a signal
    that no limit of ours explains. returncode is None where the run was cut short, and
    minus the signal as in `subprocess`. seconds is wall time without the set-up."""

    status: Status
    returncode: int | None
    stdout: str
    stderr: str
    seconds: float


class SandboxUnavailable(RuntimeError):
    """The host cannot isolate programs; the message says what is missing."""

    user_error = True


class SandboxError(RuntimeError):
    """Setting up one run failed although the host can isolate programs."""


class SlowSetUp(SandboxError):
    """Setting up one run took too long: the host may be busy."""
