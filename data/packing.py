"""Packing: which sequences share a row, so that little of a batch is padding."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.batch import LabelledExample, TokenizedExample
from data.errors import DataError

ON_LONG = ("error", "truncate", "drop")


class Fitted(NamedTuple):
    """Examples that fit, and how many were cut or left out to get there."""

    examples: list[TokenizedExample] | list[LabelledExample]
    truncated: int
    dropped: int


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the lengths in bins of at most `capacity`: best fit, longest first.

    Deterministic: equal lengths keep their order. Every index is in exactly one bin.
    Uses at most 11/9 of the least possible number of bins, plus one (Johnson, 1973).
    Raises ValueError for a length that is not in 1 .. capacity."""
    if wrong := [n for n in lengths if not 1 <= n <= capacity]:
        raise ValueError(f"length {wrong[0]} is not in 1 .. {capacity}")
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect.bisect_left(room, (lengths[i], -1))
        if at == len(room):
            free, target = capacity, len(bins)
            bins.append([])
        else:
            free, target = room.pop(at)
        bins[target].append(i)
        if free > lengths[i]:
            bisect.insort(room, (free - lengths[i], target))
    return bins


def fit(
    examples: Sequence[TokenizedExample] | Sequence[LabelledExample],
    length: int,
    on_long: str = "error",
) -> Fitted:
    """Make every example at most `length` tokens long.

    on_long 'error' raises; 'drop' leaves the example out; 'truncate' keeps its front:
    the prompt stays whole, and without its end-of-turn token the cut answer does not
    teach the model to stop early. What has no learned token left is dropped."""
    if on_long not in ON_LONG:
        raise DataError(f"on_long: expected one of {ON_LONG}, got {on_long!r}")
    kept, truncated, dropped = [], 0, 0
    for i, example in enumerate(examples):
        if len(example.tokens) > length:
            if on_long == "error":
                raise DataError(
                    f"example {i + 1} has {len(example.tokens)} tokens, more than the "
                    f"length of {length}; raise it, or set on_long to 'truncate' "
                    "or 'drop'"
                )
            example = type(example)(*(field[:length] for field in example))
            first = 1 if isinstance(example, TokenizedExample) else 0
            if on_long == "drop" or not np.any(example.weights[first:]):
                dropped += 1
                continue
            truncated += 1
        kept.append(example)
    return Fitted(kept, truncated, dropped)
