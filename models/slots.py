"""Decoding slots: a static cache whose rows are refilled while the others go on.

The cache is a ring on a *shared clock*: at step t every row writes its new key at place
t mod S, so that one `dynamic_update_slice` serves the whole batch, wherever each row is
in its own text. The key of age a (1 = newest) lies at (t - a) mod S, and a row sees its
ages 1..length. A prompt that enters at time t is rolled: its last token has age 1.
Glossary: `clock` counts steps of the batch; `length` counts a row's own cached tokens
(without the shared prefix); `generated` counts its response tokens, the newest of which
is sampled but not cached yet.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from models import decoder, sampling
from models.config import DecoderConfig
from models.decoder import Cache, Context
from models.sampling import Sampling
from models.sharding import ROWS, fitting

# What the last axes of each field of `Slots`, `Prompts` and `Context` are split over.
_CACHE = (ROWS, "tensor", None, None)
AXES = {
    "keys": _CACHE,
    "values": _CACHE,
    "clock": (),
    "length": (ROWS,),
    "generated": (ROWS,),
    "budget": (ROWS,),
    "reason": (ROWS,),
    "newest": (ROWS,),
    "tokens": (ROWS, None),
    "plain": (ROWS, None),
    "sampled": (ROWS, None),
    "recent": (ROWS, None),
    "row_keys": (ROWS,),
    "lengths": (ROWS,),
    "logits": (ROWS, "tensor"),
    "positions": (ROWS, None),
    "visible": (ROWS, None),
}


class Slots(NamedTuple):
    """State of B rows. All arrays are on device.

    keys, values: [L, B, K, S, H] or a tuple of L arrays [B, K, S, H]
    clock: int32 []
    length, generated, budget, reason, newest: int32 [B]
    tokens: int32 [B, R]; plain, sampled: float32 [B, R] log-probs of the tokens
    recent: int32 [B, W], the last W response tokens, newest last, -1 before the start
    row_keys: PRNG keys [B]; the draw of response token i uses fold_in(row_key, i)
    """

    keys: jax.Array | tuple[jax.Array, ...]
    values: jax.Array | tuple[jax.Array, ...]
    clock: jax.Array
    length: jax.Array
    generated: jax.Array
    budget: jax.Array
    reason: jax.Array
    newest: jax.Array
    tokens: jax.Array
    plain: jax.Array
    sampled: jax.Array
    recent: jax.Array
    row_keys: jax.Array


class Prompts(NamedTuple):
    """Prompts that went through the model once, ready to enter slots.

    keys, values: [L, R, K, T, H] (or tuples); lengths: int32 [R]
    logits: float32 [R, V] after the last prompt token
    """

    keys: jax.Array | tuple[jax.Array, ...]
    values: jax.Array | tuple[jax.Array, ...]
    lengths: jax.Array
    logits: jax.Array


class Entries(NamedTuple):
    """Which prompts enter which slots; places from ``count`` on are unused.

    count: int32 []; source: int32 [B], rows of `Prompts`; target: int32 [B], slots
    (unused: B); row_ids: uint32 [B], folded into the run's key; budget: int32 [B],
    response tokens allowed. The size is fixed, so that insertion is compiled once.
    """

    count: jax.Array
    source: jax.Array
    target: jax.Array
    row_ids: jax.Array
    budget: jax.Array


def window_size(rules: Sampling) -> int:
    return max([len(stop) for stop in rules.stop], default=1)


def prepare(cfg: DecoderConfig, params):
    """Parameters laid out for many calls: cast and unstacked once, not at each step.

    The sampler does this for every request. Given prepared parameters, it does nothing.
    Only what is cast is copied: a quantised base, and what has the compute dtype, stay
    the arrays that they are (but for unstacked layers, which are slices).
    """
    if isinstance(params["layers"], tuple):
        return params
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    wide = {i: x for i, (path, x) in enumerate(leaves) if _is_wide(cfg, path, x)}
    if wide:
        cast = _cast(cfg.compute_dtype, wide)
        leaves = [cast.get(i, x) for i, (_, x) in enumerate(leaves)]
        params = jax.tree.unflatten(tree, leaves)
    if decoder.unrolls(cfg):
        params = {**params, "layers": _unstack(params["layers"])}
    return params


def _is_wide(cfg: DecoderConfig, path, leaf) -> bool:
    """Whether a leaf is cast: norms, and scales of quantised kernels, are exact."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    exact = name.endswith(("/scale", "/step", "/mean", "norm/bias"))
    exact = exact or not jnp.issubdtype(leaf.dtype, jnp.floating)
    return not exact and leaf.dtype != cfg.compute_dtype


@functools.partial(jax.jit, static_argnums=0)
def _cast(dtype, leaves):
    return jax.tree.map(lambda x: x.astype(dtype), leaves)


@jax.jit
def _unstack(layers):
    return decoder.unstack_layers({"layers": layers})["layers"]


def shardings(mesh, state):
    """The tree of NamedShardings of `Slots`, `Prompts` or a `Context`, by `AXES`.

    Rows and heads that do not divide over their axes stay whole. Raises ValueError for
    a field that `AXES` does not have, by its name.
    """
    uncovered = [name for name in state._fields if name not in AXES]
    if uncovered:
        kind = type(state).__name__
        raise ValueError(f"{kind}: no sharding is stated for {', '.join(uncovered)}")

    def of(name, x):
        axes = (None,) * (x.ndim - len(AXES[name])) + AXES[name]
        return NamedSharding(mesh, fitting(x.shape, mesh, *axes))

    return type(state)(
        *(
            jax.tree.map(functools.partial(of, name), part)
            for name, part in zip(state._fields, state, strict=True)
        )
    )


def _spread(cfg: DecoderConfig, state):
    """`Slots`, `Prompts` or a `Context` over the devices of the config's mesh.

    Left alone, XLA keeps the whole cache on every device: of a 7B model with 512 rows
    of 1,024 tokens, 275 GB.
    """
    if cfg.mesh is None:
        return state
    return jax.lax.with_sharding_constraint(state, shardings(cfg.mesh, state))


@functools.partial(
    jax.jit, static_argnames=("cfg", "rules", "rows", "cache", "response")
)
def empty(cfg: DecoderConfig, rules, key, *, rows: int, cache: int, response: int):
    """Slots with nothing in them (every row has ended)."""
    shape = (rows, cfg.n_kv_heads, cache, cfg.head_dim)
    zeros = functools.partial(jnp.zeros, dtype=jnp.int32)
    L, dtype = cfg.n_layers, cfg.compute_dtype

    def kv():
        if decoder.unrolls(cfg):
            return tuple(jnp.zeros(shape, dtype) for _ in range(L))
        return jnp.zeros((L, *shape), dtype)

    made = Slots(
        keys=kv(),
        values=kv(),
        clock=zeros(()),
        length=zeros(rows),
        generated=zeros(rows),
        budget=zeros(rows),
        reason=jnp.full((rows,), sampling.LENGTH, jnp.int32),
        newest=zeros(rows),
        tokens=zeros((rows, response)),
        plain=jnp.zeros((rows, response)),
        sampled=jnp.zeros((rows, response)),
        recent=jnp.full((rows, window_size(rules)), -1, jnp.int32),
        row_keys=jax.random.split(key, rows),
    )
    return _spread(cfg, made)


@functools.partial(jax.jit, static_argnames="cfg")
def prefill_prefix(cfg: DecoderConfig, params, tokens, length) -> Context:
    """A prefix that many prompts share, int32 [T] of which ``length`` are real."""
    T = tokens.shape[0]
    positions, segments = decoder.plain_inputs(length[None], T)
    _, (keys, values) = decoder.run(cfg, params, tokens[None], positions, segments)
    return _spread(cfg, Context(keys, values, positions, segments > 0))


@functools.partial(jax.jit, static_argnames="cfg")
def prefill(cfg: DecoderConfig, params, prefix, prefix_length, tokens, lengths):
    """Run prompts once, int32 [R, T] padded on the right, lengths int32 [R].

    prefix is a tuple of zero or one Context, prefix_length its length.
    """
    positions, segments = decoder.plain_inputs(lengths, tokens.shape[1])
    hidden, (keys, values) = decoder.run(
        cfg, params, tokens, positions + prefix_length, segments, prefix
    )
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    logits = decoder.logits(cfg, params, last)
    return _spread(cfg, Prompts(keys, values, lengths, logits))


def _record(slots: Slots, rules: Sampling, rows, logits) -> Slots:
    """Draw a token for the rows where ``rows`` [B] is True, and note how it ended."""
    keys = jax.vmap(jax.random.fold_in)(slots.row_keys, slots.generated)
    tokens, plain, sampled = sampling.draw(
        logits, rules, slots.tokens, slots.generated, keys
    )
    here = (jnp.arange(slots.tokens.shape[1]) == slots.generated[:, None]) & rows[
        :, None
    ]
    recent = jnp.concatenate([slots.recent[:, 1:], tokens[:, None]], axis=1)
    recent = jnp.where(rows[:, None], recent, slots.recent)
    generated = slots.generated + rows
    reason = sampling.ends(rules, tokens, recent, generated, slots.budget)
    return slots._replace(
        tokens=jnp.where(here, tokens[:, None], slots.tokens),
        plain=jnp.where(here, plain[:, None], slots.plain),
        sampled=jnp.where(here, sampled[:, None], slots.sampled),
        recent=recent,
        generated=generated,
        newest=jnp.where(rows, tokens, slots.newest),
        reason=jnp.where(rows, reason, slots.reason),
    )


def _row(cfg: DecoderConfig, x, index, axis: int):
    """Row ``index`` of the rows on this axis, which stays.

    On a mesh by a sum over the rows, all others zero: of an index, XLA would first
    gather all rows on every device, of 64 prompts of 256 tokens of a 7B model 8 GB.
    """
    if cfg.mesh is None:
        return jax.lax.dynamic_index_in_dim(x, index, axis, keepdims=True)
    here = jnp.arange(x.shape[axis]) == index
    here = here.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return jnp.sum(jnp.where(here, x, 0), axis, keepdims=True)


@functools.partial(jax.jit, static_argnames=("cfg", "rules"), donate_argnames="slots")
def insert(cfg, rules, slots: Slots, prompts: Prompts, entries: Entries, key) -> Slots:
    """Put prompts into slots and draw their first tokens."""
    _, source, target, row_ids, budget = entries
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row_ids)
    cache = jax.tree.leaves(slots.keys)[0].shape[-2]
    width = jax.tree.leaves(prompts.keys)[0].shape[-2]
    lengths = prompts.lengths[source]
    place = jnp.arange(cache)[None]
    # Age of each place is (clock - place) mod S; prompt token i has age length - i.
    token = lengths[:, None] - 1 - (slots.clock - 1 - place) % cache
    token = jnp.clip(token, 0, width - 1)

    def enter(ring, new):
        """ring [..., B, K, S, H] <- new [..., R, K, T, H], row by row, in place."""
        stacked = ring.ndim == 5

        def one(m, ring):
            row = _row(cfg, new, source[m], int(stacked))
            row = jnp.take(row, token[m], axis=-2)
            start = (0, target[m], 0, 0, 0) if stacked else (target[m], 0, 0, 0)
            return jax.lax.dynamic_update_slice(ring, row.astype(ring.dtype), start)

        return jax.lax.fori_loop(0, entries.count, one, ring)

    def set_rows(old, new):
        return old.at[target].set(new, mode="drop")

    rows = set_rows(jnp.zeros(slots.length.shape, bool), True)
    slots = slots._replace(
        keys=jax.tree.map(enter, slots.keys, prompts.keys),
        values=jax.tree.map(enter, slots.values, prompts.values),
        length=set_rows(slots.length, lengths),
        generated=set_rows(slots.generated, 0),
        budget=set_rows(slots.budget, budget),
        recent=set_rows(slots.recent, -1),
        row_keys=set_rows(slots.row_keys, row_keys),
    )
    V = prompts.logits.shape[-1]
    logits = set_rows(jnp.zeros((rows.shape[0], V)), prompts.logits[source])
    return _spread(cfg, _record(slots, rules, rows, logits))


def step(cfg: DecoderConfig, rules: Sampling, params, prefix, prefix_length, slots):
    """One decoding step of every running row."""
    size = jax.tree.leaves(slots.keys)[0].shape[-2]
    running = slots.reason == sampling.RUNNING
    positions = prefix_length + slots.length
    age = (slots.clock - jnp.arange(size)) % size  # 0: the token that enters now
    cache = Cache(
        slots.keys,
        slots.values,
        place=slots.clock % size,
        positions=positions[:, None] - age[None],
        visible=age[None] <= slots.length[:, None],
    )
    hidden, (keys, values) = decoder.run_cached(
        cfg, params, slots.newest, positions, cache, prefix
    )
    slots = slots._replace(
        keys=keys,
        values=values,
        clock=slots.clock + 1,
        length=slots.length + running,
    )
    logits = decoder.logits(cfg, params, hidden)
    return _spread(cfg, _record(slots, rules, running, logits))


@functools.partial(jax.jit, static_argnames=("cfg", "rules"), donate_argnames="slots")
def decode(cfg, rules, params, prefix, prefix_length, slots: Slots, free_target):
    """Step until ``free_target`` rows have ended (or all have)."""
    rows = slots.reason.shape[0]
    target = jnp.minimum(free_target, rows)

    def unfinished(slots):
        return jnp.sum(slots.reason != sampling.RUNNING) < target

    def body(slots):
        return step(cfg, rules, params, prefix, prefix_length, slots)

    return jax.lax.while_loop(unfinished, body, slots)


@functools.partial(jax.jit, static_argnames="cfg")
def keep(cfg: DecoderConfig, slots: Slots, rows) -> Slots:
    """The given rows alone, int32 [M]: fewer slots, for when few are running."""

    def take(x):
        stacked = x.ndim == 5
        return jnp.take(x, rows, axis=int(stacked)) if x.ndim else x

    return _spread(cfg, jax.tree.map(take, slots))
