"""Tiny policies for PPO, their rewards, and a run that can be killed or spread.

As a script (`script`): `python tiny_ppo.py WORKDIR ITERATIONS [--kill=ITERATION]
[--mesh] [--lora]`; it kills itself between the rollout and the update of an iteration,
or runs on 8 devices and writes the state to WORKDIR/state.npz.
"""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from models import decoder, heads
from models.config import DecoderConfig
from models.sampling import Sampling
from models.sharding import param_shardings
from train import ppo_terms
from train.kl import KLConfig
from train.loop import LoopConfig
from train.lora import LoRASettings
from train.mesh import make_mesh
from train.optim import OptimizerConfig
from train.ppo import ppo
from train.ppo_config import PPOConfig
from train.ppo_roles import WHOLE, Start, adapted_start
from train.rewards import Reward, Term, combine

ROOT = Path(__file__).parents[2]
EOS = 7
CFG = DecoderConfig(
    vocab_size=8, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=24, head_dim=8,
    init_std=0.3,
)  # fmt: skip
SAMPLING = Sampling(eos_ids=(EOS,))
PROMPTS = [[1, 2, 3], [4], [5, 6], [2, 2, 1, 4]]
LOOP = LoopConfig(log_every=1, tensorboard=False, progress=False)
ADAM = OptimizerConfig(lr=1e-2, schedule="constant")


@functools.cache
def policy(seed=0):
    return decoder.init_params(CFG, jax.random.key(seed))


@functools.cache
def value(seed=1):
    params = {
        "decoder": decoder.init_params(CFG, jax.random.key(seed)),
        "head": heads.init_scalar_head(CFG.d_model, jax.random.key(seed + 1), std=0.3),
    }
    return CFG, params


@functools.cache
def whole() -> Start:
    """Full fine-tuning of all that there is."""
    return Start(policy(), value(), policy(), WHOLE, None, None)


@functools.cache
def adapted(base=None) -> Start:
    """Adapters of policy and critic over one base; a head that tells states apart."""
    begin = adapted_start(CFG, policy(), LoRASettings(2, 4.0, base=base), None)
    architecture, critic = begin.value
    head = heads.init_scalar_head(CFG.d_model, jax.random.key(2), std=0.3)
    return begin._replace(value=(architecture, {**critic, "head": head}))


STARTS = {"full": whole, "lora": adapted}


def config(**settings) -> PPOConfig:
    small = {"iterations": 2, "prompts": 4, "samples": 4, "max_new_tokens": 5}
    return PPOConfig(**{**small, "minibatch": 8, **settings})


def token_reward(table) -> Reward:
    """table[token] for every token of a response."""
    table = np.asarray(table, np.float32)
    return Reward("table", "tokens", lambda rollout, ids: table[rollout.tokens])


def rewards(*terms):
    return combine([t if isinstance(t, Term) else Term(t) for t in terms])


def random_rows(rng, rows=6, width=5) -> ppo_terms.Experience:
    """Responses of one to `width` tokens, the rest dirt; rewards on every token."""
    lengths = rng.integers(1, width + 1, rows).astype(np.int32)
    real = np.arange(width) < lengths[:, None]
    return ppo_terms.Experience(
        prompts=rng.integers(0, 7, (rows, 3)).astype(np.int32),
        prompt_lengths=rng.integers(1, 4, rows).astype(np.int32),
        tokens=rng.integers(0, 7, (rows, width)).astype(np.int32),
        lengths=lengths,
        ended=np.zeros(rows, bool),
        sampled=np.zeros((rows, width), np.float32),
        rewards=(rng.normal(size=(rows, width)) * real).astype(np.float32),
        baseline=np.zeros(rows, np.float32),
    )


def plain_estimate(rows, **settings):
    """Advantages without KL and whitening, from values of zero."""
    zeros = jnp.zeros(rows.tokens.shape)
    cfg = PPOConfig(
        prompts=len(rows.lengths), minibatch=len(rows.lengths),
        **{"whiten_advantages": False, **settings},
    )  # fmt: skip
    ratio = ppo_terms.estimate(cfg, rows, zeros, zeros, zeros, jnp.float32(0))
    return ratio[0]


RUN = config(
    iterations=4,
    prompts=2,
    kl=KLConfig(coef=0.1, control="adaptive", target=0.5, horizon=40),
)
TABLE = (0.1, -0.2, 0.3, 0.0, 0.5, -0.4, 0.2, 1.0)


def run(
    workdir, cfg=RUN, *, begin=None, before_update=None, evaluate=None, mesh=None,
    **loop,
):  # fmt: skip
    """A run with a checkpoint after every iteration; by default of full fine-tuning."""
    begin = begin or whole()
    reward_fn = rewards(token_reward(TABLE))
    state = {"iteration": _done(workdir)}

    def rewarded(rollout, ids):
        if before_update is not None:
            before_update(state["iteration"])
        state["iteration"] += 1
        return reward_fn(rollout, ids)

    def placed(params):
        if mesh is None:
            return params
        return jax.device_put(params, param_shardings(params, mesh))

    architecture, critic = begin.value
    return ppo(
        CFG,
        placed(begin.params),
        PROMPTS,
        rewarded,
        cfg,
        SAMPLING,
        value=(architecture, placed(critic)),
        reference=placed(begin.reference),
        roles=begin.roles,
        optimizer=ADAM,
        loop=LoopConfig(
            log_every=1, tensorboard=False, progress=False, checkpoint_every=1, **loop
        ),
        workdir=workdir,
        evaluate=evaluate,
        mesh=mesh,
        slots=8,
    )


def _done(workdir) -> int:
    saved = [p.name for p in (Path(workdir) / "checkpoints").glob("*")]
    return max((int(name) for name in saved if name.isdigit()), default=0)


def script(workdir, *options, devices=1):
    """This file run in a process of its own, with so many devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.run(
        [sys.executable, __file__, workdir, "4", *options],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def main(workdir, iterations, *options):
    kill = next((int(o.split("=")[1]) for o in options if o.startswith("--kill")), None)

    def before_update(iteration):
        print(f"iteration {iteration}", flush=True)
        if iteration == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    mesh = make_mesh(data=4, fsdp=2) if "--mesh" in options else None
    begin = adapted("nf4") if "--lora" in options else whole()
    fitted = run(workdir, begin=begin, before_update=before_update, mesh=mesh)
    leaves = jax.tree.leaves(fitted.state)
    np.savez(Path(workdir) / "state.npz", *map(np.asarray, leaves))
    print(leaves[0].sharding)


if __name__ == "__main__":
    main(*sys.argv[1:])
