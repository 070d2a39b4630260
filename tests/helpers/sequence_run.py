"""Run as a script on 8 simulated devices: long rows split by columns; prints JSON.

Argument: a folder, which stays empty. See tests/train/test_sequence_parallel.py.
"""

import dataclasses
import json
import re
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data.batch import TokenBatch
from models import attention as attn
from models import flash
from models.config import DecoderConfig
from models.sharding import param_shardings
from train.losses import token_nll
from train.mesh import make_mesh
from train.step import placer

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import forward  # noqa: E402

T, V, CHUNK = 64, 37, 3  # no other axis has 37
CFG = DecoderConfig(
    vocab_size=V, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, head_dim=4,
    init_std=0.2, sliding_window=9, sliding_layers=(False, True), layer_loop="scan",
)  # fmt: skip
# Which heads divide decides how attention is split; see `flash._split`.
CASES = {
    "heads": (dict(fsdp=4, sequence=2), "chunked"),
    "columns": (dict(fsdp=2, sequence=4), "chunked"),
    "columns, heads apart": (dict(fsdp=1, tensor=4, sequence=2), "chunked"),
    "short rows": (dict(fsdp=2, sequence=4), "dense"),
}


def batch() -> TokenBatch:
    """Packed rows, segments across the borders of columns; one row of padding."""
    rng = np.random.default_rng(0)
    lengths = ([20, 30], [T], [3, 7, 50], [], [40], [1, 60], [15, 15, 15, 15], [33, 31])
    rows = [[rng.integers(0, V, n) for n in row] for row in lengths]
    tokens, positions, segments = forward.packed(rows, T)
    weights = rng.random(tokens.shape).astype(np.float32)
    return TokenBatch(tokens, weights, positions, segments)


def largest_with_vocabulary(text: str) -> int:
    """Elements of the largest array of a program that has an axis of V."""
    found = re.findall(r"\b[a-z]\w*\[([\d,]+)\]", text)
    dims = [[int(d) for d in shape.split(",")] for shape in found]
    return max(int(np.prod(d)) for d in dims if V in d)


def measured(cfg, mesh=None, chunk=None):
    """(loss, gradients, largest array of the program with an axis V)."""
    cfg = dataclasses.replace(cfg, mesh=mesh)
    loss = partial(token_nll, cfg, chunk=chunk)
    params, place = forward.random_params(CFG), placer(mesh)
    if mesh is not None:
        params = jax.device_put(params, param_shardings(params, mesh))
    program = jax.jit(jax.value_and_grad(lambda p, b: loss(p, b).sum))
    given = params, place(batch())
    compiled = program.lower(*given).compile()
    value, grads = jax.device_get(compiled(*given))
    return value, grads, largest_with_vocabulary(compiled.as_text())


def kernel_by_columns() -> float:
    """The TPU kernel, interpreted, on two halves of a row, against dense attention.

    The largest difference of the result and of its gradients; two query heads share a
    kv head, so that columns are what is split, and there is a window.
    """
    mesh = make_mesh(fsdp=1, sequence=2, devices=jax.devices()[:2])
    cfg = dataclasses.replace(
        CFG, attention="splash", mesh=mesh, head_dim=64, n_heads=2, n_kv_heads=1,
        sliding_window=150,
    )  # fmt: skip
    length, rng = 512, np.random.default_rng(0)
    assert flash.implementation(cfg, length) == "splash"
    parts = [np.zeros(n, int) for n in (300, 200)]
    positions, segments = map(jnp.asarray, forward.packed([parts], length)[1:])
    *qkv, g = (
        jnp.asarray(rng.standard_normal((1, heads, length, 64)), jnp.float32)
        for heads in (2, 1, 1, 2)
    )

    def kernel(*qkv):
        seen = flash.places(positions, segments)._replace(slides=True)
        return flash.attention(cfg, *qkv, seen)

    def dense(q, k, v):
        mask = attn.causal_mask(positions, segments)
        mask &= attn.window_mask(positions, positions, cfg.sliding_window)
        return attn.attention(q, (attn.Block(k, v, mask),))

    @partial(jax.jit, static_argnums=0)
    def found(attend, g, *qkv):
        out, pull = jax.vjp(attend, *qkv)
        return out, *pull(g)

    pairs = zip(*(found(attend, g, *qkv) for attend in (kernel, dense)), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def main() -> dict:
    dense = dataclasses.replace(CFG, attention="dense")
    value, grads, _ = measured(dense)
    result = {"kernel": kernel_by_columns()}
    for name, (sizes, attention) in CASES.items():
        mesh = make_mesh(**sizes)
        cfg = dataclasses.replace(CFG, attention=attention, mesh=mesh)
        here, found, largest = measured(cfg, mesh, CHUNK)
        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(found), strict=True)
        rows = len(batch().tokens) // mesh.shape["fsdp"]
        result[name] = {
            "split": flash._split(cfg, T),
            "loss": float(abs(here - value) / value),
            "gradient": max(
                float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs
            ),
            "logits": largest,
            "of_a_device": rows * T // mesh.shape["sequence"] * V,
        }
    return result


if __name__ == "__main__":
    print(json.dumps(main()))
