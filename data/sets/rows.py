"""What all readers share: rows that stream, fields that are checked, seeded order."""

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data.errors import DataError
from data.records import Record, as_record, stream

T = TypeVar("T")
OnBad = Callable[[DataError], None] | None


def parsed(path, parse: Callable[[Record], T], on_bad: OnBad = None) -> Iterator[T]:
    """`parse(record)` of every row as it is read, one row in memory at a time.

    A DataError of a row goes to `on_bad`, which may count it; None raises it.
    """
    for line, _, row in stream(path):
        try:
            item = parse(as_record(path, line, row))
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(error)
        else:
            yield item


def text(where: str, row: dict, key: str, may_be_empty: bool = False) -> str:
    """row[key] as a string; DataError naming place and field otherwise."""
    value = row.get(key)
    if not isinstance(value, str):
        raise mismatch(where, key, "a string", value)
    if not may_be_empty and not value.strip():
        raise DataError(f"{where}: {key}: expected text, got an empty string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {key}: half of a surrogate pair at character {error.start}"
        ) from error
    return value


def mismatch(where: str, field: str, expected: str, value: Any) -> DataError:
    """The error of a field that is not what the format says."""
    got = "null" if value is None else f"{value!r:.60} ({type(value).__name__})"
    return DataError(f"{where}: {field}: expected {expected}, got {got}")


def write_shuffled(path, rows: Iterable[dict], seed: int) -> int:
    """Writes rows as JSON lines in an order drawn from `seed`; returns their number.

    Rows go to disk as they come, and memory holds eight bytes for each: what is written
    may be larger than memory. All of the file appears, or nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = path.with_name(f"{path.name}.{os.getpid()}.unshuffled")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    starts = array("Q", [0])
    try:
        with drawn.open("wb") as file:
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")
                starts.append(file.tell())
        order = np.random.default_rng([seed, 0x5EED]).permutation(len(starts) - 1)
        with drawn.open("rb") as source, partial.open("wb") as file:
            for i in order:
                source.seek(starts[i])
                file.write(source.read(starts[i + 1] - starts[i]))
        os.replace(partial, path)
    finally:
        drawn.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    return len(order)
