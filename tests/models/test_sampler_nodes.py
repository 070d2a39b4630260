"""Sampling from a base in few bits under adapters, as from the merged parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward
from helpers.forward import TINY
from helpers.sampling import KEY, random_prompts

from models import decoder, sampler, scoring, slots
from models.adapters import LoRAConfig, adapter_shapes, attach, merge
from models.kernels import Adapted, is_node
from models.params import unflatten_names
from models.quantized import NF4, dequantize, quantize_params
from models.sampling import Sampling

LORA = LoRAConfig(rank=3, alpha=6.0)
BASE = forward.random_params(TINY)
PROMPTS = random_prompts(5, 8)


def adapters(lora=LORA):
    """Of normal numbers, b too, as after some training."""
    rng = np.random.default_rng(0)
    shapes = adapter_shapes(decoder.param_shapes(TINY), lora)
    return unflatten_names(
        {
            name: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype)
            for name, x in shapes.items()
        }
    )


def plain(tree):
    """Nodes as the arrays that they stand for."""
    return jax.tree.map(
        lambda x: dequantize(x) if is_node(x) else x, tree, is_leaf=is_node
    )


@pytest.mark.parametrize(
    ("kind", "loop", "rules"),
    [
        ("nf4", "unroll", Sampling(temperature=0.0)),
        ("int8", "scan", Sampling(temperature=0.8, top_k=9)),
    ],
)
def test_nodes_are_sampled_as_what_they_stand_for(kind, loop, rules):
    """Equality of tokens, log-probs allclose: attached or merged, over 4 or 8 bits.

    Log-probs by teacher forcing are the sampler's. Slots are refilled on the way.
    """
    cfg = dataclasses.replace(TINY, layer_loop=loop)
    base = quantize_params(BASE, kind)
    small = adapters()
    trees = attach(base, small, LORA.scale), plain(merge(base, small, LORA.scale))
    got, want = (
        sampler.generate(
            cfg, tree, PROMPTS, rules, KEY, max_new_tokens=8, samples=2, slots=4
        )
        for tree in trees
    )
    np.testing.assert_array_equal(got.tokens, want.tokens)
    forced = scoring.response_log_probs(
        cfg, trees[0], got.prompts, got.prompt_lengths, got.tokens, got.lengths, rules
    )
    for field, teacher in zip(("log_probs", "sampling_log_probs"), forced, strict=True):
        ours = getattr(got, field)
        np.testing.assert_allclose(ours, getattr(want, field), atol=1e-4, err_msg=field)
        np.testing.assert_allclose(ours, teacher, atol=1e-4, err_msg=field)
    bare = sampler.generate(cfg, base, PROMPTS[:1], rules, KEY, max_new_tokens=8)
    assert bare.response(0) != got.response(0)  # the adapters count


def test_what_is_stored_in_few_bits_is_not_copied():
    """Identity: of a base that is prepared once, codes and statistics are those given.

    Adapters are cast to the compute dtype, as every product with them would do.
    """
    cfg = dataclasses.replace(TINY, layer_loop="scan", dtype="bf16_compute")
    base = quantize_params(BASE, "nf4")
    tree = attach(base, adapters(), LORA.scale)
    prepared = slots.prepare(cfg, tree)
    assert jax.tree.structure(prepared) == jax.tree.structure(tree)
    given, made = tree["layers"]["mlp"]["up"], prepared["layers"]["mlp"]["up"]
    for field in ("codes", "absmax", "step", "mean"):
        assert getattr(made["kernel"].base, field) is getattr(
            given["kernel"].base, field
        )
    assert prepared["final_norm"]["scale"] is tree["final_norm"]["scale"]
    assert made["kernel"].a.dtype == made["kernel"].b.dtype == jnp.bfloat16
    assert prepared["lm_head"]["kernel"].dtype == jnp.bfloat16
    tokens, lengths = sampler.pad_rows(PROMPTS, 8, 8)
    a, b = (
        slots.prefill(cfg, t, (), jnp.int32(0), tokens, lengths).logits
        for t in (tree, prepared)
    )
    np.testing.assert_array_equal(a, b)
    same = dataclasses.replace(cfg, dtype="float32")
    assert slots.prepare(same, tree) is tree


def test_unstacked_layers_are_slices_of_nodes():
    """Equality: layer i of a node, widened, is layer i of what the node stands for."""
    base = quantize_params(BASE, "nf4")
    tree = attach(base, adapters(), LORA.scale, dropout=0.5, key=KEY)
    layers = slots.prepare(dataclasses.replace(TINY, layer_loop="unroll"), tree)[
        "layers"
    ]
    whole = plain(base)["layers"]
    for i, layer in enumerate(layers):
        kernel = layer["attn"]["out"]["kernel"]
        assert isinstance(kernel, Adapted) and isinstance(kernel.base, NF4)
        np.testing.assert_array_equal(
            dequantize(kernel.base), whole["attn"]["out"]["kernel"][i]
        )
        np.testing.assert_array_equal(
            kernel.b, tree["layers"]["attn"]["out"]["kernel"].b[i]
        )
        assert kernel.key.shape == ()
