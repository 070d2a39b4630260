"""What a finished stage leaves in its result.json, and how two of them differ."""

import json
from pathlib import Path

FORMAT = 1
RECORD = dict(
    format=int, stage=str, fingerprint=str, function=list, inputs=dict,
    dependencies=dict, started=str, finished=str, seconds=float, value=dict,
)  # fmt: skip


class StageError(ValueError):
    """A plan, a selection of stages or a stored result that cannot be used."""

    user_error = True


def read_record(path: Path) -> dict:
    """A stored record; StageError when it is truncated or not one of ours."""
    try:
        record = json.loads(path.read_text())
    except (ValueError, RecursionError):
        record = None
    kinds = {k: type(v) for k, v in record.items()} if type(record) is dict else {}
    if kinds != RECORD or record["format"] != FORMAT:
        raise StageError(
            f"{path}: truncated or foreign; delete its folder to run the stage again"
        )
    return record


def difference(folder: Path, function: list, inputs: dict) -> str:
    """What changed since the newest record below the folder of a stage, in words."""
    paths = folder.glob("*/result.json")
    records = []
    for path in paths:
        try:
            records.append(read_record(path))
        except StageError:
            continue  # not reused, only compared with
    if not records:
        return "new"
    last = max(records, key=lambda r: r["finished"])
    old, new = _flat(last["inputs"]), _flat(inputs)
    changes = []
    if last["function"] != function:
        changes.append("the function's name or version changed")
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, tuple) and isinstance(after, tuple) and before != after:
            changes.append(f"{key} changed")
        elif before != after:
            changes.append(f"{key} {_short(before)} -> {_short(after)}")
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more if changes else "another stage of this name"


def _flat(value, prefix: str = "") -> dict:
    if isinstance(value, dict) and "__stage__" in value:
        return {prefix: ("stage", value["__stage__"])}
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        join = f"{prefix}." if prefix else ""
        return {k: v for i, x in items for k, v in _flat(x, f"{join}{i}").items()}
    return {prefix: value}


def _short(value) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else text[:21] + "..."
