"""What the plans of all commands are made of: functions to compile, abstract arguments.

Nothing here computes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from data.batch import TokenBatch
from models.adapters import adapter_shapes
from models.config import DecoderConfig
from models.loading import quantized_shapes
from models.params import unflatten_names
from models.sharding import param_shardings
from train.lora import Adapters, LoRASettings
from train.mesh import batch_sharding, replicated
from train.optim import Optimizer, in_float32, split
from train.state import TrainState, moment_shardings

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


def abstract_params(shapes, mesh: Mesh):
    """Parameters as a command loads them on a mesh."""
    return jax.tree.map(placed, shapes, param_shardings(shapes, mesh))


def abstract_adapters(shapes, settings: LoRASettings, mesh: Mesh) -> Adapters:
    """What `train.lora.adapt` makes of a decoder's parameters, as shapes on a mesh."""
    lora, base = settings.config(), quantized_shapes(shapes, settings.base)
    trained = unflatten_names(adapter_shapes(shapes, lora))
    noise = jax.random.key(settings.seed) if lora.dropout else None
    return Adapters(
        abstract_params(trained, mesh), abstract_params(base, mesh), lora, noise
    )


def abstract_state(params, optimizer: Optimizer) -> TrainState:
    """What `train.state.init_state` makes of parameters, as shapes."""
    trainable, _ = split(params, optimizer.mask)
    shape = jax.eval_shape(lambda p: optimizer.tx.init(in_float32(p)), trainable)
    shardings = moment_shardings(optimizer.tx, shape, trainable)
    opt_state = jax.tree.map(placed, shape, shardings)
    everywhere = replicated(jax.tree.leaves(params)[0].sharding.mesh)
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(params, opt_state, step)


def placed(x, sharding):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def token_batch(rows: int, length: int, mesh: Mesh) -> TokenBatch:
    """Abstract [B, T] of a batch, rows spread over the mesh."""
    ints, floats = (
        row_array(mesh, (rows, length), t) for t in (jnp.int32, jnp.float32)
    )
    return TokenBatch(ints, floats, ints, ints)


def row_array(mesh: Mesh, shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
