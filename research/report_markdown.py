"""The Markdown of a report: its sections and tables, figures as files beside it."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator

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

FIGURES = "figures"  # the folder of the files, beside the report


def markdown(report: Report, origin: Provenance) -> str:
    """The report as text; its figures are the files of `figure_files`."""
    parts = [f"# {_line(report.title)}", *map(_line, paragraphs(report.intro))]
    names = iter(figure_files(report))
    for section in report.sections:
        parts.append(f"## {_line(section.title)}")
        parts += [_block(b, names) for b in section.blocks]
    return "\n\n".join([*parts, *_origin(origin)]) + "\n"


def figure_files(report: Report) -> dict[str, bytes]:
    """{name: content} of the report's figures, numbered in their order."""
    blocks = itertools.chain.from_iterable(s.blocks for s in report.sections)
    found = {}
    for figure in (block for block in blocks if isinstance(block, Figure)):
        content, kind = figure.content, "png"
        if isinstance(content, str):
            content, kind = content.encode(), "svg"
        found[f"{len(found) + 1}.{kind}"] = content
    return found


def _block(block: Block, figures: Iterator[str]) -> str:
    if isinstance(block, Table):
        note = f"\n\n{_line(block.note)}" if block.note else ""
        table = _table(block.columns, block.rows)
        return f"**{_line(block.caption)}**\n\n{table}{note}"
    if isinstance(block, Figure):
        image = f"![{_line(block.alt)}]({FIGURES}/{next(figures)})"
        return f"{image}\n\n*Figure: {_line(block.caption)}*"
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
