"""The batches that losses take, and how examples are collated into them.

Shapes: B rows, T columns, n tokens of one example. Padding is on the right and is known
by segment id 0, never by the token id."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class TokenizedExample(NamedTuple):
    """One sequence: tokens int32 [n], weights float32 [n] of predicting each token."""

    tokens: np.ndarray
    weights: np.ndarray


class LabelledExample(NamedTuple):
    """One sequence: tokens int32 [n], and float32 [n] a label of each token itself.

    labels[t], in 0 .. 1, is what a score read at tokens[t] has to predict: nothing is
    shifted. weights[t] is the loss weight of that label, 0 where there is none."""

    tokens: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class PairExample(NamedTuple):
    """Two sequences, the first preferred with probability `label`.

    offset: a number that the loss sets against the pair's margin: a required margin, or
    the margin of a reference model."""

    chosen: TokenizedExample
    rejected: TokenizedExample
    weight: float = 1.0
    label: float = 1.0
    offset: float = 0.0


Example = TokenizedExample | LabelledExample | PairExample


class TokenBatch(NamedTuple):
    """Arrays [B, T]: tokens int32, weights float32, positions int32, segment_ids int32.

    weights[b, t] is the loss weight of predicting tokens[b, t] from what precedes it in
    its segment. segment_ids are 0 on padding and 1.. on the packed sequences; positions
    restart at 0 in every segment."""

    tokens: Any
    weights: Any
    positions: Any
    segment_ids: Any


class LabelBatch(NamedTuple):
    """Arrays [B, T] like a TokenBatch's, and labels float32: of the tokens themselves.

    weights[b, t] is the loss weight of labels[b, t]; 0 on padding."""

    tokens: Any
    labels: Any
    weights: Any
    positions: Any
    segment_ids: Any


class PairBatch(NamedTuple):
    """Two token batches, a pair to a row, and float32 [B]: see `PairExample`.

    weights are 0 on rows that are padding."""

    chosen: TokenBatch
    rejected: TokenBatch
    weights: Any
    labels: Any
    offsets: Any


Batch = TokenBatch | LabelBatch | PairBatch


def size(example: Example) -> int:
    """Columns that an example takes: its tokens, of a pair those of the longer one."""
    if isinstance(example, PairExample):
        return max(len(example.chosen.tokens), len(example.rejected.tokens))
    return len(example.tokens)


def count(example: Example) -> int:
    """Tokens of an example, of a pair those of both."""
    if isinstance(example, PairExample):
        return len(example.chosen.tokens) + len(example.rejected.tokens)
    return len(example.tokens)


def collate(
    rows: Sequence[Sequence[Example]],
    length: int,
    pad_id: int,
    kind: type = TokenizedExample,
) -> Batch:
    """Lay rows of examples of one kind side by side in arrays [len(rows), length].

    A row holds any number of examples (of pairs, at most one), each of which becomes a
    segment; an empty row is all padding. The first token of a segment has no context,
    so the weight of predicting it becomes 0. Raises ValueError for a row of more than
    `length` tokens."""
    if kind is PairExample:
        return _collate_pairs(rows, length, pad_id)
    shape = (len(rows), length)
    tokens = np.full(shape, pad_id, np.int32)
    weights, labels = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    positions, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for b, row in enumerate(rows):
        start = 0
        for segment, example in enumerate(row, start=1):
            n = len(example.tokens)
            span = np.s_[b, start : start + n]
            if start + n > length:
                raise ValueError(f"row {b} holds more than {length} tokens")
            tokens[span] = example.tokens
            weights[span] = example.weights
            if kind is LabelledExample:
                labels[span] = example.labels
            else:
                weights[b, start : start + 1] = 0
            positions[span] = np.arange(n)
            segment_ids[span] = segment
            start += n
    if kind is LabelledExample:
        return LabelBatch(tokens, labels, weights, positions, segment_ids)
    return TokenBatch(tokens, weights, positions, segment_ids)


def _collate_pairs(rows, length, pad_id) -> PairBatch:
    numbers = np.zeros((3, len(rows)), np.float32)
    for b, row in enumerate(rows):
        if len(row) > 1:
            raise ValueError(f"row {b} holds {len(row)} pairs, expected at most one")
        for pair in row:
            numbers[:, b] = pair.weight, pair.label, pair.offset
    sides = (
        collate([[getattr(pair, side) for pair in row] for row in rows], length, pad_id)
        for side in ("chosen", "rejected")
    )
    return PairBatch(*sides, *numbers)
