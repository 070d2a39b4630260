"""The reward pipeline: named rewards and pure transforms, summed with weights.

A reward is a function of a rollout that declares where its credit lands:

    terminal    one number per response, on its last token (EOS, where there is one)
    steps       a number for each step, on the token that ends the step
    tokens      a number for every token

so that terms of all three kinds add up to one float32 array [N, R]. The KL penalty is
not among them: it belongs to the update, which knows both policies (`train.ppo`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from models.rollout import Rollout
from models.sampling import EOS, LENGTH

Lands = Literal["terminal", "steps", "tokens"]


class Steps(NamedTuple):
    """Values at places of each response: two lists of N arrays, pairwise alike."""

    places: Sequence[Sequence[int]]
    values: Sequence[np.ndarray]


class Reward(NamedTuple):
    """`fn(rollout, prompt_ids)` returns [N], `Steps` or [N, R], as `lands` says."""

    name: str
    lands: Lands
    fn: Callable[[Rollout, Sequence[int]], Any]


class Term(NamedTuple):
    """weight * transforms(reward); transforms map ([N, R], lengths [N]) to [N, R]."""

    reward: Reward
    weight: float = 1.0
    transforms: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = ()


class Rewards(NamedTuple):
    """tokens: float32 [N, R], zero past the end; metrics: name -> (sum, weight)."""

    tokens: np.ndarray
    metrics: Mapping[str, tuple[float, float]]


def combine(terms: Sequence[Term]) -> Callable[[Rollout, Sequence[int]], Rewards]:
    """`reward_fn(rollout, prompt_ids) -> Rewards` of a weighted sum of terms.

    prompt_ids: for each row of the rollout, the number of its prompt. Each term's mean
    per response, weight included, is the metric `reward/<name>`; `reward` is the sum.
    """
    names = [term.reward.name for term in terms]
    if not terms or len(set(names)) < len(names):
        raise ValueError(f"rewards: expected different names, at least one: {names}")

    def reward_fn(rollout: Rollout, prompt_ids: Sequence[int]) -> Rewards:
        total = np.zeros(rollout.tokens.shape, np.float32)
        rows, metrics = len(total), {}
        for reward, weight, transforms in terms:
            credit = place(reward.lands, reward.fn(rollout, prompt_ids), rollout)
            for transform in transforms:
                credit = np.asarray(transform(credit, rollout.lengths), np.float32)
            credit = credit * np.float32(weight) * rollout.mask
            if not np.isfinite(credit).all():
                raise ValueError(f"reward {reward.name!r}: a value is not finite")
            metrics[f"reward/{reward.name}"] = float(credit.sum()), rows
            total += credit
        return Rewards(total, {"reward": (float(total.sum()), rows), **metrics})

    return reward_fn


def place(lands: Lands, values, rollout: Rollout) -> np.ndarray:
    """Credit on its tokens, float32 [N, R]."""
    credit = np.zeros(rollout.tokens.shape, np.float32)
    if lands == "terminal":
        credit[np.arange(len(credit)), rollout.lengths - 1] = values
    elif lands == "steps":
        for row, (places, numbers) in enumerate(zip(*values, strict=True)):
            if any(not 0 <= p < rollout.lengths[row] for p in places):
                raise ValueError(
                    f"row {row}: a step ends outside the {rollout.lengths[row]} tokens "
                    f"of its response: {list(places)}"
                )
            np.add.at(credit[row], np.asarray(places, int), numbers)
    else:
        credit[:] = values
    return credit * rollout.mask


def known_answer(
    answer_of: Callable[[list[int]], str | None],
    truths: Sequence[str | None],
    equal: Callable[[str, str], bool],
) -> Callable[[list[int], int], bool | None]:
    """(response ids, prompt id) -> whether its answer is the known one.

    None where no truth is known; but a response without an answer is wrong there, too:
    what `final_answer` pays for the unknown is not for stopping.

    Args:
      answer_of: response ids -> its answer, None or blank where it has none.
      truths: the answer of each prompt, None where it is unknown.
      equal: (answer, truth) -> whether they say the same.
    """

    def correct(ids, prompt_id):
        answer, truth = answer_of(ids), truths[prompt_id]
        if not answer:
            return False
        return None if truth is None else bool(equal(answer, truth))

    return correct


def final_answer(
    correct: Callable[[list[int], int], bool | None], *, unavailable: float = 0.25
) -> Reward:
    """1 for a right final answer, 0 for a wrong one, `unavailable` without a truth.

    Args:
      correct: (response ids, prompt id) -> bool, or None where no truth is known.
    """

    def fn(rollout, prompt_ids):
        graded = [correct(rollout.response(i), p) for i, p in enumerate(prompt_ids)]
        return np.array([unavailable if g is None else float(g) for g in graded])

    return Reward("answer", "terminal", fn)


def process(
    score: Callable[[list[list[int]], list[list[int]]], Sequence[np.ndarray]],
    step_places: Callable[[list[int]], Sequence[int]],
    *,
    scheme: Literal["min", "prod"] = "min",
    upper: float = 0.5,
    bonus: float = 0.25,
    read: int = 1,
    spread: int = 1,
) -> Reward:
    """What a process reward model says of each step, shaped by `shape_steps`.

    Args:
      score: (rows of prompt + response, places in them) -> logits at the places.
      step_places: response ids -> the index of the token that ends each step.
      read: a step's logit is the lowest of those of its last `read` tokens.
      spread: a step's reward is shared by its last `spread` tokens. (The original code
        reads 3 and spreads over 2: the last of the text and two newlines.)
    """

    def last(ends, count):
        return [[max(0, e - k) for k in range(count)] for e in ends]

    def fn(rollout, prompt_ids):
        rows, starts = _rows(rollout)
        ends = [list(step_places(rollout.response(i))) for i in range(len(rows))]
        within = [
            [start + e for some in last(es, read) for e in some]
            for start, es in zip(starts, ends, strict=True)
        ]
        places, values = [], []
        for es, logits in zip(ends, score(rows, within), strict=True):
            lowest = np.reshape(logits, (len(es), read)).min(axis=1, initial=np.inf)
            rewards = shape_steps(sigmoid(lowest), scheme, upper, bonus)
            places.append([e for some in last(es, spread) for e in some])
            values.append(np.repeat(rewards / spread, spread))
        return Steps(places, values)

    return Reward("process", "steps", fn)


def shape_steps(p, scheme: str, upper: float, bonus: float) -> np.ndarray:
    """Rewards of steps from their probabilities p [S], float32 [S].

    With m_0 = upper and m_i the lowest p so far (or, "prod", the lowest running
    product), step i gets min(0, p_i - m_{i-1}), so that they sum to min(0, min p -
    upper): only new lows below `upper` cost. Each also gets bonus / S. (Thesis chapter
    6, original code; there every step's share is split over its two newline tokens.)
    """
    p = np.asarray(p, np.float64)
    if not len(p):
        return np.zeros(0, np.float32)
    q = {"min": p, "prod": np.cumprod(p)}[scheme]
    lowest = np.minimum.accumulate(np.concatenate([[upper], q]))
    return (np.diff(lowest) + bonus / len(p)).astype(np.float32)


def model_score(
    score: Callable[[list[list[int]], list[list[int]]], Sequence[np.ndarray]],
    *,
    at: Literal["eos", "answer"] = "eos",
) -> Reward:
    """A reward model's logit at the last token of each response.

    Args:
      score: (rows of prompt + response, places in them) -> logits at the places.
      at: "answer": at the last token before EOS, as outcome models learn no score at
        EOS (`data.steps.encode_steps`); of a response that is EOS alone, the prompt's.
    """

    def fn(rollout, prompt_ids):
        rows, _ = _rows(rollout)
        ends = np.array([len(row) - 1 for row in rows])
        if at == "answer":
            ends -= ended(rollout)
        return np.array([x[0] for x in score(rows, [[int(end)] for end in ends])])

    return Reward("model", "terminal", fn)


def missing_eos() -> Reward:
    """-1 for a response that was cut at its budget (reason "length")."""

    def fn(rollout, prompt_ids):
        return -(rollout.reasons == LENGTH).astype(np.float32)

    return Reward("missing_eos", "terminal", fn)


def length() -> Reward:
    """The length of the response as a share of the longest that is allowed."""

    def fn(rollout, prompt_ids):
        return rollout.lengths / rollout.tokens.shape[1]

    return Reward("length", "terminal", fn)


def to_terminal(credit, lengths):
    """A transform: all credit of a response on its last token."""
    moved = np.zeros_like(credit)
    moved[np.arange(len(credit)), lengths - 1] = credit.sum(axis=1)
    return moved


def clip(low: float, high: float):
    """A transform: every token's credit within [low, high]."""
    return lambda credit, lengths: np.clip(credit, low, high)


def totals(rewards: Rewards) -> np.ndarray:
    """The reward of each response, float32 [N]."""
    return rewards.tokens.sum(axis=1, dtype=np.float32)


def ended(rollout: Rollout) -> np.ndarray:
    """Which responses end with EOS, bool [N]."""
    return rollout.reasons == EOS


def sigmoid(x) -> np.ndarray:
    """1 / (1 + exp(-x)), float64, for logits of any size."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))


def _rows(rollout: Rollout) -> tuple[list[list[int]], list[int]]:
    """Prompt + response of each row, and where the response starts."""
    starts = [int(n) for n in rollout.prompt_lengths]
    rows = [
        rollout.prompts[i, :start].tolist() + rollout.response(i)
        for i, start in enumerate(starts)
    ]
    return rows, starts
