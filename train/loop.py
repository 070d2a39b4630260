"""The loop that every algorithm shares: step, log, evaluate, save, stop, resume.

Glossary: `step` is the number of updates done, so the first training row is of step 1
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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from models.paths import as_path, is_remote
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

    `eval_start` evaluates before the first step as well, so that the start may be best.
    `keep_best` keeps the checkpoint whose `best` metric is lowest, or highest
    (`best_is`), beside the last ones; the earliest of equals. `use_best` returns the
    state of that evaluation, not the last. `patience` ends the run after so many
    evaluations in a row without a new best.
    `profile` (a, b) traces steps a to b into the run's `profile` folder.
    """

    log_every: int = positive(10)
    eval_every: int | None = positive(None)
    eval_start: bool = False
    checkpoint_every: int | None = positive(None)
    keep_last: int = positive(2)
    keep_best: bool = False
    best: str = "eval/loss"
    best_is: Literal["lowest", "highest"] = "lowest"
    use_best: bool = False
    patience: int | None = positive(None)
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
        if self.use_best and self.eval_every is None:
            raise ConfigError("use_best: expected eval_every to be set, got None")
        if self.patience is not None and self.eval_every is None:
            raise ConfigError("patience: expected eval_every to be set, got None")
        every = self.checkpoint_every
        if self.use_best and every is not None:
            if not self.keep_best or every != self.eval_every:
                raise ConfigError(
                    "use_best: expected keep_best, and checkpoint_every to be "
                    f"eval_every, got {every} and {self.eval_every}"
                )
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ConfigError(
                f"profile: expected first and last step, from 1 on, got {self.profile}"
            )

    def identity(self) -> dict:
        """The settings that change the results, or the rows of metrics."""
        intervals = {
            "log_every": self.log_every,
            "eval_every": self.eval_every,
            "checkpoint_every": self.checkpoint_every,
        }
        if self.eval_start:
            intervals["eval_start"] = True
        if self.patience is None:
            return intervals
        stops = {"patience": self.patience, "best": self.best, "best_is": self.best_is}
        return intervals | stops

    @property
    def watches(self) -> str | None:
        """The setting that needs the `best` metric, if one does."""
        named = ("keep_best", "use_best", "patience")
        return next((name for name in named if getattr(self, name)), None)


class Best(NamedTuple):
    """The best value of a metric so far, its step, and evaluations since then."""

    value: float | None = None
    step: int = 0
    since: int = 0

    def after(self, step: int, value: float, highest: bool) -> "Best":
        """With one more evaluation; what is not finite is never best."""
        better = self.value is None or (value > self.value if highest
                                        else value < self.value)  # fmt: skip
        if math.isfinite(value) and better:
            return Best(float(value), step)
        return self._replace(since=self.since + 1)


class Fitted(NamedTuple):
    """The trained state, and all rows of metrics, also those before a resume.

    With `use_best` the state is that of the best evaluation; `state.step` tells which.
    """

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
    guard: bool = True,
) -> Fitted:
    """Trains up to `steps` updates, continuing what `workdir` holds.

    Args:
      state: consumed, like by `train_step`.
      batches: `batches[s]` is the host batch of update s; `batches.fingerprint`, where
        there is one, must be that of the interrupted run.
      workdir: gets metrics, checkpoints and profile; None writes nothing.
      identity: JSON values that must not differ between the parts of a run.
      evaluate: `params -> {"eval/loss": ...}`, see `cfg`; always at the end.
      place: puts a host batch on the devices.
      flops_per_token: of an update, for `perf/mfu`.
      guard: forbid transfers inside `train_step`; False for a step with host work of
        its own, such as a rollout.

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
    if cfg.watches and evaluate is None:
        raise ConfigError(f"{cfg.watches}: needs held-out data to evaluate on")
    workdir = None if workdir is None else as_path(workdir)
    with contextlib.ExitStack() as stack:
        store, saved, start = None, None, 0
        cursor = {"position": 0, "window": []}
        if workdir is not None and cfg.checkpoint_every is not None:
            from train.checkpoint import Checkpoints

            best = cfg.best if cfg.keep_best else None
            folder = workdir / "checkpoints"
            highest = cfg.best_is == "highest"
            store = Checkpoints(
                folder, keep_last=cfg.keep_last, best=best, highest=highest
            )
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

        best, kept = Best(*cursor.get("best", ())), None
        stopped = cursor.get("stopped", False)

        def score(step: int) -> dict[str, float]:
            nonlocal best, kept
            scores = evaluate(state.params)
            log.write(step, {**scores, "time": time.time()})
            if cfg.watches:
                best = best.after(step, _metric(cfg, scores), cfg.best_is == "highest")
                if cfg.use_best and store is None and not best.since:
                    kept = jax.tree.map(jnp.copy, state)
            return scores

        def save(step: int, scores: Mapping) -> None:
            cursor = {
                "position": log.position(),
                "window": window.entries,
                "best": best,
                "stopped": stopped,
            }
            scores = {k: v for k, v in scores.items() if math.isfinite(v)}
            meta = {"identity": identity, "cursor": cursor, "eval": scores}
            store.save(step, state, meta)

        if cfg.eval_start and evaluate is not None and saved is None:
            scores = score(0)
            if store is not None and cfg.keep_best:
                save(0, scores)
        end = start if stopped else steps
        batch = batches[start] if start < end else None
        placed = None if batch is None else place(batch)
        for step in range(start + 1, end + 1):
            trace.before(step)
            with jax.transfer_guard("disallow" if guard else "allow"):
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
                    scores = score(step)
                    stopped = not last and _spent(cfg.patience, best)
                    if stopped:
                        window.flush(step)
                        log.write(step, _stop_row(best))
                        saves = store is not None
                if (saves or signal or last or stopped) and not all_finite(state):
                    raise Diverged(f"step {step}: a parameter is not finite")
                if saves or signal:
                    save(step, scores)
            if signal:
                store.wait()
                raise _preempted(signal, step, steps)
            if stopped:
                break
        if store is not None:
            store.wait()
            # What came during the last step or the final save must stop the caller too.
            if signal := requested(steps):
                raise _preempted(signal, int(state.step), steps)
            if cfg.use_best:
                state = restore_best(store, state)
        return Fitted(state if kept is None else kept, log.rows)


def _preempted(signal: str, step: int, steps: int) -> Preempted:
    return Preempted(
        f"{signal} after step {step} of {steps}, which is saved; "
        "the same command continues"
    )


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _metric(cfg: LoopConfig, scores: Mapping) -> float:
    if cfg.best not in scores:
        close = nearest(cfg.best, scores)
        raise ConfigError(f"best: {cfg.best!r} is not among the metrics{close}")
    return scores[cfg.best]


def _spent(patience: int | None, best: Best) -> bool:
    return patience is not None and best.since >= patience


def _stop_row(best: Best) -> dict[str, float]:
    value = math.nan if best.value is None else best.value
    return {
        "stop/best": value,
        "stop/best_step": best.step,
        "stop/evaluations_since": best.since,
        "time": time.time(),
    }


def restore_best(store, state):
    """The saved state of the best evaluation; the given one is freed first.

    The given one stays where it is the best, or none has been evaluated.
    """
    step = store.best_step()
    if step is None or step == int(state.step):
        return state
    like = abstract_state(state)
    jax.tree.map(lambda x: x.delete(), state)
    return store.restore(step, like)


class _Trace:
    """jax.profiler around the steps `span`, written to `workdir/profile`."""

    def __init__(self, span, workdir):
        if span is not None and workdir is None:
            raise ConfigError("profile: needs a folder to write to")
        if span is not None and is_remote(workdir):
            raise ConfigError(
                f"profile: is written to local disks only, not to {workdir}; expected "
                "None, or a local --workdir"
            )
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
