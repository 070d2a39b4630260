"""LeanDojo, miniF2F and results of searches, read from files in their own formats."""

import json
from collections import Counter

import pytest
from helpers.entry import write_rows

from data.errors import DataError
from data.sets import lean
from data.sets.lean import HELPER, Place, Result, Step

TWO = "case left\np q : Prop\n⊢ p\n\ncase right\np q : Prop\n⊢ q"


def traced(tactic, before="p : Prop\n⊢ p", after=lean.NO_GOALS):
    """One object of `traced_tactics`, with fields that are not used here as well."""
    return {
        "tactic": tactic,
        "annotated_tactic": [tactic, []],
        "state_before": before,
        "state_after": after,
    }


def theorem(name, *steps, file="Mathlib/Logic/Basic.lean"):
    return {
        "url": "https://github.com/leanprover-community/mathlib4",
        "commit": "fe4454af900584467d21f4fd4fe951d29d9332a7",
        "file_path": file,
        "full_name": name,
        "start": [3, 1],
        "end": [5, 9],
        "traced_tactics": list(steps),
    }


ROWS = [
    theorem(
        "And.intro'",
        traced("constructor", "p q : Prop\n⊢ p ∧ q", f"2 goals\n{TWO}"),
        traced("exact hp", f"2 goals\r\n{TWO}", "case right\np q : Prop\n⊢ q"),
        traced("cases h with\n| inl h => exact h\n| inr h => exact h"),
    ),
    theorem("by_term"),
    theorem("True.intro'", traced("trivial")),
]
PROBLEM = {
    "full_name": "mathd_algebra_478",
    "statement": "theorem mathd_algebra_478 (b h v : ℝ)\n    (h₂ : b = 30) : v = 65",
    "url": "https://github.com/yangky11/miniF2F-lean4",
    "commit": "9e445f5",
    "file_path": "MiniF2F/Test.lean",
    "split": "test",
}


def dojo(tmp_path, rows=ROWS):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows))
    return path


def test_leandojo_is_read_as_it_ships(tmp_path):
    """Written out: names, places, states without a count of goals, term proofs kept."""
    found = list(lean.read_leandojo(dojo(tmp_path)))
    assert [(t.name, len(t.steps)) for t in found] == [
        ("And.intro'", 3), ("by_term", 0), ("True.intro'", 1)
    ]  # fmt: skip
    assert found[0].file == "Mathlib/Logic/Basic.lean"
    assert found[0].commit.startswith("fe4454af") and "mathlib4" in found[0].url
    first, second, _ = found[0].steps
    assert first == Step("constructor", "p q : Prop\n⊢ p ∧ q", TWO)
    assert second.before == TWO and second.after == "case right\np q : Prop\n⊢ q"
    assert found[2].steps[0].after == "no goals"


def test_a_count_of_goals_is_stripped_at_the_start_only():
    """Only as a whole first line: a hypothesis may speak of goals."""
    for state in ("no goals", "h : 2 goals\n⊢ p", "⊢ 2 goals\n", "12 goals"):
        assert lean.goals_only(state) == state
    assert lean.goals_only("12 goals\n⊢ p") == "⊢ p"


def test_every_step_is_a_pair_unless_newlines_are_dropped(tmp_path):
    """Kept: all of them, in order. Dropped and kept ones add up to all."""
    theorems = list(lean.read_leandojo(dojo(tmp_path)))
    counts = Counter()
    kept = list(lean.places(theorems, counts))
    assert [p.step for p in kept] == [s for t in theorems for s in t.steps]
    assert counts == {"theorems": 3, "steps": 4}
    counts = Counter()
    dropped = list(lean.places(theorems, counts, "drop"))
    assert dropped == [p for p in kept if "\n" not in p.step.tactic]
    assert counts["steps"] + counts["newline"] == 4 and counts["newline"] == 1
    with pytest.raises(DataError, match="newlines: expected 'keep' or 'drop'"):
        list(lean.places(theorems, counts, "skip"))


def test_selection_is_five_of_a_file_and_four_of_a_theorem():
    """Python's shuffle by the seed, as the original; its draw, less the newlines."""
    files = ["A.lean"] * 9 + ["B.lean"] * 3
    theorems = [
        lean.LeanTheorem(
            f"t{i}", file, "u", "c",
            tuple(Step(f"tac{k}" + "\n" * (k == 0), "b", "a") for k in range(6)),
        )
        for i, file in enumerate(files)
    ]  # fmt: skip
    counts = Counter()
    chosen = lean.select(theorems, counts)
    assert chosen == lean.select(theorems, Counter())
    names = {p.name for p in chosen}
    assert len(names) == 5 + 3
    # Drawn by hand, from the definition: Mersenne twister, one stream for all.
    import random

    rng, order, taken, wanted = random.Random(42), list(theorems), Counter(), []
    rng.shuffle(order)
    for t in order:
        taken[t.file] += 1
        if taken[t.file] <= 5:
            steps = list(t.steps)
            rng.shuffle(steps)
            wanted += [Place(s, t.name, t.file) for s in steps[:4]]
    assert chosen == [p for p in wanted if "\n" not in p.step.tactic]
    assert counts["steps"] + counts["newline"] == len(wanted) == 4 * 8
    assert lean.select(theorems, Counter(), newlines="keep") == wanted
    assert lean.select(theorems, Counter(), seed=43) != chosen


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (theorem("t") | {"traced_tactics": {}}, "traced_tactics: expected a list"),
        (theorem("t", "rfl"), "traced_tactics[0]: expected an object"),
        (theorem("t", traced(None)), "traced_tactics[0]: tactic: expected a string"),
        (theorem("t", traced("rfl", 3)), "state_before: expected a string"),
        (theorem("t", {"tactic": "x", "state_before": "y"}), "state_after"),
        (theorem(""), "full_name: expected text"),
        (theorem("t") | {"file_path": None}, "file_path: expected a string"),
        ("theorem", "expected an object"),
    ],
)
def test_bad_theorems_name_file_place_and_field(row, field, tmp_path):
    """Raised with the theorem's number; or given to on_bad while good ones go on."""
    path = dojo(tmp_path, [ROWS[2], row])
    with pytest.raises(DataError) as error:
        list(lean.read_leandojo(path))
    assert f"{path}:2: " in str(error.value) and field in str(error.value)
    bad = []
    assert len(list(lean.read_leandojo(path, bad.append))) == len(bad) == 1


def test_minif2f_is_read_by_split_without_helpers(tmp_path):
    """Line breaks of a statement stay; what only helps is counted, not tested."""
    rows = [
        PROBLEM,
        PROBLEM | {"full_name": "a_valid_one", "split": "valid"},
        PROBLEM | {"full_name": f"{HELPER}_of_x"},
    ]
    path, counts = write_rows(tmp_path / "minif2f.jsonl", rows), Counter()
    (found,) = lean.read_minif2f(path, "test", counts)
    assert (found.name, found.statement) == (
        PROBLEM["full_name"], PROBLEM["statement"]
    )  # fmt: skip
    assert counts == {"helpers": 1}
    assert [s.name for s in lean.read_minif2f(path, "valid", counts)] == ["a_valid_one"]
    with pytest.raises(DataError, match="split: expected one of"):
        lean.read_minif2f(path, "train", counts)
    only = write_rows(tmp_path / "one.jsonl", [PROBLEM])
    with pytest.raises(DataError, match="expected statements of the split 'valid'"):
        lean.read_minif2f(only, "valid", counts)
    for change, field in (
        ({"split": "dev"}, "split: expected one of"),
        ({"statement": 1}, "statement: expected a string"),
        ({"commit": None}, "commit: expected a string, got null"),
    ):
        bad = write_rows(tmp_path / "bad.jsonl", [PROBLEM, PROBLEM | change])
        with pytest.raises(DataError) as error:
            lean.read_minif2f(bad, "test", counts)
        assert f"{bad}:2: {field}" in str(error.value)


def test_thoughts_are_read_with_their_steps(tmp_path):
    """Every field is text; a bad row names file, line and field."""
    row = {
        "state": "⊢ p", "thought": "It is at hand.", "tactic": "exact hp",
        "full_name": "t", "file_path": "F.lean",
    }  # fmt: skip
    path = write_rows(tmp_path / "thoughts.jsonl", [row, row | {"thought": " "}])
    good = lean.Thought("⊢ p", "It is at hand.", "exact hp", "t", "F.lean")
    bad = []
    assert list(lean.read_thoughts(path, bad.append)) == [good]
    assert str(bad[0]) == f"{path}:2: thought: expected text, got an empty string"


SOLVED = {
    "theorem": "mathd_algebra_478",
    "proof": ["simp [h₂]", "norm_num"],
    "score": 0.42,
    "success": True,
    "failure_reason": "",
    "trace": [
        {"tactic": "simp [h₂]", "state_before": "⊢ v = 65"},
        {"tactic": "norm_num", "full_cot": "Now compute.", "state_before": "⊢ 65 = 65"},
    ],
    "temperature": 0.0,
    "elapsed": -3.5,
    "iteration": 1,
}
FAILED = {"theorem": "t", "success": False, "failure_reason": "DojoHardTimeoutError"}


def results(*attempts, **changes):
    found = any(a["success"] for a in attempts)
    row = {"attempt_results": list(attempts), "success": found, "example": PROBLEM}
    return {"results": [row | changes], "args": {"seed": 1926}}


def test_results_of_the_original_are_read_and_written(tmp_path):
    """Its own file, the sign of `elapsed` put right; written, it reads the same."""
    path = tmp_path / lean.results_name("internlm/plus 7b", 3)
    assert path.name == "results__internlm_plus 7b__3.json"
    path.write_text(json.dumps(results(FAILED, SOLVED), indent=4))
    (found,), args = lean.read_results(path)
    assert args == {"seed": 1926} and found.success and found.example == PROBLEM
    assert found.attempts == (FAILED, SOLVED | {"elapsed": 3.5})
    again = tmp_path / "folder" / "again.json"
    lean.write_results(again, [found], args)
    assert lean.read_results(again) == ([found], args)
    assert set(json.loads(again.read_text())["results"][0]) == {
        "attempt_results", "success", "example"
    }  # fmt: skip
    with pytest.raises(DataError, match=r"results\[0\]: success: expected whether"):
        lean.write_results(again, [Result(PROBLEM, False, (SOLVED,))], args)
    assert lean.read_results(again)[0] == [found]


@pytest.mark.parametrize(
    ("whole", "field"),
    [
        ([], "expected an object with a list of results"),
        (results() | {"args": []}, "args: expected an object"),
        (results(SOLVED, success=False), "results[0]: success"),
        (results(FAILED | {"theorem": 1}), "attempt_results[0]: theorem"),
        (results(FAILED | {"failure_reason": None}), "failure_reason: expected a str"),
        (results(SOLVED | {"elapsed": True}), "elapsed: expected a number"),
        (results(SOLVED | {"iteration": 1.5}), "iteration: expected a number"),
        (results(SOLVED | {"proof": ["ring"]}), "proof: expected the tactics of"),
        (results(SOLVED | {"trace": ["ring"]}), "trace[0]: expected an object"),
        (
            results(SOLVED | {"trace": [{"tactic": "x"}], "proof": ["x"]}),
            "trace[0]: state_before: expected a string",
        ),
    ],
)
def test_bad_results_name_file_and_field(whole, field, tmp_path):
    """Wherever the fault is, down to a step of a trace."""
    path = tmp_path / "results__m__0.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError) as error:
        lean.read_results(path)
    assert str(error.value).startswith(f"{path}: ") and field in str(error.value)
    path.write_text('{"results": [')
    with pytest.raises(DataError, match="not JSON"):
        lean.read_results(path)


def test_shards_are_contiguous_and_cover_everything():
    """As the original cuts: the last one takes the rest."""
    items = list(range(11))
    parts = [lean.shard(items, i, 4) for i in range(4)]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7, 8, 9, 10]]
    with pytest.raises(DataError, match="shard: expected between 0 and 3, got 4"):
        lean.shard(items, 4, 4)
