"""Beam search: of every prompt the W most probable responses that a beam keeps.

At every step each running hypothesis is extended by every token, and the W of largest
log-probability stay; one that has ended competes as it is. A beam of width 1 is greedy
sampling. Shapes: R prompts, W hypotheses of each, B = R * W rows, T prompt columns, S
cache places, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import decoder, sampling
from models import slots as slots_lib
from models.config import DecoderConfig
from models.decoder import Cache
from models.sampler import LEAST_WIDTH, bucket, check_prompts, pad_rows, power_of_two
from models.sampling import RUNNING, Sampling

LOWEST = -1e30  # finite: of hypotheses that are none


class Hypothesis(NamedTuple):
    """tokens int32 [n], with what ended them; log_probs float32 [n], of each."""

    tokens: np.ndarray
    log_probs: np.ndarray
    reason: int


class _Beam(NamedTuple):
    """keys, values: as a decoder's cache; made: int32 [], tokens of a running row.

    score [B], the sum of log_probs [B, N]; tokens [B, N]; generated, reason [B];
    recent [B, window].
    """

    keys: Any
    values: Any
    made: jax.Array
    score: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    generated: jax.Array
    reason: jax.Array
    recent: jax.Array


def beam_search(
    cfg: DecoderConfig,
    params,
    prompts: Sequence[Sequence[int]],
    rules: Sampling,
    *,
    width: int,
    max_new_tokens: int,
    rows: int = 256,
    longest: int = 0,
) -> list[list[Hypothesis]]:
    """The hypotheses of every prompt, the most probable first; at most `width`.

    Args:
      rules: only its endings are used: hypotheses are ranked by the plain model.
      rows: decoded at once, about; prompts are taken in groups. longest: prompt tokens
        to have room for: calls with one value share what is compiled.

    Raises:
      PromptError, ValueError: as `models.sampler.stream`.
    """
    if width < 1 or max_new_tokens < 1:
        raise ValueError(
            f"width, max_new_tokens: expected at least 1, got {width}, {max_new_tokens}"
        )
    sampling.check_ids(rules, cfg.vocab_size)
    check_prompts(cfg, prompts, (), [max_new_tokens] * len(prompts))
    params = slots_lib.prepare(cfg, params)
    columns = bucket(max([longest, *map(len, prompts)]), LEAST_WIDTH)
    most = max(1, rows // width)
    found: list[list[Hypothesis]] = []
    for start in range(0, len(prompts), most):
        group = prompts[start : start + most]
        count = min(most, power_of_two(len(group))) if start == 0 else most
        tokens, lengths = pad_rows(group, count, columns)
        beam = _search(cfg, rules, params, tokens, lengths, width, max_new_tokens)
        found += _read(jax.device_get(beam._replace(keys=(), values=())), width)[
            : len(group)
        ]
    return found


def _read(beam: _Beam, width: int) -> list[list[Hypothesis]]:
    """Of every prompt, in order; rows are sorted by score already."""
    made = []
    for row, n in enumerate(beam.generated):
        if row % width == 0:
            made.append([])
        if beam.score[row] > LOWEST / 2:
            made[-1].append(
                Hypothesis(
                    beam.tokens[row, :n], beam.log_probs[row, :n], int(beam.reason[row])
                )
            )
    return made


@functools.partial(jax.jit, static_argnames=("cfg", "rules", "width", "budget"))
def _search(cfg, rules: Sampling, params, tokens, lengths, width: int, budget: int):
    prompts = slots_lib.prefill(cfg, params, (), jnp.int32(0), tokens, lengths)
    R, T = tokens.shape
    B = R * width
    lengths = jnp.repeat(lengths, width)

    def enter(x):
        """A prompt's keys in all its rows, with room behind them for new ones."""
        axis = x.ndim - 4  # rows; layers may be stacked before
        pad = [(0, 0)] * x.ndim
        pad[-2] = (0, budget)
        return jnp.pad(jnp.repeat(x, width, axis), pad)

    beam = _Beam(
        keys=jax.tree.map(enter, prompts.keys),
        values=jax.tree.map(enter, prompts.values),
        made=jnp.int32(0),
        score=jnp.where(jnp.arange(B) % width == 0, 0.0, LOWEST),
        tokens=jnp.zeros((B, budget), jnp.int32),
        log_probs=jnp.zeros((B, budget)),
        generated=jnp.zeros(B, jnp.int32),
        reason=jnp.full(B, RUNNING, jnp.int32),
        recent=jnp.full((B, slots_lib.window_size(rules)), -1, jnp.int32),
    )
    beam = _extend(rules, beam, jnp.repeat(prompts.logits, width, axis=0), width)

    def body(beam: _Beam):
        place = jnp.arange(T + budget)[None]
        new = place - T  # the response token at a place behind the prompt
        newest = beam.made - 1
        cache = Cache(
            beam.keys,
            beam.values,
            place=T + newest,
            positions=jnp.where(new >= 0, lengths[:, None] + new, place),
            visible=(place < lengths[:, None]) | ((new >= 0) & (new <= newest)),
        )
        last = jnp.take(beam.tokens, newest, axis=1)
        hidden, (keys, values) = decoder.run_cached(
            cfg, params, last, lengths + newest, cache
        )
        beam = beam._replace(keys=keys, values=values)
        return _extend(rules, beam, decoder.logits(cfg, params, hidden), width)

    def running(beam: _Beam):
        return (beam.made < budget) & jnp.any(beam.reason == RUNNING)

    return jax.lax.while_loop(running, body, beam)


def _extend(rules: Sampling, beam: _Beam, logits, width: int) -> _Beam:
    """Every row's extensions, of which the best `width` of each prompt stay."""
    B, V = logits.shape
    plain = jax.nn.log_softmax(logits, axis=-1)
    live = beam.reason == RUNNING
    # One that has ended has one extension: itself.
    stays = jnp.where(jnp.arange(V) == 0, 0.0, 2 * LOWEST)
    scores = beam.score[:, None] + jnp.where(live[:, None], plain, stays[None])
    best, at = jax.lax.top_k(scores.reshape(B // width, width * V), width)
    first = jnp.arange(B // width)[:, None] * width
    parent, token = (first + at // V).reshape(B), (at % V).reshape(B)

    def take(x):
        return jnp.take(x, parent, axis=x.ndim - 4 if x.ndim >= 4 else 0)

    keys, values = (jax.tree.map(take, x) for x in (beam.keys, beam.values))
    live = take(live)
    here = (jnp.arange(beam.tokens.shape[1]) == beam.made)[None] & live[:, None]
    recent = take(beam.recent)
    recent = jnp.where(
        live[:, None], jnp.concatenate([recent[:, 1:], token[:, None]], 1), recent
    )
    generated = take(beam.generated) + live
    ends = sampling.ends(rules, token, recent, generated, beam.tokens.shape[1])
    return _Beam(
        keys=keys,
        values=values,
        made=beam.made + 1,
        score=best.reshape(B),
        tokens=jnp.where(here, token[:, None], take(beam.tokens)),
        log_probs=jnp.where(here, plain[parent, token][:, None], take(beam.log_probs)),
        generated=generated,
        reason=jnp.where(live, ends, take(beam.reason)),
        recent=recent,
    )
