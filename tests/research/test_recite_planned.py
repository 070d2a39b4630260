"""The plan of chapter 4: every stage, with closed forms in numbers of questions."""

import dataclasses
import importlib
import importlib.util
import json
from pathlib import Path

import pytest

from models import t5, t5_files
from models.t5 import T5Config
from research.plan import Facts, Work, describe, named, plan_stages
from research.run import declare
from train.chips import parse_slice
from train.cli import run
from train.errors import ConfigError
from train.plan import define_flags, main
from train.plan_models import MODELS, model_shape
from train.plan_pieces import Given
from train.plan_runs import on_tpu, pieces
from train.plan_sampling import SampleRun
from train.plan_sources import SourceRun
from train.sft import SFTConfig

CONFIG = Path(__file__).parents[2] / "configs" / "ch4_recite.py"
CHAPTER = importlib.import_module("configs.ch4_recite")
NAMES = {"paper_opt": "opt-30b", "paper_ul2": "ul2", "paper_opt_hints": "opt-30b"}


def stages(variant: str):
    declared = declare(named(CHAPTER.get_config(variant), NAMES.get(variant)))
    return {handle.name: handle for handle in declared.handles}


def facts(counts=lambda handle: {}) -> Facts:
    return Facts(lambda checkpoint: MODELS[checkpoint], counts, None, 256)


def works(handle, **changes) -> list[Work]:
    return list(describe(handle, facts(**changes)))


@pytest.mark.parametrize("variant", ["smoke", *NAMES])
def test_every_stage_is_planned(variant):
    """Whatever holds a model has parts, and nothing is left out."""
    for name, handle in stages(variant).items():
        told = works(handle)
        assert all(isinstance(work, Work) for work in told), (name, told)
        assert bool(told) != name.startswith(("data", "world", "report")), name
        for work in told:
            assert work.steps > 0


@pytest.mark.parametrize("variant, name, expected", [
    # 1,024 questions in 32 slots; 20 recitations of each, and as many answers.
    ("paper_opt", "direct-trivia_qa-42", [(SampleRun, 32, 16)]),
    ("paper_opt", "recite-trivia_qa-42", [(SampleRun, 640, 128), (SampleRun, 640, 16)]),
    ("paper_opt", "chain-of-thought-hotpot_qa-42", [(SampleRun, 640, 128)]),
    # Of 80 slots, 4 questions at a time with 20 recitations; at most 16 sources.
    ("paper_ul2", "recite-trivia_qa-42",
     [(SourceRun, 256, 128), (SourceRun, 1280, 16)]),
    ("paper_ul2", "gold-natural_questions_5-42", [(SourceRun, 64, 16)]),
    # The same five times, with other exemplars.
    ("paper_ul2", "robust-trivia_qa-42",
     [(SourceRun, 320, 16), (SourceRun, 1280, 128), (SourceRun, 6400, 16)]),
])  # fmt: skip
def test_steps_are_counted(variant, name, expected):
    found = works(stages(variant)[name])
    assert [(type(w.run), w.steps, w.run.max_new_tokens) for w in found] == expected


def test_runs_have_the_settings_of_their_stages():
    """A prompt with its exemplars is of the length that prompts may have."""
    for variant in ("paper_opt", "paper_ul2"):
        handle = stages(variant)["recite-hotpot_qa-42"]
        recite, answer = works(handle)
        settings = handle.inputs["settings"]
        assert settings.shots == 4 and recite.model == MODELS[NAMES[variant]]
        prefix = getattr(recite.run, "prefix", 0)
        assert prefix + recite.prompt_length == settings.length == 1536
        assert answer.prompt_length == 128 + 64 * 5
        for work in (recite, answer):
            assert (work.run.dtype, work.run.mesh) == (
                handle.inputs["dtype"], handle.inputs["mesh"],
            )  # fmt: skip
        assert recite.run.sampling.temperature == 0.7 and recite.run.samples == 20
        assert answer.run.sampling.temperature == 0.0 and answer.run.samples == 1


def test_questions_that_were_counted_count():
    """A finished data stage knows how many there are."""
    handle = stages("paper_opt")["direct-trivia_qa-42"]
    (found,) = works(handle, counts=lambda data: {"trivia_qa": 320})
    assert found.steps == 10


def test_the_miniature_trains_too():
    """Its two phases, and on questions of its own; documents are an upper bound."""
    found = stages("smoke")
    for name in ("base-0", "model-0", "hinted-0"):
        (work,) = works(found[name])
        assert isinstance(work.run, SFTConfig)
        assert work.run.batch_size == 8 and work.model.d_model == 32
    task = found["base-0"].inputs["task"]
    (base,), (tuned,) = (works(found[name]) for name in ("base-0", "model-0"))
    least = -(-task.base.readings // 8)
    assert least < base.steps < tuned.steps


TINY = T5Config(
    vocab_size=64, d_model=32, n_heads=4, head_dim=8, d_ff=48, n_layers=2,
    n_decoder_layers=3, activation="silu",
)  # fmt: skip


def test_models_of_the_t5_family_are_known(tmp_path):
    """By name, folder and config.json; UL2 has 20B parameters."""
    assert t5.count_params(MODELS["ul2"]) == pytest.approx(19.6e9, rel=0.005)
    assert model_shape("--model", None, "google/ul2", "", "bfloat16") == (
        dataclasses.replace(MODELS["ul2"], dtype="bfloat16")
    )
    (tmp_path / "config.json").write_text(json.dumps(t5_files.to_hf(TINY)))
    for given in ((None, str(tmp_path)), (str(tmp_path), None)):
        assert model_shape("--model", *given, "", "float32") == TINY


def test_of_an_encoder_decoder_only_sampling_is_planned():
    given = Given(MODELS["ul2"])
    with pytest.raises(ConfigError, match="of an encoder-decoder sampling can"):
        pieces(SampleRun(8), given, None)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)
def test_encoder_and_decoding_are_compiled():
    """FLOPs within 5% of the closed form; keys and values are split over the chips.

    Of a decoding step within 10%: its attention, of one query, is compiled without
    matrix products, and these are what is counted.
    """
    handle = stages("paper_ul2")["recite-trivia_qa-42"]
    small = dataclasses.replace(
        MODELS["ul2"], n_layers=2, n_decoder_layers=2, d_model=1024, d_ff=2048,
        n_heads=8, head_dim=128, vocab_size=4096,
    )  # fmt: skip
    asked = facts()._replace(model=lambda checkpoint: small, prompt_length=256)
    (stage,) = plan_stages([handle], parse_slice("v5e:2x2"), asked)
    assert stage.fits
    for part in stage.parts:
        encoder, decode = part.plan.functions
        assert (encoder.name, decode.name) == ("encoder", "decode step")
        for function, most in ((encoder, 0.05), (decode, 0.1)):
            flops = 4 * function.costs.flops
            assert flops == pytest.approx(function.model_flops, rel=most)
    rows = 4 * 1536  # of sources of the recitations, in bfloat16, on 4 chips
    held = stage.parts[0].plan.functions[1].parts["sources"]
    assert held == 2 * 2 * 2 * rows * 8 * 128 / 4


def test_the_command_names_what_is_missing(capsys):
    flags = ["plan", f"--config={CONFIG}:paper_ul2", "--topology=v5e:2x2"]
    code = run(main, flags, define_flags)
    err = capsys.readouterr().err
    assert code == 2 and "config.published.checkpoint: missing" in err


def test_on_tpu_an_encoder_decoder_has_the_numbers_of_its_run():
    assert on_tpu(TINY, SourceRun(4)).dtype == "bfloat16"
