"""Sampling rules equal closed forms, plain counts and transformers' processors."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import sampling
from models.sampling import BANNED, EOS, LENGTH, RUNNING, STOP, Sampling

V = 23
adjust = jax.jit(sampling.adjust, static_argnums=1)
draw = jax.jit(sampling.draw, static_argnums=1)
sampled_log_probs = jax.jit(sampling.sampled_log_probs, static_argnums=1)


def random_logits(rows=6, seed=0, scale=3.0):
    return scale * jax.random.normal(jax.random.key(seed), (rows, V))


def adjusted(logits, **rules):
    """`sampling.adjust` of logits [B, V] before any response token."""
    logits = jnp.asarray(logits, jnp.float32)
    history = jnp.zeros((len(logits), 1), jnp.int32)
    length = jnp.zeros(len(logits), jnp.int32)
    return np.asarray(adjust(logits, Sampling(**rules), history, length))


def transformers_logits(name, logits, *arguments):
    """Logits after the transformers logits processor of that name."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    process = getattr(processors, name)(*arguments)
    ids = torch.zeros((len(logits), 1), dtype=torch.long)
    return process(ids, torch.tensor(np.asarray(logits))).numpy()


@pytest.mark.parametrize(
    "name, argument, rules",
    [
        ("TemperatureLogitsWarper", 0.7, {"temperature": 0.7}),
        ("TopKLogitsWarper", 5, {"top_k": 5}),
        ("TopKLogitsWarper", 1, {"top_k": 1}),
        ("TopPLogitsWarper", 0.8, {"top_p": 0.8}),
        ("TopPLogitsWarper", 0.05, {"top_p": 0.05}),
        ("MinPLogitsWarper", 0.1, {"min_p": 0.1}),
        ("SuppressTokensLogitsProcessor", [3, 17], {"banned": (3, 17)}),
        (
            "SequenceBiasLogitsProcessor",
            {(3,): -2.5, (9,): 1.5},
            {"bias": ((3, -2.5), (9, 1.5))},
        ),
    ],
)
def test_equals_transformers(name, argument, rules):
    """One rule alone keeps the same tokens with the same logits."""
    logits = random_logits()
    want = transformers_logits(name, logits, argument)
    got = adjusted(logits, **rules)
    np.testing.assert_array_equal(got <= BANNED / 2, np.isinf(want))
    np.testing.assert_allclose(got[~np.isinf(want)], want[~np.isinf(want)], rtol=1e-6)


def test_order_equals_transformers_pipeline():
    """Temperature, top-k, top-p, min-p in the order in which generate applies them."""
    logits = want = random_logits(seed=3)
    for name, argument in (
        ("TemperatureLogitsWarper", 1.7),
        ("TopKLogitsWarper", 12),
        ("TopPLogitsWarper", 0.9),
        ("MinPLogitsWarper", 0.15),
    ):
        want = transformers_logits(name, want, argument)
    got = adjusted(logits, temperature=1.7, top_k=12, top_p=0.9, min_p=0.15)
    np.testing.assert_array_equal(got <= BANNED / 2, np.isinf(want))
    np.testing.assert_allclose(got[~np.isinf(want)], want[~np.isinf(want)], rtol=1e-6)


def test_top_k_keeps_ties():
    """Tokens that tie with the k-th are kept; a k over the vocabulary keeps all."""
    logits = jnp.array([[1.0, 2.0, 2.0, 2.0, -1.0, -0.0, 0.0]])
    kept = adjusted(logits, top_k=2) > BANNED / 2
    np.testing.assert_array_equal(kept[0], [0, 1, 1, 1, 0, 0, 0])
    assert (adjusted(logits, top_k=7) == logits).all()
    assert (adjusted(logits, top_k=50) == logits).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=V, max_size=V),
    st.sampled_from([0.01, 0.5, 0.9, 0.999]),
    st.sampled_from([1, 2, 7, V - 1]),
)
def test_thresholds_equal_sorting(values, p, k):
    """Top-p and top-k, ties and all, equal their definitions by sorting."""
    logits = np.array([values], np.float32) * 1.1
    probs = np.exp(logits - logits.max())[0].astype(np.float64)
    probs /= probs.sum()
    order = sorted(range(V), key=lambda i: -probs[i])
    mass = np.cumsum(probs[order])
    if np.abs(mass - p).min() > 1e-5:
        last = order[int(np.argmax(mass >= p))]
        kept = adjusted(logits, top_p=p)[0] > BANNED / 2
        np.testing.assert_array_equal(kept, probs >= probs[last])
    kept = adjusted(logits, top_k=k)[0] > BANNED / 2
    np.testing.assert_array_equal(kept, logits[0] >= logits[0][order[k - 1]])


def test_no_rules_is_the_plain_model():
    """Default rules leave logits alone, and both log-probs are the log-softmax."""
    logits = random_logits()
    np.testing.assert_array_equal(adjusted(logits), logits)
    tokens = jnp.arange(6)
    plain, sampled = sampled_log_probs(
        logits, Sampling(), jnp.zeros((6, 1), jnp.int32), jnp.zeros(6, int), tokens
    )
    want = jax.nn.log_softmax(logits)[jnp.arange(6), tokens]
    np.testing.assert_allclose(plain, want, rtol=1e-6)
    np.testing.assert_array_equal(plain, sampled)


@pytest.mark.parametrize("rules", [{"top_k": 4}, {"top_p": 0.7}, {"temperature": 0.1}])
def test_probabilities_sum_to_one(rules):
    """exp(sampling log-prob) over the vocabulary is a distribution, without nan."""
    logits = random_logits(rows=1)
    rows = jnp.broadcast_to(logits, (V, V))
    history, length = jnp.zeros((V, 1), jnp.int32), jnp.zeros(V, jnp.int32)
    _, sampled = sampled_log_probs(
        rows, Sampling(banned=(2,), **rules), history, length, jnp.arange(V)
    )
    assert np.isfinite(sampled).all()
    np.testing.assert_allclose(np.exp(sampled).sum(), 1, rtol=1e-5)
    assert np.exp(sampled[2]) == 0


def test_every_token_banned_is_finite():
    """Even a contradiction gives finite numbers."""
    logits = random_logits(rows=2)
    rules = Sampling(banned=tuple(range(V)), temperature=0.5)
    history, length = jnp.zeros((2, 1), jnp.int32), jnp.zeros(2, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 2)
    tokens, plain, sampled = draw(logits, rules, history, length, keys)
    assert np.isfinite(plain).all() and np.isfinite(sampled).all()
    assert ((tokens >= 0) & (tokens < V)).all()


def test_greedy_takes_the_first_maximum():
    """Temperature 0 is argmax after bias and bans, with probability one."""
    logits = jnp.array([[0.0, 3.0, 3.0, 1.0], [0.0, 3.0, 3.0, 9.0]])
    rules = Sampling(temperature=0, banned=(3,))
    keys = jax.random.split(jax.random.key(0), 2)
    history, length = jnp.zeros((2, 1), jnp.int32), jnp.zeros(2, jnp.int32)
    tokens, plain, sampled = draw(logits, rules, history, length, keys)
    np.testing.assert_array_equal(tokens, [1, 1])
    np.testing.assert_array_equal(sampled, [0, 0])
    np.testing.assert_allclose(plain, jax.nn.log_softmax(logits)[:, 1], rtol=1e-6)


def count_ngrams(response, order):
    """{w: times that (last order - 1 tokens, w) occurs in the response}."""
    last = response[len(response) - order + 1 :]
    counts = collections.Counter()
    if len(response) < order - 1:
        return counts
    for i in range(len(response) - order + 1):
        if response[i : i + order - 1] == last:
            counts[response[i + order - 1]] += 1
    return counts


ngram_counts = jax.jit(sampling.ngram_counts, static_argnums=(2, 3))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_ngram_counts(response, order):
    """Counts equal a plain Python count; what lies beyond the length is not read."""
    history = np.full((2, 12), 3, np.int32)
    history[0, : len(response)] = response
    got = ngram_counts(history, jnp.array([len(response), 0]), order, 5)
    want = count_ngrams(response, order)
    np.testing.assert_array_equal(got[0], [want[w] for w in range(5)])
    np.testing.assert_array_equal(got[1], np.zeros(5))


def test_ngram_penalties_and_exemptions():
    """logit[w] -= sum of weight * count over orders, then temperature; some spared."""
    response = [1, 2, 1, 2, 1]
    logits = random_logits(rows=1)
    rules = Sampling(
        ngram_penalties=(0.5, 0.0, 2.0), ngram_exempt=(1,), temperature=2.0
    )
    history = jnp.array([response + [9, 9]])
    got = adjust(logits, rules, history, jnp.array([5]))
    want = np.array(logits)
    for order, weight in ((1, 0.5), (3, 2.0)):
        for w, n in count_ngrams(response, order).items():
            want[0, w] -= weight * n * (w != 1)
    np.testing.assert_allclose(got, want / 2, rtol=1e-6)


RULES = Sampling(eos_ids=(5, 6), stop=((1, 2, 3), (4,), (2, 3)))
ends = jax.jit(functools.partial(sampling.ends, RULES))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(1, 6))
def test_ends(response, budget):
    """EOS before STOP before LENGTH, each by its definition on the response alone."""
    recent = ([-1, -1, -1] + response)[-3:]
    got = ends(
        jnp.array(response[-1:]),
        jnp.array([recent]),
        jnp.array([len(response)]),
        jnp.array([budget]),
    )
    stops = [list(s) for s in RULES.stop]
    want = RUNNING
    if len(response) >= budget:
        want = LENGTH
    if any(response[-len(s) :] == s for s in stops):
        want = STOP
    if response[-1] in RULES.eos_ids:
        want = EOS
    assert got[0] == want


@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("stop", ((1,), ())),
        ("stop", (1, 2)),
        ("temperature", 1e-40),
        ("temperature", float("inf")),
        ("top_k", 2.5),
        ("top_k", True),
        ("eos_ids", 2),
        ("bias", ((1, float("nan")),)),
        ("ngram_penalties", (float("nan"),)),
    ],
)
def test_impossible_rules_are_named(field, value):
    """The error names the field and the value."""
    with pytest.raises(ValueError, match=f"Sampling.{field}"):
        Sampling(**{field: value})


@pytest.mark.parametrize(
    "rules, field",
    [
        ({"eos_ids": (V,)}, "eos_ids"),
        ({"stop": ((1, 99),)}, "stop"),
        ({"banned": (-1,)}, "banned"),
        ({"bias": ((V, 1.0),)}, "bias"),
        ({"ngram_exempt": (400,)}, "ngram_exempt"),
    ],
)
def test_foreign_ids_are_named(rules, field):
    """A rule with an id outside the vocabulary is an error that names both."""
    with pytest.raises(ValueError, match=f"Sampling.{field}.*vocabulary of {V}"):
        sampling.check_ids(Sampling(**rules), V)
    sampling.check_ids(Sampling(eos_ids=(V - 1,), stop=((0,),)), V)


def test_lists_become_tuples():
    """Rules stay hashable, as a static argument must be, and equal."""
    lists = Sampling(eos_ids=[2], stop=[[1, 2]], bias=[[3, 0.5]], banned=[4])
    tuples = Sampling(eos_ids=(2,), stop=((1, 2),), bias=((3, 0.5),), banned=(4,))
    assert lists == tuples and hash(lists) == hash(tuples)
