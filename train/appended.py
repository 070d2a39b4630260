"""A file that a run appends to, and goes on with from a position after a restart."""

import os
import time
from collections.abc import Callable

from models.paths import is_remote


class AppendedFile:
    """A local file, cut off at `position` (bytes); what is written is there at once."""

    def __init__(self, path, position: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab")
        self._file.truncate(position)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def position(self) -> int:
        """Bytes so far, on disk when this returns."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class AppendedObject:
    """An object on a store, which is rewritten as a whole, every `every` seconds."""

    def __init__(
        self,
        path,
        position: int,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._path, self._every, self._clock = path, every, clock
        self._content = bytearray(path.read_bytes()[:position] if position else b"")
        self._stored, self._at = -1, clock()

    def write(self, data: bytes) -> None:
        self._content += data
        if self._clock() - self._at >= self._every:
            self._store()

    def position(self) -> int:
        """Bytes so far, stored when this returns."""
        self._store()
        return len(self._content)

    def close(self) -> None:
        self._store()

    def _store(self) -> None:
        if self._stored != len(self._content):
            self._path.write_bytes(bytes(self._content))
            self._stored = len(self._content)
        self._at = self._clock()


def appended(path, position: int) -> AppendedFile | AppendedObject:
    """The one or the other, by where the path is."""
    return (AppendedObject if is_remote(path) else AppendedFile)(path, position)
