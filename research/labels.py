"""Labels of solution prefixes: from people, from a verifier, from rollouts.

A labeller takes solutions and gives the same solutions with a label for each prefix
prompt + steps[0] + ... + steps[k]: 1 for good, 0 for bad, a share in between for an
estimate, None where nothing is known. What a good prefix is differs by source:

    people     the last step was rated good, or neutral (PRM800K)
    verifier   the last step follows from what stands before it; see `after_mistake`
    rollouts   a right answer can still be reached from here (Math-Shepherd)
"""

import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from data.errors import DataError
from data.steps import LabelledSteps, split_steps
from data.tokenizers import Tokenizer
from models.config import DecoderConfig
from models.sampler import generate
from models.sampling import Sampling

Label = float | None
ANSWER = "# Answer"  # opens what follows the last step


class Candidate(NamedTuple):
    """A solution to label; `problem` is its problem's index in the caller's list."""

    problem: int
    prompt: str
    steps: tuple[str, ...]


class PrefixLabeller(Protocol):
    """What all sources of labels have in common."""

    def __call__(self, candidates: Sequence[Candidate]) -> list[LabelledSteps]:
        """A row per candidate, in order, with as many labels as steps."""


def parts(text: str, *, answer: Literal["joined", "own"] = "joined") -> tuple[str, ...]:
    """The steps of a response with its answer; their concatenation is the text.

    The marker and the answer are joined to the last step, as people rated them in
    PRM800K, or are a part of their own.
    """
    if answer not in ("joined", "own"):
        raise ValueError(f"answer: expected joined or own, got {answer!r}")
    body, marker, rest = text.partition(ANSWER)
    steps = split_steps(body)
    if not marker:
        return steps
    if answer == "own" or not body.strip():
        return (*steps, marker + rest)
    return (*steps[:-1], steps[-1] + marker + rest)


def prefixes(steps: Sequence[str]) -> list[str]:
    """steps[0] + ... + steps[k] for each k."""
    return list(itertools.accumulate(steps))


# --- people -------------------------------------------------------------------------


def from_ratings(
    rated: Iterable[tuple[str, Sequence[str], int | None]], *, neutral: Label = 1.0
) -> PrefixLabeller:
    """Labels by people's ratings of the last step of a prefix.

    Args:
      rated: (prompt, steps of the prefix, rating); ratings are -1, 0, 1 or None, as in
        PRM800K. neutral: the label of rating 0; the original code has 1.

    A prefix that nobody rated, or of which ratings give different labels, has none.
    Raises DataError for another rating.
    """
    meaning = {-1: 0.0, 0: neutral, 1: 1.0}
    labels: dict[tuple[str, str], set[float]] = {}
    for prompt, steps, rating in rated:
        if rating is None:
            continue
        if rating not in meaning:
            raise DataError(f"rating: expected -1, 0, 1 or none, got {rating!r}")
        said = labels.setdefault((prompt, "".join(steps)), set())
        if meaning[rating] is not None:
            said.add(meaning[rating])

    def label(candidates):
        return [
            LabelledSteps(
                c.prompt,
                c.steps,
                tuple(known(c.prompt, text) for text in prefixes(c.steps)),
            )
            for c in candidates
        ]

    def known(prompt, text):
        said = labels.get((prompt, text), ())
        return next(iter(said)) if len(said) == 1 else None

    return label


# --- a verifier ---------------------------------------------------------------------


def from_verifier(
    check_steps: Callable[[int, str], Sequence[bool]],
    is_right: Callable[[int, str], bool],
    *,
    after: Literal["judged", "wrong", "none"] = "judged",
) -> PrefixLabeller:
    """Labels by a checker of steps, such as a world's.

    Args:
      check_steps: (problem, response) -> whether each line before the answer is right.
      is_right: (problem, response) -> whether the final answer is.
      after: what becomes of labels behind a mistake; see `after_mistake`.

    The part with the answer is right when the answer is, and so is its line, if one is
    joined to it. Raises DataError when the checker counts other steps.
    """

    def label(candidates):
        return [LabelledSteps(c.prompt, c.steps, labels_of(c)) for c in candidates]

    def labels_of(candidate):
        text = "".join(candidate.steps)
        lines = [bool(step.partition(ANSWER)[0].strip()) for step in candidate.steps]
        checked = list(check_steps(candidate.problem, text))
        if len(checked) != sum(lines):
            raise DataError(
                f"problem {candidate.problem}: the checker judged {len(checked)} steps "
                f"of {sum(lines)}: {text[:80]!r}"
            )
        judged = iter(checked)
        labels: list[Label] = []
        for step, line in zip(candidate.steps, lines, strict=True):
            verdicts = [next(judged)] if line else []
            if ANSWER in step:
                verdicts.append(is_right(candidate.problem, text))
            labels.append(float(all(verdicts)) if verdicts else None)
        return after_mistake(labels, after)

    return label


def after_mistake(
    labels: Sequence[Label], how: Literal["judged", "wrong", "none"]
) -> tuple[Label, ...]:
    """Labels behind the first 0: as they are, 0 (the prefix holds a mistake), or None.

    People stop at the first mistake, so that theirs are of the last kind.
    """
    if how not in ("judged", "wrong", "none"):
        raise ValueError(f"after: expected judged, wrong or none, got {how!r}")
    first = next((k for k, x in enumerate(labels) if x == 0), len(labels))
    fill = {"judged": labels[first + 1 :], "wrong": 0.0, "none": None}[how]
    rest = fill if how == "judged" else [fill] * len(labels[first + 1 :])
    return (*labels[: first + 1], *rest)


# --- rollouts -----------------------------------------------------------------------

Continue = Callable[[Sequence[tuple[str, str]]], list[list[str]]]


def from_rollouts(
    continue_from: Continue,
    is_right: Callable[[int, str], bool],
    estimate: Literal["hard", "soft"] = "hard",
) -> PrefixLabeller:
    """Labels by what follows a prefix: Math-Shepherd's estimates (Wang et al. 2023).

    Args:
      continue_from: pairs (prompt, part of a response) -> continuations of each; see
        `continuations`. is_right: (problem, whole response) -> whether it is right.
      estimate: hard is 1 if any continuation is right, soft is the share that are.

    Equal prefixes are continued once. One that holds an answer is not continued: it is
    right or wrong as it stands.
    """
    if estimate not in ("hard", "soft"):
        raise ValueError(f"estimate: expected hard or soft, got {estimate!r}")

    def label(candidates):
        asked = {
            (c.problem, c.prompt, x) for c in candidates for x in prefixes(c.steps)
        }
        unanswered = sorted(ask for ask in asked if ANSWER not in ask[2])
        values = {
            ask: float(is_right(ask[0], ask[2])) for ask in asked - set(unanswered)
        }
        continued = continue_from([ask[1:] for ask in unanswered])
        for ask, texts in zip(unanswered, continued, strict=True):
            right = [bool(is_right(ask[0], ask[2] + text)) for text in texts]
            values[ask] = float(any(right) if estimate == "hard" else np.mean(right))
        return [
            LabelledSteps(
                c.prompt,
                c.steps,
                tuple(values[c.problem, c.prompt, x] for x in prefixes(c.steps)),
            )
            for c in candidates
        ]

    return label


def continuations(
    cfg: DecoderConfig,
    params,
    tokenizer: Tokenizer,
    encode_prompt: Callable[[str], Sequence[int]],
    sampling: Sampling,
    key,
    *,
    samples: int,
    max_new_tokens: int,
    max_length: int | None = None,
    **options,
) -> Continue:
    """Continues prefixes with a generator, all of them in one batch.

    Args:
      encode_prompt: a prompt's ids, as in the generator's training; the part of the
        response is encoded behind them.
      key: of this purpose; what follows a prefix depends on the key, the prefix and
        the rules alone, not on the other prefixes.
      samples: continuations per prefix. max_new_tokens: of each, and no more than
        max_length - len(ids) (default: the model's context).
      options: as `models.sampler.stream`.

    A prefix without room for one token more gets empty continuations.
    """
    limit = cfg.longest(max_length)

    def encode(prompt, part):
        ids = list(encode_prompt(prompt))
        return ids + (tokenizer.encode(part, previous=ids[-1]) if part else [])

    def continue_from(pairs):
        prompts = [encode(*pair) for pair in pairs]
        room = [i for i, ids in enumerate(prompts) if len(ids) < limit]
        out = [[""] * samples for _ in pairs]
        if not room:
            return out
        # A row's noise is keyed by its own text. Different prefixes may share noise by
        # chance; samples of one cannot.
        starts = [zlib.crc32("\0".join(pairs[i]).encode()) for i in room]
        rollout = generate(
            cfg,
            params,
            [prompts[i] for i in room],
            sampling,
            key,
            max_new_tokens=[min(max_new_tokens, limit - len(prompts[i])) for i in room],
            samples=samples,
            row_ids=[(s + g) % 2**32 for s in starts for g in range(samples)],
            **options,
        )
        for row, i in enumerate(room):
            rows = range(row * samples, (row + 1) * samples)
            out[i] = [tokenizer.decode(rollout.response(r)) for r in rows]
        return out

    return continue_from
