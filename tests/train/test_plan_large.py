"""What models of published sizes cost on slices: decoding, scaling, what fits where.

One program of a 7B model is compiled in every run; the slow tests compile the others.
"""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from train import plan_models
from train.aot import slice_devices
from train.chips import GIB, parse_slice
from train.cli import load_config
from train.mesh import make_mesh
from train.plan import Asked, compiled, plan, read_config
from train.plan_pieces import Given
from train.plan_sampling import SampleRun, sample_pieces
from train.plan_search import changed
from train.ppo_run import SamplingSettings

CONFIGS = Path(__file__).parents[2] / "configs"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)


def decode_step(model: str, topology: str, slots: int, **sizes):
    """The decode step of a PPO rollout of 256 + 768 tokens, in bfloat16."""
    where = parse_slice(topology)
    mesh = make_mesh(**sizes, devices=slice_devices(where))
    cfg = dataclasses.replace(
        plan_models.MODELS[model], dtype="bfloat16", layer_loop="scan", mesh=mesh
    )
    run = SampleRun(max_new_tokens=768, sampling=SamplingSettings(slots=slots))
    piece = sample_pieces(run, Given(cfg), mesh)[0]
    assert piece.name == "decode step"
    return compiled(piece, where, {}, {})[0], where


def over_what_it_must_read(step, where) -> float:
    """Time of a step over that of reading its part of weights and cache once."""
    must = step.parts["params"] + step.parts["cache"]
    return step.roofline.seconds / (must / where.chip.hbm_bandwidth)


@pytest.mark.parametrize(
    "model, topology, slots, sizes",
    [
        ("llama2-7b", "v5e:2x4", 64, {"fsdp": 8}),
        pytest.param("llama2-7b", "v5e:2x4", 16, {"fsdp": 8}, marks=pytest.mark.slow),
        pytest.param(
            "llama2-70b",
            "v5e:8x8",
            64,
            {"fsdp": 8, "tensor": 8},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "llama2-70b",
            "v5p:4x4x4",
            64,
            {"fsdp": 4, "tensor": 16},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_token_takes_the_time_of_reading_weights_and_cache(
    model, topology, slots, sizes
):
    """Within 1.5: weights stay where they are, nothing is copied, little is sent."""
    step, where = decode_step(model, topology, slots, **sizes)
    print(step.roofline, step.costs.traffic)
    assert over_what_it_must_read(step, where) < 1.5


def sft(model: str, topology: str, rows: int, accum: int = 1):
    """SFT of rows of 512 tokens, states in float32 spread over all chips."""
    where = parse_slice(topology)
    cfg = read_config(load_config(str(CONFIGS / "sft.py:paper")))
    cfg = dataclasses.replace(cfg, batch_size=rows)
    mesh = {"data": 1, "fsdp": where.devices, "tensor": 1}
    return plan(changed(cfg, mesh, accum, "full"), where, Asked(model=model))


@pytest.mark.slow
@pytest.mark.parametrize(
    "slices",
    [
        ("v5p:2x2x2", "v5p:4x8x8"),
        ("v5e:4x4", "v5e:8x8", "v5e:16x16"),  # 8 of these do not hold the states
    ],
    ids=["v5p", "v5e"],
)
def test_a_step_takes_as_long_on_256_chips_as_on_few(slices):
    """SFT of a 7B model, 8 rows a chip: predicted times within 10% of each other."""
    seconds = {}
    for name in slices:
        update = sft("llama2-7b", name, 8 * parse_slice(name).chips).functions[0]
        print(name, update.needed / GIB, update.roofline)
        seconds[name] = update.roofline.seconds
    assert max(seconds.values()) < 1.1 * min(seconds.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, topology, most",
    [
        ("llama2-7b", "v5e:8x8", 4.0),
        ("codellama-34b", "v5p:4x4x4", 16.0),
        ("codellama-34b", "v5p:2x4x4", 26.0),
    ],
)
def test_full_fine_tuning_fits(model, topology, most):
    """GiB a chip: parameters, two moments, a gradient, and few activations."""
    found = sft(model, topology, 128)
    update = found.functions[0]
    print(update.needed / GIB, {k: v / GIB for k, v in update.parts.items()})
    assert found.fits and update.needed < most * GIB
    states = update.parts["params"] + update.parts["optimizer"]
    sizes = {"llama2-7b": 6.738e9, "codellama-34b": 33.74e9}
    assert states == pytest.approx(12 * sizes[model] / found.where.chips, rel=0.02)
