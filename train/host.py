"""The allocator of a CPU run: glibc told to keep the memory that XLA asks for.

XLA's CPU client allocates and frees hundreds of megabytes per step. By default glibc
returns them to the kernel each time and gets them back page by page: about 200,000 page
faults a step on a model of 4.5M parameters, a third of the step. These settings keep
the memory in the process and back it with huge pages. glibc reads them when a process
starts, so the command is executed again with them set.
"""

import os
import platform
import sys

TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (
        ("hugetlb", 1),  # transparent huge pages
        ("mmap_max", 0),  # large blocks from the heap, which is kept
        ("trim_threshold", 20_000_000_000),
        ("arena_max", 1),
        ("top_pad", 300_000_000),
    )
)
TUNED = "SALIGN_TUNED"
NO_TUNE = "SALIGN_NO_TUNE"


def tune_host() -> None:
    """Executes this command again with the allocator tuned, where that helps.

    Call it first in an entry point, under `if __name__ == "__main__"`: nothing that has
    happened in the process survives. Set SALIGN_NO_TUNE=1 to leave the process alone.
    """
    if wants_tuning(os.environ, sys.modules):
        environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES, TUNED: "1"}
        # Else libtpu, where it is installed for `train.plan`, would look for a TPU.
        environment.setdefault("JAX_PLATFORMS", "cpu")
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def wants_tuning(environment, modules) -> bool:
    """Whether `tune_host` would start the command anew."""
    return (
        sys.platform == "linux"
        and platform.libc_ver()[0] == "glibc"
        and not {"GLIBC_TUNABLES", TUNED, NO_TUNE} & set(environment)
        and "pytest" not in modules
        and "ipykernel" not in modules
        and uses_cpu(environment)
    )


def uses_cpu(environment) -> bool:
    """Whether JAX will compute on the CPU, as far as one can tell before it starts."""
    platforms = environment.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    accelerators = ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0", "/dev/kfd")
    return not any(os.path.exists(path) for path in accelerators)
