"""Segments of template text, in which control tokens that come from data are marked.

A template writes control tokens; data must not. Spellings of control tokens found in a
message are wrapped in two of Unicode's noncharacters, which survive any template, and
what they wrap is later encoded as plain text."""

from collections.abc import Mapping
from dataclasses import dataclass

from data.tokenizers import special_pattern

# Noncharacters are reserved for internal use, so they are dropped from data.
OPEN, CLOSE, LEARN, REST = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_NO_MARKS = dict.fromkeys(map(ord, (OPEN, CLOSE, LEARN, REST)))


@dataclass(frozen=True)
class Segment:
    """Text with marks; or, with `bos`, the start of a new text.

    `train` is None for what is not the assistant's; else whether it is learned."""

    text: str
    train: bool | None = None
    bos: bool = False


def mark(text: str, special: Mapping[str, int]) -> str:
    """Wrap every spelling of a control token; marks already in the text are removed."""
    text = text.translate(_NO_MARKS)
    return special_pattern(special).sub(rf"{OPEN}\1{CLOSE}", text)


def split_marked(text: str) -> list[str]:
    """Pieces of the text in turn: template and plain text, marked spelling, ..."""
    pieces = []
    for part in text.split(OPEN):
        head, found, tail = part.partition(CLOSE)
        pieces += [head, tail] if found else ([""] if pieces else []) + [head]
    return pieces
