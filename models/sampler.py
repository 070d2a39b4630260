"""The sampler: prompts in, responses out, with slots refilled as rows finish.

The host keeps a queue; the device decodes until enough rows have ended, then their
responses are read and new prompts enter their slots. A prompt is prefilled once for its
n samples and for equal prompts; a prefix shared by all prompts is prefilled once for
all. What a row draws depends on (params, prompt, rules, its key) alone: not on its
slot, its neighbours, the padding or the order of the queue.
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
from models.sampling import RUNNING, Sampling
from models.sampling import check_ids as check_rule_ids
from models.sharding import fetch, fill_rows

LEAST_TO_SHRINK = 16  # slots; below, a step costs nearly the same
# Tokens that a prompt is padded to. Every other width is a program for prefilling and
# one for entering: a second each to compile, where the tokens saved cost milliseconds.
LEAST_WIDTH = 32


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
        size *= 2
    smaller = size * 3 // 4
    return smaller if smaller >= max(n, least) else size


def power_of_two(n: int) -> int:
    """The smallest power of two >= n."""
    return 1 << (n - 1).bit_length()


def fewer_slots(rows: int) -> int:
    """The greatest of {1, 1.5} times a power of two below rows (at least 2)."""
    half = 1 << ((rows - 1).bit_length() - 1)
    return half * 3 // 2 if half * 3 // 2 < rows else half


def check_prompts(
    cfg, prompts, prefix, budgets, max_length=None, name="prompt {}".format
) -> None:
    """Raise PromptError for an empty, foreign or too long prompt, naming it.

    Args:
      budgets: tokens that may follow each prompt. max_length: the most tokens in all
        (default: the model's; see `DecoderConfig.longest`). name: what prompt i is
        called.
    """
    limit = cfg.longest(max_length)

    def check_ids(ids, who):
        ids = np.asarray(ids)
        bad = ids[(ids < 0) | (ids >= cfg.vocab_size)]
        if len(bad):
            raise PromptError(
                f"{who}: token {bad[0]} is outside the vocabulary of {cfg.vocab_size}"
            )

    check_ids(prefix, "the shared prefix")
    for i, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True)):
        if not len(prompt):
            raise PromptError(f"{name(i)} is empty: expected at least one token")
        check_ids(prompt, name(i))
        total = len(prefix) + len(prompt) + budget
        if total > limit:
            raise PromptError(
                f"{name(i)} has {len(prompt)} tokens; after a prefix of {len(prefix)} "
                f"and before {budget} new tokens that makes {total}, over the limit of "
                f"{limit}"
            )


def check_request(
    cfg, prompts, sampling, prefix, budgets, max_length, **counts
) -> None:
    """Raise ValueError for anything that `stream` cannot do, before any compute."""
    check_rule_ids(sampling, cfg.vocab_size)
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if len(budgets) != len(prompts):
        raise ValueError(
            f"max_new_tokens: expected one number, or one for each of {len(prompts)} "
            f"prompts, got {len(budgets)}"
        )
    for i, budget in enumerate(budgets):
        if budget < 1:
            raise PromptError(f"prompt {i}: max_new_tokens is {budget}, expected >= 1")
    check_prompts(cfg, prompts, prefix, budgets, max_length)


def pad_rows(rows: Sequence[Sequence[int]], count: int, width: int):
    """Rows padded on the right, int32 [count, width], and their lengths [count].

    Spare rows repeat row 0.
    """
    tokens = np.zeros((count, width), np.int32)
    lengths = np.zeros(count, np.int32)
    for i in range(count):
        row = rows[i] if i < len(rows) else rows[0]
        tokens[i, : len(row)] = row
        lengths[i] = len(row)
    return tokens, lengths


def check_prefix(cfg: DecoderConfig, prefix, longest: int) -> None:
    """Raise PromptError where texts of up to ``longest`` tokens cannot share a prefix.

    Past its original length, dynamic rope turns every key by an angle that depends on
    the length of the whole prompt: a prefix that ran alone would be of another model.
    """
    limit = cfg.rope.original_max_position
    if len(prefix) and cfg.rope.kind == "dynamic" and longest > limit:
        raise PromptError(
            f"the shared prefix: with dynamic rope, texts of more than {limit} tokens "
            f"cannot share one, and these may have {longest}; put it into the prompts"
        )


def prefix_context(cfg: DecoderConfig, params, prefix: Sequence[int]):
    """A shared prefix as a tuple of zero or one Context, prefilled once."""
    if not len(prefix):
        return ()
    tokens, lengths = pad_rows([prefix], 1, bucket(len(prefix)))
    return (slots_lib.prefill_prefix(cfg, params, tokens[0], lengths[0]),)


class Request(NamedTuple):
    """What is asked for, checked; see `stream`."""

    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    key: jax.Array
    budgets: Sequence[int]
    samples: int
    prefix: Sequence[int]
    slots: int
    prefill_rows: int
    shrink: bool
    row_ids: np.ndarray
    longest: int


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
    prefill_rows: int = 64,
    shrink: bool = False,
    max_length: int | None = None,
    row_ids: Sequence[int] | None = None,
    longest: int = 0,
) -> Iterator[Response]:
    """Responses in the order in which they finish.

    Args:
      prompts: token ids of each prompt, unpadded.
      key: PRNG key; row r draws token i with fold_in(fold_in(key, row_ids[r]), i). None
        where sampling is greedy, and only there: nothing is drawn.
      max_new_tokens: the budget of response tokens, one for all or one per prompt.
      samples: responses per prompt. prefix: tokens that precede every prompt.
      slots: rows decoded at once. prefill_rows: prompts prefilled at once, at most.
        On a mesh both are filled up to numbers that divide over its devices.
      shrink: fewer slots (`fewer_slots`) when that many suffice and nothing waits. Each
        size is compiled once: it pays over many calls of one shape, on CPU above all,
        where a decoding step costs by the row.
      max_length: the most tokens of prefix + prompt + response (default: the model's).
      row_ids: ids of the rows for the keys (default 0, 1, ...).
      longest: prompt tokens to have room for, even if none has as many: calls with one
        value share what is compiled.

    Raises:
      PromptError: a prompt is empty, out of vocabulary or over the budget.
      ValueError: a rule names a token outside the vocabulary, a count is wrong, or a
        key is missing.
    """
    if key is None:
        if sampling.temperature:
            raise ValueError(
                "key: None, which is for greedy sampling; expected a PRNG key for the "
                f"temperature {sampling.temperature}"
            )
        key = jax.random.key(0)  # the shape of the state; no token depends on it
    budgets = max_new_tokens
    if np.ndim(budgets) == 0:
        budgets = [budgets] * len(prompts)
    check_request(
        cfg,
        prompts,
        sampling,
        prefix,
        budgets,
        max_length,
        samples=samples,
        slots=slots,
        prefill_rows=prefill_rows,
    )
    total = len(prompts) * samples
    row_ids = np.arange(total) if row_ids is None else np.asarray(row_ids)
    if len(row_ids) != total:
        raise ValueError(f"row_ids: expected {total} ids, got {len(row_ids)}")
    if not total:
        return iter(())
    lengths = [len(p) + b for p, b in zip(prompts, budgets, strict=True)]
    check_prefix(cfg, prefix, len(prefix) + max(lengths))
    if row_ids.min() < 0 or row_ids.max() >= 2**32:
        raise ValueError("row_ids: expected integers from 0 to 2**32 - 1")
    return _stream(
        cfg,
        params,
        Request(
            prompts=prompts,
            sampling=sampling,
            key=key,
            budgets=budgets,
            samples=samples,
            prefix=prefix,
            slots=fill_rows(min(slots, power_of_two(total)), cfg.mesh),
            prefill_rows=prefill_rows,
            shrink=shrink,
            row_ids=row_ids.astype(np.uint32),
            longest=max(longest, *map(len, prompts)),
        ),
    )


def _prefills(cfg, params, shared, request: Request):
    """(prefilled prompts, [(row among them, request row), ...]) of group after group.

    Long prompts go first, and prompts of one width together. A generator: a group is
    run when the slots ask for it. It keeps none, so that they go with the caller's.
    """
    samples, rows_of = request.samples, {}
    for i, prompt in enumerate(request.prompts):
        rows_of.setdefault(tuple(prompt), []).extend(
            range(i * samples, (i + 1) * samples)
        )
    by_width = {}
    for prompt in rows_of:
        by_width.setdefault(bucket(len(prompt), LEAST_WIDTH), []).append(prompt)
    prefix_length = jnp.int32(len(request.prefix))
    for width in sorted(by_width, reverse=True):
        waiting = deque(by_width[width])
        most = max(1, min(request.prefill_rows, request.slots // samples))
        first = True
        while waiting:
            group, rows = [], 0
            while waiting and len(group) < most and (not group or rows < request.slots):
                group.append(waiting.popleft())
                rows += len(rows_of[group[-1]])
            # The last group of several is as large as the others: it has their program.
            # Where equal prompts share, a few may fill the slots: a small group.
            crowded = len(group) < most and rows >= request.slots
            full = power_of_two(len(group)) if first or crowded else most
            first = False
            count = fill_rows(full, cfg.mesh)
            tokens, lengths = pad_rows(group, count, width)
            yield (
                slots_lib.prefill(cfg, params, shared, prefix_length, tokens, lengths),
                deque((r, row) for r, p in enumerate(group) for row in rows_of[p]),
            )


def _entries(request: Request, rows: int, source, slot, row) -> slots_lib.Entries:
    """The request's rows ``row`` enter slots ``slot``; all lists of one length."""

    def padded(values, fill, dtype=np.int32):
        out = np.full(rows, fill, dtype)
        out[: len(values)] = values
        return out

    return slots_lib.Entries(
        count=np.int32(len(row)),
        source=padded(source, 0),
        target=padded(slot, rows),
        row_ids=padded(request.row_ids[row], 0, np.uint32),
        budget=padded([request.budgets[r // request.samples] for r in row], 0),
    )


def _stream(cfg, params, request: Request) -> Iterator[Response]:
    rows = request.slots
    response = max(request.budgets)
    cache = bucket(request.longest) + response
    cache += -cache % 8
    state = slots_lib.empty(
        cfg, request.sampling, request.key, rows=rows, cache=cache, response=response
    )
    params = slots_lib.prepare(cfg, params)
    shared = prefix_context(cfg, params, request.prefix)
    prefix_length = jnp.int32(len(request.prefix))
    groups = _prefills(cfg, params, shared, request)
    waiting = len(request.row_ids)
    prefilled, entering = None, deque()
    owner = [-1] * rows  # the request's row in each slot

    while True:
        free = [slot for slot in range(rows) if owner[slot] < 0]
        while free and waiting:
            if not entering:
                prefilled, entering = next(groups)
            slot, row, source = [], [], []
            while free and entering:
                slot.append(free.pop(0))
                row.append(entering[0][1])
                source.append(entering.popleft()[0])
                owner[slot[-1]] = row[-1]
            waiting -= len(slot)
            entries = _entries(request, rows, source, slot, row)
            state = slots_lib.insert(
                cfg, request.sampling, state, prefilled, entries, request.key
            )
            if not entering:  # room for the next group, and while decoding
                prefilled = None
        occupied = rows - len(free)
        if not occupied:
            return
        shrinks = request.shrink and rows >= LEAST_TO_SHRINK
        fewer = fill_rows(fewer_slots(rows), cfg.mesh) if shrinks else 0
        fewer = fewer if fewer < rows else 0
        if not waiting and occupied <= fewer:
            kept = sorted(range(rows), key=lambda slot: owner[slot] < 0)[:fewer]
            state = slots_lib.keep(cfg, state, np.array(kept, np.int32))
            owner, rows = [owner[slot] for slot in kept], fewer
            continue
        ended = len(free) + max(1, rows // 8) if waiting else rows - fewer
        state = slots_lib.decode(
            cfg,
            request.sampling,
            params,
            shared,
            prefix_length,
            state,
            np.int32(ended),
        )
        reason, generated, *columns = fetch(
            (state.reason, state.generated, state.tokens, state.plain, state.sampled)
        )
        for slot, row in enumerate(owner):
            if row < 0 or reason[slot] == RUNNING:
                continue
            owner[slot] = -1
            n = generated[slot]
            yield Response(
                row, *(x[slot, :n].copy() for x in columns), int(reason[slot])
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
