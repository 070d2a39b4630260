"""Plans of PPO with adapters: one base in every function; what a 70B model needs."""

import dataclasses
import importlib.util
import math
import re
from pathlib import Path

import jax
import pytest
from helpers.plan import model_file
from jax.sharding import AbstractMesh, AxisType

from models.adapters import adapter_shapes
from models.decoder import param_shapes
from models.sharding import MESH_AXES
from train import plan_models
from train.aot import compile_for, slice_devices
from train.chips import GIB, parse_slice
from train.cli import load_config
from train.mesh import make_mesh
from train.plan import Asked, plan, read_config
from train.plan_pieces import Given
from train.plan_runs import on_tpu, pieces
from train.plan_terms import shard_bytes

CONFIGS = Path(__file__).parents[2] / "configs"
ROLES = ("params", "base", "policy", "optimizer", "critic", "reward model", "reference")
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -r requirements-tpu.txt",
)


def config(variant="qlora", mesh=(2, 4), ppo=(), **changes):
    cfg = read_config(load_config(f"{CONFIGS / 'ppo.py'}:{variant}"))
    sizes = dataclasses.replace(cfg.mesh, fsdp=mesh[0], tensor=mesh[1])
    return dataclasses.replace(
        cfg, mesh=sizes, ppo=dataclasses.replace(cfg.ppo, **dict(ppo)), **changes
    )


def parts(cfg, name):
    """{function: {part: bytes a device}}, without activations."""
    mesh = AbstractMesh((1, cfg.mesh.fsdp, cfg.mesh.tensor, 1), MESH_AXES,
                        (AxisType.Auto,) * 4)  # fmt: skip
    model = on_tpu(dataclasses.replace(plan_models.MODELS[name], dtype=cfg.dtype), cfg)
    return {
        piece.name: {
            name: shard_bytes(tree)
            for parts in (piece.held, piece.beside)
            for name, tree in parts.items()
        }
        for piece in pieces(cfg, Given(model, model), mesh)
    }


def held(cfg, name):
    """{function: bytes a device of all that the roles are made of}."""
    return {
        function: sum(size for part, size in found.items() if part in ROLES)
        for function, found in parts(cfg, name).items()
    }


def test_every_function_has_one_base_beside_it():
    """Closed form: 4.13 bits for each number of a kernel, two embeddings in bfloat16;
    adapters of two roles with their moments in float32, of the judge in bfloat16.
    """
    cfg = config(mesh=(1, 1))
    shapes = param_shapes(plan_models.MODELS["llama2-70b"])
    kernels = sum(x.size for x in jax.tree.leaves(shapes["layers"]) if x.ndim > 2)
    ends = sum(shapes[n][k].size for n, k in (("embed", "embedding"),
                                              ("lm_head", "kernel")))  # fmt: skip
    lora = adapter_shapes(shapes, cfg.lora.config())
    adapters = sum(x.size for x in lora.values())
    expected = kernels * 4.13 / 8 + ends * 2 + adapters * (4 * (2 + 4) + 2)
    found = held(cfg, "llama2-70b")
    assert found.keys() == {"decode step", "prefill", "reward scores", "update"}
    update = found.pop("update")
    assert update == pytest.approx(expected, rel=1e-3)
    assert found["reward scores"] == update
    for name in ("decode step", "prefill"):  # which take adapters in bfloat16, too
        assert found[name] == update + 2 * adapters


def test_adapters_of_the_reference_and_waiting_prompts_are_counted():
    """Closed form: adapters that the policy starts from stay, in bfloat16, everywhere;
    64 prompts of 256 tokens lie beside decoding where more wait for 144 slots.
    """
    cfg, model = config(mesh=(1, 1)), plan_models.MODELS["llama2-7b"]
    lora = adapter_shapes(param_shapes(model), cfg.lora.config())
    adapters = sum(x.size for x in lora.values())
    plain = parts(cfg, "llama2-7b")
    adapted = parts(dataclasses.replace(cfg, policy_adapter="x"), "llama2-7b")
    for name, found in adapted.items():
        assert found == plain[name] | {"reference": 2 * adapters}
    keys = model.n_layers * model.n_kv_heads * model.head_dim * 256
    prompts = 64 * (2 * 2 * keys + 4 * model.vocab_size + 4)
    assert plain["decode step"]["prompts"] == prompts
    at_once = config(mesh=(1, 1), ppo={"prompts": 144, "minibatch": 144})
    assert parts(at_once, "llama2-7b")["decode step"]["prompts"] == 0


def test_in_full_there_are_four_models():
    """Closed form: policy, critic, reference, judge; moments of the first two."""
    cfg = config("prm800k", (1, 1))
    found = held(cfg, "llama2-7b")
    shapes = param_shapes(plan_models.MODELS["llama2-7b"])
    size = 4 * sum(x.size for x in jax.tree.leaves(shapes))
    assert found["update"] == pytest.approx(8 * size, rel=0.06)  # some frozen


@needs_libtpu
@pytest.mark.slow
def test_a_base_in_4_bits_is_widened_layer_by_layer(tmp_path):
    """In the update for 8 chips no floating array of all 24 layers is as large as one
    chip's part of a kernel of the MLP; those of the adapters are smaller.
    """
    model = model_file(
        tmp_path, num_hidden_layers=24, hidden_size=512, intermediate_size=1024,
        head_dim=64,
    )  # fmt: skip
    small = {"prompts": 4, "minibatch": 4, "accum": 2, "max_new_tokens": 8}
    cfg = config(ppo={**small, "fit_critic": 0, "epochs": 1})
    shape = plan_models.model_shape("--model", model, None, "", cfg.dtype)
    shape = on_tpu(shape, cfg)
    devices = slice_devices(parse_slice("v5e:2x4"))
    mesh = make_mesh(*dataclasses.astuple(cfg.mesh), devices=devices)
    update = pieces(cfg, Given(shape, shape, prompt_length=8), mesh)[-1]
    text = compile_for(update.lower()).as_text()
    found = re.findall(r"(?:bf16|f32)\[24,([\d,]+)\]", text)
    largest = max(math.prod(map(int, sizes.split(","))) for sizes in found)
    assert largest < (512 // 2) * (1024 // 4)


@needs_libtpu
@pytest.mark.slow
def test_a_70b_model_on_16_chips():
    """Four roles, prompts of 256 tokens, responses of 1,024: HBM of a v5e chip."""
    cfg = config(mesh=(2, 8))
    assert cfg.ppo.max_new_tokens == 1024
    found = plan(cfg, parse_slice("v5e:4x4"), Asked(model="llama2-70b"))
    for function in found.functions:
        assert function.needed < 15.75 * GIB, function
