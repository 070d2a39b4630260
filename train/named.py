"""Functions that a config names, so that a config can choose what no setting holds."""

import importlib
import re
from collections.abc import Callable

from train.errors import ConfigError


def named_function(name: str, key: str) -> Callable:
    """The function of a name such as 'package.module:function'.

    So a command of `train` runs what only a package above it has. Raises ConfigError
    that begins with the config's `key`, where there is no such function.
    """
    expected = "expected 'package.module:function'"
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise ConfigError(f"{key}: {expected}, got {name!r}")
    module, _, function = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if not module.startswith(e.name or "?"):
            raise  # the module is there; something that it imports is not
        raise ConfigError(f"{key}: no module {e.name!r}; {expected}") from e
    made = getattr(found, function, None)
    if not callable(made):
        raise ConfigError(f"{key}: no function {function!r} in {module}")
    return made
