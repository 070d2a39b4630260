"""Proofs of propositional formulas as trees, and as scripts of tactics.

A tree names hypotheses by numbers. `prune` takes out of it what was not needed, and
`script` turns it into tactics, with the first names that are free.
"""

from collections.abc import Sequence
from typing import NamedTuple

from data.worlds.propositions import FALSE, Formula, schema, text


class Step(NamedTuple):
    """A node of a proof: a tactic, the hypotheses it reads, those it makes, the rest.

    kind: exact, absurd, intro, split, left, right, obtain, cases, apply, exfalso, have
    uses: numbers of hypotheses; new: numbers of those in `formulas`, which it makes
    below: the proofs of the goals that it leaves
    principal: the formula that the rule takes apart, for the name of its shape
    """

    kind: str
    uses: tuple[int, ...]
    new: tuple[int, ...]
    below: tuple["Step", ...]
    principal: Formula
    formulas: tuple[Formula, ...] = ()


def prune(step: Step) -> tuple[Step, frozenset[int]]:
    """The proof without steps whose results it does not use; what it does use."""
    below, used = [], []
    for one in step.below:
        kept, needs = prune(one)
        below.append(kept)
        used.append(needs)
    if step.kind == "cases":
        for i, number in enumerate(step.new):
            if number not in used[i]:
                return below[i], used[i]
    elif step.kind in ("obtain", "have") and not used[0] & set(step.new):
        return below[0], used[0]
    needed = frozenset(step.uses).union(*used) - set(step.new)
    return step._replace(below=tuple(below)), needed


def shapes(step: Step) -> frozenset[str]:
    """The schemas of the hypotheses that a proof takes apart or applies."""
    own, formula = set(), step.principal
    if step.kind in ("obtain", "cases", "absurd"):
        own.add(schema(formula))
    elif step.kind in ("apply", "have"):
        while not isinstance(formula, str) and formula[0] in "→¬":
            own.add(schema(formula))
            formula = formula[2] if formula[0] == "→" else FALSE
    return frozenset(own).union(*map(shapes, step.below))


def script(step: Step, names: Sequence[str]) -> tuple[str, ...]:
    """The proof as tactics; hypothesis i of the statement is called names[i]."""
    lines: list[str] = []
    _write(step, dict(enumerate(names)), lines)
    return tuple(lines)


def _fresh_names(named: dict[int, str], count: int) -> list[str]:
    """The first of h1, h2, ... that nothing in the context is called."""
    taken, names, i = set(named.values()), [], 1
    while len(names) < count:
        if f"h{i}" not in taken:
            names.append(f"h{i}")
        i += 1
    return names


def _write(step: Step, named: dict[int, str], lines: list[str]) -> None:
    uses = [named[number] for number in step.uses]
    if step.kind == "intro":
        run = [step]
        while run[-1].below[0].kind == "intro":
            run.append(run[-1].below[0])
        new = _fresh_names(named, len(run))
        numbers = [one.new[0] for one in run]
        lines.append(f"intro{'s' * (len(run) > 1)} {' '.join(new)}")
        _write(run[-1].below[0], named | dict(zip(numbers, new, strict=True)), lines)
        return
    if step.kind == "split" and all(one.kind == "exact" for one in step.below):
        first, second = (named[one.uses[0]] for one in step.below)
        lines.append(f"exact ⟨{first}, {second}⟩")
        return
    new = _fresh_names(named, len(step.new))
    taken_apart = step.uses[0] if step.kind in ("obtain", "cases") else None
    rest = {number: name for number, name in named.items() if number != taken_apart}
    after = rest | dict(zip(step.new, new, strict=True))
    lines.append(
        {
            "exact": "exact {0}",
            "absurd": "contradiction",
            "split": "constructor",
            "left": "left",
            "right": "right",
            "apply": "apply {0}",
            "exfalso": "exfalso",
            "obtain": "obtain ⟨{new[0]}, {new[1]}⟩ := {0}",
            "cases": "rcases {0} with {new[0]} | {new[1]}",
            "have": "have {new[0]} : {end} := by exact {all}",
        }[step.kind].format(
            *uses,
            new=new,
            all=" ".join(uses),
            end=text(step.formulas[0]) if step.kind == "have" else "",
        )
    )
    for i, one in enumerate(step.below):
        if step.kind == "cases":
            _write(one, rest | {step.new[i]: new[i]}, lines)
        else:
            _write(one, after, lines)
