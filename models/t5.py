"""The T5 family: encoder and decoder as pure functions of (config, params, tokens).

T5 1.1 and UL2 (Raffel et al. 2020; Tay et al. 2023): RMSNorm before every block, no
absolute positions but a learned bias for every bucket of relative distances, shared by
the layers of a stack, attention logits that are not divided by sqrt(H), a gated feed-
forward layer, an output matrix of its own. The first T5 has a plain ReLU layer, and
output logits from the embedding, scaled by D^-0.5.

Letters: B batch (of targets), R sources, S source length, T target length, N heads,
H head dim, D model, F ffn, V vocab, L layers.
"""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.config import DType
from models.sharding import ROWS, constrain

Activation = Literal["relu", "gelu_new", "silu"]
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
}
BANNED = -1e30


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes and variants; hashable, as a static argument must be.

    tied: logits from the embedding, times D^-0.5. buckets, max_distance: of the bias.
    context: tokens of a source or target that a run allows; relative positions have no
    end of their own. mesh: the devices that keys and values are spread over.
    """

    vocab_size: int
    d_model: int
    n_heads: int
    head_dim: int
    d_ff: int
    n_layers: int
    n_decoder_layers: int
    gated: bool = True
    activation: Activation = "gelu_new"
    tied: bool = False
    buckets: int = 32
    max_distance: int = 128
    norm_eps: float = 1e-6
    context: int = 2048
    start_id: int = 0
    dtype: DType = "float32"
    mesh: Mesh | None = None

    @property
    def compute_dtype(self):
        return jnp.float32 if self.dtype == "float32" else jnp.bfloat16

    @property
    def param_dtype(self):
        return jnp.bfloat16 if self.dtype == "bfloat16" else jnp.float32

    @property
    def precision(self):
        return "highest" if self.dtype == "float32" else None


class Encoded(NamedTuple):
    """What the decoder sees of sources: keys and values of every layer, lengths.

    keys, values: [L, R, N, S, H]; lengths: int32 [R], R sources
    """

    keys: jax.Array
    values: jax.Array
    lengths: jax.Array


class Cache(NamedTuple):
    """The decoder's own keys and values, [L, B, N, T, H]."""

    keys: jax.Array
    values: jax.Array


def param_shapes(cfg: T5Config) -> dict:
    """The parameter tree as shapes; layers are stacked on axis 0."""
    D, N, H, F = cfg.d_model, cfg.n_heads, cfg.head_dim, cfg.d_ff

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, cfg.param_dtype)

    def attention(L):
        made = {name: {"kernel": array(L, D, N, H)} for name in ("q", "k", "v")}
        return made | {"out": {"kernel": array(L, N, H, D)}}

    def stack(L, crosses):
        mlp = {"up": {"kernel": array(L, D, F)}, "down": {"kernel": array(L, F, D)}}
        if cfg.gated:
            mlp["gate"] = {"kernel": array(L, D, F)}
        layers = {
            "attn_norm": {"scale": array(L, D)},
            "attn": attention(L),
            "mlp_norm": {"scale": array(L, D)},
            "mlp": mlp,
        }
        if crosses:
            layers |= {"cross_norm": {"scale": array(L, D)}, "cross": attention(L)}
        return {
            "layers": layers,
            "bias": {"embedding": array(cfg.buckets, N)},
            "final_norm": {"scale": array(D)},
        }

    shapes = {
        "embed": {"embedding": array(cfg.vocab_size, D)},
        "encoder": stack(cfg.n_layers, False),
        "decoder": stack(cfg.n_decoder_layers, True),
    }
    if not cfg.tied:
        shapes["lm_head"] = {"kernel": array(D, cfg.vocab_size)}
    return shapes


def init_params(cfg: T5Config, key):
    """Random parameters, normal with the standard deviations of the T5 paper's code."""
    D, N, H, F = cfg.d_model, cfg.n_heads, cfg.head_dim, cfg.d_ff
    # Queries take the 1/sqrt(H) that logits are not divided by.
    deviations = {
        "q": (D * H) ** -0.5, "k": D**-0.5, "v": D**-0.5, "out": (N * H) ** -0.5,
        "gate": D**-0.5, "up": D**-0.5, "down": F**-0.5, "bias": D**-0.5,
        "embed": 1.0, "lm_head": D**-0.5,
    }  # fmt: skip
    leaves, tree = jax.tree_util.tree_flatten_with_path(param_shapes(cfg))
    made = []
    for number, (path, x) in enumerate(leaves):
        if path[-1].key == "scale":
            made.append(jnp.ones(x.shape, x.dtype))
            continue
        drawn = jax.random.normal(jax.random.fold_in(key, number), x.shape)
        made.append((deviations[path[-2].key] * drawn).astype(x.dtype))
    return jax.tree.unflatten(tree, made)


def bucket_of(distance, bidirectional: bool, buckets: int, max_distance: int):
    """The bucket, int32, of key position minus query position.

    Half of the buckets are exact, the others grow logarithmically up to max_distance;
    seen from both sides, each side has half of them (Raffel et al. 2020, 2.1).
    """
    first = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        first = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    grown = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
    grown = grown / math.log(max_distance / exact) * (buckets - exact)
    far = jnp.minimum(exact + grown.astype(jnp.int32), buckets - 1)
    return first + jnp.where(distance < exact, distance, far)


def _bias(cfg: T5Config, table, queries, keys, bidirectional: bool):
    """float32 [N, T, S] of query positions [T] and key positions [S]."""
    distance = keys[None, :] - queries[:, None]
    bucket = bucket_of(distance, bidirectional, cfg.buckets, cfg.max_distance)
    return jnp.moveaxis(table.astype(jnp.float32)[bucket], -1, 0)


def _norm(cfg: T5Config, x, scale):
    wide = x.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + cfg.norm_eps)
    return (wide * scale.astype(jnp.float32)).astype(x.dtype)


def _product(cfg: T5Config, spec: str, x, kernel):
    return jnp.einsum(
        spec, x, kernel.astype(cfg.compute_dtype), precision=cfg.precision
    )


def _heads(cfg: T5Config, x, kernel):
    """[B, T, D] -> [B, N, T, H]"""
    return _product(cfg, "btd,dnh->bnth", x, kernel)


def _attend(cfg: T5Config, q, keys, values, bias, out):
    """Logits plus bias (masked: BANNED), softmax in float32, and the output product.

    q [B, N, T, H]; keys, values [B, N, S, H]; bias float32, broadcast to [B, N, T, S].
    """
    scores = jnp.einsum(
        "bnth,bnsh->bnts",
        q,
        keys,
        precision=cfg.precision,
        preferred_element_type=jnp.float32,
    )
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(values.dtype)
    mixed = jnp.einsum("bnts,bnsh->bnth", weights, values, precision=cfg.precision)
    return _product(cfg, "bnth,nhd->btd", mixed, out)


def _mlp(cfg: T5Config, x, p):
    act = ACTIVATIONS[cfg.activation]
    up = _product(cfg, "btd,df->btf", x, p["up"]["kernel"])
    if cfg.gated:
        gate = _product(cfg, "btd,df->btf", x, p["gate"]["kernel"])
        return _product(cfg, "btf,fd->btd", act(gate) * up, p["down"]["kernel"])
    return _product(cfg, "btf,fd->btd", act(up), p["down"]["kernel"])


def encode(cfg: T5Config, params, tokens, lengths):
    """Hidden states [B, S, D] of sources int32 [B, S] of lengths int32 [B].

    Every token sees all real tokens of its source.
    """
    S = tokens.shape[1]
    place = jnp.arange(S)
    stack = params["encoder"]
    seen = place[None] < lengths[:, None]
    bias = _bias(cfg, stack["bias"]["embedding"], place, place, True)[None]
    bias = jnp.where(seen[:, None, None], bias, BANNED)
    x = params["embed"]["embedding"][tokens].astype(cfg.compute_dtype)

    def layer(x, p):
        h = _norm(cfg, x, p["attn_norm"]["scale"])
        q, k, v = (_heads(cfg, h, p["attn"][name]["kernel"]) for name in "qkv")
        x += _attend(cfg, q, k, v, bias, p["attn"]["out"]["kernel"])
        x += _mlp(cfg, _norm(cfg, x, p["mlp_norm"]["scale"]), p["mlp"])
        return x, None

    x, _ = jax.lax.scan(layer, x, stack["layers"])
    return _norm(cfg, x, stack["final_norm"]["scale"])


def read_source(cfg: T5Config, params, tokens, lengths) -> Encoded:
    """Encodes sources, and takes the keys and values of every decoder layer, once."""
    encoded = encode(cfg, params, tokens, lengths)

    def layer(_, p):
        pair = tuple(_heads(cfg, encoded, p[name]["kernel"]) for name in "kv")
        return None, pair

    cross = params["decoder"]["layers"]["cross"]
    _, (keys, values) = jax.lax.scan(layer, None, cross)
    return Encoded(_spread(cfg, keys), _spread(cfg, values), lengths)


def _spread(cfg: T5Config, x):
    """Keys or values of all layers over the devices: by rows, and by heads."""
    return constrain(x, cfg.mesh, None, ROWS, "tensor", None, None)


def _decode(cfg, params, tokens, positions, cache: Cache, visible, source: Encoded):
    """Logits [B, T, V] of target tokens [B, T] at positions [T], and the new cache.

    The tokens enter the cache at their positions; `visible` bool [T, cache length].
    Rows b of the targets belong to source b // (B / R): the samples of a source share
    its keys and values, as if their queries were of one target.
    """
    stack = params["decoder"]
    place = jnp.arange(cache.keys.shape[-2])
    own = _bias(cfg, stack["bias"]["embedding"], positions, place, False)[None]
    own = jnp.where(visible[None, None], own, BANNED)
    (B, T), (R, S) = tokens.shape, (source.keys.shape[1], source.keys.shape[-2])
    samples, D = B // R, cfg.d_model
    seen = jnp.arange(S)[None] < source.lengths[:, None]
    across = jnp.where(seen, 0.0, BANNED)[:, None, None]
    x = params["embed"]["embedding"][tokens].astype(cfg.compute_dtype)

    def layer(x, xs):
        p, keys, values, cross_keys, cross_values = xs
        h = _norm(cfg, x, p["attn_norm"]["scale"])
        q, k, v = (_heads(cfg, h, p["attn"][name]["kernel"]) for name in "qkv")
        start = (0, 0, positions[0], 0)
        keys = jax.lax.dynamic_update_slice(keys, k, start)
        values = jax.lax.dynamic_update_slice(values, v, start)
        x += _attend(cfg, q, keys, values, own, p["attn"]["out"]["kernel"])
        h = _norm(cfg, x, p["cross_norm"]["scale"])
        q = _heads(cfg, h, p["cross"]["q"]["kernel"])
        q = q.reshape(R, samples, cfg.n_heads, T, cfg.head_dim)
        q = q.swapaxes(1, 2).reshape(R, cfg.n_heads, samples * T, cfg.head_dim)
        out = p["cross"]["out"]["kernel"]
        x += _attend(cfg, q, cross_keys, cross_values, across, out).reshape(B, T, D)
        x += _mlp(cfg, _norm(cfg, x, p["mlp_norm"]["scale"]), p["mlp"])
        return x, (keys, values)

    xs = (stack["layers"], cache.keys, cache.values, source.keys, source.values)
    x, written = jax.lax.scan(layer, x, xs)
    x = _norm(cfg, x, stack["final_norm"]["scale"])
    return _logits(cfg, params, x), Cache(*(_spread(cfg, x) for x in written))


def _logits(cfg: T5Config, params, x):
    if cfg.tied:
        x = x * jnp.asarray(cfg.d_model**-0.5, x.dtype)
        kernel = params["embed"]["embedding"].T
    else:
        kernel = params["lm_head"]["kernel"]
    return jnp.einsum(
        "btd,dv->btv",
        x,
        kernel.astype(cfg.compute_dtype),
        precision=cfg.precision,
        preferred_element_type=jnp.float32,
    )


def empty_cache(cfg: T5Config, rows: int, length: int) -> Cache:
    """A cache for `length` target tokens of each row."""
    shape = (cfg.n_decoder_layers, rows, cfg.n_heads, length, cfg.head_dim)
    return Cache(*(_spread(cfg, jnp.zeros(shape, cfg.compute_dtype)) for _ in "kv"))


def step(cfg: T5Config, params, tokens, position, cache: Cache, source: Encoded):
    """One decoding step: tokens int32 [B] at one position, int32 []; logits [B, V]."""
    place = jnp.arange(cache.keys.shape[-2])
    visible = (place <= position)[None]
    logits, cache = _decode(
        cfg, params, tokens[:, None], position[None], cache, visible, source
    )
    return logits[:, 0], cache


def target_logits(cfg: T5Config, params, sources, source_lengths, targets):
    """float32 [B, T, V]: row t drew target token t, after those before it.

    Args: sources int32 [B, S], source_lengths int32 [B]; targets int32 [B, T].
    """
    B, T = targets.shape
    source = read_source(cfg, params, sources, source_lengths)
    start = jnp.full((B, 1), cfg.start_id, targets.dtype)
    shifted = jnp.concatenate([start, targets[:, :-1]], axis=1)
    place = jnp.arange(T)
    visible = place[None, :] <= place[:, None]
    return _decode(
        cfg, params, shifted, place, empty_cache(cfg, B, T), visible, source
    )[0]


def count_params(cfg: T5Config) -> int:
    """How many parameters the model has."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(param_shapes(cfg)))
