"""Compiles for a TPU slice on a machine without one, by the compiler in `libtpu`."""

import importlib.util
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from train.chips import Slice
from train.errors import ConfigError

# What libtpu asks a TPU host about; here nobody would answer.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIZE = r"([\d.]+)([BKMGT]?)"
TOO_MUCH = (
    re.compile(rf"\({SIZE}\) exceeds available HBM \({SIZE}\)"),
    re.compile(rf"Used {SIZE} of {SIZE} hbm"),
)


class Overflow(NamedTuple):
    """A program that needs more than there is; bytes of one device."""

    needed: float
    available: float


def slice_devices(where: Slice) -> list:
    """The devices of a slice, to make a mesh and compile for; they cannot compute.

    Raises ConfigError naming --topology: `libtpu` is not installed, or it knows no such
    slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "--topology: compiling for TPUs needs the package libtpu (no TPU); "
            "install it with: pip install -r requirements-tpu.txt"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = {}
    if where.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on TPU VMs
    if where.chips < 4:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=where.name, **options
        )
    except Exception as e:  # of several kinds, by the version of the plugin
        told = " ".join(str(e).split())[:300]
        raise ConfigError(f"--topology: {where.name}: {told}") from e
    return list(found.devices)


def compile_for(lowered: jax.stages.Lowered) -> jax.stages.Compiled | Overflow:
    """The program, or what it lacks. Other errors of the compiler pass."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        found = overflow(str(e))
        if found is None:
            raise
        return found


def overflow(message: str) -> Overflow | None:
    """What an error says about memory in HBM; None where it is about something else."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in TOO_MUCH:
        if found := pattern.search(message):
            number, unit, most, of = found.groups()
            return Overflow(float(number) * UNITS[unit], float(most) * UNITS[of])
    return None


def program_bytes(compiled: jax.stages.Compiled) -> int:
    """HBM that a program takes on one device while it runs, its arguments included."""
    stats = compiled.memory_analysis()
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return (
        stats.argument_size_in_bytes
        + max(0, results)
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )


def argument_shardings(lowered: jax.stages.Lowered, compiled) -> dict:
    """{(shape, dtype): sharding} of a program's arguments, as it was compiled."""
    given, tree = jax.tree.flatten(lowered.args_info)
    found = tree.flatten_up_to(compiled.input_shardings)  # None where not used
    pairs = zip(given, found, strict=True)
    return {(i.shape, i.dtype): sharding for i, sharding in pairs if sharding}
