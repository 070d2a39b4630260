"""Sampling and scoring on their own, as stages of experiments do them, to be planned.

Their functions are those of `models.slots` and `models.reward_model`, as a PPO run has
them (`train.plan_ppo`), without what else such a run holds in memory.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models import decoder, reward_model, sampler, slots
from models.config import DecoderConfig
from models.sampling import Sampling
from models.sharding import fill_rows
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
    rollout = Rollouts(
        rules=sampling_rules(cfg.sampling),
        rows=rows,
        prompt_length=given.prompt_length,
        max_new_tokens=cfg.max_new_tokens,
        prompts=-(-rows // cfg.samples),
        samples=cfg.samples,
        prefix=cfg.prefix,
    )
    beside = {"policy": loaded} if model.param_dtype != model.compute_dtype else {}
    return rollout_pieces(model, prepared(model, loaded), rollout, mesh, beside)


def sampling_rules(settings: SamplingSettings) -> Sampling:
    """The rules of settings, and an EOS: which token it is changes no program."""
    rules = dataclasses.asdict(settings)
    del rules["slots"]
    return Sampling(**rules, eos_ids=(2,))


class Rollouts(NamedTuple):
    """Responses to be drawn: `samples` to each of `prompts`, `rows` at once at most.

    baseline: whether one more is drawn to each prompt, greedily, afterwards.
    """

    rules: Sampling
    rows: int
    prompt_length: int
    max_new_tokens: int
    prompts: int
    samples: int = 1
    prefix: int = 0
    baseline: bool = False


def rollout_pieces(
    model: DecoderConfig, params, wanted: Rollouts, mesh: Mesh, beside
) -> list[Piece]:
    """Decode step and prefill, as `models.sampler` calls them; before them a prefix.

    Args:
      params: as `slots.prepare` leaves them; beside: what else is in HBM meanwhile.
    """
    total = wanted.prompts * wanted.samples
    rows = fill_rows(min(wanted.rows, sampler.power_of_two(total)), mesh)
    width = sampler.bucket(wanted.prompt_length, sampler.LEAST_WIDTH)
    cache = sampler.bucket(wanted.prompt_length) + wanted.max_new_tokens
    cache += -cache % 8
    make = partial(
        slots.empty, model, wanted.rules, rows=rows, cache=cache,
        response=wanted.max_new_tokens,
    )  # fmt: skip
    made = _like(mesh, jax.eval_shape(lambda: make(jax.random.key(0))))
    group = min(wanted.prompts, max(1, min(64, rows // wanted.samples)))
    filled = fill_rows(sampler.power_of_two(group), mesh)
    prompts = jax.ShapeDtypeStruct((filled, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((filled,), jnp.int32)
    none, shapes = jax.ShapeDtypeStruct((), jnp.int32), decoder.param_shapes(model)

    def flops(length: int) -> float:
        return flops_per_token(model, shapes, length) / 3

    head = 2 * model.vocab_size * model.d_model  # of a token whose logits are wanted
    shared, before = (), []
    if wanted.prefix:
        tokens = jax.ShapeDtypeStruct((sampler.bucket(wanted.prefix),), jnp.int32)
        run = partial(slots.prefill_prefix, model)
        shared = (_like(mesh, jax.eval_shape(run, params, tokens, none)),)
        before.append(
            Piece(
                "prefix",
                lambda: slots.prefill_prefix.lower(model, params, tokens, none),
                {"params": params},
                0,
                (flops(wanted.prefix) - head) * wanted.prefix,
                beside,
            )
        )
    waiting = ()
    if total > rows:  # a group of prompts lies ready until the last has found a slot
        run = partial(slots.prefill, model)
        made_ready = jax.eval_shape(run, params, shared, none, prompts, lengths)
        waiting = _like(mesh, made_ready)
    kept = (made.keys, made.values, *shared)
    waves = -(-total // rows) + wanted.baseline * -(-wanted.prompts // rows)
    return [
        *before,
        Piece(
            "decode step",
            lambda: slots.decode.lower(
                model, wanted.rules, params, shared, none, made, none
            ),
            {"params": params, "cache": kept},
            waves * wanted.max_new_tokens,
            # Causal attention counts half of what a row's last tokens see.
            flops(2 * (wanted.prefix + cache)) * rows,
            {**beside, "prompts": waiting},
        ),
        Piece(
            "prefill",
            lambda: slots.prefill.lower(model, params, shared, none, prompts, lengths),
            {"params": params, "prefix": shared},
            -(-wanted.prompts // group) * (1 + wanted.baseline),
            # Of a prompt's tokens the last alone has logits.
            flops(width + 2 * wanted.prefix) * prompts.size
            - head * (prompts.size - filled),
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
    rows = fill_rows(cfg.rows, mesh)
    tokens = jax.ShapeDtypeStruct((rows, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((rows,), jnp.int32)
    untied = dataclasses.replace(model, tie_embeddings=False)
    forward = flops_per_token(untied, judge, width) / 3
    return [
        Piece(
            "scores",
            lambda: reward_model.padded_scores.lower(model, judge, tokens, lengths),
            {"reward model": judge},
            1,
            forward * rows * width,
        )
    ]
