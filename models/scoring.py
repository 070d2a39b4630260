"""Teacher-forced log-probabilities: of responses, and of given continuations.

`response_log_probs` is the sampler's arithmetic on given tokens: for every rule set it
returns the log-probs that the sampler would report for them.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from models import decoder, sampler, sampling, slots
from models.config import DecoderConfig
from models.decoder import Context
from models.errors import PromptError
from models.sampling import Sampling
from models.sharding import fetch, fill_rows


def join(prompts, prompt_lengths, tokens):
    """Rows prompt + response without a gap: [B, P], [B], [B, R] -> [B, P + R]."""
    P, R = prompts.shape[1], tokens.shape[1]
    place = jnp.arange(P + R)[None]
    start = prompt_lengths[:, None]
    both = jnp.concatenate([prompts, tokens], axis=1)
    source = jnp.where(place < start, place, P + place - start)
    return jnp.take_along_axis(both, jnp.minimum(source, P + R - 1), axis=1)


def response_map(
    cfg: DecoderConfig,
    params,
    prompts,
    prompt_lengths,
    tokens,
    lengths,
    fn,
    prefix: tuple[Context, ...] = (),
    prefix_length=0,
    chunk: int = 16,
):
    """Any function of the logits that drew each response token: a tree of [B, R].

    Args:
      prompts: int32 [B, P] right-padded; prompt_lengths: int32 [B], at least 1.
      tokens: int32 [B, R] responses; lengths: int32 [B]. Entries past a length are 0.
      fn: (logits [B, V], history [B, R], length [B], token [B]) -> tree of [B].
      prefix: as from `sampler.prefix_context`, with its length.
      chunk: response tokens whose logits [B, V] are held at once, and computed again
        in a backward pass.
    """
    where = prompts, prompt_lengths, tokens, lengths
    states = response_states(cfg, params, *where, prefix, prefix_length)
    return map_logits(cfg, params, states, tokens, lengths, fn, chunk)


def response_states(
    cfg: DecoderConfig,
    params,
    prompts,
    prompt_lengths,
    tokens,
    lengths,
    prefix: tuple[Context, ...] = (),
    prefix_length=0,
):
    """The hidden state before each response token, [B, R, D]; see `response_map`."""
    rows = join(prompts, prompt_lengths, tokens)
    positions, segments = decoder.plain_inputs(prompt_lengths + lengths, rows.shape[1])
    # As in sampling: the prompt came at once, then the response token by token.
    grown = prefix_length + jnp.maximum(positions + 1, prompt_lengths[:, None])
    hidden, _ = decoder.run(
        cfg, params, rows, positions + prefix_length, segments, prefix, grown
    )
    place = prompt_lengths[:, None] - 1 + jnp.arange(tokens.shape[1])[None]
    return jnp.take_along_axis(hidden, place[:, :, None], axis=1)


def map_logits(cfg: DecoderConfig, params, states, tokens, lengths, fn, chunk=16):
    """fn of the logits of states [B, R, D], a tree of [B, R]; see `response_map`."""
    R = tokens.shape[1]

    @jax.checkpoint
    def at(x):
        i, hidden, token = x
        length = jnp.full(token.shape, i)
        return fn(decoder.logits(cfg, params, hidden), tokens, length, token)

    xs = (jnp.arange(R), states.swapaxes(0, 1), tokens.swapaxes(0, 1))
    mapped = jax.lax.map(at, xs, batch_size=min(chunk, R))
    real = jnp.arange(R)[None] < lengths[:, None]
    return jax.tree.map(lambda x: jnp.where(real, x.T, 0.0), mapped)


@functools.partial(jax.jit, static_argnames=("cfg", "rules", "chunk"))
def response_log_probs(
    cfg: DecoderConfig,
    params,
    prompts,
    prompt_lengths,
    tokens,
    lengths,
    rules: Sampling,
    prefix: tuple[Context, ...] = (),
    prefix_length=0,
    chunk: int = 16,
):
    """(plain, sampling) log-probs of response tokens, each float32 [B, R].

    Args: as `response_map`; rules: those of the sampling distribution.
    """

    def both(logits, history, length, token):
        return sampling.sampled_log_probs(logits, rules, history, length, token)

    return response_map(
        cfg,
        params,
        prompts,
        prompt_lengths,
        tokens,
        lengths,
        both,
        prefix,
        prefix_length,
        chunk,
    )


@functools.partial(jax.jit, static_argnames="cfg")
def _continue(cfg, params, prefix, prefix_length, prompts, tokens, lengths):
    """Log-probs [B, C, T] of continuations [B, C, T] of prefilled prompts."""
    B, C, T = tokens.shape
    width = jax.tree.leaves(prompts.keys)[0].shape[-2]
    positions, visible = decoder.plain_inputs(prompts.lengths, width)
    context = Context(
        prompts.keys, prompts.values, positions + prefix_length, visible > 0
    )
    place = jnp.arange(T)[None, None]
    real = place < lengths[:, :, None]
    segments = jnp.where(real, 1 + jnp.arange(C)[None, :, None], 0)
    positions = (
        prefix_length + prompts.lengths[:, None, None] + jnp.where(real, place, 0)
    )
    hidden, _ = decoder.run(
        cfg,
        params,
        tokens.reshape(B, C * T),
        jnp.broadcast_to(positions, (B, C, T)).reshape(B, C * T),
        segments.reshape(B, C * T),
        (*prefix, context),
        # As in sampling: a continuation comes token by token.
        jnp.broadcast_to(positions + 1, (B, C, T)).reshape(B, C * T),
    )
    logits = decoder.logits(cfg, params, hidden.reshape(B, C, T, -1)[:, :, :-1])
    first = jnp.broadcast_to(prompts.logits[:, None, None], (B, C, 1, cfg.vocab_size))
    logits = jnp.concatenate([first, logits], axis=2)
    return jnp.where(real, sampling.log_probs(logits, tokens), 0.0)


def score_continuations(
    cfg: DecoderConfig,
    params,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    prefix: Sequence[int] = (),
    rows: int = 16,
) -> list[list[np.ndarray]]:
    """Log-prob of every token of given continuations (multiple choice).

    Each prompt is run once; its continuations then run side by side, each seeing the
    prompt and itself.

    Args:
      continuations: for each prompt, its choices, each at least one token.
      rows: prompts per call.

    Returns:
      for each prompt and choice, float32 [number of its tokens].

    Raises:
      PromptError: a prompt is empty, foreign or, with a choice, too long.
    """
    if len(continuations) != len(prompts):
        raise ValueError(
            f"continuations: expected {len(prompts)} lists, one for each prompt, got "
            f"{len(continuations)}"
        )
    for i, choices in enumerate(continuations):
        if not len(choices):
            raise PromptError(f"prompt {i}: expected at least one continuation")
        sampler.check_prompts(
            cfg,
            [prompts[i]],
            prefix,
            [max(map(len, choices))],
            name=f"prompt {i}".format,
        )
        name = f"prompt {i}, continuation {{}}".format
        sampler.check_prompts(cfg, choices, prefix, [0] * len(choices), name=name)
    totals = [
        len(p) + max(map(len, cs)) for p, cs in zip(prompts, continuations, strict=True)
    ]
    sampler.check_prefix(cfg, prefix, len(prefix) + max(totals, default=0))
    params = slots.prepare(cfg, params)
    shared = sampler.prefix_context(cfg, params, prefix)
    prefix_length = jnp.int32(len(prefix))
    out = []
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        choices = continuations[start : start + rows]
        count = fill_rows(sampler.power_of_two(len(some)), cfg.mesh)
        width = sampler.bucket(max(map(len, some)))
        tokens, lengths = sampler.pad_rows(some, count, width)
        prefilled = slots.prefill(cfg, params, shared, prefix_length, tokens, lengths)
        C = sampler.power_of_two(max(map(len, choices)))
        T = sampler.bucket(max(len(c) for cs in choices for c in cs))
        rows_of = [sampler.pad_rows(cs, C, T) for cs in choices]
        rows_of += [rows_of[0]] * (count - len(some))
        tokens, lengths = (np.stack(x) for x in zip(*rows_of, strict=True))
        scores = fetch(
            _continue(cfg, params, shared, prefix_length, prefilled, tokens, lengths)
        )
        out += [
            [scores[i, c, : len(choice)] for c, choice in enumerate(cs)]
            for i, cs in enumerate(choices)
        ]
    return out
