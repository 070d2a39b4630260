"""All claims at a glance, and what so many verdicts are worth together."""

import dataclasses
from collections.abc import Sequence

from research.easy_to_hard.findings import FLOOR, Finding
from research.intervals import UNTESTED
from research.report import Column, Interval, Section, Status, Table, Text

ROUNDING = 1e-9  # an interval as narrow as this has no width


def summary(findings: Sequence[Finding], miniature: bool) -> list[Table | Text]:
    """Every claim with its verdict and difference, and why some have none."""
    rows = [[x.claim.rstrip("."), x.status, x.difference] for x in findings]
    given = [x.status for x in findings]
    counts = {
        status: given.count(status)
        for status in Status.__args__
        if status in given or status == UNTESTED
    }
    tested = len(findings) - counts[UNTESTED]
    columns = [Column("claim"), Column("verdict"), Column("difference")]
    table = Table(
        columns,
        rows,
        "Claims, verdicts and differences",
        ", ".join(f"{status}: {n}" for status, n in counts.items())
        + ". A claim is reproduced where the whole interval is above 0 (a ratio's: "
        "above 1), not reproduced where it is below. What is compared, on which "
        "problems and at what cost is in the next section. " + multiplicity(tested),
    )
    rule = (
        "A claim is not tested here where the baseline leaves less room than the "
        "thesis's difference"
        + (
            f", where one side answers at most {FLOOR:.0%} as the miniature's base "
            "cannot do the task at all, or where an evaluator ranks too badly on easy "
            "problems to be a test"
        )
        * miniature
        + ". Who won plays no part in that; the difference is shown all the same."
    )
    why = [[x.claim.rstrip("."), "; ".join(x.reasons)] for x in findings if x.reasons]
    if not why:
        return [table, Text(rule)]
    return [
        table,
        Table([Column("claim"), Column("why")], why, "Claims without a verdict", rule),
    ]


def multiplicity(tested: int) -> str:
    """What so many intervals at 95% are worth together."""
    return (
        f"Each of the {tested} tested claims has its own interval at 95%, without a "
        "correction for their number: were there no difference anywhere, about "
        f"{0.05 * tested:.1f} of them would have a verdict by chance, half of these "
        "'reproduced'. They share problems, seeds and models, so that such errors come "
        "together."
    )


def bare(section: Section) -> Section:
    """Intervals of no width as their values alone: resamples that are all alike."""

    def value(cell):
        flat = isinstance(cell, Interval) and cell.high - cell.low < ROUNDING
        return cell.value if flat else cell

    blocks = [
        dataclasses.replace(b, rows=[[value(x) for x in row] for row in b.rows])
        if isinstance(b, Table)
        else b
        for b in section.blocks
    ]
    return dataclasses.replace(section, blocks=blocks)
