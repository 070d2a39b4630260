"""Each row once per epoch, each batch a function of (seed, step), shares add up."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import TokenizedExample, collate
from data.batches import batches, eval_batches
from data.errors import DataError

LENGTH = 16


def examples(lengths, first=1):
    """Example i is its own number, first + i, in every place."""
    return [
        TokenizedExample(np.full(n, i, np.int32), np.ones(n, np.float32))
        for i, n in enumerate(lengths, first)
    ]


def make(lengths, **options):
    settings = {"batch_size": 4, "length": LENGTH, "pad_id": 0, "seed": 3} | options
    return batches(examples(lengths), **settings)


def numbers(batch):
    """The examples of a batch: the token at each segment's start."""
    starts = (batch.positions == 0) & (batch.segment_ids > 0)
    return batch.tokens[starts].tolist()


LENGTHS = st.lists(st.integers(1, LENGTH), min_size=1, max_size=30)


def test_collate_lays_segments_side_by_side():
    """Positions restart, segments count from 1, first weights are 0; then padding."""
    batch = collate([examples([3, 2]), [], examples([4])], 6, pad_id=9)
    assert batch.tokens.tolist() == [[1, 1, 1, 2, 2, 9], [9] * 6, [1, 1, 1, 1, 9, 9]]
    assert batch.weights.tolist() == [[0, 1, 1, 0, 1, 0], [0] * 6, [0, 1, 1, 1, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0] * 6, [0, 1, 2, 3, 0, 0]]
    assert batch.segment_ids.tolist() == [
        [1, 1, 1, 2, 2, 0],
        [0] * 6,
        [1] * 4 + [0] * 2,
    ]
    assert [a.dtype for a in batch] == [np.int32, np.float32, np.int32, np.int32]
    with pytest.raises(ValueError, match="row 0 holds more than 4"):
        collate([examples([3, 2])], 4, 0)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 5), st.booleans(), st.integers(0, 9))
def test_every_example_once_per_epoch(lengths, batch_size, packing, seed):
    """The stream of rows, cut into epochs, is a permutation of the rows in each."""
    data = make(lengths, batch_size=batch_size, packing=packing, seed=seed)
    epochs, rows = 3, len(data.rows)
    assert data.steps_per_epoch == -(-rows // batch_size)
    stream = [
        tuple(np.unique(tokens[tokens > 0]))
        for step in range(-(-epochs * rows // batch_size))
        for tokens in data[step].tokens
    ]
    for epoch in range(epochs):
        seen = [i for row in stream[epoch * rows : (epoch + 1) * rows] for i in row]
        assert sorted(seen) == list(range(1, len(lengths) + 1))


def test_batches_are_a_function_of_seed_and_step():
    """The same in any order of access; other seeds and epochs give other orders."""
    lengths = [5] * 40
    one, two, other = make(lengths), make(lengths), make(lengths, seed=4)
    forward = [numbers(one[step]) for step in range(20)]
    backward = [numbers(two[step]) for step in reversed(range(20))]
    assert forward == backward[::-1]
    assert forward[:10] != forward[10:] and forward[0] != sorted(forward[0])
    shifted = [numbers(other[step]) for step in range(20)]
    assert shifted != forward and shifted[:10] != forward[10:]
    ordered = make(lengths, shuffle=False)
    assert numbers(ordered[11]) == [5, 6, 7, 8]
    assert numbers(one[10**9])


def test_packing_keeps_every_token():
    """Packed rows have the same tokens in fewer rows, and each example stays whole."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, LENGTH, 50).tolist()
    packed, plain = make(lengths, packing=True), make(lengths)
    assert packed.tokens_per_epoch == plain.tokens_per_epoch == sum(lengths)
    assert len(packed.rows) < 0.7 * len(plain.rows)
    for batch in (packed[0], packed[7]):
        for tokens, segments in zip(batch.tokens, batch.segment_ids, strict=True):
            for segment in range(1, segments.max() + 1):
                inside = tokens[segments == segment]
                assert len(inside) == lengths[inside[0] - 1] and len(set(inside)) == 1


def test_buckets_give_one_shape_per_batch_and_lose_nothing():
    """A row is in the shortest bucket that holds it; each bucket keeps its epochs."""
    lengths = [1 + i % LENGTH for i in range(48)]
    data = make(lengths, buckets=(4, 8, LENGTH))
    seen = {4: [], 8: [], LENGTH: []}
    for step in range(60):
        batch = data[step]
        seen[batch.tokens.shape[1]] += numbers(batch)
    for bucket, shortest in ((4, 1), (8, 5), (LENGTH, 9)):
        inside = [i for i, n in enumerate(lengths, 1) if shortest <= n <= bucket]
        for epoch in range(len(seen[bucket]) // len(inside)):
            part = seen[bucket][epoch * len(inside) : (epoch + 1) * len(inside)]
            assert sorted(part) == inside
    shares = {bucket: len(found) / 240 for bucket, found in seen.items()}
    assert shares == pytest.approx({4: 0.25, 8: 0.25, LENGTH: 0.5}, abs=0.03)


@pytest.mark.parametrize("buckets", [None, (8, LENGTH)])
def test_mixture_shares_are_the_weights(buckets):
    """A source of weight w has w of the rows, whatever its size, in full epochs."""
    sources = [examples([5, 12] * 5), examples([6, 13] * 50, first=101)]
    data = batches(
        sources, batch_size=4, length=LENGTH, pad_id=0, seed=1, weights=[3, 1],
        buckets=buckets,
    )  # fmt: skip
    seen = [i for step in range(100) for i in numbers(data[step])]
    assert np.mean([i < 100 for i in seen]) == pytest.approx(0.75, abs=0.02)
    counts = np.unique([i for i in seen if i < 100], return_counts=True)[1]
    assert len(counts) == 10 and np.ptp(counts) <= 2


@pytest.mark.parametrize("options", [{}, {"packing": True}, {"buckets": (8, LENGTH)}])
def test_processes_share_the_global_batch(options):
    """Shares joined in order of the processes equal the batch of one process."""
    data = make(range(1, 17), **options)
    for step in (0, 5, 9):
        shares = [data.for_process(i, 2)[step] for i in range(2)]
        for whole, *parts in zip(data[step], *shares, strict=True):
            assert np.array_equal(whole, np.concatenate(parts))
    with pytest.raises(DataError, match="4 rows do not divide among 3 processes"):
        data.for_process(0, 3)


@pytest.mark.parametrize("packing", [False, True])
def test_eval_sees_each_example_once(packing):
    """One pass, in order, all batches of one shape, no weight in the filling rows."""
    lengths = [3, 5, 2, 7, 16, 1, 4]
    data = eval_batches(
        examples(lengths), batch_size=4, length=LENGTH, pad_id=0, packing=packing
    )
    found = [i for batch in data for i in numbers(batch)]
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7] and (
        packing or found == sorted(found)
    )
    assert {batch.tokens.shape for batch in data} == {(4, LENGTH)}
    assert sum(batch.weights.sum() for batch in data) == sum(lengths) - len(lengths)
    assert sum((batch.segment_ids > 0).sum() for batch in data) == sum(lengths)
    with pytest.raises(IndexError):
        data[len(data)]


def test_iterate_equals_indexing():
    """Prefetched batches from step s on are data[s], data[s + 1], ..."""
    data = make(range(1, 17))
    with contextlib.closing(data.iterate(start=7)) as ahead:
        for step in range(7, 12):
            for got, expected in zip(next(ahead), data[step], strict=True):
                assert np.array_equal(got, expected)
    finite = eval_batches(examples([3] * 9), batch_size=4, length=4, pad_id=0)
    assert len(list(finite.iterate())) == len(finite) == 3


def test_fingerprint_changes_with_data_and_settings():
    """Equal inputs, equal fingerprints; any change of them changes it."""
    base = make([3, 5, 7])
    assert base.fingerprint == make([3, 5, 7]).fingerprint
    others = [
        make([3, 5, 8]), make([3, 7, 5]), make([3, 5, 7], seed=4),
        make([3, 5, 7], batch_size=2), make([3, 5, 7], shuffle=False),
        make([3, 5, 7], packing=True), make([3, 5, 7], buckets=(8, LENGTH)),
        make([3, 5, 7], pad_id=1),
    ]  # fmt: skip
    assert len({base.fingerprint, *(data.fingerprint for data in others)}) == 9
    assert base.for_process(0, 2).fingerprint == base.fingerprint


BAD = [
    ({"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
    ({"buckets": (8, 4, LENGTH)}, "buckets: expected increasing lengths"),
    ({"buckets": (4, 8)}, "end with 16"),
    ({"buckets": ()}, "buckets"),
    ({"buckets": (8, LENGTH), "packing": True}, "choose one of both"),
    ({"length": 4}, "1 to 4 tokens, the longest has 5"),
]


@pytest.mark.parametrize("options, message", BAD)
def test_impossible_settings_are_errors(options, message):
    """Said before the first batch."""
    with pytest.raises(DataError, match=message):
        make([5, 3], **options)


def test_impossible_sources_are_errors():
    """Empty sources, weights that are no shares, a weight too few."""
    good = examples([3])
    for sources, weights in (([good, []], [1, 1]), ([good], [0]), ([good, good], [1]),
                             ([good], [float("nan")]), ([], [])):  # fmt: skip
        with pytest.raises(DataError, match="source|weights"):
            batches(sources, batch_size=1, length=4, pad_id=0, seed=0, weights=weights)
    with pytest.raises(DataError, match="no examples"):
        make([])
