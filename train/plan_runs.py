"""The jitted functions of the runs of `train/`, with abstract arguments.

For each of the commands sft, reward, dpo and ppo: the same functions as the command
jits, given shapes and shardings in the place of arrays. Nothing here computes.

Letters: B rows, T columns, L layers.
"""

import dataclasses
from functools import partial

import jax
from jax.sharding import Mesh

from data.batch import LabelBatch, PairBatch
from data.pairs import PreferenceBatch
from models import decoder, reward_model
from train import decoder as train_decoder
from train.decoder import flops_per_token
from train.dpo import DPOConfig
from train.optim import make_optimizer
from train.plan_pieces import (
    STEPS,
    Given,
    Piece,
    abstract_params,
    abstract_state,
    row_array,
    token_batch,
)
from train.plan_ppo import ppo_pieces
from train.ppo_run import RunConfig
from train.preference import pair_log_probs, policy_loss
from train.reference import pair_chunk
from train.reward import RewardConfig
from train.reward_terms import label_loss, pairwise_loss
from train.sft import SFTConfig
from train.step import make_train_step


def _pair_batch(rows: int, length: int, mesh: Mesh) -> PairBatch:
    side, each = token_batch(rows, length, mesh), row_array(mesh, (rows,))
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
        _pair_batch(cfg.batch_size, cfg.length, mesh),
        row_array(mesh, (cfg.batch_size, 2)),
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


RUNS = {
    SFTConfig: sft_pieces,
    RewardConfig: reward_pieces,
    DPOConfig: dpo_pieces,
    RunConfig: ppo_pieces,
}


def pieces(cfg, given: Given, mesh: Mesh) -> list[Piece]:
    """The functions of a run of one of the four commands."""

    def on_mesh(model):
        return None if model is None else dataclasses.replace(model, mesh=mesh)

    given = given._replace(
        model=on_mesh(given.model), reward_model=on_mesh(given.reward_model)
    )
    return RUNS[type(cfg)](cfg, given, mesh)
