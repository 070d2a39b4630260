"""Every implementation of attention gives what dense attention gives, gradients too."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import attention as attn
from models import cudnn, decoder, flash
from models.chunked import At, chunked_attention
from models.config import DecoderConfig

T = 20  # one length, so that little is compiled; chunks that divide it and others


def rows_of(lengths: list[list[int]], length: int = T):
    """(positions, segment_ids), int32 [B, length], of packed rows."""
    groups = [[np.zeros(n, int) for n in row] for row in lengths]
    return tuple(jnp.asarray(x) for x in forward.packed(groups, length)[1:])


def draw(B, N, K, H, seed=0, length=T):
    """q, k, v and the gradient of the result."""
    rng = np.random.default_rng(seed)
    shapes = (B, N, length, H), (B, K, length, H), (B, K, length, H), (B, N, length, H)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def dense(window, q, k, v, positions, segments):
    mask = attn.causal_mask(positions, segments)
    if window is not None:
        mask &= attn.window_mask(positions, positions, window)
    return attn.attention(q, (attn.Block(k, v, mask),))


@functools.partial(jax.jit, static_argnums=(0, 1))
def both_ways(attend, window, arrays, positions, segments):
    """The result of (window, q, k, v, positions, segments) and its three gradients."""
    *qkv, g = arrays
    out, pull = jax.vjp(lambda *x: attend(window, *x, positions, segments), *qkv)
    return out, *pull(g)


def in_chunks(chunk, offset=None):
    """Chunked attention; with an offset of zero it must find out where it is."""

    def attend(window, q, k, v, positions, segments):
        at = flash.places(positions, segments).at
        here = None if offset is None else jnp.int32(offset)
        return chunked_attention(q, k, v, at, at, here, window=window, chunk=chunk)

    return attend


def by_cudnn_rules(window, q, k, v, positions, segments):
    at = flash.places(positions, segments).at
    return cudnn.cudnn_attention(q, k, v, at, window=window, implementation="xla")


# Chunks that divide T and that do not, and query heads to a kv head.
CHUNKED = {
    "whole row": (in_chunks(7), (4, 2)),
    "at an offset": (in_chunks(5, 0), (4, 1)),
}
packed_rows = st.lists(
    st.lists(st.integers(1, 12), max_size=4).filter(lambda x: sum(x) <= T),
    min_size=2,
    max_size=2,
)


@settings(max_examples=40, deadline=None)
@example(name="whole row", window=None, lengths=[[], [T]], seed=0)
@example(name="at an offset", window=3, lengths=[[9], [1, 2]], seed=0)
@given(
    name=st.sampled_from(sorted(CHUNKED)),
    window=st.sampled_from((None, 3)),
    lengths=packed_rows,
    seed=st.integers(0, 9),
)
def test_chunks_equal_dense_attention(name, window, lengths, seed):
    """Values and gradients, padding included, over segments, windows and groups."""
    attend, heads = CHUNKED[name]
    arrays, at = draw(2, *heads, 4, seed), rows_of(lengths)
    want = both_ways(dense, window, arrays, *at)
    got = both_ways(attend, window, arrays, *at)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_parts_of_the_queries_are_parts_of_the_result(window):
    """With the place where a part begins, and all keys."""
    (q, k, v, _), (positions, segments) = draw(2, 4, 2, 4), rows_of([[13, 5], [T]])
    at = flash.places(positions, segments).at

    @jax.jit
    def part(q, own, here):
        return chunked_attention(q, k, v, own, at, here, window=window, chunk=4)

    parts = []
    for start in range(0, T, 5):
        some = slice(start, start + 5)
        own = At(at.positions[:, some], at.ids[:, some])
        parts.append(part(q[:, :, some], own, jnp.int32(start)))
    want = dense(window, q, k, v, positions, segments)
    np.testing.assert_allclose(jnp.concatenate(parts, 2), want, atol=2e-6)


def test_bfloat16_is_as_near_to_float32_as_dense_attention_is():
    """And keeps its dtype, in gradients too."""
    arrays, at = draw(2, 4, 2, 8), rows_of([[13, 5], [T]])
    narrow = [x.astype(jnp.bfloat16) for x in arrays]
    exact = both_ways(dense, None, [x.astype(jnp.float32) for x in narrow], *at)
    ours, theirs = (
        both_ways(f, None, narrow, *at) for f in (CHUNKED["whole row"][0], dense)
    )
    for x, a, b in zip(exact, ours, theirs, strict=True):
        assert a.dtype == jnp.bfloat16
        errors = [float(jnp.abs(y.astype(jnp.float32) - x).max()) for y in (a, b)]
        assert errors[0] <= 2 * errors[1]


def test_memory_of_the_gradient_grows_with_t_and_not_with_its_square():
    """Temporary bytes of the compiled program, rows of 4 and of 8 blocks."""

    def temporary(attend, length):
        at = rows_of([[length]], length)
        lowered = both_ways.lower(attend, None, draw(1, 2, 1, 8, 0, length), *at)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    short, long = (temporary(in_chunks(256), n) for n in (1024, 2048))
    assert long < 2.1 * short
    square = 4 * 2048**2  # float32 [T, T] of one head
    assert long < square < temporary(dense, 2048)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("lengths", [[[T], [7]], [[13, 5], [T]]])
def test_rows_for_cudnn_equal_dense_attention(lengths, window):
    """Where there are tokens, of rows that it is given and of those that it is not.

    The call is cuDNN's, carried out by XLA.
    """
    arrays, (positions, segments) = draw(2, 4, 2, 8), rows_of(lengths)
    real = (segments > 0)[:, None, :, None]
    arrays[3] *= real
    want = both_ways(dense, window, arrays, positions, segments)
    got = both_ways(by_cudnn_rules, window, arrays, positions, segments)
    assert all(bool(jnp.isfinite(x).all()) for x in got)
    np.testing.assert_allclose(got[0] * real, want[0] * real, atol=3e-6)
    for a, b in zip(got[1:], want[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize(
    ("segments", "plain"),
    [
        ([[1, 1, 1], [1, 1, 1]], True),
        ([[1, 1, 0], [0, 0, 0]], True),
        ([[1, 1, 1], [1, 2, 2]], False),
        ([[0, 1, 1], [1, 1, 1]], False),
        ([[1, 0, 1], [1, 1, 1]], False),
    ],
)
def test_which_batches_are_not_packed(segments, plain):
    segments = jnp.asarray(segments, jnp.int32)
    assert bool(cudnn.unpacked(flash.places(segments, segments).at.ids)) == plain


def test_the_tpu_kernel_equals_dense_attention():
    """Interpreted: packed rows, a window, two query heads to a kv head."""
    cfg = DecoderConfig(
        vocab_size=8, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8,
        head_dim=64, attention="splash", sliding_window=50,
    )  # fmt: skip
    length = 256
    arrays = draw(1, 2, 1, 64, 0, length)
    at = rows_of([[100, 90]], length)
    assert flash.implementation(cfg, length) == "splash"

    def kernel(window, q, k, v, positions, segments):
        seen = flash.places(positions, segments)._replace(slides=True)
        return flash.attention(cfg, q, k, v, seen)

    want = both_ways(dense, 50, arrays, *at)
    for a, b in zip(both_ways(kernel, 50, arrays, *at), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


SLIDING = dataclasses.replace(
    forward.TINY, sliding_window=3, sliding_layers=(False, True)
)


@functools.cache
def decoder_gradients(**changes):
    """Loss and gradients of a decoder whose layers differ, on packed rows."""
    rng = np.random.default_rng(0)
    groups = [[rng.integers(0, 31, n) for n in row] for row in ([9, 3], [5])]
    batch, params = forward.packed(groups, 12), forward.random_params(SLIDING)
    cfg = dataclasses.replace(SLIDING, **changes)
    found = jax.jit(jax.value_and_grad(forward.nll, 1), static_argnums=0)
    return found(cfg, params, *batch)


@pytest.mark.parametrize(("loop", "remat"), [("scan", "dots"), ("unroll", "none")])
def test_decoders_agree(loop, remat):
    want = decoder_gradients(attention="dense", layer_loop="unroll")
    got = decoder_gradients(attention="chunked", layer_loop=loop, remat=remat)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 + 4e-6 * np.abs(b).max())


def test_short_rows_are_dense_and_long_ones_are_not():
    """And dense by wish; a kernel's own limits are kept."""
    cfg = forward.TINY
    half = dataclasses.replace(cfg, dtype="bf16_compute")
    assert flash.implementation(cfg, flash.LONG - 1) == "dense"
    assert flash.implementation(cfg, flash.LONG) == "chunked"
    assert flash.implementation(half, flash.LONG) == "chunked"  # on a CPU
    for kind, dim, length, chosen in (
        ("dense", 4, 1 << 15, "dense"),
        ("chunked", 4, 16, "chunked"),
        ("splash", 128, 256, "splash"),
        ("splash", 128, 200, "chunked"),
        ("splash", 80, 256, "chunked"),
        ("cudnn", 128, 200, "cudnn"),
        ("cudnn", 136, 200, "chunked"),
    ):
        wish = dataclasses.replace(half, attention=kind, head_dim=dim)
        assert flash.implementation(wish, length) == chosen
    wish = dataclasses.replace(cfg, attention="cudnn", head_dim=64)  # float32
    assert flash.implementation(wish, 256) == "chunked"


def test_long_rows_have_no_masks():
    """The identity: no array of the program has T x T elements."""
    cfg = dataclasses.replace(forward.TINY, attention="chunked", n_layers=1)
    length = 3000
    ints = jax.ShapeDtypeStruct((1, length), jnp.int32)
    run = functools.partial(decoder.forward, cfg)
    traced = jax.make_jaxpr(run)(decoder.param_shapes(cfg), ints, ints, ints)
    dims = [d for d in str(traced).replace("[", ",").replace("]", ",").split(",")]
    assert str(length) in dims
    assert f"{length},{length}" not in str(traced)


def test_an_unknown_implementation_is_an_error():
    with pytest.raises(ValueError, match="attention is 'flash'; expected one of auto"):
        dataclasses.replace(forward.TINY, attention="flash")
