"""Losses of reward models, and what they are evaluated by.

Pointwise: a label at a token, predicted by the score of that token. Pairwise: one score
a sequence, at its last token. Letters: B rows, T columns.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from data.batch import LabelBatch, PairBatch, TokenBatch
from models import reward_model
from models.config import DecoderConfig
from models.heads import at_last
from train import calibration
from train.evaluate import make_evaluate
from train.lora import Adapters, attached
from train.losses import Loss
from train.mesh import replicated
from train.preference import pair_loss


def score_loss(cfg: DecoderConfig, pairs: bool, adapters: Adapters | None = None):
    """`(params, batch) -> Loss`; of adapters `(trained, batch, base, key=None)`."""
    loss, seen = (pairwise_loss if pairs else label_loss), view(adapters)

    def loss_fn(params, batch, *base, key=None):
        return loss(cfg, seen(params, *base, key=key), batch)

    return loss_fn


def view(adapters: Adapters | None):
    """`(what is trained) -> params` of a reward model; of adapters `(trained, base)`.

    What is trained beside a base is {"adapters": ..., "head": {"kernel": [D, 1]}}, and
    the base is that of the decoder. key: of dropout, None where there is none.
    """

    def whole(params, key=None):
        return params

    def over_base(trained, base, key=None):
        given = adapters._replace(base=base)
        body = attached(given, trained["adapters"], key)
        return {"decoder": body, "head": trained["head"]}

    return whole if adapters is None else over_base


def label_loss(cfg: DecoderConfig, params, batch: LabelBatch) -> Loss:
    """Binary cross-entropy of each labelled token, in nats: the pointwise loss.

    -y log p - (1 - y) log(1 - p), p = sigmoid(score at the token itself), labels y hard
    or soft; summed with the tokens' weights. Outcome, process and mixed models differ
    only in where the labels are.
    """
    scores = reward_model.token_scores(
        cfg, params, batch.tokens, batch.positions, batch.segment_ids
    )
    losses = jax.nn.softplus(scores) - batch.labels * scores
    right = jnp.where(scores > 0, batch.labels, 1 - batch.labels)
    right = jnp.where(scores == 0, 0.5, right)
    weight = jnp.sum(batch.weights)
    extras = {"accuracy": (jnp.sum(right * batch.weights), weight)}
    return Loss(jnp.sum(losses * batch.weights), weight, extras)


def pairwise_loss(cfg: DecoderConfig, params, batch: PairBatch) -> Loss:
    """Bradley-Terry: -log sigmoid(margin - offset) of the scores at the last tokens.

    With label p below 1, -p log s(z) - (1 - p) log s(-z). Extras: "margin", "accuracy".
    """
    chosen, rejected = (
        last_scores(cfg, params, side) for side in (batch.chosen, batch.rejected)
    )
    return pair_loss(
        "sigmoid",
        chosen,
        rejected,
        batch.weights,
        labels=batch.labels,
        offsets=batch.offsets,
    )


def last_scores(cfg: DecoderConfig, params, batch: TokenBatch):
    """The score, float32 [B], at the last token of rows that hold one sequence each."""
    scores = reward_model.token_scores(
        cfg, params, batch.tokens, batch.positions, batch.segment_ids
    )
    lengths = jnp.sum(batch.segment_ids > 0, axis=1)
    return at_last(scores, jnp.maximum(lengths, 1))  # a row of padding has weight 0


def pair_metrics(
    cfg: DecoderConfig,
    held_out: Iterable,
    place: Callable,
    mesh=None,
    adapters: Adapters | None = None,
) -> Callable:
    """`evaluate(params) -> {"eval/loss", "eval/accuracy", "eval/margin"}` of pairs.

    adapters: over whose base the parameters are adapters and a head, see `view`.
    """
    loss_fn = score_loss(cfg, True, adapters)
    constants = () if adapters is None else (adapters.base,)
    evaluate = make_evaluate(loss_fn, held_out, place, constants=constants)

    def without_perplexity(params) -> dict[str, float]:
        return {k: v for k, v in evaluate(params).items() if k != "eval/perplexity"}

    return without_perplexity


def label_metrics(
    cfg: DecoderConfig,
    held_out: Iterable,
    place: Callable,
    mesh=None,
    adapters: Adapters | None = None,
) -> Callable:
    """`evaluate(params) -> {"eval/loss", "eval/auc", ...}`, as `train.calibration` has.

    Over all tokens of the batches that have weight. adapters: as in `pair_metrics`.
    """
    whole = None if mesh is None else replicated(mesh)
    seen, base = view(adapters), () if adapters is None else (adapters.base,)

    def read(params, batch: LabelBatch, *base):
        params = seen(params, *base)
        scores = reward_model.token_scores(
            cfg, params, batch.tokens, batch.positions, batch.segment_ids
        )
        return scores, batch.labels, batch.weights

    read = jax.jit(read, out_shardings=whole)

    def evaluate(params) -> dict[str, float]:
        parts, waiting = [], None
        for batch in held_out:
            waiting, done = read(params, place(batch), *base), waiting
            parts += [] if done is None else [_weighed(*jax.device_get(done))]
        parts += [] if waiting is None else [_weighed(*jax.device_get(waiting))]
        metrics = calibration.calibration(
            *map(np.concatenate, zip(*parts, strict=True))
        )
        return {f"eval/{name}": value for name, value in metrics.items()}

    return evaluate


def _weighed(scores, labels, weights):
    held = weights > 0
    return scores[held], labels[held], weights[held]
