"""Rows to train an evaluator on: balanced, each once, with some made wrong.

Pure functions of rows and a generator of random numbers.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from data.steps import LabelledSteps

NUMBER = re.compile(r"[0-9]+")


def balance(
    problems: Sequence[int],
    positive: Sequence[bool],
    rng: np.random.Generator,
    most: float = 3.0,
) -> list[int]:
    """Places of the rows to keep so that no class is over `most` times the other.

    Within each problem, surplus rows of the larger class are dropped at random; a
    problem with one class only is dropped, since no ratio of it is within [1 : most,
    most : 1]. The order of rows stays.
    """
    if most < 1:
        raise ValueError(f"most: expected at least 1, got {most}")
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for i, (problem, good) in enumerate(zip(problems, positive, strict=True)):
        groups.setdefault(problem, ([], []))[bool(good)].append(i)
    kept = []
    for group in groups.values():
        allowed = int(most * min(map(len, group)))
        for rows in group:
            chosen = rng.permutation(len(rows))[:allowed]
            kept += [rows[j] for j in chosen]
    return sorted(kept)


def distinct(rows: Iterable[LabelledSteps]) -> list[LabelledSteps]:
    """The first row of each prompt and text, in order.

    The prompt is part of the key: equal first steps of two problems are two rows.
    """
    first: dict[tuple[str, tuple[str, ...]], LabelledSteps] = {}
    for row in rows:
        first.setdefault((row.prompt, row.steps), row)
    return list(first.values())


def corrupted(
    rows: Sequence[LabelledSteps],
    share: float,
    rng: np.random.Generator,
    replace: Callable[[str, np.random.Generator], str | None],
) -> list[LabelledSteps]:
    """Rows to add, each a right step made wrong behind its own prefix.

    Their number is `share` of the labelled steps of `rows`, to the nearest integer; the
    steps are drawn without replacement among those with label 1 for which `replace`
    knows another text (it returns None where it knows none). A new row ends at the
    corrupted step, which is its only label: 0. Raises ValueError where fewer can be
    corrupted.
    """
    labelled = sum(x is not None for row in rows for x in row.labels)
    wanted = round(share * labelled)
    places = [
        (i, k) for i, r in enumerate(rows) for k, x in enumerate(r.labels) if x == 1
    ]
    made = []
    for place in rng.permutation(len(places)):
        if len(made) == wanted:
            break
        i, k = places[place]
        row = rows[i]
        wrong = replace(row.steps[k], rng)
        if wrong is not None and wrong != row.steps[k]:
            steps = (*row.steps[:k], wrong)
            made.append(LabelledSteps(row.prompt, steps, (None,) * k + (0.0,)))
    if len(made) < wanted:
        raise ValueError(
            f"share: {share} of {labelled} labelled steps is {wanted}, but only "
            f"{len(made)} can be made wrong"
        )
    return made


def replace_number(values: Sequence[int]) -> Callable:
    """A `replace` for `corrupted`: the last number of a step becomes another value.

    In a world whose steps end in the value that they find, the step is then wrong.
    """

    def replace(step: str, rng: np.random.Generator) -> str | None:
        found = list(NUMBER.finditer(step))
        if not found:
            return None
        last = found[-1]
        others = [v for v in values if str(v) != last[0]]
        if not others:
            return None
        return f"{step[: last.start()]}{rng.choice(others)}{step[last.end() :]}"

    return replace
