"""Teacher-forced log-probs equal the sampler's, and those of the plain forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import forward
from helpers.forward import TINY
from helpers.sampling import KEY, MIXED, SLIDING, params_of, random_prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from models import sampler, sampling, scoring
from models.config import RopeConfig
from models.errors import PromptError
from models.sampling import Sampling

PROMPTS = random_prompts(4, 8, seed=4)
PREFIX = [7, 1, 30, 2, 7, 7, 12]
ENDINGS = dict(eos_ids=(3, 9), stop=((4,), (5, 6)))
SETTINGS = {
    "greedy": dict(temperature=0.0),
    "greedy-shaped": dict(
        temperature=0.0, bias=((3, -4.0),), ngram_penalties=(0.0, 2.0)
    ),
    "plain": {},
    "temperature": dict(temperature=0.6),
    "top-k": dict(top_k=4),
    "top-p": dict(top_p=0.7),
    "min-p": dict(min_p=0.2),
    "bans-and-bias": dict(banned=(0, 5), bias=((1, 2.0), (8, -1.0))),
    "n-grams": dict(ngram_penalties=(0.5, 1.0, 4.0), ngram_exempt=(2, 11)),
}
ALL = dict(
    temperature=1.4, top_k=9, top_p=0.9, min_p=0.05, banned=(0,), bias=((1, 1.5),),
    ngram_penalties=(0.3, 0.8), ngram_exempt=(2,),
)  # fmt: skip
DYNAMIC = dataclasses.replace(
    TINY,
    rope=RopeConfig(theta=100.0, kind="dynamic", factor=2.0, original_max_position=6),
)


def teacher_forced(cfg, params, rollout, rules, prefix=(), **options):
    return scoring.response_log_probs(
        cfg, params, rollout.prompts, rollout.prompt_lengths, rollout.tokens,
        rollout.lengths, rules, sampler.prefix_context(cfg, params, prefix),
        len(prefix), **options,
    )  # fmt: skip


def assert_teacher_forcing(cfg, rules, prefix, atol=2e-4):
    """Both log-probs of a rollout equal the teacher-forced ones."""
    params = params_of(cfg)
    options = dict(max_new_tokens=[8, 3, 8, 6], slots=4, samples=2, prefix=prefix)
    rollout = sampler.generate(cfg, params, PROMPTS, rules, KEY, **options)
    plain, sampled = teacher_forced(cfg, params, rollout, rules, prefix)
    np.testing.assert_allclose(plain, rollout.log_probs, atol=atol)
    np.testing.assert_allclose(sampled, rollout.sampling_log_probs, atol=atol)
    assert (rollout.sampling_log_probs > -100).all()
    return rollout


@pytest.mark.parametrize("name", SETTINGS)
def test_teacher_forcing(name):
    """Every sampling rule, for two samples of each prompt, through refilled slots."""
    rules = Sampling(**SETTINGS[name], **ENDINGS)
    rollout = assert_teacher_forcing(TINY, rules, ())
    if rules.reshapes and rules.temperature:
        assert (rollout.log_probs != rollout.sampling_log_probs)[rollout.mask > 0].any()


@pytest.mark.parametrize(
    "cfg, prefix",
    [(TINY, ()), (TINY, PREFIX), (SLIDING, PREFIX), (MIXED, PREFIX), (DYNAMIC, ())],
    ids=["alone", "prefix", "sliding", "mixed", "dynamic"],
)
def test_teacher_forcing_of_all_rules(cfg, prefix):
    """All rules together, in every kind of model, layer loops unrolled and scanned."""
    assert_teacher_forcing(cfg, Sampling(**ALL, **ENDINGS), prefix)


@pytest.mark.parametrize("dtype", ["bf16_compute", "bfloat16"])
def test_teacher_forcing_in_bfloat16(dtype):
    """bfloat16 models: finite, and within bfloat16's error of teacher forcing."""
    cfg = dataclasses.replace(SLIDING, dtype=dtype)
    rules = Sampling(temperature=0.8, **ENDINGS)
    rollout = assert_teacher_forcing(cfg, rules, PREFIX, atol=0.15)
    assert np.isfinite(rollout.log_probs).all()
    plain, _ = teacher_forced(cfg, params_of(cfg), rollout, rules, PREFIX)
    assert np.sqrt(np.mean((plain - rollout.log_probs) ** 2)) < 0.03


log_softmax = jax.jit(
    lambda cfg, params, *batch: jax.nn.log_softmax(
        forward.logits(cfg, params, *batch), axis=-1
    ),
    static_argnums=0,
)


def plain_log_probs(cfg, params, context, continuation, width=32):
    """Log-probs of a continuation of one context, by one forward pass of both."""
    sequence = [*context, *continuation]
    logp = log_softmax(cfg, params, *forward.rows([sequence], width))[0]
    place = np.arange(len(context) - 1, len(sequence) - 1)
    return np.asarray(logp)[place, continuation]


def test_responses_equal_the_forward_pass():
    """Plain log-probs are those of one forward pass of prompt and response."""
    params = params_of(TINY)
    prompts, lengths = sampler.pad_rows(PROMPTS, 4, 8)
    responses = random_prompts(4, 8, seed=5)
    tokens, counts = sampler.pad_rows(responses, 4, 8)
    plain, sampled = scoring.response_log_probs(
        TINY, params, prompts, lengths, tokens, counts, Sampling()
    )
    np.testing.assert_array_equal(plain, sampled)
    for row, (prompt, response) in enumerate(zip(PROMPTS, responses, strict=True)):
        want = plain_log_probs(TINY, params, prompt, response)
        np.testing.assert_allclose(plain[row, : len(response)], want, atol=1e-4)
        assert not plain[row, len(response) :].any()


def test_padding_and_chunks_do_not_matter():
    """Wider padding with any tokens in it, and any chunk size, change nothing."""
    params, rules = params_of(TINY), Sampling(**ALL)
    prompts, lengths = sampler.pad_rows(PROMPTS, 4, 8)
    tokens, counts = sampler.pad_rows(random_prompts(4, 5, seed=5), 4, 5)
    want = scoring.response_log_probs(
        TINY, params, prompts, lengths, tokens, counts, rules
    )
    noisy = [
        np.where(np.arange(width) < n[:, None], np.pad(x, ((0, 0), (0, 3))), 30)
        for x, n, width in ((prompts, lengths, 11), (tokens, counts, 8))
    ]
    got = scoring.response_log_probs(
        TINY, params, noisy[0], lengths, noisy[1], counts, rules, chunk=3
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a[:, :5], b, atol=1e-4)
        assert not a[:, 5:].any()


join = jax.jit(scoring.join)


@given(st.data())
def test_join(data):
    """Row by row, the prompt without its padding, then the response."""
    prompts, tokens = np.arange(1, 13).reshape(3, 4), np.arange(21, 36).reshape(3, 5)
    lengths = np.array(data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=3)))
    got = np.asarray(join(jnp.array(prompts), jnp.array(lengths), jnp.array(tokens)))
    for row, n in enumerate(lengths):
        want = [*prompts[row, :n], *tokens[row]]
        assert got[row, : n + 5].tolist() == want


@pytest.mark.parametrize(
    "cfg, prefix",
    [(TINY, ()), (SLIDING, PREFIX), (MIXED, PREFIX)],
    ids=["alone", "sliding", "mixed"],
)
def test_continuations_equal_the_forward_pass(cfg, prefix):
    """Each choice beside the others scores as it does alone, in a forward pass."""
    params = params_of(cfg)
    choices = [random_prompts(n, 6, seed=n) for n in (3, 1, 4, 2)]
    scores = scoring.score_continuations(
        cfg, params, PROMPTS, choices, prefix=prefix, rows=2
    )
    for prompt, some, got in zip(PROMPTS, choices, scores, strict=True):
        assert len(some) == len(got)
        for choice, score in zip(some, got, strict=True):
            want = plain_log_probs(cfg, params, [*prefix, *prompt], choice)
            np.testing.assert_allclose(score, want, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)), st.sampled_from([1, 3]))
def test_choices_do_not_see_each_other(order, count):
    """The order and the number of choices do not change their scores."""
    params, choices = params_of(TINY), random_prompts(3, 6, seed=3)
    (want,) = scoring.score_continuations(TINY, params, PROMPTS[:1], [choices])
    some = [choices[i] for i in order[:count]]
    (got,) = scoring.score_continuations(TINY, params, PROMPTS[:1], [some])
    for i, score in zip(order, got, strict=False):
        np.testing.assert_allclose(score, want[i], atol=1e-4)


@pytest.mark.parametrize(
    "prompts, choices, message",
    [
        ([[1]], [[[2], []]], "prompt 0, continuation 1 is empty"),
        ([[1]], [[[31]]], "prompt 0, continuation 0: token 31"),
        ([[1], []], [[[2]], [[2]]], "prompt 1 is empty"),
        ([[1] * 2048], [[[2]]], "prompt 0 has 2048 tokens"),
        ([[1], [1]], [[[2]], []], "prompt 1: expected at least one continuation"),
    ],
)
def test_bad_continuations_are_named(prompts, choices, message):
    """The error names the prompt and the continuation."""
    with pytest.raises(PromptError, match=message):
        scoring.score_continuations(TINY, None, prompts, choices)


def test_lists_must_match():
    """One list of continuations for each prompt; none for none."""
    with pytest.raises(ValueError, match="expected 2 lists"):
        scoring.score_continuations(TINY, None, [[1], [2]], [[[1]]])
    assert scoring.score_continuations(TINY, params_of(TINY), [], []) == []


def test_continuations_with_dynamic_rope_equal_response_log_probs():
    """Past the original length a continuation is scored as the sampler would."""
    params = params_of(DYNAMIC)
    prompts = random_prompts(2, 8, seed=3)
    choices = [random_prompts(3, 9, seed=10 + i) for i in range(2)]
    got = scoring.score_continuations(DYNAMIC, params, prompts, choices)
    for prompt, several, scores in zip(prompts, choices, got, strict=True):
        padded = sampler.pad_rows([prompt] * 3, 3, 8)
        tokens, counts = sampler.pad_rows(several, 3, 16)
        want, _ = scoring.response_log_probs(
            DYNAMIC, params, *padded, tokens, counts, Sampling()
        )
        for choice, score, row in zip(several, scores, want, strict=True):
            np.testing.assert_allclose(score, row[: len(choice)], atol=1e-4)


def test_dynamic_rope_cannot_share_a_prefix_past_its_length():
    """The prefix would have been turned for another length; the error says so."""
    with pytest.raises(PromptError, match="put it into the prompts"):
        scoring.score_continuations(
            DYNAMIC, params_of(DYNAMIC), [[1, 2]], [[[3] * 20]], prefix=[4, 5]
        )


def test_greedy_gives_its_token_probability_one_and_others_none():
    """Teacher forcing of tokens that greedy decoding would not draw."""
    logits = jnp.array([[0.0, 3.0, 1.0]] * 3)
    history, length = jnp.zeros((3, 1), jnp.int32), jnp.zeros(3, jnp.int32)
    rules = Sampling(temperature=0, banned=(1,))
    _, sampled = sampling.sampled_log_probs(
        logits, rules, history, length, jnp.array([0, 1, 2])
    )
    assert sampled[2] == 0 and (sampled[:2] <= sampling.BANNED).all()
