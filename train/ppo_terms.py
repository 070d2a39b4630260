"""PPO's mathematics: scores of responses, advantages of a rollout, the two losses.

Pure functions of arrays. Letters: N responses of a rollout, M of a minibatch, P prompt
tokens, R response tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import decoder, heads, scoring
from models import sampling as sampling_lib
from models.config import DecoderConfig
from models.rollout import Rollout
from models.sampling import Sampling
from train import kl as kl_lib
from train.advantages import ESTIMATORS, Signals, scale_rewards, whiten
from train.errors import ConfigError
from train.losses import Loss
from train.ppo_config import PPOConfig, Quirks
from train.rewards import Rewards, ended

# Tokens of a role in a pass, up to which all roles share one; see `few_tokens`.
FEW_TOKENS = 64


class Experience(NamedTuple):
    """A rollout and its rewards, rows in the order of the rollout.

    prompts: int32 [N, P]; prompt_lengths: int32 [N]
    tokens: int32 [N, R]; lengths: int32 [N]; ended: bool [N], whether by EOS
    sampled: float32 [N, R], the sampler's own log-probs
    rewards: float32 [N, R]; baseline: float32 [N], of greedy responses (ReMax)
    """

    prompts: jax.Array
    prompt_lengths: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    ended: jax.Array
    sampled: jax.Array
    rewards: jax.Array
    baseline: jax.Array


class Batch(NamedTuple):
    """What the losses need of some rows; arrays float32 [M, R]."""

    rows: Experience
    mask: jax.Array
    old: jax.Array
    values: jax.Array
    advantages: jax.Array
    returns: jax.Array


def experience(rollout: Rollout, rewards: Rewards, baseline, width: int) -> Experience:
    """A rollout and its rewards as arrays of fixed shape, prompts [N, width]."""
    grow = width - rollout.prompts.shape[1]
    return Experience(
        prompts=np.pad(rollout.prompts, ((0, 0), (0, grow))),
        prompt_lengths=rollout.prompt_lengths,
        tokens=rollout.tokens,
        lengths=rollout.lengths,
        ended=ended(rollout),
        sampled=rollout.sampling_log_probs,
        rewards=np.asarray(rewards.tokens, np.float32),
        baseline=np.asarray(baseline, np.float32),
    )


def scoring_rules(sampling: Sampling, quirks: Quirks) -> Sampling:
    """The distribution whose log-probs count, for policy and reference alike."""
    if sampling.temperature == 0:
        raise ConfigError("sampling.temperature: expected > 0: PPO has to explore")
    if quirks.full_softmax:
        return dataclasses.replace(sampling, top_k=0, top_p=1.0, min_p=0.0)
    return sampling


def response_scores(model: DecoderConfig, rules: Sampling, params, rows: Experience):
    """(log-probs, entropies), float32 [N, R], of responses under a policy.

    The one function for the old policy, the new one and the reference.
    """

    score = functools.partial(_log_prob_and_entropy, rules)
    return scoring.response_map(model, params, *rows[:4], score)


def _log_prob_and_entropy(rules: Sampling, logits, history, length, token):
    logits = sampling_lib.adjust(logits, rules, history, length)
    log_p = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return sampling_lib.log_probs(logits, token), entropy


def shared_scores(
    model: DecoderConfig, rules: Sampling, params, head, rows: Experience
):
    """Log-probs and entropies of policy and reference, and values, by one pass.

    Equal, to rounding, to `response_scores`, twice, and `state_values`: three times the
    rows go through the base at once, whose kernels are read and widened once.

    Args:
      params: of a decoder; its adapters are those of policy, reference and critic,
        stacked (`models.adapters.stack_roles`). head: the critic's.

    Returns:
      (log-probs, entropies) of the policy, the same of the reference, values; float32
      [N, R] each.
    """
    N = rows.tokens.shape[0]
    thrice = jax.tree.map(lambda x: jnp.concatenate([x] * 3), rows[:4])
    states = scoring.response_states(model, params, *thrice)
    score = functools.partial(_log_prob_and_entropy, rules)
    tokens, lengths = (x[: 2 * N] for x in thrice[2:])
    found = scoring.map_logits(model, params, states[: 2 * N], tokens, lengths, score)
    own, reference = (jax.tree.map(lambda x, s=s: x[s], found)
                      for s in (slice(N), slice(N, None)))  # fmt: skip
    return own, reference, _within(heads.scalar(head, states[2 * N :]), rows)


def few_tokens(model: DecoderConfig, rows: Experience, chunks: int) -> bool:
    """Whether the roles score these rows faster by one pass than by one for each.

    A base is read and widened once for all tokens of a pass: beside their products that
    counts for little, unless they are few. (In 4 bits, two CPU cores: 16 tokens a chunk
    2.2 times as fast, 64 tokens 1.4, 256 not at all.) Long responses have many in every
    chunk, and three roles in a pass would only need three times the memory. On a mesh a
    pass of three would have to move the rows of each, which are spread over it.
    """
    count = rows.tokens.shape[0] // chunk_count(rows, chunks)
    width = rows.prompts.shape[1] + rows.tokens.shape[1]
    return model.mesh is None and count * width <= FEW_TOKENS


def _within(values, rows: Experience):
    """[N, R], zero past the end of each response."""
    place = jnp.arange(rows.tokens.shape[1])[None]
    return jnp.where(place < rows.lengths[:, None], values, 0.0)


def state_values(model: DecoderConfig, params, rows: Experience):
    """The critic's value of the state before each response token, float32 [N, R]."""
    hidden, before = critic_states(model, params, rows)
    values = jnp.take_along_axis(heads.scalar(params["head"], hidden), before, axis=1)
    return _within(values, rows)


def critic_states(model: DecoderConfig, params, rows: Experience):
    """The critic's hidden states [N, P + R, D], and where that before a response token
    is, int32 [N, R]."""
    tokens = scoring.join(rows.prompts, rows.prompt_lengths, rows.tokens)
    lengths = rows.prompt_lengths + rows.lengths
    inputs = decoder.plain_inputs(lengths, tokens.shape[1])
    hidden = decoder.forward(model, params["decoder"], tokens, *inputs)
    place = jnp.arange(rows.tokens.shape[1])[None]
    return hidden, rows.prompt_lengths[:, None] - 1 + place


def response_mask(rows: Experience, quirks: Quirks):
    """float32 [N, R], 1 on the tokens of a response, EOS included; from lengths."""
    lengths = rows.lengths - rows.ended if quirks.eos_outside else rows.lengths
    place = jnp.arange(rows.tokens.shape[1])[None]
    return (place < lengths[:, None]).astype(jnp.float32)


def by_chunks(fn, tree, chunks: int):
    """fn of a tree of arrays [N, ...], on N / chunks rows at a time, in a loop.

    Always in a loop, of two chunks where one would do: two loops over the same body
    compile to the same code. Without, a policy and its copy, scored in one program, are
    fused differently and differ in the last bit, so that their KL is not 0.
    """
    done = jax.lax.map(fn, dealt(tree, chunk_count(tree, chunks)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), done)


def chunk_count(tree, chunks: int) -> int:
    """Chunks that `by_chunks` makes of arrays [N, ...]."""
    rows = jax.tree.leaves(tree)[0].shape[0]
    if chunks > 1:
        return chunks
    return 2 if rows % 2 == 0 else rows


def dealt(tree, chunks: int):
    """Arrays [N, ...] as [chunks, N / chunks, ...], the rows dealt in turn.

    So every chunk holds rows of every device's share.
    """
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, chunks, *x.shape[1:]), 1, 0), tree
    )


def policy_loss(cfg: PPOConfig, score: Callable, params, batch: Batch, *frozen) -> Loss:
    """The clipped surrogate (Schulman et al. 2017, eq. 7) less the entropy bonus.

    score: `(params, rows, *frozen) -> (log-probs, entropies)`, see `response_scores`.
    """
    log_probs, entropy = score(params, batch.rows, *frozen)
    distance = kl_lib.log_ratio(log_probs, batch.old) * batch.mask
    ratio = jnp.exp(distance)
    clipped = jnp.clip(ratio, 1 - cfg.clip, 1 + cfg.clip)
    A, mask, count = batch.advantages, batch.mask, jnp.sum(batch.mask)
    losses = jnp.maximum(-A * ratio, -A * clipped)
    if cfg.entropy_coef:
        losses = losses - cfg.entropy_coef * entropy
    extras = {
        "clip_fraction": (jnp.sum((-A * clipped > -A * ratio) * mask), count),
        "ratio": (jnp.sum(ratio * mask), count),
        "ratio_error": (jnp.sum(jnp.abs(ratio - 1) * mask), count),
        "approx_kl": (jnp.sum((ratio - 1 - distance) * mask), count),
    }
    largest = {"largest_ratio_error": jnp.max(jnp.abs(ratio - 1) * mask)}
    return Loss(jnp.sum(losses * mask), _weight(cfg, mask), extras, largest)


def value_loss(cfg: PPOConfig, score: Callable, params, batch: Batch, *frozen) -> Loss:
    """value_coef / 2 * the larger of the squared errors, clipped or not, per token.

    score: `(params, rows, *frozen) -> values`, see `state_values`.
    """
    values = score(params, batch.rows, *frozen)
    near = jnp.clip(values - batch.values, -cfg.value_clip, cfg.value_clip)
    errors = (values - batch.returns) ** 2, (batch.values + near - batch.returns) ** 2
    loss = 0.5 * cfg.value_coef * jnp.sum(jnp.maximum(*errors) * batch.mask)
    weight = batch.mask.size if cfg.quirks.pad_means else jnp.sum(batch.mask)
    return Loss(loss, jnp.float32(weight))


def _weight(cfg: PPOConfig, mask):
    if cfg.quirks.pad_means:
        return jnp.float32(mask.size)
    if cfg.divide == "responses":
        return jnp.float32(mask.shape[0])
    return jnp.sum(mask)


def estimate(cfg: PPOConfig, rows: Experience, old, ref, values, kl_coef):
    """(Batch of all rows, log-ratio to the reference): rewards less KL, advantages."""
    mask = response_mask(rows, cfg.quirks)
    ratio = kl_lib.log_ratio(old, ref) * mask
    kl = kl_lib.ESTIMATORS[cfg.kl.estimator](ratio)
    if cfg.quirks.kl_clamp:
        kl = jnp.maximum(kl, 0.0)
    rewards = rows.rewards
    if cfg.quirks.eos_outside:
        rewards = _before_eos(rows)
    rewards = (rewards - kl_coef * kl) * mask
    counted = jnp.ones_like(mask) if cfg.quirks.pad_whitening else mask
    baseline = rows.baseline
    if cfg.whiten_rewards:
        shift = cfg.quirks.shift_rewards
        rewards, scale = scale_rewards(rewards, counted, shift=shift)
        baseline = baseline * scale  # a reward, too
    signals = Signals(rewards, values * mask, counted, baseline)
    estimator = ESTIMATORS[cfg.estimator].fn
    advantages, returns = estimator(signals, cfg.gamma, cfg.lam, cfg.samples)
    if cfg.whiten_advantages:
        advantages = whiten(advantages, counted)
    kept = (x * mask for x in (old, values, advantages, returns))
    return Batch(rows, mask, *kept), ratio


def _before_eos(rows: Experience):
    """The rewards with those of each EOS on the token before it."""
    shifted = jnp.roll(rows.rewards, -1, axis=1)
    place, lengths = jnp.arange(rows.tokens.shape[1])[None], rows.lengths[:, None]
    moves = rows.ended[:, None] & (place == lengths - 2)
    return rows.rewards + jnp.where(moves, shifted, 0.0)


def minibatch_rows(cfg: PPOConfig, key):
    """Rows of each update, int32 [epochs * N / M, M]: a permutation for every epoch."""
    every = jnp.arange(cfg.responses)

    def epoch(key):
        return every if cfg.quirks.unshuffled else jax.random.permutation(key, every)

    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(cfg.epochs))
    return jax.vmap(epoch)(keys).reshape(-1, cfg.minibatch)


def measure(batch: Batch, ratio, entropy, kl_coef) -> dict:
    """Metrics of the rollout, before the updates, as pairs or scalars.

    kl/k1, kl/k2, kl/k3 and entropy per token; kl/response; kl/coef; length and eos per
    response; explained_variance of the returns by the critic's values; sampler_error,
    the mean distance of the sampler's log-probs from the old ones.
    """
    rows, mask = batch.rows, batch.mask
    tokens, responses = jnp.sum(mask), jnp.float32(mask.shape[0])

    def per_token(x):
        return jnp.sum(x * mask), tokens

    return {
        **{f"kl/{k}": per_token(fn(ratio)) for k, fn in kl_lib.ESTIMATORS.items()},
        "kl/response": (jnp.sum(ratio * mask), responses),
        "kl/coef": kl_coef,
        "entropy": per_token(entropy),
        "length": (jnp.sum(rows.lengths).astype(jnp.float32), responses),
        "eos": (jnp.sum(rows.ended).astype(jnp.float32), responses),
        "explained_variance": explained_variance(batch.returns, batch.values, mask),
        "sampler_error": per_token(jnp.abs(batch.old - rows.sampled)),
    }


def explained_variance(returns, values, mask):
    """1 - var(returns - values) / var(returns) over the places of the mask, float32."""

    def variance(x):
        mean = jnp.sum(x * mask) / jnp.sum(mask)
        return jnp.sum(mask * (x - mean) ** 2) / jnp.sum(mask)

    return 1.0 - variance(returns - values) / jnp.maximum(variance(returns), 1e-8)


def over_minibatches(metrics: Mapping) -> dict:
    """Metrics stacked over the updates of an iteration as one: pairs are summed.

    first_ratio_error is the largest of a token in the first update: rounding, unless
    something is wrong.
    """
    row = {"first_ratio_error": metrics["largest_ratio_error"][0]}
    for name, value in metrics.items():
        if isinstance(value, tuple):
            row[name] = tuple(jnp.sum(x) for x in value)
        elif name.startswith("largest"):
            row[name] = jnp.max(value)
        else:
            row[name] = value[-1] if name.endswith("lr") else jnp.mean(value)
    return row
