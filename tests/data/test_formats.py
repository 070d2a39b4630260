"""Valid rows become the turns they state; invalid ones are named by place and field."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.formats import (
    SHAPES,
    Completion,
    Conversation,
    Turn,
    detect_shape,
    parse_record,
)
from data.records import Record


def record(row):
    return Record(row, "f.jsonl", 7)


def message(role, content, **more):
    return {"role": role, "content": content, **more}


MESSAGES = {
    "messages": [
        message("system", "s"),
        message("user", "q"),
        message("assistant", "a", weight=0),
        message("user", "", name="ann"),
        message("assistant", "b"),
    ]
}
ALPACA = {"instruction": "i", "input": "c", "output": "o"}
PROMPT = {"prompt": "", "completion": "c"}


def test_messages_become_turns():
    """Roles and texts in order; the loss covers assistants whose weight is not 0."""
    assert parse_record(record(MESSAGES)) == Conversation(
        (
            Turn("system", "s"),
            Turn("user", "q"),
            Turn("assistant", "a"),
            Turn("user", ""),
            Turn("assistant", "b", train=True),
        )
    )


def test_alpaca_becomes_one_exchange():
    """The input is the user's context; missing, null and empty inputs are the same."""
    user, answer = parse_record(record(ALPACA)).turns
    assert user == Turn("user", "i", context="c") and user.full_text == "i\n\nc"
    assert answer == Turn("assistant", "o", train=True)
    bare = {"instruction": "i", "output": "o"}
    rows = [bare, {**bare, "input": None}, {**bare, "input": ""}]
    assert len({parse_record(record(row)) for row in rows}) == 1


def test_prompt_and_completion():
    """An empty prompt is fine: the row is then a text to continue from nothing."""
    assert parse_record(record(PROMPT)) == Completion("", "c")


def test_detection_finds_each_shape():
    """The shape is that of the keys, whatever else the row holds."""
    for shape, row in zip(SHAPES, (MESSAGES, ALPACA, PROMPT), strict=True):
        assert detect_shape({"id": 3, **row}, "f:1") == shape


def changed(path, value):
    row = copy.deepcopy(MESSAGES)
    *path, last = path
    target = row
    for key in path:
        target = target[key]
    target[last] = value
    return row


BAD_ROWS = [
    (changed(["messages"], []), r"messages: expected a list of messages, got an empty"),
    (changed(["messages"], "hi"), r"messages: expected a list of messages, got str"),
    (changed(["messages", 1], "hi"), r"messages\[1\]: expected an object .*got str"),
    (
        changed(["messages", 2, "role"], "asistant"),
        r"messages\[2\].role: expected one of system, .*, got 'asistant'; did you mean "
        + r"'assistant'\?",
    ),
    (
        changed(["messages", 1, "role"], ["user"]),
        r"messages\[1\].role: expected one of",
    ),
    (changed(["messages", 1, "role"], "system"), r"messages\[1\].role: 'system' only"),
    (changed(["messages", 4, "content"], None), r"messages\[4\].content: .*got null"),
    (changed(["messages", 4, "content"], [1]), r"messages\[4\].content: .*got list"),
    (changed(["messages", 4, "content"], " \n"), r"messages\[4\].content: .*empty"),
    (changed(["messages", 1, "content"], "\ud800"), r"messages\[1\].content: half of"),
    (changed(["messages", 4, "weight"], 2), r"messages\[4\].weight: expected 0 or 1"),
    (changed(["messages", 4, "weight"], 0), r"messages: every assistant .* weight 0"),
    (
        changed(["messages", 4, "role"], "user"),
        r"messages\[4\].role: expected the last",
    ),
    (
        changed(["messages", 2, "tool_calls"], [1]),
        r"messages\[2\].tool_calls: .*not sup",
    ),
    (
        changed(["messages", 1], {"role": "user", "contnet": ""}),
        r"did you mean 'contnet'",
    ),
    ({**ALPACA, "output": ""}, r"output: expected text, got an empty string"),
    ({**ALPACA, "instruction": 3}, r"instruction: expected a string, got int"),
    ({**ALPACA, "input": 3}, r"input: expected a string, got int"),
    ({**PROMPT, "completion": " "}, r"completion: expected text"),
    ({**PROMPT, "prompt": None}, r"prompt: expected a string, got null"),
    ({"mesages": []}, r"expected the keys .*\('mesages'|did you mean 'messages'"),
    ({}, r"expected the keys 'messages'"),
]


@pytest.mark.parametrize("row, message", BAD_ROWS)
def test_bad_rows_name_place_and_field(row, message):
    """Each has the file, the line, the field and what was expected."""
    with pytest.raises(DataError, match=rf"f\.jsonl:7: .*{message}"):
        parse_record(record(row))


def test_a_row_of_another_shape_is_bad():
    """With a shape given, or taken from the first row, the others must have it."""
    with pytest.raises(DataError, match=r"f.jsonl:7: expected the key 'messages'"):
        parse_record(record(ALPACA), "messages")
    with pytest.raises(DataError, match=r"shape: .*got 'alpca'; did you mean 'alpaca'"):
        parse_record(record(ALPACA), "alpca")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "weight"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
KEYS = ["messages", "instruction", "input", "output", "prompt", "completion", "x"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_row_parses_or_is_a_data_error(row):
    """No other exception, and what parses has something to learn."""
    try:
        content = parse_record(record(row))
    except DataError as error:
        assert str(error).startswith("f.jsonl:7: ")
    else:
        assert isinstance(content, Completion) or any(t.train for t in content.turns)
