"""LeanDojo and miniF2F become a miniature's files; their theorems start in a prover.

Identities: what is cut out of a file starts with the state that was traced; the traced
proof proves it; every traced step is learned, with the thought that belongs to it.
"""

import json
from pathlib import Path

import pytest
from helpers import lean_files
from helpers.lean_oracle import endpoint

from data.errors import DataError
from data.records import read_records
from research.lean_star import proving, published, sources
from research.lean_star.environment import Progress, Proved
from research.lean_star.provers import parts, theorem_of
from research.lean_star.search import Written
from research.lean_star.settings import (
    Drawn,
    Iteration,
    LeanDojo,
    MiniF2F,
    Prover,
    Sampled,
    Thoughts,
)
from research.lean_star.world import read_pairs, read_rows
from research.stages import StageResult

SOURCE = """/- Licence of a theorem. -/
import Mathlib.Logic.Basic -- with a remark
import Mathlib.Order.Basic

namespace A

/-- What a "theorem foo := by" says. /- nested -/ -/
@[simp, to_additive "theorem"]
protected theorem B.first (p : Prop := by trivial) /- := by -/ {q : Prop}
    (h : p ∧ q) : -- the goal
    p := by
  exact h.1

open Classical in
/-- By cases. -/
lemma second : let x := 3; x = 3 := by
  rfl

theorem third : True := trivial
def fourth := "theorem fifth : True := by"
"""
LINES = SOURCE.split("\n")


def between(first: str, last: str) -> sources.Cut:
    """Cut from the line that begins with `first` to the end of that with `last`."""
    start = next(i for i, line in enumerate(LINES, 1) if line.startswith(first))
    end = next(i for i, line in enumerate(LINES, 1) if line.endswith(last))
    return sources.cut(SOURCE, (start, 1), (end, len(LINES[end - 1]) + 1))


@pytest.mark.parametrize("first", ["/-- What", "@[simp", "protected"])
def test_a_theorem_is_cut_out_of_its_file(first):
    """Wherever the trace lets it begin; without what decorates or explains it."""
    found = between(first, "exact h.1")
    assert " ".join(found.statement.split()) == (
        "theorem B.first (p : Prop := by trivial) {q : Prop} (h : p ∧ q) : p"
    )
    assert SOURCE[: found.before].endswith("namespace A")
    header = sources.before(SOURCE, found.before)
    assert header.startswith("import Mathlib.Logic.Basic")
    assert header.endswith("namespace A")


@pytest.mark.parametrize("first", ["open Classical", "lemma second"])
def test_what_holds_for_one_theorem_stays_with_it(first):
    """`open ... in`, also where the trace begins behind it; `let` is no proof."""
    found = between(first, "  rfl")
    assert found.statement == ("open Classical in\nlemma second : let x := 3; x = 3")
    assert SOURCE[: found.before].endswith("exact h.1")


def test_what_cannot_be_cut_says_why():
    """A term for a proof; a text instead of a theorem; a place that is not there."""
    with pytest.raises(ValueError, match="expected a proof by tactics"):
        between("theorem third", "True := trivial")
    with pytest.raises(ValueError, match="expected a theorem or a lemma"):
        between("def fourth", ':= by"')
    for place in ((99, 1), (1, 99), (0, 1)):
        with pytest.raises(ValueError, match="expected line .* in the file"):
            sources.cut(SOURCE, place, (2, 1))


def test_comments_become_spaces():
    """As many characters and lines as before; quotes and dashes inside are theirs."""
    for text, bare in (
        ("a -- b\nc", "a     \nc"),
        ('a /- " -- -/ b', "a            b"),
        ("a /- /- -/\n-/ b", "a         \n   b"),
        ('"/-" -- x', '"/-"     '),
        ("'\"' -- \"", "'\"'     "),
        ("a /-- open", "a         "),
    ):
        assert sources.without_comments(text) == bare


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return lean_files.write_lean(tmp_path_factory.mktemp("lean"))


def dojo(files, **changes) -> LeanDojo:
    prover = Prover(lean_files.repl(), files.project, ("Init",), workers=2, at_once=3)
    given = {"train": files.train, "test": files.test, "prover": prover}
    return LeanDojo(**(given | {"statements": 3, "problems": 9} | changes))


def read(folder, files, thoughts=None, **changes) -> StageResult:
    folder.mkdir(exist_ok=True)
    given = dojo(files, **changes)
    mini = MiniF2F(files.minif2f, given.prover)
    thoughts = thoughts or files.thoughts
    made = {"leandojo": given, "minif2f": mini, "thoughts": thoughts, "seed": 1}
    return StageResult(folder, published.read_theorems(folder, **made))


@pytest.fixture(scope="module")
def data(files, tmp_path_factory):
    return read(tmp_path_factory.mktemp("data"), files)


def test_every_traced_step_is_learned_with_its_thought(data, files):
    """In the file's order; the counts are those of the files."""
    rows = json.loads(Path(files.train).read_text())
    steps = [(row["full_name"], step) for row in rows for step in row["traced_tactics"]]
    pairs = read_pairs(data)
    assert [(p.theorem, p.tactic) for p in pairs] == [
        (name, step["tactic"]) for name, step in steps
    ]
    assert all(pair.thought == lean_files.thought(pair.state) for pair in pairs)
    assert not any(pair.state.startswith("2 goals") for pair in pairs)
    known = {"known": 4, "pairs": 6, "thoughts": 6}
    assert data.value["counts"].items() >= known.items()
    assert data.value.items() >= known.items()


def test_known_proofs_are_for_the_test_alone(data):
    """Statements to try have none; nor has miniF2F; the theorems of the splits differ.

    Of four theorems three are tried, of two both are the test.
    """
    tried = read_rows(data, ("statements",))
    test, novel = (read_rows(data, (name,)) for name in ("test", "novel"))
    assert len(tried) == 3 and {row["name"] for row in tried} < {"a1", "a2", "b1", "b2"}
    assert not any(row["proof"] or row["states"] for row in [*tried, *test])
    assert [row["name"] for row in test] == ["mathd_top_test", "mathd_both_test"]
    assert {row["name"] for row in novel} == {"c1", "c2"}
    for row in novel:
        assert len(row["proof"]) == len(row["states"]) == row["steps"]
        assert row["level"] == "easy"


def test_theorems_start_as_they_were_traced_and_are_proved_by_the_trace(data, files):
    """In the prover: the first state of each is the traced one, to the letter."""
    rows = read_rows(data, ("novel",))
    provers = dict.fromkeys(("novel",), dojo(files).prover)
    (part,) = parts_of(rows, provers, check=proved_by_its_trace)
    assert len(part.theorems) == 2


def parts_of(rows, provers, check):
    """The parts, each checked while its prover lives."""
    done = []
    for part in parts(rows, provers):
        for theorem in part.theorems:
            row = next(r for r in rows if r["name"] == theorem.name)
            check(part.env, theorem, row)
        done.append(part)
    return done


def proved_by_its_trace(env, theorem, row):
    state = env.start(theorem)
    for before, tactic in zip(row["states"], row["proof"], strict=True):
        assert state.pp == before
        found = env.run(state, tactic)
        assert isinstance(found, Progress | Proved), found
        state = getattr(found, "state", state)
    assert isinstance(found, Proved) and env.verify(theorem, found.script).ok


def test_theorems_come_in_parts_of_their_splits(data, files):
    """At most three at once, in the order of the rows; splits are never mixed."""
    rows = read_rows(data, ("test", "novel", "statements"))
    prover = dojo(files).prover
    provers = dict.fromkeys(("test", "novel", "statements"), prover)
    names = [[t.name for t in part.theorems] for part in parts(rows, provers)]
    assert [len(some) for some in names] == [2, 2, 3]
    assert sum(names, []) == [row["name"] for row in rows]
    left = list(parts(rows, provers, {0, 1, 3, 4}))
    assert [part.places for part in left] == [(2,), (5, 6)]
    for part in left:
        assert [t.name for t in part.theorems] == [rows[i]["name"] for i in part.places]
    own = rows[2] | {"proof": [], "statement": "theorem t : True"}
    (part,) = parts([own] * 3, None, {1})
    assert part.places == (0, 2) and len(part.theorems) == 2
    assert list(parts([own], None, {0})) == list(parts(rows, provers, range(7))) == []
    header = theorem_of(rows[0], prover).header
    assert header.startswith("import Mathlib\nopen")
    own = theorem_of(rows[2], prover)
    assert own.header.startswith("import Init") and "Licence" not in own.header
    assert f"theorem {own.name} " not in own.header


class Told:
    """A writer of the traced tactic of every state, in the place of a model's."""

    def __init__(self, *_):
        self.codec = self.tokenizer = self

    encode = staticmethod(str.split)

    def write(self, states, rows):
        known = dict(sum((steps for _, steps in lean_files.PROOFS.values()), []))
        for i, state in enumerate(states):
            yield i, Written(f"{known[state]}\n", known[state], 2)


def test_stages_ask_lean_part_by_part(data, files, tmp_path, monkeypatch):
    """The traced tactics prove everything, in the order of the rows, one theorem after
    the other. What is gathered are the steps of the proofs."""
    monkeypatch.setattr(proving, "_writer", Told)
    one = Prover(lean_files.repl(), files.project, ("Init",), workers=1, at_once=1)
    provers = dict.fromkeys(("test", "novel", "statements"), one)
    given = {
        "data": data, "model": "x", "kind": "sft", "drawn": Drawn(), "seed": 0,
        "dtype": "float32", "provers": provers,
    }  # fmt: skip
    rules = Sampled(trajectories=2, tactics=3, stop_all_on_first=False)
    value = proving.prove(tmp_path, sampled=rules, **given)
    assert value["counts"]["solved"] == 4
    outcomes = [r.row for r in read_records(tmp_path / "outcomes.jsonl")]
    rows = read_rows(data, ("test", "novel"))
    assert [o["name"] for o in outcomes] == [row["name"] for row in rows]
    for outcome, row in zip(outcomes, rows, strict=True):
        assert len(outcome["proved"]) == 2 and all(outcome["proved"])
        if row["proof"]:
            assert [s["tactic"] for s in outcome["proof"]] == row["proof"]
    calls = {r.row["name"] for r in read_records(tmp_path / "calls.jsonl")}
    assert calls == {row["name"] for row in rows if row["split"] == "test"}
    tried = Iteration(Sampled(trajectories=2, tactics=3))
    folder = tmp_path / "gather"
    value = proving.gather(folder, iteration=tried, number=1, **given)
    assert value["yield"] == 1.0
    traced = {(p.theorem, p.state, p.tactic) for p in read_pairs(data)}
    found = [r.row for r in read_records(folder / "examples.jsonl")]
    assert {(e["theorem"], e["state"], e["tactic"]) for e in found} <= traced
    assert len(found) == value["examples"] >= 3


def test_thoughts_of_an_endpoint_are_those_of_a_file(files, tmp_path):
    """Every chosen step is asked about once; what comes of it is what the file says."""
    with endpoint() as (url, asked):
        made = published.write_thoughts(
            tmp_path, train=files.train, thoughts=Thoughts(url=url, per_file=None)
        )
        stage = StageResult(tmp_path, made)
        again = published.write_thoughts(
            tmp_path, train=files.train, thoughts=Thoughts(url=url, per_file=None)
        )
    # The two that are proved by `trivial` ask the same.
    assert len(asked) == 5 and again["counts"]["reused"] == 5
    assert made["counts"]["thoughts"] == 6
    found = read(tmp_path / "data", files, stage)
    given = read(tmp_path / "given", files)
    assert read_pairs(found) == read_pairs(given)
    with endpoint() as (url, asked):
        some = Thoughts(url=url, per_file=1, per_theorem=1, steps=1)
        folder = tmp_path / "some"
        folder.mkdir()
        made = published.write_thoughts(folder, train=files.train, thoughts=some)
        assert len(asked) == made["counts"]["thoughts"] == 1


def test_thoughts_of_other_steps_are_steps_of_their_own(files, tmp_path):
    """Nothing that was given is lost; they are counted."""
    rows = [r.row for r in read_records(files.thoughts)]
    rows.append(rows[0] | {"tactic": "exact True.intro"})
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(tmp_path / "data", files, str(path))
    assert found.value["thoughts of other steps"] == 1
    assert read_pairs(found)[-1].tactic == "exact True.intro"
    assert len(read_pairs(found)) == 7


def test_what_is_wrong_with_the_files_is_named(files, tmp_path):
    """A file that is not there, a split in the place of another, a lost source."""
    with pytest.raises(DataError, match="no.json: no such file"):
        read(tmp_path, files, train="no.json")
    with pytest.raises(DataError, match="4 theorems are in .*: expected another split"):
        read(tmp_path, files, test=files.train)
    elsewhere = Prover("repl", str(tmp_path))
    with pytest.raises(DataError, match="no theorem of statements: .* cannot be read"):
        read(tmp_path, files, prover=elsewhere)
    rows = json.loads(Path(files.train).read_text())
    for start, wanted in (([1], "expected a line and a col"), (None, "got null")):
        path = tmp_path / "bad.json"
        path.write_text(json.dumps([rows[0] | {"start": start}]))
        with pytest.raises(DataError, match=f"bad.json:1: start: .*{wanted}"):
            read(tmp_path, files, train=str(path))


def test_a_url_that_is_none_is_refused():
    """Before anything is read."""
    with pytest.raises(ValueError, match="url: expected http"):
        Thoughts(url="ftp://x")
