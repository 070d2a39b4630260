"""What the miniature's model learns from: passages, and solved items in every format.

A small model does not learn a format from its context. So the formats are taught, with
questions about half of the persons; the test is about the other half, whose pages it
has read like all others, and of whom it has never seen a question. Every format is
taught with the same questions, as often, as far as rows have room for its documents.
Reading is taught on throw-away encyclopedias: on pages of the corpus the answer could
be remembered in the place of read.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data.batch import TokenizedExample
from data.tokenizers import Tokenizer
from data.worlds import encyclopedia
from data.worlds.encyclopedia import Encyclopedia, Question, World
from research.recite import prompts
from research.recite.prompts import BETWEEN, Block, Item


def as_item(book: Encyclopedia, question: Question, which: int = 0) -> Item:
    """A question with its evidence; `which` of it where there is more than one."""
    places = question.evidence[which % len(question.evidence)]
    return Item(
        question.text,
        question.answers[0],
        tuple(book.passages[i].text for i in places),
        book.passages[places[0]].hint,
        question.rationale,
    )


def list_document(
    tokenizer: Tokenizer, block: Block, items: Sequence[Item]
) -> TokenizedExample:
    """Solved items one after the other; learned are the targets and their ends."""
    ids = _known(tokenizer.bos_id)
    weights = [0.0] * len(ids)
    last = _known(tokenizer.eos_id)
    ends = [tokenizer.encode(BETWEEN)] * (len(items) - 1) + [last]
    for item, end in zip(items, ends, strict=True):
        prompt, target = block(item)
        for part, weight in (
            (tokenizer.encode(prompt), 0.0),
            (tokenizer.encode(target), 1.0),
            (end, 1.0),
        ):
            ids += part
            weights += [weight] * len(part)
    return TokenizedExample(np.array(ids, np.int32), np.array(weights, np.float32))


def _known(token: int | None) -> list[int]:
    """A control token, where the tokenizer has it."""
    return [] if token is None else [token]


def text_document(tokenizer: Tokenizer, text: str) -> TokenizedExample:
    """A text of which every token is learned."""
    bos, eos = _known(tokenizer.bos_id), _known(tokenizer.eos_id)
    ids = [*bos, *tokenizer.encode(text), *eos]
    weights = np.ones(len(ids), np.float32)
    return TokenizedExample(np.array(ids, np.int32), weights)


def reading_document(
    tokenizer: Tokenizer,
    block: Block,
    context: str,
    exemplars: Sequence[Item],
    items: Sequence[Item],
    weight: float,
) -> TokenizedExample:
    """Items behind a context that answers them; `weight` is that of all but answers."""
    shown = prompts.in_context(context, prompts.few_shot(block, exemplars, items[0]))
    prompt = [tokenizer.bos_id, *tokenizer.encode(shown)]
    # The first item's prompt is `shown` already: what is left of the list is learned.
    rest = list_document(tokenizer, block, items)
    behind = len(_known(tokenizer.bos_id)) + len(tokenizer.encode(block(items[0])[0]))
    ids, weights = rest.tokens[behind:], rest.weights[behind:]
    return TokenizedExample(
        np.r_[np.array(prompt, np.int32), ids],
        np.r_[np.full(len(prompt), weight, np.float32), np.maximum(weights, weight)],
    )


def lists(
    tokenizer: Tokenizer,
    block: Block,
    items: Sequence[Item],
    longest: int,
    rng: np.random.Generator,
) -> list[TokenizedExample]:
    """All items once, in random order, in documents of 1 to `longest` of them."""
    order = [items[i] for i in rng.permutation(len(items))]
    made = []
    while order:
        size = int(rng.integers(1, longest + 1))
        made.append(list_document(tokenizer, block, order[:size]))
        order = order[size:]
    return made


class Throwaway(NamedTuple):
    """How much is learned from throw-away pages, in each pass.

    readings: documents of a context and what it answers
    answers: questions of one context, at most; a document with one short answer
        teaches little for its length
    weight: of what is not answers. Names that come again in a text can be had by
        copying alone, and from that a model learns to copy; from the few tokens of
        answers it does not, for a long time.
    """

    readings: int
    answers: int
    weight: float


def reading(
    tokenizer: Tokenizer,
    world: World,
    seed: int,
    items: Sequence[Item],
    two_hop: Sequence[Item],
    wanted: Throwaway,
    longest: int,
    rng: np.random.Generator,
    kinds: int = 4,
) -> list[TokenizedExample]:
    """Readings of throw-away pages, of the first `kinds` of four, as often each.

    Questions and their passage; questions of two hops and all their passages;
    questions and their passage among one to three others; and that passage itself,
    recited out of the others, as who reads must first find and copy. Up to
    `longest - 1` exemplars stand between context and questions, of `items` and
    `two_hop`, which the context does not answer.
    """
    made, pools = [], {}
    while len(made) < wanted.readings:
        kind = len(made) % kinds
        hops = 2 if kind == 1 else 1
        if not pools or not pools[hops]:
            book = encyclopedia.throw_away(world, seed, rng)
            mixed = [book.questions[i] for i in rng.permutation(len(book.questions))]
            pools = {h: [q for q in mixed if q.hops == h] for h in (1, 2)}
            about = _by_passage(book)
        questions = [pools[hops].pop()]
        which = int(rng.integers(2))
        places = _evidence(questions[0], which)
        if kind == 1 and pools[hops] and wanted.answers > 1 and rng.integers(2):
            questions.append(pools[hops].pop())
            places += _evidence(questions[1], which)
        if kind > 1:
            places += rng.choice(len(book.passages), int(rng.integers(1, 4))).tolist()
            places = [places[i] for i in rng.permutation(len(places))]
        most = longest if kind == 3 else wanted.answers
        if hops == 1:
            more = [q for place in places for q in about[place] if q != questions[0]]
            order = rng.permutation(len(more))[: int(rng.integers(most))]
            questions += [more[i] for i in order]
        questions = [questions[i] for i in rng.permutation(len(questions))]
        block, shown = prompts.answer_block, items
        if kind == 1:
            block, shown = prompts.stated_block, two_hop
        if kind == 3:
            block = prompts.recitation_block
        chosen = rng.choice(len(shown), int(rng.integers(longest)), replace=False)
        answered = []
        for question in questions:  # by what stands there, of alternatives
            there = [set(e) <= set(places) for e in question.evidence].index(True)
            answered.append(as_item(book, question, there)._replace(hint=""))
        made.append(
            reading_document(
                tokenizer,
                block,
                prompts.PART.join(book.passages[i].text for i in places),
                [shown[i] for i in chosen if kind != 3],
                answered,
                wanted.weight,
            )
        )
    return made


def _evidence(question: Question, which: int) -> list[int]:
    return list(question.evidence[which % len(question.evidence)])


def _by_passage(book: Encyclopedia) -> list[list[Question]]:
    """Questions of one hop that each passage answers by itself."""
    about: list[list[Question]] = [[] for _ in book.passages]
    for question in book.questions:
        if question.hops == 1:
            for (place,) in question.evidence:
                about[place].append(question)
    return about


def passages(tokenizer: Tokenizer, book: Encyclopedia) -> list[TokenizedExample]:
    """Every passage once, by itself."""
    return [text_document(tokenizer, passage.text) for passage in book.passages]


FORMATS: dict[str, tuple[Block, int]] = {  # of questions of so many hops
    "answers": (prompts.answer_block, 1),
    "recitations": (prompts.recitation_block, 1),
    "questions": (prompts.question_block, 1),
    "stated": (prompts.stated_block, 2),
    "reasoned": (prompts.reasoned_block, 2),
    "two recitations": (prompts.recitations_block, 2),
}


def corpus(
    tokenizer: Tokenizer,
    book: Encyclopedia,
    world: World,
    seed: int,
    asked: Sequence[Question],
    *,
    rounds: int,
    repeats: int,
    throwaway: Throwaway,
    formats: bool,
    longest: int,
) -> list[TokenizedExample]:
    """Documents of `rounds` passes: every passage `repeats` times, new throw-away
    pages, and with `formats` every question of `asked` once in each of its formats.

    Recitations are of the passage without its hint.
    """
    rng = np.random.default_rng([seed, 4 + formats])
    made: list[TokenizedExample] = []
    for _ in range(rounds):
        by_hops: dict[int, list[Item]] = {1: [], 2: []}
        for question in asked:
            which = int(rng.integers(2))
            item = as_item(book, question, which)._replace(hint="")
            by_hops[question.hops].append(item)
        for _ in range(repeats):
            made += passages(tokenizer, book)
        # Who cannot read yet learns it sooner from what is short and simple.
        shown, kinds = (longest, 4) if formats else (1, 1)
        made += reading(
            tokenizer,
            world,
            seed,
            by_hops[1],
            by_hops[2],
            throwaway,
            shown,
            rng,
            kinds,
        )
        if formats:
            for block, hops in FORMATS.values():
                made += lists(tokenizer, block, by_hops[hops], longest, rng)
    return made


def vocabulary(world: World, seed: int) -> Iterable[str]:
    """Texts that hold every word of a world between them, in a fixed order."""
    names = encyclopedia.words(world, seed)
    yield from (" ".join(values) for values in names)
    yield " ".join(
        (
            *encyclopedia.PROFESSIONS,
            *encyclopedia.COLOURS,
            *encyclopedia.PETS,
            *encyclopedia.PRODUCTS,
            *encyclopedia.YEARS,
        )
    )
    book = encyclopedia.build(world, seed)
    for passage in book.passages:
        yield f"{passage.hint}\n{passage.text}"
    for question in book.questions:
        item = as_item(book, question)
        for block, hops in FORMATS.values():
            if question.hops == hops:
                yield "".join(block(item))


PHRASES = (
    prompts.RECITE,
    prompts.RECITE_TWO,
    prompts.READ,
    prompts.ASK,
)
