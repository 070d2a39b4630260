"""Claim 1: the side of every difference, ceilings and floors, columns of Table 6.1."""

import pytest
from helpers import chapter_stages as made

from research.easy_to_hard import tables
from research.easy_to_hard.answers import read_answers
from research.easy_to_hard.findings import Finding
from research.easy_to_hard.settings import Sampled
from research.intervals import Resamples
from research.report import Interval

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
YES, NO, SAME = "reproduced", "not reproduced", "no difference"
UNTESTED = "not tested here"


def verdicts(root, shares, miniature=True):
    """{claim: finding} of generators with these shares (greedy, majority)."""
    scores = read(root, shares)
    draws = Resamples(0)
    found = tables.verdicts(scores, made.SAMPLED, draws, miniature)
    found = [v for v in found if isinstance(v, Finding)]
    assert all(v.claim.endswith(c) for v, c in zip(found, CLAIMS.values(), strict=True))
    return dict(zip(CLAIMS, found, strict=True))


def read(root, shares, sampled=made.SAMPLED):
    read = {}
    for name in ROWS:
        greedy, majority = shares.get(name, (0.5, 0.5))
        (root / name).mkdir()
        stage = made.answers(root / name, greedy, majority)
        read[f"{name}-0"] = read_answers(stage)
    return tables.Scores(read, (0,), sampled)


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
        claim: settled.get(claim, SAME) for claim in CLAIMS
    }


def test_what_leaves_no_room_is_beaten_by_nothing(tmp_path):
    """Closed form: not tested where greedy decoding leaves less than 8.6 points."""
    found = verdicts(tmp_path, {"full": (1.0, 1.0), "easy": (0.9, 0.9)})
    assert found["votes full"].status == UNTESTED
    assert "answers 100.0%, which leaves 0.0 points" in found["votes full"].evidence
    assert "thesis's difference is 8.8" in found["votes full"].evidence
    assert found["votes easy"].status == SAME


@pytest.mark.parametrize("miniature", [True, False])
def test_a_win_over_nothing_is_no_test_of_a_miniature(tmp_path, miniature):
    """Closed form: of the settings that answer nothing only; the difference stays."""
    nothing = {name: (0.0, 0.5) for name in ROWS[2:4]}
    found = verdicts(tmp_path, nothing | {"icl-easy": (0.1, 0.5)}, miniature)
    for name in ROWS[2:4]:
        assert found[name].status == (UNTESTED if miniature else YES)
        assert found[name].evidence.count("+50.0 points") == 1
        assert ("base cannot do it" in found[name].evidence) == miniature
    assert found["icl-easy"].status == YES
    assert found["gap"].status == SAME


def test_votes_say_what_they_cost(tmp_path):
    """Closed form: five answers against one; the others compare greedy answers."""
    for claim, finding in verdicts(tmp_path, {}).items():
        said = "Cost of a problem: 5 answers; against one answer." in finding.evidence
        assert said == claim.startswith("votes")


def test_table_6_1_has_the_columns_that_were_measured(tmp_path):
    """Closed form: no column of dashes; the thesis's numbers in their own columns."""
    sampled = Sampled(votes=5, counts=(1, 5), repeats=3)
    scores = read(tmp_path, {}, sampled)
    table = tables.table_6_1(scores, sampled, Resamples(0), True)
    assert [c.name for c in table.columns][3:] == ["greedy", "maj@5"]
    theirs = next(r for r in table.rows if r[:2] == ["full SFT", "PRM800K"])
    assert theirs[3:] == [pytest.approx(0.206), None]
    assert "majorities of 256 are left out" in table.note
    assert table.note.endswith(
        "not run here: easy-to-hard SFT, large; in-context learning with, and full SFT "
        "of, a large generator."
    )
    assert "not run here: hard ICL; easy-to" in tables.not_run(set(ROWS) - {"icl-hard"})


def test_points_are_hundredths():
    """Closed form, with one sign for nothing."""
    assert tables.points(Interval(0.123, -0.001, 0.2)) == "+12.3 points [−0.1, +20.0]"
    assert tables.points(Interval(-1e-9, -0.5, 0.0)) == "+0.0 points [−50.0, +0.0]"
    assert tables.in_points(Interval(0.5, 0.25, 1.0)) == Interval(50.0, 25.0, 100.0)
