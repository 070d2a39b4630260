"""Experiments as stages, memoised on disk by their names and inputs.

An experiment declares what it does, and nothing runs while it declares:

    def experiment(plan: Plan, cfg: Settings):
        data = plan.stage("data", make_data, seed=cfg.seed)
        model = plan.stage("sft", finetune, data=data, steps=cfg.steps)
        plan.stage("report", write_report, models=[model])

`execute` then calls `fn(folder, **inputs)` in that order, with a `StageResult` in place
of every handle, and keeps the JSON-able dict that comes back in

    workdir/stages/<name>/<fingerprint[:12]>/result.json

which is written last, so a folder without it is unfinished work that `fn` may continue.
A stage runs again when its name, its function's name or `version` attribute, or any of
its inputs changed, or when a stage that it depends on was run again. What `fn` reads
behind our back (a file whose contents changed) is not seen: pass a digest as an input.
"""

import dataclasses
import datetime
import hashlib
import inspect
import json
import math
import shutil
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from research.interrupts import interruptible
from research.records import FORMAT, StageError, difference, read_record
from train.errors import Preempted
from train.files import write_json
from train.locks import locked

if TYPE_CHECKING:
    from research.workers import Workers


# What continues an interrupted run: --from would redo its stage once more.
CONTINUES = "the same command"
CONTINUES_REDONE = "the same command without --from"


class StageResult(NamedTuple):
    """What a finished stage left: its files and the dict that it returned."""

    folder: Path
    value: dict


@dataclasses.dataclass(frozen=True, eq=False)
class Handle:
    """A declared stage; passing it to a later stage makes that one depend on it."""

    name: str
    fn: Callable[..., dict]
    inputs: dict
    canonical: dict  # JSON-able, handles replaced by their fingerprints
    dependencies: tuple["Handle", ...]
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one finished stage took, in seconds of wall time."""

    stage: str
    seconds: float
    finished: str


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Facts of this run that no fingerprint covers.

    A stage function with a parameter `run_info` receives them; `timings` holds the
    stages finished so far, cached ones included with the time they took originally.
    """

    config: dict = dataclasses.field(default_factory=dict)
    command: str = ""
    workdir: Path = Path()
    timings: tuple[Timing, ...] = ()


class Plan:
    """The stages of an experiment in the order of their declaration."""

    def __init__(self):
        self.handles: list[Handle] = []

    def stage(self, name: str, fn: Callable[..., dict], **inputs) -> Handle:
        """Declares `fn(folder, **inputs)`.

        Inputs: JSON values, frozen dataclasses, handles, and lists, tuples and dicts of
        them. Raises StageError naming an input that is none of these, and TypeError
        when `fn` does not take these inputs.
        """
        if any(h.name == name for h in self.handles):
            raise StageError(f"stage {name!r} is declared twice")
        if not name or not name.replace("_", "").replace("-", "").isalnum():
            raise StageError(f"stage {name!r}: expected letters, digits, '_' and '-'")
        signature = inspect.signature(fn)
        info = {"run_info": None} if "run_info" in signature.parameters else {}
        signature.bind(None, **inputs, **info)  # now, not after the stages before it
        dependencies: list[Handle] = []
        canonical = {
            k: _canonical(v, f"stage {name!r}: input {k}", dependencies)
            for k, v in inputs.items()
        }
        for handle in dependencies:
            if handle not in self.handles:
                raise StageError(f"stage {name!r}: {handle.name!r} is of another plan")
        function = f"{fn.__module__}.{fn.__qualname__}"
        identity = [name, function, getattr(fn, "version", 1), canonical]
        text = json.dumps(identity, sort_keys=True, allow_nan=False)
        handle = Handle(
            name=name,
            fn=fn,
            inputs=inputs,
            canonical={"function": identity[1:3], "inputs": canonical},
            dependencies=tuple(dict.fromkeys(dependencies)),
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        )
        self.handles.append(handle)
        return handle


class Status(NamedTuple):
    """Whether a stage has to run, and why, in words."""

    handle: Handle
    state: Literal["cached", "to run", "left out"]
    reason: str


def folder_of(workdir: Path, handle: Handle) -> Path:
    return Path(workdir) / "stages" / handle.name / handle.fingerprint[:12]


def survey(
    plan: Plan,
    workdir: Path,
    only: Collection[str] = (),
    redo_from: str | None = None,
) -> list[Status]:
    """What `execute` with the same arguments would do, stage by stage.

    Raises StageError for unknown names, for dependencies that `only` leaves missing,
    and for stored results that are truncated or not of their stage.
    """
    stages = Path(workdir) / "stages"
    if stages.exists() and not stages.is_dir():
        raise StageError(f"{stages}: is a file; expected the folder of a run's stages")
    names = [h.name for h in plan.handles]
    for name in [*only, *([redo_from] if redo_from else [])]:
        if name not in names:
            raise StageError(f"no stage {name!r}; expected one of {', '.join(names)}")
    if only and redo_from and redo_from not in only:
        raise StageError(
            f"--from: stage {redo_from!r} is not among the stages of --only: "
            f"{', '.join(only)}"
        )
    statuses: dict[Handle, Status] = {}
    for handle in plan.handles:
        reason = _reason(handle, workdir, redo_from, statuses)
        if reason is None:
            seconds = _stored(workdir, handle)["seconds"]
            status = Status(handle, "cached", f"took {seconds:.1f} s")
        elif only and handle.name not in only:
            status = Status(handle, "left out", reason)
        else:
            status = Status(handle, "to run", reason)
            _require_dependencies(handle, workdir, statuses)
        statuses[handle] = status
    return list(statuses.values())


def execute(
    plan: Plan,
    workdir: Path,
    *,
    only: Collection[str] = (),
    redo_from: str | None = None,
    run_info: RunInfo | None = None,
    before: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
    workers: "Workers | None" = None,
) -> dict[str, StageResult]:
    """Runs what has to run; returns the results by name.

    Without `workers` (see `research.workers`), one stage after the other in the order
    of declaration; with them, stages that do not need each other run at once.
    `before` is called once the folder is ours and the selection makes sense.
    Raises StageError when another process works in `workdir`, and Preempted on SIGINT
    or SIGTERM: finished stages and the folders of running ones are kept.
    """
    workdir = Path(workdir)
    run_info = run_info or RunInfo(workdir=workdir)
    start = time.monotonic()
    command = CONTINUES
    with locked(workdir / ".lock", StageError) as lock:
        statuses = survey(plan, workdir, only, redo_from)
        before()
        for status in statuses:
            if status.state != "to run":
                say(f"{_label(plan, status.handle)}: {status.state} ({status.reason})")
        todo = [s for s in statuses if s.state == "to run"]

        def forget(handle) -> bool:
            """Clears the folder of the stage of --from, whose old result must go."""
            if handle.name == redo_from:
                shutil.rmtree(folder_of(workdir, handle), ignore_errors=True)
            return handle.name == redo_from

        if workers is not None:
            if any([forget(handle) for handle, _, _ in todo]):
                command = CONTINUES_REDONE
            workers.run(todo, partial(_label, plan), say, lock, command)
        else:
            for handle, _, reason in todo:
                say(f"{_label(plan, handle)}: running ({reason})")
                if forget(handle):
                    command = CONTINUES_REDONE
                seconds = run_stage(plan, workdir, handle, run_info, command)
                say(f"{_label(plan, handle)}: {seconds:.1f} s")
        say(f"total: {time.monotonic() - start:.1f} s")
        left_out = {s.handle.name for s in statuses if s.state == "left out"}
        found = _results(plan, workdir)
    return {h.name: r for h, r in found.items() if h.name not in left_out}


def _label(plan: Plan, handle: Handle) -> str:
    return f"[{plan.handles.index(handle) + 1}/{len(plan.handles)}] {handle.name}"


def _results(plan: Plan, workdir: Path) -> dict[Handle, StageResult]:
    """What is stored of the plan's stages, in the order of declaration."""
    records = {h: _stored(workdir, h) for h in plan.handles}
    return {
        h: StageResult(folder_of(workdir, h), record["value"])
        for h, record in records.items()
        if record is not None
    }


def run_stage(
    plan: Plan, workdir: Path, handle: Handle, info: RunInfo, command: str
) -> float:
    """Runs one stage, whose dependencies are stored; returns the seconds it took.

    `command` is what continues it, in words. Raises Preempted on SIGINT or SIGTERM.
    """
    results = _results(plan, workdir)
    info = dataclasses.replace(info, timings=_timings(workdir, results))
    return _run(handle, workdir, results, info, command)


def _run(handle, workdir, results, info, command: str) -> float:
    dependencies = {
        d.name: _stored(workdir, d)["finished"] for d in handle.dependencies
    }
    folder = _open_folder(folder_of(workdir, handle), dependencies)
    inputs = _resolve(handle.inputs, results)
    if "run_info" in inspect.signature(handle.fn).parameters:
        inputs["run_info"] = info
    started, clock = _now(), time.monotonic()
    try:
        with interruptible():
            value = handle.fn(folder, **inputs)
    except (KeyboardInterrupt, Preempted):
        raise Preempted(
            f"in stage {handle.name!r}; what is finished is kept, {command} continues"
        ) from None
    seconds = time.monotonic() - clock
    if not isinstance(value, dict):
        raise TypeError(f"stage {handle.name!r} returned {value!r}, not a dict")
    write_json(
        folder / "result.json",
        {
            "format": FORMAT,
            "stage": handle.name,
            "fingerprint": handle.fingerprint,
            **handle.canonical,
            "dependencies": dependencies,
            "started": started,
            "finished": _now(),
            "seconds": seconds,
            "value": value,
        },
    )
    return seconds


def _open_folder(folder: Path, dependencies: dict) -> Path:
    """The folder of a stage about to run: unfinished work on these inputs, or empty."""
    origin = folder / "started.json"
    if (folder / "result.json").exists() or not _holds(origin, dependencies):
        shutil.rmtree(folder, ignore_errors=True)
    write_json(origin, dependencies)
    return folder


def _holds(path: Path, expected: dict) -> bool:
    try:
        return json.loads(path.read_text()) == expected
    except (OSError, ValueError):
        return False


def _reason(handle, workdir, redo_from, statuses) -> str | None:
    """Why the stage has to run; None when its stored result stands."""
    if handle.name == redo_from:
        return "--from"
    stored = _stored(workdir, handle)
    if stored is None:
        if folder_of(workdir, handle).exists():
            return "unfinished"
        return difference(
            folder_of(workdir, handle).parent,
            handle.canonical["function"],
            handle.canonical["inputs"],
        )
    for d in handle.dependencies:
        if statuses[d].state == "to run":
            return f"{d.name} runs"
        upstream = _stored(workdir, d)
        if upstream and upstream["finished"] != stored["dependencies"].get(d.name):
            return f"{d.name} was run again"
    return None


def _require_dependencies(handle, workdir, statuses) -> None:
    missing = [
        d.name
        for d in handle.dependencies
        if statuses[d].state == "left out" and _stored(workdir, d) is None
    ]
    if missing:
        raise StageError(
            f"--only: stage {handle.name!r} needs {', '.join(missing)}, not run yet"
        )


def _stored(workdir, handle: Handle) -> dict | None:
    """The stored record of a stage, or None; StageError when it cannot be trusted."""
    path = folder_of(workdir, handle) / "result.json"
    if not path.exists():
        return None
    record = read_record(path)
    if record["fingerprint"] != handle.fingerprint or record["stage"] != handle.name:
        raise StageError(f"{path}: is not of stage {handle.name!r}; move it away")
    return record


def _timings(workdir, results) -> tuple[Timing, ...]:
    records = [_stored(workdir, h) for h in results]
    return tuple(Timing(r["stage"], r["seconds"], r["finished"]) for r in records)


def _canonical(value, where: str, dependencies: list[Handle] | None) -> Any:
    """A JSON-able image of an input; collects handles where a list is given."""
    if isinstance(value, Handle) and dependencies is not None:
        dependencies.append(value)
        return {"__stage__": value.fingerprint}
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Handle):
        kind = type(value)
        fields = {
            f.name: _canonical(getattr(value, f.name), f"{where}.{f.name}", None)
            for f in dataclasses.fields(value)
        }
        return {"__type__": f"{kind.__module__}.{kind.__qualname__}", **fields}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {
            k: _canonical(v, f"{where}.{k}", dependencies) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _canonical(v, f"{where}[{i}]", dependencies) for i, v in enumerate(value)
        ]
    if isinstance(value, float) and not math.isfinite(value):
        raise StageError(f"{where}: {value} is not a JSON number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise StageError(
        f"{where}: expected JSON values, dataclasses and stages, got"
        f" {type(value).__name__}"
    )


def _resolve(value, results):
    """The input with a StageResult in place of every handle."""
    if isinstance(value, Handle):
        return results[value]
    if isinstance(value, dict):
        return {k: _resolve(v, results) for k, v in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_resolve(v, results) for v in value)
    return value


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
