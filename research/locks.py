"""One process per run folder, and signals that end a stage in an orderly way."""

import contextlib
import fcntl
import os
import signal
import threading
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, error: type[Exception]):
    """Holds an exclusive lock on `path`; raises `error` when another process has it.

    The operating system drops the lock when the process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            owner = f.read().strip() or "unknown"
            raise error(f"{path.parent}: in use by process {owner}") from None
        f.truncate(0)
        f.write(f"{os.getpid()}\n")
        f.flush()
        yield


@contextlib.contextmanager
def interruptible():
    """Lets SIGTERM raise KeyboardInterrupt, as SIGINT does, in the main thread.

    Code below may install handlers of its own meanwhile (the training loop saves a
    checkpoint first); the previous handler returns at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
