"""A file becomes the examples that its template encodes, one per good row."""

import json

import numpy as np
import pytest

from data.chat import load_template
from data.errors import DataError
from data.examples import load_examples
from data.formats import Completion
from data.records import write_jsonl
from data.tokenizers import char_tokenizer

CHARS = char_tokenizer("".join(map(chr, [10, *range(32, 127)])))
PROMPTS = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(12)]


@pytest.fixture
def path(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", PROMPTS)
    return tmp_path / "a.jsonl"


def test_examples_are_what_the_template_encodes(path):
    """load == [encode(row) for row in file], with the template that suits the shape."""
    loaded = load_examples(path, CHARS, length=32)
    plain = load_template("plain", CHARS)
    assert (loaded.shape, loaded.template.name) == ("prompt", "plain")
    assert loaded.skipped == []
    for row, example in zip(PROMPTS, loaded.examples, strict=True):
        for got, expected in zip(example, plain.encode(Completion(**row)), strict=True):
            assert np.array_equal(got, expected)


def test_a_chat_template_takes_prompts_as_turns(path):
    """The prompt is the user's turn, the completion the assistant's."""
    example = load_examples(path, CHARS, length=512, template="vicuna_v1").examples[0]
    text = CHARS.decode(example.tokens, skip_special=False)
    assert text.endswith("USER: 0+1= ASSISTANT: 1</s>")


def test_alpaca_rows_take_the_alpaca_template(tmp_path):
    """Without a template of the checkpoint's own."""
    write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Add.", "output": "3"}])
    loaded = load_examples(tmp_path / "a.jsonl", CHARS, length=512)
    assert (loaded.shape, loaded.template.name) == ("alpaca", "alpaca")


def test_bad_rows_of_every_cause_are_named_or_skipped(tmp_path):
    """Reader, format, template and length errors: one policy, one list of skipped."""
    good = {"messages": [{"role": "user", "content": "a"},
                         {"role": "assistant", "content": "b"}]}  # fmt: skip
    twice = {"messages": [good["messages"][0]] * 2 + [good["messages"][1]]}
    empty = {"messages": [good["messages"][0], {"role": "assistant", "content": ""}]}
    long = {
        "messages": [good["messages"][0], {"role": "assistant", "content": "b" * 999}]
    }
    rows = [good, twice, empty, {"prompt": "a", "completion": "b"}, long]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"messages": \n')
    with pytest.raises(DataError, match=r"a.jsonl:2: messages\[1\].role: template"):
        load_examples(path, CHARS, length=400, template="vicuna_v1")
    loaded = load_examples(
        path, CHARS, length=400, template="vicuna_v1", on_bad_row="skip"
    )
    assert len(loaded.examples) == 1
    assert [r["line"] for r in loaded.skipped] == [2, 3, 4, 5, 6]
    for row, cause in zip(
        loaded.skipped,
        ("messages[1].role", "messages[1].content", "key 'messages'", "tokens", "JSON"),
        strict=True,
    ):
        assert cause in row["reason"]


def test_long_rows_are_cut_on_request(path):
    """on_long names what happens; a file with nothing left to learn is an error."""
    cut = load_examples(path, CHARS, length=5, on_long="truncate")
    # "0+1=1" loses its EOS; "10+1=11" has no learned token within five and is dropped.
    assert (len(cut.examples), cut.truncated, cut.dropped) == (10, 10, 2)
    with pytest.raises(
        DataError, match=r"a.jsonl:1: 6 tokens, more than the length of 5"
    ):
        load_examples(path, CHARS, length=5)
    with pytest.raises(DataError, match="no row has a learned token within 4 tokens"):
        load_examples(path, CHARS, length=4, on_long="truncate")


def test_messages_need_a_template(tmp_path):
    """Conversations have no obvious template, so one has to be named."""
    rows = [{"messages": [{"role": "assistant", "content": "b"}]}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match="template: this checkpoint has no chat template"
    ):
        load_examples(tmp_path / "a.jsonl", CHARS, length=8)


def test_a_file_of_no_known_shape_is_an_error(tmp_path):
    """With either policy."""
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    for policy, message in (("error", "a.jsonl:1: expected the keys"),
                            ("skip", "at least one row of a known shape")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            load_examples(tmp_path / "a.jsonl", CHARS, length=8, on_bad_row=policy)
