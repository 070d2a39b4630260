"""Theorems of the test that training has, too, but for names and numbers."""

import re
from collections import Counter

import numpy as np

from research.intervals import Resamples, bootstrap
from research.lean_star.names import pairs_of, short
from research.lean_star.results import Results
from research.lean_star.world import read_pairs
from research.report import Column, Section, Table, Text


def pattern(state: str) -> str:
    """A state with its names in the order they come and every number as 0."""
    seen: dict[str, str] = {}

    def blank(found: re.Match) -> str:
        word = found[0]
        if word.isdigit():
            return "0"
        if word in ("Prop", "True", "False", "ℕ", "ℤ"):
            return word
        return seen.setdefault(word, f"x{len(seen)}")

    return re.sub(r"[^\W\d_]\w*|\d+", blank, state)


def familiar(results: Results) -> np.ndarray:
    """Which problems are theorems of training but for names and numbers [problems]."""
    first: dict[str, str] = {}
    for pair in read_pairs(results.data):
        first.setdefault(pair.theorem, pair.state)
    known = {pattern(state) for state in first.values()}
    return np.array([pattern(row["states"][0]) in known for row in results.rows])


def with_other_numbers(results: Results, draws: Resamples) -> Section | None:
    """How many there are, and the results on the rest; None of published theorems."""
    if results.published:
        return None
    found = familiar(results)
    own = found[results.of("test")]
    groups = {"with other numbers": own, "the rest": ~own}
    groups = {name: chosen for name, chosen in groups.items() if chosen.any()}

    def split(values) -> list:
        return [bootstrap(values[:, chosen], draws) for chosen in groups.values()]

    proved = {system: results.passed(system) for system in results.systems}
    rows = [[short(system), *split(values)] for system, values in proved.items()]
    gains = [
        [f"{short(one)} − {short(other)}", *split(100 * (proved[one] - proved[other]))]
        for one, other in pairs_of(results)
    ]
    names = [f"{name} ({int(chosen.sum())})" for name, chosen in groups.items()]

    def columns(form: str) -> list[Column]:
        return [Column("system"), *(Column(name, format=form) for name in names)]

    return Section(
        "Theorems that training has with other numbers",
        [
            Text(_which(results, found)),
            Table(columns(".1%"), rows, f"{results.words.test} problems proved"),
            Table(columns("+.1f"), gains, "What thoughts add, in percentage points"),
        ],
    )


def _which(results: Results, found: np.ndarray) -> str:
    parts = []
    for split in ("test", "novel"):
        own = results.of(split)
        total = Counter(
            row["source"] for row, mine in zip(results.rows, own, strict=True) if mine
        )
        same = Counter(
            row["source"]
            for row, mine in zip(results.rows, own & found, strict=True)
            if mine
        )
        told = ", ".join(f"{name} {same[name]} of {n}" for name, n in total.items())
        parts.append(
            f"{int((own & found).sum())} of {int(own.sum())} "
            f"{getattr(results.words, split)} problems ({told})"
        )
    return (
        "The held-out problems are no theorem of training, but some are one up to the "
        "names in it and the numbers: " + "; ".join(parts) + "."
    )
