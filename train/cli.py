"""Entry points: flags and config in, one line on stderr and an exit code out.

    python -m train.sft --config=configs/sft.py:mini --config.optimizer.lr=1e-4 \
        --workdir=runs/x

Exit codes: 0 done; 2 bad input (`error: ...`, no traceback); 3 training diverged; 75
stopped by a signal after saving, to be continued by the same command; 76 another
process of the run was lost (see `train.distributed`). Anything else is a bug and keeps
its traceback.
"""

import difflib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import config_dict, config_flags

from models.paths import is_remote
from train import distributed
from train.errors import ConfigError, Diverged, Preempted
from train.remote import check_remote
from train.resume import flatten
from train.settings import nearest, one_of

OK, BUG, BAD_INPUT, DIVERGED, PREEMPTED, LOST, INTERRUPTED = 0, 1, 2, 3, 75, 76, 130


def run_main(
    main: Callable[[config_dict.ConfigDict, flags.FlagValues], int | None],
    define_flags: Callable[[flags.FlagValues], None] = lambda values: None,
) -> None:
    """Runs `main(config, flag_values)` on the command line and exits the process.

    Every entry point has `--config=FILE.py[:VARIANT]`, overrides
    `--config.a.b=VALUE`, `--workdir`, and those of `train.distributed`;
    `define_flags(flag_values)` adds more, e.g.
    `flags.DEFINE_bool("dry_run", False, "...", flag_values=values)`.
    """
    code = run(main, sys.argv, define_flags)
    if code not in (OK, PREEMPTED):  # all processes come to these together
        distributed.leave(code)
    sys.exit(code)


def run(main, argv: list[str], define_flags=lambda values: None) -> int:
    """`run_main` on an explicit command line; returns the exit code."""
    try:
        config, values = parse(argv, define_flags, doc=inspect.getmodule(main).__doc__)
        distributed.initialize(
            values.distributed,
            values.coordinator,
            values.num_processes,
            values.process_id,
            lost_after=values.lost_after,
        )
        return main(config, values) or OK
    except SystemExit as e:
        return e.code or OK
    except Diverged as e:
        return _report("error", e, DIVERGED)
    except Preempted as e:
        return _report("stopped", e, PREEMPTED)
    except KeyboardInterrupt:
        return _report("stopped", "interrupted", INTERRUPTED)
    except Exception as e:
        if getattr(e, "user_error", False):
            return _report("error", e, BAD_INPUT)
        if distributed.is_loss(e):
            return _report("error", distributed.loss_message(e), LOST)
        traceback.print_exc()
        return BUG


def parse(
    argv: list[str], define_flags=lambda values: None, doc: str | None = None
) -> tuple[config_dict.ConfigDict, flags.FlagValues]:
    """Reads the command line into (config, flag values).

    Raises ConfigError for a config file, variant, key or value that cannot be used.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_bool("help", False, "show this help", flag_values=values)
    distributed.define_flags(values)
    define_flags(values)
    source, rest = _take_config(argv)
    if source is None:
        if "--help" in argv or "-help" in argv:
            print(_help(values, doc))
            raise SystemExit(OK)
        raise ConfigError(
            "--config: missing; expected --config=FILE.py or FILE.py:VARIANT"
        )
    config = load_config(source)
    _check_keys(config, rest)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=rest
        )
        extra = values(rest)[1:]
    except (flags.Error, TypeError, ValueError, KeyError, AttributeError) as e:
        raise ConfigError(_one_line(e)) from e
    if values.help:
        print(_help(values, doc))
        raise SystemExit(OK)
    if extra:
        raise ConfigError(
            f"unexpected argument {extra[0]!r}; flags look like --name=value"
        )
    for key, value in flatten(values.config.to_dict()).items():
        if isinstance(value, str):
            check_remote(f"config.{key}", value, there=True)
    if values.workdir:
        _check_workdir(values.workdir)
    return values.config, values


def load_config(source: str) -> config_dict.ConfigDict:
    """Calls `get_config` of `FILE.py` or `FILE.py:VARIANT`; the result is locked.

    A config file names its variants in `VARIANTS`; the first is the default.
    """
    name, _, variant = source.partition(":")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--config: no file {name!r}{_nearest_file(path)}")
    if path.suffix != ".py":
        raise ConfigError(f"--config: expected a Python file, got {name!r}")
    try:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = _get_config(module, path, variant)
        if isinstance(config, config_dict.ConfigDict):
            return config.lock()
    except ConfigError:
        raise
    except Exception as e:  # a config file is input: say where in it
        raise ConfigError(
            f"{_place(e, path)}: {type(e).__name__}: {_one_line(e)}"
        ) from e
    raise ConfigError(f"{path}: get_config must return a ConfigDict")


def _nearest_file(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.py")]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean '{path.parent / close[0]}'?" if close else ""


def _get_config(module, path: Path, variant: str):
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError(f"{path}: has no function get_config")
    variants = tuple(getattr(module, "VARIANTS", ()))
    if variant and variants and variant not in variants:
        raise ConfigError(
            f"{path}: no variant {variant!r}; expected {one_of(variants)}"
        )
    if variant and not inspect.signature(get_config).parameters:
        raise ConfigError(f"{path}: takes no variant, got {variant!r}")
    return get_config(variant) if variant else get_config()


def _take_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """Splits `--config=X` (or `--config X`) from the rest; the last one wins.

    `--dry-run` and `--dry_run` are the same flag.
    """
    source, rest, i = None, [], 0
    while i < len(argv):
        name, equals, value = argv[i].partition("=")
        if name in ("--config", "-config"):
            if not equals:
                i += 1
                value = argv[i] if i < len(argv) else ""
            source = value
        elif name.startswith("--") and "." not in name:
            rest.append(name[:2] + name[2:].replace("-", "_") + equals + value)
        else:
            rest.append(argv[i])
        i += 1
    return source or None, rest


def _check_keys(config: config_dict.ConfigDict, argv: list[str]) -> None:
    known = _leaves(config)
    for argument in argv[1:]:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no")
        if argument.startswith("-") and name.startswith("config."):
            key = name.removeprefix("config.")
            if key in known:
                continue
            if any(k.startswith(key + ".") for k in known):
                raise ConfigError(f"config.{key}: is a group of keys; set one of them")
            raise ConfigError(f"config.{key}: unknown key{nearest(key, known)}")


def _leaves(config, prefix: str = "") -> list[str]:
    leaves = []
    for key, value in config.items(preserve_field_references=True):
        if isinstance(value, config_dict.ConfigDict):
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append(f"{prefix}{key}")
    return leaves


def _check_workdir(workdir: str) -> None:
    """Raises ConfigError unless files can be written there; makes nothing."""
    check_remote("--workdir", workdir, there=False)
    if is_remote(workdir):
        return
    path = Path(workdir).absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir():
        raise ConfigError(f"--workdir: {there}: is a file; expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--workdir: {there}: no right to write there")


def _place(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _help(values: flags.FlagValues, doc: str | None) -> str:
    lines = ["  --config=FILE.py[:VARIANT], --config.KEY=VALUE: the config, overrides"]
    for module, defined in values.flags_by_module_dict().items():
        if not module.startswith("absl"):
            own = [f for f in defined if not f.name.startswith("config")]
            lines += [f"  --{f.name.replace('_', '-')}: {f.help}" for f in own]
    return "\n".join([doc or "", "flags:", *lines])


def _one_line(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _report(kind: str, message, code: int) -> int:
    print(f"{kind}: {_one_line(message)}", file=sys.stderr, flush=True)
    return code
