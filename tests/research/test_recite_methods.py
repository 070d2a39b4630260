"""What each method asks of a model, and what it makes of the texts, by a script.

The model's tokens are characters, and what it says is written here.
"""

from typing import NamedTuple

import jax
import pytest

from data.errors import DataError
from data.records import write_jsonl
from data.tokenizers import word_tokenizer
from research.recite import answering, documents, generation, hinted, methods, prompts
from research.recite.generation import Drawn
from research.recite.prompts import BETWEEN, PART, READ, Item
from research.recite.settings import Methods, Task
from research.stages import StageResult

EXEMPLAR = Item("Who?", "Ann", ("Ann did.", "Bob did."), "Ann --- Life", "Ann did.")
SETTINGS = Methods(shots=1, paths=4, counts=(1, 4), temperature=0.5, top_k=7)


class Characters:
    """A tokenizer of characters."""

    @staticmethod
    def encode(text):
        return [ord(c) for c in text]

    @staticmethod
    def decode(ids):
        return "".join(map(chr, ids))


class Letters:
    """A model of nothing but its tokenizer."""

    reads, counter, tokenizer = False, None, Characters
    encode = staticmethod(Characters.encode)

    @staticmethod
    def room(new_tokens):
        return 10**6


class Call(NamedTuple):
    """What was asked at once."""

    texts: list[str]
    drawn: Drawn
    key: object


@pytest.fixture
def scripted(monkeypatch):
    """Sets what the model says, reply(prompt, sample); returns the calls as a list."""

    def start(reply) -> list[Call]:
        calls = []

        def draw(model, ids, drawn, key=None):
            texts = [Characters.decode(row) for row in ids]
            calls.append(Call(texts, drawn, key))
            return [[reply(t, n) for n in range(drawn.samples)] for t in texts]

        monkeypatch.setattr(methods, "draw", draw)
        return calls

    return start


def asked(*questions, hops=1, exemplars=(EXEMPLAR,)) -> methods.Asked:
    task = Task("x", hops=hops)
    key = jax.random.key(0)
    return methods.Asked(Letters, task, SETTINGS, exemplars, questions, key)


def greedy(call: Call) -> bool:
    return (call.drawn.temperature, call.drawn.samples, call.key) == (0.0, 1, None)


def context_of(text: str) -> str:
    return text.partition(f"{PART}{READ}")[0]


def test_reciting_adds_the_passage_to_the_direct_prompt_and_nothing_else(scripted):
    """Recitations are drawn, answers greedy; equal passages are answered once."""
    calls = scripted(lambda text, n: " 7\n\n\nQ: more")
    direct = methods.direct(asked("A?", "B?"))
    assert greedy(calls[0]) and direct.voted == ["7", "7"]

    def reply(text, n):
        if text.endswith("Answer:"):
            return f" Passage {n % 3}.{PART}Therefore"
        return f" {context_of(text)[8]}\nmore"

    calls = scripted(reply)
    found = methods.recite(asked("A?", "B?"), 4)
    recitations, answers = calls
    assert recitations.drawn.samples == 4 and recitations.key is not None
    assert (recitations.drawn.temperature, recitations.drawn.top_k) == (0.5, 7)
    assert greedy(answers)
    assert found.recitations[0] == [f"Passage {n}." for n in (0, 1, 2, 0)]
    assert found.answers == [list("0120")] * 2 and found.voted == ["0", "0"]
    assert answers.texts == [
        prompts.in_context(f"Passage {n}.", plain)
        for plain in direct.prompts
        for n in range(3)
    ]
    assert found.prompts == recitations.texts  # which is what a reader is shown


def test_a_greedy_recitation_is_one_path(scripted):
    calls = scripted(lambda text, n: " Passage." if text.endswith("Answer:") else " x")
    found = methods.recite(asked("A?"), 0)
    assert all(map(greedy, calls))
    assert (found.recitations, found.answers) == ([["Passage."]], [["x"]])


@pytest.mark.parametrize("first_only, context", [
    (False, f"One.{PART}Two."), (True, "One."),
])  # fmt: skip
def test_two_recitations_are_one_context(scripted, first_only, context):
    def reply(text, n):
        if text.endswith("Answer 1:"):
            return f" One.{PART}Answer 2: Two.{BETWEEN}Question: else"
        return " The answer is Rome."

    calls = scripted(reply)
    found = methods.recite(asked("A?", hops=2), 2, first_only=first_only)
    assert found.voted == ["Rome"] and found.recitations == [[context] * 2]
    assert [context_of(text) for text in calls[1].texts] == [context]


def test_chains_of_thought_vote_by_what_they_state(scripted):
    """One without a statement does not vote; of equally many the shortest wins."""
    said = [" So. The answer is Rome.", " So.", " Hm. The answer is Oslo, now.", " No."]
    calls = scripted(lambda text, n: said[n] + PART)
    found = methods.chain_of_thought(asked("A?", hops=2), 4)
    assert found.answers == [["Rome", "", "Oslo, now", ""]] and found.voted == ["Rome"]
    assert "Ann did. The answer is Ann." in calls[0].texts[0]
    assert calls[0].drawn.max_new_tokens == SETTINGS.recitation_tokens


def test_different_hints_have_one_passage_each_and_one_context(scripted):
    """Hints are drawn, passages greedy; votes count a hint once, or as often."""
    said = {"A?": [" H1\nx", " H2\n", " H1", "\n"], "B?": ["", "\n", "", ""]}

    def reply(text, n):
        if text.endswith("Answer:"):
            return said["A?" if "A?" in text else "B?"][n]
        if text.endswith("\n"):
            return f" Of {text.split()[-1]}.{PART}else"
        return {"Of H1.": " one", "Of H2.": " 2", "": " none"}.get(
            context_of(text), " both"
        )

    calls = scripted(reply)
    reader = asked("A?", "B?")
    (found, lost) = methods.diversified(reader._replace(exemplars=[]), reader)
    hints, passages, together, single = calls
    assert [c.drawn.samples for c in calls] == [4, 1, 1, 1]
    assert hints.key is not None and all(map(greedy, (passages, together, single)))
    assert "Ann" not in hints.texts[0] and "Ann" in together.texts[0]
    assert found.hints == [["H1", "H2"], []] and found.counts == [[2, 1], []]
    assert passages.texts == [f"{hints.texts[0]} {h}\n" for h in ("H1", "H2")]
    assert found.passages == [["Of H1.", "Of H2."], []]
    assert [context_of(t) for t in together.texts] == [f"Of H1.{PART}Of H2.", ""]
    assert found.answers == ["both", "none"]
    assert found.by_passage == [["one", "2"], []]
    assert found.voted == ["2", ""] and found.weighted == ["one", ""]
    assert lost == {"exemplars_dropped": 0, "contexts_cut": 0}


def test_without_any_hint_there_are_no_passages(scripted):
    scripted(lambda text, n: "")
    reader = asked("A?")
    found, _ = methods.diversified(reader._replace(exemplars=[]), reader)
    assert found.hints == found.passages == found.by_passage == [[]]
    assert generation.draw(Letters, [], Drawn(4)) == []


def test_votes_of_a_hinted_model_read_passages_alone(scripted, monkeypatch, tmp_path):
    """As its diversified recitations do; what was recited is kept as it was."""
    row = {"id": "0", "question": "A?", "answers": ["x"], "type": "t",
           "evidence": ["P."], "hint": "H", "rationale": ""}  # fmt: skip
    for name in ("x", "exemplars_x"):
        write_jsonl(tmp_path / f"{name}.jsonl", [row])
    monkeypatch.setattr(answering, "open_model", lambda *args: Letters)
    told = " Town --- History --- Paragraph #1\nIt is old."

    calls = scripted(lambda text, n: told if text.endswith("Answer:") else " x")
    given = dict(task=Task("x"), settings=SETTINGS, dtype="float32", seed=0)
    data = StageResult(tmp_path, {})
    out = tmp_path / "out"
    answering.answer_hinted(out, data=data, model=data, reciter=data, **given)
    assert [context_of(text) for text in calls[1].texts] == ["It is old."]
    (found,) = answering.read_rows(StageResult(out, {}))
    assert found.recitations == [told.strip()] * 4 and found.voted == "x"


def test_a_question_without_room_is_named():
    given = asked("A?" * 300, exemplars=())
    given = given._replace(settings=Methods(length=99))
    with pytest.raises(DataError, match=r"the question 'A\?A.*over the limit of 99"):
        methods.direct(given)


PAGES = [{"hint": f"T --- {i}", "passage": f"It is {i} and so on now."} for i in (1, 2)]


@pytest.mark.parametrize("marked, kept", [
    (True, ["Is it 1?"]), (False, ["Is it 1?", "is it 2"]),
])  # fmt: skip
def test_questions_are_kept_or_counted(marked, kept):
    """Each text is kept or has one reason; a mark is asked for where others have it."""
    texts = [
        [" Is it 1?\n\nno", " is it, 1?", " It is 1 and so on now?", ""],
        [" is it 2\n", " What of the test?"],
    ]
    rows, left_out = hinted.choose(PAGES, texts, ["what of the test"], 5, marked)
    assert [row["question"] for row in rows] == kept
    assert all(row["hint"] in ("T --- 1", "T --- 2") for row in rows)
    counts = {"no question": 1 + marked, "copied": 1, "twice": 1, "of the test": 1}
    assert left_out == counts and sum(counts.values()) + len(rows) == 6


def test_long_passages_are_asked_about_by_their_beginnings(tmp_path):
    """512 bytes, as in the original; hints must be there."""
    rows = [{"hint": "T", "passage": "é" * 400}, {"hint": "U", "passage": "short"}]
    write_jsonl(tmp_path / "passages.jsonl", rows)
    found = hinted._pages(StageResult(tmp_path, {}))
    assert found == [{"hint": "T", "passage": "é" * 256}, rows[1]]
    write_jsonl(tmp_path / "passages.jsonl", [rows[0], rows[1] | {"hint": ""}])
    with pytest.raises(DataError, match=r"passages.jsonl:2: hint: expected the"):
        hinted._pages(StageResult(tmp_path, {}))


def test_documents_do_without_tokens_that_a_tokenizer_lacks():
    """Equality with those of one that has them, but for these."""
    full = word_tokenizer(["Q", "A", "x", ": ", " ", "?", "\n\n"])
    item = Item("x?", "x")

    class Bare:
        bos_id = eos_id = None
        encode = staticmethod(full.encode)

    for make in (
        lambda t: documents.list_document(t, prompts.answer_block, [item]),
        lambda t: documents.text_document(t, "x"),
    ):
        whole, bare = make(full), make(Bare)
        ends = [t for t in (full.bos_id, full.eos_id) if t is not None]
        assert [t for t in whole.tokens if t not in ends] == list(bare.tokens)
        assert len(whole.tokens) == len(bare.tokens) + len(ends) > len(bare.tokens)
        assert len(bare.weights) == len(bare.tokens)
