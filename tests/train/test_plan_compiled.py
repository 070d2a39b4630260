"""Plans compiled by the compiler for TPUs cost what closed forms say.

Small ones, each compiled once for all tests here; of 7B models in the slow ones.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.plan import model_file, step_flops
from jax.sharding import SingleDeviceSharding

from train import plan_models, plan_print
from train.aot import Overflow, compile_for, program_bytes, slice_devices
from train.chips import GIB, parse_slice
from train.cli import load_config
from train.plan import Asked, plan, read_config
from train.plan_search import search

CONFIGS = Path(__file__).parents[2] / "configs"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)
SMALL = {"length": 128, "batch_size": 16, "dtype": "bf16_compute", "remat": "full"}


def config(name="sft.py:mini", **changes):
    found = read_config(load_config(str(CONFIGS / name)))
    return dataclasses.replace(found, **(SMALL | changes))


def over(cfg, tensor: int):
    """The same on a mesh of 8 devices, `tensor` ways."""
    mesh = dataclasses.replace(cfg.mesh, fsdp=8 // tensor, tensor=tensor)
    return dataclasses.replace(cfg, mesh=mesh)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """`planned(config, topology, **asked)`; no program is compiled twice."""
    model, known = model_file(tmp_path_factory.mktemp("model")), {}

    def make(cfg, topology="v5e:2x4", **asked):
        given = Asked(**({"model": model} | asked))
        return plan(cfg, parse_slice(topology), given, known)

    make.shape = plan_models.model_shape("--model", model, None, "", "float32")
    return make


def sent(found) -> float:
    return sum(t.bytes for t in found.functions[-1].costs.traffic)


def test_the_compiler_for_a_slice_knows_its_memory():
    """x + 1 takes twice its bytes, and cannot take more than a chip has."""
    device = slice_devices(parse_slice("v5e:2x4"))[0]

    def program(size):
        x = jax.ShapeDtypeStruct(
            (size,), jnp.float32, sharding=SingleDeviceSharding(device)
        )
        return compile_for(jax.jit(lambda x: x + 1).lower(x))

    found = program(2**28)
    assert program_bytes(found) == pytest.approx(2 * GIB, rel=0.01)
    assert program(2**33) == Overflow(64 * GIB, 15.75 * GIB)


@pytest.mark.parametrize(
    "topology, remat", [("v5e:2x4", "full"), ("v5p:2x2x1", "none")]
)
def test_a_compiled_step_costs_what_it_should(planned, topology, remat):
    """FLOPs of all chips within 5% of the closed form; it fits; json agrees."""
    cfg = config(remat=remat)
    found = planned(cfg, topology)
    update = found.functions[0]
    shape = dataclasses.replace(planned.shape, remat=remat)
    closed = step_flops(shape, cfg.batch_size, cfg.length)
    assert update.costs.flops * found.where.chips == pytest.approx(closed, rel=0.05)
    assert found.fits and not update.costs.open_loops
    assert update.needed == pytest.approx(sum(update.parts.values()))
    json.dumps(plan_print.as_json(found))


@pytest.mark.parametrize("tensor", [1, 2])
def test_what_an_update_sends_is_parameters_not_activations(planned, tensor):
    """Twice the rows send a quarter more at most: activations stay where they are.

    Left to itself, XLA sent them all, 17 times as much. Over `tensor` a layer's sums
    are sent, in proportion to the rows.
    """
    few, many = (
        sent(planned(over(config(batch_size=rows), tensor))) for rows in (16, 32)
    )
    if tensor == 1:
        assert many < 1.25 * few
    else:
        assert 1.25 * few < many < 2 * few


def test_dpo_costs_what_it_should(planned):
    """Closed form: of an update, both sides; the reference has the forward alone."""
    cfg = config("dpo.py:paper")
    shape = dataclasses.replace(planned.shape, remat="full")
    whole = step_flops(shape, 2 * cfg.batch_size, cfg.length)
    plain = dataclasses.replace(shape, remat="none")
    forward = step_flops(plain, 2 * cfg.batch_size, cfg.length) / 3
    found = planned(cfg)
    assert [f.name for f in found.functions] == ["reference", "update"]
    reference, update = (8 * f.costs.flops for f in found.functions)
    assert reference == pytest.approx(forward, rel=0.05)
    # What is frozen (embedding, output, norms) has no gradient to compute.
    head = 2 * 2 * cfg.batch_size * cfg.length * shape.d_model * shape.vocab_size
    assert update == pytest.approx(whole - head, rel=0.05)


@pytest.mark.parametrize("pairs", [False, True])
def test_reward_models_cost_what_they_should(planned, pairs):
    """Closed form: no output matrix; of pairs both sides."""
    cfg = config("reward.py:paper")
    shape = dataclasses.replace(planned.shape, remat="full")
    rows = cfg.batch_size * (1 + pairs)
    closed = step_flops(shape, rows, cfg.length, output=False)
    found = planned(cfg, pairs=pairs)
    assert 8 * found.functions[0].costs.flops == pytest.approx(closed, rel=0.05)
    assert found.fits


def test_adapters_over_four_bits_are_planned(planned):
    """Closed form: of a kernel's three products two, its own gradient being left out.

    Attention has all three, adapters six FLOPs a number and token.
    """
    cfg = config("sft.py:qlora", remat="none")
    cfg = dataclasses.replace(cfg, lora=dataclasses.replace(cfg.lora, rank=4))
    shape, tokens = planned.shape, cfg.batch_size * cfg.length
    D, F, L = shape.d_model, shape.d_ff, shape.n_layers
    adapters = 4 * L * (4 * (D + D) + 3 * (D + F))
    attention = 4 * L * tokens * cfg.length * D
    closed = step_flops(shape, cfg.batch_size, cfg.length) * 2 / 3
    closed += attention + 6 * adapters * tokens
    update = planned(cfg).functions[0]
    assert 8 * update.costs.flops == pytest.approx(closed, rel=0.05)
    assert {"params", "adapters", "optimizer"} <= set(update.parts)
    assert update.fits and not update.costs.open_loops


def test_search_plans_real_programs(planned):
    """What computes nothing twice fits, so that nothing slower is compiled."""
    where = parse_slice("v5p:2x2x1")
    cfg = config(remat="none")
    found = search(cfg, where, lambda c: planned(c, where.name), tries=2)
    assert [(t.mesh["tensor"], t.accum, t.remat) for t in found.tried] == [
        (1, 1, "none"),
        (2, 1, "none"),
    ]
    assert found.best.fits
    seconds = [t.plan.step_seconds for t in found.tried]
    assert found.best.step_seconds == min(seconds)


def test_a_search_in_vain_says_what_is_lacking(planned, tmp_path):
    """A model whose states alone are too much: one try a mesh, and how many chips."""
    wide = model_file(tmp_path, intermediate_size=2**24)
    cfg = config(remat="none")
    where = parse_slice("v5e:2x4")
    found = search(cfg, where, lambda c: planned(c, model=wide), tries=1)
    update = found.best.functions[0]
    told = plan_print.as_text(found.best, found.tried)
    lacking = (update.needed - update.available) / GIB
    assert not found.best.fits and lacking > 0
    assert f"{lacking:.2f} more than there is" in told
    states = 12 * 3 * 3 * 128 * 2**24 / 8
    assert f"states alone take {states / GIB:.2f} GiB a chip" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo.py:paper", "reward.py:paper", "pairs"])
def test_preferences_of_a_7b_model_fit_on_64_chips(planned, name):
    """Parameters and two moments in float32, in 64 parts; the rest is activations."""
    pairs = name == "pairs"
    cfg = read_config(
        load_config(str(CONFIGS / ("reward.py:paper" if pairs else name)))
    )
    found = planned(cfg, "v5e:8x8", model="llama2-7b", pairs=pairs)
    assert found.fits
    update = found.functions[-1]
    assert update.parts["params"] == pytest.approx(4 * 6.74e9 / 64, rel=0.05)
    assert update.mfu(found.where) > 0.2
    print(plan_print.as_text(found))


@pytest.mark.slow
def test_search_fits_a_7b_model_on_16_chips(planned):
    """SFT with states in float32, 5 GiB a chip; what fits keeps the batch."""
    cfg = read_config(load_config(str(CONFIGS / "sft.py:paper")))
    where = parse_slice("v5e:4x4")
    found = search(cfg, where, lambda c: planned(c, where.name, model="llama2-7b"), 6)
    print(plan_print.as_text(found.best, found.tried))
    assert found.best.fits
    assert found.best.settings["batch_size"] == cfg.batch_size
