"""Solutions cut into steps, a label on each, and where a step ends among the tokens.

One rule cuts text, of people and of models alike: a step ends where a separator is
complete and the step has said something. A separator that closes nothing but white
space, such as the third of three newlines, opens no step of its own; it belongs to the
step that follows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from data.batch import LabelledExample
from data.errors import DataError
from data.packing import fit
from data.records import Record, read_rows
from data.tokenizers import UNKNOWN_ID, Tokenizer

SEPARATOR = "\n\n"
# White space that some tokenizers leave out at the start of a text.
_HIDDEN = " \u2581"


class LabelledSteps(NamedTuple):
    """prompt + "".join(steps) is the text; a label in 0 .. 1 of each step, or None.

    A solution labelled by its outcome is one step, the whole response."""

    prompt: str
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]


class StepRow(NamedTuple):
    """A row of a file, to learn from, and with weight only where scores are read.

    `ends` is None where a cut left no such place."""

    solution: LabelledSteps
    example: LabelledExample
    ends: LabelledExample | None


class LoadedSteps(NamedTuple):
    """Rows that fit, and what was left out or cut to get there."""

    rows: list[StepRow]
    skipped: list[dict]  # see data.records.Rows
    truncated: int
    dropped: int


class Encode(Protocol):
    """Text to ids, as `Tokenizer.encode`; `previous` None opens the sequence."""

    def __call__(self, text: str, *, previous: int | None = None) -> list[int]: ...


def text_encoder(tokenizer: Tokenizer) -> Encode:
    """The tokenizer's encode, with the BOS of checkpoints that want one in front.

    A prompt has the same ids as under the template 'plain'."""

    def encode(text: str, *, previous: int | None = None) -> list[int]:
        start = previous is None and tokenizer.adds_bos
        bos = [tokenizer.bos_id] if start else []
        return bos + tokenizer.encode(text, previous=previous)

    return encode


def encode_steps(
    encode: Encode | Callable, solution: LabelledSteps, where: str = "all"
) -> LabelledExample:
    """Tokens of prompt and steps, each step's label on its tokens.

    Steps are encoded one after another, so that a step's end is a token's end. Without
    an EOS: a score is read at the last token of a step or of the answer.

    where: 'all' weighs every token of a labelled step (the original code's
    `train_on_every_token`; an outcome then trains like a value), 'end' its last token
    only, where scores are read. Raises DataError for a solution without a label."""
    if where not in ("all", "end"):
        raise DataError(f"where: expected 'all' or 'end', got {where!r}")
    if len(solution.labels) != len(solution.steps):
        raise DataError(
            f"labels: expected {len(solution.steps)}, one per step, "
            f"got {len(solution.labels)}"
        )
    tokens = list(encode(solution.prompt))
    labels, weights = [0.0] * len(tokens), [0.0] * len(tokens)
    for step, label in zip(solution.steps, solution.labels, strict=True):
        ids = encode(step, previous=tokens[-1] if tokens else None)
        tokens += ids
        labels += [0.0 if label is None else float(label)] * len(ids)
        weights += [float(label is not None and where == "all")] * len(ids)
        if label is not None and ids:
            weights[-1] = 1.0
    if not any(weights):
        raise DataError("labels: no token of this solution has a label")
    return LabelledExample(
        np.asarray(tokens, np.int32),
        np.asarray(labels, np.float32),
        np.asarray(weights, np.float32),
    )


def step_ends(text: str, separator: str = SEPARATOR) -> list[int]:
    """Where steps end: for each, the index just behind its separator's last character.

    Only separators that are there count: a last step without one has no end here."""
    if not separator:
        raise DataError("separator: expected text, got an empty string")
    ends, start, look = [], 0, 0
    while (at := text.find(separator, look)) >= 0:
        end = at + len(separator)
        if text[start:at].strip():
            ends.append(end)
            start = look = end
        else:
            look = at + 1  # the step has not begun: a later match may overlap this one
    return ends


def split_steps(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """The steps of a response, separators included: their concatenation is the text.

    White space behind the last separator belongs to the last step."""
    ends = step_ends(text, separator)
    if ends and not text[ends[-1] :].strip():
        ends[-1] = len(text)
    cuts = [0, *ends] if ends and ends[-1] == len(text) else [0, *ends, len(text)]
    return tuple(text[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if a < b)


def step_places(
    tokenizer: Tokenizer,
    response_ids: Sequence[int],
    separator: str = SEPARATOR,
    until: str | None = None,
) -> list[int]:
    """The index in a response of the token that completes each step's separator.

    A token may hold more than the separator, or complete two (its index then comes
    twice); a separator may be spread over tokens. Known as soon as the token is there:
    places of a prefix are a prefix of the places.

    until: text, such as '# Answer', behind whose first occurrence nothing counts.

    The original code looks for two newline ids in a row, and loses its count where
    three follow each other or one token holds both."""
    ids = [int(token) for token in response_ids]
    whole = tokenizer.decode(ids)
    limit = len(whole) if until is None else whole.find(until)
    limit = len(whole) if limit < 0 else limit
    total = sum(end <= limit for end in step_ends(whole, separator))
    places: list[int] = []
    may_complete = _completers(tokenizer, separator)
    for i, token in enumerate(ids):
        if len(places) == total:
            break
        if may_complete(token):
            known = len(step_ends(tokenizer.decode(ids[: i + 1]), separator))
            places += [i] * (min(known, total) - len(places))
    return places


def _completers(tokenizer: Tokenizer, separator: str) -> Callable[[int], bool]:
    """Whether a token may hold the end of a separator; spares most of the decoding."""
    last = separator[-1:]
    seen: dict[int, bool] = {}

    def may_complete(token: int) -> bool:
        if token not in seen:
            text = tokenizer.decode([token])
            # Part of a character decodes to a mark; white space may be left out.
            seen[token] = last in _HIDDEN or last in text or UNKNOWN_ID in text
        return seen[token]

    return may_complete


def load_steps(
    path,
    encode: Encode,
    *,
    length: int,
    where: str = "all",
    on_bad_row: str = "error",
    on_long: str = "error",
) -> LoadedSteps:
    """Read, check and tokenize a `.jsonl`, `.json` or `.parquet` file of labelled rows.

    Rows may be labelled by step or by outcome (`parse_steps`), in one file: outcome and
    process mixed. where: as in `encode_steps`, of rows labelled by step; an outcome is
    learned at every token. on_long: as in `data.packing.fit`. Raises DataError naming
    file, line and field."""

    def parse(record: Record) -> StepRow:
        solution, outcome = parse_steps(record), "completion" in record.row
        example = encode_steps(encode, solution, "all" if outcome else where)
        if on_long == "error" and len(example.tokens) > length:
            raise DataError(
                f"{record.where}: {len(example.tokens)} tokens, more than the length "
                f"of {length}; raise it, or set on_long to 'truncate' or 'drop'"
            )
        return StepRow(solution, example, encode_steps(encode, solution, "end"))

    found = read_rows(path, parse, on_bad_row)
    rows, truncated, dropped = [], 0, 0
    for row in found.items:
        fitted = fit([row.example], length, on_long)
        truncated, dropped = truncated + fitted.truncated, dropped + fitted.dropped
        if fitted.examples:
            ends = fit([row.ends], length, "truncate").examples
            rows.append(StepRow(row.solution, *fitted.examples, next(iter(ends), None)))
    if not rows:
        raise DataError(f"{path}: no row has a labelled token within {length} tokens")
    return LoadedSteps(rows, found.skipped, truncated, dropped)


def parse_steps(record: Record) -> LabelledSteps:
    """A row {"prompt", "steps", "labels"}, or {"prompt", "completion", "label"}.

    Labels are numbers from 0 to 1 (true and false are 1 and 0), null in `labels` where
    a step has none. Raises DataError naming file, line and field."""
    row, where = record.row, record.where
    prompt = _text(row.get("prompt"), f"{where}: prompt", may_be_empty=True)
    if "completion" in row:
        completion = _text(row["completion"], f"{where}: completion")
        label = _label(row.get("label"), f"{where}: label")
        return LabelledSteps(prompt, (completion,), (label,))
    for key in ("steps", "labels"):
        if not isinstance(row.get(key), list) or not row[key]:
            got = "nothing" if key not in row else type(row[key]).__name__
            raise DataError(f"{where}: {key}: expected a list of some, got {got}")
    steps = tuple(
        _text(step, f"{where}: steps[{i}]") for i, step in enumerate(row["steps"])
    )
    labels = tuple(
        None if label is None else _label(label, f"{where}: labels[{i}]")
        for i, label in enumerate(row["labels"])
    )
    if len(steps) != len(labels):
        raise DataError(
            f"{where}: labels: expected {len(steps)}, one per step, got {len(labels)}"
        )
    if all(label is None for label in labels):
        raise DataError(f"{where}: labels: expected at least one that is not null")
    return LabelledSteps(prompt, steps, labels)


def _text(value, where: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        got = "null" if value is None else type(value).__name__
        raise DataError(f"{where}: expected a string, got {got}")
    if not value and not may_be_empty:
        raise DataError(f"{where}: expected text, got an empty string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: half of a surrogate pair at character {error.start}"
        ) from error
    return value


def _label(value, where: str) -> float:
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        got = "null" if value is None else repr(value)
        raise DataError(f"{where}: expected a number from 0 to 1, got {got}")
    return float(value)
