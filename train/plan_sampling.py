"""Sampling and scoring on their own, as stages of experiments do them, to be planned.

Their functions are those of `models.slots` and `models.reward_model`, as a PPO run has
them (`train.plan_ppo`), without what else such a run holds in memory.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models import decoder, reward_model, sampler, slots
from models.config import DecoderConfig
from models.sampling import Sampling
from train.commands import MeshConfig
from train.decoder import flops_per_token
from train.plan_pieces import Given, Piece, abstract_params, placed
from train.ppo_run import SamplingSettings


@dataclasses.dataclass(frozen=True)
class SampleRun:
    """A step: as many responses as there are slots, `samples` of each prompt.

    `prefix` tokens precede all prompts; `sampling.temperature` 0 is greedy.
    """

    max_new_tokens: int
    samples: int = 1
    prefix: int = 0
    sampling: SamplingSettings = SamplingSettings()
    dtype: str = "bfloat16"
    remat: str = "none"
    attention: str = "auto"
    mesh: MeshConfig = MeshConfig()


@dataclasses.dataclass(frozen=True)
class ScoreRun:
    """A step: a reward model's scores of `rows` sequences of up to `length` tokens."""

    length: int
    rows: int = 64
    dtype: str = "bfloat16"
    remat: str = "none"
    attention: str = "auto"
    mesh: MeshConfig = MeshConfig()


def sample_pieces(cfg: SampleRun, given: Given, mesh: Mesh) -> list[Piece]:
    """A step of decoding and the prefill of the prompts that fill the slots.

    With a prefix also the pass over it; once in a run, it is not counted.
    """
    model, rows = given.model, cfg.sampling.slots
    loaded = abstract_params(decoder.param_shapes(model), mesh)
    params = prepared(model, loaded)
    beside = {"policy": loaded} if model.param_dtype != model.compute_dtype else {}
    rules = dataclasses.asdict(cfg.sampling)
    del rules["slots"]
    rules = Sampling(**rules, eos_ids=(2,))
    width = sampler.bucket(given.prompt_length)
    cache = width + cfg.max_new_tokens
    cache += -cache % 8
    make = partial(
        slots.empty, model, rules, rows=rows, cache=cache, response=cfg.max_new_tokens
    )
    made = _like(mesh, jax.eval_shape(lambda: make(jax.random.key(0))))
    group = max(1, min(64, rows // cfg.samples))
    prompts = jax.ShapeDtypeStruct((sampler.power_of_two(group), width), jnp.int32)
    lengths = jax.ShapeDtypeStruct(prompts.shape[:1], jnp.int32)
    none, shapes = jax.ShapeDtypeStruct((), jnp.int32), decoder.param_shapes(model)

    def flops(length: int) -> float:
        return flops_per_token(model, shapes, length) / 3

    shared, before = (), []
    if cfg.prefix:
        tokens = jax.ShapeDtypeStruct((sampler.bucket(cfg.prefix),), jnp.int32)
        run = partial(slots.prefill_prefix, model)
        shared = (_like(mesh, jax.eval_shape(run, params, tokens, none)),)
        before.append(
            Piece(
                "prefix",
                lambda: slots.prefill_prefix.lower(model, params, tokens, none),
                {"params": params},
                0,
                flops(cfg.prefix) * cfg.prefix,
                beside,
            )
        )
    kept = (made.keys, made.values, *shared)
    return [
        *before,
        Piece(
            "decode step",
            lambda: slots.decode.lower(model, rules, params, shared, none, made, none),
            {"params": params, "cache": kept},
            cfg.max_new_tokens,
            # Causal attention counts half of what a row's last tokens see.
            flops(2 * (cfg.prefix + cache)) * rows,
            beside,
        ),
        Piece(
            "prefill",
            lambda: slots.prefill.lower(model, params, shared, none, prompts, lengths),
            {"params": params, "prefix": shared},
            math.ceil(rows / cfg.samples / group),
            flops(width + 2 * cfg.prefix) * prompts.size,
            {**beside, "cache": kept[:2]},
        ),
    ]


def prepared(model: DecoderConfig, params):
    """As `slots.prepare` leaves parameters, with their shardings."""
    shapes = jax.eval_shape(partial(slots.prepare, model), params)
    return jax.tree.map(lambda x, p: placed(x, p.sharding), shapes, params)


def _like(mesh: Mesh, state):
    """`Slots` or a `Context` as shapes that lie as the sampler's do."""
    return jax.tree.map(placed, state, slots.shardings(mesh, state))


def score_pieces(cfg: ScoreRun, given: Given, mesh: Mesh) -> list[Piece]:
    """The scores of one batch."""
    model, width = given.model, sampler.bucket(cfg.length)
    judge = abstract_params(reward_model.param_shapes(model), mesh)
    tokens = jax.ShapeDtypeStruct((cfg.rows, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((cfg.rows,), jnp.int32)
    untied = dataclasses.replace(model, tie_embeddings=False)
    forward = flops_per_token(untied, judge, width) / 3
    return [
        Piece(
            "scores",
            lambda: reward_model.padded_scores.lower(model, judge, tokens, lengths),
            {"reward model": judge},
            1,
            forward * cfg.rows * width,
        )
    ]
