"""Kernels that are merged as they are written are those of `merge`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward

from models import merging
from models.adapters import LoRAConfig, adapter_shapes, merge
from models.decoder import param_shapes
from models.kernels import is_node
from models.merging import Merged, by_layer
from models.params import flatten_names, unflatten_names
from models.pretrained import from_pretrained, save_pretrained
from models.quantized import dequantize, quantize_params

CFG = forward.TINY
LORA = LoRAConfig(2, 6.0, targets=("layers/attn/*", "layers/mlp/down/*", "lm_head/*"))


@pytest.fixture(scope="module")
def adapters():
    rng = np.random.default_rng(0)
    shapes = adapter_shapes(param_shapes(CFG), LORA)
    return unflatten_names(
        {n: jnp.asarray(rng.standard_normal(x.shape)) for n, x in shapes.items()}
    )


def base(kind):
    params = forward.random_params(CFG)
    return params if kind is None else quantize_params(params, kind)


def plain(params, adapters, dtype):
    """By `merge`, whole; then what is left in few bits widened."""
    whole = merge(params, adapters, LORA.scale, dtype)
    return jax.tree.map(
        lambda x: dequantize(x, dtype or jnp.float32) if is_node(x) else x,
        whole,
        is_leaf=is_node,
    )


@pytest.mark.parametrize(
    ("kind", "dtype"), [(None, None), ("nf4", None), ("int8", jnp.bfloat16)]
)
def test_layer_by_layer_equals_whole(adapters, kind, dtype):
    """Equality up to the last bit of a sum; each layer is a slice of the whole."""
    params = base(kind)
    wanted = flatten_names(plain(params, adapters, dtype))
    found = flatten_names(by_layer(params, adapters, LORA.scale, dtype))
    assert found.keys() == wanted.keys()
    step = 2e-2 if dtype == jnp.bfloat16 else 2e-6
    for name, value in wanted.items():
        made = found[name]
        assert made.shape == value.shape and made.dtype == value.dtype, name
        value = np.asarray(value, np.float32)
        whole = np.asarray(made).astype(np.float32)
        np.testing.assert_allclose(whole, value, rtol=step, atol=step, err_msg=name)
        if name.startswith("layers"):
            layer = np.asarray(made[1]).astype(np.float32)
            np.testing.assert_array_equal(layer, whole[1], err_msg=name)


def test_a_checkpoint_is_written_a_layer_at_a_time(adapters, tmp_path, monkeypatch):
    """What is read back is the merged model; no array was larger than a layer's."""
    params, sizes, one = base("nf4"), [], merging._merged

    def counted(*args):
        made = one(*args)
        sizes.append((made.ndim, made.size))
        return made

    monkeypatch.setattr(merging, "_merged", counted)
    merged = by_layer(params, adapters, LORA.scale, jnp.float32)
    save_pretrained(tmp_path / "m", CFG, merged)
    again = flatten_names(from_pretrained(tmp_path / "m").params)
    for name, value in flatten_names(plain(params, adapters, jnp.float32)).items():
        np.testing.assert_allclose(again[name], value, rtol=1e-6, atol=1e-6)
    assert len(sizes) == 7 * CFG.n_layers + 1  # seven kernels, and the output's
    assert max(sizes)[1] <= CFG.d_model * max(CFG.d_ff, CFG.vocab_size)


def test_adapters_of_nothing_are_named():
    strange = {"layers": {"attn": {"z": {"kernel": dict(a=np.ones(1), b=np.ones(1))}}}}
    with pytest.raises(ValueError, match="not there: layers/attn/z/kernel/a"):
        by_layer(base(None), strange, 1.0)


def test_nothing_is_computed_before_it_is_asked_for(adapters):
    """Of other leaves than arrays: only the layer that is asked for is touched."""
    asked = []

    class Spread:
        def __init__(self, array, layer=None):
            self.array, self.layer = array, layer
            self.shape = array.shape if layer is None else array.shape[1:]
            self.dtype = array.dtype

        def __getitem__(self, layer):
            return Spread(self.array, layer)

        def __array__(self, dtype=None, copy=None):
            asked.append(self.layer)
            return np.asarray(self.array[self.layer])

    spread = jax.tree.map(Spread, (base("nf4"), adapters))
    found = flatten_names(by_layer(*spread, LORA.scale, jnp.float32))
    down = found["layers/mlp/down/kernel"]
    assert isinstance(down, Merged) and not asked
    wanted = plain(base("nf4"), adapters, jnp.float32)["layers"]["mlp"]["down"]
    np.testing.assert_allclose(down[1], wanted["kernel"][1], rtol=2e-6, atol=2e-6)
    assert set(asked) == {1}
