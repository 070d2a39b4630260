"""Labelled examples and pairs are batched as token sequences are: nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import (
    LabelBatch,
    LabelledExample,
    PairBatch,
    PairExample,
    TokenBatch,
    TokenizedExample,
    collate,
    count,
    size,
)
from data.batches import batches, eval_batches
from data.errors import DataError
from data.packing import fit

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def labelled(n, first=0):
    ids = np.arange(first, first + n, dtype=np.int32)
    return LabelledExample(ids, (ids % 2).astype(np.float32), 1 + ids / np.float32(64))


def tokenized(n, first=0):
    ids = np.arange(first, first + n, dtype=np.int32)
    return TokenizedExample(ids, np.ones(n, np.float32))


def pair(a, b, **fields):
    return PairExample(tokenized(a), tokenized(b, 50), **fields)


def held(batch):
    """(token, label, weight) of all that is no padding, sorted."""
    real = batch.segment_ids > 0
    return sorted(
        zip(batch.tokens[real], batch.labels[real], batch.weights[real], strict=True)
    )


@given(SIZES, st.booleans())
@settings(max_examples=25)
def test_labels_stay_with_their_tokens(sizes, packing):
    """Packed or not: the same triples, first tokens weighed too; padding weighs 0."""
    starts = np.cumsum([0, *sizes])
    examples = [labelled(n, s) for n, s in zip(sizes, starts, strict=False)]
    want = [t for e in examples for t in zip(*e, strict=True)]
    data = eval_batches(examples, batch_size=3, length=9, pad_id=7, packing=packing)
    got = []
    for batch in data:
        assert isinstance(batch, LabelBatch)
        assert batch.labels.dtype == batch.weights.dtype == np.float32
        assert not batch.weights[batch.segment_ids == 0].any()
        got += held(batch)
    assert sorted(got) == sorted(want)
    assert data.tokens_per_epoch == sum(sizes)


def test_a_pair_has_a_row_in_both_batches():
    """Sides, weight, label and offset are those of the pair; a row of padding is 0."""
    pairs = [pair(2, 5, weight=0.5, label=0.75, offset=-1.0), pair(3, 1)]
    batch = collate([[pairs[0]], [], [pairs[1]]], 6, 9, PairExample)
    assert isinstance(batch, PairBatch) and isinstance(batch.chosen, TokenBatch)
    np.testing.assert_array_equal(batch.weights, [0.5, 0, 1])
    np.testing.assert_array_equal(batch.labels, [0.75, 0, 1])
    np.testing.assert_array_equal(batch.offsets, [-1, 0, 0])
    for side, name in ((batch.chosen, "chosen"), (batch.rejected, "rejected")):
        alone = collate([[getattr(p, name)] for p in pairs], 6, 9)
        for ours, theirs in zip(side, alone, strict=True):
            np.testing.assert_array_equal(ours[[0, 2]], theirs)
        assert not side.segment_ids[1].any()
    assert size(pairs[0]) == 5 and count(pairs[0]) == 7


def test_pairs_come_once_per_epoch_in_the_bucket_of_the_longer_side():
    """Buckets by the longer side; every pair exactly once in an epoch's rows."""
    pairs = [pair(1 + i % 4, 2 + i % 7, weight=1.0 + i) for i in range(12)]
    data = batches(pairs, batch_size=1, length=8, pad_id=0, seed=0, buckets=(4, 8))
    seen = []
    for step in range(12):
        batch = data[step]
        width = batch.chosen.tokens.shape[1]
        longest = max(int((s.segment_ids > 0).sum()) for s in batch[:2])
        assert width == (4 if longest <= 4 else 8) == batch.rejected.tokens.shape[1]
        seen.append(float(batch.weights[0]))
    assert sorted(seen) == [1.0 + i for i in range(12)]


def test_fingerprints_see_every_field():
    """Equal contents, equal fingerprint; another label, weight or offset, another."""

    def fingerprint(example):
        data = batches([example], batch_size=1, length=9, pad_id=0, seed=0)
        return data.fingerprint

    base = labelled(4)
    assert fingerprint(base) == fingerprint(labelled(4))
    others = [base._replace(**{f: getattr(base, f) + 1}) for f in base._fields]
    pairs = [pair(2, 3), *(pair(2, 3, **{f: 0.5}) for f in PairExample._fields[2:])]
    found = [fingerprint(e) for e in (base, *others, *pairs, pair(3, 2))]
    assert len(set(found)) == len(found)


def test_what_cannot_be_batched():
    """Pairs are not packed, kinds are not mixed, a pair too long is named."""
    layout = dict(batch_size=1, length=9, pad_id=0)
    with pytest.raises(DataError, match="packing: pairs have a row each"):
        eval_batches([pair(1, 2)], packing=True, **layout)
    with pytest.raises(DataError, match="examples of one kind"):
        eval_batches([labelled(2), tokenized(2)], **layout)
    with pytest.raises(DataError, match="the longest has 10"):
        eval_batches([pair(1, 10)], **layout)
    with pytest.raises(ValueError, match="at most one"):
        collate([[pair(1, 1), pair(1, 1)]], 9, 0, PairExample)


def test_cut_labels_keep_their_front():
    """truncate cuts all three arrays; nothing labelled left means dropped."""
    example = labelled(6)._replace(weights=np.float32([0, 0, 0, 1, 0, 0]))
    cut = fit([example], 4, "truncate")
    assert cut.truncated == 1
    for ours, theirs in zip(cut.examples[0], example, strict=True):
        np.testing.assert_array_equal(ours, theirs[:4])
    assert fit([example], 3, "truncate").dropped == 1
    first = example._replace(weights=np.float32([1, 0, 0, 0, 0, 0]))
    assert len(fit([first], 2, "truncate").examples) == 1
