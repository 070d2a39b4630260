"""What the chapter's stages compute, for `research.plan`: runs, and how many steps.

The same settings as the stages hand on, without the files. Counts are upper bounds:
every question is kept, every document fills a row (packing puts several into one),
every response goes on to its budget, and no two recitations of a question are equal.
Left out are copying and saving.

Prompts, in tokens: a decoder runs the exemplars once, as the prefix that they are of
all prompts, with `--prompt_length` tokens of each question behind them; both together
are at most `methods.length`. An answer in a context has a prompt of its own: behind a
recitation of the recitation's budget and BLOCK tokens for every exemplar and the
question, behind a passage from elsewhere of `methods.length`.
"""

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from data.worlds import encyclopedia
from data.worlds.encyclopedia import World
from data.worlds.sentences import sentence_tokenizer
from models.config import DecoderConfig
from models.encoder_decoder import group_size
from models.t5 import T5Config
from research.plan import Facts, Stage, Work
from research.plan_work import mesh_of, sft
from research.recite import (
    answering,
    documents,
    hinted,
    miniature,
    published,
    report,
)
from research.recite.generation import Checkpoint
from research.recite.settings import Methods
from research.stages import Handle
from research.training import small_decoder
from train.commands import MeshConfig
from train.plan_sampling import SampleRun
from train.plan_sources import SourceRun
from train.ppo_run import SamplingSettings

BLOCK = 64  # tokens of a question with its short answer


def architecture(source: Handle | Checkpoint, facts: Facts) -> DecoderConfig | T5Config:
    """Of a checkpoint, or of the model that a stage trained."""
    if isinstance(source, Checkpoint):
        return facts.model(source.path)
    inputs = source.inputs
    if source.fn is miniature.pretrain:
        words = _world(inputs["task"].world, inputs["seed"]).words
        return small_decoder(inputs["model"], words, "float32")
    return architecture(inputs["base" if "base" in inputs else "model"], facts)


class _World(NamedTuple):
    """Sizes of an encyclopedia; asked: questions of training, by hops."""

    words: int
    passages: int
    asked: dict[int, int]


@cache
def _world(world: World, seed: int) -> _World:
    book, split = encyclopedia.build(world, seed), encyclopedia.split(world, seed)
    tokenizer = sentence_tokenizer(documents.vocabulary(world, seed), documents.PHRASES)
    asked = [q.hops for q in book.questions if q.person in set(split.train)]
    counts = {hops: asked.count(hops) for hops in (1, 2)}
    return _World(tokenizer.vocab_size, len(book.passages), counts)


def questions(stage: Handle, facts: Facts) -> int:
    """Questions of the stage's task, as its data stage counted them or at most."""
    name, data = stage.inputs["task"].name, stage.inputs["data"]
    counted = facts.counts(data)
    if name in counted:
        return counted[name]
    if data.fn is published.read_questions:
        return data.inputs["wanted"][name]["questions"]
    task = data.inputs["task"]
    return task.one_hop if stage.inputs["task"].hops == 1 else task.two_hop


class _Asked(NamedTuple):
    """What all parts of a stage share."""

    model: DecoderConfig | T5Config
    settings: Methods
    dtype: str
    mesh: MeshConfig
    facts: Facts

    def drawn(self, prompts: int, tokens: int, samples=0, *, shots=True) -> Work:
        """Responses to questions behind their exemplars; greedy with samples 0."""
        length = self.settings.length
        own = min(self.facts.prompt_length, length)
        return self._work(prompts, tokens, samples, own, length - own if shots else 0)

    def answers(self, prompts: int, length: int | None = None) -> Work:
        """Greedy answers, each in a context of its own."""
        settings = self.settings
        behind = settings.recitation_tokens + BLOCK * (settings.shots + 1)
        own = min(length or behind, settings.length)
        return self._work(prompts, settings.answer_tokens, 0, own, 0)

    def recited(self, prompts: int, samples: int, *, shots=True) -> Iterator[Work]:
        """Recitations and the answers to them."""
        yield self.drawn(prompts, self.settings.recitation_tokens, samples, shots=shots)
        yield self.answers(prompts * max(1, samples))

    def _work(self, prompts, tokens, samples, own: int, prefix: int) -> Work:
        settings, each = self.settings, max(1, samples)
        slots = min(settings.slots, 1 << max(0, prompts * each - 1).bit_length())
        sampling = SamplingSettings(
            temperature=settings.temperature if samples else 0.0,
            top_k=settings.top_k if samples else 0,
            slots=slots,
        )
        placed = {"sampling": sampling, "dtype": self.dtype, "mesh": self.mesh}
        if isinstance(self.model, T5Config):
            run = SourceRun(max_new_tokens=tokens, samples=each, **placed)
            steps = math.ceil(prompts / group_size(slots, each))
            return Work(run, self.model, steps, prompt_length=own + prefix)
        room = self.model.context - tokens
        own = min(own, room)
        run = SampleRun(
            max_new_tokens=tokens,
            samples=min(each, slots),
            prefix=min(prefix, room - own),
            **placed,
        )
        steps = math.ceil(prompts * each / slots)
        return Work(run, self.model, steps, prompt_length=own)


def _asked(stage: Handle, facts: Facts) -> _Asked:
    i = stage.inputs
    model = architecture(i["model"], facts)
    return _Asked(model, i["settings"], i["dtype"], mesh_of(i), facts)


def _answer(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    asked, count = _asked(stage, facts), questions(stage, facts)
    settings, method = asked.settings, stage.inputs["method"]
    if method in ("direct", "direct votes"):
        samples = settings.paths if method == "direct votes" else 0
        yield asked.drawn(count, settings.answer_tokens, samples)
    elif method == "chain of thought":
        yield asked.drawn(count, settings.recitation_tokens, settings.paths)
    else:
        yield from asked.recited(count, settings.paths if method == "recite" else 0)


def _in_context(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    asked = _asked(stage, facts)
    own = None if stage.inputs["context"] == "shuffled" else asked.settings.length
    yield asked.answers(questions(stage, facts), own)


def _robust(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    asked = _asked(stage, facts)
    settings = asked.settings
    count = min(questions(stage, facts), settings.robust_questions)
    for work in (
        asked.drawn(count, settings.answer_tokens),
        *asked.recited(count, settings.robust_paths),
    ):
        yield work._replace(steps=work.steps * settings.exemplar_seeds)


def _diversified(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    reader = _asked(stage, facts)
    settings, count = reader.settings, questions(stage, facts)
    reciter = reader._replace(model=architecture(stage.inputs["reciter"], facts))
    if stage.fn is answering.answer_hinted:
        yield from reciter.recited(count, settings.paths, shots=False)
        return
    tokens, paths = settings.recitation_tokens, settings.paths
    yield reciter.drawn(count, tokens, paths, shots=False)
    yield reciter.drawn(count * paths, tokens, shots=False)
    yield reader.answers(count, settings.length)
    yield reader.answers(count * paths)


def _questions(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    asked, rules = _asked(stage, facts), stage.inputs["hinted"]
    drawn = asked._replace(
        settings=dataclasses.replace(
            asked.settings, temperature=rules.temperature, top_k=rules.top_k
        )
    )
    yield drawn.drawn(rules.passages, rules.question_tokens, rules.each)


def _learn(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    rules, model = i["hinted"], architecture(stage, facts)
    kept = rules.passages * rules.each
    examples = kept + max(1, round(rules.plain * kept))
    yield sft(model, rules.training, i["dtype"], i["remat"], mesh_of(i), examples)


def _train(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    task, known = i["task"], _world(i["task"].world, i["seed"])
    formats = stage.fn is miniature.tune
    phase = task.tune if formats else task.base
    a_round = phase.repeats * known.passages + phase.readings
    if formats:
        a_round += sum(known.asked[hops] for _, hops in documents.FORMATS.values())
    model = architecture(stage, facts)
    mesh = mesh_of(i)
    yield sft(model, i["training"], i["dtype"], "none", mesh, phase.rounds * a_round)


STAGES: dict[object, Stage | None] = {
    miniature.pretrain: _train,
    miniature.tune: _train,
    hinted.make_questions: _questions,
    hinted.learn_hints: _learn,
    answering.answer: _answer,
    answering.answer_in_context: _in_context,
    answering.robust: _robust,
    answering.diversify: _diversified,
    answering.answer_hinted: _diversified,
    # Nothing on a device.
    miniature.make_world: None,
    published.read_questions: None,
    report.write_report: None,
}
