"""Where rewards land, what they sum to, and that nothing is rounded on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rollout import Rollout
from models.sampling import EOS, LENGTH
from train import rewards as lib
from train.rewards import Reward, Term, combine, process, shape_steps, to_terminal

PAD, END = 0, 9


def rollout(responses, reasons=None, width=6):
    """Responses of token ids to prompts of one to N tokens."""
    n = len(responses)
    prompts, tokens = np.zeros((n, n), np.int32), np.zeros((n, width), np.int32)
    for i, response in enumerate(responses):
        prompts[i, : i + 1] = 5
        tokens[i, : len(response)] = response
    zeros = np.zeros((n, width), np.float32)
    ends = [EOS if r[-1] == END else LENGTH for r in responses]
    return Rollout(
        prompts,
        np.arange(1, n + 1, dtype=np.int32),
        tokens,
        np.array([len(r) for r in responses], np.int32),
        zeros,
        zeros,
        np.array(ends if reasons is None else reasons, np.int32),
    )


ROLLOUT = rollout([[1, PAD, 3, END], [4, END], [1, 2, 3, 4, 5, 6]])


def terminal(values, name="given"):
    return Reward(name, "terminal", lambda rollout, ids: np.array(values))


def test_a_reward_of_three_tenths_arrives_as_three_tenths():
    """Equality: float32 0.3 on the EOS of each response, also past an inner pad id."""
    found = combine([Term(terminal([0.3, 0.3, 0.3]))])(ROLLOUT, [0, 1, 2])
    expected = np.zeros((3, 6), np.float32)
    expected[0, 3] = expected[1, 1] = expected[2, 5] = np.float32(0.3)
    assert found.tokens.dtype == np.float32
    np.testing.assert_array_equal(found.tokens, expected)
    assert ROLLOUT.tokens[0, 3] == ROLLOUT.tokens[1, 1] == END
    assert found.metrics["reward"] == pytest.approx((0.9, 3))


def test_terms_add_up_with_their_weights():
    """Closed form: sum of weight * credit; each term has its own metric."""
    per_token = Reward("per_token", "tokens", lambda r, ids: np.full((3, 6), 0.1))
    steps = Reward(
        "steps", "steps", lambda r, ids: lib.Steps([[0, 0], [1], []],
                                                   [[0.5, 0.25], [1.0], []])
    )  # fmt: skip
    terms = [Term(terminal([1, 0, 2]), 2.0), Term(per_token, -1.0), Term(steps)]
    found = combine(terms)(ROLLOUT, [0, 1, 2])
    expected = -0.1 * ROLLOUT.mask
    expected[0, 3] += 2
    expected[2, 5] += 4
    expected[0, 0] += 0.75
    expected[1, 1] += 1
    np.testing.assert_allclose(found.tokens, expected, atol=1e-6)
    assert found.metrics["reward/per_token"] == pytest.approx((-1.2, 3))
    assert found.metrics["reward/given"] == pytest.approx((6.0, 3))
    total = sum(v[0] for k, v in found.metrics.items() if k != "reward")
    assert found.metrics["reward"][0] == pytest.approx(total)


def test_transforms_apply_in_order():
    """Closed form: to_terminal keeps the sum; clip bounds every token."""
    values = Reward("r", "tokens", lambda r, ids: np.full((3, 6), 2.0))
    term = Term(values, 0.5, (to_terminal, lib.clip(-5, 5)))
    found = combine([term])(ROLLOUT, [0, 1, 2]).tokens
    expected = np.zeros((3, 6))
    expected[0, 3], expected[1, 1], expected[2, 5] = 2.5, 2.0, 2.5
    np.testing.assert_allclose(found, expected)


def test_final_answers_without_a_truth_get_the_middle():
    """Closed form: 1 right, 0 wrong, 0.25 unknown; ids reach the grader."""
    seen = []

    def correct(ids, prompt_id):
        seen.append((tuple(ids), prompt_id))
        return {7: True, 8: False, 9: None}[prompt_id]

    reward = lib.final_answer(correct)
    assert list(reward.fn(ROLLOUT, [7, 8, 9])) == [1.0, 0.0, 0.25]
    assert seen[0] == ((1, PAD, 3, END), 7)


def test_truncation_costs_and_lengths_are_shares():
    """Closed form: -1 for reason "length" only; length / budget."""
    cut = rollout([[1, END], [1, 2, 3, 4, 5, END], [1, 2, 3, 4, 5, 6]])
    assert list(lib.missing_eos().fn(cut, None)) == [0, 0, -1]
    np.testing.assert_allclose(lib.length().fn(cut, None), [2 / 6, 1, 1])
    assert list(lib.ended(cut)) == [True, True, False]


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0, 1), st.floats(-1, 1))
def test_step_rewards_sum_to_the_lowest_step(p, upper, bonus):
    """Closed form: sum = min(0, min p - upper) + bonus, of "prod" with prod p."""
    for scheme, low in (("min", min(p, default=1)), ("prod", np.prod(p))):
        found = shape_steps(p, scheme, upper, bonus)
        expected = min(0, low - upper) + bonus if p else 0
        assert found.sum() == pytest.approx(expected, abs=1e-5)
        assert len(found) == len(p)


def test_only_new_lows_cost():
    """Closed form: the published example's scheme, u = 0.5, no bonus."""
    found = shape_steps([0.9, 0.4, 0.6, 0.1], "min", 0.5, 0.0)
    np.testing.assert_allclose(found, [0, -0.1, 0, -0.3], atol=1e-6)
    found = shape_steps([0.9, 0.5, 0.5], "prod", 0.5, 0.0)
    np.testing.assert_allclose(found, [0, -0.05, -0.225], atol=1e-6)


def test_process_rewards_land_on_step_ends():
    """Closed form: places of the response; the scorer sees prompt + response."""
    asked = []

    def score(rows, places):
        asked.extend(zip(rows, places, strict=True))
        return [np.array([row[p] / 10 for p in ps]) for row, ps in asked[-len(rows) :]]

    reward = process(score, lambda ids: [i for i, t in enumerate(ids) if t in (3, 6)])
    found = combine([Term(reward)])(ROLLOUT, [0, 1, 2]).tokens
    assert asked[0] == ([5, 1, PAD, 3, END], [3])
    assert asked[2] == ([5, 5, 5, 1, 2, 3, 4, 5, 6], [5, 8])
    low = [1 / (1 + np.exp(-x)) for x in (0.3, 0.6)]
    assert min(low) > 0.5  # so that only the bonus is left
    expected = np.zeros((3, 6))
    expected[0, 2], expected[2, 2], expected[2, 5] = 0.25, 0.125, 0.125
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_original_reads_three_tokens_and_pays_two():
    """Closed form: the lowest of three logits counts; half of the reward on each."""

    def score(rows, places):
        return [np.array([-5.0 if p == 5 else 5.0 for p in ps]) for ps in places]

    reward = process(score, lambda ids: [4], bonus=0.0, read=3, spread=2)
    found = combine([Term(reward)])(rollout([[1, 2, 3, 4, 5, 6]]), [0]).tokens[0]
    half = (1 / (1 + np.exp(5)) - 0.5) / 2
    np.testing.assert_allclose(found, [0, 0, 0, half, half, 0], atol=1e-6)


def test_model_scores_are_read_at_the_last_token():
    """Equality: the scorer is asked for the place of EOS, or of the token before it."""

    def score(rows, places):
        return [[row[ps[0]]] for row, ps in zip(rows, places, strict=True)]

    reward = lib.model_score(score)
    assert list(reward.fn(ROLLOUT, None)) == [END, END, 6]
    reward = lib.model_score(score, at="answer")
    assert list(reward.fn(ROLLOUT, None)) == [3, 4, 6]  # the last was cut: no EOS
    alone = rollout([[END], [END, 3]])  # prompts of fives; the second goes on
    assert list(reward.fn(alone, None)) == [5, 3]


def test_impossible_rewards_are_refused():
    """Errors: not finite, a place past the end, two terms of one name."""
    nan = combine([Term(terminal([np.nan, 0, 0], "judge"))])
    with pytest.raises(ValueError, match="'judge'.*not finite"):
        nan(ROLLOUT, [0, 1, 2])
    late = Reward("s", "steps", lambda r, i: lib.Steps([[2]] * 3, [[1.0]] * 3))
    with pytest.raises(ValueError, match="row 1: a step ends outside the 2 tokens"):
        combine([Term(late)])(ROLLOUT, [0, 1, 2])
    with pytest.raises(ValueError, match="different names"):
        combine([Term(late), Term(late)])
