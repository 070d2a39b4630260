"""PPO: one rollout and one jitted update per iteration, for a language model's policy.

    python -m train.ppo --config=configs/ppo.py --config.policy=DIR \
        --config.reward_model=DIR --config.prompts=FILE --workdir=W

An iteration draws G responses to each of its prompts, has them rewarded on the host,
and then makes a single call that scores the tokens under the old policy, the reference
and the critic, estimates advantages, and goes through epochs x minibatches of clipped
updates of the policy and of the critic (Schulman et al. 2017; Ziegler et al. 2019). The
mathematics is in `train.ppo_terms`, files and flags are in `train.ppo_run`. What is
trained is all of the parameters, or adapters over the reference's (`train.ppo_roles`).

Letters: N responses (prompts x samples), P prompt tokens, R response tokens.
"""

if __name__ == "__main__":
    from train.host import tune_host

    tune_host()  # starts the process anew, so before anything slow is imported

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import sampler
from models.config import DecoderConfig
from models.errors import CheckpointError
from models.paths import as_path
from models.rollout import Rollout
from models.sampling import Sampling
from train import kl as kl_lib
from train import rewards as rewards_lib
from train.advantages import ESTIMATORS
from train.critic import with_fitted_head
from train.decoder import check_rows
from train.distributed import by_first
from train.errors import ConfigError
from train.keys import purpose_key
from train.loop import Fitted, LoopConfig, fit, restore_best
from train.mesh import batch_sharding
from train.optim import Optimizer, OptimizerConfig, make_optimizer
from train.ppo_config import PPOConfig
from train.ppo_roles import WHOLE, Roles
from train.ppo_terms import (
    Experience,
    by_chunks,
    estimate,
    experience,
    few_tokens,
    measure,
    minibatch_rows,
    over_minibatches,
    policy_loss,
    response_scores,
    scoring_rules,
    shared_scores,
    state_values,
    value_loss,
)
from train.prompts import PromptOrder, Prompts
from train.rewards import Rewards
from train.state import TrainState, init_state, state_shardings
from train.step import make_train_step, whole_placer


class PPOState(NamedTuple):
    """All that changes: in one checkpoint. `value` is None without a critic.

    policy: of what is trained of a decoder; value: of the critic, "head" among it
    kl_coef: float32 []; iteration: int32 []
    """

    policy: TrainState
    value: TrainState | None
    kl_coef: jax.Array
    iteration: jax.Array

    @property
    def step(self):
        """Iterations done: the step of the loop."""
        return self.iteration

    @property
    def params(self):
        """What is trained of the policy: its parameters, or its adapters."""
        return self.policy.params


class Models(NamedTuple):
    """Architectures and optimizers of the policy and of the critic, if there is one."""

    policy: DecoderConfig
    optimizer: Optimizer
    value: DecoderConfig | None = None
    value_optimizer: Optimizer | None = None
    roles: Roles = WHOLE


def make_update(
    models: Models,
    cfg: PPOConfig,
    sampling: Sampling,
    state: PPOState | None = None,
    constrain: Callable[[Any], Any] = lambda tree: tree,
):
    """A jitted `update(state, reference, rows, run_key) -> (state, metrics)`.

    It consumes the state, and transfers nothing to or from the host.

    The reference is frozen: its parameters, over which adapters lie where there are
    some (`models.roles`).

    Args:
      state: where given, the new one keeps its shardings.
      constrain: keeps the rows of a minibatch spread over the devices.

    Returns of `update`:
      metrics: "loss", "grad_norm", "lr" of the policy, "value/..." of the critic, and
      what the docstring of `measure` names: scalars, or pairs (sum, weight).
    """
    rules, roles = scoring_rules(sampling, cfg.quirks), models.roles

    def reference_score(params, rows, _):
        return response_scores(models.policy, rules, params, rows)

    def policy_score(trained, rows, frozen):
        return reference_score(roles.policy(trained, frozen), rows, frozen)

    def value_score(trained, rows, frozen):
        return state_values(models.value, roles.value(trained, frozen), rows)

    policy_step = make_train_step(
        functools.partial(policy_loss, cfg, policy_score),
        models.optimizer,
        accum=cfg.accum,
    )
    if models.value is not None:
        value_step = make_train_step(
            functools.partial(value_loss, cfg, value_score),
            models.value_optimizer,
            accum=cfg.accum,
        )
    chunks = cfg.responses // cfg.minibatch * cfg.accum

    def scores(state: PPOState, reference, rows: Experience):
        """Of policy (log-probs, entropies), the same of the reference, and values."""
        policy = state.policy.params
        critic = None if state.value is None else state.value.params
        if critic is not None and few_tokens(models.policy, rows, chunks):
            params = roles.stacked(policy, critic, reference)
            if params is not None:
                score = functools.partial(
                    shared_scores, models.policy, rules, params, critic["head"]
                )
                return by_chunks(score, rows, chunks)

        def scored(score, params):
            return by_chunks(lambda part: score(params, part, reference), rows, chunks)

        own, ref = scored(policy_score, policy), scored(reference_score, reference)
        values = jnp.zeros_like(own[0])
        return own, ref, values if critic is None else scored(value_score, critic)

    def update(state: PPOState, reference, rows: Experience, run_key):
        (old, entropy), (ref, _), values = scores(state, reference, rows)
        batch, ratio = estimate(cfg, rows, old, ref, values, state.kl_coef)

        def minibatch(carry, chosen):
            policy, value = carry
            part = constrain(jax.tree.map(lambda x: x[chosen], batch))
            policy, metrics = policy_step(policy, part, reference)
            if value is not None:
                value, of_value = value_step(value, part, reference)
                metrics |= {f"value/{name}": x for name, x in of_value.items()}
            return (policy, value), metrics

        order = minibatch_rows(cfg, purpose_key(run_key, "shuffle", state.iteration))
        carry = state.policy, state.value
        (policy, value), metrics = jax.lax.scan(minibatch, carry, order)
        measured = measure(batch, ratio, entropy, state.kl_coef)
        kl_coef = kl_lib.next_coefficient(
            cfg.kl, state.kl_coef, _mean(measured["kl/response"]), cfg.responses
        )
        new = PPOState(policy, value, kl_coef, state.iteration + 1)
        return new, {**over_minibatches(metrics), **measured}

    shardings = None if state is None else (state_shardings(state), None)
    return jax.jit(update, donate_argnums=0, out_shardings=shardings)


def _mean(pair):
    return pair[0] / pair[1]


def make_iteration(
    model: DecoderConfig,
    cfg: PPOConfig,
    sampling: Sampling,
    prompts: Sequence[Sequence[int]],
    reward_fn: Callable[[Rollout, Sequence[int]], Rewards],
    update: Callable,
    reference,
    run_key,
    *,
    roles: Roles = WHOLE,
    place: Callable[[Any], Any] = jax.device_put,
    **options,
):
    """`step(state, Prompts) -> (state, metrics)`: rollout, rewards, update.

    Args:
      prompts: all prompts; reward_fn is given the numbers of those of the rows.
      update: as from `make_update`; it runs under a guard against transfers.
      roles: those of the update.
      options: of the sampler (`slots`, `shrink`, ...).
    """
    width = sampler.bucket(max(map(len, prompts)))
    greedy = dataclasses.replace(sampling, temperature=0.0)

    def draw(trained, wanted: Prompts, rules, samples):
        return sampler.generate(
            model,
            roles.policy(trained, reference),
            [prompts[i] for i in wanted.ids],
            rules,
            purpose_key(run_key, "rollout", wanted.iteration),
            max_new_tokens=cfg.max_new_tokens,
            samples=samples,
            **options,
        )

    def step(state: PPOState, wanted: Prompts):
        rollout = draw(state.params, wanted, sampling, cfg.samples)
        rewards = reward_fn(rollout, np.repeat(wanted.ids, cfg.samples))
        baseline = np.zeros(cfg.responses)
        if ESTIMATORS[cfg.estimator].greedy:
            best = reward_fn(draw(state.params, wanted, greedy, 1), wanted.ids)
            baseline = np.repeat(rewards_lib.totals(best), cfg.samples)
        rows = place(experience(rollout, rewards, baseline, width))
        with jax.transfer_guard("disallow"):
            state, metrics = update(state, reference, rows, run_key)
        return state, {**metrics, **rewards.metrics}

    return step


def ppo(
    model: DecoderConfig,
    params,
    prompts: Sequence[Sequence[int]],
    reward_fn: Callable[[Rollout, Sequence[int]], Rewards],
    cfg: PPOConfig,
    sampling: Sampling,
    *,
    value: tuple[DecoderConfig, Any] | None = None,
    reference=None,
    roles: Roles = WHOLE,
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (immutable)
    value_optimizer: OptimizerConfig | None = None,
    loop: LoopConfig = LoopConfig(),  # noqa: B008 (immutable)
    workdir: Path | str | None = None,
    identity: Mapping = {},  # noqa: B006 (never mutated)
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    consume: bool = False,
    **options,
) -> Fitted:
    """Trains a policy on the rewards of its own responses; see `train.loop.fit`.

    Args:
      params: of the policy, where `mesh` wants them; kept, as the reference by default.
      prompts: token ids; reward_fn: `(rollout, prompt ids [N]) -> Rewards`.
      value: architecture and parameters {"decoder", "head"} of the critic, as those of
        a reward model; only for estimators that use one.
      roles: where params, and those of `value`, are adapters: how they lie over
        `reference`, which is then their base.
      value_optimizer: None: as `optimizer`.
      evaluate: `the policy's parameters -> {"eval/...": ...}`; with `loop.keep_best`
        the checkpoint whose `loop.best` is best is kept, see `best_state`;
        `loop.eval_start` has the policy as it was among them.
      consume: gives params and those of `value` away, which are copied otherwise: for
        those that no other role is made of, neither `reference` nor a reward model.
      options: of the sampler (`slots`, `shrink`, ...).

    Returns:
      `Fitted`, its state a `PPOState`; a step of the loop is an iteration.

    Raises:
      ConfigError: settings that do not fit together; PromptError: a prompt too long.
    """
    check_rows("minibatch", cfg.minibatch, cfg.accum, mesh)
    model = dataclasses.replace(model, mesh=mesh)
    if value is not None:
        value = dataclasses.replace(value[0], mesh=mesh), value[1]
    sampler.check_prompts(model, prompts, (), [cfg.max_new_tokens] * len(prompts))
    reference = params if reference is None else reference
    if cfg.fit_critic and value is not None and not _begun(workdir):
        value = with_fitted_head(
            model, params, prompts, reward_fn, cfg, sampling, value,
            whole_placer(mesh), reference=reference, roles=roles, **options,
        )  # fmt: skip
    models, state = start(
        model, params, cfg, value, optimizer, value_optimizer or optimizer, roles,
        consume=consume,
    )  # fmt: skip
    run_key = jax.jit(
        lambda: jax.random.key(cfg.seed), out_shardings=state.kl_coef.sharding
    )()
    update = make_update(models, cfg, sampling, state, spread(mesh))
    step = make_iteration(
        model,
        cfg,
        sampling,
        prompts,
        reward_fn,
        update,
        reference,
        run_key,
        roles=roles,
        place=whole_placer(mesh),
        **options,
    )
    settings = {
        "ppo": dataclasses.asdict(cfg),
        "sampling": dataclasses.asdict(sampling),
        "optimizer": dataclasses.asdict(optimizer),
        "value_optimizer": dataclasses.asdict(value_optimizer or optimizer),
    }
    return fit(
        state,
        step,
        PromptOrder(prompts, cfg.prompts, cfg.seed),
        cfg.iterations,
        loop,
        workdir=workdir,
        identity={**settings, **identity},
        evaluate=evaluate
        and (lambda trained: evaluate(roles.policy(trained, reference))),
        place=lambda wanted: wanted,
        guard=False,
    )


def _begun(workdir: Path | str | None) -> bool:
    """Whether there is a checkpoint to go on from: the critic is in it."""
    folder = None if workdir is None else as_path(workdir) / "checkpoints"
    # A shared disk may show the folder to one process earlier than to another.
    if folder is None or not by_first(lambda: folder.is_dir()):
        return False
    from train.checkpoint import Checkpoints

    with Checkpoints(folder) as store:
        return store.latest() is not None


def start(
    model: DecoderConfig,
    params,
    cfg: PPOConfig,
    value: tuple[DecoderConfig, Any] | None,
    optimizer: OptimizerConfig,
    value_optimizer: OptimizerConfig,
    roles: Roles = WHOLE,
    *,
    consume: bool = False,
) -> tuple[Models, PPOState]:
    """Optimizers, and the state before the first iteration.

    It has copies of the parameters, or with `consume` the parameters themselves.
    """
    critic = ESTIMATORS[cfg.estimator].critic
    if critic and value is None:
        raise ConfigError(
            f"estimator: {cfg.estimator!r} needs a critic; expected a value model"
        )
    steps = cfg.iterations * cfg.updates
    models = Models(model, make_optimizer(optimizer, steps, params), roles=roles)
    policy = init_state(params, models.optimizer, copy=not consume)
    critic_state = None
    if critic:
        architecture, value_params = value
        chosen = make_optimizer(value_optimizer, steps, value_params)
        models = models._replace(value=architecture, value_optimizer=chosen)
        critic_state = init_state(value_params, chosen, copy=not consume)
    everywhere = policy.step.sharding
    return models, PPOState(
        policy,
        critic_state,
        jax.device_put(jnp.float32(cfg.kl.coef), everywhere),
        jax.device_put(jnp.int32(0), everywhere),
    )


def best_state(
    workdir: Path | str, state: PPOState, loop: LoopConfig
) -> tuple[PPOState, int]:
    """(state, iteration) of the kept checkpoint whose metric `loop.best` is best.

    state: of the end of the run, consumed. Raises CheckpointError where none has the
    metric.
    """
    from train.checkpoint import Checkpoints

    folder = as_path(workdir) / "checkpoints"
    highest = loop.best_is == "highest"
    with Checkpoints(
        folder, keep_last=sys.maxsize, best=loop.best, highest=highest
    ) as store:
        step = store.best_step()
        if step is None:
            raise CheckpointError(f"{folder}: no checkpoint has {loop.best!r}")
        return restore_best(store, state), step


def spread(mesh):
    """Rows of minibatches over the devices of a mesh, as those of a placed batch."""
    if mesh is None:
        return lambda tree: tree
    sharding = batch_sharding(mesh)
    return lambda tree: jax.lax.with_sharding_constraint(
        tree, jax.tree.map(lambda _: sharding, tree)
    )


if __name__ == "__main__":
    from train.cli import run_main
    from train.ppo_run import define_flags, main

    run_main(main, define_flags)
