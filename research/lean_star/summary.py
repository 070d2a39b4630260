"""The claims in a line each."""

from collections import Counter
from collections.abc import Sequence

from research.report import Column, Section, Status, Table, Verdict

LINES = {
    "1.": "Thoughts help to predict and to prove.",
    "2.": "Each round of expert iteration adds.",
    "3.": "Thoughts add beyond expert iteration.",
    "4.": "Doubling K adds.",
    "5.": "Best-first search loses only with thoughts.",
    "6.": "Gains by difficulty, and where rules are new.",
}


def in_short(verdicts: Sequence[Verdict]) -> Section:
    """What became of each claim: how many of its verdicts are of each status.

    A verdict belongs to the claim whose number it begins with.
    """
    counts: dict[str, Counter] = {number: Counter() for number in LINES}
    for verdict in verdicts:
        counts[verdict.claim.partition(" ")[0]][verdict.status] += 1
    rows = []
    for number, line in LINES.items():
        own = [(s, counts[number][s]) for s in Status.__args__ if counts[number][s]]
        told = ", ".join(f"{n} × {status}" for status, n in own)
        rows.append([f"{number} {line}", told])
    columns = [Column("claim"), Column("its comparisons")]
    note = "Each comparison is below with its numbers, an analysis after the tables."
    return Section("In short", [Table(columns, rows, "The six claims", note)])
