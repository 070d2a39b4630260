"""In-context learning: the base model answers after some solved problems.

The exemplars come first and are the same for all problems of a seed, so that they are
prefilled once, as the sampler's shared prefix:

    [problem, solution, answer, blank line] x k, problem -> solution, answer

A base model does not stop at the answer: it goes on to a problem of its own. A response
ends where that one's heading is complete, and its text at the line of the answer.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from data.errors import DataError
from data.tokenizers import Tokenizer
from data.worlds.arithmetic import ANSWER, BREAK, LEVELS, QUESTION
from research.easy_to_hard.answers import write_answers
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tasks import EASY, read_problems
from research.stages import StageResult
from research.weights import devices, load
from train.commands import MeshConfig
from train.keys import purpose_key
from train.settings import positive

Kind = Literal["full", "hard", "easy"]
HARD = tuple(level for level in LEVELS if level not in EASY)
KINDS: dict[str, tuple[int, ...]] = {"full": LEVELS, "hard": HARD, "easy": EASY}


@dataclasses.dataclass(frozen=True)
class Exemplars:
    """At most `count` solved problems, of at most `length` tokens together."""

    count: int = positive(4)
    length: int = positive(2048)


class Shots(NamedTuple):
    """A shared prefix: its ids, and the exemplars that are whole inside it."""

    ids: list[int]
    exemplars: list[dict]


def choose_exemplars(
    problems: Sequence[dict], kind: Kind, count: int, seed: int
) -> list[dict]:
    """`count` different problems {prompt, completion, level} of the kind, at random.

    Seeds differ in which they are and in their order; a larger count begins with those
    of a smaller one. Raises DataError where there are fewer.
    """
    if kind not in KINDS:
        raise DataError(f"exemplars: expected one of {', '.join(KINDS)}, got {kind!r}")
    several = {p["prompt"]: p for p in problems if p["level"] in KINDS[kind]}
    found = list(several.values())
    if len(found) < count:
        raise DataError(
            f"exemplars: expected {count} different problems of levels "
            f"{', '.join(map(str, KINDS[kind]))}, found {len(found)}"
        )
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return [found[i] for i in rng.permutation(len(found))[:count]]


def make_shots(tokenizer: Tokenizer, exemplars: Sequence[dict], length: int) -> Shots:
    """Exemplars as a prefix of at most `length` tokens; those that do not fit are left.

    An exemplar is in the prefix whole or not at all, and none follows one that did not
    fit. Raises DataError when not even the first fits.
    """
    ids = [tokenizer.bos_id] if tokenizer.adds_bos else []
    kept = []
    for exemplar in exemplars:
        more = list(ids)
        for text in (exemplar["prompt"], exemplar["completion"].rstrip() + BREAK):
            more += tokenizer.encode(text, previous=more[-1] if more else None)
        if len(more) > length:
            break
        ids = more
        kept.append(exemplar)
    if exemplars and not kept:
        raise DataError(
            f"exemplars: the first takes {len(more)} tokens, over the limit of {length}"
        )
    return Shots(ids, kept)


def until_answer(text: str) -> str:
    """A response up to the end of its answer's line, and no further than itself.

    What follows the heading of another problem, an answer too, is not of this one.
    """
    own = text.partition(QUESTION)[0]
    head, marker, rest = own.partition(ANSWER)
    answer = rest.lstrip()
    blank = rest[: len(rest) - len(answer)]
    return head + marker + blank + answer.partition("\n")[0].rstrip()


def answer_icl(
    folder: Path,
    *,
    data: StageResult,
    base: StageResult | str,
    kind: Kind,
    exemplars: Exemplars,
    sampled: Sampled,
    dtype: str,
    seed: int,
    rules: str = "exact",
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: the base answers every held-out problem after exemplars of a kind.

    Leaves answers.jsonl as `generators.answer` does. `base` is a stage that left `hf`,
    or the path of a Hugging Face folder. Prompts are plain text: problem texts end in
    the heading of the solution.
    """
    cfg, params, tokenizer, _ = load(base, dtype, mesh=devices(mesh))
    problems = read_problems(data.folder / "test.jsonl")
    chosen = choose_exemplars(
        read_problems(data.folder / "train.jsonl"), kind, exemplars.count, seed
    )
    # Behind a break, as behind an exemplar, and not at the start of a text.
    before = tokenizer.encode(BREAK)[-1]
    prompts = [tokenizer.encode(p["prompt"], previous=before) for p in problems]
    room = cfg.context - sampled.max_new_tokens - max(map(len, prompts))
    shots = make_shots(tokenizer, chosen, min(exemplars.length, room))
    counts = write_answers(
        folder / "answers.jsonl",
        cfg,
        params,
        tokenizer,
        problems,
        prompts,
        sampled,
        purpose_key(jax.random.key(seed), "icl answers"),
        clean=until_answer,
        eos_ids=tokenizer.stop_ids,
        stop=(tuple(tokenizer.encode(QUESTION, previous=before)),),
        prefix=shots.ids,
        rules=rules,
    )
    return {
        **counts,
        "exemplars": len(shots.exemplars),
        "exemplar_levels": [e["level"] for e in shots.exemplars],
        "prefix_tokens": len(shots.ids),
    }
