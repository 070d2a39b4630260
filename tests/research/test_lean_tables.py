"""Chapter 7's tables and its analysis, on four problems whose numbers are known."""

import numpy as np
import pytest
from helpers import lean_stages
from helpers.lean_stages import ALL, HALF, NONE

from data.records import write_jsonl
from research.intervals import Resamples
from research.lean_star import (
    analysis,
    costs,
    familiar,
    names,
    oracle,
    steps,
    summary,
    tables,
    thinking,
    thoughts,
)
from research.lean_star.formats import Format
from research.lean_star.reading import first_goal
from research.lean_star.results import TITLES, Results, title
from research.lean_star.settings import CONTROLS
from research.report import Interval, Verdict
from research.stages import StageResult

DRAWS = Resamples(0)
HAND = "p : Prop\nh1 : p\n⊢ p"
GOAL = "p q : Prop\n⊢ p → q → p"
BOTH = "p q : Prop\nh1 : p\nh2 : q\n⊢ p"
PUT = "x : ℤ\nh1 : x = 2\n⊢ 3 * x = 6"
# Name, split, source, [(state, known tactic)].
PROBLEMS = [
    ("a", "test", "prop", [(HAND, "exact h1")]),
    ("b", "test", "prop", [(GOAL, "intros h1 h2"), (BOTH, "exact h1")]),
    ("c", "test", "linear", [(PUT, "rw [h1]")]),
    ("d", "novel", "prop", [(HAND, "exact h1")]),
]
TRUE, FALSE = "The goal is p, and h1 says the same.", "The goal is z, and h7 says so."
# What each system writes there, greedily: (thought, tactic).
WRITTEN = {
    "sft-data": [
        ("", "exact h1"), ("", "intros h1 h2"), ("", "exact h2"), ("", "rw [h1]"),
        ("", "exact h1"),
    ],
    "cot": [
        (TRUE, "exact h1"), (FALSE, "intro h1"),
        ("The goal is q, and h2 says the same.", "exact h2"), (FALSE, "rw [h1]"),
        (TRUE, "exact h1"),
    ],
}  # fmt: skip
# Trajectories that prove each problem, of two; first tries that apply, of all.
PROVED = {"sft-data": (2, 2, 0, 0), "cot": (2, 0, 1, 2)}
FIRST = {"sft-data": ((4, 4), (2, 4), (0, 4), (1, 9)), "cot": ((1, 2),) * 4}


def output(thought: str, tactic: str) -> str:
    return Format("base", "cot").target(tactic, thought) if thought else f"{tactic}\n"


def stage(folder, **files) -> StageResult:
    folder.mkdir(parents=True)
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    return StageResult(folder, {})


def predicted(system: str) -> list[dict]:
    asked = [(name, split, i, known) for name, split, _, own in PROBLEMS
             for i, (_, known) in enumerate(own)]  # fmt: skip
    return [
        {"name": name, "split": split, "step": i, "output": output(*written),
         "tactic": written[1], "right": written[1] == known}
        for (name, split, i, known), written in zip(asked, WRITTEN[system], strict=True)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """Two systems of one seed."""
    root = tmp_path_factory.mktemp("hand")
    rows = [
        {
            "name": name, "split": split, "source": source, "level": "easy",
            "statement": name, "states": [s for s, _ in own],
            "proof": [t for _, t in own],
        }
        for name, split, source, own in PROBLEMS
    ]  # fmt: skip
    # c is a theorem of training with other numbers; b's first state is there a later.
    known = [("t0", "y : ℤ\nh1 : y = 17\n⊢ 4 * y = 68"), ("t1", "p : Prop\n⊢ p"),
             ("t1", GOAL)]  # fmt: skip
    data = stage(
        root / "data",
        test=rows[:3],
        novel=rows[3:],
        known=[
            {"theorem": t, "state": s, "tactic": "x", "thought": None} for t, s in known
        ],
    )
    made = {"proved": {}, "predicted": {}}
    calls = [
        {"name": "a", "state": HAND, "output": output(thought, "exact h1"),
         "tactic": "exact h1", "result": result}
        for thought, result in (
            (TRUE, "proved"), (TRUE, "illegal"), (FALSE, "illegal"), ("", "proved"),
        )
    ]  # fmt: skip
    for system in WRITTEN:
        found = [
            {"name": row["name"], "split": row["split"],
             "proved": [1] * n + [0] * (2 - n),
             "counts": {"tactics": 8, "tokens": 40, "first": own[1],
                        "first_legal": own[0]}}
            for row, n, own in zip(rows, PROVED[system], FIRST[system], strict=True)
        ]  # fmt: skip
        made["proved"][f"{system} 0"] = stage(
            root / system / "proved", outcomes=found, calls=calls
        )
        made["predicted"][f"{system} 0"] = stage(
            root / system / "predicted", predicted=predicted(system)
        )
    return Results(data, made, (0,), (1, 2))


def values(table) -> dict[str, list]:
    """{first cell: the others}, intervals by their values."""
    return {
        row[0]: [cell.value if isinstance(cell, Interval) else cell for cell in row[1:]]
        for row in table.rows
    }


# --- names, the claims in short -------------------------------------------------------


def test_every_system_has_a_short_name():
    """One of its own, and no longer than a column; rounds have their numbers."""
    assert names.SHORT.keys() == TITLES.keys()
    assert {*CONTROLS} <= {s.removeprefix("cot-") for s in TITLES}
    assert len({*names.SHORT.values()}) == len(TITLES)
    assert max(map(len, names.SHORT.values())) <= 17
    assert names.short("star-joint-2") == "STaR, joint 2"
    assert names.key(["cot", "star-joint-2"]) == [
        ["STaR, joint 2", title("star-joint-2")]
    ]


def test_every_claim_has_a_line_of_counts():
    """By the number a claim begins with; statuses in the order of `report.Status`."""
    told = [("1. a", "too noisy to tell"), ("1. b", "reproduced"),
            ("2. c", "reproduced"), ("1. d", "reproduced")]  # fmt: skip
    (table,) = summary.in_short([Verdict(*one, "") for one in told]).blocks
    assert [row[1] for row in table.rows] == [
        "2 × reproduced, 1 × too noisy to tell", "1 × reproduced", "", "", "", "",
    ]  # fmt: skip
    assert [row[0][:2] for row in table.rows] == [f"{i}." for i in range(1, 7)]


# --- shares ---------------------------------------------------------------------------


def test_shares_are_of_counts_not_means_of_shares():
    """1 of 1 and 1 of 3 is 2 of 4; a resample with none has no interval."""
    some, whole = np.array([[1.0, 1.0]]), np.array([[1.0, 3.0]])
    told = steps.ratio(some, whole, DRAWS)
    assert told == Interval(0.5, pytest.approx(1 / 3), 1.0)
    assert steps.gain(some, whole, some, whole, DRAWS) == Interval(0, 0, 0)
    assert steps.gain(whole, whole, some, whole, DRAWS).value == 50
    rare = np.array([[0.0, 2.0]])
    assert steps.ratio(rare / 2, rare, DRAWS) == 0.5
    assert steps.gain(rare, rare, rare / 2, rare, DRAWS) == 50
    assert steps.ratio(0 * rare, 0 * rare, DRAWS) is None
    assert steps.gain(rare, rare, rare, 0 * rare, DRAWS) is None


def test_first_tries_are_counted_on_the_test(results):
    """6 of 12, and 3 of 6; the novel problem is left out."""
    assert values(analysis.first_tries(results, DRAWS)) == {
        "SFT, equal data": [6 / 12, 12, pytest.approx(2 / 3)],
        "Lean-CoT": [0.5, 6, 0.5],
    }


def test_a_tactic_s_head_and_its_rest_are_told_apart(results):
    """Of four steps: SFT has all heads and three tactics, Lean-CoT three and two."""
    found = {s: steps.predictions(results, s) for s in results.systems}
    table = analysis.parts_of_tactics(results, found, DRAWS)
    assert values(table) == {
        "SFT, equal data": [1.0, 0.75, 0.75],
        "Lean-CoT": [0.75, pytest.approx(2 / 3), 0.5],
    }
    assert "Of 4 states of known proofs (held-out)" in table.note


def test_predictions_by_head_and_by_source(results, monkeypatch):
    """By what known tactics begin with, and by the kind of problem."""
    found = {s: steps.predictions(results, s) for s in results.systems}
    pair = ("cot", "sft-data")
    assert names.pairs_of(results) == [pair]
    heads = analysis.by_head(results, found, pair, DRAWS)
    assert values(heads) == {
        "exact": [2, 0.5, 0.5, 0], "intros": [1, 0, 1, -100], "rw": [1, 1, 1, 0],
    }  # fmt: skip
    monkeypatch.setattr(analysis, "HEADS", 1)
    rest = values(analysis.by_head(results, found, pair, DRAWS))
    assert rest == {"exact": [2, 0.5, 0.5, 0], "others": [2, 0.5, 1, -50]}
    proved = analysis.by_source(results, pair, "proved", results.passed, DRAWS)
    assert values(proved) == {"prop": [2, 0.5, 1, -50], "linear": [1, 1, 0, 100]}
    # Of each problem its share of steps: b has one of two by SFT, none by Lean-CoT.
    table = analysis.by_source(results, pair, "predicted", results.predicted, DRAWS)
    assert values(table) == {"prop": [2, 0.5, 0.75, -25], "linear": [1, 1, 1, 0]}


# --- thoughts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thought, state, tactic, expected",
    [
        (TRUE, HAND, "exact h1", (True, True, True, True)),
        # Of the goal, but not of this tactic: no oracle says so of rw.
        (TRUE, HAND, "rw [h1]", (True, False, False, True)),
        # In the words for it, with names that are not there.
        ("The goal is q, and h7 says the same.", HAND, "exact h1",
         (False, True, False, None)),
        # It names h2, which the tactic does not use.
        ("The goal is p, and h2 says the same.", BOTH, "exact h1",
         (True, True, False, False)),
        # A number that is nowhere, and one that is.
        ("The goal is 3 * x = 7, and h1 says the same.", PUT, "ring",
         (False, False, False, None)),
        ("The goal is 3 * x = 6, and h1 says the same.", PUT, "ring",
         (True, False, False, None)),
        # What the second goal has is not there.
        (TRUE, "q : Prop\n⊢ q\n\np : Prop\nh1 : p\n⊢ p", "exact h1",
         (False, True, False, None)),
    ],
)  # fmt: skip
def test_what_a_thought_says_is_read(thought, state, tactic, expected):
    """Against the goal before it, and the tactic behind it."""
    assert thoughts.read(thought, state, tactic) == thoughts.Reading(*expected)


@pytest.mark.parametrize("state, tactic", [own for p in PROBLEMS for own in p[3]])
def test_the_oracle_s_thoughts_are_true(state, tactic):
    """Each of its wordings for a tactic, on the goal it was made for."""
    for text in oracle.wordings(first_goal(state), tactic):
        found = thoughts.read(text, state, tactic)
        assert found.grounded and found.kind and found.true
        assert found.points is not False


def test_thoughts_are_told_with_what_follows(results):
    """Of Lean-CoT's four: two of what is there, of which one is true, and leads to the
    known tactic; the other says of p that it is q."""
    found = {s: steps.predictions(results, s) for s in results.systems}
    said = thinking.readings(results, found)
    assert [*said] == ["cot", "oracle"] and [len(x[0]) for x in said.values()] == [4, 4]
    assert values(thinking.what_thoughts_say(results, said)) == {
        "Lean-CoT": [4, 0.5, 0.5, 0.25, 1.0],
        "the oracle's own": [4, 1.0, 1.0, 1.0, 1.0],
    }
    told = values(thinking.what_is_predicted(results, said, DRAWS))
    assert told == {"Lean-CoT": [0.5, 0.5, 0]}
    # Of three tactics with a thought: two of what is there, of which one applies.
    assert values(thinking.what_follows(results)) == {
        "Lean-CoT": [3, pytest.approx(2 / 3), 0.5, 0.0]
    }


def test_the_analysis_is_told_in_sentences(results):
    """With the numbers of its tables; all of its tables have rows."""
    first, *found = analysis.analysis(results, DRAWS).blocks
    assert "apply in 50.0%" in first.text and "75.0% and 100.0%" in first.text
    assert "in 50.0% with thoughts, in 75.0% with none" in first.text
    assert "Of 4 greedy thoughts 50.0% name only what the state has" in first.text
    assert "in points: prop −50.0, linear +100.0." in first.text
    assert len(found) == 8 and all(table.rows for table in found)


# --- theorems of training, cost -------------------------------------------------------


def test_theorems_with_other_numbers_are_found(results):
    """Up to names and numbers; not where a name stands for two, or only a later
    state is the same."""
    assert familiar.pattern("x2 : ℤ\n⊢ x2 = 12") == familiar.pattern("k : ℤ\n⊢ k = 3")
    assert familiar.pattern("⊢ p ∧ q") != familiar.pattern("⊢ p ∧ p")
    assert familiar.pattern("⊢ p ∧ True") != familiar.pattern("⊢ p ∧ q")
    assert familiar.familiar(results).tolist() == [False, False, True, False]
    text, proved, gains = familiar.with_other_numbers(results, DRAWS).blocks
    assert "1 of 3 held-out problems (prop 0 of 2, linear 1 of 1); 0 of 1" in text.text
    assert [c.name for c in proved.columns[1:]] == [
        "with other numbers (1)", "the rest (2)",
    ]  # fmt: skip
    assert values(proved) == {"SFT, equal data": [0.0, 1.0], "Lean-CoT": [1.0, 0.5]}
    assert values(gains) == {"Lean-CoT − SFT, equal data": [100.0, -50.0]}
    results_of_others = Results(results.data, results.made, (0,), (1, 2), "base")
    assert familiar.with_other_numbers(results_of_others, DRAWS) is None


def test_checking_is_hidden_where_the_model_does_not_wait(tmp_path):
    """Half the time checking, a tenth waiting: four fifths are hidden."""
    results = lean_stages.results(tmp_path, {"sft": HALF, "cot": HALF})
    for name, waiting, idle in (("sft", 0.1, 0.5), ("cot", 0.0, 1.0)):
        spent = results.made["proved"][f"{name} 0"].value["throughput"]
        spent |= {"model_waiting": waiting, "environment_idle": idle}
    assert costs.hidden(results, "sft") == pytest.approx(0.8)
    assert costs.hidden(results, "cot") is None
    section = costs.costs(results, 2)
    assert [len(table.columns) <= 7 for table in section.blocks] == [True] * 3
    assert "2 stages ran at once" in section.blocks[2].note
    assert "one stage ran" in costs.costs(results, 1).blocks[2].note


def test_proofs_are_told_by_tokens_written(tmp_path):
    """20 and 80 tokens of a trajectory: one has two for 40, the other one for 80."""
    results = lean_stages.results(
        tmp_path,
        {"sft": "1" * 12, "cot": ALL},
        tokens={"sft": 20, "cot": 80},
    )
    *_, figure, table = tables.curves(results, DRAWS).blocks
    assert "tokens" in figure.alt and "SFT 20, Lean-CoT 80" in table.note
    told = {round(row[0], 6): row[1:] for row in table.rows}
    assert min(told) == 20 and max(told) == 160 and len(told) == tables.POINTS
    assert told[20] == [0.5, None] and told[160] == [None, 1.0]
    for tokens, (sft, cot) in told.items():
        # pass@1 is 1/2, pass@2 is 1: a line between.
        assert sft == (pytest.approx(tokens / 40) if tokens <= 40 else None)
        assert cot == (1.0 if tokens >= 80 else None)


def test_tables_are_no_wider_than_the_page(tmp_path):
    """At most three intervals and five columns, or seven numbers, or none but one."""
    searches = {"sft mean": HALF, "cot mean": NONE, "cot tactic": NONE}
    results = lean_stages.results(
        tmp_path, dict.fromkeys(["sft", "sft-data", "cot"], HALF), searches=searches
    )
    from research.lean_star.settings import BestFirst

    found = [
        *tables.sampling(results, DRAWS).blocks,
        *tables.curves(results, DRAWS).blocks,
        *tables.search(results, DRAWS, BestFirst(expansions=2, candidates=2)).blocks,
        *analysis.analysis(results, DRAWS).blocks,
        *costs.costs(results, 1).blocks,
    ]
    for table in (block for block in found if hasattr(block, "rows")):
        for row in table.rows:
            wide = sum(isinstance(cell, Interval) for cell in row)
            assert 2 * wide + len(row) <= 11, table.caption
            assert len(str(row[0])) < 40
