"""The jitted functions of a PPO run with abstract arguments; see `train.plan_runs`.

Rollout (decode step, prefill), the reward model's scores, the update: the functions
that `train.ppo` jits, given shapes and shardings in the place of arrays.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models import decoder, reward_model, sampler
from models.adapters import adapters_of, attach, detach
from models.sharding import fill_rows
from train.advantages import ESTIMATORS
from train.decoder import flops_per_token
from train.errors import ConfigError
from train.mesh import replicated
from train.optim import make_optimizer
from train.plan_pieces import (
    STEPS,
    Given,
    Piece,
    abstract_adapters,
    abstract_params,
    abstract_state,
    placed,
    row_array,
)
from train.plan_sampling import Rollouts, prepared, rollout_pieces, sampling_rules
from train.ppo import Models, PPOState, make_update, spread
from train.ppo_config import PPOConfig
from train.ppo_roles import WHOLE, adapted, without_output
from train.ppo_run import RunConfig, is_adapter
from train.ppo_terms import Experience


def ppo_pieces(cfg: RunConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """Rollout (decode step, prefill), the reward model's scores, the update."""
    return [
        *_rollout(cfg, given, mesh),
        *_judging(cfg, given, mesh),
        _ppo_update(cfg, given, mesh),
    ]


def _resident(cfg: RunConfig, given: Given, mesh: Mesh):
    """What PPO keeps in HBM all the time: (models, state, reference, judge).

    With adapters the reference is the base of all, under those that the policy starts
    from where there are some (planned with the rank of `lora`); the judge is its
    adapters and head, where its architecture is the policy's, else a model of its own.
    """
    reference = policy = abstract_params(decoder.param_shapes(given.model), mesh)
    judge = critic = None
    if given.reward_model is not None:
        shapes = reward_model.param_shapes(given.reward_model)
        judge = critic = abstract_params(shapes, mesh)
    roles = WHOLE
    if cfg.lora is not None:
        shapes = decoder.param_shapes(given.model)
        policy, reference, lora, _ = abstract_adapters(shapes, cfg.lora, mesh)
        kernel = jax.ShapeDtypeStruct((given.model.d_model, 1), jnp.float32)
        head = abstract_params({"head": {"kernel": kernel}}, mesh)
        critic = {**head, "adapters": without_output(policy)}
        roles = adapted(lora, lora)

        def frozen(x):  # as `ppo_roles.frozen` keeps them
            shape = jax.ShapeDtypeStruct(x.shape, given.model.compute_dtype)
            return placed(shape, x.sharding)

        if cfg.policy_adapter is not None:
            fixed = jax.tree.map(frozen, policy)
            reference = attach(reference, fixed, lora.scale)
        if shares_base(cfg, given):
            judge = {**head, "adapters": jax.tree.map(frozen, critic["adapters"])}
    models = Models(given.model, make_optimizer(cfg.optimizer, STEPS, policy))
    value = None
    if ESTIMATORS[cfg.ppo.estimator].critic:
        if critic is None:
            raise ConfigError(
                f"config.ppo.estimator {cfg.ppo.estimator!r} needs a critic; expected "
                "--reward_model or config.reward_model"
            )
        of_critic = dataclasses.replace(cfg.optimizer, frozen=cfg.value_frozen)
        chosen = make_optimizer(of_critic, STEPS, critic)
        value_model = given.reward_model if cfg.lora is None else given.model
        models = models._replace(value=value_model, value_optimizer=chosen)
        value = abstract_state(critic, chosen)
    everywhere = replicated(mesh)
    state = PPOState(
        abstract_state(policy, models.optimizer),
        value,
        jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    )
    return models._replace(roles=roles), state, reference, judge


def shares_base(cfg: RunConfig, given: Given) -> bool:
    """Whether the reward model is adapters over the policy's base.

    By its folder; without one, where it has the policy's architecture.
    """
    if cfg.lora is None or given.reward_model != given.model:
        return False
    return cfg.reward_model is None or is_adapter(cfg.reward_model)


def _parts(cfg: RunConfig, state: PPOState, reference, judge) -> dict:
    """What `_resident` has, by name: each array once."""
    fixed = {"reference": reference}
    if cfg.lora is not None:
        fixed = {"base": detach(reference), "reference": adapters_of(reference)}
    return {
        "policy": state.policy.params,
        "optimizer": state.policy.opt_state,
        "critic": state.value,
        **fixed,
        "reward model": judge,
    }


def _rollout(cfg: RunConfig, given: Given, mesh: Mesh) -> list[Piece]:
    models, state, reference, judge = _resident(cfg, given, mesh)
    own = models.roles.policy(state.policy.params, reference)
    params = prepared(given.model, own)
    pairs = zip(*map(jax.tree.leaves, (own, params)), strict=True)
    cast = [kept for kept, used in pairs if kept.dtype != used.dtype]
    beside = _parts(cfg, state, reference, judge)
    beside = {n: x for n, x in beside.items() if n not in ("policy", "base")}
    beside["policy"] = cast  # the rest is sampled from as it is kept
    wanted = Rollouts(
        rules=sampling_rules(cfg.sampling),
        rows=cfg.sampling.slots,
        prompt_length=given.prompt_length,
        max_new_tokens=cfg.ppo.max_new_tokens,
        prompts=cfg.ppo.prompts,
        samples=cfg.ppo.samples,
        baseline=ESTIMATORS[cfg.ppo.estimator].greedy,
    )
    return rollout_pieces(given.model, params, wanted, mesh, beside)


def _judging(cfg: RunConfig, given: Given, mesh: Mesh) -> list[Piece]:
    if not (cfg.rewards.process or cfg.rewards.model) or given.reward_model is None:
        return []
    model = given.reward_model
    models, state, reference, judge = _resident(cfg, given, mesh)
    scorer = judge
    if "decoder" not in judge:
        scorer = models.roles.value(judge, reference)
    rows = cfg.ppo.responses
    batch = fill_rows(min(64, sampler.power_of_two(rows)), mesh)
    width = sampler.bucket(given.prompt_length + cfg.ppo.max_new_tokens)
    tokens = jax.ShapeDtypeStruct((batch, width), jnp.int32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    untied = dataclasses.replace(model, tie_embeddings=False)
    shapes = reward_model.param_shapes(model)
    parts = _parts(cfg, state, reference, judge)
    held = ("reward model",) if scorer is judge else ("base", "reward model")
    return [
        Piece(
            "reward scores",
            lambda: reward_model.padded_scores.lower(model, scorer, tokens, lengths),
            {name: parts.pop(name) for name in held},
            -(-rows // batch),
            flops_per_token(untied, shapes, width) / 3 * batch * width,
            parts,
        )
    ]


def _ppo_update(cfg: RunConfig, given: Given, mesh: Mesh) -> Piece:
    ppo: PPOConfig = cfg.ppo
    models, state, reference, judge = _resident(cfg, given, mesh)
    rows = _experience(ppo, sampler.bucket(given.prompt_length), mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = placed(key, replicated(mesh))
    update = make_update(models, ppo, sampling_rules(cfg.sampling), state, spread(mesh))
    width = rows.prompts.shape[1] + ppo.max_new_tokens

    def flops(model, shapes, scored: int) -> float:
        """Per token: of the updates, and of forward passes before them."""
        per_token = partial(flops_per_token, model, shapes, width)
        trained = per_token(frozen=cfg.lora is not None)
        return trained * ppo.epochs + per_token() / 3 * scored

    total = flops(given.model, decoder.param_shapes(given.model), 2)
    if models.value is not None:
        untied = dataclasses.replace(models.value, tie_embeddings=False)
        total += flops(untied, reward_model.param_shapes(models.value), 1)
    parts = _parts(cfg, state, reference, judge)
    judge = parts.pop("reward model")
    return Piece(
        "update",
        lambda: update.lower(state, reference, rows, key),
        {**parts, "batch": rows},
        1,
        total * ppo.responses * width,
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
