"""What the miniature's model learns from says what it should, and only that."""

import numpy as np
import pytest

from data.worlds import encyclopedia
from data.worlds.encyclopedia import World
from data.worlds.sentences import sentence_tokenizer
from research.recite import documents, prompts
from research.recite.documents import Throwaway

WORLD = World(
    persons=12, towns=4, firms=3, schools=3, medals=3, rivers=3, countries=3,
    first_names=5, paraphrases=2,
)  # fmt: skip
SEED, COUNT = 3, 48


@pytest.fixture(scope="module")
def made():
    """(tokenizer, exemplars of one hop, of two, readings as texts and weights)."""
    texts = documents.vocabulary(WORLD, SEED)
    tokenizer = sentence_tokenizer(texts, documents.PHRASES)
    book = encyclopedia.build(WORLD, SEED)
    by_hops = {1: [], 2: []}
    for question in book.questions:
        item = documents.as_item(book, question)._replace(hint="")
        by_hops[question.hops].append(item)

    def read(kinds, longest=3, weight=0.25):
        wanted = Throwaway(readings=COUNT, answers=3, weight=weight)
        rng = np.random.default_rng(0)
        return documents.reading(
            tokenizer, WORLD, SEED, by_hops[1], by_hops[2], wanted, longest, rng, kinds
        )

    return tokenizer, by_hops, read


def learned(tokenizer, document):
    """The texts that are learned whole, in order."""
    parts, last = [], False
    for token, weight in zip(document.tokens, document.weights, strict=True):
        if weight == 1.0:
            parts = parts if last else [*parts, []]
            parts[-1].append(int(token))
        last = weight == 1.0
    return [tokenizer.decode(part) for part in parts]


def test_what_is_learned_of_a_reading_stands_in_its_context(made):
    tokenizer, _, read = made
    several = 0
    for i, document in enumerate(read(4)):
        context, _, rest = tokenizer.decode(document.tokens).partition(prompts.READ)
        targets = learned(tokenizer, document)
        several += len(targets) > 1
        for target in targets:
            target = target.replace("</s>", "").strip()
            answer = prompts.cut_stated(target) if i % 4 == 1 else target
            assert answer and answer in context, (i, target, context)
            assert (answer.count(" ") > 3) == (i % 4 == 3)  # a passage, or a word
        asked = rest.count("Question:" if i % 4 == 3 else "Q:")
        assert asked >= len(targets)
    assert several > COUNT // 4


def test_all_else_of_a_reading_has_the_weight_of_contexts(made):
    _, _, read = made
    for weight in (0.0, 0.15):
        for document in read(4, weight=weight):
            values = set(document.weights.tolist())
            assert values == {float(np.float32(weight)), 1.0}
            assert document.weights[-1] == 1.0  # its end


def test_the_first_kind_alone_is_one_passage_without_exemplars(made):
    tokenizer, _, read = made
    for document in read(1, longest=1):
        context, _, rest = tokenizer.decode(document.tokens).partition(prompts.READ)
        assert context.strip().count(prompts.PART) == 0
        assert rest.count("Q:") == len(learned(tokenizer, document))


def test_exemplars_of_a_reading_are_not_of_its_pages(made):
    """They are of the encyclopedia itself, whose pages are not in the context."""
    tokenizer, by_hops, read = made
    known = {item.question for items in by_hops.values() for item in items}
    seen = 0
    for document in read(4):
        _, _, rest = tokenizer.decode(document.tokens).partition(prompts.READ)
        asked = [q.partition("\n")[0].strip() for q in rest.split("Q:")[1:]]
        exemplars = asked[: len(asked) - len(learned(tokenizer, document))]
        if not rest.count("Question:"):
            seen += len(exemplars)
            assert set(exemplars) <= known
    assert seen


def test_the_first_phase_is_passages_and_the_simplest_reading(made):
    """Repeated in each pass, and nothing of the questions that are asked."""
    tokenizer, _, _ = made
    book = encyclopedia.build(WORLD, SEED)
    passages = {tuple(d.tokens.tolist()) for d in documents.passages(tokenizer, book)}
    sizes = {}
    for formats in (False, True):
        corpus = documents.corpus(
            tokenizer, book, WORLD, SEED, book.questions, rounds=2, repeats=3,
            throwaway=Throwaway(8, 2, 0.1), formats=formats, longest=2,
        )  # fmt: skip
        plain = [d for d in corpus if tuple(d.tokens.tolist()) in passages]
        assert len(plain) == 2 * 3 * len(book.passages)
        sizes[formats] = len(corpus) - len(plain)
    assert sizes[False] == 2 * 8 < sizes[True]
