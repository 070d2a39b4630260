"""Run as a script on 8 simulated devices: loads a checkpoint in few bits on two meshes.

Argument: a checkpoint folder. Prints one JSON object for tests/models/test_loading.py.
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

from models import tensor_files
from models.params import count, flatten_names
from models.pretrained import checkpoint_shapes, from_pretrained, read_config
from models.quantized import quantize_params
from models.sharding import param_shardings
from train.mesh import make_mesh


def check(source: Path, kind: str, sizes: dict) -> dict:
    elements = []
    plain_read = tensor_files.TensorFolder.read

    def counted(self, name, index=(slice(None),)):
        block = plain_read(self, name, index)
        elements.append(block.size)
        return block

    mesh = make_mesh(**sizes)
    tensor_files.TensorFolder.read = counted
    ours = from_pretrained(source, mesh=mesh, quantize=kind)
    tensor_files.TensorFolder.read = plain_read
    shapes = checkpoint_shapes(read_config(source))
    nodes = jax.eval_shape(partial(quantize_params, kind=kind), shapes)
    wanted = flatten_names(param_shardings(nodes, mesh))
    alone = flatten_names(from_pretrained(source, quantize=kind).params)
    found = flatten_names(ours.params)
    return {
        "parameters": count(shapes),
        "elements_read": sum(elements),
        "largest_read": max(elements),
        "misplaced": [
            n
            for n, x in found.items()
            if not x.sharding.is_equivalent_to(wanted[n], x.ndim)
        ],
        "unequal": [n for n, x in found.items() if not np.array_equal(x, alone[n])],
        "split": [n for n, x in found.items() if not x.is_fully_replicated],
    }


def main() -> None:
    source = Path(sys.argv[1])
    meshes = {"nf4": dict(data=2, fsdp=2, tensor=2), "int8": dict(fsdp=4, tensor=2)}
    found = {kind: check(source, kind, sizes) for kind, sizes in meshes.items()}
    print(json.dumps(found))


main()
