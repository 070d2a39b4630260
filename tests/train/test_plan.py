"""A plan's figures are those of closed forms; what does not fit says by how much."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.bucket import needs_gcsfs, served
from helpers.plan import made_plan, model_file, step_flops
from jax.sharding import AbstractMesh, AxisType

from data.batch import TokenBatch
from data.errors import DataError
from models import decoder
from models.sharding import MESH_AXES
from train import aot, plan_given, plan_models, plan_print
from train.aot import Overflow, overflow
from train.chips import GIB, parse_slice
from train.cli import load_config, run
from train.decoder import check_rows
from train.errors import ConfigError
from train.hlo_costs import costs
from train.losses import token_nll
from train.optim import OptimizerConfig, make_optimizer
from train.plan import Asked, define_flags, main, read_config
from train.plan_pieces import Given, abstract_params, abstract_state
from train.plan_ppo import shares_base
from train.plan_runs import left_out, on_tpu, pieces
from train.plan_sampling import SampleRun
from train.plan_search import candidates, changed, micro_batches, search
from train.plan_terms import shard_bytes

CONFIGS = Path(__file__).parents[2] / "configs"
AUTO = (AxisType.Auto,) * 4


def sft_config(**changes):
    cfg = read_config(load_config(f"{CONFIGS / 'sft.py'}:mini"))
    return dataclasses.replace(cfg, **changes)


def command(capsys, *arguments) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `python -m train.plan ...`, in this process."""
    code = run(main, ["plan", *arguments], define_flags)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_flops_of_a_step_are_those_of_the_closed_form(tmp_path, remat):
    """Within 5%, what remat computes twice counted twice; a loop over layers."""
    cfg = plan_models.model_shape("--model", model_file(tmp_path), None, "", "float32")
    cfg = dataclasses.replace(cfg, remat=remat, layer_loop="scan")
    rows, length = 2, 64
    ints = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    floats = jax.ShapeDtypeStruct((rows, length), jnp.float32)
    batch = TokenBatch(ints, floats, ints, ints)
    step = jax.jit(jax.grad(lambda p, b: token_nll(cfg, p, b).sum))
    text = step.lower(decoder.param_shapes(cfg), batch).compile().as_text()
    assert costs(text).flops == pytest.approx(step_flops(cfg, rows, length), rel=0.05)


@pytest.mark.parametrize("fsdp, tensor", [(8, 1), (4, 2), (1, 8)])
def test_bytes_a_chip_are_those_of_the_sharding(fsdp, tensor):
    """Matrices in fsdp x tensor parts, norms whole; two moments each for Adam."""
    mesh = AbstractMesh((1, fsdp, tensor, 1), MESH_AXES, (AxisType.Auto,) * 4)
    cfg = plan_models.MODELS["llama2-7b"]
    params = abstract_params(decoder.param_shapes(cfg), mesh)
    norms = (2 * cfg.n_layers + 1) * cfg.d_model
    total = 6_738_415_616  # parameters, as the model's card has it
    own = 4 * ((total - norms) // 8 + norms)
    assert shard_bytes(params) == own
    state = abstract_state(params, make_optimizer(OptimizerConfig(), 10, params))
    assert shard_bytes(state.opt_state) == pytest.approx(2 * own, abs=16)


@pytest.mark.parametrize(
    "name, billions",
    [
        ("llama2-7b", 6.74),
        ("llama2-13b", 13.02),
        ("llama2-70b", 68.98),
        ("llama3-8b", 8.03),
        ("llama3.1-8b", 8.03),
        ("llama-65b", 65.29),
        ("codellama-34b", 33.74),
        ("llemma-7b", 6.74),
        ("opt-1.3b", 1.32),
        ("opt-30b", 29.97),
    ],
)
def test_published_sizes(name, billions):
    shapes = decoder.param_shapes(plan_models.MODELS[name])
    size = sum(x.size for x in jax.tree.leaves(shapes))
    assert size / 1e9 == pytest.approx(billions, abs=0.01)


def test_without_libtpu_it_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    code, out, err = command(
        capsys,
        f"--config={CONFIGS / 'sft.py'}:mini",
        "--topology=v5e:2x4",
        f"--model={model_file(tmp_path)}",
    )
    assert code == 2 and not out
    assert "pip install -r requirements-tpu.txt" in err


@pytest.mark.parametrize(
    "message, found",
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
            "the total memory required (24.41G) exceeds available HBM (15.75G).",
            Overflow(24.41 * GIB, 15.75 * GIB),
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.5M of "
            "256.0M hbm. Exceeded hbm capacity by 256.5M.",
            Overflow(512.5 * 2**20, 2**28),
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem.", None),
        ("INTERNAL: Used 3G of 2G hbm", None),
    ],
)
def test_what_the_compiler_says_about_memory(message, found):
    assert overflow(message) == found


def test_what_does_not_fit_says_by_how_much_and_what_to_change():
    """24.41 GiB of 15.75 is 8.66 too much."""
    text = plan_print.as_text(made_plan(needed=24.41 * GIB))
    assert "needs 24.41 GiB a chip, 8.66 more than there is" in text
    for change in ("remat=full", "accum=2", "dtype=bf16_compute", "16 chips"):
        assert change in text


def test_states_that_cannot_fit_are_told_apart():
    """No remat helps where parameters and moments alone take more than a chip."""
    plan = made_plan(needed=24 * GIB)
    parts = {"params": 8 * GIB, "optimizer": 15.5 * GIB, "activations": 0.5 * GIB}
    function = plan.functions[0]._replace(parts=parts)
    told = plan_print.advice(plan._replace(functions=(function,)))
    assert "states alone take 23.50 GiB" in told[0]
    assert "at least 12" in told[0]  # 8 x 23.5 / 15.75 = 11.9


def test_times_are_the_roofline():
    """Compute, memory and network over their rates; the longest is the time."""
    plan = made_plan()
    update = plan.functions[0]
    assert update.roofline == pytest.approx((2e12 / 197e12, 3e9 / 819e9, 5e8 / 100e9))
    assert update.roofline.bound == "compute"
    assert update.mfu(plan.where) == pytest.approx(12e12 / (8 * 2e12))
    assert plan.chip_hours == pytest.approx(100 * 8 * 2e12 / 197e12 / 3600)


def test_json_holds_plain_numbers():
    """It survives a round trip, and parts add up to what is needed."""
    found = plan_print.as_json(made_plan())
    assert json.loads(json.dumps(found)) == found
    hbm = found["functions"][0]["hbm"]
    assert sum(hbm["parts"].values()) == hbm["needed"] == 10 * GIB


def test_search_takes_the_fastest_that_fits():
    """It fits with remat only: less of it first, and no more once it fits."""
    where, seen = parse_slice("v5e:2x4"), []

    def fake(cfg):
        seen.append((cfg.mesh.tensor, cfg.accum, cfg.remat))
        if cfg.mesh.tensor > 2:
            raise ConfigError("heads")
        fits = cfg.remat != "none" or cfg.accum > 1
        return made_plan(needed=(10 if fits else 20) * GIB)

    found = search(sft_config(batch_size=64), where, fake, tries=6)
    assert found.best.fits
    assert seen[:2] == [(1, 1, "none"), (1, 1, "dots")]
    assert (1, 1, "full") not in seen and (1, 2, "dots") not in seen
    assert (1, 2, "none") in seen


def test_search_skips_what_must_lack_memory():
    """96 GiB of activations need 8 micro-batches: an eighth fits beside 3 of 15.75.

    Where states alone are too much, nothing helps on a mesh: one try on each.
    """
    where = parse_slice("v5e:2x4")

    def seen(fixed):
        tried = []

        def fake(cfg):
            tried.append((cfg.mesh.tensor, cfg.accum, cfg.remat))
            made = made_plan(needed=(fixed + 96 / cfg.accum) * GIB)
            parts = {"params": fixed * GIB, "activations": 96 / cfg.accum * GIB}
            function = made.functions[0]._replace(parts=parts)
            return made._replace(functions=(function,))

        search(sft_config(batch_size=64), where, fake, tries=6)
        return tried

    at_once = [(1, 1, remat) for remat in ("none", "dots", "full")]
    assert seen(3)[:4] == [*at_once, (1, 8, "none")]
    assert seen(16) == [(tensor, 1, "none") for tensor in (1, 2, 4, 8)]


def test_exit_codes_tell_whether_it_fits(monkeypatch, capsys):
    """0 and 3, with the tables, or with --json the numbers, on stdout."""
    flags = [f"--config={CONFIGS / 'sft.py'}:mini", "--topology=v5e:2x4", "--json"]
    for needed, expected in ((10 * GIB, 0), (20 * GIB, 3)):
        found = made_plan(needed=needed)
        monkeypatch.setattr("train.plan.plan", lambda *_, found=found: found)
        code, out, _ = command(capsys, *flags)
        assert code == expected
        assert json.loads(out)["fits"] == (code == 0)


def test_search_splits_rows_evenly_and_keeps_how_columns_are_split():
    for rows in range(1, 300):
        parts = micro_batches(rows)
        assert parts[0] == 1 and all(rows % n == 0 for n in parts)
    assert micro_batches(72) == [1, 2, 3, 6, 9, 18, 36, 72]
    mesh = dataclasses.replace(sft_config().mesh, sequence=4)
    for split, _, _ in candidates(sft_config(mesh=mesh), parse_slice("v5e:4x4")):
        assert split["sequence"] == 4 and split["fsdp"] * split["tensor"] == 4


def test_search_changes_how_and_not_what():
    cfg = sft_config()
    mesh = {"data": 1, "fsdp": 4, "tensor": 2}
    other = changed(cfg, mesh, 2, "full")
    same = dataclasses.replace(other, mesh=cfg.mesh, accum=cfg.accum, remat=cfg.remat)
    assert same == cfg and (other.accum, other.remat) == (2, "full")


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "ppo"])
def test_every_config_of_a_command_is_known(name):
    """All variants, without a checkpoint or data."""
    module = CONFIGS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    kinds = {type(read_config(load_config(f"{module}:{v}"))) for v in loaded.VARIANTS}
    assert len(kinds) == 1


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--config=sft.py:mini"], "--topology: missing"),
        (["--config=sft.py:mini", "--topology=v9:2x4"], "--topology: unknown chip"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, told):
    name = arguments[0].removeprefix("--config=")
    code, _, err = command(capsys, f"--config={CONFIGS / name}", *arguments[1:])
    assert code == 2 and err.count("\n") == 1 and told in err


def told(name, **changes):
    """What a plan of a config with these settings is told, without compiling."""
    asked = Asked(**changes.pop("asked", {}))
    cfg = read_config(load_config(f"{CONFIGS / name}"))
    return plan_given.given(dataclasses.replace(cfg, **changes), asked)


def adapter(folder) -> str:
    """A folder with the config of adapters, as `train.reward` exports them."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    return str(folder)


def test_a_reward_model_of_adapters_lies_over_the_policy(tmp_path):
    """Equality with the plan without one; without adapters of one's own an error."""
    judge = adapter(tmp_path / "adapter")
    model = {"model": "llama2-70b"}
    found = told("ppo.py:qlora", asked=model, reward_model=judge)
    assert found == told("ppo.py:qlora", asked=model)
    assert found.reward_model == found.model
    cfg = read_config(load_config(f"{CONFIGS / 'ppo.py:qlora'}"))
    assert shares_base(dataclasses.replace(cfg, reward_model=judge), found)
    with pytest.raises(ConfigError, match="config.reward_model: .* holds adapters"):
        told("ppo.py:prm800k", asked={"model": "llemma-7b"}, reward_model=judge)


@needs_gcsfs
def test_a_plan_reads_what_is_on_a_bucket(tmp_path):
    """Equality of model and kind of rows with those of the same files on a disk."""
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    model_file(tmp_path)
    with served("bucket") as bucket:
        bucket.upload("bucket", tmp_path, "in")
        places = (str(tmp_path), "gs://bucket/in")
        here, there = (
            told("reward.py:paper", checkpoint=at, data=f"{at}/pairs.jsonl", length=64)
            for at in places
        )
        assert here == there and here.pairs and here.model.n_layers == 3
        for name in (f"{at}/config.json" for at in places):
            asked = {"model": name}
            assert told("sft.py:paper", asked=asked).model == dataclasses.replace(
                here.model, remat="dots"
            )


@pytest.mark.parametrize("name", ["sft.py", "reward.py", "dpo.py", "ppo.py"])
def test_data_that_are_given_are_there(name):
    """No plan goes by rows that it could not read."""
    key = "prompts" if name == "ppo.py" else "data"
    with pytest.raises(DataError, match="absent.jsonl: cannot be read"):
        told(name, asked={"model": "llama2-7b"}, **{key: "absent.jsonl"})


def test_a_context_is_planned_that_the_model_does_not_have():
    """Rows of 32,768 tokens: too long for Llama 2 unless its positions reach so far."""
    asked = {"model": "llama2-7b"}
    with pytest.raises(ConfigError, match="than the 4096 of the model; --context=N"):
        told("sft.py:paper", asked=asked, length=32768)
    found = told("sft.py:paper", asked={**asked, "context": 32768}, length=32768)
    assert found.model.context == 32768
    longer = told("sft.py:paper", asked={"model": "llama3.1-8b"}, length=32768)
    assert longer.model.context == 131072


def test_what_no_plan_has_is_said():
    """By command and settings, in the last line and in JSON."""
    cfg = read_config(load_config(f"{CONFIGS / 'ppo.py:prm800k'}"))
    told = left_out(cfg)
    assert [t.split()[0] for t in told] == ["slots.insert", "the", "validation"]
    plain = dataclasses.replace(cfg, ppo=dataclasses.replace(cfg.ppo, fit_critic=0))
    plain = dataclasses.replace(
        plain, loop=dataclasses.replace(plain.loop, keep_best=False)
    )
    assert left_out(plain) == told[:1]
    assert left_out(sft_config()) and not left_out(sft_config(eval_fraction=0.0))
    found = made_plan(left_out=told)
    text = plan_print.as_text(found)
    assert text.splitlines()[-1] == f"Not planned: {'; '.join(told)}."
    assert plan_print.as_json(found)["left_out"] == list(told)
    assert "steps of at least 10.2 ms with full rows" in text


def test_rows_that_do_not_divide_name_a_mesh_on_which_they_do():
    """128 rows in 4 micro-batches: they split over 32 devices, not over 64."""
    for tensor, sizes in ((2, (64, 1)), (8, (64, 4))):
        mesh = AbstractMesh((1, sizes[0], sizes[1], 1), MESH_AXES, AUTO)
        with pytest.raises(ConfigError, match=f"with mesh.tensor={tensor} they divide"):
            check_rows("config.batch_size", 128, 4, mesh)
    with pytest.raises(ConfigError, match="got 3$"):
        check_rows("config.batch_size", 3, 2, None)


def test_short_prompts_are_prefilled_at_the_samplers_least_width():
    """FLOPs of prefill are those of 32 tokens; the cache is that of the prompt."""
    mesh = AbstractMesh((1, 2, 1, 1), MESH_AXES, AUTO)
    cfg = SampleRun(max_new_tokens=8)
    model = on_tpu(plan_models.MODELS["llama2-7b"], cfg)

    def planned(length):
        found = {
            p.name: p for p in pieces(cfg, Given(model, None, False, length), mesh)
        }
        cache = shard_bytes(found["decode step"].held["cache"])
        return found["prefill"].model_flops, cache

    (short, small), (full, large) = planned(8), planned(32)
    assert short == full and small * 40 == large * 16


def test_an_unknown_model_names_the_known():
    with pytest.raises(ConfigError, match="did you mean 'llama2-7b'"):
        plan_models.model_shape("--model", "llama-2-7b", None, "", "float32")
    with pytest.raises(ConfigError, match="--model: missing, as is config.checkpoint"):
        plan_models.model_shape("--model", None, None, "config.checkpoint", "float32")
    with pytest.raises(ConfigError, match="no folder 'absent' here"):
        plan_models.model_shape("--model", None, "absent", "config.checkpoint", "")


@pytest.mark.parametrize(
    "checkpoint, name",
    [
        ("EleutherAI/llemma_7b", "llemma-7b"),
        ("checkpoints/CodeLlama-34b-hf", "codellama-34b"),
        ("meta-llama/Llama-2-70b-hf", "llama2-70b"),
        ("lmsys/vicuna-13b-v1.5", "vicuna-13b"),
        ("meta-llama/Meta-Llama-3-8B", "llama3-8b"),
        ("meta-llama/Llama-3.1-8B", "llama3.1-8b"),
        ("facebook/opt-30b", "opt-30b"),
    ],
)
def test_a_published_checkpoint_needs_no_folder(checkpoint, name):
    """Its name, or a path that ends so, says its shape; a flag goes before it."""
    found = plan_models.model_shape("--model", None, checkpoint, "", "float32")
    assert found == dataclasses.replace(plan_models.MODELS[name], dtype="float32")
    other = plan_models.model_shape("--model", "llama-7b", checkpoint, "", "float32")
    assert other.d_model == 4096 and other.max_position == 2048


@pytest.mark.parametrize("name", ["sft", "reward", "dpo"])
def test_adapters_have_moments_and_their_base_has_few_bits(name):
    """Closed form: two for each number of an adapter; 4.13 bits for one of a kernel.

    Over fsdp one side of an adapter is split, that of the residual stream.
    """
    cfg = read_config(load_config(f"{CONFIGS / name}.py:qlora"))
    mesh = AbstractMesh((1, 8, 1, 1), MESH_AXES, (AxisType.Auto,) * 4)
    model = on_tpu(plan_models.MODELS["llama2-7b"], cfg)
    update = pieces(cfg, Given(model, pairs=True), mesh)[-1]
    D, F, L = model.d_model, model.d_ff, model.n_layers
    numbers = cfg.lora.rank * L * (7 * D // 8 + 4 * D + 3 * F)
    numbers += D if name == "reward" else 0  # the head, which is trained too
    split = shard_bytes(update.held["adapters"])
    assert split == 4 * numbers
    moments = shard_bytes(update.held["optimizer"])
    assert moments == pytest.approx(2 * split, abs=16)
    kernels = L * (4 * D * D + 3 * D * F)
    base = shard_bytes(update.held["params"]) * 8
    others = 2 * model.vocab_size * D * (1 if name == "reward" else 2)
    assert base == pytest.approx(kernels * 4.13 / 8 + others, rel=0.01)
