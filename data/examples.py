"""From a file of rows to tokenized examples, every row checked before any compute."""

from collections.abc import Callable
from typing import NamedTuple

from data.batch import TokenizedExample
from data.chat import ChatTemplate, load_template
from data.errors import DataError
from data.formats import detect_shape, parse_record
from data.packing import fit
from data.records import Record, as_record, read_rows, stream
from data.tokenizers import Tokenizer


class Loaded(NamedTuple):
    """Examples, the contents they come from, and what was left out or cut."""

    examples: list[TokenizedExample]
    template: ChatTemplate
    shape: str
    skipped: list[dict]  # see data.records.Rows
    truncated: int
    dropped: int


def load_examples(
    path,
    tokenizer: Tokenizer,
    *,
    length: int,
    template: str | None = None,
    shape: str | None = None,
    on_bad_row: str = "error",
    on_long: str = "error",
) -> Loaded:
    """Read, check and tokenize a `.jsonl`, `.json` or `.parquet` file.

    shape None: that of the first row that has one. template None: the checkpoint's own;
    without one 'alpaca' for Alpaca rows and 'plain' for prompts. Raises DataError."""
    shape = shape or _first_shape(path, on_bad_row)
    chat = choose_template(template, shape, tokenizer)
    limit = length if on_long == "error" else None
    rows = read_rows(path, encoder(chat, shape, limit), on_bad_row)
    fitted = fit(rows.items, length, on_long)
    if not fitted.examples:
        raise DataError(f"{path}: no row has a learned token within {length} tokens")
    return Loaded(
        fitted.examples,
        chat,
        shape,
        rows.skipped,
        fitted.truncated,
        fitted.dropped,
    )


def encoder(
    chat: ChatTemplate, shape: str, limit: int | None = None
) -> Callable[[Record], TokenizedExample]:
    """Record -> example of at most `limit` tokens; errors name the place of the row."""

    def encode(record: Record) -> TokenizedExample:
        content = parse_record(record, shape)
        try:
            example = chat.encode(content)
        except DataError as error:
            raise DataError(f"{record.where}: {error}") from error
        if limit is not None and len(example.tokens) > limit:
            raise DataError(
                f"{record.where}: {len(example.tokens)} tokens, more than the length "
                f"of {limit}; raise it, or set on_long to 'truncate' or 'drop'"
            )
        return example

    return encode


def choose_template(name: str | None, shape: str, tokenizer: Tokenizer) -> ChatTemplate:
    """The named template, or the one that suits the shape and the checkpoint."""
    if name is None and tokenizer.chat_template is None:
        name = {"alpaca": "alpaca", "prompt": "plain"}.get(shape)
    if name is None and shape == "prompt":
        name = "plain"
    return load_template(name, tokenizer)


def _first_shape(path, on_bad_row: str) -> str:
    reason = "the file has none"
    for line, _, row in stream(path):
        try:
            record = as_record(path, line, row)
            return detect_shape(record.row, record.where)
        except DataError as error:
            if on_bad_row == "error":
                raise
            reason = f"the last is bad as well: {error}"
    raise DataError(f"{path}: expected at least one row of a known shape; {reason}")
