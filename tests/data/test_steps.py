"""Steps are cut by one rule in text and in tokens, and carry their labels to tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.chat import load_template
from data.errors import DataError
from data.formats import Completion
from data.records import Record
from data.steps import (
    LabelledSteps,
    encode_steps,
    parse_steps,
    split_steps,
    step_ends,
    step_places,
    text_encoder,
)
from data.tokenizers import char_tokenizer, word_tokenizer

CHARS = char_tokenizer("abc.;# \n")
# Newlines come single, double, glued to text on either side, and three in one.
WORDS = word_tokenizer(["a", "b", ".", "\n", "\n\n", ".\n\n", "\n\nb", "\n\n\n", "a\n"])
TOY = {word: WORDS.special.get(word, 4 + i) for i, word in enumerate(
    ["a", "b", ".", "\n", "\n\n", ".\n\n", "\n\nb", "\n\n\n", "a\n"])}  # fmt: skip


def test_three_newlines_close_one_step():
    """Cuts are where a separator is first complete, once per run of newlines."""
    assert step_ends("a\n\n\nb\n\nc") == [3, 7]
    assert step_ends("a\n\n\n\nb\n\n") == [3, 8]
    assert step_ends("\n\n\na\n\n") == [6]
    assert step_ends("a\nb") == []
    assert step_ends("") == step_ends("\n\n\n\n") == []
    assert split_steps("a\n\n\nb\n\nc") == ("a\n\n", "\nb\n\n", "c")
    assert split_steps("a\n\n\n\n") == ("a\n\n\n\n",)
    assert split_steps("") == ()


@given(st.text("ab \n", max_size=30))
def test_split_steps_is_a_partition_with_something_in_each(text):
    """Concatenated the steps are the text; each holds text, and ends as step_ends says.

    Only a text without any step is left as one blank piece."""
    steps = split_steps(text)
    assert "".join(steps) == text
    if text.strip():
        assert all(step.strip() for step in steps)
    ends = step_ends(text)
    assert all(text[:end].endswith("\n\n") for end in ends)
    assert len(steps) - len(ends) in (0, 1)


@pytest.mark.parametrize(
    ("pieces", "places"),
    [
        (["a", "\n\n", "b", "\n\n", "a"], [1, 3]),
        (["a", "\n", "\n", "b"], [2]),  # split over two tokens
        (["a", ".\n\n", "b"], [1]),  # with the end of the step before it
        (["a", "\n\nb", "a"], [1]),  # with the start of the step behind it
        (["a", "\n\n\n", "b", "\n\n"], [1, 3]),  # three newlines in one token
        (["a", "\n", "\n", "\n", "b", "\n\n"], [2, 5]),  # three tokens of one newline
        (["a", "\n\n", "\n", "b", "\n\n"], [1, 4]),
        (["a\n", "\n", "b", "\n", "\n\nb"], [1, 4]),
        (["a", "\n\n", "\n\n", "b"], [1]),  # an empty step is no step
        (["\n\n", "a", "\n\n"], [2]),
        (["a", "\n\nb", "\n\n\n", "\n\nb", "\n\n"], [1, 2, 4]),
        ([], []),
        (["a", "\n"], []),
    ],
)
def test_places_of_each_way_to_write_a_separator(pieces, places):
    """Worked by hand: the token that holds a separator's last character."""
    ids = [TOY[piece] for piece in pieces]
    assert WORDS.decode(ids) == "".join(pieces)
    assert step_places(WORDS, ids) == places


@given(st.lists(st.sampled_from(sorted(TOY)), max_size=14))
def test_places_are_where_the_text_grows_past_an_end(pieces):
    """Equality with character offsets, whatever the segmentation; causal in the ids."""
    ids = [TOY[piece] for piece in pieces]
    ends = np.cumsum([len(piece) for piece in pieces])
    want = [int(np.searchsorted(ends, end)) for end in step_ends("".join(pieces))]
    assert step_places(WORDS, ids) == want
    half = len(ids) // 2
    assert step_places(WORDS, ids[:half]) == [p for p in want if p < half]


def test_one_token_may_complete_two_steps_and_eos_completes_none():
    """As many places as steps that end; control tokens have no text."""
    tokenizer = word_tokenizer(["a;b;", "c", ";"])
    ids = [*tokenizer.encode("a;b;c;"), tokenizer.eos_id]
    assert step_places(tokenizer, ids, ";") == [0, 0, 2]


def test_nothing_counts_behind_the_answer_marker():
    """The separator just before the marker counts, those inside and behind do not."""
    text = "a\n\nb\n\n# a\n\nc\n\n"
    ids = CHARS.encode(text)
    assert step_places(CHARS, ids, until="# a") == [2, 5]
    assert len(step_places(CHARS, ids)) == 4
    assert step_places(CHARS, ids, until="c") == [2, 5, 10]
    assert step_places(CHARS, ids, until="cc") == step_places(CHARS, ids)


def test_separators_split_over_bytes():
    """A byte-level BPE writes newlines and a Cyrillic separator as bytes and merges."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers

    from data.tokenizer_files import TokenizerFiles
    from data.tokenizers import JsonTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, "ĊĊ", ".ĊĊ", "ĊĊĊ"])}
    merges = [("Ċ", "Ċ"), (".", "ĊĊ"), ("ĊĊ", "Ċ")]
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = decoders.ByteLevel()
    files = {"tokenizer.json": backend.to_str().encode()}
    tokenizer = JsonTokenizer(TokenizerFiles("", files))
    ids = tokenizer.encode("a.\n\nb\n\n\nc\n\nd")
    assert len(ids) == 7 and step_places(tokenizer, ids) == [1, 3, 5]
    ids = tokenizer.encode("a ки b ки")
    last_bytes = [5, 12]  # each letter of the separator is two tokens
    assert step_places(tokenizer, ids, "ки") == last_bytes


def test_labels_and_weights_of_tokens():
    """Every token of a labelled step, or its last one; prompts and null weigh 0."""
    solution = LabelledSteps("ab", ("a.", "bb.", "c"), (1.0, None, 0.25))
    full = encode_steps(CHARS.encode, solution)
    assert CHARS.decode(full.tokens) == "aba.bb.c"
    np.testing.assert_array_equal(full.weights, [0, 0, 1, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(full.labels, [0, 0, 1, 1, 0, 0, 0, 0.25])
    ends = encode_steps(CHARS.encode, solution, "end")
    np.testing.assert_array_equal(ends.weights, [0, 0, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(ends.tokens, full.tokens)
    assert full.tokens.dtype == np.int32 and full.labels.dtype == np.float32
    with pytest.raises(DataError, match="no token of this solution has a label"):
        encode_steps(CHARS.encode, solution._replace(labels=(None,) * 3))
    with pytest.raises(DataError, match="labels: expected 3, one per step, got 1"):
        encode_steps(CHARS.encode, solution._replace(labels=(1.0,)))
    with pytest.raises(DataError, match="where"):
        encode_steps(CHARS.encode, solution, "start")


def test_weighed_ends_are_the_places_that_are_scored():
    """encode_steps at 'end' of split steps equals step_places, and the last token."""
    text = "a\n\n\nb.\n\nc"
    steps = split_steps(text)
    labelled = LabelledSteps("ab", steps, (1.0,) * len(steps))
    example = encode_steps(CHARS.encode, labelled, "end")
    places = [2 + place for place in step_places(CHARS, CHARS.encode(text))]
    want = [*places, len(example.tokens) - 1]
    np.testing.assert_array_equal(np.nonzero(example.weights)[0], want)


def test_prompts_have_the_ids_of_the_plain_template(tmp_path):
    """Equality with ChatTemplate.encode, BOS and the joint of prompt and answer."""
    import sentencepiece

    from data.tokenizers import load_tokenizer

    corpus = ["the sum is one.", "so the answer is two.", "add one and two"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.adds_bos
    prompt, answer = "add one\n\n", "the sum is one."
    plain = load_template("plain", tokenizer).encode(Completion(prompt, answer))
    labelled = LabelledSteps(prompt, (answer,), (1.0,))
    example = encode_steps(text_encoder(tokenizer), labelled)
    np.testing.assert_array_equal(example.tokens, plain.tokens[:-1])
    np.testing.assert_array_equal(example.weights, plain.weights[:-1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"steps": ["a"], "labels": [1]}, "prompt: expected a string, got null"),
        ({"prompt": "p", "labels": [1]}, "steps: expected a list of some, got nothing"),
        ({"prompt": "p", "steps": ["a"], "labels": 1}, "labels: expected a list"),
        ({"prompt": "p", "steps": ["a"], "labels": [1, 0]}, "labels: expected 1, one"),
        ({"prompt": "p", "steps": ["a", 3], "labels": [1, 0]}, "steps[1]: expected a"),
        ({"prompt": "p", "steps": ["a", ""], "labels": [1, 0]}, "steps[1]: expected t"),
        ({"prompt": "p", "steps": ["a"], "labels": ["+"]}, "labels[0]: expected a num"),
        (
            {"prompt": "p", "steps": ["a"], "labels": [2]},
            "labels[0]: expected a number",
        ),
        (
            {"prompt": "p", "steps": ["a"], "labels": [None]},
            "labels: expected at least",
        ),
        ({"prompt": "p", "completion": "a"}, "label: expected a number from 0 to 1"),
        ({"prompt": "p", "completion": "a", "label": float("nan")}, "label: expected"),
        ({"prompt": "p", "completion": "\ud800", "label": 1}, "completion: half of a"),
    ],
)
def test_bad_rows_name_file_line_and_field(row, message):
    """One line that says where and what was expected."""
    with pytest.raises(DataError) as error:
        parse_steps(Record(row, "x.jsonl", 7))
    assert str(error.value).startswith("x.jsonl:7: " + message)


def test_rows_of_both_shapes():
    """An outcome is one step; true and false are labels; null is none."""
    row = {"prompt": "p", "steps": ["a", "b"], "labels": [True, None]}
    assert parse_steps(Record(row, "x", 1)) == LabelledSteps("p", ("a", "b"), (1, None))
    row = {"prompt": "", "completion": "ab", "label": 0.5}
    assert parse_steps(Record(row, "x", 1)) == LabelledSteps("", ("ab",), (0.5,))
