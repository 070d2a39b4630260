"""A row of preferences is the two conversations that the template encodes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import batches, eval_batches
from data.chat import load_template
from data.errors import DataError
from data.formats import Completion, Conversation, Turn
from data.pairs import ReferencedBatches, load_pairs, token_pair
from data.records import write_jsonl
from data.tokenizers import char_tokenizer

CHARS = char_tokenizer("".join(map(chr, [10, *range(32, 127)])))
GOOD = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
SAID = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes?"},
    {"role": "user", "content": "1+1"},
]


def load(path, rows, **settings):
    write_jsonl(path, rows)
    return load_pairs(path, CHARS, **{"length": 512, **settings})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.jsonl"


def same(example, other):
    return all(map(np.array_equal, example, other))


def test_texts_are_two_completions_of_one_prompt(path):
    """Equality: each side is `encode` of a completion; label, weight, offset arrive."""
    row = {**GOOD, "label": 0.75, "weight": 2, "offset": -0.5}
    (pair, plain), chat = load(path, [row, GOOD]).pairs, load_template("plain", CHARS)
    assert same(pair.chosen, chat.encode(Completion("1+1=", "2")))
    assert same(pair.rejected, chat.encode(Completion("1+1=", "3")))
    assert pair[2:] == (2.0, 0.75, -0.5) and plain[2:] == (1.0, 1.0, 0.0)
    (default,) = load(path, [GOOD], label=0.9, offset=1.5).pairs
    assert default[2:] == (1.0, 0.9, 1.5)


def test_messages_are_the_conversation_and_only_the_response_is_learned(path):
    """Equality with `encode` of the turns; earlier answers have weight 0."""
    row = {"prompt": SAID, "chosen": "2", "rejected": "3"}
    loaded = load(path, [row], template="vicuna_v1")
    turns = tuple(Turn(m["role"], m["content"]) for m in SAID)
    for text, side in zip("23", loaded.pairs[0][:2], strict=True):
        answer = Turn("assistant", text, train=True)
        expected = loaded.template.encode(Conversation((*turns, answer)))
        assert same(side, expected)
        learned = side.tokens[side.weights > 0]
        assert CHARS.decode(learned, skip_special=False).strip() == f"{text}</s>"


@pytest.mark.parametrize("preference", [1, 2, "2"])
def test_the_original_format_names_the_better_output(path, preference):
    """{"output_1", "output_2", "preference"}: the named one is chosen."""
    row = {
        "instruction": "Add.", "input": "1, 1", "output_1": "2", "output_2": "two",
        "preference": preference,
    }  # fmt: skip
    loaded = load(path, [row])
    assert (loaded.shape, loaded.template.name) == ("alpaca", "alpaca")
    texts = [CHARS.decode(s.tokens[s.weights > 0]) for s in loaded.pairs[0][:2]]
    assert texts == (["2", "two"] if preference == 1 else ["two", "2"])
    assert "### Input:\n1, 1" in CHARS.decode(loaded.pairs[0].chosen.tokens)


@pytest.mark.parametrize(
    ("row", "mentions"),
    [
        ({"prompt": "a", "chosen": "b"}, ["'rejected'"]),
        ({**GOOD, "chosen": 2}, ["chosen: expected a string, got int"]),
        ({**GOOD, "rejected": " "}, ["rejected: expected text"]),
        ({**GOOD, "rejected": "2"}, ["rejected", "the same"]),
        ({**GOOD, "prompt": 4}, ["prompt: expected a string"]),
        ({**GOOD, "prompt": []}, ["prompt: expected messages"]),
        ({**GOOD, "prompt": SAID[:2]}, ["prompt: expected messages that end"]),
        ({**GOOD, "prompt": [{"role": "usr"}]}, ["prompt[0].role", "'user'"]),
        ({**GOOD, "prompt": [{"role": "user"}]}, ["prompt[0].content: missing"]),
        ({**GOOD, "label": 1.5}, ["label: expected a number in 0 .. 1, got 1.5"]),
        ({**GOOD, "label": True}, ["label: expected a number"]),
        ({**GOOD, "weight": 0}, ["weight: expected a number above 0"]),
        ({**GOOD, "offset": "x"}, ["offset: expected a number, got 'x'"]),
        ({**GOOD, "chosen": "y" * 600}, ["tokens, more than the length of 512"]),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(path, row, mentions):
    """Line 2 of the file, the field, and what was expected; or it is skipped."""
    with pytest.raises(DataError) as error:
        load(path, [GOOD, row], template="plain")
    for mention in [f"{path}:2: ", *mentions]:
        assert mention in str(error.value)
    if isinstance(row["prompt"], str):
        loaded = load(path, [GOOD, row], template="plain", on_bad_row="skip")
        assert len(loaded.pairs) == 1
        assert [bad["line"] for bad in loaded.skipped] == [2]


def test_a_file_of_another_shape_says_which_keys_it_wants(path):
    """The first row decides; its place is named. A preference of 3 is none."""
    with pytest.raises(DataError, match=r"a.jsonl:1: expected the keys 'prompt', "):
        load(path, [{"prompt": "a", "completion": "b"}])
    row = {"instruction": "a", "output_1": "b", "output_2": "c", "preference": 3}
    with pytest.raises(DataError, match="preference: expected 1 or 2, got 3"):
        load(path, [row])


def test_long_pairs_are_cut_or_dropped(path):
    """Cut: both sides end at `length`, unless nothing is left to prefer."""
    long = {"prompt": "1+1=", "chosen": "2" + "x" * 9, "rejected": "3" + "y" * 9}
    alike = {"prompt": "1+1=", "chosen": "22222222", "rejected": "2222222223"}
    rows = [GOOD, long, alike, {**GOOD, "prompt": "1" * 20}]
    cut = load(path, rows, length=10, on_long="truncate")
    assert (len(cut.pairs), cut.truncated, cut.dropped) == (2, 1, 2)
    assert [len(s.tokens) for s in cut.pairs[1][:2]] == [10, 10]
    dropped = load(path, rows, length=10, on_long="drop")
    assert (len(dropped.pairs), dropped.truncated, dropped.dropped) == (1, 0, 3)
    with pytest.raises(DataError, match="no row fits within 3 tokens"):
        load(path, rows, length=3, on_long="truncate")
    with pytest.raises(DataError, match="on_long: expected error"):
        load(path, rows, on_long="cut")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_every_pair_keeps_its_own_reference(count, batch_size, seed, endless):
    """reference[b] is that of the pair in row b, in any order; 0 on padding rows."""
    pairs = [token_pair([1], [2, i], [3, i]) for i in range(count)]
    layout = {"batch_size": batch_size, "length": 4, "pad_id": 0}
    base = eval_batches(pairs, **layout)
    if endless:
        base = batches(pairs, **layout, seed=seed)
    reference = np.stack([np.arange(count), -np.arange(count)], 1) - 0.5
    given = ReferencedBatches(base, reference)
    for step in range(min(len(given), 3)):
        batch = given[step]
        number = batch.pairs.chosen.tokens[:, 2]
        real = batch.pairs.weights > 0
        np.testing.assert_array_equal(batch.reference[real, 0], number[real] - 0.5)
        np.testing.assert_array_equal(batch.reference[real, 1], -number[real] - 0.5)
        assert not batch.reference[~real].any()
    assert given.fingerprint == base.fingerprint


def test_hosts_share_a_batch_of_references():
    """The shares of two hosts, joined in order, are the batch of one."""
    pairs = [token_pair([1], [2, i], [3, i]) for i in range(7)]
    base = batches(pairs, batch_size=4, length=4, pad_id=0, seed=3)
    reference = np.random.default_rng(0).normal(size=(7, 2))
    whole = ReferencedBatches(base, reference)[5].reference
    shares = [ReferencedBatches(base.for_process(i, 2), reference) for i in (0, 1)]
    joined = np.concatenate([share[5].reference for share in shares])
    np.testing.assert_array_equal(joined, whole)
    with pytest.raises(DataError, match=r"reference: expected log-probs \(7, 2\)"):
        ReferencedBatches(base, reference[:6])
