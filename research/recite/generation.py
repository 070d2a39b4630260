"""Texts out of a model: the one place where the chapter meets the sampler."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax

from data.errors import DataError
from data.paths import as_path
from data.tokenizers import Tokenizer, load_tokenizer
from models import encoder_decoder, sampler, t5_files
from models.config import DecoderConfig
from models.sampling import Sampling
from models.t5 import T5Config
from models.tensor_files import read_json
from research.recite import prompts
from research.stages import StageResult
from research.weights import load
from train.progress import Progress

WORTH_SHARING = 16  # tokens
Mode = Literal["R", "S", "X", "none"]
# How UL2 is told which of its denoising tasks a source is like, and what stands for the
# text that is asked for (Tay et al. 2023, and the released vocabulary).
MODES: dict[Mode, str] = {"R": "[NLU]", "S": "[S2S]", "X": "[NLG]"}
HIDDEN, NEXT_HIDDEN = "<extra_id_0>", "<extra_id_1>"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published model's folder: a decoder's, or one of the T5 family.

    mode: of UL2; "none" for what was tuned without (T5, Flan-UL2) and for decoders.
    counter: folder of the tokenizer that lengths of prompts are counted by (GPT-2's, in
        the original); None: the model's own, which for OPT is the same.
    """

    path: str
    mode: Mode = "none"
    counter: str | None = None


class Model(NamedTuple):
    """A language model in memory; mode, counter: see `Checkpoint`."""

    cfg: DecoderConfig | T5Config
    params: Any
    tokenizer: Tokenizer
    mode: Mode = "none"
    counter: Tokenizer | None = None

    def encode(self, text: str) -> list[int]:
        """A prompt's ids, behind a BOS where the checkpoint has one.

        A source of UL2 names its mode, ends in the sentinel of the text to come and, as
        all sources of the family, in EOS.
        """
        if not self.reads:
            ids = self.tokenizer.encode(text, add_special=False)
            return [self.tokenizer.bos_id, *ids] if self.starts else ids
        if self.mode == "none":
            return self.tokenizer.encode(text, add_special=True)
        first = self.tokenizer.encode(MODES[self.mode], control=True)
        # As a text of its own: its words begin with a space, as they do behind a word.
        ids = self.tokenizer.encode(text)
        end = self.tokenizer.encode(HIDDEN, control=True, add_special=True)
        return [*first, *ids, *end]

    def text(self, ids: Sequence[int]) -> str:
        """What a response says: without sentinels, its line breaks put back."""
        text = self.tokenizer.decode(ids)
        if not self.reads:
            return text
        text = text.strip().removeprefix(HIDDEN).partition(NEXT_HIDDEN)[0].strip()
        return text if self.has_lines else prompts.with_lines(text)

    def count(self, text: str) -> int:
        """The length of a prompt, as it is limited."""
        if self.counter is None:
            return len(self.encode(text))
        return len(self.counter.encode(text))

    def room(self, new_tokens: int) -> int:
        """The most tokens of a prompt that so many may follow."""
        return self.cfg.context - (0 if self.reads else new_tokens)

    @property
    def reads(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder writes from its start."""
        return isinstance(self.cfg, T5Config)

    @property
    def has_lines(self) -> bool:
        """Whether the tokenizer knows line breaks; T5's makes spaces of them."""
        return "\n" in self.tokenizer.decode(self.tokenizer.encode("a\na"))

    @property
    def starts(self) -> bool:
        return self.tokenizer.bos_id is not None


def open_model(
    source: StageResult | Checkpoint,
    dtype: str,
    mesh: jax.sharding.Mesh | None = None,
) -> Model:
    """Reads a model as its folder's config.json says: of the T5 family, or a decoder.

    Raises CheckpointError, and DataError for a tokenizer that lacks what `mode` needs.
    """
    if not isinstance(source, Checkpoint):  # what a stage trained
        return Model(*load(source, dtype, mesh=mesh)[:3])
    path, mode = source.path, source.mode
    counter = None if source.counter is None else load_tokenizer(source.counter)
    if not is_encoder_decoder(path):
        if mode != "none":
            raise DataError(
                f"{path}: a decoder has no modes; expected mode 'none', got {mode!r}"
            )
        return Model(*load(path, dtype, mesh=mesh)[:3], counter=counter)
    tokenizer = load_tokenizer(path)
    for spelling in () if mode == "none" else (MODES[mode], HIDDEN):
        ids = tokenizer.encode(spelling, control=True)
        unknown = tokenizer.special.get(tokenizer.special_names.get("unk_token"))
        if not ids or unknown in ids:
            raise DataError(f"{path}: its tokenizer does not know {spelling!r}")
    found = t5_files.from_pretrained(path, dtype, mesh)
    return Model(found.cfg, found.params, tokenizer, mode, counter)


def is_encoder_decoder(path: str) -> bool:
    """Whether a folder holds a model of the T5 family."""
    config = read_json(as_path(path) / "config.json")
    return config.get("model_type") in t5_files.MODEL_TYPES


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
    if not prompts:
        return []
    shared = 0 if model.reads else _shared_start(prompts)
    rules = Sampling(
        temperature=drawn.temperature,
        top_k=drawn.top_k,
        eos_ids=_ends(model),
        stop=_stops(model, drawn.stop),
    )
    more = {} if model.reads else {"prefix": list(prompts[0][:shared])}
    generate = encoder_decoder.generate if model.reads else sampler.generate
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
            on_response=lambda _: bar.update(next(done)),
            **more,
        )
    texts = [model.text(rollout.response(row)) for row in range(total)]
    return [texts[i : i + drawn.samples] for i in range(0, total, drawn.samples)]


def _ends(model: Model) -> tuple[int, ...]:
    """The EOS; of the T5 family also the sentinel behind what was asked for."""
    known = model.tokenizer.special
    after = (known[NEXT_HIDDEN],) if model.reads and NEXT_HIDDEN in known else ()
    return (*model.tokenizer.stop_ids, *after)


def _stops(model: Model, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Ids that may end a response early; where lines have no ids, what begins them."""
    if not model.has_lines:
        texts = prompts.STARTS
    stops = [tuple(model.tokenizer.encode(text)) for text in texts]
    return tuple(ids for ids in stops if ids)


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
