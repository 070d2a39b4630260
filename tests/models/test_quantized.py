"""NF4 is the published code, errors keep their bounds, layers and shards are alike."""

import functools
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from models.decoder import param_shapes
from models.params import flatten_names
from models.quantized import (
    NF4_CODE,
    Int8,
    contracted,
    dequantize,
    quantize,
    quantize_params,
)
from models.sharding import MESH_AXES, param_specs

SHAPE = (2, 128, 4, 6)  # layers, inputs in two blocks, heads, head dim
AXES = (-3,)
CODE = np.float32(NF4_CODE)


def kernel(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def codes(node):
    """The codes [..., I, ..., O], one to an element, in NumPy."""
    packed = np.asarray(node.codes)
    axis = packed.ndim + node.axis
    shape = packed.shape
    half = node.block // 2
    packed = packed.reshape(*shape[:axis], -1, half, *shape[axis + 1 :])
    return np.concatenate([packed & 15, packed >> 4], axis + 1).reshape(node.shape)


def per_block(node, values):
    """A number per block, repeated for each of its elements."""
    return np.repeat(np.asarray(values), node.block, axis=node.axis)


def absmax(node):
    """The magnitudes of the blocks as double quantisation kept them."""
    group = node.absmax.shape[-1] // node.step.shape[-1]
    step, mean = (
        np.repeat(np.asarray(x), group, axis=-1) for x in (node.step, node.mean)
    )
    return step * np.asarray(node.absmax) + mean, step


def largest(node, values):
    """The true magnitude of each block."""
    at = values.ndim + node.axis
    blocks = values.reshape(*values.shape[:at], -1, node.block, *values.shape[at + 1 :])
    return np.abs(blocks).max(at + 1)


def test_code_book_is_of_normal_quantiles():
    """Section 3 of the QLoRA paper: 8 quantiles above zero, 7 below, zero, over the
    largest; offset 0.9677083 as in bitsandbytes, whose float32 arithmetic it keeps."""
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(0.9677083, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(0.9677083, 0.5, 8)[:-1]]
    code = np.sort([*above, 0.0, *below]) / above[0]
    np.testing.assert_allclose(NF4_CODE, code, atol=2e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-20, 20), st.booleans())
def test_nf4_error_bound(seed, power, uneven):
    """Nearest code of each block's magnitude; the magnitude to half a step of 8 bits.

    |w - w'| <= magnitude * (half the widest gap of the code) + step / 2.
    """
    values = np.float32(2.0**power) * kernel(seed)
    if uneven:  # blocks of very different size, and one that is all zero
        values *= np.float32(10.0) ** np.arange(-2, 2)[:, None]
        values[0, :64, 0, 0] = 0
    node = quantize(values, "nf4", AXES)
    assert node.shape == SHAPE and node.block == 64
    true, (kept, step) = largest(node, values), absmax(node)
    eps = 1e-6 * true.max()
    assert (np.abs(true - kept) <= step / 2 + eps).all()
    unit = values / np.where(per_block(node, true) > 0, per_block(node, true), 1)
    distance = np.abs(unit[..., None] - CODE)
    chosen = np.take_along_axis(distance, codes(node)[..., None].astype(int), -1)[
        ..., 0
    ]
    np.testing.assert_allclose(chosen, distance.min(-1), atol=1e-6)
    error = np.abs(np.asarray(dequantize(node)) - values)
    gap = np.diff(CODE).max() / 2
    assert (error <= per_block(node, gap * true + step / 2) + eps).all()
    assert (error[values == 0] == 0).all()


def test_values_on_the_code_are_exact():
    """Blocks of equal magnitude that hold only code values come back to the bit."""
    at = np.random.default_rng(0).integers(0, 16, SHAPE)
    at[:, ::64] = 15
    node = quantize(3 * CODE[at], "nf4", AXES)
    np.testing.assert_array_equal(codes(node), at)
    np.testing.assert_array_equal(dequantize(node), 3 * CODE[at])


def test_nf4_equals_bitsandbytes():
    """Same blocks, codes and magnitudes as bitsandbytes' of the same linear layer."""
    functional = pytest.importorskip("bitsandbytes.functional")
    torch = pytest.importorskip("torch")
    values = kernel(shape=(128, 4, 6))
    weight = torch.tensor(values.reshape(128, 24).T.copy())  # [outputs, inputs]
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    packed = packed.numpy().reshape(24, 64)
    theirs = np.stack([packed >> 4, packed & 15], -1).reshape(24, 128)
    node = quantize(values, "nf4", AXES)
    np.testing.assert_array_equal(codes(node).reshape(128, 24).T, theirs)
    np.testing.assert_array_equal(state.code.numpy(), CODE)
    true = largest(node, values).reshape(2, 24).T
    np.testing.assert_allclose(state.absmax.numpy().reshape(24, 2), true, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-20, 20))
def test_int8_error_bound(seed, power):
    """Half a step: 1/127 of the largest magnitude of the output channel."""
    values = np.float32(2.0**power) * kernel(seed)
    node = quantize(values, "int8", AXES)
    step = np.abs(values).max(1, keepdims=True) / 127
    np.testing.assert_allclose(node.scale, step, rtol=1e-6)
    error = np.abs(np.asarray(dequantize(node)) - values)
    assert (error <= step * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_layers_are_apart(kind):
    """A layer of the quantised stack is the stack of that quantised layer."""
    values = kernel()
    values[1] *= 100
    node = quantize(values, kind, AXES)
    whole = dequantize(node)
    for i in range(SHAPE[0]):
        layer = jax.tree.map(lambda x, i=i: x[i], node)
        alone = quantize(values[i], kind, AXES)
        assert jax.tree.structure(layer) == jax.tree.structure(alone)
        for a, b in zip(jax.tree.leaves(layer), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(dequantize(layer), whole[i])
        assert layer.shape == SHAPE[1:]


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4.13), ("int8", 8.01)])
def test_bits_per_parameter(kind, bits):
    """Of a LLaMA 7B gate: 4 + 8 / 64 and two float32 a group; 8 and a float32 a row."""
    shape = jax.ShapeDtypeStruct((32, 4096, 11008), jnp.bfloat16)
    node = jax.eval_shape(lambda x: quantize(x, kind), shape)
    size = 8 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(node))
    assert size / np.prod(shape.shape) == pytest.approx(bits, abs=0.005)


def test_rounded_once():
    """bfloat16 is the float32 kernel rounded, not a product of rounded factors."""
    node = quantize(kernel(), "nf4", AXES)
    wide, narrow = dequantize(node), dequantize(node, jnp.bfloat16)
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


@functools.cache
def quantized_shapes(kind):
    convert = functools.partial(quantize_params, kind=kind)
    return jax.eval_shape(convert, param_shapes(forward.TINY))


def test_what_is_quantised():
    """The kernels of the layers, each along its inputs; all else is untouched."""
    shapes = param_shapes(forward.TINY)
    found = flatten_names(quantized_shapes("int8"))
    kernels = {
        n for n in flatten_names(shapes) if n.startswith("layers") and "norm" not in n
    }
    parts = {f"{n}/{part}" for n in kernels for part in ("codes", "scale")}
    assert set(found) == parts | (set(flatten_names(shapes)) - kernels)
    assert found["layers/attn/q/kernel/scale"].shape == (2, 1, 4, 4)
    assert found["layers/attn/out/kernel/scale"].shape == (2, 1, 1, 16)
    assert contracted("layers/attn/out/kernel", 4) == (-3, -2)
    assert contracted("lm_head/kernel", 2) == (-2,)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_parts_lie_as_their_kernels(kind):
    """Codes are split as their kernel; small parts too, where they divide."""
    mesh = AbstractMesh((2, 2, 2, 1), MESH_AXES)
    shapes = quantized_shapes(kind)
    specs = param_specs(shapes, mesh)
    assert isinstance(specs["layers"]["attn"]["q"]["kernel"], type(
        shapes["layers"]["attn"]["q"]["kernel"]))  # fmt: skip
    specs = flatten_names(specs)
    assert specs["layers/attn/q/kernel/codes"] == P(None, "fsdp", "tensor", None)
    assert specs["layers/mlp/down/kernel/codes"] == P(None, "tensor", "fsdp")
    if kind == "int8":
        assert specs["layers/attn/q/kernel/scale"] == P(None, None, "tensor", None)
        assert specs["layers/mlp/down/kernel/scale"] == P(None, None, "fsdp")
    else:
        # One block of 24 inputs: the scales' input axis cannot be split.
        assert specs["layers/mlp/down/kernel/absmax"] == P(None, None, "fsdp")
        assert specs["layers/attn/out/kernel/step"] == P(None, "tensor", None, None)


def test_refusals():
    with pytest.raises(ValueError, match="kind is 'fp4'; expected one of nf4, int8"):
        quantize(kernel(), "fp4")
    with pytest.raises(ValueError, match="nf4 needs an even axis -2"):
        quantize(np.ones((3, 4), np.float32), "nf4")
    shapes = param_shapes(forward.TINY)
    with pytest.raises(ValueError, match=r"'layers/\*/bias' names no kernel"):
        quantize_params(shapes, "nf4", ("layers/*/bias",))


def test_blocks_divide_their_axis():
    """The largest even divisor of the axis of at most 64, so that none straddles."""
    for size, block in ((4096, 64), (100, 50), (24, 24), (80, 40), (2, 2)):
        node = jax.eval_shape(
            lambda x: quantize(x, "nf4"), jax.ShapeDtypeStruct((size, 8), np.float32)
        )
        assert node.block == block and node.shape == (size, 8)
        assert not isinstance(node, Int8)
