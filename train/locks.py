"""One process per run folder."""

import contextlib
import fcntl
import os
from pathlib import Path

from models.paths import is_remote


@contextlib.contextmanager
def locked(path: Path, error: type[Exception]):
    """Holds an exclusive lock on `path`; raises `error` when another process has it.

    Yields the open file. The operating system drops the lock when the last process
    that has this file open ends, however it ends: a child that inherits it shares it.

    On gs:// there is no such lock (one made of an object would outlive a preempted
    slice and keep its successor out): nothing is held, and None is yielded. There a
    run's name has to be its own, as that of its slice is for `research.launch`.
    """
    if is_remote(path):
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            owner = f.read().strip() or "unknown"
            raise error(
                f"{path.parent}: in use by process {owner}, or one that it started"
            ) from None
        f.truncate(0)
        f.write(f"{os.getpid()}\n")
        f.flush()
        yield f
