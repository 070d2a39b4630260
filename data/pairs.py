"""Preference pairs: rows of a file, checked; token pairs; batches with a reference.

Row shapes: {"prompt", "chosen", "rejected"}, the prompt a text or a list of messages
that ends with the user's; and the original code's {"instruction", "input", "output_1",
"output_2", "preference"}, preference 1 or 2. Any row may have "label", the probability
that its label is right, "weight" and "offset". Shapes: B rows, N pairs."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data.batch import PairBatch, PairExample, TokenizedExample
from data.batches import EMPTY, Batches
from data.chat import ChatTemplate
from data.errors import DataError
from data.examples import choose_template
from data.formats import Completion, Conversation, Turn, nearest, parse_record
from data.records import Record, as_record, read_rows, stream
from data.tokenizers import Tokenizer

SHAPES = {
    "pairs": ("prompt", "chosen", "rejected"),
    "alpaca": ("instruction", "output_1", "output_2", "preference"),
}


class PreferenceBatch(NamedTuple):
    """Pairs, and float32 [B, 2] log-probs of chosen and rejected under the reference.

    In nats, summed over the response; 0 on rows that are padding."""

    pairs: PairBatch
    reference: Any


class LoadedPairs(NamedTuple):
    """Pairs, the template they were laid out with, and what was left out or cut."""

    pairs: list[PairExample]
    template: ChatTemplate
    shape: str
    skipped: list[dict]  # see data.records.Rows
    truncated: int
    dropped: int


def token_pair(
    prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], **fields
) -> PairExample:
    """The pair of two responses to a prompt, all token ids; `fields` of PairExample."""

    def example(response):
        tokens = np.asarray([*prompt, *response], np.int32)
        return TokenizedExample(
            tokens, (np.arange(len(tokens)) >= len(prompt)).astype(np.float32)
        )

    return PairExample(example(chosen), example(rejected), **fields)


def prompt_of(pair: PairExample) -> bytes:
    """Tells pairs of one prompt from those of another: its tokens."""
    side = pair.chosen
    return side.tokens[: np.argmax(side.weights > 0)].tobytes()


def load_pairs(
    path,
    tokenizer: Tokenizer,
    *,
    length: int,
    template: str | None = None,
    label: float = 1.0,
    offset: float = 0.0,
    on_bad_row: str = "error",
    on_long: str = "error",
) -> LoadedPairs:
    """Read, check and tokenize a `.jsonl`, `.json` or `.parquet` file of preferences.

    length: the most tokens of a prompt and one response. on_long 'truncate' cuts
    responses; a pair whose cut responses have no token left, or are the same, is
    dropped. label and offset: of rows that give none. template None: the checkpoint's
    own for messages, without one 'plain' for texts and 'alpaca' for that shape. Raises
    DataError naming file, line and field."""
    if on_long not in ("error", "truncate", "drop"):
        raise DataError(f"on_long: expected error, truncate or drop, got {on_long!r}")
    shape, kind = _first_shape(path, on_bad_row)
    chat = choose_template(template, kind, tokenizer)

    def read(record: Record) -> PairExample:
        pair = encode_pair(chat, record, shape, label=label, offset=offset)
        longest = max(len(pair.chosen.tokens), len(pair.rejected.tokens))
        if on_long == "error" and longest > length:
            raise DataError(
                f"{record.where}: {longest} tokens, more than the length of {length}; "
                "raise it, or set on_long to 'truncate' or 'drop'"
            )
        return pair

    rows = read_rows(path, read, on_bad_row)
    kept, truncated, dropped = [], 0, 0
    for pair in rows.items:
        cut = _cut(pair, length)
        if cut is not pair and (on_long == "drop" or not _learns(cut)):
            dropped += 1
            continue
        truncated += cut is not pair
        kept.append(cut)
    if not kept:
        raise DataError(f"{path}: no row fits within {length} tokens")
    return LoadedPairs(kept, chat, shape, rows.skipped, truncated, dropped)


def encode_pair(
    chat: ChatTemplate,
    record: Record,
    shape: str = "pairs",
    *,
    label: float = 1.0,
    offset: float = 0.0,
) -> PairExample:
    """One row as tokens. Raises DataError naming file, line and field."""
    row, where = record.row, record.where
    missing = [key for key in SHAPES[shape] if key not in row]
    if missing:
        near = nearest(missing[0], row)
        hint = f"; did you mean {near!r}?" if near else ""
        raise DataError(
            f"{where}: expected the key {missing[0]!r}, got {sorted(map(str, row))}"
            f"{hint}"
        )
    fields = {
        "label": _number(row, "label", label, where, 0, 1),
        "weight": _number(row, "weight", 1.0, where, 0, math.inf),
        "offset": _number(row, "offset", offset, where, -math.inf, math.inf),
    }
    if not fields["weight"]:
        raise DataError(f"{where}: weight: expected a number above 0, got 0")
    sides = _alpaca_sides(row) if shape == "alpaca" else ("chosen", "rejected")
    if sides is None:
        raise DataError(
            f"{where}: preference: expected 1 or 2, got {row['preference']!r}"
        )
    examples = []
    for side in sides:
        content = _content(record, shape, side)
        try:
            examples.append(chat.encode(content))
        except DataError as error:
            raise DataError(f"{where}: {side}: {error}") from error
    pair = PairExample(*examples, **fields)
    if _same(pair):
        raise DataError(
            f"{where}: {sides[1]}: expected another response than {sides[0]!r}, "
            "got the same"
        )
    return pair


@dataclass(frozen=True)
class ReferencedBatches:
    """`batches[step]` is a PreferenceBatch: that of `base` with its pairs' log-probs.

    base: of pairs, from `data.batches`; reference: float32 [N, 2], in their order."""

    base: Batches
    reference: np.ndarray

    def __post_init__(self):
        expected = (len(self.base.rows), 2)
        if self.reference.shape != expected:
            raise DataError(
                f"reference: expected log-probs {expected}, got {self.reference.shape}"
            )

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, step: int) -> PreferenceBatch:
        pairs = self.base[step]
        index, count = self.base.process
        each = self.base.batch_size // count
        numbers = np.asarray(self.base.plan[step][1])[index * each :][:each]
        found = self.reference[numbers] * (numbers != EMPTY)[:, None]
        return PreferenceBatch(pairs, found.astype(np.float32))

    def __iter__(self) -> Iterator[PreferenceBatch]:
        return (self[step] for step in range(len(self)))

    @property
    def fingerprint(self) -> str:
        """That of the pairs: the reference's log-probs follow from its parameters."""
        return self.base.fingerprint


def _cut(pair: PairExample, length: int) -> PairExample:
    if max(len(side.tokens) for side in pair[:2]) <= length:
        return pair
    sides = [TokenizedExample(*(x[:length] for x in side)) for side in pair[:2]]
    return pair._replace(chosen=sides[0], rejected=sides[1])


def _learns(pair: PairExample) -> bool:
    return all(side.weights[1:].any() for side in pair[:2]) and not _same(pair)


def _same(pair: PairExample) -> bool:
    return np.array_equal(pair.chosen.tokens, pair.rejected.tokens)


def _content(record: Record, shape: str, side: str) -> Conversation | Completion:
    """Prompt and one response; the only turn that is learned is the response."""
    row, where = record.row, record.where
    if shape == "alpaca":
        alpaca = {k: row[k] for k in ("instruction", "input") if k in row}
        given = Record({**alpaca, "output": row[side]}, *record[1:])
        return _named(lambda: parse_record(given, "alpaca"), where, "output", side)
    text = Record({"prompt": "", "completion": row[side]}, *record[1:])
    answer = _named(lambda: parse_record(text, "prompt"), where, "completion", side)
    if not isinstance(row["prompt"], list):
        given = Record({**text.row, "prompt": row["prompt"]}, *record[1:])
        return parse_record(given, "prompt")
    turns = [*row["prompt"], {"role": "assistant", "content": row[side]}]
    given = Record({"messages": turns}, *record[1:])
    said = _named(
        lambda: parse_record(given, "messages"), where, "messages", "prompt"
    ).turns[:-1]
    if not said or said[-1].role == "assistant":
        raise DataError(
            f"{where}: prompt: expected messages that end before the assistant's turn"
        )
    said = [dataclasses.replace(turn, train=False) for turn in said]
    return Conversation((*said, Turn("assistant", answer.completion, train=True)))


def _named(parse: Callable, where: str, inner: str, field: str):
    """Parses; an error that names the stand-in field `inner` names `field` instead."""
    try:
        return parse()
    except DataError as error:
        said = str(error).removeprefix(f"{where}: ")
        if said.startswith(inner):
            said = field + said.removeprefix(inner)
        raise DataError(f"{where}: {said}") from error


def _alpaca_sides(row: dict) -> tuple[str, str] | None:
    """(chosen, rejected) field names, None for an impossible preference."""
    both = ("output_1", "output_2")
    return {"1": both, "2": both[::-1]}.get(str(row["preference"]))


def _number(row: dict, field: str, default: float, where: str, low, high) -> float:
    value = row.get(field)  # Parquet fills a column that a row lacks with None
    if value is None:
        return default
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or not math.isfinite(value):
        bounds = f" in {low:g} .. {high:g}" if math.isfinite(high) else ""
        raise DataError(f"{where}: {field}: expected a number{bounds}, got {value!r}")
    return float(value)


def _first_shape(path, on_bad_row: str) -> tuple[str, str]:
    """(row shape, the shape that `choose_template` knows it by) of the first row."""
    reason = "the file has none"
    for line, _, row in stream(path):
        try:
            record = as_record(path, line, row)
            for shape, keys in SHAPES.items():
                if all(key in record.row for key in keys):
                    messages = isinstance(record.row.get("prompt"), list)
                    kind = "messages" if messages else "prompt"
                    return shape, "alpaca" if shape == "alpaca" else kind
            raise DataError(
                f"{record.where}: expected the keys 'prompt', 'chosen' and 'rejected', "
                "or 'instruction', 'output_1', 'output_2' and 'preference', "
                f"got {sorted(map(str, record.row))}"
            )
        except DataError as error:
            if on_bad_row == "error":
                raise
            reason = f"the last is bad as well: {error}"
    raise DataError(f"{path}: expected at least one row of a known shape; {reason}")
