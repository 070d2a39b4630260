"""Ids equal those of transformers for every kind of folder, before and after export."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.tokenizers import (
    char_tokenizer,
    load_tokenizer,
    save_tokenizer,
    special_pattern,
    word_tokenizer,
)

TEXTS = [
    "",
    "hello there",
    " two  spaces\n\nand lines\t",
    "naïve café 漢字 🙂",
    "USER: 12 plus 3?</s>USER: again",
    "<|im_start|>user\nhi<|im_end|>\n",
]


def auto(folder):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def test_encode_equals_transformers(any_folder):
    """encode(control, add_special) == AutoTokenizer(text); the roles are equal too."""
    ours, theirs = load_tokenizer(any_folder), auto(any_folder)
    for text in TEXTS:
        assert (
            ours.encode(text, control=True, add_special=True) == theirs(text).input_ids
        )
    assert ours.eos_id == theirs.eos_token_id
    assert ours.bos_id == theirs.bos_token_id
    assert ours.vocab_size == len(theirs)


def test_export_loads_in_transformers_with_the_same_ids(any_folder, tmp_path):
    """load, save, AutoTokenizer == AutoTokenizer of the source."""
    save_tokenizer(load_tokenizer(any_folder), tmp_path)
    (tmp_path / "config.json").write_bytes((any_folder / "config.json").read_bytes())
    before, after = auto(any_folder), auto(tmp_path)
    for text in TEXTS:
        assert after(text).input_ids == before(text).input_ids
    assert after.chat_template == before.chat_template


def test_decode_inverts_encode(any_folder):
    """decode(encode(text)) == text, and decode equals transformers' decode."""
    tokenizer, theirs = load_tokenizer(any_folder), auto(any_folder)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        decoded = tokenizer.decode(ids, skip_special=False)
        assert decoded == theirs.decode(ids)
        # Where a leading space is put in by encode, decode takes one away.
        assert decoded.lstrip(" ") == text.lstrip(" ")
        ids = tokenizer.encode(text, control=True, add_special=True)
        assert tokenizer.decode(ids, skip_special=False) == theirs.decode(ids)


def test_text_never_becomes_a_control_token(any_folder):
    """Without control=True no id of a special token occurs, and the text survives."""
    tokenizer = load_tokenizer(any_folder)
    for spelling in tokenizer.special:
        for text in (spelling, f"a{spelling}b", f"{spelling}{spelling}"):
            for previous in (None, tokenizer.eos_id, tokenizer.encode("a")[-1]):
                ids = tokenizer.encode(text, previous=previous)
                assert not set(ids) & set(tokenizer.special.values())
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_pieces_join_as_the_whole_text(any_folder):
    """At a word boundary encode(a) + encode(b, previous) == encode(a + b)."""
    tokenizer = load_tokenizer(any_folder)
    for a, b in [("the dog", " does"), ("x:", "\nhello"), ("hello", "</s>USER: hi")]:
        first = tokenizer.encode(a, control=True)
        second = tokenizer.encode(b, control=True, previous=first[-1])
        assert first + second == tokenizer.encode(a + b, control=True)


def test_after_a_control_token_the_checkpoint_decides(any_folder):
    """encode(b, previous=eos) is what follows eos in encode(eos + b)."""
    tokenizer = load_tokenizer(any_folder)
    eos = tokenizer.special_names["eos_token"]
    whole = tokenizer.encode(f"{eos}USER: hi", control=True)
    tail = tokenizer.encode("USER: hi", control=True, previous=tokenizer.eos_id)
    assert whole == [tokenizer.eos_id, *tail]


def test_decode_takes_any_id(any_folder):
    """Ids beyond the vocabulary decode to U+FFFD and leave the rest alone."""
    tokenizer = load_tokenizer(any_folder)
    hello = tokenizer.encode("hello")
    beyond = [tokenizer.vocab_size, tokenizer.vocab_size + 9, -1]
    assert (
        tokenizer.decode([*hello, *beyond, tokenizer.eos_id]) == "hello" + "\ufffd" * 3
    )
    assert str(tokenizer.vocab_size) in tokenizer.token_text(tokenizer.vocab_size)
    assert tokenizer.token_text(hello[-1])


def test_roles_come_from_the_files(byte_bpe, metaspace):
    """A null bos_token wins over config.json; stop ids join both sources."""
    tokenizer = load_tokenizer(byte_bpe)
    assert tokenizer.bos_id is None and not tokenizer.adds_bos
    assert tokenizer.stop_ids == (2, 0) and tokenizer.pad_id == 0
    assert load_tokenizer(metaspace).adds_bos
    assert load_tokenizer(metaspace).pad_id == load_tokenizer(metaspace).eos_id


def test_added_tokens_of_a_sentencepiece_folder(sentencepiece_folder, tmp_path):
    """added_tokens.json extends the vocabulary as it does in transformers."""
    for file in sentencepiece_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 420, "<extra>": 421}')
    ours, theirs = load_tokenizer(tmp_path), auto(tmp_path)
    text = "hello<pad> there<extra>"
    assert ours.encode(text, control=True) == theirs(text).input_ids[1:]
    assert ours.vocab_size == len(theirs) == 422
    assert ours.decode([420, 421], skip_special=False) == "<pad><extra>"


def test_a_token_may_take_the_place_of_an_unused_piece(sentencepiece_folder, tmp_path):
    """By its id in tokenizer_config.json, as InternLM2 names its last pieces.

    The ids of all other texts stay; the piece is no longer spelled.
    """
    for file in sentencepiece_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = load_tokenizer(tmp_path)
    place = before.vocab_size - 1
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = {"content": "<|im_end|>", "special": True}
    config["added_tokens_decoder"] = {str(place): added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    after = load_tokenizer(tmp_path)
    assert after.vocab_size == before.vocab_size
    assert after.special["<|im_end|>"] == place
    assert after.encode("hi<|im_end|>", control=True)[-1] == place
    assert after.token_text(place) == "<|im_end|>"
    assert after.decode([place], skip_special=False) == "<|im_end|>"
    assert place not in after.encode("hi<|im_end|>")
    assert after.encode("hello there") == before.encode("hello there")


def test_split_special_tokens_option_of_transformers(byte_bpe):
    """control=False equals transformers' split_special_tokens=True."""
    ours, theirs = load_tokenizer(byte_bpe), auto(byte_bpe)
    text = "<|im_start|>user hi<|im_end|>"
    assert ours.encode(text) == theirs(text, split_special_tokens=True).input_ids


@settings(max_examples=60, deadline=None)
@given(st.text("0123456789+-*=() \n", max_size=40))
def test_char_tokenizer_is_a_bijection(text):
    """One id per character, and decode inverts encode, on the alphabet's texts."""
    ids = CHARS.encode(text)
    assert len(ids) == len(text) and CHARS.decode(ids) == text


CHARS = char_tokenizer("0123456789+-*=() \n")


def test_word_tokenizer_takes_the_longest_match():
    """Greedy longest match; unknown stretches are <unk>; ids follow the given order."""
    tokenizer = word_tokenizer(["a", "ab", "abc", " ", "="])
    assert tokenizer.encode("abc ab=a") == [6, 7, 5, 8, 4]
    assert tokenizer.encode("a??a") == [4, 3, 4]
    assert tokenizer.special == {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen3"])
def test_lexicon_folder_loads_in_transformers(tmp_path, model_type):
    """A miniature's folder gives AutoTokenizer the same ids, roles and text."""
    save_tokenizer(CHARS, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs, again = auto(tmp_path), load_tokenizer(tmp_path)
    text = "12+(3*4)= \n7"
    assert CHARS.encode(text) == again.encode(text) == theirs(text).input_ids
    assert theirs.decode(theirs(text).input_ids) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)


def test_special_pattern_of_nothing_matches_nothing():
    """No special tokens: no match anywhere."""
    assert special_pattern({}).search("any text") is None


def spoil(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        load_tokenizer(folder)
    return str(error.value)


def test_bad_folders_are_data_errors(tmp_path):
    """Whatever is wrong with a folder, the message names the file."""
    with pytest.raises(DataError, match="nowhere: expected a folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"expected a tokenizer.json or a tokenizer.model"
    ):
        load_tokenizer(tmp_path)
    assert "tokenizer.model" in spoil(tmp_path, "tokenizer.model", b"\x00junk")
    assert "tokenizer.json" in spoil(tmp_path, "tokenizer.json", b'{"model": 3}')
    assert "not UTF-8" in spoil(tmp_path, "tokenizer.json", b"\xff\xfe")
    save_tokenizer(CHARS, tmp_path)
    for bad in (b"[]", b'{"a": NaN}', b"{", b'{"chat_template": 3}'):
        assert "tokenizer_config.json" in spoil(tmp_path, "tokenizer_config.json", bad)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 30)
    | st.sampled_from(["</s>", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["0", "x", "content", "name"]), inner)
    ),
    max_leaves=4,
)
FIELDS = ["bos_token", "eos_token", "added_tokens_decoder", "chat_template", "legacy"]
FILES = {
    "tokenizer_config.json": FIELDS,
    "special_tokens_map.json": FIELDS,
    "added_tokens.json": ["x", "</s>"],
    "generation_config.json": ["eos_token_id", "bos_token_id"],
}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(FILES)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.dictionaries(st.sampled_from(FILES[name]), VALUES)
        )
    )
)
def test_any_settings_load_or_are_a_data_error(tmp_path_factory, file):
    """Whatever the small files say, loading works or names the folder."""
    folder = tmp_path_factory.getbasetemp() / "odd_tokenizer"
    save_tokenizer(CHARS, folder)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / file[0]).write_text(json.dumps(file[1]))
    try:
        tokenizer = load_tokenizer(folder)
    except DataError as error:
        assert "odd_tokenizer" in str(error)
    else:
        assert tokenizer.decode(tokenizer.encode("1+2")) == "1+2"


def test_bad_words_are_an_error():
    """Repeated, empty and special words cannot be a vocabulary."""
    for words in (["a", "a"], [""], ["</s>"]):
        with pytest.raises(DataError, match="words"):
            word_tokenizer(words)
