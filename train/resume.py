"""Whether a run may continue from a checkpoint: the same settings, the same data."""

import json
from collections.abc import Mapping
from pathlib import Path

from models.errors import CheckpointError
from train.errors import ConfigError

_ABSENT = object()


def check_identity(now: Mapping, saved: Mapping, folder: Path) -> None:
    """Raises ConfigError naming every setting that differs from the checkpoint's."""
    now, saved = flatten(json.loads(json.dumps(now))), flatten(saved)
    keys = [*now, *(key for key in saved if key not in now)]
    different = [
        f"{key} is {_show(now.get(key, _ABSENT))}, was {_show(saved.get(key, _ABSENT))}"
        for key in keys
        if now.get(key, _ABSENT) != saved.get(key, _ABSENT)
    ]
    if different:
        raise ConfigError(
            f"{folder} holds a run with other settings: {'; '.join(different)}. "
            "Use the same settings to continue it, or another folder"
        )


def saved_run(meta: Mapping, path: Path) -> tuple[Mapping, Mapping]:
    """(identity, cursor) of a checkpoint's meta; CheckpointError unless it has both."""
    for key in ("identity", "cursor"):
        if not isinstance(meta.get(key), Mapping):
            raise CheckpointError(f"{path}: has no {key!r}; not saved by a run")
    return meta["identity"], meta["cursor"]


def flatten(tree: Mapping, prefix: str = "") -> dict:
    """{"optimizer.lr": 0.1, ...} of nested mappings."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _show(value) -> str:
    if value is _ABSENT:
        return "absent"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
