"""Signals that end a stage in an orderly way."""

import contextlib
import signal
import threading


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
