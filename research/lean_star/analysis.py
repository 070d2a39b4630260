"""What lies behind the results: where thoughts go wrong, and who gains by them.

All of it is computed from what the stages left: greedy predictions on the states of
known proofs, tactics that were tried, and outcomes by problem.
"""

from collections import Counter
from functools import partial

import numpy as np

from research.intervals import Resamples, bootstrap
from research.lean_star import thoughts
from research.lean_star.names import pairs_of, short
from research.lean_star.results import Results
from research.lean_star.steps import (
    Estimate,
    Step,
    Steps,
    gain,
    plain,
    predictions,
    ratio,
    tally,
)
from research.lean_star.thinking import (
    readings,
    what_follows,
    what_is_predicted,
    what_thoughts_say,
)
from research.report import Column, Section, Table, Text, cell

SHARE = ".1%"
HEADS = 12  # kinds of tactics that have a row of their own
MINUS = "\N{MINUS SIGN}"


def analysis(results: Results, draws: Resamples) -> Section:
    """What thoughts cost and give; in sentences first, then in tables."""
    pairs = pairs_of(results)
    steps = {system: predictions(results, system) for system in results.systems}
    tables = [first_tries(results, draws), parts_of_tactics(results, steps, draws)]
    said = {}
    if not results.published:
        said = readings(results, steps)
        tables.append(what_thoughts_say(results, said))
        tables.append(what_is_predicted(results, said, draws))
        tables.append(what_follows(results))
    for pair in pairs[:1]:
        tables.append(by_head(results, steps, pair, draws))
        if not results.published:
            read = results.predicted
            tables.append(by_source(results, pair, "predicted", read, draws))
    for pair in pairs if not results.published else ():
        read = partial(results.passed, split=results.known)
        tables.append(by_source(results, pair, "proved", read, draws))
    text = sentences(results, steps, said, pairs, draws)
    blocks = [Text(text)] if text else []
    return Section(
        "What lies behind it", blocks + [table for table in tables if table.rows]
    )


# --- all systems ----------------------------------------------------------------------


def tried(results: Results, system: str) -> tuple[np.ndarray, np.ndarray]:
    """First tactics of a trajectory on a state: those that applied, and all.

    Both [seeds, problems of the test].
    """
    first = [
        [
            [row["counts"].get(key, 0) for key in ("first_legal", "first")]
            for row in results.outcomes(system, seed)
            if row["split"] == "test"
        ]
        for seed in results.seeds
    ]
    applied, every = np.moveaxis(np.array(first, float), -1, 0)
    return applied, every


def first_tries(results: Results, draws: Resamples) -> Table:
    """How often what is tried first applies, beside what one trajectory proves."""
    rows = []
    for system in results.systems:
        applied, every = tried(results, system)
        rows.append(
            [
                short(system),
                ratio(applied, every, draws),
                every.sum() / len(results.seeds),
                bootstrap(results.passed(system, k=min(results.counts)), draws),
            ]
        )
    columns = [
        Column("system"),
        Column("first tries that apply", format=SHARE),
        Column("of", format=",.0f"),
        Column(f"proved, K = {min(results.counts)}", format=SHARE),
    ]
    note = "A first try is the first tactic of a trajectory on a state, in sampling."
    return Table(columns, rows, f"First tries on {results.words.test} problems", note)


def parts(results: Results, steps: Steps) -> list[np.ndarray]:
    """All steps, those with the right head, those with the right tactic.

    Each [seeds, problems].
    """
    asked = (lambda _: True, lambda step: step.same_head, lambda step: step.right)
    return [tally(results, steps, what) for what in asked]


def parts_of_tactics(results: Results, steps: dict, draws: Resamples) -> Table:
    """Which part of a tactic is predicted: its head, and with it the rest."""
    rows = []
    for system, own in steps.items():
        every, heads, right = parts(results, own)
        rows.append(
            [
                short(system),
                *(ratio(heads, every, draws), ratio(right, heads, draws)),
                ratio(right, every, draws),
            ]
        )
    columns = [
        Column("system"),
        Column("its head", format=SHARE),
        Column("the rest, given the head", format=SHARE),
        Column("all of it", format=SHARE),
    ]
    count = len(next(iter(steps.values()))[0]) if steps else 0
    which = getattr(results.words, results.known)
    note = (
        f"Of {count:,} states of known proofs ({which}), all steps with the same "
        "weight. The head is what a tactic begins with, such as exact; the rest is "
        "what it is applied to."
    )
    return Table(columns, rows, "What of the known tactic is predicted", note)


# --- who gains ------------------------------------------------------------------------


def by_head(results: Results, steps: dict, pair, draws: Resamples) -> Table:
    """The known tactics, by their heads; those that are rare together."""
    one, other = (steps[system] for system in pair)
    counts = Counter(thoughts.head(step.known) for step in other[0])
    common = [name for name, _ in counts.most_common(HEADS)]
    rows = []
    for name in [*common, "others"] if len(counts) > HEADS else common:

        def mine(step: Step, name=name) -> bool:
            first = thoughts.head(step.known)
            return (first if first in common else "others") == name

        arrays = []
        for own in (one, other):
            arrays.append(tally(results, own, lambda s: mine(s) and s.right))
            arrays.append(tally(results, own, mine))
        number = arrays[1].sum() / len(results.seeds)
        rows.append([name, number, *_both(*arrays), gain(*arrays, draws)])
    return Table(
        _columns("known tactic", "steps", pair),
        rows,
        "Known tactics predicted, by what they begin with",
        "All steps with the same weight; without an interval where steps are few.",
    )


def by_source(results: Results, pair, what: str, read, draws: Resamples) -> Table:
    """What two systems do, by what kind of problem it is.

    read: of a system, values [seeds, problems of the split with known proofs].
    """
    rows = [row for row in results.rows if row["split"] == results.known]
    sources = np.array([row["source"] for row in rows])
    one, other = (read(system) for system in pair)
    found = []
    for source in dict.fromkeys(sources):
        own = sources == source
        difference = bootstrap(100 * (one - other)[:, own], draws)
        shares = (float(one[:, own].mean()), float(other[:, own].mean()))
        found.append([str(source), int(own.sum()), *shares, difference])
    which = getattr(results.words, results.known)
    about = "tactics predicted" if what == "predicted" else "proved"
    note = "Problems with the same weight." if what == "predicted" else ""
    return Table(
        _columns("source", "problems", pair),
        found,
        f"{which} problems, {about}, by source: {short(pair[0])} and {short(pair[1])}",
        note,
    )


def _columns(first: str, counted: str, pair) -> list[Column]:
    return [
        Column(first),
        Column(counted, format=",.0f"),
        *(Column(short(system), format=SHARE) for system in pair),
        Column("difference", unit="points", format="+.1f"),
    ]


def _both(one, one_of, other, other_of) -> tuple[float | None, float | None]:
    return plain(one, one_of), plain(other, other_of)


# --- in sentences ---------------------------------------------------------------------


def sentences(results, steps: dict, said: dict, pairs, draws: Resamples) -> str:
    """The chief numbers of the tables as paragraphs; "" without Lean-CoT."""
    if not pairs or pairs[0] != ("cot", "sft-data"):
        return ""
    (one, other), found = pairs[0], []
    legal = [ratio(*tried(results, system), draws) for system in pairs[0]]
    found.append(
        f"First tries apply in {_told(legal[0])} of the cases by {short(one)}, in "
        f"{_told(legal[1])} by {short(other)}."
    )
    predicted = {system: parts(results, own) for system, own in steps.items()}
    both = [predicted[system] for system in pairs[0]]
    heads = [_told(plain(same, every)) for every, same, _ in both]
    rests = [_told(plain(right, same)) for _, same, right in both]
    found.append(
        f"Of the known tactics they predict the head in {heads[0]} and {heads[1]}, "
        f"and where the head is right, the rest in {rests[0]} and {rests[1]}."
    )
    controls = {
        "thoughts of other states": "cot-shuffled",
        "filler of the same length": "cot-filler",
    }
    told = [
        f"{_told(plain(predicted[system][2], predicted[system][0]))} with {words}"
        for words, system in {"thoughts": one, **controls, "none": other}.items()
        if system in predicted
    ]
    found.append(f"The whole tactic is predicted in {', in '.join(told)}.")
    if one in said:
        read = [r for of_seed in said[one] for r in of_seed]
        here = [r for r in read if r.holds.grounded]
        rest = [r for r in read if not r.holds.grounded]
        best = [r for of_seed in said["oracle"] for r in of_seed]
        pointing = [r.holds.points for r in read if r.holds.points is not None]
        found.append(
            f"Of {len(read):,} greedy thoughts {_mean(r.holds.grounded for r in read)} "
            "name only what the state has (of the oracle's "
            f"{_mean(r.holds.grounded for r in best)}), and "
            f"{_mean(r.holds.true for r in read)} say of their tactic what the oracle "
            "would. The tactic is the known one after "
            f"{_mean(r.step.right for r in here)} of the thoughts that name only what "
            f"is there, after {_mean(r.step.right for r in rest)} of the others. "
            f"Where both name hypotheses, {_mean(pointing)} of the tactics use one "
            "that the thought names."
        )
    if not results.published:
        found += [_by_source_told(results, pair) for pair in pairs]
    return "\n\n".join(found)


def _by_source_told(results: Results, pair) -> str:
    rows = [row for row in results.rows if row["split"] == "test"]
    sources = np.array([row["source"] for row in rows])
    gains = results.passed(pair[0]) - results.passed(pair[1])
    told = [
        f"{name} {100 * gains[:, sources == name].mean():+.1f}"
        for name in dict.fromkeys(sources)
    ]
    text = ", ".join(told).replace("-", MINUS)
    return f"Proved, {short(pair[0])} minus {short(pair[1])}, in points: {text}."


def _told(value: Estimate) -> str:
    return cell(value, Column("", format=SHARE))


def _mean(values) -> str:
    values = list(values)
    return _told(float(np.mean(values)) if values else None)
