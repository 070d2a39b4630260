"""Checkpoints that stages start from: a stage that left `hf`, or a folder's path."""

import dataclasses
from typing import Any, NamedTuple

from data.tokenizers import Tokenizer, load_tokenizer
from models.config import DecoderConfig
from models.pretrained import from_pretrained
from research.stages import StageResult


class Loaded(NamedTuple):
    """A language model in memory, with what its export needs."""

    cfg: DecoderConfig
    params: Any
    tokenizer: Tokenizer
    hf_config: dict


def load(source: StageResult | str, dtype: str, remat: str = "none") -> Loaded:
    """Reads a model and its tokenizer; `remat` is how its training saves memory."""
    path = source.folder / "hf" if isinstance(source, StageResult) else source
    tokenizer = load_tokenizer(path)
    found = from_pretrained(path, dtype)
    cfg = dataclasses.replace(found.cfg, remat=remat)
    return Loaded(cfg, found.params, tokenizer, found.hf_config)
