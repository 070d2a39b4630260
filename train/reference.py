"""Log-probs of preference pairs under the reference policy, computed once."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from data.batch import PairBatch, PairExample
from data.batches import Batches, eval_batches
from models.config import DecoderConfig
from train.distributed import by_first
from train.files import write_atomic
from train.losses import chunk_columns
from train.preference import pair_log_probs
from train.step import own_rows, placer


def reference_log_probs(
    cfg: DecoderConfig,
    params,
    pairs: Sequence[PairExample],
    *,
    batch_size: int,
    length: int,
    pad_id: int,
    mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
    """Log-probs of chosen and rejected, float32 [N, 2], in nats, summed over tokens."""
    layout = {"batch_size": batch_size, "length": length, "pad_id": pad_id}
    given = own_rows(eval_batches(pairs, **layout), mesh)
    place = placer(mesh)

    @jax.jit
    def score(params, batch: PairBatch):
        return pair_log_probs(cfg, params, batch, chunk=pair_chunk(cfg, batch, mesh))[0]

    found, waiting = [], None
    for batch in given:
        waiting, done = score(params, place(batch)), waiting
        found += [] if done is None else [_gather(done)]
    return np.concatenate([*found, _gather(waiting)])[: len(pairs)]


def cached_log_probs(
    file: Path | None, key: str, cfg: DecoderConfig, params, pairs: Batches, mesh
) -> np.ndarray:
    """`reference_log_probs` of the rows of `pairs`, from `file` where it has them.

    It has them if it was written under the same `key`; else it is written anew.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()
    saved = _saved(file, digest) if jax.process_index() == 0 else None
    # What one process finds there another might not, and they compute together.
    if by_first(lambda: saved is not None):
        return _from_first(saved, (sum(map(len, pairs.rows)), 2))
    log_probs = reference_log_probs(
        cfg,
        params,
        [pair for row in pairs.rows for pair in row],
        batch_size=pairs.batch_size,
        length=max(len(s.tokens) for row in pairs.rows for p in row for s in p[:2]),
        pad_id=pairs.pad_id,
        mesh=mesh,
    )
    if file is not None and jax.process_index() == 0:
        content = io.BytesIO()
        np.savez(content, key=digest, log_probs=log_probs)
        write_atomic(file, content.getvalue())
    return log_probs


def _saved(file: Path | None, digest: str) -> np.ndarray | None:
    """The log-probs that a file holds under that key, None without."""
    if file is None or not file.exists():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as saved:
            if str(saved["key"]) == digest:
                return saved["log_probs"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        pass  # not a file of ours, or not whole: made anew
    return None


def _from_first(values: np.ndarray | None, shape) -> np.ndarray:
    """The float32 values of process 0 in every process."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    own = np.zeros(shape, np.float32) if values is None else values
    return multihost_utils.broadcast_one_to_all(own)


def _gather(x) -> np.ndarray:
    """Rows of all processes, in order, on the host."""
    if x.is_fully_addressable:
        return jax.device_get(x)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(x, tiled=True)


def pair_chunk(cfg: DecoderConfig, batch: PairBatch, mesh) -> int | None:
    """`chunk` for `pair_log_probs` of a batch: see `train.losses.chunk_columns`."""
    rows, length = batch.chosen.tokens.shape
    ways = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    return chunk_columns(max(1, 2 * rows // ways), length, cfg.vocab_size)
