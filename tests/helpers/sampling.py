"""Tiny random models for the sampler's tests, and what a response should be."""

import dataclasses

import jax
import numpy as np
from helpers.forward import TINY

from models import decoder
from models.sampling import EOS, LENGTH, STOP, Sampling

SLIDING = dataclasses.replace(TINY, sliding_window=4)
SCANNED = dataclasses.replace(TINY, layer_loop="scan")
# Every second layer slides, layers scanned: the masks are then chosen inside the scan.
MIXED = dataclasses.replace(
    SLIDING, sliding_layers=(True, False), layer_loop="scan", qk_norm=True
)
FIVE = dataclasses.replace(TINY, vocab_size=5)
KEY = jax.random.key(11)


def params_of(cfg, seed=1):
    return decoder.init_params(cfg, jax.random.key(seed))


def random_prompts(count, longest, vocab_size=TINY.vocab_size, seed=0):
    """Ragged prompts of 1..longest tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    return [rng.integers(0, vocab_size, n).tolist() for n in lengths]


def truncated(tokens, rules: Sampling, budget: int):
    """(response, reason) of an endless response under the rules' endings."""
    for n in range(1, budget + 1):
        head = list(tokens[:n])
        if head[-1] in rules.eos_ids:
            return head, EOS
        if any(head[-len(stop) :] == list(stop) for stop in rules.stop):
            return head, STOP
    return head, LENGTH
