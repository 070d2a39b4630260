"""Adapters on a frozen base: free to attach, equal to merged, alone differentiated."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward
from helpers.devices import run_on_devices
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from models import decoder
from models.adapters import (
    ALL_LINEAR,
    ATTENTION,
    LoRAConfig,
    adapter_shapes,
    attach,
    init_adapters,
    merge,
    stack_roles,
)
from models.kernels import is_node
from models.params import count, flatten_names
from models.quantized import dequantize, quantize_params
from models.sharding import MESH_AXES, param_specs

LORA = LoRAConfig(rank=3, alpha=6.0)
WIDTH = 8


@functools.cache
def base():
    return forward.random_params(forward.TINY)


@functools.cache
def nf4():
    """The base in NF4, and what it stands for, as arrays."""
    nodes = quantize_params(base(), "nf4")
    return nodes, jax.tree.map(
        lambda x: dequantize(x) if is_node(x) else x, nodes, is_leaf=is_node
    )


def adapters(seed=0, lora=LORA):
    """Of normal numbers, b too, as after some training."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(
        lambda: init_adapters(
            decoder.param_shapes(forward.TINY), lora, jax.random.key(0)
        )
    )
    return jax.tree.map(
        lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), shapes
    )


def batch(rows=2):
    tokens = np.random.default_rng(0).integers(0, 31, (rows, WIDTH))
    return forward.rows(tokens, WIDTH)


@functools.cache
def reference():
    """Loss and gradient of the adapters over plain arrays, by merging (float32)."""

    @jax.jit
    def run(adapters):
        return jax.value_and_grad(
            lambda a: forward.nll(
                forward.TINY, merge(nf4()[1], a, LORA.scale), *batch()
            )
        )(adapters)

    return run(adapters())


@pytest.mark.parametrize(
    ("loop", "remat"), [("scan", "none"), ("scan", "full"), ("unroll", "dots")]
)
def test_training_over_nf4_is_training_over_what_it_stands_for(loop, remat):
    """Loss and the adapters' gradient are those over the dequantised, merged base."""
    cfg = dataclasses.replace(forward.TINY, layer_loop=loop, remat=remat)

    @jax.jit
    def run(adapters, base):
        return jax.value_and_grad(
            lambda a: forward.nll(cfg, attach(base, a, LORA.scale), *batch())
        )(adapters)

    loss, gradient = run(adapters(), nf4()[0])
    want_loss, want = reference()
    np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
    want = flatten_names(want)
    for name, value in flatten_names(gradient).items():
        atol = 1e-6 + 5e-6 * np.abs(want[name]).max()
        np.testing.assert_allclose(value, want[name], atol=atol, err_msg=name)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_memory_of_a_step_does_not_hold_the_base_in_full(remat):
    """A scanned step over NF4 needs the room of few layers, not of all 64 in bfloat16.

    Without remat the layers' activations remain; the rows are few for that.
    """
    cfg = dataclasses.replace(
        forward.TINY, d_model=64, d_ff=256, n_heads=1, n_kv_heads=1, head_dim=64,
        n_layers=64, dtype="bf16_compute", layer_loop="scan", remat=remat,
    )  # fmt: skip
    shapes = decoder.param_shapes(cfg)
    nodes = jax.eval_shape(lambda p: quantize_params(p, "nf4"), shapes)
    small = jax.eval_shape(lambda: init_adapters(shapes, LORA, jax.random.key(0)))
    tokens = forward.rows([[1, 2, 3]], 3)

    def step(adapters, nodes):
        return jax.value_and_grad(
            lambda a: forward.nll(cfg, attach(nodes, a, LORA.scale), *tokens)
        )(adapters)

    compiled = jax.jit(step).lower(small, nodes).compile()
    used = compiled.memory_analysis().temp_size_in_bytes
    # The gradient of the adapters is gathered in float32, and returned.
    full_copy = 2 * count(shapes["layers"])
    assert used < full_copy / (4 if remat == "full" else 2), (used, full_copy)


def test_start():
    """b is zero, so nothing changes; a is uniform in +-1/sqrt(inputs), keys decide."""
    shapes = decoder.param_shapes(forward.TINY)
    first, again, other = (
        flatten_names(init_adapters(shapes, LORA, jax.random.key(k))) for k in (0, 0, 1)
    )
    kernels = [
        n for n in flatten_names(shapes) if n.startswith("layers/") and "norm" not in n
    ]
    assert set(first) == {f"{n}/{part}" for n in kernels for part in "ab"}
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if name.endswith("b"):
            assert not np.any(value)
            continue
        bound = 1 / np.sqrt(value.shape[1])
        assert value.shape[2] == 3 and 0.9 * bound < np.abs(value).max() <= bound
        assert not np.array_equal(value, other[name])
        assert not np.array_equal(value[0], value[1])
    assert first["layers/attn/out/kernel/a"].shape == (2, 16, 3)
    assert first["layers/attn/k/kernel/b"].shape == (2, 3, 2, 4)


def test_attaching_computes_nothing():
    """Every array of the result is one that was given; without adapters, all are."""
    small = adapters()
    tree = attach(base(), small, LORA.scale)
    given = {id(x) for x in jax.tree.leaves((base(), small))}
    assert {id(x) for x in jax.tree.leaves(tree)} == given
    assert jax.tree.structure(attach(base(), {}, 1.0)) == jax.tree.structure(base())


def test_published_sizes():
    """159,907,840 numbers of rank 64 on all linear layers of LLaMA 7B (LLaVA-RLHF)."""
    cfg = dataclasses.replace(
        forward.TINY, vocab_size=32000, d_model=4096, n_layers=32, n_heads=32,
        n_kv_heads=32, d_ff=11008, head_dim=128,
    )  # fmt: skip
    shapes = decoder.param_shapes(cfg)
    made = adapter_shapes(shapes, LoRAConfig(64, 16.0))
    assert sum(x.size for x in made.values()) == 159_907_840
    made = adapter_shapes(shapes, LoRAConfig(16, 16.0, targets=ATTENTION))
    assert sum(x.size for x in made.values()) == 32 * 4 * 2 * 4096 * 16


def test_roles_share_one_pass():
    """Policy, value and reward over one base, of different ranks and scales: each
    group of rows has the hidden states that its adapters give alone."""
    wide = LoRAConfig(rank=4, alpha=2.0)
    roles = (adapters(0), adapters(1, wide), jax.tree.map(jnp.zeros_like, adapters(2)))
    scales = (LORA.scale, wide.scale, 1.0)
    inputs = batch(3)
    together = attach(nf4()[0], stack_roles(roles), scales)
    got = forward.logits(forward.TINY, together, *inputs)
    want = forward.logits(forward.TINY, nf4()[1], *(x[2:] for x in inputs))
    np.testing.assert_allclose(got[2:], want, atol=1e-5)
    for i in range(2):
        merged = merge(nf4()[1], roles[i], scales[i])
        alone = forward.logits(forward.TINY, merged, *(x[i : i + 1] for x in inputs))
        np.testing.assert_allclose(got[i : i + 1], alone, atol=2e-5)
    other = adapters(0, LoRAConfig(3, 6.0, targets=ATTENTION))
    with pytest.raises(ValueError, match="roles adapt different kernels: layers/mlp/"):
        stack_roles((roles[0], other))


def test_dropout_needs_a_key():
    """Keys per kernel and per layer are all different; without one nothing is drawn."""
    nodes = attach(base(), adapters(), 1.0, dropout=0.5, key=jax.random.key(0))
    layers = nodes["layers"]
    keys = [layers["attn"][x]["kernel"].key for x in ("q", "k", "v", "out")]
    data = np.concatenate([jax.random.key_data(k) for k in keys])
    assert len(np.unique(data, axis=0)) == 4 * forward.TINY.n_layers
    plain = attach(base(), adapters(), 1.0, dropout=0.5)
    assert plain["layers"]["attn"]["q"]["kernel"].key is None
    first = forward.logits(forward.TINY, nodes, *batch())
    assert np.abs(first - forward.logits(forward.TINY, plain, *batch())).max() > 0.1


def test_output_head_may_be_adapted():
    """lm_head by its name, in float32 logits; merging gives the same."""
    lora = LoRAConfig(2, 2.0, targets=("lm_head/kernel",))
    small = adapters(3, lora)
    assert set(flatten_names(small)) == {"lm_head/kernel/a", "lm_head/kernel/b"}
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16)), jnp.float32)
    a, b = (
        decoder.logits(forward.TINY, join(base(), small, lora.scale), hidden)
        for join in (attach, merge)
    )
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_adapters_are_split_as_their_kernels():
    """a by the inputs, b by the outputs; few kv heads stay whole, rank always does."""
    shapes = flatten_names(
        param_specs(adapters(), AbstractMesh((1, 2, 4, 1), MESH_AXES))
    )
    assert shapes["layers/attn/q/kernel/a"] == P(None, "fsdp", None)
    assert shapes["layers/attn/q/kernel/b"] == P(None, None, "tensor", None)
    assert shapes["layers/attn/v/kernel/b"] == P(None, None, None, None)
    assert shapes["layers/mlp/down/kernel/a"] == P(None, "tensor", None)
    assert shapes["layers/mlp/down/kernel/b"] == P(None, None, "fsdp")


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import jax, numpy as np
from helpers import forward
from jax.sharding import Mesh
from models.adapters import LoRAConfig, attach, init_adapters
from models.quantized import quantize_params
from models.sharding import MESH_AXES, param_shardings
import dataclasses

cfg = dataclasses.replace(forward.TINY, d_model=128, d_ff=256, layer_loop="scan")
base = quantize_params(forward.random_params(cfg), "nf4")
small = init_adapters(forward.random_params(cfg), LoRAConfig(2, 2.0), jax.random.key(0))
small = jax.tree.map(lambda x: x + 0.1, small)
batch = forward.rows(np.arange(24).reshape(4, 6), 6)
want = forward.logits(cfg, attach(base, small, 1.0), *batch)
mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2, 1), MESH_AXES)
base, small = (jax.device_put(t, param_shardings(t, mesh)) for t in (base, small))
got = forward.logits(cfg, attach(base, small, 1.0), *batch)
leaves = jax.tree.leaves((base["layers"], small))
here = sum(x.addressable_shards[0].data.nbytes for x in leaves)
print(json.dumps(dict(
    difference=float(np.abs(want - got).max()), size=float(np.abs(want).max()),
    share=here / sum(x.nbytes for x in leaves))))
"""


def test_eight_devices(tmp_path):
    """Split over fsdp=2 x tensor=2, an NF4 base with adapters gives the same logits."""
    script = tmp_path / "split.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    found = run_on_devices(8, str(script), tmp_path)
    assert found["difference"] < 1e-4 * found["size"]
    assert found["share"] < 0.5  # of four parts, some small ones held twice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rank=0), "lora rank is 0; expected a whole number above 0"),
        (dict(rank=True), "lora rank is True"),
        (dict(alpha=0.0), "lora alpha is 0.0"),
        (dict(dropout=1.0), r"lora dropout is 1.0; expected a number in \[0, 1\)"),
        (dict(targets="layers/*"), "lora targets is 'layers/*"),
        (dict(targets=()), "lora targets is"),
    ],
)
def test_impossible_settings(change, message):
    with pytest.raises(ValueError, match=message):
        LoRAConfig(**{"rank": 2, "alpha": 2.0, **change})


def test_scales():
    assert LoRAConfig(64, 16.0).scale == 0.25
    assert LoRAConfig(64, 16.0, use_rslora=True).scale == 2.0
    assert LoRAConfig(2, 2.0, targets=list(ALL_LINEAR)) == LoRAConfig(2, 2.0)


def test_names_that_are_not_there():
    shapes = decoder.param_shapes(forward.TINY)
    with pytest.raises(
        ValueError, match=r"target 'layers/attn/o/\*' matches no kernel"
    ):
        adapter_shapes(shapes, LoRAConfig(2, 2.0, targets=("layers/attn/o/*",)))
    with pytest.raises(ValueError, match="not there: layers/attn/o$"):
        attach(base(), {"layers": {"attn": {"o": {"kernel": {"a": 0, "b": 0}}}}}, 1.0)
