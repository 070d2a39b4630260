"""A plan as tables for people, and as JSON for machines."""

import math
from collections.abc import Sequence

from models.sampler import power_of_two
from train.chips import GIB
from train.plan_search import Try
from train.plan_terms import Function, Plan, roofline

# Left to right; what else there is comes last.
PARTS = (
    "params",
    "policy",
    "optimizer",
    "critic",
    "reference",
    "reward model",
    "cache",
    "batch",
    "activations",
)


def as_json(plan: Plan, tried: Sequence[Try] = ()) -> dict:
    """Plain numbers, in bytes, FLOPs, seconds and hours; per chip, as in Plan."""
    return {
        "run": plan.run,
        "model": plan.model,
        "topology": plan.where.name,
        "chips": plan.where.chips,
        "mesh": dict(plan.mesh),
        "settings": dict(plan.settings),
        "fits": plan.fits,
        "functions": [_function(f, plan) for f in plan.functions],
        "steps": plan.steps,
        "step_seconds": plan.step_seconds,
        "chip_hours": plan.chip_hours,
        "left_out": list(plan.left_out),
        "advice": advice(plan),
        **({"tried": [_try(t) for t in tried]} if tried else {}),
    }


def _function(f: Function, plan: Plan) -> dict:
    row = {
        "name": f.name,
        "calls_per_step": f.calls,
        "fits": f.fits,
        "hbm": {"needed": f.needed, "available": f.available, "parts": dict(f.parts)},
        "model_flops": f.model_flops,
    }
    if f.costs is None:
        return row
    return row | {
        "flops": f.costs.flops,
        "bytes_read": f.costs.bytes_read,
        "bytes_written": f.costs.bytes_written,
        "collectives": [t._asdict() for t in f.costs.traffic],
        "seconds": {**f.roofline._asdict(), "total": f.roofline.seconds},
        "bound": f.roofline.bound,
        "mfu": f.mfu(plan.where),
        "kernels_not_counted": list(f.costs.kernels),
        "loops_counted_once": list(f.costs.open_loops),
        "seconds_around_loops": _around(f, plan),
    }


def _around(f: Function, plan: Plan) -> float:
    """Seconds of what a call does beside the rounds that its costs are of."""
    if f.costs is None or f.costs.around is None:
        return 0.0
    return roofline(f.costs.around, plan.where).seconds


def _try(t: Try) -> dict:
    return {
        "mesh": t.mesh,
        "accum": t.accum,
        "remat": t.remat,
        "fits": None if t.plan is None else t.plan.fits,
        "step_seconds": None if t.plan is None else t.plan.step_seconds,
        "error": t.error,
    }


def as_text(plan: Plan, tried: Sequence[Try] = ()) -> str:
    """Memory, costs and times of each function, then the run in a sentence."""
    chip = plan.where.chip
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan.mesh.items() if n > 1) or "1"
    told = ", ".join(f"{key} {value}" for key, value in plan.settings.items())
    lines = [
        f"{plan.run} of {plan.model} on {plan.where.name}: {plan.where.chips} chips, "
        f"mesh {mesh}",
        told,
        "",
        f"HBM, GiB a chip (of {chip.usable / GIB:.2f})",
        *_memory(plan.functions),
    ]
    if any(f.costs for f in plan.functions):
        lines += ["", "A call, on each chip", *_costs(plan), "", *_collectives(plan)]
    if tried:
        lines += ["", "Tried", *_tried(tried)]
    lines += ["", *_verdict(plan)]
    if plan.left_out:
        lines.append(f"Not planned: {'; '.join(plan.left_out)}.")
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(["  " + first, *others]).rstrip())
    lines.insert(1, "  " + "-" * (sum(widths) + 2 * len(widths) - 2))
    return lines


def _memory(functions: Sequence[Function]) -> list[str]:
    found = {name for f in functions for name in f.parts}
    names = [n for n in PARTS if n in found] + sorted(found - set(PARTS))
    rows = [["", *names, "sum", ""]]
    for f in functions:
        cells = [_gib(f.parts[n]) if n in f.parts else "" for n in names]
        short = f.needed - f.available
        note = "fits" if f.fits else f"{_gib(short)} too much"
        rows.append([f.name, *cells, _gib(f.needed), note])
    return table(rows)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _costs(plan: Plan) -> list[str]:
    rows = [["", "TFLOP", "HBM GB", "sent GB", "compute", "memory", "network",
             "bound by", "time", "MFU", "calls"]]  # fmt: skip
    for f in plan.functions:
        if f.costs is None:
            continue
        c, r = f.costs, f.roofline
        rows.append(
            [
                f.name,
                f"{c.flops / 1e12:.4g}",
                f"{c.bytes / 1e9:.4g}",
                f"{c.sent() / 1e9:.4g}",
                *(duration(seconds) for seconds in r),
                r.bound,
                duration(r.seconds),
                f"{f.mfu(plan.where):.1%}",
                f"{f.calls:.4g}",
            ]
        )
    return table(rows)


def _collectives(plan: Plan) -> list[str]:
    rows = [["Collectives", "devices", "count", "sent GB"]]
    for f in plan.functions:
        for t in f.costs.traffic if f.costs else ():
            if t.bytes >= 0.01 * f.costs.sent():
                size = f"{t.bytes / 1e9:.4g}"
                rows.append([f"{f.name}: {t.kind}", str(t.group), f"{t.count:g}", size])
    return table(rows) if len(rows) > 1 else ["No collectives."]


def _tried(tried: Sequence[Try]) -> list[str]:
    rows = [["mesh", "micro-batches", "remat", "a step"]]
    for t in tried:
        mesh = " x ".join(f"{axis} {n}" for axis, n in t.mesh.items() if n > 1) or "1"
        if t.plan is None:
            told = "impossible"
        elif t.plan.fits:
            told = duration(t.plan.step_seconds)
        else:
            most = max(f.needed - f.available for f in t.plan.functions)
            told = f"{_gib(most)} GiB too much"
        rows.append([mesh, str(t.accum), t.remat, told])
    return table(rows)


def _verdict(plan: Plan) -> list[str]:
    if not plan.fits:
        most = max(plan.functions, key=lambda f: f.needed - f.available)
        short = _gib(most.needed - most.available)
        return [
            f"Does not fit: {most.name} needs {_gib(most.needed)} GiB a chip, {short} "
            "more than there is.",
            *(f"  {line}" for line in advice(plan)),
        ]
    step = duration(plan.step_seconds)
    notes = [
        f"{f.name}: FLOPs of {', '.join(f.costs.kernels)} are not counted."
        for f in plan.functions
        if f.costs.kernels
    ]
    for f in plan.functions:
        if seconds := _around(f, plan):
            notes.append(
                f"{f.name}: of one round; each call of it, of many, takes "
                f"{duration(seconds)} more."
            )
    if plan.steps is None:
        end = (
            f"Fits. A step takes at least {step} with full rows; --examples=N gives "
            "chip-hours."
        )
    else:
        end = (
            f"Fits. {plan.steps} steps of at least {step} with full rows: "
            f"{duration(plan.steps * plan.step_seconds)}, "
            f"{plan.chip_hours:.4g} chip-hours at the roofline."
        )
    return [*notes, end]


def duration(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `2.5 h`."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def advice(plan: Plan) -> list[str]:
    """What to change where something does not fit, the least harmful first."""
    found, chips = [], plan.where.chips
    own = plan.settings
    for f in plan.functions:
        if f.fits:
            continue
        fixed = sum(v for k, v in f.parts.items() if k not in ("activations", "cache"))
        if fixed > f.available:
            least = chips * fixed / f.available
            found.append(
                f"{f.name}: parameters and states alone take {_gib(fixed)} GiB a chip; "
                f"split over more chips (at least {least:.0f}), or a mesh with more "
                "fsdp and less data"
            )
        if f.name == "update":
            if own["dtype"] == "float32":
                found.append("--config.dtype=bf16_compute halves activations")
            if own["remat"] != "full":
                found.append("--config.remat=full keeps only the layers' inputs")
            key = "ppo.accum" if "ppo.accum" in own else "accum"
            rows = own.get("batch_size", own.get("ppo.minibatch"))
            shards = plan.mesh["data"] * plan.mesh["fsdp"]
            if rows % (2 * own[key] * shards) == 0:
                found.append(
                    f"--config.{key}={2 * own[key]} halves the rows of a micro-batch"
                )
            elif plan.mesh["tensor"] == 1:
                found.append("--config.mesh.tensor=2 splits layers over two devices")
        if "cache" in f.parts and own.get("sampling.slots", 1) > 1:
            found.append(
                f"--config.sampling.slots={own['sampling.slots'] // 2} halves the cache"
            )
        more = power_of_two(math.ceil(f.needed / f.available))
        found.append(f"a slice of {chips * more} chips or more")
    return list(dict.fromkeys(found))
