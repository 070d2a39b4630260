"""PPO's roles: what is trained, what is frozen, and how they make parameters.

In full fine-tuning each role has parameters of its own. With adapters (Hu et al. 2021)
one frozen base serves all four: the policy and the critic are adapters over it that are
trained, the reward model is adapters that stay, the reference is the base itself, or
the base under the adapters that the policy started from. Roles are switched by what is
put together (`models.adapters.attach`), which computes and copies nothing: there is one
base in memory, however many functions take it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import adapters as adapters_lib
from models import decoder, heads
from models.adapters import LoRAConfig, adapters_of, attach, detach, stack_roles
from models.config import DecoderConfig
from models.peft_files import Loaded
from models.reward_model import OUTPUT, RewardModel, over
from models.sharding import param_shardings
from train.keys import purpose_key
from train.lora import Adapters, LoRASettings, adapt


class Roles(NamedTuple):
    """(what is trained, the reference's parameters) -> parameters, for each role.

    They are put together inside of each function, so that the base is an argument of
    it, as the reference is. stacked: (policy's, critic's, reference) -> a decoder for
    `train.ppo_terms.shared_scores`; None where they are not adapters of the same
    kernels.
    """

    policy: Callable[[Any, Any], Any]
    value: Callable[[Any, Any], Any]
    stacked: Callable[[Any, Any, Any], Any]


def whole(trained, reference):
    """Full fine-tuning: the parameters are what is trained."""
    return trained


def apart(own, critic, reference) -> None:
    """Models of their own have no pass to share."""


WHOLE = Roles(whole, whole, apart)


def adapted(policy: LoRAConfig, value: LoRAConfig) -> Roles:
    """Adapters over the reference's base; the critic's are {"adapters", "head"}."""

    def policy_params(trained, reference):
        return attach(detach(reference), trained, policy.scale)

    def value_params(trained, reference):
        adapters, head = trained["adapters"], trained["head"]
        return over(detach(reference), adapters, value.scale, head)

    def stacked(own, critic, reference):
        if jax.tree.structure(own) != jax.tree.structure(critic["adapters"]):
            return None
        stay = adapters_of(reference) or jax.tree.map(jnp.zeros_like, own)
        roles = stack_roles([own, stay, critic["adapters"]])
        scales = policy.scale, policy.scale, value.scale
        return attach(detach(reference), roles, scales)

    return Roles(policy_params, value_params, stacked)


def without_output(adapters):
    """The adapters that a critic has: no value depends on the output matrix."""
    return {name: part for name, part in adapters.items() if name != OUTPUT}


class Start(NamedTuple):
    """What a run of PPO begins with: arguments of `train.ppo.ppo`, and beside them

    judge: the reward model, None without one
    adapters: those of the policy, None in full fine-tuning. With adapters, what is
      trained is part of nothing else: the run may have `params` and `value` themselves
    """

    params: Any
    value: tuple[DecoderConfig, Any] | None
    reference: Any
    roles: Roles
    judge: RewardModel | None
    adapters: Adapters | None


def whole_start(params, judge: RewardModel | None, remat: str) -> Start:
    """Full fine-tuning: the critic starts as the reward model."""
    value = None
    if judge is not None:
        value = dataclasses.replace(judge.cfg, remat=remat), judge.params
    return Start(params, value, params, WHOLE, judge, None)


def adapted_start(
    model: DecoderConfig,
    params,
    settings: LoRASettings,
    judge: RewardModel | Loaded | None,
    own: Loaded | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Start:
    """Adapters for policy and critic over one base.

    Args:
      params: the base, quantised or not (see `adapt`).
      judge: adapters and head of a reward model over the same base, as which the critic
        then starts; else the critic's adapters change nothing yet, its head is zero.
      own: the adapters that the policy starts from, and the reference stays at.
    """
    model = dataclasses.replace(model, mesh=mesh)
    given = adapt(model, params, settings, mesh)
    base = reference = given.base
    if own is not None:
        given = given._replace(trained=_placed(own.adapters, mesh), config=own.lora)
        fixed = frozen(model, given.trained)
        reference = attach(base, fixed, own.lora.scale)
    lora = settings.config()
    if isinstance(judge, Loaded):
        lora = judge.lora
        value = {"adapters": judge.adapters, "head": judge.head}
    else:
        key = purpose_key(jax.random.key(settings.seed), "critic adapters")
        fresh = adapters_lib.init_adapters(decoder.param_shapes(model), lora, key)
        head = heads.init_scalar_head(model.d_model, dtype=jnp.float32)
        value = {"adapters": without_output(fresh), "head": head}
    value = _placed(value, mesh)
    if isinstance(judge, Loaded):
        fixed = frozen(model, value["adapters"])
        scored = over(base, fixed, lora.scale, jax.tree.map(jnp.copy, value["head"]))
        judge = RewardModel(model, scored, {})
    roles = adapted(given.config, lora)
    return Start(given.trained, (model, value), reference, roles, judge, given)


def frozen(model: DecoderConfig, adapters):
    """A copy of adapters that stays, in the dtype that they are computed in.

    No result changes by it; what is trained is float32.
    """
    return jax.tree.map(lambda x: jnp.array(x, model.compute_dtype), adapters)


def _placed(tree, mesh):
    """Arrays of the host, or of a device, where the mesh wants them."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def placed(x, sharding):
        if isinstance(x, np.ndarray):  # which every process has: each takes its parts
            return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])
        return jax.device_put(x, sharding)

    return jax.tree.map(placed, tree, param_shardings(tree, mesh))
