"""Loss and perplexity on held-out batches, each example counted exactly once."""

import math
from collections.abc import Callable, Iterable

import jax

from train.losses import Loss


def make_evaluate(
    loss_fn: Callable[..., Loss],
    batches: Iterable,
    place: Callable,
    prefix="eval",
    constants: tuple = (),
) -> Callable[..., dict[str, float]]:
    """`evaluate(params) -> {"eval/loss": ..., "eval/perplexity": ...}`.

    Args:
      loss_fn: `(params, batch, *constants) -> Loss`; its extras become "eval/<name>".
      batches: host batches, gone through in order at every call.
      place: puts a host batch on the devices.

    Sums are added in float64: the value does not depend on the batch size, but for the
    rounding inside a batch.
    """

    @jax.jit
    def sums(params, batch, *constants):
        loss = loss_fn(params, batch, *constants)
        return {"loss": (loss.sum, loss.weight), **loss.extras}

    def evaluate(params) -> dict[str, float]:
        waiting, parts = None, []
        for batch in batches:
            waiting, done = sums(params, place(batch), *constants), waiting
            if done is not None:
                parts.append(jax.device_get(done))
        if waiting is not None:
            parts.append(jax.device_get(waiting))
        row = {}
        for name in parts[0] if parts else ():
            sums_of = zip(*(p[name] for p in parts), strict=True)
            total, weight = (math.fsum(map(float, values)) for values in sums_of)
            if weight:
                row[f"{prefix}/{name}"] = total / weight
        if f"{prefix}/loss" in row:
            row[f"{prefix}/perplexity"] = perplexity(row[f"{prefix}/loss"])
        return row

    return evaluate


def perplexity(nll: float) -> float:
    """exp(nll), infinite where it overflows."""
    return math.exp(nll) if nll < 700 else math.inf
