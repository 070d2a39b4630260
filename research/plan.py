"""The plan of an experiment on a TPU slice: every program of its stages, once.

    python -m train.plan --config=configs/ch6_easy_to_hard.py:paper \
        --topology=v5p:2x2x1 --config.published.checkpoint=EleutherAI/llemma_7b

Stages are declared, not run. What they compute is told by the module `planned` beside
their functions (see `Stage`). Rows are counted by the data stages that are done in
--workdir, else by the settings and published sizes; --examples stands for counts that
neither knows. What cannot be planned is listed with the reason.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_dict

from models.config import DecoderConfig
from research.records import read_record
from research.run import declare
from research.stages import Handle, folder_of
from train import plan_print
from train.chips import Slice, parse_slice
from train.errors import ConfigError
from train.plan import DOES_NOT_FIT, FITS, plan_given, say
from train.plan_models import MODELS, model_shape
from train.plan_pieces import Given
from train.plan_runs import NAMES, on_tpu
from train.plan_terms import HOUR, Plan


class Work(NamedTuple):
    """A part of what a stage computes: a run of `train.plan_runs` and its steps.

    run: a config of a command, or a SampleRun or ScoreRun; steps: None, not known
    """

    run: Any
    model: DecoderConfig
    steps: int | None
    reward_model: DecoderConfig | None = None
    pairs: bool = False
    prompt_length: int = 256

    @property
    def key(self) -> "Work":
        """What it shares with others that have the same plan."""
        return self._replace(steps=None)


class Facts(NamedTuple):
    """What a stage is planned by, beside its inputs.

    model: the architecture of a checkpoint, by its folder or published name
    counts: of a data stage's rows, where it is done
    """

    model: Callable[[str], DecoderConfig]
    counts: Callable[[Handle], Mapping[str, int]]
    examples: int | None
    prompt_length: int


LEFT_OUT = (
    "evaluation and validation while training; slots.insert, which copies prefilled "
    "prompts into the cache"
)
# What a stage computes; text says what of it no plan has, and why.
Stage = Callable[[Handle, Facts], Iterable[Work | str]]


class Part(NamedTuple):
    """A work with its plan, or why it has none."""

    work: Work
    plan: Plan | None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        if self.plan is None or self.work.steps is None:
            return None
        each = self.plan.step_seconds
        return None if each is None else self.work.steps * each


class PlannedStage(NamedTuple):
    """A stage: its parts, and what of it is in no plan."""

    name: str
    parts: tuple[Part, ...]
    left_out: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of the parts whose time is known."""
        return sum(part.seconds or 0.0 for part in self.parts)

    @property
    def fits(self) -> bool:
        return all(part.plan is not None and part.plan.fits for part in self.parts)


def describe(handle: Handle, facts: Facts) -> list[Work | str]:
    """What a stage computes on devices, by the table STAGES of its package's `planned`.

    Nothing, where the table has None. A function that it does not have is told so.
    """
    package = handle.fn.__module__.rpartition(".")[0]
    name = f"{package}.planned"
    try:
        known = importlib.import_module(name).STAGES
    except ModuleNotFoundError as e:
        if e.name != name:
            raise
        return [f"no module {name} says what it computes"]
    if handle.fn not in known:
        return [f"{name} does not say what {handle.fn.__name__} computes"]
    stage = known[handle.fn]
    return [] if stage is None else list(stage(handle, facts))


def plan_stages(
    handles: Sequence[Handle],
    where: Slice,
    facts: Facts,
    tell: Callable[[str], None] = lambda text: None,
) -> list[PlannedStage]:
    """Plans stages in their order; runs and programs that are the same, once.

    tell: is called with each run before it is compiled.
    """
    done: dict[Work, Part] = {}
    known: dict = {}
    planned = []
    for handle in handles:
        parts: dict[Work, Part] = {}
        told = describe(handle, facts)
        for work in told:
            if isinstance(work, str):
                continue
            key = work.key
            if key not in done:
                tell(f"{handle.name}: {NAMES[type(work.run)]}")
                done[key] = _planned(work, where, known)
            if key in parts:  # the same again, such as answers to another file
                work = work._replace(steps=work.steps + parts[key].work.steps)
            parts[key] = done[key]._replace(work=work)
        left_out = tuple(text for text in told if isinstance(text, str))
        planned.append(PlannedStage(handle.name, tuple(parts.values()), left_out))
    return planned


def _planned(work: Work, where: Slice, known: dict) -> Part:
    judge = work.reward_model
    given = Given(
        on_tpu(work.model, work.run),
        None if judge is None else on_tpu(judge, work.run),
        work.pairs,
        work.prompt_length,
    )
    size = f"{work.model.n_layers} layers of {work.model.d_model}"
    try:
        return Part(work, plan_given(work.run, given, where, size, None, known))
    except (ConfigError, ValueError) as e:  # rows, or heads, that do not divide
        return Part(work, None, str(e))


# --- what is printed ----------------------------------------------------------------


def distinct(stages: Sequence[PlannedStage]) -> list[Part]:
    """Parts with different plans, in the order in which stages have them."""
    found = {p.work.key: p for s in stages for p in s.parts}
    return list(found.values())


def as_text(stages: Sequence[PlannedStage], where: Slice) -> str:
    """Tables of the programs and of the stages, and the total."""
    programs = distinct(stages)
    number = {p.work.key: i + 1 for i, p in enumerate(programs)}
    rows = [["", "run", "function", "GiB a chip", "", "a call", "bound by", "calls"]]
    for i, part in enumerate(programs, 1):
        if part.plan is None:
            continue
        for f in part.plan.functions:
            short, time = f.needed - f.available, ["", ""]
            if f.fits:
                time = [plan_print.duration(f.roofline.seconds), f.roofline.bound]
            rows.append(
                [
                    f"P{i}",
                    part.plan.run,
                    f.name,
                    f"{f.needed / 2**30:.2f}",
                    "fits" if f.fits else f"{short / 2**30:.2f} too much",
                    *time,
                    f"{f.calls:.4g}",
                ]
            )
    lines = [
        f"{where.name}: {where.chips} chips; {where.chip.usable / 2**30:.2f} GiB each",
        "",
        "Programs; calls are those of one step",
        *plan_print.table(rows),
        *_settings(programs),
        "",
        "Stages",
    ]
    rows = [["", "steps", "at least", "chip-hours"]]
    for stage in stages:
        if not stage.parts and not stage.left_out:
            continue
        told = []
        for part in stage.parts:
            steps = "?" if part.work.steps is None else part.work.steps
            told.append(f"{steps} x P{number[part.work.key]}")
        hours = stage.seconds / HOUR * where.chips
        time = [plan_print.duration(stage.seconds), f"{hours:.4g}"]
        rows.append(
            [
                stage.name,
                " + ".join(told) or "not planned",
                *(time if stage.seconds else ["", ""]),
            ]
        )
    lines += plan_print.table(rows)
    return "\n".join([*lines, "", *_verdict(stages, number, where)])


def _settings(programs: Sequence[Part]) -> list[str]:
    lines = []
    for i, part in enumerate(programs, 1):
        if part.plan is None:
            lines.append(f"  P{i} cannot be: {part.error}")
            continue
        told = ", ".join(f"{key} {value}" for key, value in part.plan.settings.items())
        lines.append(f"  P{i}: {part.plan.run} of {part.plan.model}; {told}")
    return lines


def _verdict(stages, number, where: Slice) -> list[str]:
    seconds = sum(stage.seconds for stage in stages)
    lines = [
        f"In all, with full rows, at least {plan_print.duration(seconds)}, "
        f"{seconds / HOUR * where.chips:.4g} chip-hours at the roofline."
    ]
    unknown = [
        stage.name for stage in stages if any(p.work.steps is None for p in stage.parts)
    ]
    if unknown:
        lines.append(
            f"Without what takes an unknown number of steps ({', '.join(unknown)}): a "
            "--workdir in which the data stages are done knows it, or give --examples."
        )
    lacking = [stage.name for stage in stages if not stage.fits]
    if lacking:
        lines.append(f"Without what cannot be or does not fit: {', '.join(lacking)}.")
    reasons: dict[str, list[str]] = {}
    for stage in stages:
        for reason in stage.left_out:
            reasons.setdefault(reason, []).append(stage.name)
    for reason, names in reasons.items():
        lines.append(f"Not planned, of {', '.join(names)}: {reason}.")
    lines.append(f"Not planned, of all stages: {LEFT_OUT}.")
    for part in distinct(stages):
        if part.plan is not None and not part.plan.fits:
            name = f"P{number[part.work.key]}"
            lines.append(f"{name} does not fit (keys are those of its run alone):")
            lines += [f"  {line}" for line in plan_print.advice(part.plan)]
    return lines


def as_json(stages: Sequence[PlannedStage], where: Slice) -> dict:
    """Plain numbers, as `train.plan_print.as_json` has them for each program."""
    programs = distinct(stages)
    number = {p.work.key: i for i, p in enumerate(programs)}
    seconds = sum(stage.seconds for stage in stages)
    return {
        "topology": where.name,
        "chips": where.chips,
        "fits": all(stage.fits for stage in stages),
        "programs": [
            {"error": p.error} if p.plan is None else plan_print.as_json(p.plan)
            for p in programs
        ],
        "stages": [
            {
                "name": stage.name,
                "parts": [
                    {
                        "program": number[part.work.key],
                        "steps": part.work.steps,
                        "seconds": part.seconds,
                    }
                    for part in stage.parts
                ],
                "left_out": list(stage.left_out),
                "seconds": stage.seconds,
                "chip_hours": stage.seconds / HOUR * where.chips,
            }
            for stage in stages
        ],
        "left_out": LEFT_OUT,
        "seconds": seconds,
        "chip_hours": seconds / HOUR * where.chips,
    }


# --- the command --------------------------------------------------------------------


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> int:
    """As that of `train.plan`, whose flags these are."""
    if values.search:
        raise ConfigError(
            "--search: of one run; the stages of an experiment share a mesh, which "
            "--config.mesh.tensor=N and the like change"
        )
    where = parse_slice(values.topology)
    plan = declared(config, values.model)
    workdir = None if values.workdir is None else Path(values.workdir)

    def counts(handle: Handle) -> Mapping[str, int]:
        path = None if workdir is None else folder_of(workdir, handle) / "result.json"
        if path is None or not path.exists():
            return {}
        return read_record(path)["value"].get("counts", {})

    def model(checkpoint: str) -> DecoderConfig:
        key = "the experiment's checkpoint"
        return model_shape("--model", None, checkpoint, key, "bfloat16")

    facts = Facts(model, counts, values.examples, values.prompt_length)
    stages = plan_stages(plan.handles, where, facts, say)
    if not any(stage.parts for stage in stages):
        package = plan.handles[0].fn.__module__.rpartition(".")[0]
        raise ConfigError(
            f"--config: no stage of this experiment can be planned yet; expected a "
            f"table of what its stages compute, {package}.planned"
        )
    if values.json:
        print(json.dumps(as_json(stages, where), indent=2))
    else:
        print(as_text(stages, where))
    return FITS if all(stage.fits for stage in stages) else DOES_NOT_FIT


def declared(config: config_dict.ConfigDict, model: str | None):
    """The stages; raises ConfigError that names --model where a checkpoint lacks."""
    try:
        return declare(named(config, model))
    except ConfigError as e:
        absent = [
            f"config.{name}.checkpoint: missing"
            for name, group in config.items()
            if isinstance(group, config_dict.ConfigDict)
            and "checkpoint" in group
            and group.checkpoint is None
        ]
        if model is None and str(e).startswith(tuple(absent)):
            raise ConfigError(
                f"{e}; to plan without the checkpoint give --model=one of "
                + ", ".join(MODELS)
            ) from e
        raise


def named(config: config_dict.ConfigDict, model: str | None) -> config_dict.ConfigDict:
    """The config with a model's name for each checkpoint that nobody has given."""
    found = config_dict.ConfigDict(config.to_dict())
    for group in found.values():
        if isinstance(group, config_dict.ConfigDict) and "checkpoint" in group:
            group.checkpoint = group.checkpoint or model
    return found
