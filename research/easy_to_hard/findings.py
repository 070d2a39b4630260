"""What is found of a claim, and the one rule for when a claim is not tested here."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from research.intervals import UNTESTED, verdict
from research.report import Interval, Status, Verdict

FLOOR = 0.02  # what answers no more cannot do the task


class Contest(NamedTuple):
    """A claim that something beats something, in numbers.

    better, worse: what is compared, as evidence calls it. reached, baseline: their
    accuracies here. effect: by how much the one beats the other in the thesis, a share
    over 0; see `least`.
    """

    better: str
    reached: float
    worse: str
    baseline: float
    effect: float


def least(differences: Iterable[float | None]) -> float:
    """The thesis's effect, as a share, from its differences in percent.

    The least of those over 0: a claim has failed to have room only where not even that
    fits. None is not reported. Raises ValueError where there is none over 0.
    """
    reported = [d for d in differences if d is not None]
    found = [d for d in reported if d > 0]
    if not found:
        raise ValueError(f"effect: expected a difference over 0, got {reported}")
    return min(found) / 100


def untestable(contests: Sequence[Contest], *, miniature: bool) -> list[str]:
    """Why a claim is not tested here, one reason for each obstacle; none: it is.

    The rule, the same for all claims and without a look at who won:

    - room: the baseline is so good that the thesis's effect does not fit between it and
      100%. A claim cannot be reproduced then, and that it is not says nothing;
    - floor, in a miniature: one side answers at most `FLOOR` of the problems. Its base,
      trained from scratch, cannot do the task in this way at all, so that the
      difference is of the base, not of the methods.

    A claim that compares several gains is not tested if one of them has no room.
    """
    reasons = []
    for c in contests:
        low = [
            f"{what} answers {share:.1%}: the miniature's base cannot do it at all"
            for what, share in ((c.better, c.reached), (c.worse, c.baseline))
            if miniature and share <= FLOOR
        ]
        reasons += low
        room = 1 - c.baseline
        if not low and room < c.effect:
            reasons.append(
                f"{c.worse} answers {c.baseline:.1%}, which leaves {100 * room:.1f} "
                f"points of room; the thesis's difference is {100 * c.effect:.1f}"
            )
    return list(dict.fromkeys(reasons))


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of a claim: a verdict, its evidence, and for tables the difference.

    reasons: why there is no verdict; none where there is one.
    """

    claim: str
    status: Status
    evidence: str
    difference: str
    reasons: tuple[str, ...] = ()

    def verdict(self) -> Verdict:
        return Verdict(self.claim, self.status, self.evidence)


def settle(
    claim: str,
    gain: Interval | None,
    what: str,
    shown: str,
    reasons: Sequence[str] = (),
    more: str = "",
) -> Finding:
    """By the side of 0 on which `gain` lies, if there is no reason against a test.

    Args:
      gain: None where it has no interval, which `reasons` explain.
      what: what the difference is of. shown: the difference and its interval.
      more: sentences for the evidence, with a space before them.
    """
    if gain is None and not reasons:
        raise ValueError(f"{claim!r}: no interval, and no reason why")
    status = UNTESTED if reasons else verdict(gain)
    why = f" Not tested: {'; '.join(reasons)}." if reasons else ""
    return Finding(claim, status, f"{what}: {shown}.{more}{why}", shown, tuple(reasons))
