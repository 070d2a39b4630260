"""Ways to answer a question, top to bottom as the thesis has them (section 4.2).

    direct             question -> answer
    recite and answer  question -> K passages drawn; each: passage -> answer; vote
    chain of thought   question -> K rationales with answers; vote
    two recitations    as recite and answer, two passages at a time
    hints              question -> K hints; each different one: hint -> passage;
                       all passages together -> one answer
    in context         a passage from elsewhere (retrieved, gold) -> answer

Two ways to put several passages to use, therefore: a vote of answers, and one answer.
All share one prompt for the answer, which has no recitation among its exemplars.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax

from data.errors import DataError
from research.recite import prompts
from research.recite.generation import Drawn, Model, draw
from research.recite.prompts import BETWEEN, PART, Item
from research.recite.settings import Methods, Task
from research.recite.voting import vote
from train.keys import purpose_key


class Asked(NamedTuple):
    """What a method is given: the model, the task, exemplars, questions.

    key: PRNG key of all that is drawn
    """

    model: Model
    task: Task
    settings: Methods
    exemplars: Sequence[Item]
    questions: Sequence[str]
    key: jax.Array


class Answered(NamedTuple):
    """For every question: K paths, and their vote; a path without text recites "".

    prompts: what the paths were drawn from, exemplars and all
    dropped: exemplars that did not fit into a prompt, over all prompts
    cut: contexts that lost their ends, to leave exemplars their room
    """

    recitations: list[list[str]]
    answers: list[list[str]]
    voted: list[str]
    prompts: list[str]
    dropped: int
    cut: int = 0

    @property
    def left_out(self) -> dict[str, int]:
        """As results of stages have it."""
        return {"exemplars_dropped": self.dropped, "contexts_cut": self.cut}


class _Prompts(NamedTuple):
    """Ids of the prompt of each question, and what did not fit; see `Answered`."""

    ids: list[list[int]]
    dropped: int
    cut: int


def _prompts(asked: Asked, block, contexts=None) -> _Prompts:
    model, settings = asked.model, asked.settings
    new_tokens = max(settings.recitation_tokens, settings.answer_tokens)
    room = model.room(new_tokens)
    if model.counter is None:  # one count, of the model's own tokens
        length, options = min(settings.length, room), {}
    else:
        length, options = settings.length, {"count": model.count, "room": room}

    def fitted(question: str, context: str | None):
        def text(exemplars):
            # The item's own passages are never shown: a block's prompt has none.
            bare = Item(question, "", ("", ""))
            shown = prompts.few_shot(block, exemplars, bare)
            return shown if context is None else prompts.in_context(context, shown)

        return prompts.fit(model.encode, text, asked.exemplars, length, **options)

    made, dropped, cut = [], 0, 0
    for i, question in enumerate(asked.questions):
        context = None if contexts is None else contexts[i]
        try:
            if context:
                context = _cut_context(partial(fitted, question), context)
                cut += context != contexts[i]
            found = fitted(question, context)
        except DataError as error:
            raise DataError(f"the question {question!r:.80}: {error}") from error
        made.append(found.ids)
        dropped += found.dropped
    return _Prompts(made, dropped, cut)


def _cut_context(fitted, context: str) -> str:
    """As much of a context as leaves the exemplars that fit without it in place."""
    alone = fitted("").dropped

    def fits(text: str) -> bool:
        try:
            return fitted(text).dropped <= alone
        except DataError:  # not even without exemplars
            return False

    return prompts.cut_to_fit(context, fits)


def _answer_rules(task: Task):
    """(block, what is kept of a text) of the answer."""
    if task.hops == 2:
        return prompts.stated_block, prompts.cut_stated
    return prompts.answer_block, prompts.cut_answer


def direct(asked: Asked, samples: int = 0) -> Answered:
    """Answers without reciting: greedy, or `samples` drawn and voted."""
    block, cut = _answer_rules(asked.task)
    ids, dropped, _ = _prompts(asked, block)
    texts = _drawn(asked, ids, asked.settings.answer_tokens, samples, "direct", PART)
    answers = [[cut(text) for text in row] for row in texts]
    empty = [[""] * len(row) for row in answers]
    voted = [vote(row) for row in answers]
    return Answered(empty, answers, voted, _texts(asked, ids), dropped)


def chain_of_thought(asked: Asked, samples: int) -> Answered:
    """Rationales and answers of questions of two hops."""
    ids, dropped, _ = _prompts(asked, prompts.reasoned_block)
    tokens = asked.settings.recitation_tokens
    texts = _drawn(asked, ids, tokens, samples, "thoughts", PART)
    thoughts = [[prompts.cut(text, PART) for text in row] for row in texts]
    answers = [[prompts.cut_stated(text) for text in row] for row in texts]
    voted = [vote(row) for row in answers]
    return Answered(thoughts, answers, voted, _texts(asked, ids), dropped)


def recite(asked: Asked, samples: int, *, first_only: bool = False) -> Answered:
    """Recitations, greedy with `samples` 0, and an answer to each; their vote.

    first_only: of two recitations the first alone, to see what the second is worth.
    """
    found, ids, dropped = _recitations(asked, samples, first_only)
    answered = answer_from(asked, found)
    return answered._replace(
        prompts=_texts(asked, ids), dropped=answered.dropped + dropped
    )


def recitations(asked: Asked, samples: int) -> list[list[str]]:
    """`samples` recitations of each question; a greedy one with 0."""
    return _recitations(asked, samples, False)[0]


def _recitations(asked: Asked, samples: int, first_only: bool):
    """(recitations of each question, their prompts, exemplars that did not fit)."""
    if asked.task.hops == 2:
        block, stop, keep = prompts.recitations_block, BETWEEN, prompts.cut_recitations
    else:
        block, stop, keep = prompts.recitation_block, PART, prompts.cut_recitation
    if first_only:
        keep = prompts.first_recitation
    ids, dropped, _ = _prompts(asked, block)
    tokens = asked.settings.recitation_tokens
    texts = _drawn(asked, ids, tokens, samples, "recitations", stop)
    return [[keep(text) for text in row] for row in texts], ids, dropped


def answer_from(asked: Asked, contexts: Sequence[Sequence[str]]) -> Answered:
    """A greedy answer in each context of each question, and their vote.

    Equal contexts of a question are answered once: greedily they give one answer. Its
    prompt is that of the first. Without any context there is no answer.
    """
    block, cut = _answer_rules(asked.task)
    pairs = [
        (i, context) for i, row in enumerate(contexts) for context in dict.fromkeys(row)
    ]
    each = asked._replace(questions=[asked.questions[i] for i, _ in pairs])
    ids, dropped, cut_short = _prompts(each, block, [context for _, context in pairs])
    texts = _drawn(asked, ids, asked.settings.answer_tokens, 0, "answers", PART)
    found = {pair: cut(row[0]) for pair, row in zip(pairs, texts, strict=True)}
    answers = [[found[i, context] for context in row] for i, row in enumerate(contexts)]
    voted = [vote(row) for row in answers]
    first = {i: text for (i, _), text in reversed([*zip(pairs, ids, strict=True)])}
    shown = _texts(asked, [first.get(i, []) for i in range(len(contexts))])
    recitations = [list(row) for row in contexts]
    return Answered(recitations, answers, voted, shown, dropped, cut_short)


class Diversified(NamedTuple):
    """Hints and passages of every question, and the one answer to them all.

    counts: how often each different hint was drawn; by_passage: its own answer
    voted, weighted: votes of these, one each, or as often as the hint was drawn
    """

    hints: list[list[str]]
    counts: list[list[int]]
    passages: list[list[str]]
    answers: list[str]
    by_passage: list[list[str]]
    voted: list[str]
    weighted: list[str]


def diversified(reciter: Asked, reader: Asked) -> tuple[Diversified, dict[str, int]]:
    """Different hints of a question, a greedy passage for each, one context of all.

    Args:
      reciter: the model fine-tuned on questions, hints and passages; without exemplars.
      reader: what answers, with its exemplars; the same questions.

    Returns also what the one context left out, as `Answered.left_out`.
    """
    settings = reciter.settings
    ids = _prompts(reciter, prompts.recitation_block).ids
    texts = _drawn(
        reciter, ids, settings.recitation_tokens, settings.paths, "hints", "\n"
    )
    hints, counts = [], []
    for row in texts:
        drawn = [hint for text in row if (hint := prompts.cut_answer(text))]
        hints.append(list(dict.fromkeys(drawn)))
        counts.append([drawn.count(hint) for hint in hints[-1]])
    pairs = [(i, hint) for i, row in enumerate(hints) for hint in row]
    line = reciter.model.tokenizer
    behind = [[*ids[i], *line.encode(f" {hint}\n")] for i, hint in pairs]
    texts = _drawn(reciter, behind, settings.recitation_tokens, 0, "passages", PART)
    found = {
        pair: prompts.cut_recitation(row[0])
        for pair, row in zip(pairs, texts, strict=True)
    }
    passages = [[found[i, hint] for hint in row] for i, row in enumerate(hints)]
    together = answer_from(
        reader, [[PART.join(dict.fromkeys(row))] for row in passages]
    )
    single = answer_from(reader, passages)
    weighted = [
        vote(answers, weights=often)
        for answers, often in zip(single.answers, counts, strict=True)
    ]
    found = Diversified(
        hints,
        counts,
        passages,
        [row[0] for row in together.answers],
        single.answers,
        single.voted,
        weighted,
    )
    return found, together.left_out


def _texts(asked: Asked, ids: Sequence[Sequence[int]]) -> list[str]:
    return [asked.model.tokenizer.decode(row) for row in ids]


def _drawn(asked: Asked, ids, tokens: int, samples: int, purpose: str, stop: str):
    """Texts of prompts, `samples` of each, or a greedy one."""
    settings = asked.settings
    drawn = Drawn(
        tokens,
        temperature=settings.temperature if samples else 0.0,
        top_k=settings.top_k if samples else 0,
        samples=samples or 1,
        slots=settings.slots,
        stop=(stop,) if stop == BETWEEN else (stop, BETWEEN),
    )
    key = purpose_key(asked.key, purpose) if samples else None
    return draw(asked.model, ids, drawn, key)
