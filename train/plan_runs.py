"""The jitted functions of the runs of `train/`, with abstract arguments.

For each of the commands sft, reward, dpo and ppo: the same functions as the command
jits, given shapes and shardings in the place of arrays. Nothing here computes.

Letters: B rows, T columns, L layers.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from data.batch import LabelBatch, PairBatch, TokenBatch
from data.pairs import PreferenceBatch
from models import decoder, reward_model, sampler, slots
from models.config import DecoderConfig
from models.sampling import Sampling
from models.sharding import param_shardings
from train import decoder as train_decoder
from train.advantages import ESTIMATORS
from train.decoder import flops_per_token
from train.dpo import DPOConfig
from train.errors import ConfigError
from train.mesh import batch_sharding, replicated
from train.optim import Optimizer, in_float32, make_optimizer, split
from train.ppo import Models, PPOState, _spread, make_update
from train.ppo_config import PPOConfig
from train.ppo_run import RunConfig
from train.ppo_terms import Experience
from train.preference import pair_log_probs, policy_loss
from train.reference import pair_chunk
from train.reward import RewardConfig
from train.reward_terms import label_loss, pairwise_loss
from train.sft import SFTConfig
from train.state import TrainState, _moment_shardings
from train.step import make_train_step

# Long enough that no warm-up is too long for it; no schedule changes a shape.
STEPS = 10**6


class Piece(NamedTuple):
    """A jitted function to be compiled.

    lower: -> jax.stages.Lowered
    held: its arguments by what they hold, trees of shapes with shardings
    beside: what else lies in HBM while it runs
    calls, model_flops: as in `train.plan_terms.Function`
    """

    name: str
    lower: Callable[[], jax.stages.Lowered]
    held: Mapping[str, Any]
    calls: float
    model_flops: float
    beside: Mapping[str, Any] = {}


class Given(NamedTuple):
    """What a plan is told beside the config: see the flags of `train.plan`."""

    model: DecoderConfig
    reward_model: DecoderConfig | None = None
    pairs: bool = False
    prompt_length: int = 256


def pieces(cfg, given: Given, mesh: Mesh) -> list[Piece]:
    """The functions of a run of one of the four commands."""

    def placed(model):
        return None if model is None else dataclasses.replace(model, mesh=mesh)

    given = given._replace(
        model=placed(given.model), reward_model=placed(given.reward_model)
    )
    return RUNS[type(cfg)](cfg, given, mesh)


def abstract_params(shapes, mesh: Mesh):
    """Parameters as a command loads them on a mesh."""
    return jax.tree.map(_placed, shapes, param_shardings(shapes, mesh))


def abstract_state(params, optimizer: Optimizer) -> TrainState:
    """What `train.state.init_state` makes of parameters, as shapes."""
    trainable, _ = split(params, optimizer.mask)
    shape = jax.eval_shape(lambda p: optimizer.tx.init(in_float32(p)), trainable)
    shardings = _moment_shardings(optimizer.tx, shape, trainable)
    opt_state = jax.tree.map(_placed, shape, shardings)
    everywhere = replicated(jax.tree.leaves(params)[0].sharding.mesh)
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(params, opt_state, step)


def _placed(x, sharding):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def token_batch(rows: int, length: int, mesh: Mesh) -> TokenBatch:
    """Abstract [B, T] of a batch, rows spread over the mesh."""
    ints, floats = (_rows(mesh, (rows, length), t) for t in (jnp.int32, jnp.float32))
    return TokenBatch(ints, floats, ints, ints)


def _rows(mesh: Mesh, shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))


def _pair_batch(rows: int, length: int, mesh: Mesh) -> PairBatch:
    side, each = token_batch(rows, length, mesh), _rows(mesh, (rows,))
    return PairBatch(side, side, each, each, each)


def _update(cfg, model, shapes, loss_fn, batch, tokens: int, mesh: Mesh) -> Piece:
    """The train step that every command but PPO's is made of."""
    params = abstract_params(shapes, mesh)
    optimizer = make_optimizer(cfg.optimizer, STEPS, params)
    state = abstract_state(params, optimizer)
    step = make_train_step(loss_fn, optimizer, accum=cfg.accum, state=state)
    return Piece(
        "update",
        lambda: step.lower(state, batch),
        {"params": state.params, "optimizer": state.opt_state, "batch": batch},
        1,
        flops_per_token(model, params, cfg.length) * tokens,
    )


def sft_pieces(cfg: SFTConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """The update, on rows of full length."""
    return [
        _update(
            cfg,
            given.model,
            decoder.param_shapes(given.model),
            train_decoder.decoder_loss(given.model, mesh),
            token_batch(cfg.batch_size, cfg.length, mesh),
            cfg.batch_size * cfg.length,
            mesh,
        )
    ]


def reward_pieces(cfg: RewardConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """The update, on labelled rows or on pairs."""
    model = dataclasses.replace(given.model, tie_embeddings=False)
    tokens = cfg.batch_size * cfg.length
    if given.pairs:
        batch, tokens = _pair_batch(cfg.batch_size, cfg.length, mesh), 2 * tokens
        loss = pairwise_loss
    else:
        t = token_batch(cfg.batch_size, cfg.length, mesh)
        batch = LabelBatch(t.tokens, t.weights, t.weights, t.positions, t.segment_ids)
        loss = label_loss
    shapes = reward_model.param_shapes(given.model)
    loss_fn = partial(loss, given.model)
    return [_update(cfg, model, shapes, loss_fn, batch, tokens, mesh)]


def dpo_pieces(cfg: DPOConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """The reference's log-probs, of every pair once, and the update."""
    model = given.model
    batch = PreferenceBatch(
        _pair_batch(cfg.batch_size, cfg.length, mesh), _rows(mesh, (cfg.batch_size, 2))
    )
    tokens = 2 * cfg.batch_size * cfg.length

    def log_probs(params, pairs):
        chunk = pair_chunk(model, pairs, mesh)
        return pair_log_probs(model, params, pairs, chunk=chunk)

    def loss_fn(params, batch):
        found, lengths = log_probs(params, batch.pairs)
        return policy_loss(cfg.preference, found, batch.reference, lengths, batch.pairs)

    shapes = decoder.param_shapes(model)
    params = abstract_params(shapes, mesh)
    update = _update(cfg, model, shapes, loss_fn, batch, tokens, mesh)
    if cfg.preference.reference_free:
        return [update]
    score = jax.jit(lambda params, pairs: log_probs(params, pairs)[0])
    reference = Piece(
        "reference",
        lambda: score.lower(params, batch.pairs),
        {"params": params, "batch": batch.pairs},
        1 / cfg.epochs if cfg.steps is None else 1,
        flops_per_token(model, params, cfg.length) / 3 * tokens,
    )
    return [reference, update]


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
            lambda: reward_model._padded_scores.lower(model, judge, tokens, lengths),
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
    key = _placed(key, replicated(mesh))
    update = make_update(models, ppo, sampling_rules(cfg), state, _spread(mesh))
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
        prompts=_rows(mesh, (N, width), jnp.int32),
        prompt_lengths=_rows(mesh, (N,), jnp.int32),
        tokens=_rows(mesh, (N, R), jnp.int32),
        lengths=_rows(mesh, (N,), jnp.int32),
        ended=_rows(mesh, (N,), jnp.bool_),
        sampled=_rows(mesh, (N, R)),
        rewards=_rows(mesh, (N, R)),
        baseline=_rows(mesh, (N,)),
    )


RUNS = {
    SFTConfig: sft_pieces,
    RewardConfig: reward_pieces,
    DPOConfig: dpo_pieces,
    RunConfig: ppo_pieces,
}
