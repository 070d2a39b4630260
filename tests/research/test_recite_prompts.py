"""Prompts have the stated shapes, and what is kept of a text is what was said."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.worlds import encyclopedia as en
from data.worlds.sentences import sentence_tokenizer
from research.recite import documents, prompts
from research.recite.prompts import BETWEEN, PART, Item
from research.recite.retrieval import retrieve

WORLD = en.World(persons=24, towns=6, firms=4, schools=4, first_names=8)
BOOK = en.build(WORLD, 0)
TOKENIZER = sentence_tokenizer(documents.vocabulary(WORLD, 0), documents.PHRASES)
ONE, TWO = (
    Item("Who?", "Ann", ("Ann did.",), "Ann --- Life --- Paragraph #1"),
    Item(
        "Where?", "Rome", ("Ann is Bob's.", "Bob is in Rome."), "", "Bob's is in Rome."
    ),
)


def test_a_recitation_prompt_ends_where_the_passage_begins():
    text = prompts.few_shot(prompts.recitation_block, [ONE], TWO)
    first, last = text.split(BETWEEN)
    assert first.split(PART) == [
        "Question: Who?",
        prompts.RECITE,
        "Answer: Ann --- Life --- Paragraph #1\nAnn did.",
    ]
    assert last.split(PART) == ["Question: Where?", prompts.RECITE, "Answer:"]


def test_answers_have_one_prompt_with_and_without_a_context():
    """The recitation is the only difference between reciting and not."""
    plain = prompts.few_shot(prompts.answer_block, [ONE], TWO)
    assert plain == "Q: Who?\n\nA: Ann\n\n\nQ: Where?\n\nA:"
    assert (
        prompts.in_context("Text.", plain) == f"Text.{PART}{prompts.READ}{PART}{plain}"
    )


def test_two_recitations_are_cut_from_what_follows():
    prompt, target = prompts.recitations_block(TWO)
    assert prompt.endswith("Answer 1:")
    told = target + BETWEEN + "Question: Another?"
    assert prompts.cut_recitations(told) == "Ann is Bob's.\n\nBob is in Rome."
    assert prompts.first_recitation(told) == "Ann is Bob's."


@pytest.mark.parametrize(
    "text, kept",
    [
        (" The answer is Rome.\n\n\nQ: x", "Rome"),
        (" So it is. The answer is St. Moritz.", "St. Moritz"),
        (" The answer is Rome", "Rome"),
        (" Rome.", ""),
        ("", ""),
        (" The answer is A. The answer is B.", "B"),
    ],
)
def test_a_stated_answer(text, kept):
    assert prompts.cut_stated(text) == kept


def test_an_answer_is_a_line():
    assert prompts.cut_answer(" Rome\n\n\nQ: Where?") == "Rome"
    assert prompts.cut_answer("\nRome") == ""


@given(st.integers(0, 6), st.integers(20, 200))
def test_exemplars_are_in_a_prompt_whole_or_not_at_all(count, length):
    """The most of the last ones that fit, no token more."""
    items = [Item(f"q{i}" * (i + 1), "a") for i in range(count)]

    def make(some):
        return prompts.few_shot(prompts.answer_block, some, ONE)

    def encode(text):
        return list(text.encode())

    fitted = prompts.fit(encode, make, items, length)
    assert fitted.ids == encode(make(items[fitted.dropped :]))
    assert len(fitted.ids) <= length
    if fitted.dropped:
        assert len(encode(make(items[fitted.dropped - 1 :]))) > length


def test_a_question_too_long_is_refused():
    with pytest.raises(ValueError, match="over the limit of 3"):
        prompts.fit(lambda t: list(t), lambda some: "four", [], 3)


def test_the_world_says_of_everybody_what_its_questions_ask():
    """Every answer stands in the evidence; no question is asked twice."""
    assert len({q.text for q in BOOK.questions}) == len(BOOK.questions)
    for q in BOOK.questions:
        for places in q.evidence:
            text = " ".join(BOOK.passages[i].text for i in places)
            assert any(answer in text for answer in q.answers), q
        assert len(q.evidence[0]) == q.hops
        if q.hops == 2:  # the second page is named in the first, not in the question
            second = BOOK.passages[q.evidence[0][1]]
            page = second.hint.partition(" --- ")[0]
            assert page in BOOK.passages[q.evidence[0][0]].text
            assert page not in q.text
            assert q.answers[0] in q.rationale


def test_hints_name_one_passage_each_and_seeds_differ():
    hints = [p.hint for p in BOOK.passages]
    assert len(set(hints)) == len(hints)
    assert en.build(WORLD, 0) == BOOK
    assert en.build(WORLD, 1).passages[0].text != BOOK.passages[0].text


def test_persons_are_split_without_overlap():
    split = en.split(WORLD, 0)
    together = [*split.train, *split.development, *split.test]
    assert sorted(together) == list(range(WORLD.persons))
    assert len(split.train) == WORLD.persons // 2


@settings(max_examples=30)
@given(
    st.integers(0, len(BOOK.questions) - 1), st.sampled_from(list(documents.FORMATS))
)
def test_texts_of_the_world_come_back_from_their_tokens(number, kind):
    block, hops = documents.FORMATS[kind]
    question = BOOK.questions[number]
    if question.hops == hops:
        text = "".join(block(documents.as_item(BOOK, question)))
        ids = TOKENIZER.encode(text)
        assert TOKENIZER.decode(ids) == text
        assert 3 not in ids  # <unk>
        split = [
            TOKENIZER.encode(part) for part in block(documents.as_item(BOOK, question))
        ]
        assert split[0] + split[1] == ids  # learned as it is asked


def test_learned_tokens_are_the_targets_and_their_ends():
    items = [documents.as_item(BOOK, q) for q in BOOK.questions if q.hops == 1][:3]
    made = documents.list_document(TOKENIZER, prompts.answer_block, items)
    learned = made.tokens[made.weights > 0]
    expected = BETWEEN.join(f" {item.answer}" for item in items)
    assert TOKENIZER.decode(learned).split() == expected.split()
    assert learned[-1] == TOKENIZER.eos_id


def test_bm25_is_the_closed_form():
    """Lucene's BM25 with k1 0.9 and b 0.4, ranked by hand."""
    passages = ["a red fox ran", "the red red barn stood here all day", "a fox and hen"]
    docs = [p.split() for p in passages]
    mean = sum(map(len, docs)) / len(docs)

    def score(query, doc):
        total, counts = 0.0, Counter(doc)
        for word in query.split():
            df = sum(word in d for d in docs)
            idf = math.log(1 + (len(docs) - df + 0.5) / (df + 0.5))
            tf = counts[word]
            total += idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(doc) / mean))
        return total

    queries = ["red fox", "red barn", "hen", "red red", "fox ran"]
    expected = [max(range(3), key=lambda i: score(q, docs[i])) for q in queries]
    assert retrieve(passages, queries) == expected
