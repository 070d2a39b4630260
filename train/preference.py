"""The pair kernel: a loss on the margin between two rewards, picked by name.

    margin = reward(chosen) - reward(rejected);   z = margin - offset
    loss = sum_i weight_i (l(z_i; p_i) + extra_i) / sum_i weight_i

p is the probability that the pair's label is right. A reward front-end feeds it a
model's scores (Bradley-Terry: the sigmoid loss with beta 1); the policy front-end below
the implicit reward beta (log pi(y|x) - log pi_ref(y|x)): DPO and its kin. Letters: B
rows, T time, D model, V vocab.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from data.batch import PairBatch, TokenBatch
from models import decoder
from models.config import DecoderConfig
from train.losses import Loss, map_columns, shifted, target_nll
from train.settings import at_least, positive

SURE = 1e-3  # EXO's target needs both labels possible; TRL's default
softplus = jax.nn.softplus


def sigmoid_loss(z, p, beta):
    """-p log s(z) - (1 - p) log s(-z), s the logistic function.

    DPO (arXiv 2305.18290, eq. 7); with p < 1 the conservative one. beta is not used.
    """
    return p * softplus(-z) + (1 - p) * softplus(z)


def ipo_loss(z, p, beta):
    """p (z/beta - 1/(2 beta))^2 + (1 - p) (z/beta + 1/(2 beta))^2.

    IPO (arXiv 2310.12036, eq. 17); z/beta is the margin of the log-ratios. The original
    code's `ipo` is that on sums over tokens; TRL, from 0.29 on, averages over tokens.
    """
    right, wrong = (z - 0.5) / beta, (z + 0.5) / beta
    return p * right**2 + (1 - p) * wrong**2


def hinge_loss(z, p, beta):
    """p max(0, 1 - z) + (1 - p) max(0, 1 + z): SLiC (arXiv 2305.10425)."""
    return p * jax.nn.relu(1 - z) + (1 - p) * jax.nn.relu(1 + z)


def robust_loss(z, p, beta):
    """(p softplus(-z) - (1 - p) softplus(z)) / (2 p - 1), p > 1/2.

    Under labels that are right with probability p, its mean is DPO's loss under right
    ones (arXiv 2403.00409, eq. 12).
    """
    return (p * softplus(-z) - (1 - p) * softplus(z)) / (2 * p - 1)


def exo_loss(z, p, beta):
    """KL((s(z), s(-z)) || (p, 1 - p)): EXO's pair loss (arXiv 2402.00856, eq. 16).

    p is kept SURE away from 0 and 1, where the divergence is infinite.
    """
    p = jnp.clip(p, SURE, 1 - SURE)
    right = jax.nn.sigmoid(z) * (-softplus(-z) - jnp.log(p))
    return right + jax.nn.sigmoid(-z) * (-softplus(z) - jnp.log1p(-p))


MARGIN_LOSSES: dict[str, Callable] = {
    "sigmoid": sigmoid_loss,
    "ipo": ipo_loss,
    "hinge": hinge_loss,
    "robust": robust_loss,
    "exo": exo_loss,
}


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
    """A loss on the implicit rewards of a policy.

    `average` divides every log-prob by the number of its response's tokens.
    `reference_free` leaves the reference out (SimPO, with `average` and offsets).
    `nll` times the chosen response's NLL per token is added (arXiv 2404.19733, eq. 1).
    """

    loss: Literal["sigmoid", "ipo", "hinge", "robust", "exo"] = "sigmoid"
    beta: float = positive(0.1)
    average: bool = False
    reference_free: bool = False
    nll: float = at_least(0, 0.0)


def pair_loss(
    kind: str,
    chosen,
    rejected,
    weights,
    *,
    labels=1.0,
    offsets=0.0,
    beta=1.0,
    extra=0.0,
) -> Loss:
    """The weighted sum of a margin loss over pairs, and what the rewards say.

    Args:
      kind: a name in MARGIN_LOSSES.
      chosen, rejected: float32 [...] rewards of the two responses of each pair.
      weights: [...]; 0 where there is no pair.
      labels: probability that the pair's label is right; offsets: subtracted from the
        margin; extra: added to the pair's loss. Each [...] or a number.

    Returns:
      Loss whose extras are "margin" and "accuracy", the share of pairs whose margin is
      positive, ties counted 1/2.
    """
    margin = chosen - rejected
    losses = MARGIN_LOSSES[kind](margin - offsets, jnp.asarray(labels), beta) + extra
    right = jnp.where(margin > 0, 1.0, jnp.where(margin == 0, 0.5, 0.0))

    def total(values):
        return jnp.sum(weights * values)

    weight = jnp.sum(weights)
    extras = {"margin": (total(margin), weight), "accuracy": (total(right), weight)}
    return Loss(total(losses), weight, extras)


def policy_loss(
    cfg: PreferenceConfig, log_probs, reference, lengths, pairs: PairBatch
) -> Loss:
    """The policy front-end: `pair_loss` of implicit rewards, with their metrics.

    Args:
      log_probs, reference: float32 [B, 2] of chosen and rejected, in nats, under policy
        and reference; lengths: float32 [B, 2] their tokens; see `pair_log_probs`.
      pairs: whose weights, labels and offsets are used.

    Extras: "margin" and "accuracy" of the implicit rewards, "chosen_log_prob" and
    "rejected_log_prob" in nats, and "kl", the mean over both responses of
    log pi_ref - log pi: an unbiased estimate of KL(pi_ref || pi) where the reference
    drew the responses, a drift otherwise. Without a reference there is no "kl".
    """
    scores = log_probs if cfg.reference_free else log_probs - reference
    each = jnp.maximum(lengths, 1)
    rewards = cfg.beta * (scores / each if cfg.average else scores)
    loss = pair_loss(
        cfg.loss,
        rewards[:, 0],
        rewards[:, 1],
        pairs.weights,
        labels=pairs.labels,
        offsets=pairs.offsets,
        beta=cfg.beta,
        extra=-cfg.nll * log_probs[:, 0] / each[:, 0],
    )
    metrics = {
        "chosen_log_prob": log_probs[:, 0],
        "rejected_log_prob": log_probs[:, 1],
    }
    if not cfg.reference_free:
        metrics["kl"] = -scores.mean(axis=1)
    extras = {k: (jnp.sum(pairs.weights * v), loss.weight) for k, v in metrics.items()}
    return loss._replace(extras={**loss.extras, **extras})


def pair_log_probs(
    cfg: DecoderConfig, params, pairs: PairBatch, *, chunk: int | None = None
):
    """(log-probs, lengths) of the responses, each float32 [B, 2]: chosen, rejected.

    Sums over a response's tokens of weight times log-prob, in nats, and of weights; 0
    on rows that are padding. chunk: as for `token_log_probs`, which gets 2 B rows.
    """

    def both(chosen, rejected):
        # Side by side, not one after the other: rows stay on the device they are on.
        return jnp.stack([chosen, rejected], 1).reshape(-1, *chosen.shape[1:])

    batch = jax.tree.map(both, pairs.chosen, pairs.rejected)
    log_probs, weights = token_log_probs(cfg, params, batch, chunk=chunk)
    sums = (log_probs * weights).sum(1), weights.sum(1)
    return tuple(x.reshape(-1, 2) for x in sums)


def token_log_probs(
    cfg: DecoderConfig, params, batch: TokenBatch, *, chunk: int | None = None
):
    """(log-probs, weights), float32 [B, T]: of what each place predicts, in nats.

    Weight 0 where nothing is predicted (see `train.losses.shifted`). chunk: see
    `train.losses.map_columns`.
    """
    hidden = decoder.forward(
        cfg, params, batch.tokens, batch.positions, batch.segment_ids
    )
    targets, weights = shifted(batch)

    def column(xs):
        h, y = xs
        return -target_nll(decoder.logits(cfg, params, h), y)

    return map_columns(column, (hidden, targets), chunk, cfg.mesh), weights
