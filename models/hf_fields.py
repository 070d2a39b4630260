"""Typed access to the fields of a config.json; errors name the file and the field."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from models.errors import CheckpointError

MOST = 2**31 - 1
# Far beyond any real model: a typing error should not build a table of 10^9 layers.
MOST_LAYERS = 4096

_REQUIRED: Any = object()
_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "a string",
          list: "a list", dict: "an object"}  # fmt: skip


class Fields(NamedTuple):
    """Typed access to a JSON object; errors name the file and the field."""

    config: Mapping[str, Any]
    where: str
    prefix: str = ""

    def get(self, key, kind, default=_REQUIRED, low=None, optional=False):
        """The value of a key; `optional` lets null through (as the default, if any)."""
        expected = _TYPES[kind] + (f" >= {low}" if low is not None else "")
        if key not in self.config:
            if default is _REQUIRED:
                raise CheckpointError(
                    f"{self.where}: {self.prefix}{key} is missing; expected {expected}"
                )
            return default
        value = self.config[key]
        if value is None and optional:
            return None
        if kind is float and type(value) is int and abs(value) <= MOST:
            value = float(value)
        # NaN fails every comparison, hence `not >=`.
        if type(value) is not kind or (low is not None and not value >= low):
            raise self.error(key, expected)
        if kind in (int, float) and value > MOST:
            raise self.error(key, f"{expected} and <= {MOST}")
        return value

    def layers(self) -> int:
        """`num_hidden_layers`."""
        number = self.get("num_hidden_layers", int, low=1)
        if number > MOST_LAYERS:
            raise self.error("num_hidden_layers", f"at most {MOST_LAYERS}")
        return number

    def error(self, key, expected, value=None) -> CheckpointError:
        """That the value of a key is not what was expected."""
        value = self.config.get(key) if value is None else value
        return CheckpointError(
            f"{self.where}: {self.prefix}{key} is {value!r}; expected {expected}"
        )
