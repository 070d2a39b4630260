"""From a ConfigDict to a frozen dataclass, checking every key on the way.

The dataclass is the schema: its annotations are the types, its defaults the optional
keys, and the helpers below the ranges.

    @dataclasses.dataclass(frozen=True)
    class Optimizer:
        lr: float = positive()                            # required
        schedule: Literal["constant", "cosine"] = "cosine"
        warmup: float = fraction(0.1)
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from typing import Any, Literal, NamedTuple, TypeVar, Union

from ml_collections import config_dict

from train.errors import ConfigError

T = TypeVar("T")
NAMES = {
    type(None): "None",
    float: "a number",
    int: "an int",
    bool: "a bool",
    str: "a string",
}


class Check(NamedTuple):
    holds: Callable[[Any], bool]
    expected: str


def checked(holds: Callable[[Any], bool], expected: str, default: Any = MISSING):
    """A dataclass field whose value must satisfy `holds`; `expected` says it in words.

    None passes where the annotation allows it; the items of a tuple are checked one by
    one.
    """
    return dataclasses.field(
        default=default, metadata={"check": Check(holds, expected)}
    )


def positive(default: Any = MISSING):
    return checked(lambda v: v > 0, "> 0", default)


def at_least(low: float, default: Any = MISSING):
    return checked(lambda v: v >= low, f">= {low}", default)


def fraction(default: Any = MISSING):
    return checked(lambda v: 0 <= v <= 1, "between 0 and 1", default)


def choice(options: Iterable, default: Any = MISSING):
    """A field that takes one of `options`, for choices known only at run time."""
    options = tuple(options)
    return checked(lambda v: v in options, one_of(options), default)


def build(cls: type[T], config: Mapping, path: str = "config") -> T:
    """Builds the frozen dataclass `cls` from a ConfigDict or dict, recursively.

    An int serves as a float and a list as a tuple; nothing else is converted. Raises
    ConfigError naming the full key, e.g. `config.optimizer.lr`, what was expected and,
    for an unknown key, the nearest known one.
    """
    if not _is_mapping(config):
        raise _mismatch(path, f"the settings of {cls.__name__}", config)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    given = _present(config)
    for key in given:
        if key not in fields:
            raise ConfigError(f"{path}.{key}: unknown key{nearest(str(key), fields)}")
    values = {}
    for name, field in fields.items():
        key = f"{path}.{name}"
        if name in given:
            values[name] = _convert(hints[name], given[name], key)
            _check_range(field, values[name], key)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{key}: missing; expected {_describe(hints[name])}")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as e:  # a __post_init__ that looks at several fields at once
        raise ConfigError(f"{path}: {e}") from e


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is known when nothing is near."""
    known = [str(k) for k in known]
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [k for k in known if k.rsplit(".", 1)[-1] == leaf]
    close = same_leaf or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def one_of(options: Iterable) -> str:
    return "one of " + ", ".join(repr(o) for o in options)


def _is_mapping(value) -> bool:
    return isinstance(value, Mapping | config_dict.ConfigDict)


def _present(config) -> dict:
    """The items of a mapping without required placeholders nobody filled in."""
    if not isinstance(config, config_dict.ConfigDict):
        return dict(config)
    present = {}
    for key in config:
        try:
            present[key] = config[key]
        except config_dict.RequiredValueError:
            continue  # reported as missing where the field has no default
    return present


def _check_range(field: dataclasses.Field, value, key: str) -> None:
    check = field.metadata.get("check")
    if check is None or value is None:
        return
    for item in value if isinstance(value, tuple) else (value,):
        if item is not None and not check.holds(item):
            raise _mismatch(key, check.expected, item)


def _convert(hint, value, key: str):
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, key)
    if origin is Literal:
        # `1 == True`: a choice must agree in type as well.
        if any(value == a and type(value) is type(a) for a in args):
            return value
        close = nearest(value, args) if isinstance(value, str) else ""
        close = close if "did you mean" in close else ""
        raise ConfigError(f"{key}: expected {one_of(args)}, got {value!r}{close}")
    if origin is tuple:
        return _convert_tuple(hint, args, value, key)
    if origin is dict or hint is dict:
        if not _is_mapping(value):
            raise _mismatch(key, "a mapping", value)
        inner = args[1] if args else Any
        return {k: _convert(inner, v, f"{key}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, key)
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise _mismatch(key, "a number that is finite", value)
    if type(value) is not hint:
        raise _mismatch(key, _describe(hint), value)
    return value


def _convert_union(args, value, key: str):
    if value is None and type(None) in args:
        return None
    options = [a for a in args if a is not type(None)]
    for option in options:
        try:
            return _convert(option, value, key)
        except ConfigError:
            if len(options) == 1:
                raise
    raise _mismatch(key, " or ".join(_describe(a) for a in args), value)


def _convert_tuple(hint, args, value, key: str):
    if not isinstance(value, list | tuple):
        raise _mismatch(key, _describe(hint), value)
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise _mismatch(key, _describe(hint), value)
    return tuple(
        _convert(a, v, f"{key}[{i}]")
        for i, (a, v) in enumerate(zip(args, value, strict=True))
    )


def _describe(hint) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in args)
    if origin is Literal:
        return one_of(args)
    if origin is tuple and args and args[-1] is Ellipsis:
        return f"a list of {_describe(args[0])}"
    if origin is tuple:
        return "(" + ", ".join(_describe(a) for a in args) + ")"
    return NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _mismatch(key: str, expected: str, value) -> ConfigError:
    if value is None:  # a placeholder that nobody filled in
        return ConfigError(f"{key}: missing; expected {expected}")
    if _is_mapping(value):
        got = "a group of keys"
    else:
        got = f"{value!r} ({type(value).__name__})"
    return ConfigError(f"{key}: expected {expected}, got {got}")
