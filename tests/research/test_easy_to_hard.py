"""Bootstrap intervals have their coverage; problems are checked by line and field."""

import json

import numpy as np
import pytest

from research.easy_to_hard.tasks import read_problems
from research.intervals import Resamples, bootstrap, bootstrap_of, verdict
from research.report import Interval


def test_bootstrap_of_the_mean_is_the_bootstrap():
    """Equality: the identity as statistic gives the interval of the mean."""
    values = np.random.default_rng(3).random((2, 30))
    a = bootstrap(values, Resamples(5))
    b = bootstrap_of(lambda mean: mean, [values], Resamples(5))
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_intervals_that_share_their_resamples_add_up():
    """Equality: shifted values have the interval shifted, however many came before."""
    draws, values = Resamples(1), np.random.default_rng(4).random((3, 40))
    first = bootstrap(values, draws)
    bootstrap(values[:, :17], draws)
    second = bootstrap(values + 2.0, draws)
    shifted = (first.value + 2, first.low + 2, first.high + 2)
    assert (second.value, second.low, second.high) == pytest.approx(shifted)


def test_bootstrap_of_a_ratio_to_nothing_is_none():
    values, zeros = np.ones((1, 5)), np.zeros((1, 5))
    assert bootstrap_of(lambda a, b: a / b, [values, zeros], Resamples(0)) is None


def test_bootstrap_interval_has_its_coverage():
    """95% intervals of the mean of many draws hold the true mean about 95% of times."""
    hits = 0
    for i in range(60):
        rng = np.random.default_rng(i)
        interval = bootstrap(rng.normal(0.3, 1.0, (1, 80)), Resamples(i))
        hits += interval.low <= 0.3 <= interval.high
    assert 50 <= hits  # P(fewer | 95%) < 1e-3, and 60 intervals of 70% would fail


def test_bootstrap_of_a_constant_is_a_point():
    interval = bootstrap(np.full((3, 5), 0.25), Resamples(0))
    assert interval == Interval(0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "reproduced"),
        (-0.3, -0.1, "not reproduced"),
        (-0.1, 0.1, "too noisy to tell"),
        (0.0, 0.2, "too noisy to tell"),
        (-0.2, 0.0, "too noisy to tell"),
        (0.0, 0.0, "no difference"),
        (0.2, 0.2, "reproduced"),
    ],
)
def test_verdict_is_the_side_of_zero(low, high, said):
    assert verdict(Interval((low + high) / 2, low, high)) == said


def test_problems_of_a_file_are_checked_by_line_and_field(tmp_path):
    row = {"prompt": "p", "completion": "c", "answer": "1", "level": 2}
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps({**row, 'level': '3'})}\n")
    with pytest.raises(ValueError, match=r"train\.jsonl:2.*level: expected int"):
        read_problems(path)
