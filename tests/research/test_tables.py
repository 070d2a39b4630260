"""Claim 1: the side of every difference, and what is said of a trivial win."""

import pytest
from helpers import chapter_stages as made

from research.easy_to_hard import tables
from research.easy_to_hard.answers import read_answers
from research.intervals import Resamples
from research.report import Interval, Verdict

ROWS = ("full", "easy", "icl-full", "icl-hard", "icl-easy")
# A word of each claim, in the order of the report.
CLAIMS = {
    "votes full": "Majority voting beats greedy decoding: full SFT.",
    "votes easy": "Majority voting beats greedy decoding: easy-to-hard SFT.",
    "gap": "falls short of one that saw all levels, on hard problems.",
    "icl-full": "beats full ICL.",
    "icl-hard": "beats hard ICL.",
    "icl-easy": "beats easy-to-hard ICL.",
}
YES, NO, UNSURE = "reproduced", "not reproduced", "too noisy to tell"


def verdicts(root, shares, miniature=True):
    """{claim: verdict} of generators with these shares (greedy, majority)."""
    read = {}
    for name in ROWS:
        greedy, majority = shares.get(name, (0.5, 0.5))
        (root / name).mkdir()
        stage = made.answers(root / name, greedy, majority)
        read[f"{name}-0"] = read_answers(stage)
    scores = tables.Scores(read, (0,), made.SAMPLED)
    draws = Resamples(0)
    found = tables.verdicts(scores, made.SAMPLED, draws, miniature)
    found = [v for v in found if isinstance(v, Verdict)]
    assert all(v.claim.endswith(c) for v, c in zip(found, CLAIMS.values(), strict=True))
    return dict(zip(CLAIMS, found, strict=True))


@pytest.mark.parametrize(
    ("shares", "settled"),
    [
        ({}, {}),
        ({"full": (0.5, 0.9)}, {"votes full": YES}),
        ({"full": (0.5, 0.1)}, {"votes full": NO}),
        ({"easy": (0.5, 0.9)}, {"votes easy": YES}),
        ({"easy": (0.5, 0.1)}, {"votes easy": NO}),
        ({"full": ((0.5, 0.9), (0.5, 0.9))}, {"gap": YES}),
        ({"full": ((0.5, 0.1), (0.5, 0.1))}, {"gap": NO}),
        ({"full": ((0.9, 0.5), (0.9, 0.5))}, {}),  # the gap is on hard problems
        *(({name: (0.1, 0.5)}, {name: YES}) for name in ROWS[2:]),
        *(({name: (0.9, 0.5)}, {name: NO}) for name in ROWS[2:]),
    ],
)
def test_each_verdict_is_the_side_of_its_difference(tmp_path, shares, settled):
    """Closed form: all is equal but for what is said; the other claims stay open."""
    found = verdicts(tmp_path, shares)
    assert {claim: v.status for claim, v in found.items()} == {
        claim: settled.get(claim, UNSURE) for claim in CLAIMS
    }


def test_what_answers_everything_is_beaten_by_nothing(tmp_path):
    """Closed form: not tested where greedy decoding is right everywhere."""
    found = verdicts(tmp_path, {"full": (1.0, 1.0), "easy": (0.9, 0.9)})
    assert found["votes full"].status == "not tested here"
    assert "answers 100.0%: nothing can beat it" in found["votes full"].evidence
    assert found["votes easy"].status == UNSURE


def test_a_win_over_nothing_is_called_trivial(tmp_path):
    """Closed form: said while every in-context accuracy is under 2%, and only then."""
    cases = [(0.0, True, True), (0.0, False, True), (0.1, True, False)]
    for i, (share, miniature, said) in enumerate(cases):
        root = tmp_path / str(i)
        root.mkdir()
        nothing = {name: (0.0, 0.5) for name in ROWS[2:4]}
        found = verdicts(root, nothing | {"icl-easy": (share, 0.5)}, miniature)
        for name in ROWS[2:]:
            evidence = found[name].evidence
            assert ("won trivially" in evidence) == said
            assert ("no worked problem" in evidence) == (said and miniature)
        assert "trivially" not in found["gap"].evidence


def test_points_are_hundredths():
    """Closed form, with one sign for nothing."""
    assert tables.points(Interval(0.123, -0.001, 0.2)) == "+12.3 points [−0.1, +20.0]"
    assert tables.points(Interval(-1e-9, -0.5, 0.0)) == "+0.0 points [−50.0, +0.0]"
    assert tables.in_points(Interval(0.5, 0.25, 1.0)) == Interval(50.0, 25.0, 100.0)
