"""Metrics of the steps since the last row, fetched one step late, and their rate."""

import collections
import contextlib
import math
import time

import jax
import numpy as np

from data.batch import LabelBatch, TokenBatch
from train.errors import Diverged
from train.metrics import peak_flops, summarize


class Window:
    """The metrics of the steps since the last row, and the time they took."""

    def __init__(self, steps, log_every, log, bar, entries, flops_per_token):
        self.entries = list(entries)  # host metrics, as JSON values
        self._steps, self._log_every = steps, log_every
        self._log, self._bar = log, bar
        self._flops = flops_per_token
        self._waiting = collections.deque()  # (step, device metrics, tokens)
        self._clock = None  # None until the first step, which compiles, is done
        self._tokens = 0

    def add(self, step: int, metrics, tokens: int) -> None:
        self._waiting.append((step, metrics, tokens))

    def settle(self, until: int) -> None:
        """Fetches what is waiting up to a step; writes the rows that are due."""
        while self._waiting and self._waiting[0][0] <= until:
            step, metrics, tokens = self._waiting.popleft()
            entry = _to_json(jax.device_get(metrics))
            loss, weight = entry["loss"]
            for name, value in (("loss", loss), ("gradient norm", entry["grad_norm"])):
                if not math.isfinite(value):
                    raise Diverged(f"step {step}: the {name} is {value}")
            self.entries.append(entry)
            note = f"loss {loss / weight:.4g}" if weight else ""
            self._bar.update(step, note)
            if self._clock is None:
                self._clock = time.monotonic()
            else:
                self._tokens += tokens
            if step % self._log_every == 0 or step == self._steps:
                self.flush(step)

    def flush(self, step: int) -> None:
        """Writes the row of what was settled since the last one, if anything was."""
        if self.entries:
            row = {**summarize(self.entries), **self._speed(), "time": time.time()}
            self._log.write(step, row)
            self.entries = []

    @contextlib.contextmanager
    def paused(self):
        """Time inside does not count as training."""
        began = time.monotonic()
        yield
        if self._clock is not None:
            self._clock += time.monotonic() - began

    def _speed(self) -> dict[str, float]:
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        tokens, self._tokens = self._tokens, 0
        if not tokens or seconds <= 0:
            return {}
        speed = {"perf/tokens_per_s": tokens / seconds}
        peak = peak_flops(jax.devices()[0].device_kind)
        if peak and self._flops:
            used = tokens / seconds * self._flops
            speed["perf/mfu"] = used / (peak * jax.device_count())
        return speed


def count_tokens(batch) -> int:
    """Tokens of the token batches in a tree of host arrays, padding not counted."""

    def is_batch(x):
        return isinstance(x, TokenBatch | LabelBatch)

    parts = [x for x in jax.tree.leaves(batch, is_leaf=is_batch) if is_batch(x)]
    return sum(int(np.count_nonzero(part.segment_ids)) for part in parts)


def _to_json(metrics) -> dict:
    return {
        name: [float(x) for x in value] if isinstance(value, tuple) else float(value)
        for name, value in metrics.items()
    }
