"""Voting follows its stated rules; bootstrap intervals have their coverage."""

import collections
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.easy_to_hard.selection import majority, majority_accuracy
from research.easy_to_hard.tasks import read_problems
from research.intervals import bootstrap, verdict
from research.report import Interval

POOL = st.lists(st.sampled_from(["1", "2", "3", None]), max_size=9)


@given(POOL)
def test_majority_is_a_most_frequent_answer_and_the_first_of_them(pool):
    """Closed form: no other answer is more frequent, nor as frequent and earlier."""
    chosen = majority(pool)
    counts = collections.Counter(a for a in pool if a is not None)
    if not counts:
        assert chosen is None
        return
    best = [a for a in counts if counts[a] == max(counts.values())]
    assert chosen == min(best, key=pool.index)


@given(POOL, st.integers(0, 9))
def test_missing_answers_do_not_vote(pool, missing):
    assert majority(pool + [None] * missing) == majority(pool)


def test_majority_accuracy_is_the_mean_over_all_sub_samples():
    """Equality with exact enumeration of ordered sub-samples, within sampling error."""
    pool, truth, count = ["1", "1", "2", None, "2"], "1", 3
    exact = np.mean([
        majority([pool[i] for i in chosen]) == truth
        for chosen in itertools.permutations(range(len(pool)), count)
    ])  # fmt: skip
    rng = np.random.default_rng(0)
    estimate = majority_accuracy([pool], [truth], count, 4000, rng)[0]
    assert abs(estimate - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)


def test_the_whole_pool_has_one_sub_sample():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    got = majority_accuracy([["1", "2"], ["2", "2"]], ["1", "1"], 2, 50, rng)
    assert got.tolist() == [1.0, 0.0]
    assert rng.bit_generator.state == before


def test_bootstrap_interval_has_its_coverage():
    """95% intervals of the mean of many draws hold the true mean about 95% of times."""
    hits = 0
    for i in range(60):
        rng = np.random.default_rng(i)
        interval = bootstrap(rng.normal(0.3, 1.0, (1, 80)), rng)
        hits += interval.low <= 0.3 <= interval.high
    assert 50 <= hits  # P(fewer | 95%) < 1e-3, and 60 intervals of 70% would fail


def test_bootstrap_of_a_constant_is_a_point():
    interval = bootstrap(np.full((3, 5), 0.25), np.random.default_rng(0))
    assert interval == Interval(0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "reproduced"),
        (-0.3, -0.1, "not reproduced"),
        (-0.1, 0.1, "too noisy to tell"),
        (0.0, 0.2, "too noisy to tell"),
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
