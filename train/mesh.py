"""The device mesh: named axes over all devices, and how batches lie on it."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from models.sharding import MESH_AXES
from train.errors import ConfigError


def make_mesh(
    data: int = 1,
    fsdp: int = -1,
    tensor: int = 1,
    sequence: int = 1,
    devices=None,
) -> Mesh:
    """A mesh with axes `data, fsdp, tensor, sequence`; one size may be -1: the rest.

    Raises:
      ConfigError: sizes that do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict(zip(MESH_AXES, (data, fsdp, tensor, sequence), strict=True))
    for axis, size in sizes.items():
        if type(size) is not int or (size < 1 and size != -1):
            raise ConfigError(f"mesh.{axis} is {size!r}; expected an int >= 1, or -1")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError(f"mesh: only one axis may be -1, not {' and '.join(free)}")
    product = math.prod(size for size in sizes.values() if size != -1)
    told = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
    if free:
        if len(devices) % product:
            raise ConfigError(
                f"mesh: {told}: {len(devices)} devices do not divide by {product}"
            )
        sizes[free[0]] = len(devices) // product
    elif product != len(devices):
        raise ConfigError(
            f"mesh: {told} makes {product}, but there are {len(devices)} devices"
        )
    return jax.make_mesh(
        tuple(sizes.values()),
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
        devices=devices,
    )


def row_parts(mesh: Mesh) -> tuple[tuple[int, ...], ...]:
    """The parts of a batch that each process has on its devices, by process.

    A batch is `data` x `fsdp` equal parts of its rows, in order. Processes whose
    devices share parts, as an axis `tensor` across them makes it, have all the same.

    Raises:
      ConfigError: processes that share some of their parts, not all.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    found: dict[int, set[int]] = {}
    for part, devices in enumerate(mesh.devices.reshape(ways, -1)):
        for device in devices:
            found.setdefault(device.process_index, set()).add(part)
    parts = tuple(tuple(sorted(found[process])) for process in sorted(found))
    if sum(map(len, set(parts))) != ways or len(set(map(len, parts))) > 1:
        raise ConfigError(
            f"mesh: {dict(mesh.shape)} gives processes parts of a batch that overlap, "
            f"{parts}; expected tensor x sequence to divide the devices of a process, "
            "or to be a multiple of them"
        )
    return parts


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over `data` and `fsdp`; every device sees whole rows.

    Over `sequence` activations are split by columns, batches are not: 16 bytes a token.
    """
    return NamedSharding(mesh, P(("data", "fsdp")))


def column_parts(mesh: Mesh | None, length: int) -> int:
    """The parts that columns of activations [B, T, ...] lie in: 1 if uneven."""
    parts = 1 if mesh is None else mesh.shape["sequence"]
    return 1 if length % parts else parts


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, P())
