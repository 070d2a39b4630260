"""Where the optimizer's slots lie on a mesh."""

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import forward
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from models import decoder
from models.params import flatten_names
from models.sharding import MESH_AXES
from train.optim import OptimizerConfig, make_optimizer
from train.plan_pieces import abstract_params
from train.state import moment_shardings


@pytest.fixture(scope="module")
def params():
    mesh = AbstractMesh((1, 2, 2, 1), MESH_AXES, (AxisType.Auto,) * 4)
    return abstract_params(decoder.param_shapes(forward.TINY), mesh)


def specs(tx, params):
    shape = jax.eval_shape(tx.init, params)
    found = flatten_names(moment_shardings(tx, shape, params))
    return {name: sharding.spec for name, sharding in found.items()}


def test_factored_moments_and_counters_are_whole(params):
    """Adafactor: rows and columns of matrices on all devices, what is not factored as
    the parameter lies."""
    matrices = jax.tree.map(  # large enough to be factored
        lambda x: jax.ShapeDtypeStruct(
            tuple(128 * n for n in x.shape), x.dtype, sharding=x.sharding
        ),
        params,
    )
    found = specs(make_optimizer(OptimizerConfig("adafactor"), 10, params).tx, matrices)
    kernel = "layers/mlp/up/kernel"
    for slot in ("v_row", "v_col"):
        (spec,) = (s for n, s in found.items() if n.endswith(f"{slot}/{kernel}"))
        assert spec == P()
    adam = specs(make_optimizer(OptimizerConfig(), 10, params).tx, params)
    moments = [s for n, s in adam.items() if n.endswith(kernel)]
    assert moments == [P(None, "fsdp", "tensor")] * 2
    assert all(s == P() for n, s in adam.items() if n.endswith("count"))


def test_a_slot_without_a_sharding_is_named(params):
    """Slots like a parameter in name only, and slots of no parameter."""
    squares = optax.GradientTransformation(
        lambda p: optax.TraceState(
            jax.tree.map(lambda x: jnp.zeros((x.shape[-1], x.shape[-1] + 1)), p)
        ),
        None,
    )
    with pytest.raises(ValueError, match=r"optimizer's trace/embed/embedding of shape"):
        specs(squares, params)
    history = optax.GradientTransformation(lambda p: {"seen": jnp.zeros(7)}, None)
    with pytest.raises(ValueError, match=r"optimizer's seen of shape \(7,\)"):
        specs(history, params)
