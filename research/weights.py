"""Checkpoints that stages start from: a stage that left `hf`, or a folder's path."""

import dataclasses
from typing import Any, NamedTuple

import jax

from data.tokenizers import Tokenizer, load_tokenizer
from models.config import DecoderConfig
from models.pretrained import from_pretrained
from research.stages import StageResult
from train.commands import MeshConfig
from train.mesh import make_mesh


class Loaded(NamedTuple):
    """A language model in memory, with what its export needs."""

    cfg: DecoderConfig
    params: Any
    tokenizer: Tokenizer
    hf_config: dict


def devices(mesh: MeshConfig | None) -> jax.sharding.Mesh | None:
    """The mesh of a stage; None for one device, which a miniature's stages take."""
    if mesh is None:
        return None
    made = make_mesh(**dataclasses.asdict(mesh))
    return None if made.size == 1 else made


def load(
    source: StageResult | str,
    dtype: str,
    remat: str = "none",
    mesh: jax.sharding.Mesh | None = None,
) -> Loaded:
    """Reads a model, split over a mesh, and its tokenizer.

    `remat` is how its training saves memory.
    """
    path = source.folder / "hf" if isinstance(source, StageResult) else source
    tokenizer = load_tokenizer(path)
    found = from_pretrained(path, dtype, mesh)
    cfg = dataclasses.replace(found.cfg, remat=remat)
    return Loaded(cfg, found.params, tokenizer, found.hf_config)
