"""The loop that every algorithm shares: step, log, evaluate, save, stop, resume.

Glossary: `step` is the number of updates done, so the first row of metrics is of step 1
and batch `batches[s]` takes the state from step s to s + 1. A window is the steps since
the last row of training metrics. Metrics are fetched one step late, while the device
works on the next step.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from train.errors import ConfigError, Diverged, Preempted
from train.metrics import MetricsLog
from train.progress import Progress
from train.resume import check_identity, saved_run
from train.settings import nearest, positive
from train.signals import stop_requests
from train.state import TrainState, abstract_state, all_finite
from train.window import Window, count_tokens


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """What to do on the way; all intervals are in steps.

    `keep_best` keeps the checkpoint whose `best` metric is lowest beside the last ones.
    `profile` (a, b) traces steps a to b into the run's `profile` folder.
    """

    log_every: int = positive(10)
    eval_every: int | None = positive(None)
    checkpoint_every: int | None = positive(None)
    keep_last: int = positive(2)
    keep_best: bool = False
    best: str = "eval/loss"
    profile: tuple[int, int] | None = None
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self):
        if self.keep_best:
            every, evals = self.checkpoint_every, self.eval_every
            if every is None or evals is None or every % evals:
                raise ConfigError(
                    "keep_best: expected checkpoint_every to be a multiple of "
                    f"eval_every, got {every} and {evals}"
                )
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ConfigError(
                f"profile: expected first and last step, from 1 on, got {self.profile}"
            )

    def identity(self) -> dict:
        """The settings that change the results, or the rows of metrics."""
        return {
            "log_every": self.log_every,
            "eval_every": self.eval_every,
            "checkpoint_every": self.checkpoint_every,
        }


class Fitted(NamedTuple):
    """The trained state, and all rows of metrics, also those before a resume."""

    state: TrainState
    rows: list[dict]


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict]],
    batches,
    steps: int,
    cfg: LoopConfig = LoopConfig(),  # noqa: B008 (immutable)
    *,
    workdir: Path | str | None = None,
    identity: Mapping = {},  # noqa: B006 (never mutated)
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    place: Callable[[Any], Any] = jax.device_put,
    flops_per_token: float | None = None,
) -> Fitted:
    """Trains up to `steps` updates, continuing what `workdir` holds.

    Args:
      state: consumed, like by `train_step`.
      batches: `batches[s]` is the host batch of update s; `batches.fingerprint`, where
        there is one, must be that of the interrupted run.
      workdir: gets metrics, checkpoints and profile; None writes nothing.
      identity: JSON values that must not differ between the parts of a run.
      evaluate: `params -> {"eval/loss": ...}`, every `eval_every` and at the end.
      place: puts a host batch on the devices.
      flops_per_token: of an update, for `perf/mfu`.

    Raises:
      Diverged: a loss, gradient norm or parameter is not finite; names the step.
      Preempted: stopped by a signal, after saving.
      CheckpointError, ConfigError: `workdir` holds what cannot be continued.
    """
    identity = {
        **identity,
        "steps": steps,
        "loop": cfg.identity(),
        "data": getattr(batches, "fingerprint", None),
    }
    if cfg.keep_best and evaluate is None:
        raise ConfigError("keep_best: needs held-out data to evaluate on")
    workdir = None if workdir is None else Path(workdir)
    with contextlib.ExitStack() as stack:
        store, start, cursor = None, 0, {"position": 0, "window": []}
        if workdir is not None and cfg.checkpoint_every is not None:
            from train.checkpoint import Checkpoints

            best = cfg.best if cfg.keep_best else None
            folder = workdir / "checkpoints"
            store = Checkpoints(folder, keep_last=cfg.keep_last, best=best)
            stack.enter_context(store)
            if (saved := store.latest()) is not None:
                before, cursor = saved_run(store.meta(saved), store.path(saved))
                check_identity(identity, before, folder)
                like = abstract_state(state)
                jax.tree.map(lambda x: x.delete(), state)  # room for the restored one
                state, start = store.restore(saved, like), saved
        log = stack.enter_context(
            MetricsLog(
                workdir if jax.process_index() == 0 else None,
                position=cursor["position"],
                tensorboard=cfg.tensorboard,
            )
        )
        show = cfg.progress and jax.process_index() == 0
        bar = stack.enter_context(Progress(steps, start, show=show))
        requested = stack.enter_context(stop_requests(store is not None))
        trace = stack.enter_context(_Trace(cfg.profile, workdir))
        window = Window(
            steps, cfg.log_every, log, bar, cursor["window"], flops_per_token
        )

        batch = batches[start] if start < steps else None
        placed = None if batch is None else place(batch)
        for step in range(start + 1, steps + 1):
            trace.before(step)
            with jax.transfer_guard("disallow"):
                state, metrics = train_step(state, placed)
            window.add(step, metrics, count_tokens(batch))
            last = step == steps
            if not last:  # while the device is busy
                batch = batches[step]
                placed = place(batch)
            evals = evaluate is not None and (last or _due(step, cfg.eval_every))
            saves = store is not None and (last or _due(step, cfg.checkpoint_every))
            signal = None if last else requested(step)
            window.settle(step if evals or saves or signal or last else step - 1)
            trace.after(step)
            with window.paused():
                scores = {}
                if evals:
                    scores = evaluate(state.params)
                    _check_best(cfg, scores)
                    log.write(step, {**scores, "time": time.time()})
                if (saves or signal or last) and not all_finite(state):
                    raise Diverged(f"step {step}: a parameter is not finite")
                if saves or signal:
                    scores = {k: v for k, v in scores.items() if math.isfinite(v)}
                    cursor = {"position": log.position(), "window": window.entries}
                    meta = {"identity": identity, "cursor": cursor, "eval": scores}
                    store.save(step, state, meta)
            if signal:
                store.wait()
                raise _preempted(signal, step, steps)
        if store is not None:
            store.wait()
            # What came during the last step or the final save must stop the caller too.
            if signal := requested(steps):
                raise _preempted(signal, steps, steps)
        return Fitted(state, log.rows)


def _preempted(signal: str, step: int, steps: int) -> Preempted:
    return Preempted(
        f"{signal} after step {step} of {steps}, which is saved; "
        "the same command continues"
    )


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _check_best(cfg: LoopConfig, scores: Mapping) -> None:
    if cfg.keep_best and cfg.best not in scores:
        close = nearest(cfg.best, scores)
        raise ConfigError(f"best: {cfg.best!r} is not among the metrics{close}")


class _Trace:
    """jax.profiler around the steps `span`, written to `workdir/profile`."""

    def __init__(self, span, workdir):
        if span is not None and workdir is None:
            raise ConfigError("profile: needs a folder to write to")
        self._span, self._workdir, self._on = span, workdir, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._on:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        if self._span is not None and step == self._span[0]:
            jax.profiler.start_trace(str(self._workdir / "profile"))
            self._on = True

    def after(self, step: int) -> None:
        if self._on and step == self._span[1]:
            jax.profiler.stop_trace()
            self._on = False
