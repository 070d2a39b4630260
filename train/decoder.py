"""Trains a decoder on token batches: the loss, the optimizer and the loop put together.

What supervised fine-tuning and the miniatures that start from random weights share.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from data.batch import TokenBatch
from models import decoder
from models import params as params_lib
from models.config import DecoderConfig
from train.errors import ConfigError
from train.evaluate import make_evaluate
from train.loop import Fitted, LoopConfig, fit
from train.lora import Adapters, attached
from train.losses import chunk_columns, token_nll
from train.optim import OptimizerConfig, make_optimizer
from train.state import init_state
from train.step import make_train_step, placer


def train_decoder(
    cfg: DecoderConfig,
    params,
    batches: Sequence[TokenBatch],
    steps: int,
    *,
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (immutable)
    loop: LoopConfig = LoopConfig(),  # noqa: B008 (immutable)
    accum: int = 1,
    eval_batches: Sequence[TokenBatch] | None = None,
    workdir: Path | str | None = None,
    identity: Mapping = {},  # noqa: B006 (never mutated)
    mesh: jax.sharding.Mesh | None = None,
    consume: bool = False,
    adapters: Adapters | None = None,
) -> Fitted:
    """Minimises the weighted token NLL for `steps` updates; see `train.loop.fit`.

    Args:
      params: of `models.decoder`, already where `mesh` wants them.
      batches: `batches[s]` is the batch of update s; endless.
      accum: micro-batches per update.
      eval_batches: held-out batches for `eval/loss` and `eval/perplexity`.
      consume: `params` may be destroyed, which spares a copy of them.
      adapters: whose `trained` are `params`; its base stays as it is.
    """
    cfg = dataclasses.replace(cfg, mesh=mesh)
    rows, length = batches[0].tokens.shape
    check_rows("batch_size", rows * jax.process_count(), accum, mesh)
    chosen = make_optimizer(optimizer, steps, params)
    shapes = params if adapters is None else decoder.param_shapes(cfg)
    flops = flops_per_token(cfg, shapes, length, frozen=adapters is not None)
    state = init_state(params, chosen, copy=not consume)
    place, loss_fn = placer(mesh), decoder_loss(cfg, mesh, adapters)
    constants, noise = (), None
    if adapters is not None:
        constants, noise = (adapters.base,), adapters.noise
    evaluate = None
    if eval_batches is not None:
        evaluate = make_evaluate(loss_fn, eval_batches, place, constants=constants)
    return fit(
        state,
        make_train_step(
            loss_fn,
            chosen,
            accum=accum,
            state=state,
            constants=constants,
            noise=noise,
        ),
        batches,
        steps,
        loop,
        workdir=workdir,
        identity=identity,
        evaluate=evaluate,
        place=place,
        flops_per_token=flops,
    )


def check_rows(name: str, rows: int, accum: int, mesh) -> None:
    """Raises ConfigError unless rows divide into micro-batches and over devices."""
    shards = _row_shards(mesh)
    ways = accum * shards
    if rows % ways:
        fewer = (n for n in range(2, shards + 1) if not shards % n)
        each = next((n for n in fewer if not rows % (ways // n)), None)
        hint = ""
        if each is not None:
            hint = f"; with mesh.tensor={each * mesh.shape['tensor']} they divide"
        raise ConfigError(
            f"{name}: expected a multiple of {ways} (micro-batches x devices that "
            f"rows are split over), got {rows}{hint}"
        )


def flops_per_token(
    cfg: DecoderConfig, params, length: int, *, frozen: bool = False
) -> float:
    """FLOPs of forward and backward per token, for full rows of `length` tokens.

    Six per parameter of a matrix product, four where it is frozen, and causal
    attention; what rematerialisation computes twice is counted once.
    """
    names = params_lib.flatten_names(params)
    used = {n: p.size for n, p in names.items() if n.endswith("kernel")}
    if cfg.tie_embeddings:
        used["embed"] = names["embed/embedding"].size
    attention = 6 * cfg.n_layers * cfg.n_heads * cfg.head_dim * length
    return (4.0 if frozen else 6.0) * sum(used.values()) + attention


def decoder_loss(cfg: DecoderConfig, mesh, adapters: Adapters | None = None):
    """`(params, batch) -> Loss`; of adapters `(trained, batch, base, key=None)`."""

    def loss(params, batch: TokenBatch, base=None, key=None):
        if adapters is not None:
            params = attached(adapters._replace(base=base), params, key)
        rows, length = batch.tokens.shape
        rows = max(1, rows // _row_shards(mesh))
        chunk = chunk_columns(rows, length, cfg.vocab_size)
        return token_nll(cfg, params, batch, chunk=chunk)

    return loss


def _row_shards(mesh) -> int:
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
