"""Bins partition the indices and never overflow; fitting keeps fronts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import TokenizedExample
from data.errors import DataError
from data.packing import fit, pack

LENGTHS = st.lists(st.integers(1, 20), max_size=60)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(20, 40))
def test_bins_partition_the_indices(lengths, capacity):
    """Every index once, no bin over capacity, the same again, and few bins."""
    bins = pack(lengths, capacity)
    assert sorted(i for members in bins for i in members) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in members) for members in bins]
    assert all(0 < n <= capacity for n in filled)
    assert bins == pack(lengths, capacity)
    # Best fit opens a bin only when nothing else has room: two bins never fit in one.
    assert sum(2 * n <= capacity for n in filled) <= 1
    least = -(-sum(lengths) // capacity)
    assert least <= len(bins) <= 2 * least


def test_best_fit_fills_the_fullest_bin():
    """Worked by hand: 5 3 7 2 4 in bins of 10 is 7+3, 5+4 and 2."""
    assert pack([5, 3, 7, 2, 4], 10) == [[2, 1], [0, 4], [3]]
    assert pack([], 10) == []


def test_impossible_lengths_are_errors():
    """Longer than a bin, or empty."""
    for lengths in ([11], [0], [-1]):
        with pytest.raises(ValueError, match=f"length {lengths[0]} is not in 1 .. 10"):
            pack(lengths, 10)


def example(n, prompt):
    weights = (np.arange(n) >= prompt).astype(np.float32)
    return TokenizedExample(np.arange(n, dtype=np.int32), weights)


def test_fit_cuts_drops_or_raises():
    """Fronts survive; what has nothing left to learn is dropped; counts add up."""
    examples = [example(4, 2), example(9, 3), example(9, 8)]
    with pytest.raises(DataError, match="example 2 has 9 tokens, more than .* 6"):
        fit(examples, 6)
    cut = fit(examples, 6, "truncate")
    assert [e.tokens.tolist() for e in cut.examples] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
    ]
    assert (cut.truncated, cut.dropped) == (1, 1)
    dropped = fit(examples, 6, "drop")
    assert (len(dropped.examples), dropped.truncated, dropped.dropped) == (1, 0, 2)
    assert fit(examples, 9) == (examples, 0, 0)
    with pytest.raises(DataError, match="on_long: expected one of"):
        fit(examples, 6, "cut")
