"""The JSON protocol of the Lean 4 REPL: requests as bytes, replies as records.

github.com/leanprover-community/repl, REPL/JSON.lean and REPL/Main.lean. A request is
one JSON object on one line, and exactly one empty line after it: line breaks within the
object would be deleted without a word, a second empty line ends the process. A reply is
one JSON object, pretty-printed over several lines, up to an empty line.

Ids of environments and of proof states count 0, 1, 2, ... apart, in order of arrival;
both name immutable snapshots, so any earlier one may be continued at any time.
"""

import json
from typing import Any, Literal, NamedTuple

Infotree = Literal["full", "tactics", "original", "substantive"]
SEVERITIES = ("trace", "info", "warning", "error")
COMPLETED = "Completed"


class ProtocolError(Exception):
    """A reply that the protocol does not allow; the process cannot be trusted on."""


class Pos(NamedTuple):
    """`line` counts from 1, `column` from 0; messages of a tactic have 0:0."""

    line: int
    column: int


class Message(NamedTuple):
    severity: str
    data: str
    pos: Pos | None
    end: Pos | None


class Sorry(NamedTuple):
    """A `sorry` and the proof state at it, the entry to tactic mode."""

    goal: str
    proof_state: int | None
    pos: Pos | None
    end: Pos | None


class TracedTactic(NamedTuple):
    """A tactic of a command with `allTactics`: goals and proof state before it."""

    tactic: str
    goals: str
    proof_state: int | None
    pos: Pos | None
    end: Pos | None
    used_constants: tuple[str, ...]


class CommandReply(NamedTuple):
    env: int
    messages: tuple[Message, ...]
    sorries: tuple[Sorry, ...]
    tactics: tuple[TracedTactic, ...]
    infotree: Any


class StepReply(NamedTuple):
    """`status` is None where the REPL is too old to check a finished proof."""

    proof_state: int
    goals: tuple[str, ...]
    status: str | None
    messages: tuple[Message, ...]
    sorries: tuple[Sorry, ...]
    traces: tuple[str, ...]


class Refusal(NamedTuple):
    """{"message": ...}: nothing was done, no id was given out."""

    message: str


Reply = CommandReply | StepReply | Refusal


def command(
    cmd: str,
    env: int | None = None,
    all_tactics: bool = False,
    root_goals: bool = False,
    infotree: Infotree | None = None,
) -> dict:
    """Runs a command on an environment; None starts one, which alone may import."""
    return {"cmd": cmd, **_options(env, all_tactics, root_goals, infotree)}


def file(
    path: str,
    env: int | None = None,
    all_tactics: bool = False,
    root_goals: bool = False,
    infotree: Infotree | None = None,
) -> dict:
    """Runs a file, read by the process itself, as `command` does a text."""
    return {"path": path, **_options(env, all_tactics, root_goals, infotree)}


def step(proof_state: int, tactic: str) -> dict:
    """Runs a tactic on a proof state, which stays as it is."""
    return {"proofState": proof_state, "tactic": tactic}


def pickle_env(env: int, path: str) -> dict:
    """Writes an environment to a file, without what its imports hold."""
    return {"pickleTo": path, "env": env}


def unpickle_env(path: str) -> dict:
    """Reads an environment; the same toolchain and modules must be there."""
    return {"unpickleEnvFrom": path}


def pickle_state(proof_state: int, path: str) -> dict:
    """Writes a proof state to a file; the reply gives it a new id."""
    return {"pickleTo": path, "proofState": proof_state}


def unpickle_state(path: str, env: int | None = None) -> dict:
    """Reads a proof state, onto `env` if given, which saves importing again."""
    return {"unpickleProofStateFrom": path, **({} if env is None else {"env": env})}


def encode(request: dict) -> bytes:
    """The request as it is sent: one line of UTF-8, and one empty line.

    Characters stay as they are: older JSON parsers of Lean know no surrogate pairs.
    Raises ValueError for text that is not Unicode (half of a surrogate pair).
    """
    line = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8") + b"\n\n"


def decode(data: bytes) -> Reply:
    """The reply in `data`, without its empty line. Raises ProtocolError.

    Unknown fields are left alone; a known one of another type is an error by name.
    """
    try:
        row = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON ({error}): {_shown(data)}") from error
    if not isinstance(row, dict):
        raise ProtocolError(f"expected a JSON object, got {_shown(data)}")
    if "message" in row:
        return Refusal(_field(row, "message", str))
    if "proofState" in row:
        return StepReply(
            _id(row, "proofState"),
            _strings(row, "goals", required=True),
            _field(row, "proofStatus", str) if "proofStatus" in row else None,
            tuple(map(_message, _objects(row, "messages"))),
            tuple(map(_sorry, _objects(row, "sorries"))),
            _strings(row, "traces"),
        )
    if "env" in row:
        return CommandReply(
            _id(row, "env"),
            tuple(map(_message, _objects(row, "messages"))),
            tuple(map(_sorry, _objects(row, "sorries"))),
            tuple(map(_tactic, _objects(row, "tactics"))),
            row.get("infotree"),
        )
    raise ProtocolError(f"expected env, proofState or message, got {sorted(row)}")


def errors(messages: tuple[Message, ...]) -> list[str]:
    """The texts of the messages of severity error."""
    return [m.data for m in messages if m.severity == "error"]


def _options(env, all_tactics, root_goals, infotree) -> dict:
    options = {
        "env": env,
        "allTactics": all_tactics or None,
        "rootGoals": root_goals or None,
        "infotree": infotree,
    }
    return {key: value for key, value in options.items() if value is not None}


def _message(row: dict) -> Message:
    severity = _field(row, "severity", str)
    if severity not in SEVERITIES:
        raise ProtocolError(f"severity: expected one of {SEVERITIES}, got {severity!r}")
    return Message(severity, _field(row, "data", str), *_place(row))


def _sorry(row: dict) -> Sorry:
    return Sorry(_field(row, "goal", str), _maybe_id(row), *_place(row))


def _tactic(row: dict) -> TracedTactic:
    return TracedTactic(
        _field(row, "tactic", str),
        _field(row, "goals", str),
        _maybe_id(row),
        *_place(row),
        _strings(row, "usedConstants"),
    )


def _place(row: dict) -> tuple[Pos | None, Pos | None]:
    return _pos(row, "pos"), _pos(row, "endPos")


def _pos(row: dict, key: str) -> Pos | None:
    if row.get(key) is None:
        return None
    place = _field(row, key, dict)
    return Pos(_field(place, "line", int), _field(place, "column", int))


def _maybe_id(row: dict) -> int | None:
    return None if row.get("proofState") is None else _id(row, "proofState")


def _id(row: dict, key: str) -> int:
    value = _field(row, key, int)
    if value < 0:
        raise ProtocolError(f"{key}: expected 0 or more, got {value}")
    return value


def _field(row: dict, key: str, kind: type) -> Any:
    value = row.get(key)
    if type(value) is not kind:
        raise ProtocolError(f"{key}: expected {kind.__name__}, got {value!r:.80}")
    return value


def _objects(row: dict, key: str) -> list[dict]:
    found = row.get(key, [])
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        raise ProtocolError(f"{key}: expected a list of objects, got {found!r:.80}")
    return found


def _strings(row: dict, key: str, required: bool = False) -> tuple[str, ...]:
    found = row.get(key, None if required else [])
    if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
        raise ProtocolError(f"{key}: expected a list of strings, got {found!r:.80}")
    return tuple(found)


def _shown(data: bytes) -> str:
    return repr(data[:120].decode("utf-8", "backslashreplace"))
