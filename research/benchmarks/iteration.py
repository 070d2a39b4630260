"""One PPO iteration of this project, as the benchmarks ask for it, timed in parts.

Policy, reference, reward model and critic are four models of one shape. No token ends a
response, so that every iteration makes the same number of tokens.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import numpy as np

from models import decoder, heads, reward_model
from models.config import DecoderConfig
from models.sampling import Sampling
from train.kl import KLConfig
from train.optim import OptimizerConfig
from train.ppo import make_iteration, make_update, start
from train.ppo_config import PPOConfig
from train.prompts import Prompts
from train.rewards import Term, combine, model_score


@dataclasses.dataclass(frozen=True)
class Work:
    """What an iteration does: prompts of `prompt` tokens, `new` tokens for each.

    Each epoch has prompts / minibatch updates of the policy and as many of the critic.
    The rest are settings that every side gets.
    """

    prompts: int = 64
    prompt: int = 32
    new: int = 64
    minibatch: int = 64
    epochs: int = 1
    lr: float = 1e-5
    kl: float = 0.05
    lam: float = 0.95
    clip: float = 0.2
    value_coef: float = 0.1

    @property
    def tokens(self) -> int:
        return self.prompts * self.new

    @property
    def updates(self) -> int:
        return self.epochs * (self.prompts // self.minibatch)


def make_prompts(work: Work, vocab: int) -> list[list[int]]:
    """Token ids, the same for every side and every iteration."""
    rng = np.random.default_rng(0)
    return rng.integers(0, vocab, (work.prompts, work.prompt)).tolist()


def make_run(cfg: DecoderConfig, work: Work, accum: int = 1) -> Callable[[], dict]:
    """`run()` does the next iteration, and says how long that took and what it did.

    Its answer: seconds; cpu, those of all threads; tokens drawn; updates of the policy;
    parts: seconds until the responses were there ("rollout"), until they were rewarded
    ("scoring"), and of the rest ("update": scores under old policy, reference and
    critic are in it).

    Args:
      accum: micro-batches of an update.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    policy, reference, judge, critic = (decoder.init_params(cfg, key) for key in keys)

    def scored(params, key):
        head = heads.init_scalar_head(cfg.d_model, key, std=0.02, dtype=cfg.param_dtype)
        return {**reward_model.init(cfg, params), reward_model.HEAD: head}

    judge, critic = scored(judge, keys[0]), scored(critic, keys[1])
    prompts = make_prompts(work, cfg.vocab_size)
    settings = PPOConfig(
        prompts=work.prompts,
        max_new_tokens=work.new,
        minibatch=work.minibatch,
        accum=accum,
        epochs=work.epochs,
        lam=work.lam,
        clip=work.clip,
        value_clip=work.clip,
        value_coef=work.value_coef,
        kl=KLConfig(coef=work.kl),
    )
    optimizer = OptimizerConfig(lr=work.lr, schedule="constant")
    models, state = start(cfg, policy, settings, (cfg, critic), optimizer, optimizer)
    sampling = Sampling()
    score = functools.partial(reward_model.score_places, cfg, judge)
    reward_fn = combine([Term(model_score(score))])
    seen = {}

    def timed_reward(rollout, ids):
        seen["rollout"] = time.perf_counter()
        seen["tokens"] = int(rollout.lengths.sum())
        rewards = reward_fn(rollout, ids)
        seen["scoring"] = time.perf_counter()
        return rewards

    step = make_iteration(
        cfg,
        settings,
        sampling,
        prompts,
        timed_reward,
        make_update(models, settings, sampling, state),
        reference,
        jax.device_put(jax.random.key(1), state.kl_coef.sharding),
        slots=work.prompts,
    )
    done = 0

    def run() -> dict:
        nonlocal state, done
        before = int(state.policy.step)
        began, cpu = time.perf_counter(), time.process_time()
        state, metrics = step(state, Prompts(done, np.arange(work.prompts)))
        jax.block_until_ready((state, metrics))
        ended = time.perf_counter()
        done += 1
        return {
            "seconds": ended - began,
            "cpu": time.process_time() - cpu,
            "tokens": seen["tokens"],
            "updates": int(state.policy.step) - before,
            "parts": {
                "rollout": seen["rollout"] - began,
                "scoring": seen["scoring"] - seen["rollout"],
                "update": ended - seen["scoring"],
            },
        }

    return run
