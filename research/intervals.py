"""Intervals by the bootstrap over problems and seeds, and what they say of a claim."""

import numpy as np

from research.report import Interval

RESAMPLES = 4000
UNTESTED = "not tested here"
SAME = "no difference"
CEILING = 0.995  # what is right so often cannot be beaten


class Resamples:
    """Which seeds and problems each resample takes.

    Drawn once for each number of them: intervals that share this share the resamples
    too, as if all had been computed in each.
    """

    def __init__(self, seed: int):
        self._seed = seed
        self._shares: dict[tuple[int, int], np.ndarray] = {}

    def shares(self, seeds: int, problems: int) -> list[np.ndarray]:
        """How often each is drawn, as shares of a resample: [resamples, n] of both."""
        return [self._drawn(axis, n) for axis, n in enumerate((seeds, problems))]

    def _drawn(self, axis: int, n: int) -> np.ndarray:
        if (axis, n) not in self._shares:
            rng = np.random.default_rng([self._seed, axis, n])
            drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
            self._shares[axis, n] = drawn
        return self._shares[axis, n]


def bootstrap(values, draws: Resamples, level: float = 0.95) -> Interval:
    """Mean of values [seeds, problems] with a two-level bootstrap interval.

    Seeds are resampled, and problems too: the same ones for all seeds, which matters
    where every seed answered the same ones. For a difference, pass paired differences.
    """
    values = np.asarray(values, float)
    seeds, problems = draws.shares(*values.shape)
    means = np.sum((seeds @ values) * problems, axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def verdict(difference: Interval) -> str:
    """'reproduced' if the interval is above 0, 'not reproduced' if it is below.

    'no difference' if it is 0 and nothing else: whatever is drawn, nothing differs.
    """
    if difference.low == difference.high == 0:
        return SAME
    if difference.low > 0:
        return "reproduced"
    if difference.high < 0:
        return "not reproduced"
    return "too noisy to tell"


def unbeatable(value: float, what: str) -> str:
    """A sentence for the evidence where `what` leaves nothing to gain; else nothing."""
    return f" {what} answers {value:.1%}: nothing can beat it." * bool(value > CEILING)


def bootstrap_of(
    statistic, arrays, draws: Resamples, level: float = 0.95
) -> Interval | None:
    """Interval of `statistic(mean_1, mean_2, ...)` of arrays [seeds, problems].

    Every resample takes the same seeds and problems from all arrays; `statistic` works
    on arrays of means. So a share within a group is the mean of (value x membership)
    over the mean of the membership. None where some resample has no finite value, such
    as a ratio to 0.
    """
    arrays = [np.asarray(values, float) for values in arrays]
    seeds, problems = draws.shares(*arrays[0].shape)
    means = [np.sum((seeds @ values) * problems, axis=1) for values in arrays]
    with np.errstate(all="ignore"):
        value = float(statistic(*(values.mean() for values in arrays)))
        drawn = statistic(*means)
    if not np.isfinite(value) or not np.isfinite(drawn).all():
        return None
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
