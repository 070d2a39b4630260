"""Chapter 7's texts, against strings written by hand; thoughts of an endpoint."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.sets.lean import Place, Step
from research.lean_star import retrospect
from research.lean_star.formats import Format, few_shot, row
from research.lean_star.oracle_endpoint import (
    Endpoint,
    EndpointError,
    EndpointOracle,
    paired,
)

STATE = "p : Prop\nhp : p\n⊢ p"
THOUGHT = "We must show p. It is among the hypotheses."
FORMS = [Format(era, kind) for era in ("base", "plus") for kind in ("sft", "cot")]
PROMPTS = {
    ("base", "sft"): """Tactic state:
---
p : Prop
hp : p
⊢ p
---
Next tactic:
---
""",
    ("base", "cot"): """Tactic state:
---
p : Prop
hp : p
⊢ p
---
Reasoning:
---
""",
    ("plus", "sft"): """<|im_start|>user
My LEAN 4 state is:
```lean
p : Prop
hp : p
⊢ p```
Please predict a possible tactic to help me prove the theorem.<|im_end|>
<|im_start|>assistant
""",
    ("plus", "cot"): (
        "<|im_start|>user\nMy LEAN 4 state is:\n```lean\np : Prop\nhp : p\n⊢ p```\n"
        "Please write down the reasoning that leads to the possible next tactic and "
        "then predict the tactic to help me prove the theorem.<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
}
TARGETS = {
    ("base", "sft"): "exact hp\n",
    ("base", "cot"): """We must show p. It is among the hypotheses.
---
Next tactic:
---
```lean4
exact hp
```
---""",
    ("plus", "sft"): """Here is the predicted next tactic:
```lean
exact hp
```<|im_end|>""",
    ("plus", "cot"): """We must show p. It is among the hypotheses.

Here is the predicted next tactic:
```lean
exact hp
```<|im_end|>""",
}


def thought_for(form):
    return THOUGHT if form.kind == "cot" else None


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_prompts_and_targets_are_the_original_texts(form):
    """Character by character, and both directions: what is written can be read."""
    assert form.prompt(STATE) == PROMPTS[form.era, form.kind]
    target = form.target("exact hp", thought_for(form))
    assert target == TARGETS[form.era, form.kind]
    assert form.tactic(target) == "exact hp"
    assert form.thought(target) == (thought_for(form) or "")
    assert row(form, STATE, "exact hp", thought_for(form)) == {
        "prompt": form.prompt(STATE), "completion": target
    }  # fmt: skip
    assert any(target.endswith(stop) for stop in form.stops)
    assert not any(target[:-1].endswith(stop) for stop in form.stops)


def test_the_few_shot_prompt_is_examples_and_a_prompt():
    """Each example closes with a rule and a blank line."""
    assert few_shot((("⊢ True", "trivial"),), STATE) == (
        "Tactic state:\n---\n⊢ True\n---\nNext tactic:\n---\ntrivial\n---\n\n"
        + PROMPTS["base", "sft"]
    )


def test_a_thought_belongs_to_cot_alone():
    """Missing or superfluous, it is an error that says so; as is an unknown form."""
    for form in FORMS:
        with pytest.raises(ValueError, match="expected (a|no) thought"):
            form.target("rfl", None if form.kind == "cot" else THOUGHT)
    for era, kind in (("early", "sft"), ("base", "star")):
        with pytest.raises(ValueError, match="expected one of"):
            Format(era, kind)


@pytest.mark.parametrize(
    ("era", "output", "tactic"),
    [
        ("plus", "A.\n```lean\nrfl\n```\nNo:\n```lean\nsimp\n```", "simp"),
        ("plus", "A.\n```lean\nexact h", "exact h"),
        ("plus", "```lean\nexact h --- so\n```", "exact h"),
        ("plus", "simp", "simp"),
        ("plus", "We simplify.\nsimp", "We simplify.\nsimp"),
        ("plus", "```lean4\nsimp\n```", ""),
        ("base", "A.\n---\nNext tactic:\n---\n```lean4\n  rw [h]\n```\n---", "rw [h]"),
        ("base", "A.\n---\n```lean4\nrw [h", "rw [h"),
        ("base", "...```lean4\nsimp\n---\nfoo\n```", "simp"),
        ("base", "No fence here.", "No fence here."),
    ],
)
def test_the_tactic_is_in_the_last_fence(era, output, tactic):
    """Up to its end, or the text's; without one the output is its own bad tactic."""
    assert Format(era, "cot").tactic(output) == tactic


def test_base_sft_ends_at_a_line_break():
    """Sampling stops there; targets of several lines are learned as in the original."""
    form = Format("base", "sft")
    assert form.tactic("exact h\nsimp") == "exact h"
    assert form.tactic("exact h --- so") == "exact h"
    assert form.target("cases h with\n| inl h => rfl") == (
        "cases h with\n| inl h => rfl\n"
    )


@given(
    st.sampled_from(FORMS),
    st.text("abc h₁⟨⟩,.:=-\n", min_size=1).map(str.strip).filter(bool),
    st.text("ab.\n -`", min_size=1).map(str.strip).filter(bool),
)
def test_a_target_gives_its_tactic_back_or_is_refused(form, tactic, thought):
    """Any text: one line comes back whole; only fences and rules cannot be written."""
    try:
        target = form.target(tactic, thought if form.kind == "cot" else None)
    except ValueError:
        assert "---" in tactic or "`" in tactic
    else:
        lines = (form.era, form.kind) != ("base", "sft")
        first = tactic.split("\n")[0].split("---")[0].strip()
        assert form.tactic(target) == (tactic if lines else first)


def test_own_outputs_are_targets_word_for_word():
    """With the end of the turn once, whether sampling kept it or not."""
    for form in FORMS:
        target = form.target("exact hp", thought_for(form))
        assert form.own(target) == target
    assert Format("plus", "cot").own("Hm. ```lean\nx\n```") == (
        "Hm. ```lean\nx\n```<|im_end|>"
    )
    assert Format("base", "sft").own("rfl") == "rfl\n"


def test_the_retrospective_prompt_has_its_structure():
    """Role, one example, three jobs, four principles, three headings, then the step."""
    text = retrospect.prompt("⊢ a = a", "rfl")
    places = [
        text.index(part)
        for part in ("professional mathematician", "Given Theorem:", "three jobs",
                     "four principles", "Write nothing but", "your turn", "⊢ a = a")
    ]  # fmt: skip
    assert places == sorted(places)
    for mark, n in (
        ("Given Theorem:", 2),
        ("Given Tactic:", 2),
        ("1. ", 2),
        ("4. ", 1),
    ):
        assert text.count(mark) == n
    assert all(text.count(heading) == 2 for heading in retrospect.HEADINGS)
    assert text.endswith("Given Tactic:\n```lean4\nrfl\n```")
    # The example keeps its own rules, and can be parsed.
    example = text[text.index("Assistant Output:") : text.index("You have three jobs")]
    answer = retrospect.parse(example)
    assert answer.tactic == "exact hst hx"
    assert retrospect.refused(answer.reasoning, answer.tactic) is None
    assert retrospect.refused(answer.planning, answer.tactic) == "mentions_tactic"


def written(reasoning, tactic):
    return (
        f"### PLANNING OF REASONING\nIt is `{tactic}`, but not in the hindsight format."
        f"\n\n### REASONING\n{reasoning}\n\n### TACTIC\n```lean4\n{tactic}\n```\n"
    )


def test_answers_are_parsed_by_their_headings():
    """However they are decorated; a missing, doubled or disordered one is an error."""
    good = written("First.\n\nThen.", "rw [h]")
    assert retrospect.parse(good) == (
        "It is `rw [h]`, but not in the hindsight format.", "First.\n\nThen.", "rw [h]"
    )  # fmt: skip
    loose = good.replace("### REASONING", "**Reasoning:**").replace("```lean4", "```")
    assert retrospect.parse(loose) == retrospect.parse(good)
    assert retrospect.parse(
        good.replace("```lean4\n", "").replace("```", "")
    ).tactic == ("rw [h]")
    for bad in ("", "rw [h]", good.replace("### TACTIC", ""), good + "### TACTIC\nrfl"):
        with pytest.raises(DataError, match="expected the headings"):
            retrospect.parse(bad)


@pytest.mark.parametrize(
    ("thought", "tactic", "reason"),
    [
        ("Both sides agree.", "rfl", None),
        ("So rfl does it.", "rfl", "mentions_tactic"),
        ("We simplify.", "simp", None),
        ("We use `exact\n hp`.", "exact hp", "mentions_tactic"),
        ("We need exactly hp.", "exact hp", None),
        ("With rw [h], done", "rw [h]", "mentions_tactic"),
        (" ", "rfl", "no_thought"),
        (None, "rfl", "no_thought"),
    ],
)
def test_a_thought_does_not_contain_its_tactic(thought, tactic, reason):
    """As words, however spaced; a part of a longer word is another word."""
    assert retrospect.refused(thought, tactic) == reason


def place(tactic, state=STATE):
    return Place(Step(tactic, state, "no goals"), "t", "F.lean")


def test_annotation_drops_newlines_before_the_oracle_is_asked():
    """What is asked is dropped or kept, each counted; rows hold the given tactic."""
    seen = []

    def oracle(steps):
        seen.extend(steps)
        return [None if t == "rfl" else f"Think. {t if t == 'ring' else ''}"
                for _, t in steps]  # fmt: skip

    counts = Counter()
    tactics = ("exact hp", "a\nb", "rfl", "ring")
    rows = retrospect.annotate(oracle, map(place, tactics), counts)
    assert [t for _, t in seen] == ["exact hp", "rfl", "ring"]
    assert rows == [
        {"state": STATE, "thought": "Think.", "tactic": "exact hp",
         "full_name": "t", "file_path": "F.lean"}
    ]  # fmt: skip
    assert counts == {
        "asked": 3, "newline": 1, "no_thought": 1, "mentions_tactic": 1, "kept": 1
    }  # fmt: skip


class Server:
    """An endpoint with scripted answers: (status, body) by the tactic asked for."""

    def __init__(self):
        self.asked, self.scripts, self.headers = [], {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][1]["content"]
                tactic = text.rsplit("```lean4\n", 1)[1].removesuffix("\n```")
                outer.asked.append(body)
                outer.headers.append(dict(self.headers))
                script = outer.scripts.get(tactic, [])
                status, answer = script.pop(0) if script else (200, None)
                if answer is None:
                    answer = written("It is at hand.", tactic)
                said = {"choices": [{"message": {"content": answer}}]}
                data = (
                    answer if isinstance(answer, bytes) else json.dumps(said).encode()
                )
                self.send_response(status)
                self.send_header("Retry-After", "7")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,)).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def ask(server, folder, *tactics, sleep=lambda s: None, **fields):
    fields = {"parallel": 1} | fields
    oracle = EndpointOracle(Endpoint(server.url, "gpt", **fields), folder, sleep)
    return oracle([(STATE, t) for t in tactics]), oracle.counts


def test_the_endpoint_is_asked_as_the_original_asks(server, tmp_path, monkeypatch):
    """Parameters, messages and key as given; the whole reply is kept."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    thoughts, counts = ask(server, tmp_path, "exact hp")
    assert thoughts == ["It is at hand."] and counts["answered"] == 1
    (body,) = server.asked
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.95, 800)
    assert body["messages"] == retrospect.messages(STATE, "exact hp")
    assert server.headers[0]["Authorization"] == "Bearer secret"
    kept = (tmp_path / "raw.jsonl").read_text()
    assert "secret" not in kept
    assert json.loads(kept)["state"] == STATE and "choices" in json.loads(kept)["reply"]


def test_answers_are_retried_refused_or_given_up(server, tmp_path):
    """Busy and broken: again, after growing pauses. A bad question: only that one."""
    pauses = []
    server.scripts = {
        "a": [(500, b"{}"), (429, b""), (200, b"half an ans")],
        "b": [(400, b"content filter")],
        "c": [(503, b"")] * 5,
        "d": [(200, "no headings")],
        "e": [(200, written("For another.", "rfl"))],
    }
    thoughts, counts = ask(server, tmp_path, *"abcde", "f", sleep=pauses.append)
    assert thoughts == ["It is at hand.", None, None, None, None, "It is at hand."]
    assert counts == {
        "reused": 0, "answered": 4, "refused": 1, "gave_up": 1, "retries": 8,
        "no_answer": 2, "unreadable": 1, "other_tactic": 1,
    }  # fmt: skip
    assert pauses[:3] == [7.0, 7.0, 4.0]  # what the server asks for, or 2**n seconds
    n = len(server.asked)
    thoughts, counts = ask(server, tmp_path, *"abcde", "f")
    assert thoughts[2] == "It is at hand." and len(server.asked) == n + 1
    assert counts["reused"] == 5


def test_a_run_that_was_cut_short_continues(server, tmp_path):
    """Half a line is taken away and asked for again; the rest is not."""
    ask(server, tmp_path, "a", "b")
    path = tmp_path / "raw.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    n = len(server.asked)
    thoughts, counts = ask(server, tmp_path, "a", "b", "c", parallel=4)
    assert thoughts == ["It is at hand."] * 3
    assert len(server.asked) == n + 2 and counts["reused"] == 1
    assert len(path.read_text().splitlines()) == 3
    path.write_text(path.read_text() + '{"key": 1}\n')
    with pytest.raises(DataError, match=r"raw.jsonl:4: expected an answer"):
        ask(server, tmp_path, "a")


def test_what_cannot_be_asked_ends_the_run(server, tmp_path):
    """A wrong key at once; silence after `patience` questions; nothing is lost."""
    server.scripts["b"] = [(401, b"bad key")]
    with pytest.raises(EndpointError, match="401 .*bad key"):
        ask(server, tmp_path, "a", "b")
    assert len((tmp_path / "raw.jsonl").read_text().splitlines()) == 1
    server.scripts |= {t: [(500, b"")] * 9 for t in "cde"}
    with pytest.raises(EndpointError, match="no answer to 3 questions in a row"):
        ask(server, tmp_path, *"cde", patience=3, tries=2)
    for field, value in (("url", "ftp://x"), ("tries", 0)):
        with pytest.raises(ValueError, match=f"{field}: expected"):
            Endpoint(**{"url": "http://x", "model": "m", field: value})


def test_surrogates_are_paired_before_they_are_sent():
    """Two halves become the character that they mean; half of one is an error."""
    assert paired("\ud835\udd5c : ℝ") == "𝕜 : ℝ"
    with pytest.raises(DataError, match="half of a surrogate pair"):
        paired("\ud835 : ℝ")
