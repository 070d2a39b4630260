"""Sampling from an encoder-decoder, as stages of experiments do it, to be planned.

Its functions are those of `models.encoder_decoder`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from models import encoder_decoder, sampler, t5, t5_files
from models.params import flatten_names
from models.sharding import ROWS, fill_rows, fitting, param_shardings
from models.t5 import T5Config
from train.commands import MeshConfig
from train.plan_pieces import Given, Piece, placed
from train.plan_sampling import sampling_rules
from train.ppo_run import SamplingSettings


@dataclasses.dataclass(frozen=True)
class SourceRun:
    """A step: responses to a group of sources, `samples` of each.

    `sampling.temperature` 0 is greedy.
    """

    max_new_tokens: int
    samples: int = 1
    sampling: SamplingSettings = SamplingSettings()
    dtype: str = "bfloat16"
    remat: str = "none"
    mesh: MeshConfig = MeshConfig()


def source_pieces(cfg: SourceRun, given: Given, mesh: Mesh) -> list[Piece]:
    """The encoder, on the sources of a group, and a step of decoding all its rows."""
    model: T5Config = given.model
    shapes = t5.param_shapes(model)
    params = jax.tree.map(placed, shapes, param_shardings(shapes, mesh, t5_files.RULES))
    count = encoder_decoder.group_size(cfg.sampling.slots, cfg.samples)
    count = fill_rows(sampler.power_of_two(count), mesh)
    rows, width = count * cfg.samples, sampler.bucket(given.prompt_length)
    tokens = jax.ShapeDtypeStruct((count, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((count,), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    rules = sampling_rules(cfg.sampling)

    def spread(x):
        axes = (None, ROWS, "tensor", None, None) if x.ndim == 5 else (None,)
        return placed(x, NamedSharding(mesh, fitting(x.shape, mesh, *axes)))

    source = jax.eval_shape(partial(t5.read_source, model), params, tokens, lengths)
    source = jax.tree.map(spread, source)
    most = cfg.max_new_tokens
    encoder, decoder = _flops(model, width, most)
    return [
        Piece(
            "encoder",
            lambda: encoder_decoder.read.lower(model, params, tokens, lengths),
            {"params": params},
            1,
            encoder * count * width,
        ),
        Piece(
            "decode step",
            lambda: encoder_decoder.respond.lower(
                model, rules, params, source, keys, most=most
            ),
            {"params": params, "sources": (source.keys, source.values)},
            most,
            decoder * rows,
        ),
    ]


def _flops(cfg: T5Config, width: int, most: int) -> tuple[float, float]:
    """Of the encoder for a token of a source, and of a decoding step for a row.

    Two per parameter of a matrix product, and attention. The encoder takes the keys and
    values that the decoder sees, too; of its own tokens a row sees `most`.
    """
    sizes = {n: x.size for n, x in flatten_names(t5.param_shapes(cfg)).items()}
    kernels = {name: n for name, n in sizes.items() if name.endswith("kernel")}
    if cfg.tied:
        kernels["lm_head"] = sizes["embed/embedding"]
    read = ("encoder/", "decoder/layers/cross/k/", "decoder/layers/cross/v/")
    of_source = sum(n for name, n in kernels.items() if name.startswith(read))
    of_row = sum(kernels.values()) - of_source
    seen = 4.0 * cfg.n_heads * cfg.head_dim
    return (
        2.0 * of_source + seen * cfg.n_layers * width,
        2.0 * of_row + seen * cfg.n_decoder_layers * (width + most),
    )
