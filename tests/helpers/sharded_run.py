"""Run as a script on 8 simulated devices: what runs on one does on meshes; prints JSON.

Arguments: a folder, then which of PARTS. Every algorithm runs twice: on one device, and
as a run that is stopped after each step and continued on the next of MESHES, so that
each mesh trains from a checkpoint of another. See tests/train/test_sharded_training.py.
"""

import contextlib
import dataclasses
import json
import math
import re
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data.batches import batches
from data.pairs import token_pair
from models import adapters as adapters_lib
from models import decoder, reward_model, sampler, scoring, slots
from models.params import flatten_names, unflatten_names
from models.quantized import quantize_params
from models.sampling import Sampling
from models.sharding import fetch, param_shardings
from train import loop as loop_lib
from train.checkpoint import Checkpoints
from train.decoder import train_decoder
from train.dpo import train_dpo
from train.errors import Preempted
from train.loop import LoopConfig
from train.lora import LoRASettings, adapt
from train.mesh import make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.plan_pieces import abstract_params, abstract_state
from train.plan_pieces import placed as plan_placed
from train.reward import fit_reward

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import forward, tiny_ppo, tiny_run  # noqa: E402

MESHES = {"2x2x2": (2, 2, 2), "8x1x1": (8, 1, 1), "1x4x2": (1, 4, 2)}
CFG = dataclasses.replace(
    tiny_run.CFG, vocab_size=32, n_heads=4, n_kv_heads=2, layer_loop="scan"
)
SMALL = dataclasses.replace(CFG, n_layers=1, init_std=0.2)
OPTIMIZER = OptimizerConfig(lr=1e-2, weight_decay=0.1)
LOOP = LoopConfig(log_every=1, checkpoint_every=1, progress=False, tensorboard=False)
ALL_AXES = ("2x2x2",)  # where one mesh has to do
PROMPTS = [list(range(n, 3 * n)) for n in (3, 7, 5, 4, 8, 2, 6, 1)]
LORA = LoRASettings(rank=2, alpha=4.0, dropout=0.1, base="nf4")


def mesh_of(name: str | None):
    return None if name is None else make_mesh(*MESHES[name])


def placed(tree, mesh):
    return jax.device_put(tree, None if mesh is None else param_shardings(tree, mesh))


def host(cfg):
    """Parameters as NumPy's, which are spread over devices without a compilation."""
    return jax.device_get(forward.random_params(cfg))


def params(cfg, mesh):
    return placed(host(cfg), mesh)


class Batches:
    def __getitem__(self, step):
        return tiny_run.batch(step, rows=16)


def pairs():
    rng = np.random.default_rng(0)
    made = [
        token_pair(*(rng.integers(1, 31, n) for n in rng.integers(1, 5, 3)))
        for _ in range(24)
    ]
    return batches(made, batch_size=8, length=8, pad_id=0, seed=0)


def judge():
    """A reward model whose scores differ by whole units."""
    body = host(SMALL)
    del body["lm_head"]
    head = np.linspace(-1, 1, SMALL.d_model, dtype=np.float32)
    return {"decoder": body, "head": {"kernel": head[:, None]}}


def sft(mesh, folder, steps):
    return train_decoder(
        CFG, params(CFG, mesh), Batches(), steps, optimizer=OPTIMIZER, loop=LOOP,
        accum=2, workdir=folder, mesh=mesh, consume=True,
    )  # fmt: skip


def qlora(mesh, folder, steps):
    given = adapt(CFG, params(CFG, mesh), LORA, mesh)
    return train_decoder(
        CFG, given.trained, Batches(), steps, optimizer=OPTIMIZER, loop=LOOP,
        workdir=folder, mesh=mesh, adapters=given, consume=True,
    )  # fmt: skip


def reward(mesh, folder, steps):
    start = placed(judge(), mesh)
    return fit_reward(
        SMALL, start, pairs(), steps, optimizer=OPTIMIZER, loop=LOOP, workdir=folder,
        mesh=mesh, consume=True,
    )  # fmt: skip


def dpo(mesh, folder, steps):
    return train_dpo(
        SMALL, params(SMALL, mesh), pairs(), steps, optimizer=OPTIMIZER, loop=LOOP,
        workdir=folder, mesh=mesh, consume=True,
    )  # fmt: skip


def ppo(mesh, folder, steps, rollouts):
    draw = sampler.generate

    def recorded(*args, **options):
        rollouts.append(draw(*args, **options))
        return rollouts[-1]

    sampler.generate = recorded
    try:
        cfg = dataclasses.replace(tiny_ppo.RUN, iterations=steps)
        return tiny_ppo.run(folder, cfg, mesh=mesh)
    finally:
        sampler.generate = draw


@contextlib.contextmanager
def stopped_after(step: int, steps: int):
    """Runs of `fit` save and end after this step, as after a signal, or at the end."""

    @contextlib.contextmanager
    def requests(enabled):
        yield lambda now: "the test" if now == step < steps else None

    with contextlib.ExitStack() as stack:
        stack.callback(setattr, loop_lib, "stop_requests", loop_lib.stop_requests)
        loop_lib.stop_requests = requests
        yield


def compared(run, folder: Path, meshes=tuple(MESHES)) -> dict:
    """One device against a run that moves from mesh to mesh, step by step."""
    steps = len(meshes)
    alone = run(None, folder / "alone", steps)
    for step, name in enumerate(meshes, start=1):
        with stopped_after(step, steps), contextlib.suppress(Preempted):
            moved = run(mesh_of(name), folder / "moved", steps)
    states = [jax.tree.leaves(fetch(fitted.state)) for fitted in (alone, moved)]
    return {
        "difference": max(
            float(np.abs(a - b).max()) for a, b in zip(*states, strict=True)
        ),
        "state": sums(states[0]),
        "rows": [tiny_run.exact(fitted.rows) for fitted in (alone, moved)],
    }


def sums(state) -> list[list[float]]:
    """The sum and the greatest magnitude of every array."""
    leaves = [np.float64(x) for x in jax.tree.leaves(state)]
    return [[float(x.sum()), float(np.abs(x).max())] for x in leaves]


def lists(rollout) -> dict[str, list]:
    """A rollout for JSON."""
    return {name: x.tolist() for name, x in rollout._asdict().items()}


def ppo_part(folder: Path) -> dict:
    seen = []
    found = compared(partial(ppo, rollouts=seen), folder)
    alone, moved = seen[: len(MESHES)], seen[len(MESHES) :]
    return found | {"rollouts": [[*map(lists, alone)], [*map(lists, moved)]]}


def sft_part(folder: Path) -> dict:
    """Also: a checkpoint, of the mesh 8x1x1, on every mesh and on one device.

    `restored`: whether its leaves are equal bit by bit, and lie as that mesh has them.
    """
    found = compared(sft, folder)
    first, restored = None, {}
    with Checkpoints(folder / "moved/checkpoints", keep_last=2) as store:
        for name in (*MESHES, None):
            mesh = mesh_of(name) or make_mesh(devices=jax.devices()[:1])
            start = abstract_params(decoder.param_shapes(CFG), mesh)
            like = abstract_state(start, make_optimizer(OPTIMIZER, 3, start))
            state = store.restore(2, like)
            first = first or state
            restored[str(name)] = tiny_run.same_bits(state, first) and all(
                a.sharding == b.sharding
                for a, b in zip(*map(jax.tree.leaves, (state, like)), strict=True)
            )
    matrix = first.params["layers"]["mlp"]["gate"]["kernel"]
    moment = first.opt_state[1][0].mu["layers"]["mlp"]["gate"]["kernel"]
    return found | {
        "restored": restored,
        "parameter": str(matrix.sharding.spec),
        "moment": str(moment.sharding.spec),
        "part": matrix.addressable_shards[0].data.size / matrix.size,
    }


def qlora_part(folder: Path) -> dict:
    """Also: arrays of the quantised base that do not lie as stated."""
    mesh = mesh_of(ALL_AXES[0])
    base = adapt(CFG, params(CFG, mesh), LORA, mesh).base
    stated = flatten_names(param_shardings(base, mesh))
    return compared(qlora, folder, ALL_AXES) | {
        "elsewhere": [
            name
            for name, x in flatten_names(base).items()
            if not x.sharding.is_equivalent_to(stated[name], x.ndim)
        ]
    }


def scores(mesh) -> list[float]:
    """Those of a reward model for the last tokens of PROMPTS."""
    places = [[len(prompt) - 1] for prompt in PROMPTS]
    cfg = dataclasses.replace(SMALL, mesh=mesh)
    found = reward_model.score_places(cfg, placed(judge(), mesh), PROMPTS, places)
    return np.concatenate(found).tolist()


def sent_by_insertion(mesh) -> dict[str, int]:
    """Elements of the largest collective of `slots.insert`, and of one row of keys."""
    cfg = dataclasses.replace(SMALL, mesh=mesh)
    tokens, length = np.zeros((64, 128), np.int32), jnp.int32(0)
    rules = Sampling()
    state = jax.eval_shape(
        partial(slots.empty, cfg, rules, rows=64, cache=256, response=8),
        jax.random.key(0),
    )
    prompts = jax.eval_shape(
        partial(slots.prefill, cfg), host(SMALL), (), length, tokens, tokens[:, 0]
    )
    each = tokens[:, 0]
    given = slots.Entries(np.int32(64), each, each, each.astype(np.uint32), each)
    text = slots.insert.lower(
        cfg, rules, *(on(mesh, x) for x in (state, prompts)), given, jax.random.key(0)
    )
    found = re.findall(r"= \w+\[([\d,]+)\]\S* all-", text.compile().as_text())
    sizes = [math.prod(map(int, shape.split(","))) for shape in found]
    return {"largest": max(sizes), "row": prompts.keys.size // 64}


def on(mesh, state):
    """Slots or prompts, as shapes, where they are stated to lie."""
    return jax.tree.map(plan_placed, state, slots.shardings(mesh, state))


def sampling_part(folder: Path) -> dict:
    """Greedy responses of an NF4 base with adapters, and a reward model's scores."""
    rng = np.random.default_rng(0)
    base = host(SMALL)
    shapes = adapters_lib.adapter_shapes(base, LORA.config())
    small = unflatten_names(
        {n: 0.1 * rng.standard_normal(x.shape, np.float32) for n, x in shapes.items()}
    )
    nodes = jax.device_get(quantize_params(base, "nf4"))
    rules, found = Sampling(temperature=0.0, eos_ids=(7,)), {}
    for name in (None, *ALL_AXES):
        mesh = mesh_of(name)
        cfg = dataclasses.replace(SMALL, mesh=mesh)
        tree = adapters_lib.attach(placed(nodes, mesh), placed(small, mesh), 0.5)
        got = sampler.generate(
            cfg, tree, PROMPTS, rules, None, max_new_tokens=8, slots=8
        )
        forced, _ = scoring.response_log_probs(
            cfg, tree, got.prompts, got.prompt_lengths, got.tokens, got.lengths, rules
        )
        found[str(name)] = {
            "tokens": got.tokens.tolist(),
            "log_probs": got.log_probs.tolist(),
            "forced": fetch(forced).tolist(),
            "scores": scores(mesh),
        }
    return found | {"insertion": sent_by_insertion(mesh)}


PARTS = {
    "sft": sft_part,
    "qlora": qlora_part,
    "reward": partial(compared, reward),
    "dpo": partial(compared, dpo),
    "ppo": ppo_part,
    "sampling": sampling_part,
}


def main(folder: str, *names: str) -> None:
    found = {}
    for name in names:
        start = time.process_time()
        found[name] = PARTS[name](Path(folder) / name)
        seconds = time.process_time() - start
        print(f"{name}: {seconds:.1f} s of processor time", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
