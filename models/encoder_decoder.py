"""Sampling from an encoder-decoder, with the interface of `models.sampler`.

A source is encoded once for all of its samples. Rows are decoded in groups of `slots`
until the last of a group has ended: responses of a task have about one length here
(an answer, a passage), so that refilling slots would gain little.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from models import sampling as rules_lib
from models import t5
from models.errors import PromptError
from models.rollout import Rollout
from models.sampler import Response, bucket, pad_rows, power_of_two
from models.sampling import RUNNING, Sampling
from models.sharding import fetch, fill_rows
from models.slots import window_size
from models.t5 import T5Config

# Read at once, at most: a source's keys and values, of every layer of the decoder, take
# far more room than a row of short responses.
SOURCES = 16


def group_size(slots: int, samples: int) -> int:
    """How many sources are read at once, whose rows are then decoded together."""
    return max(1, min(SOURCES, slots // samples))


@functools.partial(jax.jit, static_argnames="cfg")
def read(cfg, params, tokens, lengths) -> t5.Encoded:
    """The encoder, on sources int32 [R, S] of lengths int32 [R]."""
    return t5.read_source(cfg, params, tokens, lengths)


@functools.partial(jax.jit, static_argnames=("cfg", "rules", "most"))
def respond(cfg, rules: Sampling, params, source: t5.Encoded, keys, *, most):
    """Responses to sources: tokens, lengths, log-probs, sampled ones, reasons.

    keys: [B], of every row; rows of a source are next to each other, equally many.
    most: tokens of a response.
    """
    B, W = keys.shape[0], window_size(rules)

    start = {
        "i": jnp.int32(0),
        "newest": jnp.full((B,), cfg.start_id, jnp.int32),
        "cache": t5.empty_cache(cfg, B, most),
        "tokens": jnp.zeros((B, most), jnp.int32),
        "plain": jnp.zeros((B, most)),
        "sampled": jnp.zeros((B, most)),
        "recent": jnp.full((B, W), -1, jnp.int32),
        "length": jnp.zeros((B,), jnp.int32),
        "reason": jnp.full((B,), RUNNING, jnp.int32),
    }

    def body(s):
        i, running = s["i"], s["reason"] == RUNNING
        logits, cache = t5.step(cfg, params, s["newest"], i, s["cache"], source)
        each = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        drawn, plain, sampled = rules_lib.draw(
            logits, rules, s["tokens"], s["length"], each
        )
        length = s["length"] + running
        recent = jnp.concatenate([s["recent"][:, 1:], drawn[:, None]], axis=1)
        budget = jnp.full((B,), most)
        reason = rules_lib.ends(rules, drawn, recent, length, budget)

        def put(rows, new):
            return rows.at[:, i].set(jnp.where(running, new, 0))

        return {
            "i": i + 1,
            "newest": drawn,
            "cache": cache,
            "tokens": put(s["tokens"], drawn),
            "plain": put(s["plain"], plain),
            "sampled": put(s["sampled"], sampled),
            "recent": recent,
            "length": length,
            "reason": jnp.where(running, reason, s["reason"]),
        }

    def goes_on(s):
        return (s["i"] < most) & jnp.any(s["reason"] == RUNNING)

    end = jax.lax.while_loop(goes_on, body, start)
    return tuple(end[k] for k in ("tokens", "length", "plain", "sampled", "reason"))


def generate(
    cfg: T5Config,
    params,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key,
    *,
    max_new_tokens: int,
    samples: int = 1,
    slots: int = 64,
    on_response=None,
) -> Rollout:
    """All responses, in order: row = prompt index * samples + sample.

    Args: as `models.sampler.generate`; row r draws token i with
    fold_in(fold_in(key, r), i). A prompt is a source.

    Raises:
      PromptError: a prompt is empty, foreign or too long; ValueError: no key.
    """
    if key is None and sampling.temperature:
        raise ValueError("key: None, which is for greedy sampling; expected a PRNG key")
    rules_lib.check_ids(sampling, cfg.vocab_size)
    for i, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= cfg.context:
            raise PromptError(
                f"prompt {i} has {len(prompt)} tokens; expected 1 to {cfg.context}"
            )
        if min(prompt) < 0 or max(prompt) >= cfg.vocab_size:
            raise PromptError(f"prompt {i}: a token outside of {cfg.vocab_size}")
    if max_new_tokens < 1:
        raise PromptError(f"max_new_tokens is {max_new_tokens}, expected >= 1")
    N = len(prompts) * samples
    out = [
        np.zeros((N, max_new_tokens), np.int32),
        np.zeros(N, np.int32),
        np.zeros((N, max_new_tokens), np.float32),
        np.zeros((N, max_new_tokens), np.float32),
        np.zeros(N, np.int32),
    ]
    run_key = jax.random.key(0) if key is None else key  # greedy: of no token
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    each = group_size(slots, samples)
    for start in range(0, len(order), each):
        some = order[start : start + each]
        count = fill_rows(power_of_two(len(some)), cfg.mesh)
        width = bucket(max(len(prompts[i]) for i in some))
        tokens, lengths = pad_rows([prompts[i] for i in some], count, width)
        ids = [i * samples + g for i in some for g in range(samples)]
        ids += [0] * (count * samples - len(ids))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            run_key, np.array(ids, np.uint32)
        )
        source = read(cfg, params, tokens, lengths)
        made = respond(cfg, sampling, params, source, keys, most=max_new_tokens)
        found = fetch(made)
        rows = ids[: len(some) * samples]
        for whole, part in zip(out, found, strict=True):
            whole[rows] = part[: len(rows)]
        for row in rows if on_response is not None else ():
            n = out[1][row]
            on_response(
                Response(row, out[0][row, :n], out[2][row, :n], out[3][row, :n],
                         int(out[4][row]))
            )  # fmt: skip
    repeated = [p for p in prompts for _ in range(samples)]
    width = max(map(len, repeated), default=0)
    padded, lengths = pad_rows(repeated, N, width)
    return Rollout(padded, lengths, *out)
