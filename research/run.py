"""Runs one experiment from its config.

    python -m research.run --config=configs/ch6_easy_to_hard.py:mini --workdir=runs/mini
        --dry-run         show which stages would run, and why
        --only=a,b        run just these stages
        --from=x          run x again, and all that depends on it
        --jobs=N          so many stages at once, each in a process (default: `jobs` of
                          the config, at most one per CPU core, one on accelerators)

The config's `experiment` names the function, 'research.<package>.<module>:<function>',
taking a `Plan` and a dataclass of settings that the rest of the config fills. Stages
that are done are not repeated, so the same command continues an interrupted run. When
the last stage leaves a report, it is copied to the run's folder.
"""

from train.host import tune_host, uses_cpu

if __name__ == "__main__":
    tune_host()  # starts the process anew, so before anything slow is imported

import contextlib
import dataclasses
import importlib
import inspect
import os
import platform
import re
import shlex
import sys
import typing
from pathlib import Path

from absl import flags
from ml_collections import config_dict

from models.paths import is_remote
from research.stages import (
    CONTINUES,
    CONTINUES_REDONE,
    Plan,
    RunInfo,
    StageResult,
    execute,
    survey,
)
from research.workers import Workers, serve
from train.cli import run_main
from train.distributed import refuse_several
from train.errors import ConfigError
from train.files import write_atomic, write_json
from train.settings import build

REPORTS = ("report.md", "report.json", "report.html")
FIGURES = "figures"  # of report.md


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_list("only", [], "stages to run, nothing else", flag_values=values)
    flags.DEFINE_string(
        "from",
        None,
        "stage to run again, with all that depends on it",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run", False, "show what would run, and why", flag_values=values
    )
    flags.DEFINE_integer(
        "jobs", None, "stages at once, each in a process", 1, flag_values=values
    )
    flags.DEFINE_bool(
        "worker", False, "for --jobs: run named stages", flag_values=values
    )


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    if not values.workdir:
        raise ConfigError("--workdir: missing; expected the folder of this run")
    if is_remote(values.workdir):
        raise ConfigError(
            f"--workdir: {values.workdir}: an experiment keeps its stages on a local "
            "disk; expected a local folder, to be copied when it is done"
        )
    refuse_several("an experiment")  # its stages keep their results on their own
    workdir = Path(values.workdir)
    plan = declare(config)
    if values.dry_run:
        print(table(survey(plan, workdir, values.only, values["from"].value)))
        return
    own = [a for a in sys.argv[1:] if a != "--worker"]
    command = shlex.join(["python", "-m", "research.run", *own])
    info = RunInfo(config.to_dict(), command, workdir)
    if values.worker:
        with reuse_compiled(workdir / "compiled"):
            redone = values["from"].value is not None
            serve(plan, workdir, info, CONTINUES_REDONE if redone else CONTINUES)
        return
    jobs = count_jobs(config.get("jobs", 1), values.jobs)
    again = [sys.executable, "-m", "research.run", *own, "--worker"]
    with reuse_compiled(workdir / "compiled"):
        results = execute(
            plan,
            workdir,
            only=values.only,
            redo_from=values["from"].value,
            run_info=info,
            before=lambda: write_origin(info),
            workers=Workers(jobs, again) if jobs > 1 else None,
        )
    last = results.get(plan.handles[-1].name)
    report = publish(last, workdir) if last else None
    if report:
        print(f"report: {report}")


def count_jobs(configured: int, asked: int | None) -> int:
    """How many stages run at once: as asked, else as configured where that is no waste.

    Raises ConfigError for several on an accelerator, which one process holds.
    """
    if type(configured) is not int or configured < 1:
        raise ConfigError(f"config.jobs: expected an integer >= 1, got {configured!r}")
    if uses_cpu(os.environ):
        return asked or min(configured, os.cpu_count() or 1)
    if asked is not None and asked > 1:
        raise ConfigError(
            f"--jobs: {asked} processes cannot share an accelerator; expected 1"
        )
    return 1


@contextlib.contextmanager
def reuse_compiled(folder: Path):
    """Stages that differ in data or seed alone share what XLA compiled for them.

    Only here: what the same process compiles later must not land in this folder.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    ours = {
        "jax_compilation_cache_dir": str(folder.absolute()),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: getattr(jax.config, name) for name in ours}

    def use(settings):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it keeps the folder that it began with

    use(ours)
    try:
        yield
    finally:
        use(before)


def declare(config: config_dict.ConfigDict) -> Plan:
    """The plan of the experiment that the config names, with its settings checked."""
    settings = config.to_dict()
    experiment, cls = resolve(settings.pop("experiment", None))
    settings.pop("jobs", None)  # how to run, not what
    plan = Plan()
    experiment(plan, build(cls, settings))
    return plan


def resolve(name: str | None):
    """The function of a name such as 'research.x.experiment:experiment'.

    Returns (function, dataclass of its settings).
    """
    expected = "expected 'research.<package>.<module>:<function>'"
    if not isinstance(name, str) or not re.fullmatch(r"research(\.\w+)+:\w+", name):
        raise ConfigError(f"config.experiment: {expected}, got {name!r}")
    module, _, function = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if not module.startswith(e.name or "?"):
            raise  # the module is there; something that it imports is not
        raise ConfigError(f"config.experiment: no module {e.name!r}; {expected}") from e
    experiment = getattr(found, function, None)
    if not inspect.isfunction(experiment):
        raise ConfigError(f"config.experiment: no function {function!r} in {module}")
    hints = typing.get_type_hints(experiment)
    kinds = [hints.get(name) for name in inspect.signature(experiment).parameters]
    if (
        len(kinds) != 2
        or kinds[0] is not Plan
        or not dataclasses.is_dataclass(kinds[1])
    ):
        raise ConfigError(
            f"config.experiment: {name} is no experiment; expected a function of "
            "a Plan and a dataclass of settings"
        )
    return experiment, kinds[1]


def table(statuses) -> str:
    """The dry run as text: stage, whether it would run, and why."""
    width = max(len(s.handle.name) for s in statuses)
    lines = [f"{s.handle.name:<{width}}  {s.state:<8}  {s.reason}" for s in statuses]
    return "\n".join(lines)


def publish(result: StageResult, workdir: Path) -> Path | None:
    """Copies the report of a stage to the run's folder; returns the page's path."""
    for name in REPORTS:
        if (result.folder / name).is_file():
            write_atomic(workdir / name, (result.folder / name).read_bytes())
    for path in (result.folder / FIGURES).glob("*"):
        write_atomic(workdir / FIGURES / path.name, path.read_bytes())
    page = workdir / "report.html"
    return page if (result.folder / "report.html").is_file() else None


def write_origin(info: RunInfo) -> None:
    """Leaves command.txt and config.json; ConfigError over a config of another kind."""
    command, config = info.workdir / "command.txt", info.workdir / "config.json"
    if config.exists() and not command.exists():
        raise ConfigError(
            f"--workdir: {config} is not of a run of this program; "
            "choose another folder"
        )
    # In this order: a run that is killed in between can be continued.
    write_atomic(command, f"{info.command}\n# Python {platform.python_version()}\n")
    write_json(config, info.config)


if __name__ == "__main__":
    run_main(main, define_flags)
