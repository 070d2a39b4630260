"""Stages that look for proofs, interrupted and continued: as if nothing had happened.

Identities: files and counts of a continued stage, with a real sampler, are those of a
straight one; what is read back is what was kept.
"""

import json
from collections import Counter

import pytest
from helpers import lean_files

from data.errors import DataError
from data.records import read_records
from research.lean_star import proving, published
from research.lean_star.best_first import Node
from research.lean_star.environment import Theorem
from research.lean_star.outcomes import Call, Outcome, Proof, Step, Throughput
from research.lean_star.settings import (
    BestFirst,
    Drawn,
    Iteration,
    LeanDojo,
    MiniF2F,
    Prover,
    Sampled,
)
from research.lean_star.tried import Tried
from research.stages import StageResult

STEP = Step("⊢ p\ud835", "so\n", "h")
THEOREMS = [Theorem("a", "theorem a : p := by"), Theorem("b", "theorem b : q := by")]
NODES = (
    Node(-1, "⊢ p", "", "", 0.0, 1, False, (("x", "illegal"), ("y", "timeout"))),
    Node(0, "no goals", "so\n", "h", 0.1 + 0.2, 0, True, ()),
)
OUTCOMES = [
    Outcome(
        THEOREMS[0],
        (0, 3),
        (Proof(1, 3, (STEP, STEP)), Proof(2, 4, (STEP,))),
        Counter({"tactics": 7, "illegal/parse": 2}),
        "",
        (Call(1, "⊢ p", "so", "h", "proved", ""),),
        NODES,
    ),
    Outcome(THEOREMS[1], (0, 0), (), Counter(), "no such statement"),
]
SPENT = Throughput(1.5, 7, 90, 0.1, 0.2, 1 / 3)


def test_what_is_kept_is_read_back(tmp_path):
    """Every field, to the bit; but for the header, which may be a whole file."""
    path = tmp_path / "tried.jsonl"
    long = OUTCOMES[1]._replace(theorem=THEOREMS[1]._replace(header="import Mathlib"))
    with Tried(path, THEOREMS) as tried:
        tried.add(1, long)
        tried.spend(SPENT)
        tried.add(0, OUTCOMES[0])
        assert tried.outcomes == dict(enumerate(OUTCOMES))
    with Tried(path, THEOREMS) as again:
        assert again.outcomes == tried.outcomes
        assert again.spent == tried.spent == [Throughput(0, 0, 0, 0, 0, 0), SPENT]
        assert list(again.outcomes) == [1, 0]


@pytest.mark.parametrize("kept", [0, 1, 30])
def test_a_line_that_was_cut_off_is_written_anew(tmp_path, kept):
    """Wherever it was cut: the other lines stay, and the file is whole in the end."""
    path = tmp_path / "tried.jsonl"
    with Tried(path, THEOREMS) as tried:
        tried.add(0, OUTCOMES[0])
        first = path.stat().st_size
        tried.add(1, OUTCOMES[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: first + kept])
    with Tried(path, THEOREMS) as tried:
        assert tried.outcomes == {0: OUTCOMES[0]}
        tried.add(1, OUTCOMES[1])
    assert path.read_bytes() == whole


def test_what_is_of_other_theorems_is_refused(tmp_path):
    """With the file, the line and what is wrong; nothing is lost by that."""
    path = tmp_path / "tried.jsonl"
    with Tried(path, THEOREMS) as tried:
        tried.add(0, OUTCOMES[0])
        tried.add(1, OUTCOMES[1])
    good = path.read_text()
    for theorems, line, reason in (
        (THEOREMS[::-1], 1, "'a' in the place of 'b'"),
        (THEOREMS[:1], 2, "of one of these 1 theorems"),
    ):
        with pytest.raises(DataError, match=f"tried.jsonl:{line}: expected.*{reason}"):
            Tried(path, theorems)
    for text in ("{", "[]", "{}", '{"place": 0, "name": "a"}', '{"spent": 1}'):
        path.write_text(f"{good}{text}\n")
        with pytest.raises(DataError, match="tried.jsonl:3: expected an outcome"):
            Tried(path, THEOREMS)
        assert path.read_text() == f"{good}{text}\n"


# --- stages -------------------------------------------------------------------------

RULES = Sampled(trajectories=3, tactics=3, stop_all_on_first=False)
STAGES = {
    "prove": (proving.prove, {"sampled": RULES}, 4),
    "gather": (proving.gather, {"iteration": Iteration(RULES), "number": 1}, 4),
    "search": (
        proving.best_first_search,
        {"rules": BestFirst(expansions=3, candidates=3, beam=False), "score": "sum"},
        4,
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What all stages are given but the provers; the files that the provers read."""
    root = tmp_path_factory.mktemp("lean")
    files = lean_files.write_lean(root)
    prover = Prover(lean_files.repl(), files.project, ("Init",))
    folder = root / "data"
    folder.mkdir()
    value = published.read_theorems(
        folder,
        leandojo=LeanDojo(files.train, files.test, prover, statements=4, problems=2),
        minif2f=MiniF2F(files.minif2f, prover),
        thoughts=files.thoughts,
        seed=1,
    )
    model = lean_files.checkpoint(root / "model")
    return files, {
        "data": StageResult(folder, value), "model": str(model), "kind": "sft",
        "dtype": "float32", "seed": 3,
        # Shorter than any prompt: all are cut, and have one length.
        "drawn": Drawn(max_new_tokens=4, prompt_tokens=16, slots=4),
    }  # fmt: skip


class Interrupted(Tried):
    """Ctrl-C after so many outcomes."""

    after = 0

    def add(self, place, outcome):
        if len(self.outcomes) == self.after:
            raise KeyboardInterrupt
        super().add(place, outcome)


@pytest.mark.parametrize("name", STAGES)
def test_a_continued_stage_is_as_a_straight_one(name, given, tmp_path, monkeypatch):
    """Byte for byte, in the middle of a part as between two, with other parts."""
    files, inputs = given
    stage, more, count = STAGES[name]

    def run(folder, at_once):
        prover = Prover(
            lean_files.repl(), files.project, ("Init",), workers=1, at_once=at_once
        )
        provers = dict.fromkeys(("test", "novel", "statements"), prover)
        value = stage(folder, provers=provers, **inputs, **more)
        value.pop("throughput")
        return value

    straight, continued = tmp_path / "straight", tmp_path / "continued"
    value = run(straight, at_once=2)
    for after, at_once in ((1, 2), (2, 1)):
        monkeypatch.setattr(proving, "Tried", Interrupted)
        monkeypatch.setattr(Interrupted, "after", after)
        with pytest.raises(KeyboardInterrupt):
            run(continued, at_once)
        monkeypatch.undo()
        with (continued / "tried.jsonl").open("a") as file:
            file.write('{"place": 3, "na')
    assert run(continued, at_once=3) == value
    assert value["cut"] > 0 and value["counts"]["theorems"] == count
    tried = [r.row for r in read_records(continued / "tried.jsonl")]
    places = [row["place"] for row in tried if "place" in row]
    assert sorted(places) == list(range(count)), "none is tried twice"
    for path in straight.glob("*.jsonl"):
        if path.name != "tried.jsonl":
            assert (continued / path.name).read_bytes() == path.read_bytes()
    again = run(continued, at_once=2)
    assert again == value and len(tried) == len(lines(continued / "tried.jsonl"))


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
