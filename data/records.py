"""Reading rows from JSON lines, JSON lists and Parquet, with the place of every row.

A bad row is an error that names file, line and cause, or, with `on_bad_row='skip'`, is
returned beside the others, so that nothing disappears silently."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import DataError
from data.paths import as_path


class Record(NamedTuple):
    """One row and where it stands: `line` counts from 1 (a row number in Parquet)."""

    row: dict
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


class Rows(NamedTuple):
    """What a file held: the parsed items, and file, line, reason, raw of bad rows."""

    items: list
    skipped: list[dict]


# A row as it streams from a file: line, its text, and the row or the reason it is bad.
Streamed = tuple[int, str, Any]


def read_records(path, on_bad_row="error") -> list[Record]:
    """All rows of a `.jsonl`, `.json` (a list) or `.parquet` file as Records."""
    return read_rows(path, lambda record: record, on_bad_row).items


def read_rows(
    path,
    parse: Callable[[Record], Any],
    on_bad_row: str = "error",
) -> Rows:
    """Read a file and parse every row; a DataError from `parse` marks a bad row.

    on_bad_row 'error' raises at the first one. 'skip' collects them and goes on; a file
    without a single good row is an error either way."""
    if on_bad_row not in ("error", "skip"):
        raise DataError(f"on_bad_row: expected 'error' or 'skip', got {on_bad_row!r}")
    items, skipped = [], []
    for line, raw, row in stream(path):
        try:
            items.append(parse(as_record(path, line, row)))
        except DataError as error:
            if on_bad_row == "error":
                raise
            reason = str(error).removeprefix(f"{path}:{line}: ")
            bad = {"file": str(path), "line": line, "reason": reason, "raw": raw}
            skipped.append(bad)
    if not items and skipped:
        first = skipped[0]
        raise DataError(
            f"{path}: all {len(skipped)} rows are bad; "
            f"the first, line {first['line']}: {first['reason']}"
        )
    if not items:
        raise DataError(f"{path}: expected at least one row, the file has none")
    return Rows(items, skipped)


def as_record(path, line: int, row: Any) -> Record:
    """What `stream` yielded as a Record; raises the DataError of a bad row."""
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict):
        got = type(row).__name__
        raise DataError(
            f"{path}:{line}: expected an object with named fields, got {got}"
        )
    return Record(row, str(path), line)


def write_jsonl(path, rows: list[dict]) -> None:
    """Write rows as JSON lines, all of them or nothing."""
    path = as_path(path)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not isinstance(path, Path):  # an object appears whole
        path.write_text(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def stream(path) -> Iterator[Streamed]:
    """Every row of a file as it is read; a bad row is a DataError in its place.

    Raises DataError for a file that cannot be read as a whole."""
    path = as_path(path)
    readers = {".jsonl": _jsonl, ".json": _json_list, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: expected a .jsonl, .json or .parquet file")
    if path.is_dir():
        raise DataError(f"{path}: expected a file, got a folder")
    try:
        yield from readers[path.suffix.lower()](path)
    except OSError as error:
        # Parquet's own errors have no strerror, and say what is wrong in their text.
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read: {reason}") from error


def _jsonl(path: Path) -> Iterator[Streamed]:
    with path.open("rb") as file:
        # Binary lines end at \n only: JSON strings may hold U+2028 and its like.
        for line, data in enumerate(file, start=1):
            if line == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if data.strip():
                raw = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
                yield line, raw, _try(f"{path}:{line}", lambda d=data: parse_json(d))


def _json_list(path: Path) -> Iterator[Streamed]:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    rows = _try(str(path), lambda: parse_json(data))
    if isinstance(rows, DataError):
        raise rows
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of rows, got {type(rows).__name__}")
    for line, row in enumerate(rows, start=1):
        yield line, json.dumps(row), row


def _parquet(path: Path) -> Iterator[Streamed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = 0
    try:
        # Arrow opens a local file itself, which is faster.
        local = isinstance(path, Path)
        opened = contextlib.nullcontext(path) if local else path.open("rb")
        with opened as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=1024):
                for i in range(batch.num_rows):
                    line += 1
                    row = _try(
                        f"{path}:{line}", lambda b=batch, i=i: b.slice(i, 1).to_pylist()
                    )
                    row = row[0] if isinstance(row, list) else row
                    yield line, repr(row), row
    except pa.ArrowException as error:
        at = f" after row {line}" if line else ""
        raise DataError(f"{path}: not a whole Parquet file{at}: {error}") from error


def parse_json(data: bytes) -> Any:
    """Strict JSON of UTF-8 bytes: no NaN, no repeated key. Raises ValueError."""

    def unique(pairs):
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {repeated!r} appears more than once")
        return row

    def constant(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(
        data.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant
    )


def _try(where: str, read: Callable[[], Any]) -> Any:
    """The value, or the DataError that says why there is none."""
    try:
        return read()
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return DataError(f"{where}: not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return DataError(f"{where}: not readable: {error}")
