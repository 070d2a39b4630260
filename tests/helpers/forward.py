"""The decoder, compiled once per config and shape and shared by all tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from models import decoder
from models.config import DecoderConfig, RopeConfig

TINY = DecoderConfig(
    vocab_size=31,
    d_model=16,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_ff=24,
    head_dim=4,
    rope=RopeConfig(theta=100.0),
    init_std=0.3,
)


def random_params(cfg, seed: int = 0):
    """Normal parameters, norm scales around 1; drawn by NumPy: nothing to compile."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = cfg.init_std * rng.standard_normal(leaf.shape)
        is_norm = path[-1].key == "scale"
        return jnp.asarray(1 + noise if is_norm else noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, decoder.param_shapes(cfg))


@functools.partial(jax.jit, static_argnums=0)
def logits(cfg, params, tokens, positions, segment_ids):
    """Logits [B, T, V] of int32 [B, T] inputs."""
    hidden = decoder.forward(cfg, params, tokens, positions, segment_ids)
    return decoder.logits(cfg, params, hidden)


def rows(sequences, width: int, left: bool = False):
    """(tokens, positions, segment_ids), int32 [B, width], one sequence a row, padded.

    Padding has id 0 and takes part in nothing; real tokens may have id 0 as well.
    """
    arrays = np.zeros((3, len(sequences), width), np.int32)
    for b, sequence in enumerate(sequences):
        n = len(sequence)
        span = slice(width - n, width) if left else slice(0, n)
        arrays[:, b, span] = sequence, np.arange(n), np.ones(n)
    return tuple(arrays)


def packed(groups, width: int):
    """As `rows`, several sequences to a row, told apart by segment ids 1, 2, ..."""
    arrays = np.zeros((3, len(groups), width), np.int32)
    for b, group in enumerate(groups):
        start = 0
        for segment, sequence in enumerate(group, 1):
            n = len(sequence)
            span = slice(start, start + n)
            arrays[:, b, span] = sequence, np.arange(n), np.full(n, segment)
            start += n
    return tuple(arrays)


def nll(cfg, params, tokens, positions, segment_ids):
    """Mean negative log-likelihood of each token after the first (unpadded rows)."""
    hidden = decoder.forward(cfg, params, tokens, positions, segment_ids)
    logp = jax.nn.log_softmax(decoder.logits(cfg, params, hidden)[:, :-1])
    return -jnp.mean(jnp.take_along_axis(logp, tokens[:, 1:, None], axis=-1))
