"""Texts out of a model: the one place where the chapter meets the sampler."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from data.tokenizers import Tokenizer
from models.config import DecoderConfig
from models.sampler import generate
from models.sampling import Sampling
from train.progress import Progress

WORTH_SHARING = 16  # tokens


class Model(NamedTuple):
    """A language model in memory."""

    cfg: DecoderConfig
    params: Any
    tokenizer: Tokenizer

    def encode(self, text: str) -> list[int]:
        """A prompt's ids, behind a BOS where the checkpoint has one."""
        ids = self.tokenizer.encode(text, add_special=False)
        return [self.tokenizer.bos_id, *ids] if self.starts else ids

    @property
    def starts(self) -> bool:
        return self.tokenizer.bos_id is not None


@dataclasses.dataclass(frozen=True)
class Drawn:
    """How texts are drawn: greedily at temperature 0.

    stop: texts that may end a response early. What is kept of it is cut as text, so
    that it does not depend on whether the tokenizer spells the stop in one way.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    samples: int = 1
    slots: int = 64
    stop: tuple[str, ...] = ()


def draw(
    model: Model, prompts: Sequence[Sequence[int]], drawn: Drawn, key=None
) -> list[list[str]]:
    """`samples` texts for every prompt. A start that all prompts share is run once.

    key: a PRNG key; None where the temperature is 0.
    """
    shared = _shared_start(prompts)
    stops = [model.tokenizer.encode(text) for text in drawn.stop]
    rules = Sampling(
        temperature=drawn.temperature,
        top_k=drawn.top_k,
        eos_ids=model.tokenizer.stop_ids,
        stop=tuple(tuple(ids) for ids in stops if ids),
    )
    total = len(prompts) * drawn.samples
    with Progress(total, unit="response") as bar:
        done = iter(range(1, total + 1))
        rollout = generate(
            model.cfg,
            model.params,
            [ids[shared:] for ids in prompts],
            rules,
            key,
            max_new_tokens=drawn.max_new_tokens,
            samples=drawn.samples,
            slots=drawn.slots,
            prefix=list(prompts[0][:shared]) if prompts else [],
            on_response=lambda _: bar.update(next(done)),
        )
    texts = [model.tokenizer.decode(rollout.response(row)) for row in range(total)]
    return [texts[i : i + drawn.samples] for i in range(0, total, drawn.samples)]


def _shared_start(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps one of its own.

    0 for a few, which are not worth a block of keys of their own.
    """
    if not prompts:
        return 0
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    same = 0
    while same < most and first[same] == last[same]:
        same += 1
    return same if same >= WORTH_SHARING else 0
