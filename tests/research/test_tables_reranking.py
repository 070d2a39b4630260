"""Claims 2 to 5: every verdict both ways, ratios by hand, bars, spreads."""

import numpy as np
import pytest
from helpers import chapter_stages as made

from research import intervals
from research.easy_to_hard import (
    claims,
    claims_reranking,
    tables_reranking,
    thesis_curves,
)
from research.easy_to_hard.answers import read_answers
from research.easy_to_hard.claims import Judges
from research.easy_to_hard.findings import Finding
from research.easy_to_hard.reranked import Reranked, ranking
from research.easy_to_hard.selection import Pool
from research.intervals import Resamples


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pictures, which have tests of their own, and fewer resamples."""
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    monkeypatch.setattr(tables_reranking.plots, "lines", lambda *_, **__: "<svg/>")


KINDS = ("oprm", "prm", "orm", "large")
# A piece of each claim, in the order of the report.
CLAIMS = {
    "hard": "raises accuracy on hard ones",
    "all": "raises accuracy on problems of all levels",
    "greedy": "beats greedy decoding on hard",
    "points": "In points, re-ranking helps more on easy",
    "relative": "Relative to majority voting, re-ranking helps more on hard",
    "best": "Weighted voting beats best-of-n",
    "prm": "better than the PRM",
    "orm": "better than the ORM",
    "large": "A larger evaluator helps a smaller generator.",
    "larger": "more than one of its own size",
    "small": "A smaller evaluator still helps a larger generator",
}
YES, NO, SAME = "reproduced", "not reproduced", "no difference"
UNTESTED = "not tested here"
STEPS = dict.fromkeys(("oprm", "prm", "large"), 0.95)
USED = {("easy", kind, m): 0.95 for kind in KINDS for m in ("weighted", "best")}
USED |= {("large", "oprm", m): 0.95 for m in ("weighted", "best")}
STRONG = Judges(STEPS, USED, 0.9)


def reranked(root, kinds=KINDS, majority=0.5, greedy=0.5, joined=False, **ways):
    """Two generators and their scores; ways: `<generator>_<kind>` -> shares."""
    read, scored = {}, {}
    of_large = ways.pop("large_majority", 0.5)
    for generator, most in (("easy", majority), ("large", of_large)):
        folder = root / generator
        folder.mkdir()
        share = greedy if generator == "easy" else 0.5
        read[f"{generator}-0"] = read_answers(made.answers(folder, share, most))
        for kind in kinds if generator == "easy" else ("oprm",):
            (folder / kind).mkdir()
            weighted, best = ways.pop(f"{generator}_{kind}", (0.5, 0.5))
            scored[generator, kind, 0] = made.scores(
                folder / kind, kind, most, weighted, best
            )
    assert not ways
    return Reranked(read, scored, (0,), made.SAMPLED, "product", joined)


def verdicts(read, judges=STRONG, miniature=True):
    """{claim: finding}"""
    found = claims_reranking.verdicts(read, judges, Resamples(0), miniature)
    found = [v for v in found if isinstance(v, Finding)]
    assert all(c in v.claim for v, c in zip(found, CLAIMS.values(), strict=True))
    return dict(zip(CLAIMS, found, strict=True))


BETTER = {"hard": YES, "all": YES, "greedy": YES, "points": NO, "relative": YES}
BETTER |= {"best": YES, "prm": YES, "orm": YES, "larger": NO}
WORSE = {claim: {YES: NO, NO: YES}[status] for claim, status in BETTER.items()}
ON_EASY = {"all": YES, "points": YES, "relative": NO, "best": YES, "prm": YES}
ON_EASY |= {"orm": YES, "larger": NO}


@pytest.mark.parametrize(
    ("ways", "settled"),
    [
        ({}, {}),
        # (easy, hard) shares by weighted votes, then by best-of-n
        ({"easy_oprm": ((0.5, 0.95), 0.5)}, BETTER),
        ({"easy_oprm": ((0.5, 0.05), 0.5)}, WORSE),
        ({"easy_oprm": ((0.95, 0.5), 0.5)}, ON_EASY),
        ({"greedy": (0.5, 0.1)}, {"greedy": YES}),
        ({"greedy": (0.5, 0.8)}, {"greedy": NO}),
        ({"greedy": (0.1, 0.5)}, {}),
        ({"easy_oprm": (0.5, 0.1)}, {"best": YES}),
        ({"easy_oprm": (0.5, 0.9)}, {"best": NO}),
        ({"easy_prm": (0.1, 0.9)}, {"prm": YES}),
        ({"easy_prm": (0.9, 0.1)}, {"prm": NO}),
        ({"easy_orm": (0.1, 0.9)}, {"orm": YES}),
        ({"easy_orm": (0.9, 0.1)}, {"orm": NO}),
        ({"easy_large": (0.9, 0.1)}, {"large": YES, "larger": YES}),
        ({"easy_large": (0.1, 0.9)}, {"large": NO, "larger": NO}),
        ({"large_oprm": (0.9, 0.1)}, {"small": YES}),
        ({"large_oprm": (0.1, 0.9)}, {"small": NO}),
        ({"large_majority": 0.1}, {"small": YES}),
        ({"large_majority": 0.9}, {"small": NO}),
    ],
)
def test_each_verdict_is_the_side_of_its_difference(tmp_path, ways, settled):
    """Closed form: all is equal but for what is said; the other claims stay open."""
    found = verdicts(reranked(tmp_path, **ways))
    assert {claim: v.status for claim, v in found.items()} == {
        claim: settled.get(claim, SAME) for claim in CLAIMS
    }


def test_an_outcome_model_is_read_at_the_answer_and_others_at_steps(tmp_path):
    """The shares asked for come out, though the ORM's steps say the contrary."""
    read = reranked(tmp_path, easy_orm=(0.9, 0.1), easy_prm=(0.2, 0.7))
    for kind, shares in (("orm", (0.9, 0.1)), ("prm", (0.2, 0.7))):
        for method, share in zip(("weighted", "best"), shares, strict=True):
            assert read.at(("easy", kind, method)).mean() == pytest.approx(share)
    assert read.at(("easy", None, "majority")).mean() == 0.5
    assert read.kinds == list(KINDS)


def test_gains_by_hand(tmp_path):
    """Closed form: from 0.5 to 0.7 of easy problems, from 0.4 to 0.5 of hard ones.

    20 points less 10, and 1.25 times over 1.4 times.
    """
    read = reranked(tmp_path, majority=(0.5, 0.4), easy_oprm=((0.7, 0.5), 0.5))
    draws = Resamples(0)
    in_points, relative = claims_reranking.gains(read, "oprm", draws)
    assert in_points.value == pytest.approx(0.2 - 0.1)
    assert relative.value == pytest.approx(1.25 / 1.4 - 1)
    for gain in (in_points, relative):
        assert gain.low < gain.value < gain.high


def test_the_thesis_s_figures_are_what_the_two_claims_say(tmp_path, monkeypatch):
    """Closed form: those of as many answers as ours, and beside them those of most."""
    read = reranked(tmp_path)
    monkeypatch.setattr(read, "counts", (1, 16))
    voting, majority = ("easy", "oprm", "weighted"), ("easy", None, "majority")
    # 49.84 to 51.72, and 14.14 to 15.69; with 1024, 56.76 to 63.20 and 19.19 to 24.12.
    for group, effect in (("easy", 0.0188), ("hard", 0.0155)):
        contest = claims_reranking.contest(read, voting, majority, group)
        assert contest.effect == pytest.approx(effect)
    found = verdicts(read)
    said = "(1.9 against 1.6 points with 16 answers; 6.4 against 4.9 points with 1024 "
    assert said in found["points"].claim
    said = "(1.11 against 1.04 times with 16 answers; 1.26 against 1.11 times with 1024"
    assert said in found["relative"].claim
    said = "In the thesis, 15.7% against 14.1% with 16 answers; 24.1% against 19.2% "
    assert said + "with 1024 answers." in found["hard"].evidence


def test_a_difference_that_the_thesis_has_elsewhere_only_is_taken_there(tmp_path):
    """Closed form: with 16 answers its ORM is ahead of the OPRM, by 0.76 points.

    With 64 the OPRM leads by 0.45. What does not lead has no effect to leave room for.
    """
    oprm, orm = ("easy", "oprm", "weighted"), ("easy", "orm", "weighted")
    assert thesis_curves.ahead(oprm, orm, "all", 16) == -0.76
    for votes, count in ((5, 64), (16, 64), (256, 256)):
        assert thesis_curves.compared_at(oprm, orm, "all", votes) == count
    assert thesis_curves.ahead(oprm, orm, "all", 64) == 0.45
    evidence = thesis_curves.said(oprm, orm, "all", 16)
    assert "32.9% against 33.6% with 16 answers; 37.9%" in evidence
    best = ("easy", "prm", "best")
    with pytest.raises(ValueError, match="is not ahead"):
        thesis_curves.compared_at(best, oprm, "hard", 16)


def test_the_thesis_s_curves_agree_with_themselves():
    """Closed form: 238 easy and 262 hard problems, at every number of answers."""
    assert [thesis_curves.nearest(n) for n in (1, 2, 5, 16, 100, 256, 9999)] == [
        1, 1, 4, 16, 64, 256, 1024
    ]  # fmt: skip
    for way, (easy, hard, whole) in thesis_curves.CURVES.items():
        if easy is not None:
            for e, h, w in zip(easy, hard, whole, strict=True):
                assert abs((238 * e + 262 * h) / 500 - w) < 0.12, way


@pytest.mark.parametrize(("votes", "nearest"), [(16, 16), (20, 16), (5, 4)])
def test_the_thesis_s_rows_are_of_as_many_answers_as_ours(
    tmp_path, monkeypatch, votes, nearest
):
    """Closed form: the note says of how many; all its points are in a table."""
    read = reranked(tmp_path)
    monkeypatch.setattr(read, "counts", (1, votes))
    table = tables_reranking.table(read, Resamples(0), True)
    assert f"MATH500, {nearest} answers" in table.note
    assert (f"nearest to {votes}" in table.note) == (votes != nearest)
    rows = {tuple(row[:3]): row[3:] for row in table.rows}
    points = tables_reranking.thesis_points(read, True)
    shown = {tuple(row[:3]): row[3:] for row in points.rows}
    place = 3 + thesis_curves.COUNTS.index(nearest)
    assert points.columns[place].name == f"n = {nearest}"
    for (size, way, group), numbers in shown.items():
        at = thesis_curves.GROUPS.index(group)
        assert rows[size, way, "thesis"][at] == numbers[place - 3]
    assert shown["7B", "OPRM, voting", "easy"][2] == pytest.approx(0.5172)


def test_a_ratio_without_a_value_says_so(tmp_path):
    """No majority is right on hard problems: no ratio, and the claim is not lost."""
    read = reranked(tmp_path, majority=(0.5, 0.0))
    found = verdicts(read, miniature=False)
    assert found["relative"].status == UNTESTED
    assert "a majority is right on no easy or no hard" in found["relative"].evidence
    assert found["points"].status == NO  # 0 points on easy, 50 on hard
    found = verdicts(read)  # where a miniature is at its floor
    assert found["points"].status == found["hard"].status == UNTESTED
    assert "base cannot do it at all" in found["points"].evidence


@pytest.mark.parametrize("voting", [(1.0, 0.9), (0.9, 0.9)])
def test_a_gain_without_room_spoils_both_ways_to_compare_it(tmp_path, voting):
    """Closed form: 97% of easy problems leave less than 6.4 points, of 1024 answers."""
    read = reranked(tmp_path, majority=(29 / 30, 0.5), easy_oprm=(voting, 0.5))
    found = verdicts(read)
    for claim in ("points", "relative"):
        assert found[claim].status == UNTESTED
        (reason,) = found[claim].reasons
        assert reason.startswith("majority, easy problems, answers 96.7%")
        assert found[claim].difference[0] in "−+012"
    assert found["hard"].status == YES


def test_costs_differ_by_answers_and_by_who_scores_them(tmp_path):
    """Closed form: nothing is said where both sides cost the same."""
    found = verdicts(reranked(tmp_path))
    scored = "Cost of a problem: 5 answers, each scored by an evaluator; against "
    assert scored + "one answer." in found["greedy"].evidence
    assert scored + "5 answers." in found["hard"].evidence
    assert "scored by the large evaluator; against 5" in found["larger"].evidence
    for claim in ("best", "prm", "orm", "points"):
        assert "Cost" not in found[claim].evidence


# --- bars, spreads, the section -----------------------------------------------------

# The claims about each evaluator, by what of it they rely on.
ABOUT_STEPS = {
    "oprm": set(CLAIMS) - {"large"},
    "prm": {"prm"},
    "large": {"large", "larger"},
}
ABOUT_USE = {
    ("easy", "oprm", "weighted"): set(CLAIMS) - {"large", "small"},
    ("easy", "oprm", "best"): {"best"},
    ("easy", "prm", "weighted"): {"prm"},
    ("easy", "orm", "weighted"): {"orm"},
    ("easy", "large", "weighted"): {"large", "larger"},
    ("large", "oprm", "weighted"): {"small"},
    ("easy", "prm", "best"): set(),
}


def test_a_weak_evaluator_settles_nothing_that_is_about_it(tmp_path):
    """Closed form: by its steps or by the score that is used; the rest stands."""
    ways = {"easy_oprm": ((0.5, 0.95), 0.5), "easy_large": (0.9, 0.1)}
    read = reranked(tmp_path, **ways)
    strong = {claim: v.status for claim, v in verdicts(read).items()}
    assert UNTESTED not in strong.values()
    for auc, shown in ((0.85, "0.850"), (None, "–")):
        cases = [
            (Judges(STEPS | {kind: auc}, USED, 0.9), f"on steps {shown}", lost)
            for kind, lost in ABOUT_STEPS.items()
        ]
        cases += [
            (Judges(STEPS, USED | {way: auc}, 0.9), f" {shown}, under the 0.9", lost)
            for way, lost in ABOUT_USE.items()
        ]
        for judges, said, lost in cases:
            for claim, v in verdicts(read, judges).items():
                assert v.status == (UNTESTED if claim in lost else strong[claim])
                assert (said in v.evidence) == (claim in lost)


def test_on_published_problems_the_auc_stands_beside_the_verdict(tmp_path):
    """Closed form: no bar, so that every claim is judged, whatever the AUC."""
    read = reranked(tmp_path, easy_prm=(0.1, 0.9))
    found = verdicts(read, Judges(STEPS | {"prm": 0.6}, USED), miniature=False)
    assert found["prm"].status == YES
    assert found["prm"].evidence.endswith(
        "problems: OPRM on steps 0.950; OPRM in voting 0.950; PRM on steps 0.600; "
        "PRM in voting 0.950."
    )
    assert found["orm"].evidence.endswith("OPRM in voting 0.950; ORM in voting 0.950.")
    assert found["small"].evidence.endswith("on the large generator's answers 0.950.")
    assert UNTESTED not in {v.status for v in found.values()}


def test_the_auc_of_a_use_is_that_of_solutions_with_an_answer():
    """Closed form: a pair of each kind by hand; missing answers are left out."""

    def pool(classes, values, weights):
        return Pool(*(np.array(x, float) for x in (classes, values, weights)))

    # Right at -1 and -3, wrong at -2: one of two pairs is in order.
    pools = [pool([0, -1, 1], [1, 0, 0], [-1, 9, -2]), pool([0], [1], [-3])]
    assert ranking(pools) == 0.5
    nothing = pool([0, 1], [1, 0], [-1, -np.inf])  # no steps: the lowest
    assert ranking([nothing]) == 1.0
    for one_kind in ([], [pool([0, -1], [1, 0], [-1, -2])]):
        assert ranking(one_kind) is None


def test_a_use_is_read_on_easy_problems_only(tmp_path):
    """Closed form: 1 where easy problems are all told apart, whatever hard ones are."""
    shares = {"majority": 0.5, "easy_prm": ((1.0, 0.0), (1.0, 0.0))}
    used = reranked(tmp_path, **shares).used
    assert used["easy", "prm", "weighted"] == used["easy", "prm", "best"] == 1.0
    assert set(used) == set(USED)
    assert used["easy", "orm", "weighted"] < 0.9


def evaluators(root, aucs):
    return {
        f"{kind} {seed}": made.evaluator(root, kind, auc)
        for kind, of_seeds in aucs.items()
        for seed, auc in enumerate(of_seeds)
    }


def test_an_evaluator_is_as_good_as_its_worst_seed(tmp_path):
    """Closed form: on steps, of which an ORM judges none; the miniature has the bar."""
    aucs = {"orm": (0.5, 0.5), "prm": (0.95, 0.89), "oprm": (0.99, None)}
    aucs |= {"large": (0.95, 0.9)}
    stages = evaluators(tmp_path, aucs)
    judges = claims.judges(stages, (0, 1), miniature=True)
    assert judges.steps == {"prm": 0.89, "oprm": None, "large": 0.9}
    assert [bool(judges.too_weak([kind])) for kind in aucs] == [0, 1, 1, 0]
    judges = claims.judges(stages, (0, 1), miniature=False)
    assert not any(judges.too_weak([kind]) for kind in aucs)


def section(root, miniature=True, auc=0.95, large=True, easy=1.0):
    """The section and findings of one seed; the OPRM is better on hard problems.

    easy: the share of easy problems whose right answers its scores tell.
    """
    read, scored = {}, {}
    for generator in ("easy", "large") if large else ("easy",):
        (root / generator).mkdir()
        read[f"{generator}-0"] = read_answers(made.answers(root / generator))
        shares = (0.5, (easy, 0.9), easy) if generator == "easy" else ()
        stage = made.scores(root / generator, "oprm", *shares)
        scored[f"{generator} oprm 0"] = stage
    judged = evaluators(root, {"oprm": (auc,)})
    return tables_reranking.section(
        read, scored, judged, claims.judges(judged, (0,), miniature), (0,),
        made.SAMPLED, miniature=miniature,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("auc", "easy", "miniature", "status"),
    [
        (0.95, 1.0, True, YES),
        (0.85, 1.0, True, UNTESTED),  # on steps
        (0.95, 0.5, True, UNTESTED),  # in voting
        (0.85, 0.5, False, YES),
    ],
)
def test_the_section_takes_its_bar_from_its_evaluators(
    tmp_path, auc, easy, miniature, status
):
    """Closed form: the first verdict, and what the table of evaluators says."""
    made_section, found = section(tmp_path, miniature, auc=auc, easy=easy)
    assert found[0].status == status
    table = made_section.blocks[0]
    ((name, steps, lowest, _, voting, worst, *_),) = table.rows
    assert (name, steps, lowest) == ("OPRM", auc, auc)
    assert voting == worst and (voting == 1.0) == (easy == 1.0)
    assert ("Under 0.9" in table.note) == miniature


def test_a_joined_answer_stands_for_the_last_step(tmp_path):
    """Closed form: scores of the answer that favour the other side are read, or not."""
    folder = tmp_path / "easy"
    folder.mkdir()
    answered = {"easy-0": read_answers(made.answers(folder, majority=1.0))}
    row = {"steps": [[3.0]] * 3 + [[-3.0]] * 2, "answer": [-4.0] * 3 + [4.0] * 2}
    made.write_jsonl(folder / "scores.jsonl", [row] * len(made.LEVELS))
    stage = {("easy", "prm", 0): made.StageResult(folder, {})}
    for joined, right in ((False, 1.0), (True, 0.0)):
        read = Reranked(answered, stage, (0,), made.SAMPLED, "product", joined)
        for method in ("weighted", "best"):
            assert read.at(("easy", "prm", method)).mean() == right


def test_spreads_are_of_sub_samples_in_points(tmp_path):
    """Closed form: n = 1 of a pool of three right and two wrong answers.

    Each of 30 problems is right with probability 0.6 (hard ones), so that the mean's
    deviation is sqrt(0.6 x 0.4 / 30), 8.9 points; the pool itself has no column.
    """
    folder = tmp_path / "easy"
    folder.mkdir()
    answered = {"easy-0": read_answers(made.answers(folder, majority=1.0))}
    stage = {("easy", "oprm", 0): made.scores(folder, "oprm", 1.0, 1.0, 1.0)}
    sampled = made.Sampled(votes=5, counts=(1, 5), repeats=400)
    read = Reranked(answered, stage, (0,), sampled, "product", False)
    table = tables_reranking.spreads(read, sampled)
    rows = {tuple(row[:2]): row[2:] for row in table.rows}
    assert set(rows) == {
        (way, group)
        for way in ("majority", "OPRM, voting", "OPRM, best-of-n")
        for group in ("hard", "all")
    }
    assert [c.name for c in table.columns[2:]] == ["n = 1"]
    assert "With n = 5 there is no other" in table.note
    for (way, group), (one,) in rows.items():
        count = 30 if group == "hard" else 60
        assert one == pytest.approx(100 * (0.24 / count) ** 0.5, rel=0.15), way
    two = {("easy", None, "majority", "all"): [(0.03, None), (0.04, None)]}
    read.spreads = two
    assert read.spread(("easy", None, "majority"), "all") == [
        pytest.approx(np.sqrt((9e-4 + 16e-4) / 2)),
        None,
    ]


def test_generators_are_called_by_what_was_run(tmp_path):
    """Closed form: small only beside large; the thesis's rows by their own sizes."""
    for large, names in ((True, {"small", "large"}), (False, {"easy-to-hard"})):
        for miniature in (True, False):
            root = tmp_path / f"{large}{miniature}"
            root.mkdir()
            made_section, _ = section(root, miniature, large=large)
            table = made_section.blocks[1]
            ours = {row[0] for row in table.rows if row[2] == "here"}
            theirs = [row[:2] for row in table.rows if row[2] == "thesis"]
            assert ours == names
            assert ["7B", "OPRM, voting"] in theirs
            assert (["34B", "OPRM, voting"] in theirs) == (large or not miniature)
            assert (["7B", "OPRM, 34B, voting"] in theirs) == (not miniature)
