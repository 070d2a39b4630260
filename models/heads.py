"""Scalar heads on hidden states: a reward, a value per token, a step's correctness."""

import jax
import jax.numpy as jnp


def init_scalar_head(d_model: int, key=None, *, std: float = 0.0, dtype=jnp.float32):
    """Head parameters {"kernel": [D, 1]}; zero unless ``std`` > 0, which needs ``key``.

    A zero head starts at score 0, probability one half, on every token.
    """
    if std == 0.0:
        return {"kernel": jnp.zeros((d_model, 1), dtype)}
    if key is None:
        raise ValueError("init_scalar_head: std > 0 needs a key")
    return {"kernel": (std * jax.random.normal(key, (d_model, 1))).astype(dtype)}


def scalar(head, hidden):
    """Scores, float32 [...], of hidden states [..., D]."""
    return jnp.einsum(
        "...d,dk->...k",
        hidden.astype(jnp.float32),
        head["kernel"].astype(jnp.float32),
        precision="highest",
    )[..., 0]


def at_last(scores, lengths):
    """The score at each row's last token: [B, T] and lengths [B] -> [B]."""
    return jnp.take_along_axis(scores, (lengths - 1)[:, None], axis=1)[:, 0]
