"""The jitted functions of a PPO run with abstract arguments; see `train.plan_runs`.

Rollout (decode step, prefill), the reward model's scores, the update: the functions
that `train.ppo` jits, given shapes and shardings in the place of arrays.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models import decoder, reward_model, sampler, slots
from models.config import DecoderConfig
from models.sampling import Sampling
from train.advantages import ESTIMATORS
from train.decoder import flops_per_token
from train.errors import ConfigError
from train.mesh import replicated
from train.optim import make_optimizer
from train.plan_pieces import (
    STEPS,
    Given,
    Piece,
    abstract_params,
    abstract_state,
    placed,
    row_array,
)
from train.ppo import Models, PPOState, make_update, spread
from train.ppo_config import PPOConfig
from train.ppo_run import RunConfig
from train.ppo_terms import Experience


def ppo_pieces(cfg: RunConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """Rollout (decode step, prefill), the reward model's scores, the update."""
    return [
        *_rollout(cfg, given, mesh),
        *_judging(cfg, given, mesh),
        _ppo_update(cfg, given, mesh),
    ]


def _resident(cfg: RunConfig, given: Given, mesh: Mesh):
    """What PPO keeps in HBM all the time: (models, state, reference, judge)."""
    policy = abstract_params(decoder.param_shapes(given.model), mesh)
    models = Models(given.model, make_optimizer(cfg.optimizer, STEPS, policy))
    judge = critic = None
    if given.reward_model is not None:
        shapes = reward_model.param_shapes(given.reward_model)
        judge = abstract_params(shapes, mesh)
    if ESTIMATORS[cfg.ppo.estimator].critic:
        if judge is None:
            raise ConfigError(
                f"config.ppo.estimator {cfg.ppo.estimator!r} needs a critic; expected "
                "--reward_model or config.reward_model"
            )
        of_critic = dataclasses.replace(cfg.optimizer, frozen=cfg.value_frozen)
        chosen = make_optimizer(of_critic, STEPS, judge)
        models = models._replace(value=given.reward_model, value_optimizer=chosen)
        critic = abstract_state(judge, chosen)
    everywhere = replicated(mesh)
    state = PPOState(
        abstract_state(policy, models.optimizer),
        critic,
        jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    )
    return models, state, policy, judge


def sampling_rules(cfg: RunConfig) -> Sampling:
    """The rules of the config, and an EOS: which token it is changes no program."""
    rules = dataclasses.asdict(cfg.sampling)
    del rules["slots"]
    return Sampling(**rules, eos_ids=(2,))


def _rollout(cfg: RunConfig, given: Given, mesh: Mesh) -> list[Piece]:
    ppo, model, rules = cfg.ppo, given.model, sampling_rules(cfg)
    _, state, reference, judge = _resident(cfg, given, mesh)
    params = _prepared(model, state.policy.params)
    rows = min(cfg.sampling.slots, sampler.power_of_two(ppo.responses))
    width = sampler.bucket(given.prompt_length)
    cache = width + ppo.max_new_tokens
    cache += -cache % 8
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = jax.eval_shape(
        partial(
            slots.empty, model, rules, rows=rows, cache=cache,
            response=ppo.max_new_tokens,
        ),
        key,
    )  # fmt: skip
    group = sampler.power_of_two(min(ppo.prompts, max(1, min(64, rows // ppo.samples))))
    none = jax.ShapeDtypeStruct((), jnp.int32)
    prompts = jax.ShapeDtypeStruct((group, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((group,), jnp.int32)
    cast = jax.tree.leaves(params)[0].dtype != jax.tree.leaves(reference)[0].dtype
    beside = {
        "policy": state.policy.params if cast else None,
        "optimizer": state.policy.opt_state,
        "critic": state.value,
        "reference": reference,
        "reward model": judge,
    }
    forward = flops_per_token(model, params, width) / 3
    step = flops_per_token(model, params, 2 * cache) / 3
    waves = -(-ppo.responses // rows)
    # The decode step first: its compilation chooses where the cache lies.
    return [
        Piece(
            "decode step",
            lambda: slots.decode.lower(model, rules, params, (), none, made, none),
            {"params": params, "cache": (made.keys, made.values)},
            waves * ppo.max_new_tokens,
            step * rows,
            beside,
        ),
        Piece(
            "prefill",
            lambda: slots.prefill.lower(model, params, (), none, prompts, lengths),
            {"params": params},
            -(-ppo.prompts // group),
            forward * group * width,
            {**beside, "cache": (made.keys, made.values)},
        ),
    ]


def _prepared(model: DecoderConfig, params):
    """As `slots.prepare` leaves them: cast to the compute dtype, but for norms."""

    def cast(path, x):
        dtype = x.dtype if path[-1].key == "scale" else model.compute_dtype
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)

    return jax.tree_util.tree_map_with_path(cast, params)


def _judging(cfg: RunConfig, given: Given, mesh: Mesh) -> list[Piece]:
    if not (cfg.rewards.process or cfg.rewards.model) or given.reward_model is None:
        return []
    model = given.reward_model
    _, state, reference, judge = _resident(cfg, given, mesh)
    rows, batch = cfg.ppo.responses, min(64, sampler.power_of_two(cfg.ppo.responses))
    width = sampler.bucket(given.prompt_length + cfg.ppo.max_new_tokens)
    tokens = jax.ShapeDtypeStruct((batch, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    untied = dataclasses.replace(model, tie_embeddings=False)
    return [
        Piece(
            "reward scores",
            lambda: reward_model.padded_scores.lower(model, judge, tokens, lengths),
            {"reward model": judge},
            -(-rows // batch),
            flops_per_token(untied, judge, width) / 3 * batch * width,
            {
                "policy": state.policy.params,
                "optimizer": state.policy.opt_state,
                "critic": state.value,
                "reference": reference,
            },
        )
    ]


def _ppo_update(cfg: RunConfig, given: Given, mesh: Mesh) -> Piece:
    ppo: PPOConfig = cfg.ppo
    models, state, reference, judge = _resident(cfg, given, mesh)
    rows = _experience(ppo, sampler.bucket(given.prompt_length), mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = placed(key, replicated(mesh))
    update = make_update(models, ppo, sampling_rules(cfg), state, spread(mesh))
    width = rows.prompts.shape[1] + ppo.max_new_tokens
    policy = flops_per_token(given.model, reference, width)
    flops = policy * (ppo.epochs + 2 / 3)  # old policy and reference: forward only
    if models.value is not None:
        untied = dataclasses.replace(models.value, tie_embeddings=False)
        flops += flops_per_token(untied, judge, width) * (ppo.epochs + 1 / 3)
    return Piece(
        "update",
        lambda: update.lower(state, reference, rows, key),
        {
            "policy": state.policy.params,
            "optimizer": state.policy.opt_state,
            "critic": state.value,
            "reference": reference,
            "batch": rows,
        },
        1,
        flops * ppo.responses * width,
        {"reward model": judge},
    )


def _experience(cfg: PPOConfig, width: int, mesh: Mesh) -> Experience:
    N, R = cfg.responses, cfg.max_new_tokens
    return Experience(
        prompts=row_array(mesh, (N, width), jnp.int32),
        prompt_lengths=row_array(mesh, (N,), jnp.int32),
        tokens=row_array(mesh, (N, R), jnp.int32),
        lengths=row_array(mesh, (N,), jnp.int32),
        ended=row_array(mesh, (N,), jnp.bool_),
        sampled=row_array(mesh, (N, R)),
        rewards=row_array(mesh, (N, R)),
        baseline=row_array(mesh, (N,)),
    )
