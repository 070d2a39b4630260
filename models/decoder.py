"""The Llama family and OPT as one decoder: pure functions of (config, params, tokens).

One layer is a Linen module (`models.layers`); the stack is a loop over parameters that
are stacked on axis 0 (`jax.lax.scan`, or unrolled), so that depth costs no compile time
and the same parameters serve training, prefill and decoding.

Letters: B batch, T time, S cache, N heads, K kv heads, H head dim, D model, F ffn,
V vocab, L layers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import attention as attn
from models import flash
from models import rope as rope_lib
from models.config import DecoderConfig
from models.kernels import project
from models.layers import Layer, block_norm
from models.matmul import save_products
from models.sharding import ROWS, constrain

# Unrolling pays on CPU for shallow stacks only: compile time grows with depth.
UNROLL_AT_MOST = 8


class Context(NamedTuple):
    """Keys that precede the tokens of a call: a shared prefix, a prompt, a cache.

    keys, values: [L, B or 1, K, S, H], or a tuple of L arrays [B or 1, K, S, H]
    positions: int32 [B or 1, S], the position of each key in its sequence
    visible: bool [B or 1, S]
    """

    keys: jax.Array | tuple[jax.Array, ...]
    values: jax.Array | tuple[jax.Array, ...]
    positions: jax.Array
    visible: jax.Array


class Cache(NamedTuple):
    """A cache that the one new token of each row enters before it is read.

    keys, values: [L, B, K, S, H], or a tuple of L arrays [B, K, S, H]
    place: int32 [], where the new keys are written
    positions, visible: [B, S], as in `Context`, once the new keys are in

    Written first and read after: the other order makes XLA copy the whole cache at
    every step, because the update could no longer be done in place.
    """

    keys: jax.Array | tuple[jax.Array, ...]
    values: jax.Array | tuple[jax.Array, ...]
    place: jax.Array
    positions: jax.Array
    visible: jax.Array


class Masks(NamedTuple):
    """Masks of the tokens' own block and of each context, in full and in window."""

    full: tuple[jax.Array, ...]
    window: tuple[jax.Array, ...]


def init_params(cfg: DecoderConfig, key):
    """Random parameters: normal(0, init_std) matrices, unit norm scales, zero biases.

    Returns a plain nested dict, layers stacked on axis 0 (see the class `Layer` for the
    names below "layers"); "lm_head" is absent when embeddings are tied, and
    "embed/positions" where positions are rotary. All numbers come from one draw: a draw
    for each shape took seconds to compile on a CPU.
    """
    shapes = param_shapes(cfg)
    matrices = ("kernel", "embedding", "positions")
    drawn = [x.size for n, x in _named(shapes) if n in matrices]
    flat = cfg.init_std * jax.random.normal(key, (sum(drawn),))
    parts = iter(jnp.split(flat, np.cumsum(drawn)[:-1]))
    made = {
        **dict.fromkeys(
            matrices, lambda x: next(parts).reshape(x.shape).astype(x.dtype)
        ),
        "scale": lambda x: jnp.ones(x.shape, x.dtype),
        "bias": lambda x: jnp.zeros(x.shape, x.dtype),
    }
    leaves = [made[name](x) for name, x in _named(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named(tree):
    """(last part of the name, leaf) of every leaf."""
    return [(path[-1].key, x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def param_shapes(cfg: DecoderConfig):
    """The parameter tree as `jax.ShapeDtypeStruct`s, without allocating anything."""
    x = jax.ShapeDtypeStruct((1, 1, cfg.d_model), cfg.compute_dtype)
    half = jax.ShapeDtypeStruct((1, 1, 1, cfg.head_dim // 2), jnp.float32)
    rotation = None if cfg.learned else (half, half)
    mask = jax.ShapeDtypeStruct((1, 1, 1), jnp.bool_)

    def init_layer(x, rotation, masks):
        return Layer(cfg).init(jax.random.key(0), x, rotation, masks, ())["params"]

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, cfg.param_dtype)

    layer = jax.eval_shape(init_layer, x, rotation, (mask,))
    D, V = cfg.d_model, cfg.vocab_size
    shapes = {
        "embed": {"embedding": array(V, D)},
        "layers": jax.tree.map(lambda a: array(cfg.n_layers, *a.shape), layer),
        "final_norm": {"scale": array(D)},
    }
    if cfg.norm == "layer":
        shapes["final_norm"]["bias"] = array(D)
    if cfg.learned:
        rows = cfg.position_offset + cfg.max_position
        shapes["embed"]["positions"] = array(rows, D)
    if not cfg.tie_embeddings:
        shapes["lm_head"] = {"kernel": array(D, V)}
    return shapes


def unstack_layers(params):
    """The same parameters with "layers" as a tuple of L trees (for unrolled loops)."""
    layers = params["layers"]
    depth = jax.tree.leaves(layers)[0].shape[0]
    split = tuple(jax.tree.map(lambda a, i=i: a[i], layers) for i in range(depth))
    return {**params, "layers": split}


def unrolls(cfg: DecoderConfig) -> bool:
    """Whether this config's layer loop is unrolled on the default backend."""
    if cfg.layer_loop != "auto":
        return cfg.layer_loop == "unroll"
    return jax.default_backend() == "cpu" and cfg.n_layers <= UNROLL_AT_MOST


def _masks(cfg, positions, own, contexts) -> Masks:
    """Masks [B, T, S] of the own block (mask, key positions) and of the contexts."""
    B, T = positions.shape
    blocks = [own]
    for context in contexts:
        shape = (context.visible.shape[0], T, context.visible.shape[1])
        seen = jnp.broadcast_to(context.visible[:, None], shape)
        blocks.append((seen, context.positions))
    full = tuple(mask for mask, _ in blocks)
    if cfg.sliding_window is None:
        return Masks(full, full)
    window = tuple(
        mask & attn.window_mask(positions, keys, cfg.sliding_window)
        for mask, keys in blocks
    )
    return Masks(full, window)


def _start(
    cfg, params, tokens, positions, segment_ids, own, contexts, rope_lengths=None
):
    """What all layers share: embedded tokens, rotation (or None) and masks.

    own: what the tokens see of the own block: (mask, key positions), or `flash.Places`.
    """
    embed = params["embed"]
    x = jnp.take(embed["embedding"], tokens, axis=0).astype(cfg.compute_dtype)
    rotation = None
    if cfg.learned:
        places = positions + cfg.position_offset
        x = x + jnp.take(embed["positions"], places, axis=0).astype(x.dtype)
    else:
        if cfg.rope.kind == "dynamic" and rope_lengths is None:
            rope_lengths = rope_lib.segment_lengths(positions, segment_ids)
        rotation = rope_lib.rotations(cfg.rope, cfg.head_dim, positions, rope_lengths)
    masks = own
    if not isinstance(own, flash.Places):
        masks = _masks(cfg, positions, own, contexts)
    # Computed once: fused into every layer's loops, the sines and the integer divisions
    # of the masks would be computed again for each head of each layer.
    rotation, masks = jax.lax.optimization_barrier((rotation, masks))
    return x, rotation, masks


def _by_rows(cfg, x):
    """Activations [B, T, D] lie on the devices by rows and columns, whole on D.

    Said before and after every layer. Left alone, XLA takes over how the embedding is
    split, by D: every device then holds all rows, and the products of every layer are
    partial sums of all of them, sent around (a 7B model on 64 chips: 16 times the
    traffic).
    """
    return constrain(x, cfg.mesh, ROWS, "sequence", None)


def _slides(cfg) -> tuple[bool, ...]:
    return cfg.sliding_layers or (cfg.sliding_window is not None,) * cfg.n_layers


def _choose(masks: Masks | flash.Places, slides):
    """The masks of a layer; ``slides`` is a bool, or traced when layers are scanned."""
    if isinstance(masks, flash.Places):
        return masks._replace(slides=slides)
    if isinstance(slides, bool):
        return masks.window if slides else masks.full
    pairs = zip(masks.window, masks.full, strict=True)
    return tuple(jnp.where(slides, window, full) for window, full in pairs)


def run(
    cfg: DecoderConfig,
    params,
    tokens,
    positions,
    segment_ids,
    contexts=(),
    rope_lengths=None,
):
    """Hidden states of tokens after the given contexts, and their own keys, values.

    Args:
      params: the tree of `init_params` (or of `unstack_layers`).
      tokens, positions, segment_ids: int32 [B, T]; segment 0 is padding; tokens of a
        segment see the earlier ones of the same segment and all visible context.
      contexts: tuple of `Context`.
      rope_lengths: int32 [B, T], for 'dynamic' rope: how long the sequence was when a
        token was computed (default: its whole segment).

    Returns:
      hidden [B, T, D] after the final norm, and (keys, values), each [L, B, K, T, H]
      (tuples of L arrays when the loop is unrolled).
    """
    layers = params["layers"]
    if contexts or flash.implementation(cfg, tokens.shape[1]) == "dense":
        own = attn.causal_mask(positions, segment_ids), positions
    else:
        own = flash.places(positions, segment_ids)
    x, rotation, masks = _start(
        cfg, params, tokens, positions, segment_ids, own, contexts, rope_lengths
    )
    x = _by_rows(cfg, x)
    slides = _slides(cfg)

    def layer(x, layer_params, slides, context):
        x, written = Layer(cfg).apply(
            {"params": layer_params}, x, rotation, _choose(masks, slides), context
        )
        return _by_rows(cfg, x), written

    uniform = len(set(slides)) == 1
    unroll = isinstance(layers, tuple) or unrolls(cfg)
    if cfg.remat != "none":
        policies = {
            "full": jax.checkpoint_policies.nothing_saveable,
            "dots": save_products,
        }
        static = (2,) if unroll or uniform else ()
        layer = jax.checkpoint(layer, policy=policies[cfg.remat], static_argnums=static)

    if unroll:
        if not isinstance(layers, tuple):
            layers = unstack_layers(params)["layers"]
        written = []
        for i, layer_params in enumerate(layers):
            context = tuple((c.keys[i], c.values[i]) for c in contexts)
            x, kv = layer(x, layer_params, slides[i], context)
            written.append(kv)
        keys, values = zip(*written, strict=True)
        return _final_norm(cfg, params, x), (keys, values)

    context = tuple((c.keys, c.values) for c in contexts)

    def body(x, xs):
        layer_params, slides_here, context = xs
        return layer(x, layer_params, slides[0] if uniform else slides_here, context)

    x, written = jax.lax.scan(body, x, (layers, jnp.array(slides), context))
    return _final_norm(cfg, params, x), written


def run_cached(
    cfg: DecoderConfig, params, tokens, positions, cache: Cache, contexts=()
):
    """One decoding step: tokens, positions int32 [B] enter the cache and see it.

    Returns:
      hidden [B, D] after the final norm, and the cache's new (keys, values).
    """
    layers = params["layers"]
    tokens, positions = tokens[:, None], positions[:, None]
    own = cache.visible[:, None], cache.positions
    x, rotation, masks = _start(
        cfg, params, tokens, positions, jnp.ones_like(tokens), own, contexts
    )
    x = _by_columns(cfg, x)
    slides = _slides(cfg)

    if isinstance(cache.keys, tuple):
        if not isinstance(layers, tuple):
            layers = unstack_layers(params)["layers"]
        written = []
        for i, layer_params in enumerate(layers):

            def write(k, v, i=i):
                start = (0, 0, cache.place, 0)
                keys = jax.lax.dynamic_update_slice(cache.keys[i], k, start)
                values = jax.lax.dynamic_update_slice(cache.values[i], v, start)
                return (keys, values), (keys, values)

            x, kv = Layer(cfg).apply(
                {"params": layer_params},
                x,
                rotation,
                _choose(masks, slides[i]),
                tuple((c.keys[i], c.values[i]) for c in contexts),
                write,
            )
            x = _by_columns(cfg, x)
            written.append(kv)
        keys, values = zip(*written, strict=True)
        return _final_norm(cfg, params, x)[:, 0], (keys, values)

    # The stacked cache is carried, not scanned over: a scanned one would be copied.
    def body(carry, xs):
        x, keys, values = carry
        i, layer_params, slides_here, context = xs

        def write(k, v):
            start = (i, 0, 0, cache.place, 0)
            new_keys = jax.lax.dynamic_update_slice(keys, k[None], start)
            new_values = jax.lax.dynamic_update_slice(values, v[None], start)
            return (new_keys[i], new_values[i]), (new_keys, new_values)

        uniform = len(set(slides)) == 1
        chosen = _choose(masks, slides[0] if uniform else slides_here)
        x, (keys, values) = Layer(cfg).apply(
            {"params": layer_params}, x, rotation, chosen, context, write
        )
        return (_by_columns(cfg, x), keys, values), None

    context = tuple((c.keys, c.values) for c in contexts)
    xs = (jnp.arange(cfg.n_layers), layers, jnp.array(slides), context)
    (x, keys, values), _ = jax.lax.scan(body, (x, cache.keys, cache.values), xs)
    return _final_norm(cfg, params, x)[:, 0], (keys, values)


def _by_columns(cfg, x):
    """Activations [B, 1, D] of a decoding step lie on the devices by their columns.

    As the weights do, by D over `fsdp`: then these stay where they are, products are
    partial sums, and what is sent are rows of activations (weight-stationary, Pope et
    al. 2022, section 3.2). By rows, as in training, every step gathered all weights: a
    7B model on 8 chips, 64 rows: 11.6 GB sent a token in the place of 0.3.
    """
    return constrain(x, cfg.mesh, "data", None, "fsdp")


def _final_norm(cfg, params, x):
    return block_norm(cfg).apply({"params": params["final_norm"]}, x)


def forward(cfg: DecoderConfig, params, tokens, positions, segment_ids):
    """Hidden states [B, T, D] after the final norm (see `run`)."""
    return run(cfg, params, tokens, positions, segment_ids)[0]


def logits(cfg: DecoderConfig, params, hidden):
    """Next-token logits, float32 [..., V], of hidden states [..., D]."""
    if cfg.tie_embeddings:
        kernel = params["embed"]["embedding"].T
    else:
        kernel = params["lm_head"]["kernel"]
    return project(hidden, kernel, cfg.compute_dtype, cfg.precision, jnp.float32)


def plain_inputs(lengths, width: int):
    """(positions, segment_ids), int32 [B, width], of rows padded on the right."""
    index = jnp.arange(width, dtype=jnp.int32)[None]
    real = index < lengths[:, None]
    return jnp.where(real, index, 0), real.astype(jnp.int32)
