"""Optimizers: a schedule, a clipped gradient, AdamW or Adafactor, and frozen subsets.

Only the trainable part of the parameters is differentiated and has optimizer state; the
frozen part is a separate tree, so neither memory nor the gradient norm knows of it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from models import params as params_lib
from train.errors import ConfigError
from train.settings import at_least, checked, fraction, positive


def _decay(default: float):
    # At 1 the bias correction divides zero by zero.
    return checked(lambda v: 0 <= v < 1, "at least 0 and below 1", default)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """What an optimizer is made of.

    `warmup` is in steps, or below 1 a share of the run; after it the schedule runs from
    `lr` to `end_factor * lr`. Adafactor has no step sizes of its own: `lr` is absolute.
    `clip_norm` None does not clip. `weight_decay` spares vectors (norms and biases).
    `frozen` are name patterns ("embed/*", "*norm*") of parameters that stay.
    """

    kind: Literal["adamw", "adafactor"] = "adamw"
    lr: float = positive(1e-4)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = at_least(0, 0.0)
    end_factor: float = fraction(0.0)
    clip_norm: float | None = positive(1.0)
    weight_decay: float = at_least(0.0, 0.0)
    b1: float = _decay(0.9)
    b2: float = _decay(0.999)
    eps: float = positive(1e-8)
    frozen: tuple[str, ...] = ()


class Optimizer(NamedTuple):
    """A gradient transformation on the trainable subset, and its learning rate."""

    tx: optax.GradientTransformation
    mask: Any  # tree of bools like the parameters, True where trainable
    lr: Callable[[jax.Array], jax.Array]  # of the step, from 0


def make_optimizer(cfg: OptimizerConfig, steps: int, params) -> Optimizer:
    """The optimizer of a run of `steps` updates of `params` (arrays or shapes).

    Raises ConfigError for a frozen pattern that matches nothing, or one too many.
    """
    if cfg.warmup > steps:
        raise ConfigError(
            f"optimizer.warmup: expected at most the {steps} steps of the run, "
            f"got {cfg.warmup:g}"
        )
    try:
        mask = params_lib.trainable_mask(params, cfg.frozen)
    except ValueError as e:
        raise ConfigError(f"optimizer.frozen: {e}") from e
    if not any(jax.tree.leaves(mask)):
        raise ConfigError(f"optimizer.frozen: {cfg.frozen} leaves nothing to train")
    lr = make_schedule(cfg, steps)
    decayed = decay_mask(split(params, mask)[0])
    if cfg.kind == "adamw":
        inner = optax.chain(
            optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps),
            optax.add_decayed_weights(cfg.weight_decay, decayed),
        )
    else:
        inner = optax.chain(
            optax.scale_by_factored_rms(decay_rate=0.8),
            optax.clip_by_block_rms(1.0),
            optax.add_decayed_weights(cfg.weight_decay, decayed),
        )
    clip = optax.identity()
    if cfg.clip_norm is not None:
        clip = optax.clip_by_global_norm(cfg.clip_norm)
    tx = optax.chain(clip, inner, optax.scale_by_learning_rate(lr))
    return Optimizer(tx, mask, lr)


def make_schedule(cfg: OptimizerConfig, steps: int):
    """Learning rate of update s = 0, 1, ..., steps - 1, float32.

    lr * (s + 1) / warmup while s < warmup; then, p = (s - warmup) / (steps - warmup),
    from lr at p = 0 to end_factor * lr at p = 1, which is just after the last update.
    """
    warmup = round(cfg.warmup * steps) if cfg.warmup < 1 else int(cfg.warmup)

    def lr(step):
        s = jnp.asarray(step, jnp.float32)
        p = jnp.clip((s - warmup) / max(1, steps - warmup), 0.0, 1.0)
        if cfg.schedule == "constant":
            factor = jnp.ones_like(p)
        elif cfg.schedule == "linear":
            factor = 1 + p * (cfg.end_factor - 1)
        else:
            half = 0.5 * (1 + jnp.cos(math.pi * p))
            factor = cfg.end_factor + (1 - cfg.end_factor) * half
        if warmup:
            factor = jnp.where(s < warmup, (s + 1) / warmup, factor)
        return cfg.lr * factor

    return lr


def decay_mask(params):
    """True where weight decay applies: not on norm scales, nor on biases.

    By name: stacked over layers, a norm's scale is a matrix like any other.
    """
    names = params_lib.flatten_names(params)
    spared = ("scale", "bias")
    flags = [name.split("/")[-1] not in spared for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), flags)


def split(params, mask):
    """(trainable, frozen): the tree twice, with None in the place of the other part."""
    trainable = jax.tree.map(lambda p, m: p if m else None, params, mask)
    frozen = jax.tree.map(lambda p, m: None if m else p, params, mask)
    return trainable, frozen


def in_float32(params):
    """What optimizers are given, so that moments never take a parameter's dtype."""
    return jax.tree.map(lambda p: p.astype(jnp.float32), params)


def merge(trainable, frozen):
    """The inverse of `split`."""
    return jax.tree.map(
        lambda t, f: f if t is None else t,
        trainable,
        frozen,
        is_leaf=lambda x: x is None,
    )
