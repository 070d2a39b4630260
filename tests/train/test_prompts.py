"""The order of prompts: a function of (seed, iteration)."""

import numpy as np

from train.prompts import PromptOrder


def test_the_order_of_prompts_is_a_function_of_seed_and_iteration():
    """Invariance: each prompt once per epoch, across the borders of iterations."""
    prompts = [[i] for i in range(10)]
    order = PromptOrder(prompts, 4, seed=3)
    drawn = np.concatenate([order[i].ids for i in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert list(drawn[:10]) != list(drawn[10:])
    again = PromptOrder(prompts, 4, seed=3)
    np.testing.assert_array_equal(again[2].ids, drawn[8:12])  # asked for alone
    assert again.fingerprint == order.fingerprint
    assert PromptOrder(prompts[1:], 4, 3).fingerprint != order.fingerprint
    assert PromptOrder(prompts, 4, 4).fingerprint != order.fingerprint
