"""The best settings of a run on a slice: meshes, micro-batches, rematerialisation.

The batch of an update is part of the method and stays; what changes is how it is
computed. A setting that can only be slower than one that fits is not compiled.
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
ACCUM = (1, 2, 4, 8, 16, 32)


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


def search(cfg, where: Slice, plan: Callable[[Any], Plan], tries: int = 12) -> Found:
    """Plans settings from the simplest on, at most `tries` of them.

    Raises ConfigError where none can be planned at all.
    """
    tried: list[Try] = []
    for mesh, accum, remat in candidates(where):
        if len([t for t in tried if t.plan]) >= tries:
            break
        if any(_no_slower(t, mesh, accum, remat) for t in tried):
            continue
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


def candidates(where: Slice) -> Iterator[tuple[dict[str, int], int, str]]:
    """(mesh, micro-batches, remat): few tensor ways and few micro-batches first."""
    for tensor in TENSOR:
        if where.devices % tensor:
            continue
        mesh = {"data": 1, "fsdp": where.devices // tensor, "tensor": tensor}
        for accum in ACCUM:
            for remat in REMAT:
                yield mesh, accum, remat


def changed(cfg, mesh: dict[str, int], accum: int, remat: str):
    """The config of a run with other settings."""
    sizes = dataclasses.replace(cfg.mesh, **mesh, sequence=1)
    if isinstance(cfg, RunConfig):
        ppo = dataclasses.replace(cfg.ppo, accum=accum)
        return dataclasses.replace(cfg, mesh=sizes, remat=remat, ppo=ppo)
    return dataclasses.replace(cfg, mesh=sizes, remat=remat, accum=accum)


def _no_slower(earlier: Try, mesh, accum: int, remat: str) -> bool:
    """Whether an earlier try on this mesh fits and computes no more than this one.

    Or cannot be at all with as many micro-batches, whatever is rematerialised.
    """
    if earlier.mesh != mesh:
        return False
    if earlier.plan is None:
        return earlier.accum == accum
    if not earlier.plan.fits:
        return False
    less = REMAT.index(earlier.remat) <= REMAT.index(remat)
    return earlier.accum <= accum and less
