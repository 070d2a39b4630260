"""matmul is jnp.dot, its gradients are those of jnp.dot, and remat can save it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.matmul import matmul, save_products


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
@pytest.mark.parametrize(
    "given, out",
    [(jnp.float32, None), (jnp.bfloat16, None), (jnp.bfloat16, jnp.float32)],
)
@pytest.mark.parametrize("width", [5, 11])  # narrower and wider than the input
def test_value_and_gradients_equal_those_of_dot(shape, given, out, width):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape, given)
    w = jax.random.normal(keys[1], (8, width), given)
    g = jax.random.normal(keys[2], (*shape[:-1], width), out or given)
    a, back_a = jax.vjp(lambda x, w: matmul(x, w, None, out), x, w)
    b, back_b = jax.vjp(lambda x, w: jnp.dot(x, w, preferred_element_type=out), x, w)
    assert a.dtype == b.dtype and bool((a == b).all())
    tolerance = 1e-6 if given == jnp.float32 else 3e-2
    for p, q in zip(back_a(g), back_b(g), strict=True):
        assert p.dtype == q.dtype == given
        np.testing.assert_allclose(
            np.float32(p), np.float32(q), rtol=tolerance, atol=tolerance
        )


def products(policy):
    """Matrix products in the gradient of tanh(tanh(x w1) w2) under a remat policy."""

    def f(ws):
        y = x
        for w in ws:
            y = jnp.tanh(matmul(y, w))
        return y.sum()

    x, ws = jnp.ones((3, 8)), (jnp.ones((8, 8)), jnp.ones((8, 8)))
    f = jax.checkpoint(f, policy=policy)
    return str(jax.make_jaxpr(jax.grad(f))(ws)).count("dot_general")


def test_saved_products_are_not_computed_again():
    # Two forward and four in the gradients; full remat does the forward ones again.
    assert products(save_products) == 6
    assert products(jax.checkpoint_policies.nothing_saveable) == 8
