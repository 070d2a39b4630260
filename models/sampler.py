"""The sampler: prompts in, responses out, with slots refilled as rows finish.

The host keeps a queue; the device decodes until enough rows have ended, then their
responses are read and new prompts enter their slots. A prompt is prefilled once for its
n samples; a prefix shared by all prompts is prefilled once for all. What a row draws
depends on (params, prompt, rules, its key) alone: not on its slot, its neighbours, the
padding or the order of the queue.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import slots as slots_lib
from models.config import DecoderConfig
from models.errors import PromptError
from models.rollout import Rollout
from models.sampling import RUNNING, Sampling, check_ids


class Response(NamedTuple):
    """One finished row: ``row`` = prompt index * samples + sample."""

    row: int
    tokens: np.ndarray
    log_probs: np.ndarray
    sampling_log_probs: np.ndarray
    reason: int


def bucket(n: int, least: int = 8) -> int:
    """The smallest of least * {1, 1.5, 2, 3, 4, 6, ...} that holds n."""
    size = least
    while size < n:
        size = size * 3 // 2 if (size // least).bit_count() == 1 else size // 3 * 4
    return size


def power_of_two(n: int) -> int:
    """The smallest power of two >= n."""
    return 1 << (n - 1).bit_length()


def check_prompts(cfg, prompts, prefix, budgets, max_length) -> None:
    """Raise PromptError for an empty, foreign or too long prompt, naming it."""
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise PromptError(f"prompt {i} is empty: expected at least one token")
        ids = np.asarray(prompt)
        if ids.min() < 0 or ids.max() >= cfg.vocab_size:
            bad = ids[(ids < 0) | (ids >= cfg.vocab_size)][0]
            raise PromptError(
                f"prompt {i}: token {bad} is outside the vocabulary of {cfg.vocab_size}"
            )
        total = len(prefix) + len(prompt) + budgets[i]
        if total > max_length:
            raise PromptError(
                f"prompt {i} has {len(prompt)} tokens; with a prefix of {len(prefix)} "
                f"and {budgets[i]} new tokens that is {total}, over the budget of "
                f"{max_length}"
            )


def pad_rows(rows: Sequence[Sequence[int]], count: int, width: int):
    """Right-padded int32 [count, width] and lengths [count]; spare rows repeat row 0."""
    tokens = np.zeros((count, width), np.int32)
    lengths = np.zeros(count, np.int32)
    for i in range(count):
        row = rows[i] if i < len(rows) else rows[0]
        tokens[i, : len(row)] = row
        lengths[i] = len(row)
    return tokens, lengths


def prefix_context(cfg: DecoderConfig, params, prefix: Sequence[int]):
    """A shared prefix as a tuple of zero or one Context, prefilled once."""
    if not len(prefix):
        return ()
    tokens, lengths = pad_rows([prefix], 1, bucket(len(prefix)))
    return (slots_lib.prefill_prefix(cfg, params, tokens[0], lengths[0]),)


def stream(
    cfg: DecoderConfig,
    params,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key,
    *,
    max_new_tokens: int | Sequence[int],
    samples: int = 1,
    prefix: Sequence[int] = (),
    slots: int = 64,
    prefill_rows: int = 32,
    max_length: int | None = None,
    row_ids: Sequence[int] | None = None,
) -> Iterator[Response]:
    """Responses in the order in which they finish.

    Args:
      prompts: token ids of each prompt, unpadded.
      key: PRNG key; row r draws token i with fold_in(fold_in(key, row_ids[r]), i).
      max_new_tokens: the budget of response tokens, one for all or one per prompt.
      samples: responses per prompt. prefix: tokens that precede every prompt.
      slots: rows decoded at once. prefill_rows: prompts prefilled at once, at most.
      max_length: the most tokens of prefix + prompt + response (default: the model's).
      row_ids: ids of the rows for the keys (default 0, 1, ...).

    Raises:
      PromptError: a prompt is empty, out of vocabulary or over the budget.
      ValueError: a rule names a token outside the vocabulary.
    """
    check_ids(sampling, cfg.vocab_size)
    if np.ndim(max_new_tokens) == 0:
        max_new_tokens = [max_new_tokens] * len(prompts)
    if not len(prompts):
        return
    if min(max_new_tokens) < 1:
        raise PromptError("max_new_tokens: expected at least 1")
    check_prompts(cfg, prompts, prefix, max_new_tokens, max_length or cfg.max_position)
    total = len(prompts) * samples
    if row_ids is None:
        row_ids = range(total)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(
        key, jnp.array(row_ids, jnp.uint32)
    )

    rows = min(slots, power_of_two(total))
    response = max(max_new_tokens)
    cache = bucket(max(map(len, prompts))) + response
    cache += -cache % 8
    state = slots_lib.empty(
        cfg, sampling, key, rows=rows, cache=cache, response=response
    )
    shared = prefix_context(cfg, params, prefix)
    prefix_length = jnp.int32(len(prefix))

    # Long prompts first, so that prompts of one width are prefilled together.
    order = sorted(range(len(prompts)), key=lambda i: -bucket(len(prompts[i])))
    waiting = deque(order)
    prefilled, entering = None, deque()  # entering: (row of prefilled, request row)
    owner = [-1] * rows

    while True:
        free = [slot for slot in range(rows) if owner[slot] < 0]
        while free and (entering or waiting):
            if not entering:
                width = bucket(len(prompts[waiting[0]]))
                want = min(prefill_rows, power_of_two(-(-len(free) // samples)))
                group = []
                while waiting and len(group) < want:
                    if bucket(len(prompts[waiting[0]])) != width:
                        break
                    group.append(waiting.popleft())
                tokens, lengths = pad_rows(
                    [prompts[i] for i in group], power_of_two(len(group)), width
                )
                prefilled = slots_lib.prefill(
                    cfg, params, shared, prefix_length, tokens, lengths
                )
                entering.extend(
                    (r, i * samples + g)
                    for r, i in enumerate(group)
                    for g in range(samples)
                )
            entries = []
            while free and entering:
                source, row = entering.popleft()
                owner[free[0]] = row
                entries.append((source, free.pop(0), row))
            entries += [entries[0]] * (power_of_two(len(entries)) - len(entries))
            source, target, row = (np.array(x, np.int32) for x in zip(*entries))
            budget = np.array([max_new_tokens[r // samples] for r in row], np.int32)
            state = slots_lib.insert(
                sampling, state, prefilled, source, target, row_keys[row], budget
            )
        occupied = sum(o >= 0 for o in owner)
        if not occupied:
            return
        more = bool(entering or waiting)
        spare = rows - occupied
        free_target = spare + max(1, rows // 8) if more else rows
        state = slots_lib.decode(
            cfg, sampling, params, shared, prefix_length, state, jnp.int32(free_target)
        )
        out = jax.device_get(
            (state.reason, state.generated, state.tokens, state.plain, state.sampled)
        )
        for slot, row in enumerate(owner):
            if row < 0 or out[0][slot] == RUNNING:
                continue
            owner[slot] = -1
            n = out[1][slot]
            yield Response(
                row, *(x[slot, :n].copy() for x in out[2:]), int(out[0][slot])
            )


def generate(
    cfg: DecoderConfig,
    params,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key,
    *,
    max_new_tokens: int | Sequence[int],
    samples: int = 1,
    on_response=None,
    **options,
) -> Rollout:
    """All responses, in order: row = prompt index * samples + sample.

    Args: as `stream`; ``on_response`` is called with each Response as it finishes.
    """
    responses = []
    for response in stream(
        cfg,
        params,
        prompts,
        sampling,
        key,
        max_new_tokens=max_new_tokens,
        samples=samples,
        **options,
    ):
        responses.append(response)
        if on_response is not None:
            on_response(response)
    responses.sort(key=lambda r: r.row)
    repeated = [p for p in prompts for _ in range(samples)]
    width = max(map(len, repeated), default=0)
    padded, lengths = pad_rows(repeated, len(repeated), width)
    R = int(np.max(max_new_tokens, initial=0))

    def stack(rows, dtype):
        out = np.zeros((len(rows), R), dtype)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    return Rollout(
        prompts=padded,
        prompt_lengths=lengths,
        tokens=stack([r.tokens for r in responses], np.int32),
        lengths=np.array([len(r.tokens) for r in responses], np.int32),
        log_probs=stack([r.log_probs for r in responses], np.float32),
        sampling_log_probs=stack([r.sampling_log_probs for r in responses], np.float32),
        reasons=np.array([r.reason for r in responses], np.int32),
    )
