"""Quiet, offline, CPU; and the checkpoint factory that parity tests share."""

import gc
import os
import signal
import threading
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: unoptimised code compiles three times faster,
# with the older code generator of fusions twice as fast again; in one piece a program
# holds a quarter of the memory maps.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
# A shell that starts the suite in the background has Ctrl-C ignored, and children would
# inherit that: those that are interrupted by a test never ended.
ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
if ignored and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# A busy machine makes tests slow, not wrong.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


MAPS = Path("/proc/self/maps")
MANY_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
    """Programs of one file are not kept for the next.

    Every compiled program holds memory maps, of which Linux allows a process 65,530:
    the suite in one process came to its end by that, in the middle of a compilation.
    What cycles hold goes when there are many of them: to look for it takes a second.
    """
    yield
    jax.clear_caches()
    if not MAPS.exists() or MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        gc.collect()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """make(name) -> a `helpers.checkpoints.Made` of that name, built once."""
    from helpers import checkpoints

    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / name
            made[name] = checkpoints.make(name, folder)
        return made[name]

    return make
