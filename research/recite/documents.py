"""What the miniature's model learns from: passages, and solved items in every format.

A small model does not learn a format from its context. So the formats are taught, with
questions about half of the persons; the test is about the other half, whose pages it
has read like all others, and of whom it has never seen a question. Every format is
taught with the same questions, as often. Reading is taught on throw-away encyclopedias:
on pages of the corpus the answer could be remembered in the place of read.
"""

from collections.abc import Iterable, Sequence

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
    item: Item,
) -> TokenizedExample:
    """An item behind a context that answers it; only its own answer is learned."""
    shown = prompts.in_context(context, prompts.few_shot(block, exemplars, item))
    prompt = [tokenizer.bos_id, *tokenizer.encode(shown)]
    target = [*tokenizer.encode(block(item)[1]), tokenizer.eos_id]
    weights = np.r_[np.zeros(len(prompt)), np.ones(len(target))].astype(np.float32)
    return TokenizedExample(np.array([*prompt, *target], np.int32), weights)


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


def reading(
    tokenizer: Tokenizer,
    world: World,
    seed: int,
    items: Sequence[Item],
    two_hop: Sequence[Item],
    count: int,
    longest: int,
    rng: np.random.Generator,
) -> list[TokenizedExample]:
    """`count` readings of throw-away pages.

    A third each: a question and its passage; one of two hops and both its passages; a
    question and its passage among one to three others. The exemplars between context
    and question, of `items` and `two_hop`, are not answered by the context.
    """
    made, pool = [], []
    while len(made) < count:
        if not pool:
            book = encyclopedia.throw_away(world, seed, rng)
            pool = [book.questions[i] for i in rng.permutation(len(book.questions))]
        question = pool.pop()
        wanted = 2 if len(made) % 3 == 1 else 1
        if question.hops != wanted:
            continue
        item = as_item(book, question, int(rng.integers(2)))
        context = list(item.passages)
        if len(made) % 3 == 2:
            others = rng.choice(len(book.passages), int(rng.integers(1, 4)))
            context += [book.passages[i].text for i in others]
            context = [context[i] for i in rng.permutation(len(context))]
        block, shown = prompts.answer_block, items
        if wanted == 2:
            block, shown = prompts.stated_block, two_hop
        chosen = rng.choice(len(shown), int(rng.integers(0, longest)), replace=False)
        exemplars = [shown[i] for i in chosen]
        text = prompts.PART.join(context)
        made.append(reading_document(tokenizer, block, text, exemplars, item))
    return made


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
    readings: int,
    formats: bool,
    longest: int,
) -> list[TokenizedExample]:
    """Documents of `rounds` passes: every passage `repeats` times, new readings, and
    with `formats` every question of `asked` once in each of its formats.

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
        made += reading(
            tokenizer, world, seed, by_hops[1], by_hops[2], readings, longest, rng
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
