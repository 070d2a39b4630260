"""The three row shapes, checked field by field, as conversations or completions.

`messages`: {"messages": [{"role", "content"}, ...]}; `alpaca`: {"instruction", "input",
"output"}; `prompt`: {"prompt", "completion"}. Errors name file, line and field."""

import difflib
from dataclasses import dataclass
from typing import Any

from data.errors import DataError
from data.records import Record

ROLES = ("system", "user", "assistant", "tool")
SHAPES = {
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
}


@dataclass(frozen=True)
class Turn:
    """One message. `context` is Alpaca's input; `train`: the loss covers this turn."""

    role: str
    text: str
    train: bool = False
    context: str = ""

    @property
    def full_text(self) -> str:
        return f"{self.text}\n\n{self.context}" if self.context else self.text


@dataclass(frozen=True)
class Conversation:
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Completion:
    prompt: str
    completion: str


def detect_shape(row: dict, where: str) -> str:
    """The first shape whose required keys the row has; DataError if there is none."""
    for shape, keys in SHAPES.items():
        if all(key in row for key in keys):
            return shape
    known = [key for keys in SHAPES.values() for key in keys]
    hints = [
        f"{key!r} (did you mean {near!r}?)"
        for key in row
        if key not in known and (near := nearest(key, known))
    ]
    got = f"got {sorted(map(str, row))}" + (f"; {', '.join(hints)}" if hints else "")
    raise DataError(
        f"{where}: expected the keys 'messages', or 'instruction' and 'output', or "
        f"'prompt' and 'completion', {got}"
    )


def parse_record(record: Record, shape: str | None = None) -> Conversation | Completion:
    """Check one record of the named shape (None: detect it) and return its content."""
    row, where = record.row, record.where
    if shape is None:
        shape = detect_shape(row, where)
    if shape not in SHAPES:
        near = _did_you_mean(shape, tuple(SHAPES))
        raise DataError(f"shape: expected one of {tuple(SHAPES)}, got {shape!r}{near}")
    missing = [key for key in SHAPES[shape] if key not in row]
    if missing:
        near = _did_you_mean(missing[0], tuple(map(str, row)))
        raise DataError(
            f"{where}: expected the key {missing[0]!r} of the {shape!r} shape, "
            f"got {sorted(map(str, row))}{near}"
        )
    if shape == "messages":
        return _messages(row["messages"], where)
    if shape == "alpaca":
        context = row.get("input")
        turns = (
            Turn(
                "user",
                _text(row["instruction"], where, "instruction"),
                context="" if context is None else _text(context, where, "input", True),
            ),
            Turn("assistant", _text(row["output"], where, "output"), train=True),
        )
        return Conversation(turns)
    return Completion(
        _text(row["prompt"], where, "prompt", may_be_empty=True),
        _text(row["completion"], where, "completion"),
    )


def _messages(messages: Any, where: str) -> Conversation:
    if not isinstance(messages, list) or not messages:
        got = "an empty list" if messages == [] else type(messages).__name__
        raise DataError(f"{where}: messages: expected a list of messages, got {got}")
    turns = tuple(_turn(m, where, f"messages[{i}]") for i, m in enumerate(messages))
    for i, turn in enumerate(turns):
        if turn.role == "system" and i > 0:
            raise DataError(f"{where}: messages[{i}].role: 'system' only opens a list")
    if turns[-1].role != "assistant":
        raise DataError(
            f"{where}: messages[{len(turns) - 1}].role: expected the last message to "
            f"be the 'assistant' one that is learned, got {turns[-1].role!r}"
        )
    if not any(turn.train for turn in turns):
        raise DataError(f"{where}: messages: every assistant message has weight 0")
    return Conversation(turns)


def _turn(message: Any, where: str, field: str) -> Turn:
    if not isinstance(message, dict):
        raise DataError(
            f"{where}: {field}: expected an object with role and content, "
            f"got {type(message).__name__}"
        )
    role = message.get("role")
    if role not in ROLES:
        near = _did_you_mean(role, ROLES)
        raise DataError(
            f"{where}: {field}.role: expected one of {', '.join(ROLES)}, "
            f"got {role!r}{near}"
        )
    if message.get("tool_calls"):
        raise DataError(f"{where}: {field}.tool_calls: tool calls are not supported")
    if "content" not in message:
        near = _did_you_mean("content", tuple(map(str, message)))
        raise DataError(f"{where}: {field}.content: missing{near}")
    text = _text(
        message["content"], where, f"{field}.content", may_be_empty=role != "assistant"
    )
    # Parquet fills a column that a row lacks with None.
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise DataError(f"{where}: {field}.weight: expected 0 or 1, got {weight!r}")
    return Turn(role, text, train=role == "assistant" and weight != 0)


def _text(value: Any, where: str, field: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        got = "null" if value is None else type(value).__name__
        raise DataError(f"{where}: {field}: expected a string, got {got}")
    if not may_be_empty and not value.strip():
        raise DataError(f"{where}: {field}: expected text, got an empty string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {field}: half of a surrogate pair at character {error.start}"
        ) from error
    return value


def nearest(value: Any, known) -> str | None:
    """The known string most like the value, None if none is close."""
    close = difflib.get_close_matches(str(value), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def _did_you_mean(value: Any, known) -> str:
    near = nearest(value, known)
    return f"; did you mean {near!r}?" if near else ""
