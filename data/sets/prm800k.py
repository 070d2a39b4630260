"""PRM800K (`phase{1,2}_train.jsonl`): rated steps, as steps to imitate and to judge.

A trajectory is a chain of steps; at each, people rated one or more completions -1, 0
or 1, and one of them, or a step of their own, was carried on. Rows come from one walk
along the chain: the steps carried so far are the prefix of every completion there."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from data.errors import DataError
from data.records import Record
from data.sets.math500 import Allowed, Unlisted
from data.sets.rows import OnBad, mismatch, parsed, text
from data.sets.text import (
    clean_step,
    has_answer,
    last_separated,
    prompt_of,
    separator,
)


class Completion(NamedTuple):
    text: str
    rating: int | None


class Step(NamedTuple):
    """What one object of `label.steps` says; `completions` is None where it is null."""

    completions: tuple[Completion, ...] | None
    chosen: int | None
    human: str | None


class Trajectory(NamedTuple):
    problem: str
    steps: tuple[Step, ...]


class Place(NamedTuple):
    """Completions after one prefix, whose steps each end in what separates them.

    `carried` is the step that goes on, without its separator.
    """

    prefix: tuple[str, ...]
    completions: tuple[Completion, ...]
    carried: str | None


@dataclass(frozen=True)
class Prm800kRules:
    """Choices of the conversion; those of the original code are named in `original()`.

    duplicates: what makes two rated steps the same, beside prefix and text; without the
        question, an opening that two problems share keeps one label for both.
    at_empty: a completion without text is left out, or ends the list that it is in.
    neutral: the label of rating 0; None leaves such steps without a label.
    rows: a row for every labelled step, or one for a whole chain with all its labels,
        and one for each alternative: the same loss over a fraction of the tokens.
    unlisted: what the few problems that are not in MATH count as, see `Allowed`.
    sft_tokens, label_tokens: longest question + prefix + step that is kept; 0 for all.
    """

    duplicates: Literal["question", "text"] = "question"
    at_empty: Literal["skip", "stop"] = "skip"
    neutral: float | None = 1.0
    rows: Literal["step", "chain"] = "step"
    unlisted: Unlisted = "hard"
    sft_tokens: int = 768
    label_tokens: int = 736

    def __post_init__(self):
        if self.neutral is not None and not 0 <= self.neutral <= 1:
            raise ValueError(f"neutral: expected between 0 and 1, got {self.neutral}")


def original() -> Prm800kRules:
    """The rules of the original code, its defects included."""
    return Prm800kRules(duplicates="text", at_empty="stop", unlisted="keep")


def read_prm800k(paths: Sequence[str], on_bad: OnBad = None) -> Iterator[Trajectory]:
    """Trajectories of the files in turn; DataError naming file, line and field."""
    if not paths:
        raise DataError("prm800k: expected at least one file")
    for path in paths:
        yield from parsed(path, parse_trajectory, on_bad)


def sft_rows(
    trajectories: Iterator[Trajectory],
    allowed: Allowed,
    counts: Counter,
    rules: Prm800kRules | None = None,
    length: Callable[[str], int] = len,
) -> Iterator[dict]:
    """{prompt, completion, eos, level} for every completion rated above 0.

    The prompt holds the prefix; the completion is one step, with what separates it from
    the prefix in front. Neutral steps are no targets but may be in prefixes. `counts`
    receives what was left out, by reason; `length` counts the tokens of a text.
    """
    rules = rules or Prm800kRules()
    seen: dict[bytes, float] = {}
    for trajectory, level in _selected(trajectories, allowed, counts):
        measure = _measure(trajectory.problem, rules.sft_tokens, length)
        for place in walk(trajectory):
            for completion in _texts(place, rules):
                if completion.rating is None or completion.rating <= 0:
                    continue
                key = _key(trajectory.problem, place.prefix, completion.text, rules)
                if _repeated(seen, key, 1.0, counts):
                    continue
                if not measure(place.prefix, completion.text):
                    counts["too_long"] += 1
                    continue
                before = "".join(place.prefix)
                prefix = before.rstrip()
                yield {
                    "prompt": prompt_of(trajectory.problem) + prefix,
                    "completion": before[len(prefix) :] + completion.text,
                    "eos": has_answer(completion.text),
                    "level": level,
                }


def label_rows(
    trajectories: Iterator[Trajectory],
    allowed: Allowed,
    counts: Counter,
    rules: Prm800kRules | None = None,
    length: Callable[[str], int] = len,
) -> Iterator[dict]:
    """{prompt, steps, labels, level} of every rated completion, good or bad.

    A label is 1 for rating 1, `rules.neutral` for 0, 0 for -1; steps of the prefix have
    None. The blank line after a step belongs to it. The last sentence, the marker and
    the answer are one step with one label, as they were rated.
    """
    rules = rules or Prm800kRules()
    values = {1: 1.0, 0: rules.neutral, -1: 0.0, None: None}
    seen: dict[bytes, float] = {}
    for trajectory, level in _selected(trajectories, allowed, counts):
        measure = _measure(trajectory.problem, rules.label_tokens, length)
        chain: list[tuple[Place, float | None]] = []

        def row(place, text, labels, problem=trajectory.problem, level=level):
            return {
                "prompt": prompt_of(problem),
                "steps": [*place.prefix, last_separated(text)],
                "labels": labels,
                "level": level,
            }

        for place in walk(trajectory):
            chain.append((place, None))
            for completion in _texts(place, rules):
                label = values[completion.rating]
                if label is None:
                    continue
                key = _key(trajectory.problem, place.prefix, completion.text, rules)
                if _repeated(seen, key, label, counts):
                    continue
                if not measure(place.prefix, completion.text):
                    counts["too_long"] += 1
                elif rules.rows == "chain" and completion.text == place.carried:
                    chain[-1] = place, label
                else:
                    labels = [None] * len(place.prefix) + [label]
                    yield row(place, completion.text, labels)
        while chain and chain[-1][1] is None:
            chain.pop()
        if chain:
            last = chain[-1][0]
            yield row(last, last.carried, [label for _, label in chain])


def walk(trajectory: Trajectory) -> Iterator[Place]:
    """Places along the chain of carried steps.

    Carried is the chosen completion; without one, the step that a person wrote; else
    the only completion. The walk ends where none is, where completions are null, and
    after the answer.
    """
    prefix: tuple[str, ...] = ()
    for step in trajectory.steps:
        if step.completions is None:
            return
        carried = step.human
        if step.chosen is not None:
            carried = step.completions[step.chosen].text
        elif carried is None and len(step.completions) == 1:
            carried = step.completions[0].text
        carried = carried or None
        yield Place(prefix, step.completions, carried)
        if carried is None or has_answer(carried):
            return
        prefix = (*prefix, carried + separator(carried))


def parse_trajectory(record: Record) -> Trajectory:
    """One line of the published files, checked as far as it is used."""
    row, where = record.row, record.where
    question, label = _object(row, "question", where), _object(row, "label", where)
    problem = text(f"{where}: question", question, "problem")
    if not isinstance(steps := label.get("steps"), list):
        raise mismatch(where, "label.steps", "a list", steps)
    return Trajectory(
        problem,
        tuple(_step(s, where, f"label.steps[{i}]") for i, s in enumerate(steps)),
    )


def _step(step: Any, where: str, field: str) -> Step:
    if not isinstance(step, dict):
        raise mismatch(where, field, "an object", step)
    completions = step.get("completions")
    if completions is not None:
        if not isinstance(completions, list):
            raise mismatch(where, f"{field}.completions", "a list", completions)
        completions = tuple(
            _completion(c, where, f"{field}.completions[{i}]")
            for i, c in enumerate(completions)
        )
    chosen = step.get("chosen_completion")
    known = range(len(completions or ()))
    if chosen is not None and (type(chosen) is not int or chosen not in known):
        expected = f"null or the index of one of {len(known)} completions"
        raise mismatch(where, f"{field}.chosen_completion", expected, chosen)
    human = step.get("human_completion")
    if human is not None:
        human = _completion(human, where, f"{field}.human_completion").text
    return Step(completions, chosen, human)


def _completion(value: Any, where: str, field: str) -> Completion:
    if not isinstance(value, dict):
        raise mismatch(where, field, "an object with text and rating", value)
    rating = value.get("rating")
    if rating is not None and (type(rating) is not int or rating not in (-1, 0, 1)):
        raise mismatch(where, f"{field}.rating", "-1, 0, 1 or null", rating)
    written = text(f"{where}: {field}", value, "text", may_be_empty=True)
    return Completion(clean_step(written), rating)


def _object(row: dict, key: str, where: str) -> dict:
    if not isinstance(value := row.get(key), dict):
        raise mismatch(where, key, "an object", value)
    return value


def _selected(trajectories, allowed: Allowed, counts: Counter):
    for trajectory in trajectories:
        counts["trajectories"] += 1
        verdict = allowed(trajectory.problem)
        if verdict.keep:
            yield trajectory, verdict.level
        else:
            counts[verdict.reason] += 1


def _texts(place: Place, rules: Prm800kRules) -> Iterator[Completion]:
    for completion in place.completions:
        if completion.text:
            yield completion
        elif rules.at_empty == "stop":
            return


def _key(problem: str, prefix, step: str, rules: Prm800kRules) -> bytes:
    head = [problem] if rules.duplicates == "question" else []
    whole = "\0".join([*head, "".join(prefix) + step])
    return hashlib.blake2b(whole.encode("utf-8", "replace"), digest_size=16).digest()


def _repeated(seen: dict, key: bytes, label: float, counts: Counter) -> bool:
    """Whether the key was seen; the first label stands, a different one is counted."""
    if key not in seen:
        seen[key] = label
        return False
    counts["duplicates"] += 1
    counts["conflicting"] += seen[key] != label
    return True


def _measure(problem: str, limit: int, length: Callable[[str], int]):
    """Whether question, prefix and step fit; every text is measured once."""
    if not limit:
        return lambda prefix, step: True
    lengths: dict[str, int] = {}

    def measured(text: str) -> int:
        if text not in lengths:
            lengths[text] = length(text)
        return lengths[text]

    def fits(prefix, step):
        return sum(map(measured, (problem, *prefix, step))) <= limit

    return fits
