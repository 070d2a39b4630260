"""Run as a script on 8 simulated devices: one run on several meshes; prints JSON.

Argument: a folder. See tests/train/test_sharded_training.py.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from models import decoder
from models.sharding import param_shardings
from train.checkpoint import Checkpoints
from train.decoder import train_decoder
from train.loop import LoopConfig
from train.mesh import make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.state import abstract_state, init_state

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import tiny_run  # noqa: E402

CFG = dataclasses.replace(tiny_run.CFG, vocab_size=32, n_heads=4, n_kv_heads=2)
OPTIMIZER = OptimizerConfig(lr=1e-2, weight_decay=0.1)
LOOP = LoopConfig(checkpoint_every=3, progress=False, tensorboard=False)


def params(mesh):
    start = decoder.init_params(CFG, jax.random.key(0))
    return (
        start if mesh is None else jax.device_put(start, param_shardings(start, mesh))
    )


class Batches:
    def __getitem__(self, step):
        return tiny_run.batch(step, rows=8)


def train(mesh, workdir, steps=3):
    return train_decoder(
        CFG, params(mesh), Batches(), steps, optimizer=OPTIMIZER, loop=LOOP, accum=2,
        eval_batches=[tiny_run.batch(99, rows=8)], workdir=workdir, mesh=mesh,
    )  # fmt: skip


def restored(folder, mesh):
    start = params(mesh)
    like = abstract_state(init_state(start, make_optimizer(OPTIMIZER, 3, start)))
    return Checkpoints(folder / "checkpoints").restore(3, like), like


def main(folder: Path) -> dict:
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    other = make_mesh(data=1, fsdp=4, tensor=2)
    alone, spread = train(None, None), train(mesh, folder)
    pairs = zip(
        jax.tree.leaves(alone.state), jax.tree.leaves(spread.state), strict=True
    )
    difference = max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs
    )
    moved = {}
    for name, target in (("same", mesh), ("other", other), ("one", None)):
        state, like = restored(folder, target)
        moved[name] = tiny_run.same_bits(state, spread.state) and all(
            a.sharding == b.sharding
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True)
        )
    matrix = spread.state.params["layers"]["mlp"]["gate"]["kernel"]
    moment = spread.state.opt_state[1][0].mu["layers"]["mlp"]["gate"]["kernel"]
    return {
        "difference": difference,
        "losses": [[r["eval/loss"] for r in run.rows if "eval/loss" in r]
                   for run in (alone, spread)],
        "restored": moved,
        "parameter": str(matrix.sharding.spec),
        "moment": str(moment.sharding.spec),
        "part": matrix.addressable_shards[0].data.size / matrix.size,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
