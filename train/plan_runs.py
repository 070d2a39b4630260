"""The jitted functions of the runs of `train/`, with abstract arguments.

For each of the commands sft, reward, dpo and ppo, and for sampling and scoring on their
own: the same functions as the command jits, given shapes and shardings in the place of
arrays. Nothing here computes.

Letters: B rows, T columns, L layers.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from data.batch import LabelBatch, PairBatch
from data.pairs import PreferenceBatch
from models import decoder, reward_model
from models.config import DecoderConfig
from models.t5 import T5Config
from train import decoder as train_decoder
from train.decoder import flops_per_token
from train.dpo import DPOConfig, dpo_loss
from train.errors import ConfigError
from train.lora import check_lora
from train.optim import make_optimizer
from train.plan_pieces import (
    STEPS,
    Given,
    Piece,
    abstract_adapters,
    abstract_params,
    abstract_state,
    row_array,
    token_batch,
)
from train.plan_ppo import ppo_pieces
from train.plan_sampling import SampleRun, ScoreRun, sample_pieces, score_pieces
from train.plan_sources import SourceRun, source_pieces
from train.ppo_run import RunConfig
from train.preference import pair_log_probs
from train.reference import pair_chunk
from train.reward import RewardConfig
from train.reward_terms import score_loss
from train.sft import SFTConfig
from train.step import make_train_step


def _pair_batch(rows: int, length: int, mesh: Mesh) -> PairBatch:
    side, each = token_batch(rows, length, mesh), row_array(mesh, (rows,))
    return PairBatch(side, side, each, each, each)


def _update(
    cfg, model, shapes, loss_fn, batch, tokens: int, mesh: Mesh, adapters=None
) -> Piece:
    """The train step that every command but PPO's is made of."""
    if adapters is None:
        params, constants, noise = abstract_params(shapes, mesh), (), None
        held = {"params": params}
    else:
        params, constants, noise = adapters.trained, (adapters.base,), adapters.noise
        held = {"params": adapters.base, "adapters": params}
    optimizer = make_optimizer(cfg.optimizer, STEPS, params)
    state = abstract_state(params, optimizer)
    step = make_train_step(
        loss_fn, optimizer, accum=cfg.accum, state=state, noise=noise
    )
    frozen = adapters is not None
    return Piece(
        "update",
        lambda: step.lower(state, batch, *constants),
        {**held, "optimizer": state.opt_state, "batch": batch},
        1,
        flops_per_token(model, shapes, cfg.length, frozen=frozen) * tokens,
    )


def _adapters(cfg, model, shapes, mesh: Mesh):
    """What a run with `lora` trains, and beside what; None without."""
    if cfg.lora is None:
        return None
    check_lora(model, cfg.lora, cfg.optimizer, lambda _: shapes)
    return abstract_adapters(shapes, cfg.lora, mesh)


def sft_pieces(cfg: SFTConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """The update, on rows of full length."""
    model = given.model
    shapes = decoder.param_shapes(model)
    adapters = _adapters(cfg, model, shapes, mesh)
    loss_fn = train_decoder.decoder_loss(model, mesh, adapters)
    batch = token_batch(cfg.batch_size, cfg.length, mesh)
    tokens = cfg.batch_size * cfg.length
    return [_update(cfg, model, shapes, loss_fn, batch, tokens, mesh, adapters)]


def reward_pieces(cfg: RewardConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """The update, on labelled rows or on pairs."""
    model = dataclasses.replace(given.model, tie_embeddings=False)
    tokens = cfg.batch_size * cfg.length
    if given.pairs:
        batch, tokens = _pair_batch(cfg.batch_size, cfg.length, mesh), 2 * tokens
    else:
        t = token_batch(cfg.batch_size, cfg.length, mesh)
        batch = LabelBatch(t.tokens, t.weights, t.weights, t.positions, t.segment_ids)
    shapes = reward_model.param_shapes(given.model)
    adapters = _adapters(cfg, model, shapes["decoder"], mesh)
    if adapters is not None:  # as `train.reward.adapt_reward`: the head in float32
        head = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), shapes["head"]
        )
        head = abstract_params({"head": head}, mesh)
        adapters = adapters._replace(trained={"adapters": adapters.trained, **head})
    loss_fn = score_loss(given.model, given.pairs, adapters)
    return [_update(cfg, model, shapes, loss_fn, batch, tokens, mesh, adapters)]


def dpo_pieces(cfg: DPOConfig, given: Given, mesh: Mesh) -> list[Piece]:
    """The reference's log-probs, of every pair once, and the update."""
    model = given.model
    batch = PreferenceBatch(
        _pair_batch(cfg.batch_size, cfg.length, mesh),
        row_array(mesh, (cfg.batch_size, 2)),
    )
    tokens = 2 * cfg.batch_size * cfg.length
    shapes = decoder.param_shapes(model)
    adapters = _adapters(cfg, model, shapes, mesh)
    loss_fn = dpo_loss(model, cfg.preference, mesh, adapters)
    update = _update(cfg, model, shapes, loss_fn, batch, tokens, mesh, adapters)
    if cfg.preference.reference_free:
        return [update]
    params = abstract_params(shapes, mesh) if adapters is None else adapters.base

    def log_probs(params, pairs):
        chunk = pair_chunk(model, pairs, mesh)
        return pair_log_probs(model, params, pairs, chunk=chunk)[0]

    score = jax.jit(log_probs)
    reference = Piece(
        "reference",
        lambda: score.lower(params, batch.pairs),
        {"params": params, "batch": batch.pairs},
        1 / cfg.epochs if cfg.steps is None else 1,
        flops_per_token(model, shapes, cfg.length) / 3 * tokens,
    )
    return [reference, update]


class Kind(NamedTuple):
    """A kind of run: what it is called, its functions, its rows, the keys to show.

    rows: (key of the rows of an update, that of its micro-batches), None without one
    """

    name: str
    pieces: Callable[[Any, Given, Mesh], list[Piece]]
    rows: tuple[str, str] | None
    shown: tuple[str, ...]


_TRAINED = ("batch_size", "accum", "length")
RUNS = {
    SFTConfig: Kind("sft", sft_pieces, _TRAINED[:2], _TRAINED),
    RewardConfig: Kind("reward", reward_pieces, _TRAINED[:2], _TRAINED),
    DPOConfig: Kind("dpo", dpo_pieces, _TRAINED[:2], _TRAINED),
    RunConfig: Kind(
        "ppo",
        ppo_pieces,
        ("ppo.minibatch", "ppo.accum"),
        ("ppo.minibatch", "ppo.accum", "sampling.slots"),
    ),
    SampleRun: Kind(
        "sampling", sample_pieces, None, ("samples", "max_new_tokens", "sampling.slots")
    ),
    ScoreRun: Kind("scores", score_pieces, None, ("rows", "length")),
    SourceRun: Kind(
        "sampling, encoder-decoder",
        source_pieces,
        None,
        ("samples", "max_new_tokens", "sampling.slots"),
    ),
}
NAMES = {cls: kind.name for cls, kind in RUNS.items()}
OPTIONAL = ("prefix", "optimizer.kind", "lora.rank", "lora.base")


def rows_of(cfg) -> tuple[str, int, int] | None:
    """(key, rows of an update, micro-batches) of a run; None where it has no update."""
    keys = RUNS[type(cfg)].rows
    if keys is None:
        return None
    return (f"config.{keys[0]}", *operator.attrgetter(*keys)(cfg))


def settings(cfg) -> dict:
    """The settings of a run that decide about memory and time, by their keys."""

    def get(key):
        found = cfg
        for name in key.split("."):
            found = getattr(found, name, None)
        return found

    own = {key: get(key) for key in (*RUNS[type(cfg)].shown, "dtype", "remat")}
    return own | {key: get(key) for key in OPTIONAL if get(key)}


def left_out(cfg) -> tuple[str, ...]:
    """What a run computes on devices that no plan has."""
    if not isinstance(cfg, RunConfig):
        held_out = cfg.eval_data is not None or cfg.eval_fraction
        return ("evaluation (a forward pass of the held-out rows)",) if held_out else ()
    found = ["slots.insert (prefilled prompts are copied into the cache)"]
    if cfg.ppo.fit_critic:
        found.append("the least squares of the critic's head, once")
    if cfg.validation is not None or cfg.loop.keep_best:
        found.append("validation (decode step and prefill, greedily)")
    return tuple(found)


def on_tpu(model: DecoderConfig | T5Config, cfg) -> DecoderConfig | T5Config:
    """An architecture as a TPU computes it in a run."""
    if isinstance(model, T5Config):
        return dataclasses.replace(model, dtype=cfg.dtype)
    return dataclasses.replace(
        model,
        dtype=cfg.dtype,
        remat=cfg.remat,
        attention=cfg.attention,
        layer_loop="scan",
    )


def pieces(cfg, given: Given, mesh: Mesh) -> list[Piece]:
    """The functions of a run of one of these kinds.

    Raises ConfigError for an encoder-decoder, of which nothing but sampling is planned.
    """
    if isinstance(given.model, T5Config) != isinstance(cfg, SourceRun):
        raise ConfigError(
            f"--model: {NAMES[type(cfg)]} of {type(given.model).__name__} cannot be "
            "planned; of an encoder-decoder sampling can, and nothing else"
        )

    def on_mesh(model):
        return None if model is None else dataclasses.replace(model, mesh=mesh)

    given = given._replace(
        model=on_mesh(given.model), reward_model=on_mesh(given.reward_model)
    )
    return RUNS[type(cfg)].pieces(cfg, given, mesh)
