"""Plans a run on a TPU slice, on any machine: does it fit, how long, what bounds it.

    python -m train.plan --config=configs/sft.py:paper --topology=v5e:8x8 \
        --model=llama2-7b --examples=52000
        --search          try meshes, micro-batches and remat; print the best that fits
        --json            for machines, in the place of the tables
        --context=N       a model whose positions reach so far, for long rows

Takes the configs of train.sft, train.reward, train.dpo and train.ppo, and their
overrides. Their own jitted functions are compiled by the TPU compiler (the package
libtpu: `pip install -r requirements-tpu.txt`; no TPU is needed), a minute or two each.
Rows count as full; times are rooflines, bounds from below. What a run computes beside
those functions, such as its evaluation, is named in a last line.

The config of an experiment is planned stage by stage, every program once, by the module
`plan` of the package that the experiment is of (`research.plan`).

Exit codes: 0 it fits, 2 bad input, 3 it does not fit.
"""

import os

if __name__ == "__main__":
    # A TPU of this machine may be at work, and has nothing to do here.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

import dataclasses
import hashlib
import importlib
import json
import math
import sys
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from absl import flags
from ml_collections import config_dict

from train import plan_print
from train.aot import (
    Overflow,
    argument_shardings,
    compile_for,
    program_bytes,
    slice_devices,
)
from train.chips import Slice, parse_slice
from train.cli import run_main
from train.decoder import check_rows
from train.dpo import DPOConfig
from train.errors import ConfigError
from train.hlo_costs import Costs, costs
from train.mesh import make_mesh
from train.plan_given import ABSENT, Asked, given, start
from train.plan_pieces import Given, Piece
from train.plan_runs import NAMES, left_out, pieces, rows_of, settings
from train.plan_search import search
from train.plan_terms import Function, Plan, per_chip, roofline, shard_bytes
from train.ppo_run import RunConfig
from train.reward import RewardConfig
from train.settings import build
from train.sft import SFTConfig

FITS, DOES_NOT_FIT = 0, 3
COMMANDS = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "dpo": DPOConfig,
    "ppo": RunConfig,
}


def plan(
    cfg,
    where: Slice,
    asked: Asked = Asked(),  # noqa: B008 (immutable)
    known: MutableMapping[str, "Compiled"] | None = None,
) -> Plan:
    """Compiles each function of a run for a slice and reads what it costs.

    Args:
      cfg: an SFTConfig, RewardConfig, DPOConfig or ppo_run.RunConfig.
      known: as for `plan_given`.

    Raises ConfigError where the settings do not fit together, or libtpu is missing.
    """
    model = asked.model or start(cfg)
    found = plan_given(cfg, given(cfg, asked), where, model, steps(cfg, asked), known)
    return found._replace(left_out=left_out(cfg))


def plan_given(
    cfg,
    given: Given,
    where: Slice,
    model: str,
    steps: int | None = None,
    known: MutableMapping[str, "Compiled"] | None = None,
) -> Plan:
    """`plan` of architectures that are at hand, for any run of `train.plan_runs`.

    Args:
      model: what it is called. steps: of the run.
      known: programs that were compiled before, by what they are; more are added. One
        that is met again is not compiled again.
    """
    devices = slice_devices(where)
    if math.prod(sizes := dataclasses.astuple(cfg.mesh)) == 1:
        devices = devices[:1]  # as a run that takes one device takes it
    mesh = make_mesh(*sizes, devices=devices)
    if (rows := rows_of(cfg)) is not None:
        check_rows(*rows, mesh)
    functions, chosen = [], {}
    known = {} if known is None else known
    for piece in pieces(cfg, given, mesh):
        function, chosen = compiled(piece, where, chosen, known)
        functions.append(function)
    return Plan(
        NAMES[type(cfg)],
        model,
        where,
        dict(mesh.shape),
        settings(cfg),
        tuple(functions),
        steps,
    )


class Compiled(NamedTuple):
    """What is kept of a program: what it lacks, or its bytes, costs and arguments."""

    overflow: Overflow | None
    bytes: int = 0
    costs: Costs | None = None
    arguments: Mapping = {}


def _compiled(lowered, where: Slice, known: MutableMapping[str, Compiled]) -> Compiled:
    text = f"{where.name}\n{lowered.as_text()}"
    key = hashlib.sha256(text.encode()).hexdigest()
    if key not in known:
        program = compile_for(lowered)
        if isinstance(program, Overflow):
            known[key] = Compiled(program)
        else:
            known[key] = Compiled(
                None,
                program_bytes(program),
                costs(program.as_text()),
                argument_shardings(lowered, program),
            )
    return known[key]


def compiled(
    piece: Piece,
    where: Slice,
    chosen: Mapping,
    known: MutableMapping[str, Compiled],
) -> tuple[Function, Mapping]:
    """Compiles a function: its memory and costs, and where its arguments lie.

    chosen: {(shape, dtype): sharding}, which the compiler chose for the arguments of
    earlier functions that had none of their own; what is returned adds to it.
    """
    devices = where.chip.devices
    program = _compiled(piece.lower(), where, known)
    chosen = {**chosen, **program.arguments}

    def size(tree) -> int:
        return shard_bytes(tree, chosen)

    parts = {name: size(tree) for name, tree in piece.held.items()}
    beside = {name: size(tree) for name, tree in piece.beside.items()}
    own = program.overflow.needed if program.overflow else program.bytes
    parts["activations"] = max(0, own - sum(parts.values()))
    for name, size in beside.items():
        parts[name] = parts.get(name, 0) + size
    parts = {name: devices * size for name, size in parts.items() if size}
    available = program.overflow.available * devices if program.overflow else 0
    function = Function(
        piece.name,
        piece.calls,
        parts,
        devices * (own + sum(beside.values())),
        available or where.chip.usable,
        piece.model_flops,
    )
    if program.overflow:
        return function, chosen
    spent = per_chip(program.costs, where)
    return function._replace(costs=spent, roofline=roofline(spent, where)), chosen


def steps(cfg, asked: Asked) -> int | None:
    """Steps of the run: of the config, or from the number of examples."""
    if isinstance(cfg, RunConfig):
        return cfg.ppo.iterations
    if cfg.steps is not None:
        return cfg.steps
    if asked.examples is None:
        return None
    kept = asked.examples
    if cfg.eval_data is None and cfg.eval_fraction:  # as `commands.split_examples`
        kept -= max(1, round(cfg.eval_fraction * kept))
    return math.ceil(cfg.epochs * math.ceil(kept / cfg.batch_size))


def read_config(config: config_dict.ConfigDict):
    """The settings of a run, of the command whose config has these keys.

    Checkpoints and data that are not given are left out: a plan needs none.
    """
    keys = set(config.keys())
    for cls in COMMANDS.values():
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if keys <= set(fields) and keys & _own(cls):
            needed = [
                name
                for name, field in fields.items()
                if field.default is dataclasses.MISSING
            ]
            given = dict(config.items(preserve_field_references=False))
            given |= {name: given.get(name) or ABSENT for name in needed}
            return build(cls, given)
    raise ConfigError(
        f"--config: its keys are those of none of {', '.join(COMMANDS)}; expected the "
        "config of one of them"
    )


def _own(cls) -> set[str]:
    """The keys that no other command has."""
    others = [c for c in COMMANDS.values() if c is not cls]
    names = {f.name for f in dataclasses.fields(cls)}
    return names - {f.name for c in others for f in dataclasses.fields(c)}


def define_flags(values: flags.FlagValues) -> None:
    """See `Asked`."""
    add = {"flag_values": values}
    flags.DEFINE_string("topology", None, "slice, e.g. v5e:16x16", **add)
    flags.DEFINE_string("model", None, "its name, or a config.json", **add)
    flags.DEFINE_string("reward_model", None, "that of PPO; default: --model", **add)
    flags.DEFINE_integer("examples", None, "rows to train on", 1, **add)
    flags.DEFINE_bool("pairs", False, "a reward model learns from pairs", **add)
    flags.DEFINE_integer("prompt_length", 256, "of PPO's longest prompt", 1, **add)
    flags.DEFINE_integer("context", None, "tokens, if not the model's own", 1, **add)
    flags.DEFINE_bool("search", False, "find the best settings that fit", **add)
    flags.DEFINE_integer("tries", 12, "of --search, at most", 1, **add)
    flags.DEFINE_bool("json", False, "print JSON", **add)


def planner(experiment: str):
    """The module that plans experiments of this name's package: `<package>.plan`.

    By name, as the experiment itself: what it is made of is above this package.
    """
    name = f"{str(experiment).partition('.')[0]}.plan"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name not in (name, name.partition(".")[0]):
            raise
        raise ConfigError(
            f"config.experiment: {experiment!r} has no module {name!r}, which plans it"
        ) from e


def say(text: str) -> None:
    """What goes on, for people who wait: beside what is printed as the result."""
    print(text, file=sys.stderr, flush=True)


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> int:
    if not values.topology:
        raise ConfigError("--topology: missing; expected a slice, e.g. v5e:16x16")
    if "experiment" in config:
        return planner(config.experiment).main(config, values)
    where = parse_slice(values.topology)
    cfg = read_config(config)
    asked = Asked(**{f.name: values[f.name].value for f in dataclasses.fields(Asked)})
    if values.search:
        result, tried = search(
            cfg, where, lambda c: plan(c, where, asked), values.tries, say
        )
    else:
        result = plan(cfg, where, asked)
        tried = ()
    if values.json:
        print(json.dumps(plan_print.as_json(result, tried), indent=2))
    else:
        print(plan_print.as_text(result, tried))
    return FITS if result.fits else DOES_NOT_FIT


if __name__ == "__main__":
    run_main(main, define_flags)
