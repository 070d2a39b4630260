"""The one rule for when a claim is not tested here, on made-up numbers."""

import pytest

from research.easy_to_hard.findings import FLOOR, Contest, least, settle, untestable
from research.intervals import UNTESTED
from research.report import Interval

WON, LOST, OPEN = (
    Interval(0.3, 0.2, 0.4),
    Interval(-0.3, -0.4, -0.2),
    Interval(0.0, -0.1, 0.1),
)


def contest(baseline, effect, reached=0.5):
    return Contest("the method", reached, "the rival", baseline, effect)


@pytest.mark.parametrize(
    ("baseline", "effect", "tested"),
    [
        (0.5, 0.1, True),
        (0.5, 0.5, True),  # it just fits
        (0.5, 0.51, False),
        (0.978, 0.064, False),
        (0.978, 0.02, True),
        (1.0, 0.001, False),
    ],
)
@pytest.mark.parametrize("miniature", [True, False])
def test_a_baseline_must_leave_room_for_the_thesis_s_effect(
    baseline, effect, tested, miniature
):
    """Closed form: 1 - baseline against the effect, in miniature and at paper size."""
    reasons = untestable([contest(baseline, effect)], miniature=miniature)
    assert (reasons == []) == tested
    if not tested:
        (reason,) = reasons
        assert f"the rival answers {baseline:.1%}" in reason
        assert f"leaves {100 * (1 - baseline):.1f} points" in reason
        assert reason.endswith(f"difference is {100 * effect:.1f}")


@pytest.mark.parametrize("side", ["the method", "the rival"])
def test_a_side_at_the_floor_is_no_side_of_a_miniature_s_test(side):
    """Closed form: at most 2%, on either side; at paper size it is a result."""
    for share, low in ((0.0, True), (FLOOR, True), (FLOOR + 1e-6, False)):
        sides = {"baseline": 0.5, "reached": 0.5}
        sides["reached" if side == "the method" else "baseline"] = share
        reasons = untestable([contest(effect=0.1, **sides)], miniature=True)
        assert len(reasons) == low
        assert all(reason.startswith(f"{side} answers") for reason in reasons)
        assert untestable([contest(effect=0.1, **sides)], miniature=False) == []


def test_one_gain_without_room_spoils_a_comparison_of_two():
    """Closed form: in either order, with the reason of the one; the same one once."""
    good, full = contest(0.4, 0.05), contest(0.98, 0.05)
    alone = untestable([full], miniature=True)
    for contests in ([good, full], [full, good], [full, full]):
        assert untestable(contests, miniature=True) == alone != []
    assert untestable([good, good], miniature=True) == []


def test_the_thesis_s_effect_is_the_least_that_it_reports():
    """Closed form: of those over 0, in points; none is an error that lists them."""
    assert least([8.8, None, 11.4]) == pytest.approx(0.088)
    assert least(x for x in (-1.2, 1.4)) == pytest.approx(0.014)
    with pytest.raises(ValueError, match=r"over 0, got \[-1.2\]"):
        least([-1.2, None])


@pytest.mark.parametrize(
    ("gain", "status"),
    [(WON, "reproduced"), (LOST, "not reproduced"), (OPEN, "too noisy to tell")],
)
def test_a_reason_takes_the_verdict_but_not_the_difference(gain, status):
    """Invariance: who won plays no part in whether there is a test."""
    tested = settle("A beats B.", gain, "A minus B", "shown", more=" Cost: none.")
    assert tested.status == status and tested.reasons == ()
    assert tested.evidence == "A minus B: shown. Cost: none."
    spoiled = settle("A beats B.", gain, "A minus B", "shown", ["x", "y"], " Cost.")
    assert spoiled.status == UNTESTED and spoiled.reasons == ("x", "y")
    assert spoiled.evidence == "A minus B: shown. Cost. Not tested: x; y."
    assert spoiled.difference == tested.difference == "shown"
    assert spoiled.verdict().status == UNTESTED


def test_no_interval_needs_a_reason():
    """An undefined difference is not tested, and never without a word."""
    assert settle("c", None, "what", "–", ["no value"]).status == UNTESTED
    with pytest.raises(ValueError, match="no reason why"):
        settle("c", None, "what", "–")
