"""Every claim has a verdict that follows from the answers, or says why it has none."""

import numpy as np
import pytest
from helpers.recited import ANSWER, ONE, TWO, N, Written, answers

from research.intervals import UNTESTED, Resamples
from research.recite import claims, tables, tables_paths, thesis, transcripts
from research.recite.scores import Scores


def verdicts(scores: Scores, system=None) -> list[claims.Found]:
    curves = {t: tables_paths._curves(scores, t, "exact match") for t in scores.tasks}
    return claims.verdicts(scores, curves, Resamples(0), system)


def of(found, number: str) -> claims.Found:
    (one,) = [f for f in found if f.claim.startswith(f"{number}. ")]
    return one


def plain(root, direct, recite, **more):
    made = Written(root, ONE)
    made.add("direct one 0", answers(direct, K=1))
    made.add("recite one 0", answers(recite, **more))
    return made


NUMBERS = ("1", "1b", "2", "2b", "3", "3b", "4", "4b", "5", "6a", "6b", "6c", "7")


def test_every_claim_is_there_and_says_why_it_is_not_tested(tmp_path):
    """In a run of two methods; what is missing is named."""
    found = verdicts(plain(tmp_path, [0, 1] * 10, [3, 1] * 10).scores(ONE))
    assert tuple(f.claim.partition(". ")[0] for f in found) == NUMBERS
    reasons = {
        "1b": "without votes of direct answers",
        "3": "no questions of two hops",
        "3b": "no questions of two hops",
        "4": "taught to recite by hints",
        "4b": "taught to recite by hints",
        "5": "no task was asked with several draws of exemplars",
        "6a": "has the gold passage",
        "6b": "has the gold passage",
        "6c": "has retrieved passages",
    }
    for f in found:
        number = f.claim.partition(". ")[0]
        assert (f.status == UNTESTED) == (number in reasons), f
        assert reasons.get(number, "") in f.evidence
    table = claims.summary(found)
    assert [row[2] for row in table.rows] == [f.status for f in found]
    assert "Each of the 4 tested" in table.note


def test_a_difference_decides(tmp_path):
    """The side of 0 on which all of its interval lies; the thesis's stands beside."""
    better = plain(tmp_path / "a", [0, 0, 0, 1] * 5, [3] * N).scores(ONE)
    found = of(verdicts(better), "1")
    assert found.status == "reproduced" and found.difference.startswith("+75.0 [")
    assert "recite, vote of 4 (100.0%) minus direct (25.0%), +75" in found.evidence
    assert "In the thesis: +0.5 to +4.7." in found.evidence
    worse = plain(tmp_path / "b", [1, 1, 1, 0] * 5, [3, 0, 0, 0] * 5).scores(ONE)
    assert of(verdicts(worse), "1").status == "not reproduced"
    even = plain(tmp_path / "c", [0, 1] * 10, [3, 0] * 10).scores(ONE)
    assert of(verdicts(even), "1").status == "too noisy to tell"


@pytest.mark.parametrize("direct, recite, claim, told", [
    ([1] * N, [3] * N, "1", "Direct answers 100.0%: nothing can beat it"),
    ([0] * N, [1] * N, "1", "Neither is right on more than 2%"),
    ([0] * N, [0] * N, "2", "Neither is right on more than 2%"),
    ([0] * N, [0] * N, "7", "0.0% are right: the model cannot do this task"),
    ([0] * N, [4] * N, "7", "100.0% are right: too little is lost"),
    ([0] * N, [4] * N, "2", "One path answers 100.0%: nothing can beat it"),
    ([0] * N, [4, 0] * 10, "2b", "equally right"),
])  # fmt: skip
def test_where_nothing_can_be_told_nothing_is(tmp_path, direct, recite, claim, told):
    """Ceiling and floor, whoever won."""
    found = of(verdicts(plain(tmp_path, direct, recite).scores(ONE)), claim)
    assert found.status == UNTESTED and told in found.evidence


def test_more_paths_vary_less_where_paths_differ(tmp_path):
    """One path in four is right or wrong by chance, a vote of two less so."""
    scores = plain(tmp_path, [0] * N, [3] * N).scores(ONE)
    found = of(verdicts(scores), "2b")
    assert found.difference.endswith("of variance") and "with 2." in found.evidence
    (curve,) = tables_paths.more_paths(scores)[1]["one"]
    one, two = curve.scores.var(axis=1, ddof=1).mean(axis=1)[:2]
    assert found.difference.startswith(f"{one - two:.3f}".replace("-", "−"))


@pytest.mark.parametrize("recited, right, largest, status", [
    (0, [0, 3] * 10, "not recited", "reproduced"),
    (1, [0, 3] * 10, "recited only", "not reproduced"),
    (0, [1, 3] * 10, "right on a path", "not reproduced"),
])  # fmt: skip
def test_the_largest_class_is_named(tmp_path, recited, right, largest, status):
    scores = plain(tmp_path, [0] * N, right, recited=recited).scores(ONE)
    found = of(verdicts(scores), "7")
    assert found.status == status
    assert f"the largest is '{largest}'" in found.evidence
    (questions, paths) = tables.losses(scores, ["one"]).blocks
    assert sum(row[2] for row in questions.rows) == pytest.approx(1)
    assert sum(row[3] for row in paths.rows) == pytest.approx(1)
    for column, total in ((3, 1), (4, 1)):
        shown = sum(row[column] for row in questions.rows)
        assert shown == pytest.approx(total, abs=5e-4)


def robust(direct, recite) -> list[dict]:
    """Rows of answers [questions, draws] that are right or not."""
    return [
        {"id": str(i), "recitations": [], "answers": [], "voted": "",
         "more": {"direct": [ANSWER if x else "no" for x in a],
                  "recite": [ANSWER if x else "no" for x in b]}}
        for i, (a, b) in enumerate(zip(direct, recite, strict=True))
    ]  # fmt: skip


def test_robustness_is_of_the_deviations_that_the_table_has(tmp_path):
    """The difference of the table's deviations, which lies in its interval."""
    rng = np.random.default_rng(0)
    drawn = rng.random((4, N, 3)) < 0.5
    made = Written(tmp_path, ONE)
    made.stages |= Written(tmp_path, ONE, seed=1).stages
    for seed in (0, 1):
        made.add(f"direct one {seed}", answers([0, 1] * 10, K=1))
        made.add(f"recite one {seed}", answers([3, 1] * 10))
        made.add(f"robust one {seed}", robust(*drawn[2 * seed : 2 * seed + 2]))
    scores = made.scores(ONE, seeds=(0, 1))
    found = of(verdicts(scores), "5")
    ((_, *direct), (_, *recite)) = tables.robustness(scores).blocks[0].rows
    values = [scores.by_exemplars(m, "one") for m in ("direct", "recite")]
    gap = claims.deviation_gap(*values, Resamples(0))
    assert gap.value == pytest.approx(recite[2] - direct[2])
    assert gap.low < gap.value < gap.high
    assert found.difference == claims.points(gap, "+.2f")


@pytest.mark.parametrize("recite, status, told", [
    ([[1, 1, 1]] * 10 + [[0, 0, 0]] * 10, "reproduced", "+0.00"),
    ([[1, 0, 0]] * 10 + [[1, 1, 0]] * 10, "not reproduced", "+50.00"),
    ([[0, 0, 0]] * N, UNTESTED, "Recite is right on 0.0%: nothing is left to vary"),
])  # fmt: skip
def test_as_robust_is_less_than_a_point_more(tmp_path, recite, status, told):
    """Of questions that all change together: their deviation by hand."""
    made = plain(tmp_path, [0, 1] * 10, [3, 1] * 10)
    made.add("robust one 0", robust([[1, 1, 1]] * 10 + [[0, 0, 0]] * 10, recite))
    found = of(verdicts(made.scores(ONE)), "5")
    assert found.status == status and told in found.evidence


def test_retrieval_beats_the_recitation_of_a_weak_model(tmp_path):
    """The thesis has it so for UL2-20B, and the other way round for a strong one."""
    made = plain(tmp_path, [0] * N, [3, 0] * 10)
    made.add("retrieved one 0", answers([1, 1, 1, 0] * 5, K=1))
    made.add("gold one 0", answers([1] * N, K=1))
    weak, strong = (verdicts(made.scores(ONE), s) for s in ("UL2-20B", "OPT-30B"))
    assert of(weak, "6c").difference.startswith("+25.0")
    assert of(strong, "6c").difference.startswith("−25.0")
    assert of(strong, "6b").status == "reproduced"


def test_two_hops_are_compared_with_both(tmp_path):
    made = Written(tmp_path, ONE, TWO)
    for task in ("one", "two"):
        made.add(f"direct {task} 0", answers([0, 1] * 10, K=1))
        made.add(f"recite {task} 0", answers([3] * N))
    made.add("chain of thought two 0", answers([3, 0, 0, 0] * 5))
    found = verdicts(made.scores(ONE, TWO))
    assert of(found, "3").difference.startswith("+50.0")
    assert of(found, "3b").difference.startswith("+75.0")
    assert "In the thesis: +0.9 to +2.7." in of(found, "3b").evidence
    assert {f.task for f in found if f.claim.startswith("1. ")} == {"one"}


def test_seeds_of_different_sizes_count_as_many_questions(tmp_path):
    made = Written(tmp_path, ONE)
    made.stages |= Written(tmp_path, ONE, count=N - 3, seed=1).stages
    for seed, count in ((0, N), (1, N - 3)):
        made.add(f"direct one {seed}", answers([0] * count, K=1))
        made.add(f"recite one {seed}", answers([3] * count))
    scores = made.scores(ONE, seeds=(0, 1))
    assert scores.right("recite", "one").shape == (2, N - 3)
    assert of(verdicts(scores), "1").difference.startswith("+100.0")


@pytest.mark.parametrize("better, worse, hops, expected", [
    ("recite", "direct", 1, [2.94, 4.00, 2.87, 4.39, 0.46, 4.69, 3.12, 1.66]),
    ("recite", "chain of thought", 2, [2.73, 1.36, 0.88, 2.73]),
    ("diversified", "recite", 1, [3.50, 1.89]),
    ("gold", "retrieved", 1, [24.71, 16.12]),
    ("retrieved", "recite", 1, [2.15, -2.64]),
    ("recite", "one path", 1, [7.72, 6.39]),
    ("diversified", "hinted votes", 1, []),
    ("gold", "recite", 2, []),
])  # fmt: skip
def test_differences_of_the_thesis(better, worse, hops, expected):
    """By hand, from Tables 4.1 to 4.5."""
    found = thesis.differences(better, worse, hops)
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_transcript_has_what_a_person_looks_for(tmp_path):
    """Ten questions, none twice; answers are marked as they are scored."""
    scores = plain(tmp_path, [0] * N, [3, 1] * 10, recited=1).scores(ONE)
    told, *pages = transcripts.transcripts(scores).blocks
    assert told.text.startswith("10 questions")
    assert len({page.caption for page in pages}) == 10
    text = pages[0].text
    assert text.count("Recited    ") == 3 and "  answer   yes [right]" in text
    assert "Vote       yes [right], of 4 paths: 3 yes, 1 no 0" in text
    assert "Direct     no [wrong]" in text and "Class      right by vote" in text
    few = Written(tmp_path / "few", ONE, count=3)
    few.add("direct one 0", answers([0] * 3, K=1)).add("recite one 0", answers([3] * 3))
    assert len(transcripts.transcripts(few.scores(ONE)).blocks) == 1 + 3


def test_what_is_recited_is_counted(tmp_path):
    """One path of four is the evidence, word for word."""
    scores = plain(tmp_path, [0] * N, [3, 1] * 10, recited=1).scores(ONE)
    ((task, kind, exact, told, different, said),) = (
        transcripts.recited(scores).blocks[0].rows
    )
    assert (task, kind, exact, told, different) == ("one", "drawn", 0.25, 0.25, 2)
    assert said == pytest.approx((2 + 4) / 2)


def test_types_stand_beside_their_commonest_answer(tmp_path):
    """All exemplars say yes here; controls are named."""
    made = Written(tmp_path, ONE, kinds=("birth", "town"))
    made.add("direct one 0", answers([0, 1] * 10, K=1))
    made.add("recite one 0", answers([3] * N))
    *_, table = tables.accuracy(made.scores(ONE), Resamples(0)).blocks
    assert table.columns[-1].name == "always the commonest answer"
    assert [row[0] for row in table.rows] == ["birth", "town"]
    assert [row[1] for row in table.rows] == [0.0, 1.0]
    assert [row[-1] for row in table.rows] == [1.0, 1.0]
    assert "Birth is a control" in table.note and "Who" not in table.note


def test_the_thesis_s_table_has_all_its_rows():
    """With 16 and 64 exemplars only where the thesis has them."""
    rows = tables._thesis_rows()
    assert len(rows) == 2 + 4 + 2 + 3
    (row,) = [r for r in rows if r[:3] == ["Natural Questions", 64, "direct"]]
    assert row[3:] == ["28.98/40.13", None, None, None]


def test_exemplars_that_were_shown_are_not_shown_again(tmp_path):
    """Other ones are."""
    made = Written(tmp_path, ONE)
    made.add("direct one 0", answers([0] * N, K=1))
    rows = answers([3] * N)
    for i, row in enumerate(rows):
        row["more"]["prompt"] = f"E{i // 10}\n\n\nQ{i}"
    made.add("recite one 0", rows)
    _, *pages = transcripts.transcripts(made.scores(ONE)).blocks
    shown = [page.text.partition("Prompt     ")[2].split() for page in pages]
    assert [s[0] for s in shown] == ["E0", *["(the"] * 4, "E1", *["(the"] * 4]
    assert [s[5] for s in shown[1:5]] == ["Q2", "Q4", "Q6", "Q8"]
