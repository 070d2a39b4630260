"""Claims 2 to 5: every verdict both ways, ratios by hand, bars, spreads."""

import numpy as np
import pytest
from helpers import chapter_stages as made

from research import intervals
from research.easy_to_hard import claims, claims_reranking, tables_reranking
from research.easy_to_hard.answers import read_answers
from research.easy_to_hard.claims import Judges
from research.easy_to_hard.reranked import Reranked
from research.intervals import Resamples
from research.report import Interval, Verdict


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pictures, which have tests of their own, and fewer resamples."""
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    monkeypatch.setattr(tables_reranking.plots, "lines", lambda *_, **__: "<svg/>")


KINDS = ("oprm", "prm", "orm", "large")
# A piece of each claim, in the order of the report.
CLAIMS = {
    "hard": "raises accuracy on hard ones",
    "all": "raises accuracy on all ones",
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
YES, NO, UNSURE = "reproduced", "not reproduced", "too noisy to tell"
UNTESTED = "not tested here"
GOOD = dict.fromkeys(KINDS, 0.95)
STRONG = Judges(GOOD, 0.9)


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


def verdicts(read, judges=STRONG):
    """{claim: verdict}"""
    found = claims_reranking.verdicts(read, judges, Resamples(0))
    found = [v for v in found if isinstance(v, Verdict)]
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
        ({"greedy": (0.5, 0.9)}, {"greedy": NO}),
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
        claim: settled.get(claim, UNSURE) for claim in CLAIMS
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


def test_the_thesis_s_figures_are_what_the_two_claims_say():
    """Closed form: the numbers in the claims are those of the table."""
    theirs = tables_reranking.THESIS
    voting, majority = (
        theirs["easy", "oprm", "weighted"],
        theirs["easy", None, "majority"],
    )
    easy, hard = ((voting[i], majority[i]) for i in (0, 1))
    assert [round(a - b, 1) for a, b in (easy, hard)] == [6.4, 4.9]
    assert [round(a / b, 2) for a, b in (easy, hard)] == [1.11, 1.26]
    one = Interval(0.1, 0.05, 0.2)
    points, relative = claims_reranking.easy_and_hard(one, one, Judges(GOOD), "oprm")
    assert "6.4 against 4.9" in points.claim and "1.26 against 1.11" in relative.claim
    assert points.status == relative.status == YES


def test_a_ratio_without_a_value_says_so(tmp_path):
    """No majority is right on hard problems: no ratio, and the claim is not lost."""
    found = verdicts(reranked(tmp_path, majority=(0.5, 0.0)))
    assert found["relative"].status == UNTESTED
    assert "a majority is right on no easy or no hard" in found["relative"].evidence
    assert found["points"].status == NO  # 0 points on easy, 50 on hard


# --- bars, spreads, the section -----------------------------------------------------


def test_a_weak_evaluator_settles_nothing_that_is_about_it(tmp_path):
    """Closed form: in the miniature, and with the AUC named; the rest stands."""
    ways = {"easy_oprm": ((0.5, 0.95), 0.5), "easy_large": (0.9, 0.1)}
    read = reranked(tmp_path, **ways)
    cases = {
        "oprm": set(CLAIMS) - {"large"},
        "prm": {"prm"},
        "orm": {"orm"},
        "large": {"large", "larger"},
    }
    strong = {claim: v.status for claim, v in verdicts(read).items()}
    assert UNTESTED not in strong.values()
    for kind, lost in cases.items():
        for auc, shown in ((0.85, "0.850"), (None, "–")):
            judges = Judges(GOOD | {kind: auc}, 0.9)
            for claim, v in verdicts(read, judges).items():
                assert v.status == (UNTESTED if claim in lost else strong[claim])
                said = f"{claims.KINDS[kind]} {shown}, under the 0.9"
                assert (said in v.evidence) == (claim in lost)


def test_on_published_problems_the_auc_stands_beside_the_verdict(tmp_path):
    """Closed form: no bar, so that every claim is judged, whatever the AUC."""
    read = reranked(tmp_path, easy_prm=(0.1, 0.9))
    judges = Judges(GOOD | {"prm": 0.6}, None)
    found = verdicts(read, judges)
    assert found["prm"].status == YES
    assert found["prm"].evidence.endswith("problems: OPRM 0.950, PRM 0.600.")
    assert found["large"].evidence.endswith("problems: OPRM, large 0.950.")
    assert UNTESTED not in {v.status for v in found.values()}


def evaluators(root, aucs):
    return {
        f"{kind} {seed}": made.evaluator(root, kind, auc)
        for kind, of_seeds in aucs.items()
        for seed, auc in enumerate(of_seeds)
    }


def test_an_evaluator_is_as_good_as_its_worst_seed(tmp_path):
    """Closed form: of its own task; the bar is the miniature's; 0.9 is enough."""
    aucs = {"orm": (0.95, 0.9), "prm": (0.95, 0.89), "oprm": (0.99, None)}
    stages = evaluators(tmp_path, aucs)
    judges = claims.judges(stages, (0, 1), miniature=True)
    assert judges.auc == {"orm": 0.9, "prm": 0.89, "oprm": None}
    assert [judges.weak(kind) for kind in aucs] == [False, True, True]
    judges = claims.judges(stages, (0, 1), miniature=False)
    assert not any(map(judges.weak, aucs))


def section(root, miniature=True, auc=0.95, large=True):
    """The section and verdicts of one seed; the OPRM is better on hard problems."""
    read, scored = {}, {}
    for generator in ("easy", "large") if large else ("easy",):
        (root / generator).mkdir()
        read[f"{generator}-0"] = read_answers(made.answers(root / generator))
        shares = (0.5, (0.5, 0.9), 0.5) if generator == "easy" else ()
        stage = made.scores(root / generator, "oprm", *shares)
        scored[f"{generator} oprm 0"] = stage
    judged = evaluators(root, {"oprm": (auc,)})
    return tables_reranking.section(
        read, scored, judged, claims.judges(judged, (0,), miniature), (0,),
        made.SAMPLED, miniature=miniature,
    )  # fmt: skip


def test_the_section_takes_its_bar_from_its_evaluators(tmp_path):
    """Closed form: the first verdict, at an AUC over and under 0.9."""
    cases = [(0.95, True, YES), (0.85, True, UNTESTED), (0.85, False, YES)]
    for i, (auc, miniature, status) in enumerate(cases):
        (tmp_path / str(i)).mkdir()
        made_section, found = section(tmp_path / str(i), miniature, auc=auc)
        assert found[0].status == status
        notes = " ".join(b.note for b in made_section.blocks if hasattr(b, "note"))
        assert ("under 0.9" in notes) == miniature


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
    deviation is sqrt(0.6 x 0.4 / 30), 8.9 points; none is told of the pool itself.
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
    for (way, group), (one, whole) in rows.items():
        assert whole is None
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
