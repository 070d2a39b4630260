"""Flattening and unflattening are inverse; patterns freeze what they name, or raise."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import forward
from hypothesis import given
from hypothesis import strategies as st

from models.decoder import param_shapes
from models.params import count, flatten_names, matches, trainable_mask, unflatten_names

names = st.text("abc_", min_size=1, max_size=3)
trees = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@given(trees)
def test_unflatten_inverts_flatten(tree):
    flat = flatten_names(tree)
    assert unflatten_names(flat) == tree
    assert list(flat.values()) == jax.tree.leaves(tree)


def test_names_of_a_decoder():
    assert set(flatten_names(param_shapes(forward.TINY))) == {
        "embed/embedding", "final_norm/scale", "lm_head/kernel",
        "layers/attn_norm/scale", "layers/mlp_norm/scale",
        "layers/attn/q/kernel", "layers/attn/k/kernel", "layers/attn/v/kernel",
        "layers/attn/out/kernel",
        "layers/mlp/gate/kernel", "layers/mlp/up/kernel", "layers/mlp/down/kernel",
    }  # fmt: skip


def test_matches_the_whole_name():
    assert matches("layers/attn_norm/scale", ["*norm*"])
    assert matches("embed/embedding", ["layers/*", "embed/*"])
    assert not matches("layers/attn/q/kernel", ["attn/*", "kernel", "*NORM*"])
    assert not matches("embed/embedding", [])


def test_frozen_embeddings_and_norms():
    """What chapter 6 freezes: the mask is False exactly there."""
    shapes = param_shapes(forward.TINY)
    mask = trainable_mask(shapes, ["embed/*", "*norm*"])
    frozen = {name for name, flag in flatten_names(mask).items() if not flag}
    assert frozen == {
        "embed/embedding",
        "final_norm/scale",
        "layers/attn_norm/scale",
        "layers/mlp_norm/scale",
    }
    assert all(jax.tree.leaves(trainable_mask(shapes, [])))
    assert jax.tree.structure(mask) == jax.tree.structure(shapes)


def test_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"'emb/\*' matches no parameter.*embed/embed"):
        trainable_mask(param_shapes(forward.TINY), ["*norm*", "emb/*"])


def test_count_in_closed_form():
    """V D (1 or 2) + L (2 D + 2 D (N + K) H + 3 D F) + D."""
    c = forward.TINY
    attention = 2 * c.d_model * (c.n_heads + c.n_kv_heads) * c.head_dim
    layer = 2 * c.d_model + attention + 3 * c.d_model * c.d_ff
    rest = c.vocab_size * c.d_model + c.n_layers * layer + c.d_model
    tied = dataclasses.replace(c, tie_embeddings=True)
    assert count(param_shapes(tied)) == rest
    assert count(param_shapes(c)) == rest + c.vocab_size * c.d_model
    assert count({"a": np.zeros((2, 3)), "b": np.zeros(())}) == 7
