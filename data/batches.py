"""Batches addressed by their step: the data of step s is a function of (seed, s) alone.

Rows (examples, or bins of packed examples) are shuffled anew in every epoch by Grain's
index shuffle and laid end to end; batch s takes rows s*B .. (s+1)*B of that stream. So
every row occurs exactly once per epoch, nothing is dropped or padded at its end (a
batch may span two epochs), and resuming is arithmetic. With length buckets each bucket
has such a stream, and they take turns in proportion to their rows."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.batch import Batch, Example, PairExample, collate, count, size
from data.errors import DataError
from data.packing import pack

EMPTY = -1  # stands for a row that is all padding
STREAM = (
    2**40
)  # rows of a training stream; Grain's arithmetic overflows on endless ones

Row = tuple[Example, ...]


@dataclass(frozen=True)
class Batches:
    """`batches[step]` is a batch of numpy arrays [B, T], or a process's share.

    It is a TokenBatch, a LabelBatch or a PairBatch, as the examples are.

    `plan[step]` is (T, row numbers [B]); `len` is that of the plan, in training a
    number beyond reach. `steps_per_epoch` rounds up. `fingerprint` is a SHA-256 of the
    contents and the settings: equal fingerprints mean equal batches."""

    rows: tuple[Row, ...]
    plan: Any
    batch_size: int
    pad_id: int
    steps_per_epoch: int
    fingerprint: str
    process: tuple[int, int] = (0, 1)  # index, count: which of so many equal shares

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} is not in 0 .. {len(self) - 1}")
        length, numbers = self.plan[step]
        index, count = self.process
        each = self.batch_size // count
        share = numbers[index * each : (index + 1) * each]
        rows = [() if i == EMPTY else self.rows[i] for i in share]
        return collate(rows, length, self.pad_id, type(self.rows[0][0]))

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(len(self)))

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of one pass over the data, padding not counted."""
        return sum(count(example) for row in self.rows for example in row)

    def for_process(self, index: int, count: int) -> "Batches":
        """The share of one of `count` hosts; joined in order they are the batch."""
        if self.batch_size % count:
            raise DataError(
                f"batch_size: {self.batch_size} rows do not divide "
                f"among {count} processes"
            )
        return replace(self, process=(index, count))

    def for_parts(self, own: Sequence[int], all_parts: Sequence) -> "Batches":
        """The share of a host whose devices hold the parts `own` of a batch.

        A batch is equal parts of its rows, numbered in order. all_parts: those of every
        host; hosts that hold the same ones load the same rows, others share none."""
        shares = sorted(set(map(tuple, all_parts)))
        parts = [part for share in shares for part in share]
        if self.batch_size % len(parts):
            raise DataError(
                f"batch_size: {self.batch_size} rows do not divide "
                f"into {len(parts)} parts"
            )
        whole = self
        if parts != sorted(parts):
            rows = np.arange(self.batch_size).reshape(len(parts), -1)
            whole = replace(self, plan=_Dealt(self.plan, rows[parts].reshape(-1)))
        return whole.for_process(shares.index(tuple(own)), len(shares))

    def iterate(self, start: int = 0, prefetch: int = 2) -> Iterator[Batch]:
        """Batches from step `start` on, the next `prefetch` made ahead by a thread.

        `close()` ends the thread; so does dropping the iterator."""
        import grain

        source = grain.MapDataset.range(start, len(self)).map(self.__getitem__)
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
        return iter(source.to_iter_dataset(options))


@dataclass(frozen=True)
class _Dealt:
    """A plan whose rows are reordered such that those of a host are together."""

    plan: Any
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int):
        length, numbers = self.plan[step]
        return length, np.asarray(numbers)[self.order]


def batches(
    examples: Sequence[Example] | Sequence[Sequence[Example]],
    *,
    batch_size: int,
    length: int,
    pad_id: int,
    seed: int,
    packing: bool = False,
    shuffle: bool = True,
    buckets: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> Batches:
    """Endless training batches of examples that are at most `length` tokens long.

    packing joins examples into rows of at most `length` tokens, once for all epochs.
    buckets, lengths T that end with `length`, puts every row in the shortest that holds
    it; each batch comes from one bucket, so there is one shape [B, T] per bucket.
    weights makes `examples` a list of sources mixed by these shares of the rows (of
    nearly equal numbers of tokens if packed); an epoch is then as many rows as all
    sources hold. Raises DataError for settings or examples that cannot be batched."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise DataError(f"batch_size: expected a positive integer, got {batch_size!r}")
    sources = [examples] if weights is None else examples
    shares = [1.0] if weights is None else list(weights)
    _check_sources(sources, shares, length)
    lengths = _check_buckets(buckets, length, packing)
    packed = [_rows(source, length, packing) for source in sources]
    rows = tuple(row for source in packed for row in source)
    settings = {
        "batch_size": batch_size, "length": length, "pad_id": pad_id, "seed": seed,
        "packing": packing, "shuffle": shuffle, "buckets": list(lengths),
        "weights": shares, "sources": [len(source) for source in packed],
    }  # fmt: skip
    plan = _endless_plan(packed, shares, lengths, batch_size, seed if shuffle else None)
    return Batches(
        rows, plan, batch_size, pad_id, -(-len(rows) // batch_size),
        _fingerprint(rows, settings),
    )  # fmt: skip


def eval_batches(
    examples: Sequence[Example],
    *,
    batch_size: int,
    length: int,
    pad_id: int,
    packing: bool = False,
) -> Batches:
    """Batches that hold each example exactly once, in order.

    Rows that are all padding fill the last one, so that all have one shape."""
    _check_sources([examples], [1.0], length)
    rows = _rows(examples, length, packing)
    steps = -(-len(rows) // batch_size)
    numbers = np.full(steps * batch_size, EMPTY)
    numbers[: len(rows)] = np.arange(len(rows))
    plan = [(length, chunk) for chunk in numbers.reshape(steps, batch_size)]
    settings = {"batch_size": batch_size, "length": length, "pad_id": pad_id}
    return Batches(rows, plan, batch_size, pad_id, steps, _fingerprint(rows, settings))


def _endless_plan(sources, shares, lengths, batch_size, seed):
    """A Grain dataset of (T, row numbers): sources mixed, batched, per bucket."""
    from grain import MapDataset

    starts = np.cumsum([0] + [len(rows) for rows in sources])
    streams, bucket_shares = [], []
    for b, length in enumerate(lengths):
        parts, part_shares = [], []
        for s, rows in enumerate(sources):
            sizes = np.array([sum(map(size, row)) for row in rows])
            inside = np.nonzero(np.searchsorted(lengths, sizes) == b)[0] + starts[s]
            if len(inside):
                part = MapDataset.source(inside)
                if seed is not None:
                    part = part.shuffle(_seed(seed, s, b))
                parts.append(part.repeat(-(-STREAM // len(inside))))
                part_shares.append(shares[s] * len(inside) / len(rows))
        if parts:
            stream = MapDataset.mix(parts, part_shares).batch(batch_size)
            streams.append(stream.map(lambda ids, length=length: (length, ids)))
            bucket_shares.append(sum(part_shares))
    return MapDataset.mix(streams, bucket_shares)


def _seed(seed: int, source: int, bucket: int) -> int:
    # Grain adds the epoch to the seed: hashed, seeds 1 and 2 do not share their orders.
    return zlib.crc32(f"data order {seed} {source} {bucket}".encode())


def _rows(examples, length, packing) -> tuple[Row, ...]:
    if not packing:
        return tuple((example,) for example in examples)
    if isinstance(examples[0], PairExample):
        raise DataError("packing: pairs have a row each; choose buckets instead")
    bins = pack([size(example) for example in examples], length)
    return tuple(tuple(examples[i] for i in sorted(members)) for members in bins)


def _check_sources(sources, shares, length):
    if len(shares) != len(sources) or not sources:
        raise DataError(
            f"weights: expected one per source, got {len(shares)} for {len(sources)}"
        )
    if not all(np.isfinite(share) and share > 0 for share in shares):
        raise DataError(f"weights: expected positive numbers, got {shares}")
    for s, source in enumerate(sources):
        if not len(source):
            raise DataError(f"source {s} has no examples")
        if len({type(example) for example in (sources[0][0], *source)}) > 1:
            raise DataError(f"source {s}: expected examples of one kind")
        longest = max(map(size, source))
        if longest > length or min(map(size, source)) < 1:
            raise DataError(
                f"source {s}: expected examples of 1 to {length} tokens, "
                f"the longest has {longest}"
            )


def _check_buckets(buckets, length, packing) -> list[int]:
    if buckets is None:
        return [length]
    lengths = list(buckets)
    if packing:
        raise DataError(
            "buckets: packed rows are all of one length; choose one of both"
        )
    if sorted(set(lengths)) != lengths or lengths[-1:] != [length] or lengths[0] < 1:
        raise DataError(
            f"buckets: expected increasing lengths that end with {length}, "
            f"got {lengths}"
        )
    return lengths


def _fingerprint(rows: Sequence[Row], settings: dict) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for row in rows:
        digest.update(f"row {len(row)}".encode())
        for example in row:
            _digest_example(digest, example)
    return digest.hexdigest()


def _digest_example(digest, example: Example) -> None:
    if isinstance(example, PairExample):
        chosen, rejected, *numbers = example
        digest.update(f"pair {numbers}".encode())
        _digest_example(digest, chosen)
        _digest_example(digest, rejected)
        return
    tokens, *values = example
    digest.update(f"example {len(tokens)}".encode())
    digest.update(np.ascontiguousarray(tokens, np.int32).tobytes())
    for value in values:
        digest.update(np.ascontiguousarray(value, np.float32).tobytes())
