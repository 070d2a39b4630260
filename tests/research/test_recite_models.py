"""Prompts of decoders and of UL2, and what is kept of their texts."""

import dataclasses

import numpy as np
import pytest
from helpers import qa_files
from helpers.devices import run_on_devices
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data.errors import DataError
from data.records import read_records
from research.recite import methods, prompts
from research.recite.generation import Checkpoint, Drawn, draw, open_model
from research.recite.prompts import Item
from research.recite.published import EXEMPLARS
from research.recite.settings import Methods, Task

PROMPT = "Q: where is Town 3?\n\nA: no\n\n\nQ: which\n\nA:"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "decoder": qa_files.opt_checkpoint(root / "decoder"),
        "ul2": qa_files.t5_checkpoint(root / "ul2"),
    }


def library(folder) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("mode, name", [("R", "[NLU]"), ("S", "[S2S]"), ("X", "[NLG]")])
def test_a_source_of_ul2_is_the_library_s(folders, mode, name):
    """Its ids are those of the whole text, mode and sentinel and all."""
    model = open_model(Checkpoint(str(folders["ul2"]), mode), "float32")
    expected = library(folders["ul2"]).encode(f"{name} {PROMPT} <extra_id_0>").ids
    assert model.encode(PROMPT) == expected
    assert expected[-2:] == [model.tokenizer.special["<extra_id_0>"], 1]


def test_without_a_mode_a_source_is_the_text(folders):
    model = open_model(Checkpoint(str(folders["ul2"])), "float32")
    assert model.encode(PROMPT) == library(folders["ul2"]).encode(PROMPT).ids


def test_a_decoder_s_prompt_starts_with_its_bos(folders):
    model = open_model(Checkpoint(str(folders["decoder"])), "float32")
    plain = library(folders["decoder"]).encode(PROMPT).ids
    assert model.encode(PROMPT) == [model.tokenizer.bos_id, *plain]
    assert model.tokenizer.bos_id == 2
    with pytest.raises(DataError, match="a decoder has no modes"):
        open_model(Checkpoint(str(folders["decoder"]), "S"), "float32")


def test_a_response_loses_its_sentinels(folders):
    """The leading one, and from the next one on."""
    model = open_model(Checkpoint(str(folders["ul2"]), "S"), "float32")
    told = library(folders["ul2"]).encode("<extra_id_0> the old bridge").ids[:-1]
    assert model.text(told) == "the old bridge"
    spelled = model._replace(tokenizer=_Spelled())
    assert spelled.text("<extra_id_0> one <extra_id_1> two") == "one"


class _Spelled:
    """A tokenizer whose sentinels are words."""

    def encode(self, text):
        return text

    def decode(self, ids):
        return ids


def exemplars(hops: int) -> list[Item]:
    rows = read_records(EXEMPLARS / f"{'one' if hops == 1 else 'two'}_hop.jsonl")
    return [
        Item(r["question"], r["answers"][0], tuple(r["evidence"]), r["hint"],
             r["rationale"])
        for r in (record.row for record in rows)
    ]  # fmt: skip


@pytest.mark.parametrize("block, cut, hops", [
    (prompts.answer_block, prompts.cut_answer, 1),
    (prompts.recitation_block, prompts.cut_recitation, 1),
    (prompts.stated_block, prompts.cut_stated, 2),
    (prompts.reasoned_block, prompts.cut_stated, 2),
    (prompts.recitations_block, prompts.cut_recitations, 2),
    (prompts.recitations_block, prompts.first_recitation, 2),
])  # fmt: skip
def test_without_line_breaks_texts_are_cut_at_the_same_places(block, cut, hops):
    """Equality, but for white space, with the text of a model that has them."""
    first, *others = exemplars(hops)
    text = block(first)[1] + prompts.BETWEEN + prompts.few_shot(block, others, first)
    flat = " ".join(text.split())
    assert cut(prompts.with_lines(flat)).split() == cut(text).split()
    assert cut(text)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=12), st.integers(0, 40))
def test_a_context_keeps_the_most_words_that_fit(words, most):
    """Equality with trying every number of words."""
    context = " ".join(words)
    starts = [" ".join(words[:n]) for n in range(len(words) + 1)]
    found = prompts.cut_to_fit(context, lambda text: len(text) <= most)
    assert found == max((x for x in starts if len(x) <= most), key=len)


def asked(folders, which, length, **changes):
    checkpoint = Checkpoint(str(folders[which]), **changes)
    return methods.Asked(
        open_model(checkpoint, "float32"),
        Task("x"),
        Methods(length=length, recitation_tokens=4, answer_tokens=4),
        exemplars(1),
        ["Which river runs through Town 3?", "when was the bridge built"],
        None,
    )


@pytest.mark.parametrize("length", [60, 150, 400])
def test_lengths_are_counted_by_the_counter(folders, length):
    """As many exemplars as fit by its tokens, which are not the model's own."""
    given = asked(folders, "ul2", length, mode="S", counter=str(folders["decoder"]))
    count = library(folders["decoder"]).encode
    found = methods._prompts(given, prompts.answer_block)
    dropped = 0
    for ids, question in zip(found.ids, given.questions, strict=True):
        texts = [
            prompts.few_shot(
                prompts.answer_block, given.exemplars[n:], Item(question, "")
            )
            for n in range(len(given.exemplars) + 1)
        ]
        fitting = next(n for n, x in enumerate(texts) if len(count(x).ids) <= length)
        assert ids == given.model.encode(texts[fitting])
        dropped += fitting
    assert found.dropped == dropped and (dropped > 0) == (length < 400)


def test_a_long_context_makes_room_for_the_exemplars(folders):
    """It loses its end; the exemplars that fit without it stay, and nothing is over."""
    given = asked(folders, "decoder", 400)
    alone = methods._prompts(given, prompts.answer_block)
    long, short = "It is an old town. " * 200, "It is an old town."
    found = methods._prompts(given, prompts.answer_block, [long, short])
    assert (found.dropped, found.cut) == (alone.dropped, 1)
    assert max(map(len, found.ids)) <= 400 < len(given.model.encode(long))
    text = given.model.tokenizer.decode(found.ids[0])
    kept, _, rest = text.partition(f"{prompts.PART}{prompts.READ}{prompts.PART}")
    assert long.startswith(kept) and len(kept) > 100
    assert rest == given.model.tokenizer.decode(alone.ids[0])


def test_texts_are_drawn_from_a_source(folders):
    """Greedy texts do not depend on the slots; as many as are asked for."""
    model = open_model(Checkpoint(str(folders["ul2"]), "S"), "float32")
    ids = [model.encode(f"{PROMPT} {i}") for i in range(3)]
    drawn = Drawn(5, stop=(prompts.PART,))
    found = draw(model, ids, drawn)
    assert [len(row) for row in found] == [1, 1, 1]
    assert draw(model, ids, dataclasses.replace(drawn, slots=2)) == found


@pytest.mark.slow
def test_spread_over_devices_responses_are_the_same(folders):
    """Equality of tokens; keys of sources are split by rows, and by heads."""
    found = run_on_devices(4, "spread_t5.py", folders["ul2"])
    for name, share in (("tensor", 1 / 4), ("fsdp", 1 / 4)):
        assert found[name]["tokens"] == found["one"]["tokens"]
        np.testing.assert_allclose(
            found[name]["log_probs"], found["one"]["log_probs"], atol=1e-5
        )
        assert (found["one"]["share"], found[name]["share"]) == (1, share)
