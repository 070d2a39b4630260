"""The best settings of a run on a slice: meshes, micro-batches, rematerialisation.

The batch of an update is part of the method and stays; what changes is how it is
computed. A setting that can only be slower than one that fits is not compiled, nor one
that must lack memory as another does.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from train.chips import Slice
from train.errors import ConfigError
from train.plan_terms import Plan
from train.ppo_run import RunConfig

REMAT = ("none", "dots", "full")  # from fast and large to slow and small
TENSOR = (1, 2, 4, 8, 16)


class Try(NamedTuple):
    """Settings, and their plan or why they cannot be."""

    mesh: dict[str, int]
    accum: int
    remat: str
    plan: Plan | None
    error: str | None = None


class Found(NamedTuple):
    """The fastest plan that fits, or else lacks least; and all that was tried."""

    best: Plan
    tried: tuple[Try, ...]


def search(
    cfg,
    where: Slice,
    plan: Callable[[Any], Plan],
    tries: int = 12,
    say: Callable[[str], None] = lambda text: None,
) -> Found:
    """Plans settings from the simplest on, at most `tries` of them.

    say: is told of each before it is planned, which takes minutes.

    Raises ConfigError where none can be planned at all.
    """
    tried: list[Try] = []
    for mesh, accum, remat in candidates(cfg, where):
        if len([t for t in tried if t.plan]) >= tries:
            break
        known = [t for t in tried if t.mesh == mesh]
        if any(_no_slower(t, accum, remat) for t in known):
            continue
        if any(_too_much(t, accum, remat) for t in known):
            continue
        ways = " x ".join(f"{axis} {n}" for axis, n in mesh.items())
        say(f"mesh {ways}, {accum} micro-batches, remat {remat}")
        try:
            result, error = plan(changed(cfg, mesh, accum, remat)), None
        except (ConfigError, ValueError) as e:  # heads that do not divide, and the like
            result, error = None, str(e)
        tried.append(Try(mesh, accum, remat, result, error))
    plans = [t.plan for t in tried if t.plan]
    if not plans:
        raise ConfigError(f"--search: nothing can be planned: {tried[0].error}")
    fitting = [p for p in plans if p.fits]
    if fitting:
        return Found(min(fitting, key=lambda p: p.step_seconds), tuple(tried))
    return Found(min(plans, key=lambda p: max(lack(p))), tuple(tried))


def lack(plan: Plan) -> list[float]:
    """Bytes that each function needs more than there are."""
    return [f.needed - f.available for f in plan.functions]


def candidates(cfg, where: Slice) -> Iterator[tuple[dict[str, int], int, str]]:
    """(mesh, micro-batches, remat): few tensor ways and few micro-batches first.

    Columns stay split as the config has them: how long its rows are is not searched.
    """
    sequence = max(1, cfg.mesh.sequence)
    for tensor in TENSOR:
        if where.devices % (tensor * sequence):
            continue
        fsdp = where.devices // (tensor * sequence)
        mesh = {"data": 1, "fsdp": fsdp, "tensor": tensor, "sequence": sequence}
        for accum in micro_batches(rows_of(cfg) // fsdp):
            for remat in REMAT:
                yield mesh, accum, remat


def rows_of(cfg) -> int:
    """The rows of an update."""
    return cfg.ppo.minibatch if isinstance(cfg, RunConfig) else cfg.batch_size


def micro_batches(rows: int) -> list[int]:
    """Numbers of equal parts of a device's rows, each half as many again, and all."""
    found: list[int] = []
    for parts in range(1, rows + 1):
        if rows % parts == 0 and (not found or parts >= 1.5 * found[-1]):
            found.append(parts)
    return found or [1]  # one, to be told that rows do not divide


def changed(cfg, mesh: dict[str, int], accum: int, remat: str):
    """The config of a run with other settings."""
    sizes = dataclasses.replace(cfg.mesh, **mesh)
    if isinstance(cfg, RunConfig):
        ppo = dataclasses.replace(cfg.ppo, accum=accum)
        return dataclasses.replace(cfg, mesh=sizes, remat=remat, ppo=ppo)
    return dataclasses.replace(cfg, mesh=sizes, remat=remat, accum=accum)


def _no_slower(earlier: Try, accum: int, remat: str) -> bool:
    """Whether an earlier try on a mesh fits and computes no more than this one.

    Or cannot be at all with as many micro-batches, whatever is rematerialised.
    """
    if earlier.plan is None:
        return earlier.accum == accum
    if not earlier.plan.fits:
        return False
    less = REMAT.index(earlier.remat) <= REMAT.index(remat)
    return earlier.accum <= accum and less


def _too_much(earlier: Try, accum: int, remat: str) -> bool:
    """Whether this one must lack memory, as an earlier try on the same mesh did.

    N times the micro-batches leave at least an N-th of the activations, and less
    rematerialisation no fewer; parameters and states stay what they are.
    """
    if earlier.plan is None or accum < earlier.accum:
        return False
    thriftier = REMAT.index(remat) > REMAT.index(earlier.remat)
    for f in earlier.plan.functions:
        activations = 0.0 if thriftier else f.parts.get("activations", 0.0)
        # Only an update has micro-batches.
        times = earlier.accum / accum if f.name == "update" else 1.0
        fixed = f.needed - f.parts.get("activations", 0.0)
        if fixed + activations * times > f.available:
            return True
    return False
