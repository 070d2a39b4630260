"""Rows split by columns over the mesh axis `sequence` train as whole rows do."""

import dataclasses
import importlib.util

import jax
import pytest
from helpers.devices import run_on_devices
from helpers.plan import step_flops

from models import decoder
from models.config import DecoderConfig
from train.aot import Overflow, compile_for, program_bytes, slice_devices
from train.chips import GIB, parse_slice
from train.decoder import decoder_loss
from train.hlo_costs import costs
from train.mesh import make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.plan_models import MODELS
from train.plan_pieces import abstract_params, abstract_state, token_batch
from train.plan_terms import per_chip, roofline
from train.step import make_train_step

BOTH = ["tensor", "sequence"]
SPLITS = {
    "heads": [BOTH, BOTH, None],
    "columns": ["tensor", "tensor", "sequence"],
    "columns, heads apart": ["tensor", None, "sequence"],
    "short rows": ["tensor", "tensor", "sequence"],
}
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What helpers/sequence_run.py found on 8 simulated devices."""
    return run_on_devices(8, "sequence_run.py", tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("case", SPLITS)
def test_loss_and_gradients_are_those_of_one_device(found, case):
    """Packed rows, windows in some layers, loss in chunks; dense on one device.

    Attention split by heads, by columns, and by columns where several devices share a
    kv head.
    """
    assert found[case]["split"] == SPLITS[case]
    assert found[case]["loss"] < 1e-6
    assert found[case]["gradient"] < 1e-5


@pytest.mark.parametrize("case", SPLITS)
def test_no_device_holds_logits_of_all_its_columns(found, case):
    """The identity: no array of its program has as many elements with an axis V."""
    assert found[case]["logits"] < found[case]["of_a_device"]


def test_the_tpu_kernel_by_columns_is_dense_attention(found):
    """Its mask in two halves: result and gradients; interpreted."""
    assert found["kernel"] < 1e-5


def compiled(cfg: DecoderConfig, topology: str, rows: int, length: int, **sizes):
    """The training step of Adam for a slice, or what it lacks."""
    mesh = make_mesh(**sizes, devices=slice_devices(parse_slice(topology)))
    cfg = dataclasses.replace(
        cfg, mesh=mesh, dtype="bf16_compute", remat="full", layer_loop="scan"
    )
    params = abstract_params(decoder.param_shapes(cfg), mesh)
    optimizer = make_optimizer(OptimizerConfig(), 10, params)
    state = abstract_state(params, optimizer)
    step = make_train_step(decoder_loss(cfg, mesh), optimizer, state=state)
    return compile_for(step.lower(state, token_batch(rows, length, mesh)))


SMALL = DecoderConfig(
    vocab_size=512, d_model=256, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=512,
    head_dim=64,
)  # fmt: skip


@needs_libtpu
def test_long_rows_compile_to_the_kernel_on_a_slice():
    """Split by columns: forward and two backward kernels, keys gathered, no T x T.

    Closed form: FLOPs of all chips, each seeing the pairs of a row's last columns; of
    attention 2 products forward, twice, 3 for queries' gradients and 4 for keys'.
    """
    length, rows = 4096, 2
    program = compiled(SMALL, "v5e:2x4", rows, length, fsdp=2, sequence=4)
    text = program.as_text()
    found, own = costs(text), length // 4
    assert not found.kernels  # there are some, of known FLOPs
    assert not found.open_loops
    size = SMALL.n_layers * SMALL.n_heads * SMALL.head_dim
    full = step_flops(dataclasses.replace(SMALL, remat="full"), rows, length)
    closed = full - 4 * 4 * size * rows * length**2
    closed += 8 * (2 + 2 + 3 + 4) * 2 * size * (own * length - own * (own - 1) / 2)
    assert 8 * found.flops == pytest.approx(closed, rel=0.05)
    assert text.count('custom_call_target="tpu_custom_call"') >= 3
    assert f"{length},{length}]" not in text and f"{length // 4},{length}]" not in text


@needs_libtpu
@pytest.mark.slow
def test_a_7b_model_trains_on_rows_of_32k_tokens():
    """On 64 v5e chips, 16 rows a step, each on 4 chips."""
    program = compiled(MODELS["llama2-7b"], "v5e:8x8", 16, 32768, fsdp=16, sequence=4)
    assert not isinstance(program, Overflow), jax.tree.map(lambda x: x / GIB, program)
    where = parse_slice("v5e:8x8")
    time = roofline(per_chip(costs(program.as_text()), where), where)
    print(program_bytes(program) / GIB, time)
    assert program_bytes(program) < 15.75 * GIB
