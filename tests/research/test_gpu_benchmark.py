"""The GPU check: its figures follow from what was timed, at tiny sizes on a CPU."""

import dataclasses
import json

import jax
import pytest

from models import decoder
from models.config import DecoderConfig
from research.benchmarks import gpu
from research.benchmarks.gpus import GPUS, Gpu, known

PEAK = Gpu(flops=1e12, bandwidth=1e11)


@pytest.fixture(scope="module")
def record():
    return gpu.check(gpu.TINY, PEAK)


@pytest.mark.slow
def test_all_three_run(record):
    """Rates are counts over seconds, shares are rates over what the device can do."""
    sizes, checks = gpu.TINY, record["checks"]
    assert set(checks) == {"sft", "decode", "ppo"}
    sft, ppo, decode = checks["sft"], checks["ppo"], checks["decode"]
    count = sizes.rows[0] * sizes.length
    assert sft["tokens_per_s"] * sft["seconds"] == pytest.approx(count)
    assert ppo["tokens_per_s"] * ppo["seconds"] == pytest.approx(sizes.work.tokens)
    for of in (sft, ppo):
        assert of["mfu"] * of["seconds"] * PEAK.flops == pytest.approx(of["flops"])
    moved = decode["bandwidth"] * decode["seconds"] * PEAK.bandwidth
    assert moved == pytest.approx(decode["read_bytes"])


@pytest.mark.slow
def test_flops_of_an_update(record):
    """Six per parameter of a product and token, and causal attention's."""
    cfg, sizes = gpu.TINY.model, gpu.TINY
    D, H, N, K = cfg.d_model, cfg.head_dim, cfg.n_heads, cfg.n_kv_heads
    layer = 2 * D * H * N + 2 * D * H * K + 3 * D * cfg.d_ff
    products = cfg.n_layers * layer + cfg.vocab_size * D
    # Forward: 2 T^2 / 2 products of H for each of scores and values; backward twice.
    attention = 3 * cfg.n_layers * N * 2 * sizes.length**2 * H
    tokens = sizes.rows[0] * sizes.length
    expected = 6 * products * tokens + sizes.rows[0] * attention
    assert record["checks"]["sft"]["flops"] == expected


def test_bytes_that_decoding_reads():
    """Every weight but an embedding that is only looked up, and the cache."""
    cfg = dataclasses.replace(gpu.TINY.model, dtype="bfloat16")
    params = decoder.init_params(cfg, jax.random.key(0))
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    key = cfg.n_kv_heads * cfg.head_dim * 2
    cache = 4 * 10 * cfg.n_layers * 2 * key
    assert gpu.read_bytes(cfg, params, 4, 10) == weights + cache
    untied = dataclasses.replace(cfg, tie_embeddings=False)
    params = decoder.init_params(untied, jax.random.key(0))
    assert gpu.read_bytes(untied, params, 4, 10) == weights + cache


def test_the_full_size_is_that_of_llama_3_2_1b():
    """1,235,814,400 parameters, by the model card 1.23B."""
    shapes = decoder.param_shapes(gpu.FULL.model)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 1_235_814_400


@pytest.mark.slow
def test_table_and_record(record, tmp_path):
    """The table has every check; the record is named by date and device."""
    table = gpu.table(record)
    for name in gpu.CHECKS:
        assert f"\n{name}" in table
    assert "not run" not in table
    named = {
        **record,
        "date": "2026-01-02T03:04:05+00:00",
        "device": "NVIDIA H100 80GB",
    }
    path = gpu.record_file(named, tmp_path)
    assert path == tmp_path / "2026-01-02-nvidia-h100-80gb.json"
    assert json.loads(json.dumps(record)) == record


def test_the_first_size_that_fits():
    """Running out of memory goes on to the next size, any other error does not."""

    def run(rows):
        if rows > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return {"rows": rows}

    assert gpu.first_that_fits((8, 4, 2, 1), run) == {"rows": 2}
    with pytest.raises(gpu.DoesNotFit, match=r"each of \[8, 4\]"):
        gpu.first_that_fits((8, 4), run)

    def broken(rows):
        raise jax.errors.JaxRuntimeError("INTERNAL: no")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        gpu.first_that_fits((8, 4), broken)


def test_what_does_not_run_is_said(monkeypatch):
    """The others are run all the same; the table gives the reason."""

    def never(sizes, peak):
        raise gpu.DoesNotFit("out of memory with each of [1]")

    monkeypatch.setattr(gpu, "sft", never)
    made = {"what": "x", "seconds": 1.0, "tokens_per_s": 2.0, "bandwidth": 0.5}
    monkeypatch.setattr(gpu, "decode", lambda sizes, peak: made)
    record = gpu.check(gpu.TINY, PEAK, ("sft", "decode"))
    table = gpu.table(record)
    assert "not run: out of memory with each of [1]" in table and "50.0%" in table


@pytest.mark.parametrize(
    "kind, name",
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", None),
        ("cpu", None),
    ],
)
def test_gpus_by_the_names_that_jax_gives(kind, name):
    assert known(kind) == (GPUS[name] if name else None)


def test_an_unknown_device_needs_its_numbers():
    """No GPU is an error that says so; --tiny runs anywhere, with given peaks."""
    with pytest.raises(ValueError, match="finds no GPU.*--tiny"):
        gpu.chosen_gpu(None, None, tiny=False)
    with pytest.raises(ValueError, match="--peak"):
        gpu.chosen_gpu(None, None, tiny=True)
    assert gpu.chosen_gpu(1.0, 100.0, tiny=True) == PEAK


def test_tiny_and_full_are_one_program():
    """What the tests run differs from the check in sizes alone."""
    for name in ("remat", "tie_embeddings", "layer_loop", "attention"):
        full, tiny = getattr(gpu.FULL.model, name), getattr(gpu.TINY.model, name)
        assert full == tiny
    assert isinstance(gpu.FULL.model, DecoderConfig)
