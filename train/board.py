"""Numbers for TensorBoard, in files on a disk or on an object store."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from models.paths import is_remote


class Board:
    """An event file in `folder`; a remote one is a copy, renewed every `every` seconds.

    purge_step: what older files say of this step and later ones does not count.
    """

    def __init__(
        self,
        folder,
        purge_step: int,
        every: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        from tensorboardX import SummaryWriter

        self._folder, self._every, self._clock = folder, every, clock
        self._at, self._copied = clock(), None
        if is_remote(folder):
            self._copied = tempfile.TemporaryDirectory(prefix="salign-")
        local = self._copied.name if self._copied else str(folder)
        self._writer = SummaryWriter(local, purge_step=purge_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if self._copied and self._clock() - self._at >= self._every:
            self._writer.flush()
            self._store()

    def close(self) -> None:
        self._writer.close()
        if self._copied:
            self._store()
            self._copied.cleanup()

    def _store(self) -> None:
        for path in Path(self._copied.name).iterdir():
            (self._folder / path.name).write_bytes(path.read_bytes())
        self._at = self._clock()
