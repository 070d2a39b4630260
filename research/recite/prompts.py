"""The texts that models are prompted with, of the shapes of the original code.

An exemplar is a solved item; exemplars are joined by three newlines, the parts of one
by two, and a prompt ends where the model goes on:

    Question: {question}            Q: {question}           {passage}

    {RECITE}                        A: {answer}             {READ}

    Answer: {passage}                                       Q: ... A: ... (as before)

The prompt for an answer is the same with and without a passage in front of it, so that
reciting is compared with nothing but itself. (In the original code two of three direct
prompts had three newlines before the last `A:`, where their exemplars had two.)
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data.errors import DataError

BETWEEN = "\n\n\n"  # exemplars
PART = "\n\n"  # parts of an exemplar
RECITE = "The passage that answers this question, by page, section and paragraph, is:"
RECITE_TWO = "The two passages that answer this question together, in order, are:"
READ = "Keeping the text above in mind, answer these questions, which may be about it:"
ASK = "A question that the passage above answers:"
STATED = "The answer is "


class Item(NamedTuple):
    """A question with what may be shown of it.

    passages: the evidence, in order; hint: the name of the first, "" without one
    """

    question: str
    answer: str
    passages: tuple[str, ...] = ()
    hint: str = ""
    rationale: str = ""


def answer_block(item: Item) -> tuple[str, str]:
    """(prompt, target) of a direct answer."""
    return f"Q: {item.question}{PART}A:", f" {item.answer}"


def stated_block(item: Item) -> tuple[str, str]:
    """As `answer_block`, the answer in a sentence: questions of two hops."""
    return f"Q: {item.question}{PART}A:", f" {STATED}{item.answer}."


def reasoned_block(item: Item) -> tuple[str, str]:
    """A chain of thought before the answer."""
    return f"Q: {item.question}{PART}A:", f" {item.rationale} {STATED}{item.answer}."


def recitation_block(item: Item) -> tuple[str, str]:
    """The passage, behind its hint where the item has one."""
    hint = f"{item.hint}\n" if item.hint else ""
    prompt = f"Question: {item.question}{PART}{RECITE}{PART}Answer:"
    return prompt, f" {hint}{item.passages[0]}"


def recitations_block(item: Item) -> tuple[str, str]:
    """Two passages, the second with the first in view."""
    first, second = item.passages
    prompt = f"Question: {item.question}{PART}{RECITE_TWO}{PART}Answer 1:"
    return prompt, f" {first}{PART}Answer 2: {second}"


def question_block(item: Item) -> tuple[str, str]:
    """A question to a passage: how questions are made for passages that have none."""
    return f"{item.passages[0]}{PART}{ASK}{PART}Question:", f" {item.question}"


Block = Callable[[Item], tuple[str, str]]


def few_shot(block: Block, exemplars: Sequence[Item], item: Item) -> str:
    """Exemplars, then the item's prompt, without its target."""
    solved = ["".join(block(exemplar)) for exemplar in exemplars]
    return BETWEEN.join([*solved, block(item)[0]])


def in_context(context: str, prompt: str) -> str:
    """A prompt with a passage, or several, in front of it."""
    return f"{context}{PART}{READ}{PART}{prompt}"


class Fitted(NamedTuple):
    """A prompt that fits, as ids, and how many exemplars had to go."""

    ids: list[int]
    dropped: int


def fit(
    encode: Callable[[str], list[int]],
    make: Callable[[Sequence[Item]], str],
    exemplars: Sequence[Item],
    length: int,
    *,
    count: Callable[[str], int] | None = None,
    room: int | None = None,
) -> Fitted:
    """The prompt with as many of the last exemplars as fit into `length` tokens.

    The original code cuts the front of the text, through an exemplar if it so happens;
    here an exemplar is in the prompt whole or not at all. Raises DataError where even
    the bare question is too long.

    count: how tokens are counted, where not by `encode`; its own may be at most `room`.
    """
    for dropped in range(len(exemplars) + 1):
        text = make(exemplars[dropped:])
        ids = encode(text)
        tokens = len(ids) if count is None else count(text)
        if tokens <= length and (room is None or len(ids) <= room):
            return Fitted(ids, dropped)
    raise DataError(
        f"the prompt has {tokens} tokens without any exemplar, over the limit of "
        f"{length}" + ("" if room is None else f", or {len(ids)} over {room}")
    )


def cut_to_fit(context: str, fits: Callable[[str], bool]) -> str:
    """The context, or of one that does not fit as many of its first words as do."""
    if fits(context):
        return context
    ends = [match.end() for match in re.finditer(r"\S+", context)]
    few, many = 0, len(ends)  # words: so few fit, so many do not
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (
            (middle, many) if fits(context[: ends[middle - 1]]) else (few, middle)
        )
    return context[: ends[few - 1]] if few else ""


# --- what is kept of a model's text -------------------------------------------------

STARTS = ("Question:", "Q:")  # of what follows an exemplar


def with_lines(text: str) -> str:
    """The breaks before what begins a line in a prompt, for texts of models without.

    T5's tokenizer makes a space of every line break, so that such a model tells by the
    words alone that an exemplar has ended.
    """
    text = re.sub(r"(^|\s+)(?=(Question|Q):)", BETWEEN, text)
    return re.sub(r"\s+(?=Answer 2:)", PART, text)


def cut(text: str, *marks: str) -> str:
    """The text before the first of the marks, stripped."""
    for mark in marks:
        text = text.partition(mark)[0]
    return text.strip()


def cut_recitation(text: str) -> str:
    return cut(text, PART)


def without_hint(text: str) -> str:
    """A recitation's passage: what stands behind the line that is its hint."""
    return text.partition("\n")[2].strip()


def cut_recitations(text: str) -> str:
    """Two passages, each on its own: `Answer 2:` between them becomes a blank line."""
    whole = cut(text, BETWEEN, "\nQuestion:")
    return PART.join(part.strip() for part in whole.split(f"{PART}Answer 2:"))


def first_recitation(text: str) -> str:
    """The first of two passages."""
    return cut(text, PART)


def cut_answer(text: str) -> str:
    """The first line. (Original: direct answers up to the first blank line.)"""
    return cut(text, "\n")


def cut_stated(text: str) -> str:
    """What the first line says the answer is; "" where it does not say so.

    The original code asks for a period and a line's end behind the answer, so that a
    missing period is a missing answer; here the end of the text will do.
    """
    line = cut(text, "\n")
    _, said, rest = line.rpartition(STATED)
    return rest.removesuffix(".").strip() if said else ""
