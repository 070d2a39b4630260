"""What fits where: stated runs, each planned on the smallest slice that holds it.

    python -m train.plan_table --workdir=runs/plans
        --only=sft-7b,ppo-7b    plan these; of the others, what is known is shown

Prints a Markdown table. Every plan is kept in the workdir as JSON, by what goes into it
(settings, model, slice, versions of the compiler): the same command goes on where it
was stopped, and several of them with other rows may share a workdir. A plan takes one
to five minutes on two cores, all of them an hour. Times are rooflines, see
`train.plan`; after a change to the program take another workdir.

Exit codes: 0 done, 2 bad input.
"""

import os

if __name__ == "__main__":
    # A TPU of this machine may be at work, and has nothing to do here.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from train import plan_models, plan_print
from train.chips import GIB, parse_slice
from train.cli import BAD_INPUT, OK, load_config
from train.errors import ConfigError
from train.files import write_json
from train.plan import Asked, plan, read_config
from train.plan_search import changed
from train.plan_terms import HOUR
from train.ppo_run import RunConfig
from train.progress import Progress
from train.settings import nearest

CONFIGS = Path(__file__).parents[1] / "configs"
EXAMPLES = 10_000


class On(NamedTuple):
    """A slice, and how a run lies on it: the rest of its devices are fsdp's."""

    topology: str
    tensor: int = 1
    accum: int = 1


class Row(NamedTuple):
    """A run to plan: config of `configs/`, a model's name, slices, smallest first."""

    told: str
    config: str
    model: str
    slices: tuple[On, ...]


# Accumulation is the least that leaves room for activations.
ROWS = {
    "sft-7b": Row(
        "SFT of Llama-2-7B",
        "sft.py:paper",
        "llama2-7b",
        (On("v5e:2x4", accum=8), On("v5e:4x4")),
    ),
    "sft-13b": Row(
        "SFT of Llama-2-13B",
        "sft.py:paper",
        "llama2-13b",
        (On("v5e:4x4", accum=4), On("v5e:4x8")),
    ),
    "sft-34b": Row(
        "SFT of Code Llama 34B",
        "sft.py:paper",
        "codellama-34b",
        (On("v5e:8x8"), On("v5e:8x16")),
    ),
    "sft-34b-v5p": Row(
        "SFT of Code Llama 34B",
        "sft.py:paper",
        "codellama-34b",
        (On("v5p:2x2x2"), On("v5p:2x2x4")),
    ),
    "sft-70b": Row(
        "SFT of Llama-2-70B",
        "sft.py:paper",
        "llama2-70b",
        (On("v5e:8x16"), On("v5e:16x16", tensor=2)),
    ),
    "sft-70b-v5p": Row(
        "SFT of Llama-2-70B",
        "sft.py:paper",
        "llama2-70b",
        (On("v5p:2x2x4"), On("v5p:2x4x4")),
    ),
    "qlora-70b": Row(
        "QLoRA SFT of Llama-2-70B",
        "sft.py:qlora",
        "llama2-70b",
        (
            On("v5e:2x2", tensor=4, accum=4),
            On("v5e:2x4", tensor=4, accum=4),
            On("v5e:4x4", tensor=4),
        ),
    ),
    "dpo-7b": Row(
        "DPO of Llemma-7B",
        "dpo.py:paper",
        "llemma-7b",
        (On("v5e:2x4", accum=8), On("v5e:4x4", accum=2), On("v5e:4x8")),
    ),
    "reward-7b": Row(
        "reward model of Llemma-7B",
        "reward.py:paper",
        "llemma-7b",
        (On("v5e:2x4", accum=16), On("v5e:4x4", accum=4), On("v5e:4x8")),
    ),
    "ppo-7b": Row(
        "PPO of Llemma-7B",
        "ppo.py:prm800k",
        "llemma-7b",
        (On("v5e:8x8"), On("v5e:8x16", tensor=2)),
    ),
    "ppo-70b": Row(
        "QLoRA PPO of Llama-2-70B",
        "ppo.py:qlora",
        "llama2-70b",
        (On("v5e:4x4", tensor=8, accum=144), On("v5e:8x8", tensor=8, accum=36)),
    ),
}


def settings(row: Row, on: On):
    """The settings of a run on a slice; everything is recomputed in backward passes."""
    cfg = read_config(load_config(str(CONFIGS / row.config)))
    fsdp = parse_slice(on.topology).devices // on.tensor
    mesh = {"data": 1, "fsdp": fsdp, "tensor": on.tensor}
    return changed(cfg, mesh, on.accum, "full")


def examples(cfg) -> int:
    """Rows, pairs or responses that a step learns from."""
    return cfg.ppo.responses if isinstance(cfg, RunConfig) else cfg.batch_size


def kept_at(workdir: Path, name: str, row: Row, on: On) -> Path:
    """Where the plan of a row on a slice is, by all that goes into it."""
    inputs = {
        "config": dataclasses.asdict(settings(row, on)),
        "model": dataclasses.asdict(plan_models.MODELS[row.model]),
        "topology": on.topology,
        "versions": [_version(package) for package in ("jax", "libtpu")],
    }
    text = json.dumps(inputs, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    slice_name = on.topology.replace(":", "-")
    return workdir / f"{name}-{slice_name}-{digest}.json"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def known(workdir: Path, name: str, row: Row) -> dict | None:
    """The plan on the smallest slice that fits, as far as slices have been planned."""
    for on in row.slices:
        path = kept_at(workdir, name, row, on)
        if not path.is_file():
            return None
        found = json.loads(path.read_text())
        if found["fits"]:
            return found
    return None


def make_row(
    workdir: Path, name: str, row: Row, note: Callable[[str], None] = lambda _: None
) -> dict | None:
    """Plans a row on its slices until one fits; None where none does."""
    for on in row.slices:
        path = kept_at(workdir, name, row, on)
        if not path.is_file():
            note(f"{name} on {on.topology}")
            found = plan(
                settings(row, on), parse_slice(on.topology), Asked(model=row.model)
            )
            write_json(path, plan_print.as_json(found))
        if json.loads(path.read_text())["fits"]:
            break
    return known(workdir, name, row)


def markdown(found: dict[str, dict | None]) -> str:
    """The table, of plans by the names of their rows."""
    lines = [
        "| | slice | mesh | HBM, GiB a chip | step | MFU | longest, bound by "
        f"| chip-hours for {EXAMPLES:,} examples |",
        "|---" * 8 + "|",
    ]
    for name, made in found.items():
        row = ROWS[name]
        if made is None:
            lines.append(f"| {row.told} |{' - |' * 7}")
            continue
        lines.append(f"| {row.told} | {' | '.join(_cells(row, made))} |")
    return "\n".join(lines)


def _cells(row: Row, made: dict) -> Sequence[str]:
    where = parse_slice(made["topology"])
    on = next(on for on in row.slices if on.topology == made["topology"])
    mesh = " x ".join(f"{axis} {n}" for axis, n in made["mesh"].items() if n > 1)
    functions, seconds = made["functions"], made["step_seconds"]
    needed = max(f["hbm"]["needed"] for f in functions)
    flops = sum(f["calls_per_step"] * f["model_flops"] for f in functions)
    longest = max(functions, key=lambda f: f["calls_per_step"] * f["seconds"]["total"])
    hours = seconds * where.chips * EXAMPLES / examples(settings(row, on)) / HOUR
    return (
        f"{where.name}, {where.chips} chips",
        mesh,
        f"{needed / GIB:.1f} of {where.chip.usable / GIB:.1f}",
        plan_print.duration(seconds),
        f"{flops / (where.chip.flops * where.chips * seconds):.0%}",
        f"{longest['name']}, {longest['bound']}",
        f"{hours:.3g}",
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.plan_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--only", help="names of rows, with commas between them")
    given = parser.parse_args(arguments)
    try:
        chosen = list(ROWS) if given.only is None else given.only.split(",")
        for name in chosen:
            if name not in ROWS:
                raise ConfigError(f"--only: no row {name!r}{nearest(name, ROWS)}")
        with Progress(len(chosen), unit="row") as progress:
            for i, name in enumerate(chosen):

                def note(text: str, i=i) -> None:
                    print(f"planning {text}", file=sys.stderr, flush=True)
                    progress.update(i, text)

                make_row(given.workdir, name, ROWS[name], note)
                progress.update(i + 1, name)
    except ConfigError as e:
        print(f"error: {e}", file=sys.stderr)
        return BAD_INPUT
    found = {name: known(given.workdir, name, row) for name, row in ROWS.items()}
    shown = {name: x for name, x in found.items() if x or name in chosen}
    print(markdown(shown))
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
