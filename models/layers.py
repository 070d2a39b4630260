"""One layer of the decoder, as Linen modules; see `models.decoder`.

Letters: B batch, T time, N heads, K kv heads, H head dim, D model, F ffn.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import attention as attn
from models import flash
from models import rope as rope_lib
from models.config import DecoderConfig
from models.kernels import is_node, project


class RMSNorm(nn.Module):
    """x / rms(x) * scale, computed in float32, returned in x's dtype."""

    eps: float
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        scale = self.param(
            "scale", nn.initializers.ones, x.shape[-1:], self.param_dtype
        )
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(
            jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps
        )
        return (wide * scale.astype(jnp.float32)).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean(x)) / std(x) * scale + bias, in float32, returned in x's dtype."""

    eps: float
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        shape, dtype = x.shape[-1:], self.param_dtype
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(
            jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps
        )
        wide = wide * scale.astype(jnp.float32) + bias.astype(jnp.float32)
        return wide.astype(x.dtype)


def block_norm(cfg: DecoderConfig, name: str | None = None) -> nn.Module:
    """The norm before a block, or the last one, of the config's kind."""
    kind = LayerNorm if cfg.norm == "layer" else RMSNorm
    return kind(cfg.norm_eps, cfg.param_dtype, name=name)


class Linear(nn.Module):
    """x [B, T, ins] @ kernel [ins, outs] + bias [outs], in the compute dtype.

    ``ins`` and ``outs`` are tuples of sizes (D,), (N, H) or (F,); x and the result are
    flat on them: [B, T, D], [B, T, N * H], [B, T, F]. The product is one plain matrix
    product: an einsum that also asked for a transposed result made XLA's CPU backend
    transpose the weights at every decoding step. In the place of the kernel there may
    be a node of `models.kernels`: quantised, adapted, or both.
    """

    ins: tuple[int, ...]
    outs: tuple[int, ...]
    use_bias: bool
    cfg: DecoderConfig

    @nn.compact
    def __call__(self, x):
        cfg = self.cfg
        init = nn.initializers.normal(cfg.init_std)
        kernel = self.get_variable("params", "kernel")
        if not is_node(kernel):  # `param` checks the shape, and makes arrays only
            kernel = self.param("kernel", init, self.ins + self.outs, cfg.param_dtype)
        y = project(x, kernel, cfg.compute_dtype, cfg.precision)
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, self.outs, cfg.param_dtype)
            y = y + bias.astype(cfg.compute_dtype).reshape(-1)
        return y


def keep_own(keys, values):
    """The usual `write`: attend to the tokens' own keys, and return them."""
    return (keys, values), (keys, values)


class Attention(nn.Module):
    """Grouped-query attention over the tokens' own keys and the contexts.

    ``write(keys, values)`` says what the own block is and what is returned beside the
    output: the own keys themselves, or a cache that they have entered. ``masks``: of
    the own block and of each context; or `flash.Places`, and no contexts. ``rotation``
    is None where positions are learned: the embeddings have them.
    """

    cfg: DecoderConfig

    @nn.compact
    def __call__(self, x, rotation, masks, contexts, write):
        cfg = self.cfg
        D, N, K, H = cfg.d_model, cfg.n_heads, cfg.n_kv_heads, cfg.head_dim

        def project(name, heads):
            y = Linear((D,), (heads, H), cfg.qkv_bias, cfg, name=name)(x)
            return y.reshape(*x.shape[:2], heads, H).swapaxes(1, 2)

        q, k, v = project("q", N), project("k", K), project("v", K)
        if cfg.qk_norm:
            q = RMSNorm(cfg.norm_eps, cfg.param_dtype, name="q_norm")(q)
            k = RMSNorm(cfg.norm_eps, cfg.param_dtype, name="k_norm")(k)
        if rotation is not None:
            q, k = rope_lib.rotate(q, rotation), rope_lib.rotate(k, rotation)
        own, written = write(k, v)
        if isinstance(masks, flash.Places):
            y = flash.attention(cfg, q, *own, masks)
        else:
            blocks = tuple(
                attn.Block(keys, values, mask)
                for (keys, values), mask in zip((own, *contexts), masks, strict=True)
            )
            y = attn.attention(q, blocks, precision=cfg.precision)
        y = y.swapaxes(1, 2).reshape(*x.shape[:2], N * H)
        return Linear((N, H), (D,), cfg.out_bias, cfg, name="out")(y), written


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)), or down(relu(up(x)))."""

    cfg: DecoderConfig

    @nn.compact
    def __call__(self, x):
        cfg = self.cfg
        D, F = cfg.d_model, cfg.d_ff
        down = Linear((F,), (D,), cfg.mlp_bias, cfg, name="down")
        if cfg.mlp == "relu":
            up = Linear((D,), (F,), cfg.mlp_bias, cfg, name="up")(x)
            return down(nn.relu(up))
        gate = Linear((D,), (F,), cfg.mlp_bias, cfg, name="gate")(x)
        up = Linear((D,), (F,), cfg.mlp_bias, cfg, name="up")(x)
        return down(nn.silu(gate) * up)


class Layer(nn.Module):
    """Pre-norm residual layer."""

    cfg: DecoderConfig

    @nn.compact
    def __call__(self, x, rotation, masks, contexts, write=keep_own):
        cfg = self.cfg
        h = block_norm(cfg, "attn_norm")(x)
        y, written = Attention(cfg, name="attn")(h, rotation, masks, contexts, write)
        x = x + y
        h = block_norm(cfg, "mlp_norm")(x)
        return x + MLP(cfg, name="mlp")(h), written
