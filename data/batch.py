"""The token batch, the one structure that every loss takes, and how it is collated.

Shapes: B rows, T columns, n tokens of one example. Padding is on the right and is known
by segment id 0, never by the token id."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class TokenizedExample(NamedTuple):
    """One sequence: tokens int32 [n], weights float32 [n] of predicting each token."""

    tokens: np.ndarray
    weights: np.ndarray


class TokenBatch(NamedTuple):
    """Arrays [B, T]: tokens int32, weights float32, positions int32, segment_ids int32.

    weights[b, t] is the loss weight of predicting tokens[b, t] from what precedes it in
    its segment. segment_ids are 0 on padding and 1.. on the packed sequences; positions
    restart at 0 in every segment."""

    tokens: Any
    weights: Any
    positions: Any
    segment_ids: Any


def collate(
    rows: Sequence[Sequence[TokenizedExample]], length: int, pad_id: int
) -> TokenBatch:
    """Lay rows of examples side by side in numpy arrays [len(rows), length].

    A row holds any number of examples, each of which becomes a segment; an empty row is
    all padding. The first token of a segment has no context, so its weight becomes 0.
    Raises ValueError for a row of more than `length` tokens."""
    shape = (len(rows), length)
    batch = TokenBatch(
        tokens=np.full(shape, pad_id, np.int32),
        weights=np.zeros(shape, np.float32),
        positions=np.zeros(shape, np.int32),
        segment_ids=np.zeros(shape, np.int32),
    )
    for b, row in enumerate(rows):
        start = 0
        for segment, example in enumerate(row, start=1):
            n = len(example.tokens)
            span = np.s_[b, start : start + n]
            if start + n > length:
                raise ValueError(f"row {b} holds more than {length} tokens")
            batch.tokens[span] = example.tokens
            batch.weights[span] = example.weights
            batch.weights[b, start : start + 1] = 0
            batch.positions[span] = np.arange(n)
            batch.segment_ids[span] = segment
            start += n
    return batch
