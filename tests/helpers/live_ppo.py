"""Bytes that lie on each of 8 devices while PPO prefills, decodes and updates.

As a script: `python live_ppo.py FOLDER` runs `train.ppo_run` with settings as those of
`qlora`, and prints as JSON {"planned": {function: {part: bytes}}, "found": {function:
[[bytes on each device], ...]}}, the latter of every call, before it.
"""

import dataclasses
import gc
import json
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.entry import CONFIGS, checkpoint, write_rows  # noqa: E402

from models import decoder, heads, slots
from models.adapters import LoRAConfig, init_adapters
from models.peft_files import save_adapters
from models.pretrained import read_config
from train import ppo as ppo_lib
from train import ppo_run
from train.cli import load_config
from train.mesh import make_mesh
from train.plan_pieces import Given
from train.plan_runs import on_tpu, pieces
from train.plan_terms import shard_bytes
from train.settings import build

RANK, LENGTH = 16, 32
FUNCTIONS = ("prefill", "decode step", "update")


def settings(folder: Path):
    """A run of 4 prompts with 3 responses each, of which 4 are drawn at once."""
    c = load_config(str(CONFIGS / "ppo.py:qlora"))
    c.policy = str(checkpoint(folder / "policy", d_model=64, d_ff=128, n_heads=4,
                              n_kv_heads=4, head_dim=16))  # fmt: skip
    cfg = read_config(c.policy)
    lora = LoRAConfig(RANK, 16.0)
    for key, name in enumerate(("policy_adapter", "reward_model")):
        made = init_adapters(decoder.param_shapes(cfg), lora, jax.random.key(key))
        head = heads.init_scalar_head(cfg.d_model, jax.random.key(2), std=0.3)
        head = head if name == "reward_model" else None
        save_adapters(folder / name, cfg, made, lora, "policy", head)
        c[name] = str(folder / name)
    rows = [{"prompt": f"{i} and {i} and as much again is "} for i in range(10, 14)]
    c.prompts = str(write_rows(folder / "prompts.jsonl", rows))
    c.ppo.update(iterations=2, prompts=4, samples=3, minibatch=12, accum=1, epochs=1)
    c.ppo.update(max_new_tokens=6, fit_critic=0)
    c.sampling.slots = 4
    c.lora.rank, c.remat = RANK, "none"  # which changes nothing that stays
    c.mesh.update(fsdp=2, tensor=4)
    c.loop.update(tensorboard=False, progress=False, eval_start=False)
    return build(ppo_run.RunConfig, c)


def planned(cfg) -> dict:
    """{function: {part: bytes on each device}}, nothing compiled."""
    model = dataclasses.replace(read_config(cfg.policy, cfg.dtype), remat=cfg.remat)
    model = on_tpu(model, cfg)
    mesh = make_mesh(*dataclasses.astuple(cfg.mesh))
    found = pieces(cfg, Given(model, model, prompt_length=LENGTH), mesh)
    return {
        piece.name: {
            name: shard_bytes(tree)
            for parts in (piece.held, piece.beside)
            for name, tree in parts.items()
        }
        for piece in found
        if piece.name in FUNCTIONS
    }


def on_devices(arrays) -> dict:
    """{(device, where it lies): bytes} of the shards of arrays, each buffer once."""
    return {
        (shard.device.id, shard.data.unsafe_buffer_pointer()): shard.data.nbytes
        for x in arrays
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        for shard in x.addressable_shards
    }


def watch(name: str, function, found):
    """The function, which first notes what lies on the devices."""

    def watched(*args):
        gc.collect()
        lies = on_devices(jax.live_arrays())
        sizes = [0] * jax.device_count()
        for (device, _), size in lies.items():
            sizes[device] += size
        found.setdefault(name, []).append(sizes)
        return function(*args)

    return watched


def main() -> None:
    folder = Path(sys.argv[1])
    cfg = settings(folder)
    plan, found = planned(cfg), {}
    decoder.UNROLL_AT_MOST = 0  # as on a TPU: no slices of layers beside the base
    slots.prefill = watch("prefill", slots.prefill, found)
    slots.decode = watch("decode step", slots.decode, found)
    make = ppo_lib.make_update
    ppo_lib.make_update = lambda *args: watch("update", make(*args), found)
    gc.collect()
    assert not on_devices(jax.live_arrays())
    ppo_run.run(cfg, folder / "work")
    print(json.dumps({"planned": plan, "found": found}))


if __name__ == "__main__":
    main()
