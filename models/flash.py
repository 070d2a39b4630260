"""Attention of long rows: which implementation, and how it is spread over a mesh.

Dense attention (`models.attention`) holds [B, N, T, T] scores and [B, T, T] masks. The
others hold blocks of them and know who sees whom from places and segments: a kernel
for TPUs (`models.splash`), cuDNN's for GPUs (`models.cudnn`), and plain XLA everywhere
(`models.chunked`).

Letters: B batch, T time, N heads, K kv heads, H head dim.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from models import cudnn, splash
from models.chunked import At, chunked_attention
from models.config import DecoderConfig
from models.sharding import ROWS, fitting

# What "auto" calls long. On a CPU, rows of 2048 take dense attention four times as much
# time, those of 512 1.4 times; masks and scores of shorter ones weigh little.
LONG = 2048

Kind = Literal["dense", "chunked", "splash", "cudnn"]


class Places(NamedTuple):
    """What the tokens of rows see of one another, in the place of masks.

    at: At [B, T]
    slides: whether the config's window applies: bool, or bool [] where layers differ
    """

    at: At
    slides: bool | jax.Array | None = None


class Split(NamedTuple):
    """The mesh axes that attention is split over; None: not split.

    heads and columns: of queries; kv_heads: of keys, whose columns are whole.
    """

    heads: str | tuple[str, ...] | None
    kv_heads: str | tuple[str, ...] | None
    columns: str | None


def places(positions, segment_ids) -> Places:
    """Of rows of int32 [B, T]: segment 0 is padding, of which each sees itself only."""
    own = -1 - jnp.arange(positions.shape[1], dtype=segment_ids.dtype)
    return Places(At(positions, jnp.where(segment_ids > 0, segment_ids, own)))


def implementation(cfg: DecoderConfig, length: int) -> Kind:
    """What computes rows of T = length; see `DecoderConfig.attention`."""
    kind = cfg.attention
    if kind == "auto":
        if length < LONG:
            return "dense"
        best = {"tpu": "splash", "gpu": "cudnn"}.get(_platform(cfg), "chunked")
        # The kernels round float32.
        kind = best if cfg.compute_dtype == jnp.bfloat16 else "chunked"
    if kind == "splash":
        parts = 1 if cfg.mesh is None else _ways(cfg.mesh, _split(cfg, length).columns)
        if not splash.takes(length, parts, cfg.head_dim):
            return "chunked"
    if kind == "cudnn":
        whole = cfg.mesh is None or _split(cfg, length).columns is None
        if not (whole and cudnn.takes(cfg.compute_dtype, cfg.head_dim)):
            return "chunked"
    return kind


def attention(cfg: DecoderConfig, q, k, v, seen: Places):
    """Attention within rows, by anything but dense: [B, N, T, H] in q's dtype.

    Args:
      q: [B, N, T, H]; k, v: [B, K, T, H].
    """

    def attend(window, q, k, v, at):
        if cfg.mesh is None:
            return _attend(cfg, window, q, k, v, at, at)
        return _spread(cfg, window, q, k, v, at)

    full, near = partial(attend, None), partial(attend, cfg.sliding_window)
    if isinstance(seen.slides, bool):
        return (near if seen.slides else full)(q, k, v, seen.at)
    return jax.lax.cond(seen.slides, near, full, q, k, v, seen.at)


def _attend(cfg, window, q, k, v, queries: At, keys: At, offset=None, kernel=None):
    """On one device; offset: the place of the first query, where columns are split."""
    kind = implementation(cfg, k.shape[2])
    if kind == "splash":
        if kernel is None:
            kernel = _kernel(cfg, q.shape[1], k.shape[2], window)
        return splash.splash_attention(kernel, q, k, v, queries.ids, keys.ids)
    if kind == "cudnn":
        return cudnn.cudnn_attention(q, k, v, queries, window=window)
    return chunked_attention(
        q, k, v, queries, keys, offset, window=window, precision=cfg.precision
    )


def _kernel(cfg, heads: int, length: int, window, parts: int = 1):
    interpret = _platform(cfg) != "tpu"
    return splash.make_kernel(heads, length, window, parts, interpret)


def _spread(cfg, window, q, k, v, at: At):
    """Over the mesh: rows, heads, and what is left of the axis `sequence`: columns.

    Columns of activations lie on that axis. Where heads divide, each device of it gets
    all columns of some heads (all-to-all; Jacobs et al. 2023, Ulysses). Else it keeps
    its queries and gets all keys (all-gather): few, where query heads share them. The
    last device then has the most to do: its queries see the most keys.
    """
    mesh, N, T = cfg.mesh, q.shape[1], q.shape[2]
    split = _split(cfg, T)
    rows = fitting(q.shape[:1], mesh, ROWS)[0]
    queries = P(rows, split.heads, split.columns, None)
    keys = P(rows, split.kv_heads, None, None)
    by_columns, whole = P(rows, split.columns), P(rows, None)
    heads = N // _ways(mesh, split.heads)
    kernel, kernel_spec = None, None
    if implementation(cfg, T) == "splash":
        kernel = _kernel(cfg, heads, T, window, _ways(mesh, split.columns))
        along = NamedSharding(mesh, P(None, split.columns))
        kernel_spec = kernel.manual_sharding_spec(along)

    def on_device(q, k, v, queries, keys, kernel):
        offset = None
        if split.columns is not None:
            offset = jax.lax.axis_index(split.columns) * q.shape[2]
        if split.heads is not None and split.kv_heads is None:
            k, v = (_serving(x, N, heads, split.heads) for x in (k, v))
        return _attend(cfg, window, q, k, v, queries, keys, offset, kernel)

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(queries, keys, keys, by_columns, whole, kernel_spec),
        out_specs=queries,
        check_vma=False,
    )(q, k, v, at, at, kernel)


def _serving(x, N: int, heads: int, axis: str):
    """The kv heads of a device's query heads, of all [B, K, T, H], which lie on it.

    One, where they share it; else one for each of them.
    """
    group = N // x.shape[1]
    count = 1 if group % heads == 0 else heads
    first = jax.lax.axis_index(axis) * heads
    which = (first + jnp.arange(count) * (heads // count)) // group
    return jnp.take(x, which, axis=1)


def _split(cfg, length: int) -> Split:
    """The axes of the mesh that divide heads and columns."""
    mesh, N, K = cfg.mesh, cfg.n_heads, cfg.n_kv_heads
    both = ("tensor", "sequence")
    if mesh.shape["sequence"] > 1 and not K % _ways(mesh, both):
        return Split(both, both, None)
    heads, kv_heads = (
        "tensor" if not n % mesh.shape["tensor"] else None for n in (N, K)
    )
    divides = mesh.shape["sequence"] > 1 and not length % mesh.shape["sequence"]
    return Split(heads, kv_heads, "sequence" if divides else None)


def _ways(mesh, axes) -> int:
    axes = (axes,) if isinstance(axes, str) else axes or ()
    ways = 1
    for axis in axes:
        ways *= mesh.shape[axis]
    return ways


def _platform(cfg) -> str:
    """That of the devices computed on, which need not be this machine's."""
    if isinstance(cfg.mesh, Mesh):
        return cfg.mesh.devices.flat[0].platform
    return jax.default_backend()
