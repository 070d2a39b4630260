"""The page of a report: one HTML file with its style and images inside."""

import base64
import html as escaping
import json
import re
from collections.abc import Iterable
from pathlib import Path

from research.report import (
    Block,
    Column,
    Figure,
    Provenance,
    Report,
    Table,
    Text,
    Verdict,
    cell,
    duration,
    heading,
    is_number,
    paragraphs,
)

STYLE = Path(__file__).with_name("report.css")
MARKS = {
    "reproduced": ("yes", "✓"),
    "not reproduced": ("no", "✕"),
    "holds in this run": ("unsure", "✓"),
    "fails in this run": ("unsure", "✕"),
    "no difference": ("unsure", "="),
    "too noisy to tell": ("unsure", "≈"),
    "not tested here": ("untested", "○"),
}
# Nothing is loaded from anywhere, and nothing in the page can run.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html(report: Report, origin: Provenance) -> str:
    """The report as one page that asks for nothing else."""
    sections = [(f"s{i}", s.title) for i, s in enumerate(report.sections, 1)]
    sections.append(("origin", "How this was made"))
    links = "".join(f'<li><a href="#{i}">{_text(t)}</a></li>' for i, t in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{_text(section.title)}</h2>'
        f"{_blocks(section.blocks)}</section>\n"
        for (anchor, _), section in zip(sections, report.sections, strict=False)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{_text(report.title)}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<header>
<h1>{_text(report.title)}</h1>
<div class="intro">{_prose(report.intro)}</div>
{_byline(origin)}
</header>
<nav aria-label="Contents"><ol>{links}</ol></nav>
<main>
{body}<section id="origin"><h2>How this was made</h2>{_origin(origin)}</section>
</main>
</body>
</html>
"""


def _blocks(blocks: Iterable[Block]) -> str:
    """Blocks in order; neighbouring verdicts share one list."""
    parts, verdicts = [], []
    for block in [*blocks, None]:
        if isinstance(block, Verdict):
            verdicts.append(_verdict(block))
            continue
        if verdicts:
            parts.append(f'<ul class="verdicts">{"".join(verdicts)}</ul>')
            verdicts = []
        if block is not None:
            parts.append(_block(block))
    return "\n".join(parts)


def _block(block: Table | Figure | Text) -> str:
    if isinstance(block, Table):
        note = f'<p class="note">{_text(block.note)}</p>' if block.note else ""
        return (
            f"<figure>{_table(block.columns, block.rows, block.caption)}{note}</figure>"
        )
    if isinstance(block, Figure):
        caption = f"<figcaption>{_text(block.caption)}</figcaption>"
        alt = escaping.escape(block.alt)
        image = f'<img src="{_image(block.content)}" alt="{alt}">'
        return f'<figure><div class="scroll">{image}</div>{caption}</figure>'
    body = f"<pre>{_text(block.text)}</pre>" if block.verbatim else _prose(block.text)
    if block.folded:
        return f"<details><summary>{_text(block.caption)}</summary>{body}</details>"
    return (f"<h3>{_text(block.caption)}</h3>" if block.caption else "") + body


def _table(columns: Iterable[Column], rows: Iterable, caption: str = "") -> str:
    columns, rows = list(columns), [list(r) for r in rows]
    numeric = [any(is_number(r[i]) for r in rows) for i in range(len(columns))]
    kinds = [' class="n"' if n else "" for n in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{_text(heading(c))}</th>'
        for c, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{_cell(v, c)}</td>"
            for v, c, kind in zip(row, columns, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    label = f' aria-label="{escaping.escape(caption)}"' if caption else ""
    # Outside the part that scrolls, so that a narrow screen shows all of it.
    caption = (
        f'<p class="caption" aria-hidden="true">{_text(caption)}</p>' if caption else ""
    )
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return (
        f'{caption}<div class="scroll" tabindex="0"><table{label}>{table}</table></div>'
    )


def _cell(value, column: Column) -> str:
    text = _text(cell(value, column))
    if not is_number(value):
        return text
    return re.sub(r" (\[.*\])$", r' <span class="ci">\1</span>', text)


def _verdict(verdict: Verdict) -> str:
    kind, mark = MARKS[verdict.status]
    return (
        f'<li class="{kind}"><p class="status"><span aria-hidden="true">{mark}</span> '
        f"{_text(verdict.status)}</p><div><p>{_text(verdict.claim)}</p>"
        f'<p class="note">{_text(verdict.evidence)}</p></div></li>'
    )


def _image(content: str | bytes) -> str:
    """A data URI: an image cannot run script, wherever its text came from."""
    kind = "svg+xml" if isinstance(content, str) else "png"
    data = content.encode() if isinstance(content, str) else content
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _byline(origin: Provenance) -> str:
    total = sum(t.seconds for t in origin.timings)
    count = len(origin.seeds)
    facts = [
        origin.written,
        f"{count} seed{'s' if count > 1 else ''}" if count else "",
        f"{duration(total)}, sum over stages" if total else "",
        f"commit {origin.commit}" if origin.commit else "",
    ]
    return f'<p class="byline">{" · ".join(_text(f) for f in facts if f)}</p>'


def _origin(origin: Provenance) -> str:
    parts = []
    if origin.command:
        command = origin.command.replace(" --", " \\\n    --")
        parts.append(f'<pre class="command">{_text(command)}</pre>')
    facts = {
        "Seeds": ", ".join(map(str, origin.seeds)),
        "Commit": origin.commit,
        "Machine": origin.machine,
        "Versions": ", ".join(f"{k} {v}" for k, v in origin.versions.items()),
    }
    rows = "".join(f"<dt>{k}</dt><dd>{_text(v)}</dd>" for k, v in facts.items() if v)
    parts.append(f"<dl>{rows}</dl>" if rows else "")
    if origin.timings:
        total = sum(t.seconds for t in origin.timings)
        rows = [(t.stage, duration(t.seconds)) for t in origin.timings]
        table = _table(
            [Column("Stage"), Column("Wall time")],
            [*rows, ("sum over stages", duration(total))],
        )
        parts.append(f'<div class="timings">{table}</div>')
    if origin.config:
        config = json.dumps(origin.config, indent=2, default=str)
        parts.append(
            f"<details><summary>Config</summary><pre>{_text(config)}</pre></details>"
        )
    return "\n".join(parts)


def _prose(text: str) -> str:
    return "".join(f"<p>{_text(p)}</p>" for p in paragraphs(text))


def _text(value) -> str:
    return escaping.escape(str(value), quote=False)
