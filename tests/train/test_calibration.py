"""Ranking and calibration metrics equal their definitions, written out."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import calibration as cal

LOGITS = st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.5, 2.0, 40.0, -800.0])
HARD = st.lists(st.tuples(LOGITS, st.sampled_from([0.0, 1.0])), min_size=1, max_size=20)
SOFT = st.lists(
    st.tuples(LOGITS, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


@given(HARD)
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    """Brute force over all pairs of a positive and a negative; ties one half."""
    scores, labels = zip(*rows, strict=True)
    positive = [s for s, y in rows if y]
    negative = [s for s, y in rows if not y]
    pairs = [(p > n) + (p == n) / 2 for p, n in itertools.product(positive, negative)]
    got = cal.auc(scores, labels)
    if pairs:
        assert got == pytest.approx(np.mean(pairs))
    else:
        assert math.isnan(got)


@given(SOFT)
def test_weights_are_repetitions_and_soft_labels_are_shares(rows):
    """Every metric equals itself on rows written out: w times, y of 4 as positives.

    A soft row's own positive and negative share tie, as rows of equal scores do."""
    scores, labels, weights = map(np.array, zip(*rows, strict=True))
    if not weights.sum():
        return
    out = [(s, y) for s, y, w in rows for _ in range(w)]
    quarters = [(s, float(i < 4 * y)) for s, y in out for i in range(4)]
    assert cal.auc(scores, labels, weights) == pytest.approx(
        cal.auc(*zip(*quarters, strict=True)), nan_ok=True
    )
    for metric in (cal.log_loss, cal.accuracy, cal.ece):
        assert metric(scores, labels, weights) == pytest.approx(
            metric(*zip(*quarters, strict=True)), abs=1e-12
        )
    assert cal.brier(scores, labels, weights) == pytest.approx(
        cal.brier(*zip(*out, strict=True)), abs=1e-12
    )


def test_closed_forms():
    """Means over four scores, worked by hand: p = 1/2, 3/4, 3/4, 1/5."""
    scores = [0.0, math.log(3), math.log(3), -math.log(4)]
    labels = [1.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(cal.probabilities(scores), [0.5, 0.75, 0.75, 0.2])
    assert cal.brier(scores, labels) == pytest.approx(
        (0.25 + 0.0625 + 0.5625 + 0.04) / 4
    )
    assert cal.accuracy(scores, labels) == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    want = -(math.log(0.5) + math.log(0.75) + math.log(0.25) + math.log(0.8)) / 4
    assert cal.log_loss(scores, labels) == pytest.approx(want)
    # Bins [.5, .6): .5 v. 1; [.7, .8): .75 v. .5; [.2, .3): .2 v. 0.
    assert cal.ece(scores, labels) == pytest.approx((0.5 + 2 * 0.25 + 0.2) / 4)
    bins = cal.reliability(scores, labels)
    assert [b.weight for b in bins] == [1, 1, 2]
    assert bins[0].predicted == pytest.approx(0.2) and bins[0].observed == 0


def test_a_calibrated_score_has_no_calibration_error():
    """p equal to the frequency in every bin: ece 0, Brier p (1 - p)."""
    p = np.repeat([0.25, 0.75], 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    scores = np.log(p / (1 - p))
    assert cal.ece(scores, labels) == pytest.approx(0, abs=1e-12)
    assert cal.brier(scores, labels) == pytest.approx(0.1875)
    assert cal.ece([800.0, -800.0], [1, 0]) == 0


def test_nothing_to_average_is_not_a_number():
    """All weights 0: NaN for each; unequal lengths are an error."""
    assert all(math.isnan(v) for v in cal.calibration([1.0], [1.0], [0.0]).values())
    with pytest.raises(ValueError, match="expected equal lengths"):
        cal.auc([1.0, 2.0], [1.0])
