"""Sampling rules: pure transforms of next-token logits, and when a response ends.

The order is fixed and the same in the sampler and in teacher-forced scoring: bias and
bans, n-gram penalties, temperature, top-k, top-p, min-p. The transformed logits are the
*sampling distribution*; the untouched ones are the *plain model*.
"""

import dataclasses
import math
import numbers

import jax
import jax.numpy as jnp

RUNNING, EOS, STOP, LENGTH = 0, 1, 2, 3
REASONS = ("running", "eos", "stop", "length")
COLDEST = 1e-4  # colder, logits / temperature overflows into greedy or nan
BANNED = -1e10  # finite: a row of bans must not turn into nan


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw a response. Immutable and hashable: a static jit argument.

    temperature: 0 is greedy (the first of equal maxima).
    top_k: keep logits >= the k-th largest (ties kept); 0 keeps all.
    top_p: keep the smallest set of most likely tokens whose probability reaches top_p
        (tokens as likely as the last one are kept too).
    min_p: keep tokens at least min_p times as likely as the likeliest.
    eos_ids: a response ends after any of these; the token stays in the response.
    stop: token sequences that end a response; they stay in the response.
    banned: ids never drawn. bias: (id, added logit) pairs.
    ngram_penalties: (c_1, c_2, ...): logit[w] -= c_n * (times that the last n-1 tokens
        followed by w occur in the response so far); ngram_exempt ids are spared.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    eos_ids: tuple[int, ...] = ()
    stop: tuple[tuple[int, ...], ...] = ()
    banned: tuple[int, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    ngram_penalties: tuple[float, ...] = ()
    ngram_exempt: tuple[int, ...] = ()

    def __post_init__(self):
        def require(good, field, expected):
            if not good:
                value = getattr(self, field)
                raise ValueError(f"Sampling.{field}: expected {expected}, got {value}")

        def is_int(x):
            return isinstance(x, numbers.Integral) and not isinstance(x, bool)

        def are_ints(xs):
            return isinstance(xs, tuple) and all(map(is_int, xs))

        for field in ("eos_ids", "banned", "ngram_penalties", "ngram_exempt"):
            value = getattr(self, field)
            if isinstance(value, list):  # hashable, as a static argument must be
                object.__setattr__(self, field, tuple(value))
        for field in ("stop", "bias"):
            value = getattr(self, field)
            if isinstance(value, list | tuple):
                items = [tuple(x) if isinstance(x, list) else x for x in value]
                object.__setattr__(self, field, tuple(items))

        cold = 0 < self.temperature < COLDEST
        require(
            0 <= self.temperature < math.inf and not cold,
            "temperature",
            f"0 (greedy) or a number >= {COLDEST}",
        )
        require(is_int(self.top_k) and self.top_k >= 0, "top_k", "an integer >= 0")
        require(0 < self.top_p <= 1, "top_p", "a number in (0, 1]")
        require(0 <= self.min_p <= 1, "min_p", "a number in [0, 1]")
        for field in ("eos_ids", "banned", "ngram_exempt"):
            require(are_ints(getattr(self, field)), field, "a tuple of token ids")
        require(
            isinstance(self.stop, tuple) and all(s and are_ints(s) for s in self.stop),
            "stop",
            "non-empty token sequences",
        )
        require(
            isinstance(self.bias, tuple)
            and all(isinstance(b, tuple) and len(b) == 2 for b in self.bias)
            and all(is_int(i) and math.isfinite(x) for i, x in self.bias),
            "bias",
            "(token id, finite number) pairs",
        )
        require(
            all(map(math.isfinite, self.ngram_penalties)),
            "ngram_penalties",
            "finite numbers",
        )

    @property
    def reshapes(self) -> bool:
        """Whether the sampling distribution differs from the plain model's."""
        return self != dataclasses.replace(
            Sampling(), eos_ids=self.eos_ids, stop=self.stop
        )


def check_ids(sampling: Sampling, vocab_size: int) -> None:
    """Raise ValueError for any id of the rules that is outside the vocabulary."""
    ids = {
        "eos_ids": sampling.eos_ids,
        "stop": tuple(i for stop in sampling.stop for i in stop),
        "banned": sampling.banned,
        "bias": tuple(i for i, _ in sampling.bias),
        "ngram_exempt": sampling.ngram_exempt,
    }
    for field, values in ids.items():
        bad = [i for i in values if not 0 <= i < vocab_size]
        if bad:
            raise ValueError(
                f"Sampling.{field}: {bad[0]} is outside the vocabulary of {vocab_size}"
            )


def ngram_counts(history, length, order: int, vocab_size: int):
    """How often each token w would repeat an n-gram of the response.

    Args:
      history: int32 [B, R] response tokens; length: int32 [B], how many are real.

    Returns:
      float32 [B, V]: number of earlier n-grams equal to (last n-1 tokens, w).
    """
    B, R = history.shape
    place = jnp.arange(R)[None]
    match = (place < length[:, None]) & (place >= order - 1)
    for back in range(1, order):
        last = jnp.take_along_axis(
            history, jnp.maximum(length[:, None] - back, 0), axis=1
        )
        match &= (jnp.roll(history, back, axis=1) == last) & (length[:, None] >= back)
    counts = jnp.zeros((B, vocab_size))
    rows = jnp.arange(B)[:, None]
    return counts.at[rows, history].add(match.astype(jnp.float32))


def _ordered(values):
    """uint32 with the order of float32 values."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits & sign, ~bits, bits | sign)


def _keep_from(logits, enough):
    """Ban the logits below the highest threshold whose tokens are ``enough``.

    The threshold is found exactly, bit by bit, in 32 passes: sorting the vocabulary
    costs far more. ``enough(kept [B, V])`` -> bool [B] is monotone in the set kept.
    """
    places = _ordered(logits)

    def set_bit(i, threshold):
        higher = threshold | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        return jnp.where(enough(places >= higher[:, None]), higher, threshold)

    lowest = jnp.zeros(logits.shape[:1], jnp.uint32)
    threshold = jax.lax.fori_loop(0, 32, set_bit, lowest)
    return jnp.where(places >= threshold[:, None], logits, BANNED)


def _top_k(logits, k: int):
    return _keep_from(logits, lambda kept: jnp.sum(kept, axis=-1) >= k)


def _top_p(logits, p: float):
    probs = jax.nn.softmax(logits, axis=-1)
    return _keep_from(logits, lambda kept: jnp.sum(probs * kept, axis=-1) >= p)


def _min_p(logits, p: float):
    floor = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits < floor, BANNED, logits)


def adjust(logits, sampling: Sampling, history, length):
    """Logits of the sampling distribution.

    Args:
      logits: float32 [B, V], the plain model's.
      history: int32 [B, R], the response so far; length: int32 [B], how much is real.

    Returns:
      float32 [B, V]; greedy sampling leaves the temperature out.
    """
    V = logits.shape[-1]
    if sampling.bias:
        ids, added = zip(*sampling.bias, strict=True)
        logits = logits.at[:, jnp.array(ids)].add(jnp.array(added, jnp.float32))
    if sampling.banned:
        logits = logits.at[:, jnp.array(sampling.banned)].set(BANNED)
    for order, weight in enumerate(sampling.ngram_penalties, start=1):
        if weight:
            penalty = weight * ngram_counts(history, length, order, V)
            if sampling.ngram_exempt:
                penalty = penalty.at[:, jnp.array(sampling.ngram_exempt)].set(0.0)
            logits = logits - penalty
    if sampling.temperature == 0:
        return logits
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < V:
        logits = _top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = _top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = _min_p(logits, sampling.min_p)
    return logits


def log_probs(logits, tokens):
    """Log-probability, float32 [...], of tokens [...] under logits [..., V]."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def sampled_log_probs(logits, sampling: Sampling, history, length, tokens):
    """(plain, sampling) log-probabilities [B] of tokens [B].

    Greedy sampling gives its one token 0 and every other `BANNED`.
    """
    plain = log_probs(logits, tokens)
    if not sampling.reshapes:
        return plain, plain
    adjusted = adjust(logits, sampling, history, length)
    if sampling.temperature == 0:
        drawn = tokens == jnp.argmax(adjusted, axis=-1)
        return plain, jnp.where(drawn, 0.0, BANNED)
    return plain, log_probs(adjusted, tokens)


def draw(logits, sampling: Sampling, history, length, keys):
    """One token for each row: int32 [B], and its (plain, sampling) log-probs [B].

    Args:
      keys: a PRNG key for each row [B]; the draw depends on nothing else of the batch.
    """
    adjusted = adjust(logits, sampling, history, length)
    if sampling.temperature == 0:
        tokens = jnp.argmax(adjusted, axis=-1).astype(jnp.int32)
        plain = log_probs(logits, tokens)
        return tokens, plain, jnp.zeros_like(plain)
    V = logits.shape[-1]
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (V,)))(keys)
    tokens = jnp.argmax(adjusted + noise, axis=-1).astype(jnp.int32)
    plain = log_probs(logits, tokens)
    if not sampling.reshapes:
        return tokens, plain, plain
    return tokens, plain, log_probs(adjusted, tokens)


def ends(sampling: Sampling, tokens, recent, generated, budget):
    """Why each row ends with its newest token, int32 [B]: RUNNING, EOS, STOP or LENGTH.

    Args:
      tokens: int32 [B], the newest token; recent: int32 [B, W], the response's last W
        tokens, newest last, -1 before its start; generated, budget: int32 [B].
    """
    reason = jnp.where(generated >= budget, LENGTH, RUNNING)
    for stop in sampling.stop:
        tail = recent[:, recent.shape[1] - len(stop) :]
        reason = jnp.where(jnp.all(tail == jnp.array(stop), axis=1), STOP, reason)
    for eos in sampling.eos_ids:
        reason = jnp.where(tokens == eos, EOS, reason)
    return reason.astype(jnp.int32)
