"""Run as a script on 8 simulated devices: loads, saves and runs sharded checkpoints.

Arguments: a folder to write exports to, then checkpoint folders. Prints one JSON object
that tests/models/test_sharding.py reads.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from models import tensor_files
from models.params import count, flatten_names
from models.pretrained import from_pretrained, save_pretrained
from models.sharding import param_shardings
from train.mesh import batch_sharding, make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.state import init_state

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import forward  # noqa: E402


def spec(array) -> str:
    return str(tuple(array.sharding.spec))


def check(source: Path, out: Path) -> dict:
    elements = []
    plain_read = tensor_files.TensorFolder.read

    def counted(self, name, index=(slice(None),)):
        block = plain_read(self, name, index)
        elements.append(block.size)
        return block

    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    whole = from_pretrained(source)
    tensor_files.TensorFolder.read = counted
    ours = from_pretrained(source, mesh=mesh)
    tensor_files.TensorFolder.read = plain_read
    save_pretrained(out / source.name, ours.cfg, ours.params, ours.hf_config)

    names, alone = flatten_names(ours.params), flatten_names(whole.params)
    batch = forward.rows(np.random.default_rng(0).integers(0, 61, (4, 16)), 16)
    sharded = [jax.device_put(x, batch_sharding(mesh)) for x in batch]
    difference = forward.logits(ours.cfg, ours.params, *sharded) - forward.logits(
        whole.cfg, whole.params, *batch
    )
    on_one = {
        name: array.addressable_shards[0].data.size for name, array in names.items()
    }
    return {
        "parameters": count(whole.params),
        "elements_read": sum(elements),
        "largest_read": max(elements),
        "on_one_device": sum(on_one.values()),
        "specs": {name: spec(array) for name, array in names.items()},
        "equal": all(np.array_equal(names[n], alone[n]) for n in names),
        "logit_difference": float(np.abs(difference).max()),
    }


def optimizer_specs(source: Path) -> dict:
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    params = from_pretrained(source, mesh=mesh).params
    state = init_state(params, make_optimizer(OptimizerConfig(), 10, params))
    state_specs = {name: spec(x) for name, x in flatten_names(state.opt_state).items()}
    expected = flatten_names(param_shardings(params, mesh))
    return {
        "state": state_specs,
        "params": {name: str(tuple(s.spec)) for name, s in expected.items()},
    }


def main() -> None:
    out, *sources = map(Path, sys.argv[1:])
    result = {source.name: check(source, out) for source in sources}
    result["optimizer"] = optimizer_specs(sources[0])
    result["mesh"] = {
        "default": dict(make_mesh().shape),
        "filled": dict(make_mesh(data=-1, fsdp=2, tensor=2).shape),
        "exact": dict(make_mesh(1, 2, 2, 2).shape),
    }
    print(json.dumps(result))


main()
