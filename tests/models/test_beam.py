"""Beam search equals what it stands for: all responses ranked, or greedy sampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.sampling import FIVE, KEY, TINY, params_of, random_prompts

from models import decoder, sampler
from models.beam import beam_search
from models.sampling import EOS, LENGTH, STOP, Sampling

RULES = Sampling(temperature=0.0, eos_ids=(2,), stop=((3, 1),))


def log_prob(params, prompt, response):
    """Of every token of a response, by a forward pass."""
    ids = jnp.array([[*prompt, *response]])
    positions, segments = decoder.plain_inputs(jnp.array([ids.shape[1]]), ids.shape[1])
    hidden = decoder.forward(FIVE, params, ids, positions, segments)
    logits = jax.nn.log_softmax(decoder.logits(FIVE, params, hidden)[0], axis=-1)
    at = np.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    return np.asarray(logits)[at, list(response)]


def responses(budget):
    """All that the rules allow, each with its end."""
    found = {}
    for tokens in itertools.product(range(5), repeat=budget):
        for n in range(1, budget + 1):
            head = tokens[:n]
            ended = EOS if head[-1] == 2 else STOP if head[-2:] == (3, 1) else LENGTH
            if ended != LENGTH or n == budget:
                found[head] = ended
                break
    return found


def test_a_wide_beam_ranks_all_responses():
    """With room for all of them it keeps all, in the order of their probability."""
    params, prompt = params_of(FIVE), [4, 0, 1]
    every = responses(3)
    (found,) = beam_search(
        FIVE, params, [prompt], RULES, width=128, max_new_tokens=3, longest=9
    )
    assert {tuple(h.tokens): h.reason for h in found} == every
    scores = [float(h.log_probs.sum()) for h in found]
    assert scores == sorted(scores, reverse=True)
    for hypothesis in found[::17]:
        np.testing.assert_allclose(
            hypothesis.log_probs,
            log_prob(params, prompt, hypothesis.tokens),
            atol=1e-5,
        )


@pytest.mark.parametrize("rows", [1, 64])
def test_a_beam_of_one_is_greedy(rows):
    """Token for token what the sampler writes; in groups or all at once."""
    params, prompts = params_of(TINY), random_prompts(5, 9)
    rules = Sampling(temperature=0.0, eos_ids=(2,))
    greedy = sampler.generate(TINY, params, prompts, rules, KEY, max_new_tokens=6)
    found = beam_search(
        TINY, params, prompts, rules, width=1, max_new_tokens=6, rows=rows
    )
    for i, (hypothesis,) in enumerate(found):
        assert hypothesis.tokens.tolist() == greedy.response(i)
        np.testing.assert_allclose(
            hypothesis.log_probs,
            greedy.log_probs[i, : len(hypothesis.tokens)],
            atol=1e-5,
        )


def test_prompts_do_not_touch_each_other():
    """A beam of several prompts of different lengths is each one's own."""
    params, prompts = params_of(FIVE), random_prompts(3, 6, vocab_size=5)
    given = dict(width=4, max_new_tokens=4, longest=8)
    together = beam_search(FIVE, params, prompts, RULES, **given)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = beam_search(FIVE, params, [prompt], RULES, **given)
        assert [h.tokens.tolist() for h in alone] == [h.tokens.tolist() for h in found]
        assert len({tuple(h.tokens) for h in found}) == 4, "no two are the same"
