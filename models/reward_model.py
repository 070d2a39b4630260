"""A decoder with a scalar head: one score, a logit, for every token of a sequence.

The parameters are {"decoder": ..., "head": {"kernel": [D, 1]}}, the decoder's without
its output matrix, which no score depends on. What a score means (a reward, whether the
solution so far is right, a value) is up to the loss that trains it.

Letters: B rows, T columns, D model.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from models import decoder, heads, sampler
from models.adapters import attach
from models.config import DecoderConfig, DType
from models.errors import PromptError
from models.hf_config import SCORED
from models.paths import as_path
from models.pretrained import checkpoint_shapes, from_pretrained, save_pretrained
from models.sharding import fetch, fill_rows
from models.tensor_files import read_json

HEAD, OUTPUT = "head", "lm_head"


class RewardModel(NamedTuple):
    """A reward model in memory; hf_config is its config.json as it was, for export."""

    cfg: DecoderConfig
    params: Any
    hf_config: dict[str, Any]


def init(cfg: DecoderConfig, decoder_params):
    """Decoder parameters under a zero head: score 0, p = 1/2, at every token.

    The arrays are shared, not copied. The original code has two rows of which the mean
    counts, for the sake of a sharding bug; one row is the same function.
    """
    body = {name: part for name, part in decoder_params.items() if name != OUTPUT}
    head = heads.init_scalar_head(cfg.d_model, dtype=cfg.param_dtype)
    sharding = body["final_norm"]["scale"].sharding  # on the same devices, whole
    return {"decoder": body, HEAD: jax.device_put(head, sharding)}


def over(decoder_params, adapters, scale: float, head):
    """A reward model of adapters over a decoder's parameters, which are shared.

    Args:
      decoder_params: of a decoder, its output matrix left out; may be quantised.
      adapters, scale: as `models.adapters.attach` has them; head: {"kernel": [D, 1]}.
    """
    body = {name: part for name, part in decoder_params.items() if name != OUTPUT}
    return {"decoder": attach(body, adapters, scale), HEAD: head}


def param_shapes(cfg: DecoderConfig):
    """The parameter tree as `jax.ShapeDtypeStruct`s."""
    return _nested(checkpoint_shapes(cfg, scored=True))


def token_scores(cfg: DecoderConfig, params, tokens, positions, segment_ids):
    """Scores, float32 [B, T], of int32 [B, T] inputs as `models.decoder.run` has them.

    The score of a token depends on it and on what precedes it in its segment. On
    padding it means nothing.
    """
    hidden = decoder.forward(cfg, params["decoder"], tokens, positions, segment_ids)
    return heads.scalar(params[HEAD], hidden)


@functools.partial(jax.jit, static_argnames="cfg")
def padded_scores(cfg, params, tokens, lengths):
    """`token_scores` of one text a row, tokens int32 [B, T] with lengths [B]."""
    positions, segment_ids = decoder.plain_inputs(lengths, tokens.shape[1])
    return token_scores(cfg, params, tokens, positions, segment_ids)


def score_places(
    cfg: DecoderConfig,
    params,
    rows: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    batch: int = 64,
) -> list[np.ndarray]:
    """Scores at chosen tokens of many sequences, in the order given.

    Sequences of like length share a batch, so a pool costs about its own tokens and a
    compilation for each of a few widths (`models.sampler.bucket`).

    Args:
      rows: token ids, each of a whole sequence: prompt and response.
      places: for each row, indices of its tokens, in any order; may be empty.
      batch: rows per call.

    Returns:
      for each row, float32 [number of its places]: logits.

    Raises:
      PromptError: a row that is too long or holds foreign ids, or a place outside it.
    """
    if len(places) != len(rows):
        raise ValueError(f"places: expected {len(rows)} lists, got {len(places)}")
    for i, (row, wanted) in enumerate(zip(rows, places, strict=True)):
        _check_row(cfg, i, row, wanted)
    found = [np.zeros(0, np.float32) for _ in rows]
    order = [i for i in np.argsort([len(row) for row in rows]) if len(places[i])]
    waiting = None
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        some = [rows[i] for i in chosen]
        count = batch if len(order) > batch else sampler.power_of_two(len(some))
        width = sampler.bucket(len(some[-1]))
        count = fill_rows(count, cfg.mesh)
        scores = padded_scores(cfg, params, *sampler.pad_rows(some, count, width))
        if waiting is not None:  # fetched while the device is busy with the next
            _pick(found, places, *waiting)
        waiting = chosen, scores
    if waiting is not None:
        _pick(found, places, *waiting)
    return found


def _pick(found, places, chosen, scores) -> None:
    scores = fetch(scores)
    for b, i in enumerate(chosen):
        found[i] = scores[b, np.asarray(places[i], np.int64)]


def _check_row(cfg, i, row, wanted) -> None:
    if len(row) > cfg.context:
        raise PromptError(
            f"row {i}: {len(row)} tokens, more than the {cfg.context} of the model"
        )
    if len(row) and not 0 <= min(row) <= max(row) < cfg.vocab_size:
        raise PromptError(f"row {i}: expected ids from 0 to {cfg.vocab_size - 1}")
    if len(wanted) and not 0 <= min(wanted) <= max(wanted) < len(row):
        raise PromptError(
            f"row {i}: expected places from 0 to {len(row) - 1}, got {list(wanted)}"
        )


def save_reward_model(
    directory: str | Path,
    cfg: DecoderConfig,
    params,
    hf_config: Mapping[str, Any] | None = None,
    *,
    dtype: str | None = None,
    tokenizer_files: Mapping[str, bytes | str] | None = None,
    pad_id: int | None = None,
) -> None:
    """Writes a folder that transformers loads as ...ForSequenceClassification.

    One label, without a name; its logit is the score of a sequence's last token.

    Args:
      hf_config: as in `models.pretrained.save_pretrained`, and like dtype and
        tokenizer_files; it may be that of the decoder that training started from.
      pad_id: written where config.json names no pad token: transformers looks for a
        row's last token by it.
    """
    hf_config = dict(hf_config or {})
    flat = {**params["decoder"], HEAD: params[HEAD]}
    if pad_id is not None and hf_config.get("pad_token_id") is None:
        hf_config["pad_token_id"] = pad_id
    save_pretrained(
        directory,
        cfg,
        flat,
        hf_config,
        dtype,
        tokenizer_files=tokenizer_files,
        scored=True,
    )


def is_reward_model(directory: str | Path) -> bool:
    """Whether a folder's config.json is that of a sequence classifier."""
    config = read_json(as_path(directory) / "config.json")
    names = config.get("architectures") if isinstance(config, Mapping) else None
    return any(str(name).endswith(SCORED) for name in names or ())


def load_reward_model(
    directory: str | Path,
    dtype: DType | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> RewardModel:
    """Reads such a folder; arguments and errors are those of `from_pretrained`."""
    loaded = from_pretrained(directory, dtype, mesh, scored=True)
    return RewardModel(loaded.cfg, _nested(loaded.params), loaded.hf_config)


def _nested(flat):
    body = {name: part for name, part in flat.items() if name != HEAD}
    return {"decoder": body, HEAD: flat[HEAD]}
