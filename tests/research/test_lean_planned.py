"""The plan of chapter 7: every stage, with closed forms in the settings."""

import dataclasses
import importlib
import importlib.util

import pytest

from research.lean_star.planned import BEAM
from research.plan import Facts, Work, describe, named, plan_stages
from research.run import declare
from research.stages import Handle
from train.chips import parse_slice
from train.plan_models import MODELS
from train.plan_sampling import SampleRun
from train.sft import SFTConfig

CHAPTER = importlib.import_module("configs.ch7_lean_star")
EXAMPLES = 6400
NO_MODEL = ("world", "data", "thoughts", "report")


def stages(config) -> dict[str, Handle]:
    plan = declare(named(config, "internlm2-7b"))
    return {handle.name: handle for handle in plan.handles}


def facts(examples: int | None = EXAMPLES, counts=None) -> Facts:
    return Facts(MODELS.__getitem__, lambda data: counts or {}, examples, 256)


def told(handle: Handle, examples: int | None = EXAMPLES) -> list[Work | str]:
    return list(describe(handle, facts(examples)))


def settled():
    """The config of the report with numbers of its own, so that tuning is free."""
    config = CHAPTER.get_config("report")
    for phase in (config.sft, config.cot):
        phase.update(epochs=4.0, batch_size=16)
    config.star.update(epochs=2.0, batch_size=16)
    config.miniature.update(statements=600, held_out=244, novel=60)
    for drawn in (config.drawn, config.thought_drawn):
        drawn.slots = 256
    config.sampled.update(trajectories=32, tactics=8)
    config.iteration.sampled.update(trajectories=8, tactics=8)
    config.iteration.most = 3
    config.best_first.update(expansions=16, candidates=8)
    return config


@pytest.fixture(scope="module")
def mini():
    return stages(settled())


@pytest.mark.parametrize("variant", ["mini", "smoke"])
def test_every_stage_is_planned_or_has_a_reason(variant):
    """What takes a model has parts; beams alone have a reason; the rest has neither."""
    for name, handle in stages(CHAPTER.get_config(variant)).items():
        found = told(handle)
        if name.startswith("search-"):
            assert found == [BEAM], name
        else:
            assert all(isinstance(work, Work) for work in found), name
            assert bool(found) != name.startswith(NO_MODEL), name


@pytest.mark.parametrize("name, run, steps", [
    # 4 epochs of 6,400 known steps in batches of 16.
    ("sft-0", SFTConfig, 1600),
    # Of a round 3 proofs of 8 steps of 600 statements more, and of two rounds twice.
    ("star-joint-1-0", SFTConfig, 5200),
    ("star-joint-2-0", SFTConfig, 8800),
    ("cot-longer-0", SFTConfig, 8800),
    # Those of its round alone, 2 epochs.
    ("star-continue-2-0", SFTConfig, 1800),
    # 304 problems, 32 trajectories of 8 tactics, in 256 slots; 600 statements, 8 of 8.
    ("prove-cot-0", SampleRun, 304),
    ("gather-star-1-0", SampleRun, 150),
    ("predict-sft-0", SampleRun, None),
])  # fmt: skip
def test_steps_are_counted(mini, name, run, steps):
    """Closed forms in the numbers of problems and steps, as the settings have them."""
    (work,) = told(mini[name])
    assert type(work.run) is run and work.steps == steps


def test_what_nobody_counted_is_not_known(mini):
    """Without --examples the known steps have no number; what is drawn has."""
    assert told(mini["sft-0"], None)[0].steps is None
    assert told(mini["star-joint-1-0"], None)[0].steps is None
    assert told(mini["star-continue-1-0"], None)[0].steps == 1800
    assert told(mini["prove-cot-0"], None)[0].steps == 304


def test_runs_have_the_settings_of_their_stages(mini):
    """Equality, of what decides about memory and time."""
    for name in ("prove-cot-0", "prove-sft-0", "gather-ei-1-0", "predict-cot-0"):
        (work,), drawn = told(mini[name]), mini[name].inputs["drawn"]
        assert work.run.max_new_tokens == drawn.max_new_tokens
        assert work.prompt_length == drawn.prompt_tokens
        assert work.run.sampling.slots == drawn.slots
        greedy = name.startswith("predict")
        assert work.run.sampling.temperature == (0.0 if greedy else drawn.temperature)
    size, training = mini["sft-0"].inputs["model"], mini["sft-0"].inputs["training"]
    for name in ("sft-0", "star-joint-2-0"):
        (work,) = told(mini[name])
        found = work.model.d_model, work.model.n_layers
        assert found == (size.d_model, size.n_layers)
    assert told(mini["sft-0"])[0].run.optimizer == training.optimizer


def test_sampled_candidates_are_planned():
    """Closed form: 304 problems, 16 expansions of 8 candidates, in 256 slots."""
    config = settled()
    config.best_first.beam = False
    (work,) = told(stages(config)["search-cot-mean-0"])
    assert work.run.samples == 8 and work.steps == 152


@pytest.mark.parametrize("variant, name, steps", [
    # 231,240 traced tactics, 52,438 and 140,000 with a thought, in batches of 128.
    ("paper_base", "sft-42", 1807),
    ("paper_base", "cot-42", 820),
    ("paper_base", "sft-tokens-42", 820),
    ("paper_plus", "cot-42", 2188),
    # A proof of at most 5 steps more of each of 20,000 statements; alone, one epoch.
    ("paper_base", "star-joint-1-42", 2382),
    ("paper_base", "star-continue-2-42", 782),
    # 564 problems, 64 trajectories of 50 tactics; 20,000 statements, 32 of 5.
    ("paper_base", "prove-untuned-42", 7050),
    ("paper_base", "gather-ei-1-42", 12500),
])  # fmt: skip
def test_published_data_have_published_sizes(variant, name, steps):
    """Closed forms; of the checkpoint, on the devices of the settings."""
    handle = stages(CHAPTER.get_config(variant))[name]
    (work,) = told(handle, None)
    assert work.steps == steps and work.model == MODELS["internlm2-7b"]
    assert work.run.mesh == handle.inputs["mesh"]
    assert work.run.dtype == handle.inputs["dtype"]
    if "remat" in handle.inputs:
        assert work.run.remat == "full" and work.run.accum == 32


def test_what_the_data_stage_counted_counts():
    """Of other files, or where sources are missing."""
    found = stages(CHAPTER.get_config("paper_base"))
    counted = facts(None, {"pairs": 1280, "thoughts": 256})
    for name, steps in (("sft-42", 10), ("cot-42", 4)):
        (work,) = describe(found[name], counted)
        assert work.steps == steps


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)
def test_training_and_decoding_are_compiled():
    """The shapes of InternLM2, smaller, on a slice: FLOPs as the closed form has them.

    Within 5% of an update, a prefill and a step of decoding, whose attention to one
    token is compiled without matrix products.
    """
    config = CHAPTER.get_config("paper_base")
    for group in (config.sft, config.cot, config.star):
        group.update(batch_size=16, length=512, accum=1)
    config.thought_drawn.update(max_new_tokens=128, prompt_tokens=256, slots=64)
    config.published.mesh.tensor = 2
    small = dataclasses.replace(
        MODELS["internlm2-7b"], n_layers=2, d_model=1024, d_ff=2048, n_heads=8,
        n_kv_heads=4, vocab_size=4096,
    )  # fmt: skip
    found = stages(config)
    wanted = [found["cot-42"], found["prove-cot-42"]]
    asked = facts(None)._replace(model=lambda checkpoint: small)
    training, proving = plan_stages(wanted, parse_slice("v5e:2x2"), asked)
    assert training.fits and proving.fits
    functions = [f for s in (training, proving) for p in s.parts
                 for f in p.plan.functions]  # fmt: skip
    assert [f.name for f in functions] == ["update", "decode step", "prefill"]
    for function in functions:
        # An update with remat "full" computes the forward pass twice.
        times = 4 / 3 if function.name == "update" else 1.0
        least = 4 * function.costs.flops / (times * function.model_flops)
        assert least == pytest.approx(1.0, rel=0.12), function.name
