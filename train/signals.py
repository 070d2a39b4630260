"""SIGTERM and SIGINT as a request to stop after the current step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax


@contextlib.contextmanager
def stop_requests(enabled: bool = True) -> Iterator[Callable[[int], str | None]]:
    """Yields `requested(step)`: the name of the signal that asked to stop, or None.

    The first signal is noted; a second one kills, as if nobody listened. Signals belong
    to the main thread: in another one nothing is caught. With several processes the
    SIGTERM of one asks all to stop after the same step, once they know of it; a second
    one changes nothing, and SIGINT is not caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: None
        return
    if not enabled:
        if jax.process_count() > 1:
            # JAX caught it to no end: nothing will be saved.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield lambda step: None
        return
    if jax.process_count() > 1:
        # JAX listens to SIGTERM itself, and makes the processes agree on the step.
        from jax.experimental import multihost_utils

        reached = multihost_utils.reached_preemption_sync_point
        yield lambda step: "SIGTERM" if reached(step) else None
        return
    received: list[int] = []
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        received.append(number)
        for s in before:
            signal.signal(s, signal.SIG_DFL)

    for s in before:
        signal.signal(s, note)
    try:
        yield lambda step: signal.Signals(received[0]).name if received else None
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
