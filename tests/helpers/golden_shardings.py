"""The shardings of everything, per model and mesh, as the text of tests/golden/*.json.

    PYTHONPATH=.:tests python tests/helpers/golden_shardings.py

rewrites those files. A file maps a kind ("parameters", "adamw", "slots", ...) to the
arrays by name, and a name to how its axes are split: "- fsdp tensor -" means axis 1
over fsdp and axis 2 over tensor, "data+fsdp -" rows over both, "whole" no axis. Where
meshes differ, an object says which has what; they are called data x fsdp x tensor
(x sequence).
"""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from data.batch import LabelBatch, PairBatch
from data.pairs import PreferenceBatch
from models import decoder, reward_model, slots, t5, t5_files
from models.adapters import LoRAConfig, init_adapters
from models.params import flatten_names
from models.quantized import quantize_params
from models.sampling import Sampling
from models.sharding import MESH_AXES, fill_rows, param_shardings
from train.mesh import replicated
from train.optim import OptimizerConfig, make_optimizer
from train.plan_models import MODELS
from train.plan_pieces import (
    abstract_params,
    abstract_state,
    placed,
    row_array,
    token_batch,
)
from train.ppo import PPOState
from train.ppo_terms import Experience

FOLDER = Path(__file__).parents[1] / "golden"
COMMAND = "PYTHONPATH=.:tests python tests/helpers/golden_shardings.py"
MESHES = ("8x1x1", "2x2x2", "1x4x2", "1x64x1", "1x16x16", "1x4x1x2")
NAMES = ("llama2-7b", "llama2-70b", "codellama-34b")
# Of 56 heads, which no 16 devices divide.
OPT_MESHES = (*MESHES[:4], "1x32x8", MESHES[5])
LORA = LoRAConfig(rank=64, alpha=16.0, targets=("layers/attn/*", "layers/mlp/*"))
SMALL = 2**20  # sums below this many bytes are not written


def mesh_of(name: str) -> AbstractMesh:
    sizes = (*map(int, name.split("x")), 1)[: len(MESH_AXES)]
    return AbstractMesh(sizes, MESH_AXES, (AxisType.Auto,) * len(MESH_AXES))


def told(spec) -> str:
    """A PartitionSpec in few letters."""
    axes = ["+".join(a) if isinstance(a, tuple) else a or "-" for a in spec]
    return " ".join(axes) if set(axes) - {"-"} else "whole"


def moments(params, kind: str):
    """The optimizer's state of parameters that have shardings."""
    optimizer = make_optimizer(OptimizerConfig(kind=kind), 10, params)
    return abstract_state(params, optimizer).opt_state


@functools.cache
def shapes_of(name: str) -> dict:
    """Everything that is loaded of a model, as shapes."""
    cfg = MODELS[name]
    whole = decoder.param_shapes(cfg)

    def nodes(kind):
        return jax.eval_shape(lambda p: quantize_params(p, kind), whole)

    return {
        "parameters": whole,
        "nf4": nodes("nf4"),
        "int8": nodes("int8"),
        "adapters": jax.eval_shape(
            lambda: init_adapters(whole, LORA, jax.random.key(0))
        ),
    }


def of_model(name: str, mesh: AbstractMesh) -> dict:
    """{kind: tree of shapes with shardings} of a model on a mesh."""
    found = {k: abstract_params(x, mesh) for k, x in shapes_of(name).items()}
    cfg = dataclasses.replace(MODELS[name], layer_loop="scan")
    made = jax.eval_shape(
        functools.partial(
            slots.empty, cfg, Sampling(), rows=64, cache=1280, response=1024
        ),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    ints, none = jnp.int32, jax.ShapeDtypeStruct((), jnp.int32)
    rows = fill_rows(16, mesh)
    tokens = jax.ShapeDtypeStruct((rows, 256), ints)
    lengths = jax.ShapeDtypeStruct((rows,), ints)
    prompts = jax.eval_shape(
        functools.partial(slots.prefill, cfg),
        found["parameters"], (), none, tokens, lengths,
    )  # fmt: skip
    prefix = jax.eval_shape(
        functools.partial(slots.prefill_prefix, cfg),
        found["parameters"], jax.ShapeDtypeStruct((256,), ints), none,
    )  # fmt: skip
    states = {"slots of 64 rows": made, "16 prompts": prompts, "a prefix": prefix}
    return {
        **found,
        "adamw": moments(found["parameters"], "adamw"),
        "adafactor": moments(found["parameters"], "adafactor"),
        "adamw of adapters": moments(found["adapters"], "adamw"),
        **{
            kind: jax.tree.map(placed, x, slots.shardings(mesh, x))
            for kind, x in states.items()
        },
    }


def of_rl(mesh: AbstractMesh) -> dict:
    """A reward model of llama2-7b, PPO's state with it as critic, and batches."""
    cfg = MODELS["llama2-7b"]
    policy = abstract_params(decoder.param_shapes(cfg), mesh)
    critic = abstract_params(reward_model.param_shapes(cfg), mesh)
    everywhere = replicated(mesh)
    states = (
        abstract_state(p, make_optimizer(OptimizerConfig(), 10, p))
        for p in (policy, critic)
    )
    state = PPOState(
        *states,
        kl_coef=jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere),
        iteration=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    )
    batch = token_batch(128, 1024, mesh)
    each, ints = row_array(mesh, (128,)), row_array(mesh, (128,), jnp.int32)
    pairs = PairBatch(batch, batch, each, each, each)
    labels = LabelBatch(*batch[:1], *batch[1:2] * 2, *batch[2:])
    rows = Experience(
        prompts=row_array(mesh, (128, 256), jnp.int32),
        prompt_lengths=ints,
        tokens=row_array(mesh, (128, 768), jnp.int32),
        lengths=ints,
        ended=row_array(mesh, (128,), jnp.bool_),
        sampled=row_array(mesh, (128, 768)),
        rewards=row_array(mesh, (128, 768)),
        baseline=each,
    )
    return {
        "reward model": critic,
        "PPO's state": state,
        "rollout of 128 rows": rows,
        "token batch": batch,
        "label batch": labels,
        "pairs with a reference": PreferenceBatch(pairs, row_array(mesh, (128, 2))),
    }


def of_ul2(mesh: AbstractMesh) -> dict:
    """UL2-20B's parameters and their moments."""
    shapes = t5.param_shapes(MODELS["ul2"])
    shardings = param_shardings(shapes, mesh, t5_files.RULES)
    params = jax.tree.map(placed, shapes, shardings)
    return {"parameters": params, "adamw": moments(params, "adamw")}


def document(make, meshes: tuple[str, ...] = MESHES) -> dict:
    """The content of a file: `make(mesh)` is {kind: tree of shapes with shardings}."""
    by_mesh = {name: make(mesh_of(name)) for name in meshes}
    out = {}
    for kind in by_mesh[meshes[0]]:
        trees = {name: flatten_names(kinds[kind]) for name, kinds in by_mesh.items()}
        out[kind] = {
            leaf: _joined(
                {m: told(tree[leaf].sharding.spec) for m, tree in trees.items()}
            )
            for leaf in trees[meshes[0]]
        }
        bytes_ = {m: sum(map(_bytes, tree.values())) for m, tree in trees.items()}
        if max(bytes_.values()) >= SMALL:
            out[kind]["GiB a device"] = {
                m: round(b / 2**30, 4) for m, b in bytes_.items()
            }
    return out


def _bytes(x) -> int:
    size = 1
    for n in x.sharding.shard_shape(x.shape):
        size *= n
    return size * x.dtype.itemsize


def _joined(by_mesh: dict[str, str]):
    """One text where all meshes agree, else {meshes: text}."""
    groups: dict[str, list[str]] = {}
    for mesh, text in by_mesh.items():
        groups.setdefault(text, []).append(mesh)
    if len(groups) == 1:
        return next(iter(groups))
    return {" ".join(meshes): text for text, meshes in groups.items()}


DOCUMENTS = {name: (functools.partial(of_model, name), MESHES) for name in NAMES} | {
    "llama2-7b-rl": (of_rl, MESHES),
    "opt-30b": (functools.partial(of_model, "opt-30b"), OPT_MESHES),
    "ul2": (of_ul2, MESHES),
}


def differences(was: dict, now: dict, where: str = "") -> list[str]:
    """ "kind/name: was ..., is ..." of all that differs."""
    found = []
    for key in {**was, **now}:
        a, b, name = was.get(key), now.get(key), f"{where}{key}"
        if isinstance(a, dict) and isinstance(b, dict) and not where:
            found += differences(a, b, f"{name}: ")
        elif a != b:
            found.append(f"{name}: was {json.dumps(a)}, is {json.dumps(b)}")
    return found


def as_text(found: dict) -> str:
    """JSON with a line for each array."""
    kinds = [
        f" {json.dumps(kind)}: {{\n"
        + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in names.items())
        + "\n }"
        for kind, names in found.items()
    ]
    return "{\n" + ",\n".join(kinds) + "\n}\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, what in DOCUMENTS.items():
        (FOLDER / f"{name}.json").write_text(as_text(document(*what)))
