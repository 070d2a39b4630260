"""An experiment's plan: all its stages, every program once, and sums that are sums."""

import dataclasses
import importlib
import importlib.util
import json
from pathlib import Path

import pytest
from helpers.plan import made_plan, model_file, step_flops
from jax.sharding import AbstractMesh, AxisType

from models.config import DecoderConfig
from models.sharding import MESH_AXES
from research import plan as experiment_plan
from research.easy_to_hard import generators
from research.plan import Facts, Work, describe, named, plan_stages
from research.records import FORMAT
from research.run import declare
from research.stages import Handle, Plan, folder_of
from train.chips import GIB, parse_slice
from train.cli import run
from train.decoder import check_rows
from train.dpo import DPOConfig
from train.errors import ConfigError
from train.files import write_json
from train.plan import define_flags, main
from train.plan_models import MODELS
from train.plan_runs import rows_of
from train.plan_sampling import SampleRun
from train.ppo_run import RunConfig
from train.reward import RewardConfig
from train.sft import SFTConfig

CONFIG = Path(__file__).parents[2] / "configs" / "ch6_easy_to_hard.py"
CHAPTER = importlib.import_module("configs.ch6_easy_to_hard")
WHERE = parse_slice("v5e:2x4")


def stages(variant: str, model="llemma-7b") -> dict[str, Handle]:
    declared = declare(named(CHAPTER.get_config(variant), model))
    return {handle.name: handle for handle in declared.handles}


def facts(examples=None, counts=lambda handle: {}) -> Facts:
    def model(checkpoint: str) -> DecoderConfig:
        return MODELS[checkpoint]

    return Facts(model, counts, examples, 256)


def works(handle: Handle, **changes) -> list[Work]:
    found = describe(handle, facts(**changes))
    return [work for work in found if isinstance(work, Work)]


@pytest.mark.parametrize("variant", CHAPTER.VARIANTS)
def test_every_stage_is_planned_or_has_a_reason(variant):
    """What takes a model has parts or reasons; what has neither takes none."""
    model = "codellama-7b" if "apps" in variant else "llemma-7b"
    for name, handle in stages(variant, model).items():
        told = describe(handle, facts())
        assert not any("does not say" in x for x in told if isinstance(x, str)), name
        host = name.startswith(("data", "labels", "coding-data", "apps-data"))
        assert bool(told) != (host or name in ("report", "base-large-data")), name


@pytest.mark.parametrize("variant", (*CHAPTER.MATH, *CHAPTER.APPS))
def test_rows_divide_over_the_slice_that_the_header_names(variant):
    """Of every update of every stage, over all devices of one host."""
    size = "34b" if "34b" in variant else "7b"
    where = parse_slice({"7b": "v5p:2x2x1", "34b": "tpu7x:2x2x1"}[size])
    model = f"codellama-{size}" if "apps" in variant else f"llemma-{size}"
    assert f"--topology={where.name}" in CHAPTER.__doc__ and model in CHAPTER.__doc__
    mesh = AbstractMesh((1, where.devices, 1, 1), MESH_AXES, (AxisType.Auto,) * 4)
    runs = [w.run for h in stages(variant, model).values() for w in works(h)]
    rows = {rows_of(run) for run in runs} - {None}
    assert rows
    for each in rows:
        check_rows(*each, mesh)


@pytest.mark.parametrize("name, kind, steps", [
    # 5,474 easy problems: 10 right solutions of each, 3 epochs of batches of 128.
    ("rest-1-42", SFTConfig, 1284),
    # 3 pairs of each, one epoch of batches of 64.
    ("dpo-1-42", DPOConfig, 257),
    # 98% of 32 solutions of each, 2 epochs of batches of 128.
    ("orm-42", RewardConfig, 2 * 1342),
    ("ppo-prm-42", RunConfig, 500),
    # 32 of each, and one greedily of 500 and 238 held-out ones, in 256 slots.
    ("rest-1-42", SampleRun, 685 + 3),
])  # fmt: skip
def test_steps_of_the_paper_are_counted(name, kind, steps):
    """Closed forms in the numbers of problems, as the settings have them."""
    found = works(stages("paper")[name])
    assert sum(w.steps for w in found if type(w.run) is kind) == steps


def test_runs_have_the_settings_of_their_stages():
    """Equality, of what decides about memory and time."""
    found = stages("paper")
    for name in ("sft-easy-42", "prm-42", "dpo-1-42", "ppo-prm-42"):
        inputs = found[name].inputs
        (work, *_) = [w for w in works(found[name]) if hasattr(w.run, "optimizer")]
        for key in ("dtype", "remat", "mesh"):
            assert getattr(work.run, key) == inputs[key], (name, key)
        at = inputs.get("training") or inputs.get("rounds") or inputs["runs"]
        assert work.run.optimizer == at.optimizer, name
        if "length" in vars(work.run):
            assert (work.run.length, work.run.batch_size) == (at.length, at.batch_size)
    runs = found["ppo-prm-42"].inputs["runs"]
    ppo = works(found["ppo-prm-42"])[0].run
    assert ppo.ppo.max_new_tokens == runs.drawn.max_new_tokens == 768
    assert ppo.sampling.slots == 256 and ppo.rewards.process == 1.0
    assert ppo.value_frozen == CHAPTER.SCORED_PARTS


def test_finished_data_stages_are_counted():
    """Without them the number of rated steps is not known, but for --examples."""
    handle = stages("paper")["sft-easy-42"]
    (unknown,) = works(handle)
    (given,) = works(handle, examples=12800)
    (counted,) = works(handle, counts=lambda data: {"sft": 1280})
    assert (unknown.steps, given.steps, counted.steps) == (None, 300, 30)
    assert unknown.key == given.key == counted.key


def test_runs_and_programs_are_planned_once(monkeypatch):
    """Two generators of one size have one plan; their times add up."""
    planned = []

    def fake(run, given, where, model, steps, known):
        planned.append(run)
        return made_plan()

    monkeypatch.setattr(experiment_plan, "plan_given", fake)
    found = stages("paper")
    two = [found["sft-full-42"], found["sft-easy-42"], found["labels-42"]]
    full, easy, labels = plan_stages(two, WHERE, facts(examples=12800))
    assert len(planned) == 1 and not labels.parts
    assert full.seconds == easy.seconds == 300 * made_plan().step_seconds


def test_what_nobody_told_of_is_listed():
    """A stage of a function that the table does not have, and one of a package."""

    def unheard(folder, *, base):
        return {}

    unheard.__module__ = generators.__name__
    plan = Plan()
    first = plan.stage("first", unheard, base="x")
    (told,) = describe(first, facts())
    assert "does not say what unheard computes" in told
    unheard.__module__ = "research.grading.stages"
    (told,) = describe(first, facts())
    assert "no module research.grading.planned" in told


def command(capsys, *arguments):
    """(exit code, stdout, stderr) of `python -m train.plan ...`, in this process."""
    flags = ["plan", f"--config={CONFIG}:paper", "--topology=v5e:2x4", *arguments]
    code = run(main, flags, define_flags)
    return code, *capsys.readouterr()


def test_the_command_of_runs_plans_experiments(monkeypatch, capsys, tmp_path):
    """By the module that the config's package has; sums are those of the stages."""

    def fake(run, given, where, model, steps, known):
        if isinstance(run, DPOConfig):
            raise ConfigError("config.batch_size: expected a multiple of 512")
        return made_plan(needed=(20 if isinstance(run, RunConfig) else 10) * GIB)

    monkeypatch.setattr(experiment_plan, "plan_given", fake)
    given = "--config.published.checkpoint=EleutherAI/llemma_7b"
    code, out, err = command(capsys, given, "--json")
    assert code == 3
    found = json.loads(out)
    by_name = {stage["name"]: stage for stage in found["stages"]}
    assert list(by_name) == list(stages("paper"))
    hours = [stage["chip_hours"] for stage in by_name.values()]
    assert found["chip_hours"] == pytest.approx(sum(hours)) and sum(hours) > 0
    errors = [p["error"] for p in found["programs"] if "error" in p]
    assert errors == ["config.batch_size: expected a multiple of 512"]
    code, out, err = command(capsys, "--model=llemma-7b")
    assert code == 3 and "4.25 too much" in out
    assert "expected a multiple of 512" in out
    assert "unknown number of steps (sft-full-42, sft-easy-42, prm-42, oprm-42)" in out
    left_out = "Not planned, of ppo-easy-42, ppo-all-42, ppo-prm-42, ppo-free-42: the"
    assert left_out in out and "of all stages: evaluation" in out
    assert "evaluation" in found["left_out"] and "with full rows, at least" in out


def test_a_workdir_gives_the_counts(monkeypatch, capsys, tmp_path):
    """Of data stages that are done there."""
    monkeypatch.setattr(experiment_plan, "plan_given", lambda *_: made_plan())
    for name, handle in stages("paper").items():
        if name.startswith("data"):
            folder = folder_of(tmp_path, handle)
            folder.mkdir(parents=True)
            record = dict(
                format=FORMAT, stage=name, fingerprint=handle.fingerprint, function=[],
                inputs={}, dependencies={}, started="", finished="", seconds=0.0,
                value={"counts": {"sft": 1280, "steps": 128, "train": 64}},
            )  # fmt: skip
            write_json(folder / "result.json", record)
    flags = ["--model=llemma-7b", f"--workdir={tmp_path}", "--json"]
    code, out, _ = command(capsys, *flags)
    assert code == 0
    found = {stage["name"]: stage for stage in json.loads(out)["stages"]}
    assert found["sft-full-42"]["parts"][0]["steps"] == 30
    assert found["prm-42"]["parts"][0]["steps"] == 2


def test_what_cannot_be_planned_is_one_line(capsys):
    """No model; a search of many runs; an experiment of a package without plans."""
    code, _, err = command(capsys)
    assert code == 2 and "config.published.checkpoint: missing" in err
    assert "without the checkpoint give --model=one of llama-7b, " in err
    code, _, err = command(capsys, "--model=llemma-7b", "--search")
    assert code == 2 and "--search: of one run" in err
    code, _, err = command(
        capsys, "--model=llemma-7b", "--config.experiment=tests.x:experiment"
    )
    assert code == 2 and err.count("\n") == 1 and "tests.plan" in err


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)
def test_sampling_and_scoring_are_compiled(tmp_path):
    """Scores: FLOPs within 5% of the closed form. A prefix: as long a cache more."""
    model_file(tmp_path)
    config = CHAPTER.get_config("paper_34b")
    config.sampled.update(max_new_tokens=64, slots=16, votes=16, counts=(16,))
    config.icl.length = 128
    handles = {h.name: h for h in declare(named(config, str(tmp_path))).handles}
    asked = facts()._replace(
        model=lambda checkpoint: experiment_plan.model_shape(
            "--model", None, checkpoint, "", "bfloat16"
        ),
        prompt_length=32,
    )
    chosen = [handles["score-easy-orm-42"], handles["icl-easy-42"]]
    scores, shots = plan_stages(chosen, WHERE, asked)
    assert scores.fits and shots.fits
    part = scores.parts[0]
    shape = dataclasses.replace(part.work.model, remat="none")
    closed = step_flops(shape, part.work.run.rows, 96, output=False) / 3
    flops = 8 * part.plan.functions[0].costs.flops
    assert flops == pytest.approx(closed, rel=0.05)
    for part in shots.parts:
        prefix, decode, prefill = part.plan.functions
        assert [f.name for f in (prefix, decode)] == ["prefix", "decode step"]
        numbers = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
        rows = 16 * (32 + 64) / 8  # of this device
        assert decode.parts["cache"] >= 2 * numbers * (rows + 128 / 8)
