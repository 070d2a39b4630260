"""PPO's advantages and losses of rows that lie on 8 devices, and of them on one.

Run as a script on 8 simulated devices. Prints {name: [largest difference, largest
value]} as JSON, of what an iteration computes from log-probs, values and rewards.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import tiny_ppo as tiny  # noqa: E402

from train import ppo_terms  # noqa: E402
from train.mesh import batch_sharding, make_mesh  # noqa: E402


def made(tree):
    """Everything between the scores of a rollout and the gradients of its losses."""
    rows, old, ref, new, values = tree
    cfg = tiny.config(whiten_rewards=True, minibatch=16)
    batch, ratio = ppo_terms.estimate(cfg, rows, old, ref, values, jnp.float32(0.1))

    def policy(scores):
        given = ppo_terms.policy_loss(cfg, lambda p, _: (p, 0 * p), scores, batch)
        return given.sum / given.weight

    def value(scores):
        given = ppo_terms.value_loss(cfg, lambda p, _: p, scores, batch)
        return given.sum / given.weight

    measured = ppo_terms.measure(batch, ratio, 0 * old, jnp.float32(0.1))
    return {
        "advantages": batch.advantages,
        "returns": batch.returns,
        "policy": jax.value_and_grad(policy)(new),
        "value": jax.value_and_grad(value)(new),
        "measured": {k: v for k, v in measured.items() if not k.startswith("sampler")},
    }


def main():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.4, (4, 16, 5)).astype(np.float32)
    tree = tiny.random_rows(rng, rows=16), *scores
    spread = jax.device_put(tree, batch_sharding(make_mesh(data=4, fsdp=2)))
    assert len(spread[1].addressable_shards) == 8
    found, alone = (jax.device_get(jax.jit(made)(x)) for x in (spread, tree))
    print(json.dumps({
        name: [
            float(max(np.abs(a - b).max() for a, b in zip(*both, strict=True))),
            float(max(np.abs(b).max() for b in both[1])),
        ]
        for name in alone
        for both in [[jax.tree.leaves(x[name]) for x in (found, alone)]]
    }))  # fmt: skip


main()
