"""A product with a node is the product with the array that the node stands for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.kernels import Adapted, project
from models.quantized import dequantize, quantize

B, T, D, N, H, R = 4, 3, 16, 2, 4, 3


def draw(*shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(values, jnp.float32)


def base(kind):
    w = draw(D, N, H, seed=1)
    return w if kind is None else quantize(w, kind, (-3,))


def full(kernel):
    return kernel if isinstance(kernel, jax.Array) else dequantize(kernel)


def adapted(kind, *roles, **fields):
    a, b = draw(*roles, D, R, seed=2), draw(*roles, R, N, H, seed=3)
    return Adapted(base(kind), a, b, **fields)


def close(a, b):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantised_product(kind):
    """x W and its gradient in x, of the dequantised W, in float32 and in bfloat16."""
    x, node = draw(B, T, D), base(kind)
    w = dequantize(node).reshape(D, -1)
    y, back = jax.vjp(lambda x: project(x, node, jnp.float32, "highest"), x)
    close(y, x @ w)
    g = draw(B, T, N * H, seed=4)
    close(back(g)[0], g @ w.T)
    narrow = x.astype(jnp.bfloat16)
    y = project(narrow, node, jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, narrow @ w.astype(jnp.bfloat16))
    assert project(narrow, node, jnp.bfloat16, dtype=jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("kind", [None, "nf4", "int8"])
def test_adapted_product(kind):
    """x (W + scale a b): the value and the gradients in x, a and b of that formula."""
    x, node = draw(B, T, D), adapted(kind, scale=0.5)
    w = full(node.base).reshape(D, -1)

    def ours(x, a, b):
        changed = dataclasses.replace(node, a=a, b=b)
        return project(x, changed, jnp.float32, "highest")

    def formula(x, a, b):
        return x @ (w + 0.5 * a @ b.reshape(R, -1))

    y, back = jax.vjp(ours, x, node.a, node.b)
    want, want_back = jax.vjp(formula, x, node.a, node.b)
    close(y, want)
    g = draw(B, T, N * H, seed=4)
    for got, wanted in zip(back(g), want_back(g), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("kind", [None, "nf4"])
def test_the_base_takes_no_gradient(kind):
    """Differentiated with respect to all of it, only a and b have any."""
    node = adapted(kind)
    g = jax.grad(
        lambda node: project(draw(B, T, D), node, jnp.float32).sum(), allow_int=True
    )(node)
    for leaf in jax.tree.leaves(g.base):
        assert leaf.dtype == jax.dtypes.float0 or not np.any(leaf)
    assert np.any(g.a) and np.any(g.b)


def test_roles_share_a_pass():
    """Groups of rows, each with its adapter: as one product for each role apart."""
    x = draw(B, T, D)
    node = adapted("nf4", 2, scale=(0.5, 2.0))
    got = project(x, node, jnp.float32)
    for role, rows in enumerate(jnp.split(x, 2)):
        alone = dataclasses.replace(
            node, a=node.a[role], b=node.b[role], scale=node.scale[role]
        )
        np.testing.assert_allclose(
            jnp.split(got, 2)[role], project(rows, alone, jnp.float32), atol=1e-6
        )
    with pytest.raises(ValueError, match="2 roles need a batch of 2 equal groups"):
        project(x[:3], node, jnp.float32)


def test_dropout_of_the_adapter_input():
    """With a and b the identity and no base, what is left is x / keep, or zero."""
    rate, x = 0.25, 1 + jnp.abs(draw(20, 20, D))
    eye = jnp.eye(D)
    node = Adapted(jnp.zeros((D, D)), eye, eye, jax.random.key(0), 2.0, rate)
    y = np.asarray(project(x, node, jnp.float32))
    kept = y != 0
    np.testing.assert_allclose(y[kept], (2 * x / (1 - rate))[kept], rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / x.size)
    without = dataclasses.replace(node, key=None)
    np.testing.assert_allclose(project(x, without, jnp.float32), 2 * x, rtol=1e-6)
