"""Our parameters -> their tensors -> our parameters is the identity, slice by slice."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from helpers import forward
from hypothesis import given, settings
from hypothesis import strategies as st

from models import hf_weights
from models.config import RopeConfig
from models.decoder import param_shapes
from models.errors import CheckpointError
from models.params import flatten_names

OPT = dict(
    norm="layer", mlp="relu", positions="learned", position_offset=2, max_position=3,
    rope=RopeConfig(),
)  # fmt: skip


@st.composite
def configs(draw):
    """(model_type, config) over small shapes, with any biases that the map knows."""
    model_type = draw(st.sampled_from(sorted(hf_weights.MAPS)))
    kv_heads = draw(st.integers(1, 3))
    native = model_type not in ("internlm2", "opt")
    return model_type, dataclasses.replace(
        forward.TINY,
        **(OPT if model_type == "opt" else {}),
        vocab_size=draw(st.integers(1, 7)),
        d_model=draw(st.integers(1, 5)),
        n_layers=draw(st.integers(1, 3)),
        n_heads=kv_heads * draw(st.integers(1, 3)),
        n_kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 2)),
        d_ff=draw(st.integers(1, 5)),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        mlp_bias=model_type != "internlm2" and draw(st.booleans()),
        qk_norm=native and draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )


def numbered(cfg):
    """{our name: array} whose elements are all different."""
    start, flat = 0, {}
    for name, leaf in flatten_names(param_shapes(cfg)).items():
        size = math.prod(leaf.shape)
        flat[name] = np.arange(start, start + size).reshape(leaf.shape)
        start += size
    return flat


def export(cfg, places, flat):
    """{their name: tensor}."""
    return {
        name: hf_weights.write(
            group,
            {p.name: flat[p.name] if i is None else flat[p.name][i] for p in group},
        )
        for name, (group, i) in hf_weights.tensors(places, cfg.n_layers).items()
    }


@settings(max_examples=25, deadline=None)
@given(configs(), st.data())
def test_round_trip_of_slices(case, data):
    """Every element is stored once, and any slice of ours is read back from theirs."""
    model_type, cfg = case
    flat = numbered(cfg)
    places = hf_weights.decoder_places(cfg, model_type)
    theirs = export(cfg, places, flat)
    everything = np.concatenate([x.ravel() for x in theirs.values()])
    assert sorted(everything) == list(range(sum(x.size for x in flat.values())))
    for place in places:
        bounds = [
            sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
            for n in place.our_shape
        ]
        index = tuple(slice(a, b) for a, b in bounds if a < b)
        if len(index) < len(bounds):
            continue
        layer = data.draw(st.integers(0, cfg.n_layers - 1)) if place.stacked else None
        ours = flat[place.name] if layer is None else flat[place.name][layer]
        got = hf_weights.read(place, layer, index, lambda n, i: theirs[n][i])
        np.testing.assert_array_equal(got, ours[index], err_msg=place.name)


def test_reads_no_more_than_the_slice():
    """A slice over whole kv heads costs exactly its own elements, fused or not."""
    cfg = dataclasses.replace(forward.TINY, qkv_bias=True)
    for model_type in ("llama", "internlm2"):
        places = hf_weights.decoder_places(cfg, model_type)
        theirs = export(cfg, places, numbered(cfg))
        for place in places:
            count = []

            def read(name, index, theirs=theirs, count=count):
                count.append(theirs[name][index].size)
                return theirs[name][index]

            # The second half of every axis: whole kv heads, as TINY has two.
            index = tuple(slice(n // 2, n) for n in place.our_shape)
            got = hf_weights.read(place, 0, index, read)
            assert sum(count) == got.size, place.name


def test_llama_layout_by_hand():
    """q_proj is [N*H, D] with the heads slow; o_proj is [D, N*H]."""
    places = {p.name: p for p in hf_weights.decoder_places(forward.TINY, "llama")}
    N, H, D = 4, 4, 16
    q = np.arange(N * H * D).reshape(N * H, D)
    out = np.arange(D * N * H).reshape(D, N * H)
    whole = (slice(None),) * 3
    read = hf_weights.read
    got = read(places["layers/attn/q/kernel"], 1, whole, lambda n, i: q[i])
    assert got[3, 2, 1] == q[2 * H + 1, 3]
    got = read(places["layers/attn/out/kernel"], 1, whole, lambda n, i: out[i])
    assert got[2, 1, 3] == out[3, 2 * H + 1]


def test_order_of_tensors():
    """Embeddings, layer after layer, final norm and head: shards hold whole layers."""
    places = hf_weights.decoder_places(forward.TINY, "qwen2")
    names = list(hf_weights.tensors(places, 2))
    assert names[0] == "model.embed_tokens.weight"
    assert names[-2:] == ["model.norm.weight", "lm_head.weight"]
    layers = [name.split(".")[2] for name in names[1:-2]]
    assert layers == sorted(layers) and set(layers) == {"0", "1"}


def test_parameters_without_a_tensor_are_named():
    cfg = dataclasses.replace(forward.TINY, qk_norm=True)
    with pytest.raises(CheckpointError, match="layers/attn/k_norm/scale"):
        hf_weights.decoder_places(cfg, "internlm2")


def test_every_parameter_has_a_place():
    """All optional parameters at once are covered by the Llama map."""
    cfg = dataclasses.replace(
        forward.TINY, qkv_bias=True, out_bias=True, mlp_bias=True, qk_norm=True
    )
    shapes = param_shapes(cfg)
    for place in hf_weights.decoder_places(cfg, "llama"):
        leaf = flatten_names(shapes)[place.name]
        layers = (cfg.n_layers,) if place.stacked else ()
        assert leaf.shape == layers + place.our_shape
    assert len(jax.tree.leaves(shapes)) == len(hf_weights.LLAMA)
