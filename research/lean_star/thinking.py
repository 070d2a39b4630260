"""What thoughts say of the states before them, and what follows from that."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from research.intervals import Resamples
from research.lean_star import oracle, thoughts
from research.lean_star.formats import Format
from research.lean_star.names import short
from research.lean_star.results import Results, kind_of
from research.lean_star.steps import Step, calls, gain, ratio
from research.report import Column, Table

SHARE = ".1%"
ORACLE = "oracle"
UNSAID = ("cot-filler",)  # systems whose thoughts are no words


def readings(results: Results, steps: dict) -> dict[str, list]:
    """{system with thoughts: of every seed, (step, thought, what holds of it)}.

    "oracle": its thoughts for the known tactics of the same steps.
    """
    found = {}
    for system, own in steps.items():
        if kind_of(system) != "cot" or system in UNSAID:
            continue
        form = Format(results.era, "cot")
        texts = [[form.thought(step.output) for step in of_seed] for of_seed in own]
        found[system] = [
            [_reading(*pair) for pair in zip(*of_seed, strict=True) if pair[1]]
            for of_seed in zip(own, texts, strict=True)
        ]
    if found:
        of_seed = next(iter(steps.values()))[0]
        known = [step._replace(tactic=step.known) for step in of_seed]
        texts = [oracle.thought(step.state, step.known) for step in known]
        own = [_reading(s, t) for s, t in zip(known, texts, strict=True) if t]
        found[ORACLE] = [own] * len(results.seeds)
    return found


class Read(NamedTuple):
    """A step with its thought, and what holds of that."""

    step: Step
    holds: thoughts.Reading


def _reading(step: Step, thought: str) -> Read:
    return Read(step, thoughts.read(thought, step.state, step.tactic))


def _held(results: Results, read: list, *what: Callable[[Read], bool]) -> list:
    """Of how many of each problem's steps something holds, for each question.

    All [seeds, problems].
    """
    problems = int(results.of(results.known).sum())
    found = []
    for one in what:
        own = [Counter(r.step.problem for r in of_seed if one(r)) for of_seed in read]
        found.append(np.array([[c[i] for i in range(problems)] for c in own], float))
    return found


def _mean(values) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def what_thoughts_say(results: Results, said: dict) -> Table:
    """Greedy thoughts on the states of known proofs."""
    rows = []
    for system, read in said.items():
        own = [one for of_seed in read for one in of_seed]
        pointing = [one.holds.points for one in own if one.holds.points is not None]
        rows.append(
            [
                short(system) if system != ORACLE else "the oracle's own",
                len(own) / len(read),
                *(
                    _mean(getattr(one.holds, what) for one in own)
                    for what in ("grounded", "kind", "true")
                ),
                _mean(pointing),
            ]
        )
    columns = [
        Column("thoughts of"),
        Column("thoughts", format=",.0f"),
        Column("name only what is there", format=SHARE),
        Column("of the tactic's kind", format=SHARE),
        Column("word for word", format=SHARE),
        Column("tactic uses what is named", format=SHARE),
    ]
    note = (
        "One greedy thought on each state of the known proofs of "
        f"{getattr(results.words, results.known)} problems, where there is one. Only "
        "what is there: each name and number in it is in the goal and its hypotheses. "
        "Of the tactic's kind: worded as the oracle words a step by the tactic that "
        "follows, whatever it names. Word for word: what the oracle says of that "
        "tactic on this state. Uses what is named: of thoughts and tactics that both "
        "name hypotheses, those that share one."
    )
    return Table(columns, rows, "What thoughts say", note)


def what_is_predicted(results: Results, said: dict, draws: Resamples) -> Table:
    """How often the known tactic follows on a thought, by what that names."""
    rows = []
    for system, read in said.items():
        if system == ORACLE:
            continue
        counts = _held(
            results,
            read,
            lambda one: one.step.right and one.holds.grounded,
            lambda one: one.holds.grounded,
            lambda one: one.step.right and not one.holds.grounded,
            lambda one: not one.holds.grounded,
        )
        shares = (ratio(*counts[:2], draws), ratio(*counts[2:], draws))
        rows.append([short(system), *shares, gain(*counts, draws)])
    columns = [
        Column("thoughts of"),
        Column("if it names only what is there", format=SHARE),
        Column("if not", format=SHARE),
        Column("difference", unit="points", format="+.1f"),
    ]
    return Table(columns, rows, "Known tactics predicted, by what the thought names")


def what_follows(results: Results) -> Table:
    """Whether tactics apply, by what their thoughts name: those that were all kept."""
    rows = []
    for system in results.systems:
        if kind_of(system) != "cot" or system in UNSAID:
            continue
        form = Format(results.era, "cot")
        applied: dict[bool, list[bool]] = {True: [], False: []}
        for seed in results.seeds:
            for call in calls(results, system, seed):
                thought = form.thought(call["output"])
                if not thought:
                    continue
                holds = thoughts.read(thought, call["state"], call["tactic"])
                good = call["result"] in ("progress", "proved")
                applied[holds.grounded].append(good)
        count = len(applied[True]) + len(applied[False])
        if count:
            shares = map(_mean, applied.values())
            rows.append([short(system), count, len(applied[True]) / count, *shares])
    columns = [
        Column("thoughts of"),
        Column("tactics", format=",.0f"),
        Column("name only what is there", format=SHARE),
        Column("tactic applies, if so", format=SHARE),
        Column("if not", format=SHARE),
    ]
    note = (
        "Sampled, on the few problems of which every tactic was kept: too few for an "
        "interval."
    )
    return Table(columns, rows, "Whether tactics apply, by what their thoughts name",
                 note)  # fmt: skip
