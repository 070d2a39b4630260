"""The Markdown of a report: the same sections and tables, figures as their captions."""

import json
import re
from collections.abc import Iterable

from research.report import (
    Block,
    Column,
    Figure,
    Provenance,
    Report,
    Table,
    Text,
    cell,
    duration,
    heading,
    is_number,
    paragraphs,
)


def markdown(report: Report, origin: Provenance) -> str:
    parts = [f"# {_line(report.title)}", *map(_line, paragraphs(report.intro))]
    for section in report.sections:
        parts.append(f"## {_line(section.title)}")
        parts += [_block(b) for b in section.blocks]
    return "\n\n".join([*parts, *_origin(origin)]) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        note = f"\n\n{_line(block.note)}" if block.note else ""
        table = _table(block.columns, block.rows)
        return f"**{_line(block.caption)}**\n\n{table}{note}"
    if isinstance(block, Figure):
        return f"*Figure: {_line(block.caption)}* ({_line(block.alt)})"
    if isinstance(block, Text):
        caption = f"**{_line(block.caption)}**\n\n" if block.caption else ""
        if block.verbatim:
            return caption + _fenced(block.text)
        return caption + "\n\n".join(map(_line, paragraphs(block.text)))
    return f"- **{block.status}**: {_line(block.claim)}\n\n  {_line(block.evidence)}"


def _table(columns: Iterable[Column], rows: Iterable) -> str:
    columns, rows = list(columns), [list(r) for r in rows]
    numeric = [any(is_number(r[i]) for r in rows) for i in range(len(columns))]
    lines = [
        [_line(heading(c)) for c in columns],
        ["---:" if n else ":---" for n in numeric],
        *[[_line(cell(v, c)) for v, c in zip(r, columns, strict=True)] for r in rows],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _origin(origin: Provenance) -> list[str]:
    parts = ["## How this was made"]
    if origin.command:
        parts.append(_fenced(origin.command))
    facts = {
        "written": origin.written,
        "commit": origin.commit,
        "seeds": ", ".join(map(str, origin.seeds)),
        "machine": origin.machine,
        "versions": ", ".join(f"{k} {v}" for k, v in origin.versions.items()),
    }
    parts.append("\n".join(f"- {k}: {_line(v)}" for k, v in facts.items() if v))
    if origin.timings:
        rows = [(t.stage, duration(t.seconds)) for t in origin.timings]
        total = duration(sum(t.seconds for t in origin.timings))
        parts.append(
            _table(
                [Column("stage"), Column("time")], [*rows, ("sum over stages", total)]
            )
        )
    if origin.config:
        parts.append(_fenced(json.dumps(origin.config, indent=2, default=str)))
    return [p for p in parts if p]


def _line(text) -> str:
    """One line of text without meaning to Markdown or HTML."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(str(text).split()))
    return text.replace("&", "&amp;")


def _fenced(text: str) -> str:
    longest = max([2, *(len(run) for run in re.findall("`+", text))])
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"
