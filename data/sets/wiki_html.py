"""Passages of a Wikipedia page in HTML, and the hints that name them.

A hint is the chain of headings above a passage and its number there:

    Child support --- Enforcement --- Paragraph #2

Numbers begin at 1 in every section, for paragraphs, tables and lists by themselves.
What stands above the first heading is the section "Short description". The sections
at the end of a page that hold no text of its own (references, links) are left out.
"""

import html
import re
from typing import NamedTuple

LEAD = "Short description"
UNKNOWN = "Unknown Wikipedia section chain"
BETWEEN = " --- "
KINDS = {
    b"p": "Paragraph",
    b"table": "Table",
    b"ul": "List",
    b"ol": "List",
    b"dl": "List",
}
LAST_SECTIONS = (
    "See also",
    "References",
    "External links",
    "Related lists",
    "Navigation menu",
)
_TAG = re.compile(rb"<\s*(/?)\s*([a-zA-Z][a-zA-Z0-9]*)([^>]*)>")
_NO_CONTENT = re.compile(rb"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.S | re.I)
_BLOCK = re.compile(rb"<\s*/?\s*(td|th|tr|li|dd|dt|p|ul|ol|dl|table|div)\b[^>]*>", re.I)
_FOOTNOTE = re.compile(r"\[[^\[\]]*\]")


class Passage(NamedTuple):
    """A paragraph, table or list; `start`, `end` are bytes of the page."""

    hint: str
    text: str
    start: int
    end: int


def passages(page: bytes, title: str, least: int = 128) -> list[Passage]:
    """The passages of a page in their order, those of under `least` bytes left out.

    Short ones are counted all the same, so that a hint does not depend on `least`.
    Blocks inside others, as paragraphs of a table, belong to these.
    """
    found: list[Passage] = []
    chain: list[tuple[int, str]] = []
    counts: dict[str, int] = {}
    inside: tuple[bytes, int, int] | None = None  # tag, depth, start
    heading: tuple[int, int] | None = None  # level, where its text begins
    # Blanked, not cut, so that places stay those of the page.
    plain = _NO_CONTENT.sub(lambda m: b" " * len(m[0]), page)
    for match in _TAG.finditer(plain):
        closes, tag, attributes = bool(match[1]), match[2].lower(), match[3]
        if inside is not None:
            name, depth, start = inside
            if tag == name and not attributes.rstrip().endswith(b"/"):
                depth += -1 if closes else 1
                inside = (name, depth, start) if depth else None
            if inside is None:
                _keep(
                    found, plain, name, start, match.end(), title, chain, counts, least
                )
            continue
        if tag in (b"h1", b"h2", b"h3", b"h4", b"h5", b"h6"):
            level = int(tag[1:])
            if not closes:
                heading = level, match.end()
            elif heading is not None:
                name = to_text(plain[heading[1] : match.start()])
                heading = None
                if level == 2 and any(last in name for last in LAST_SECTIONS):
                    return found
                if level == 1:
                    continue  # the title, which the page's name is already
                chain = [(at, text) for at, text in chain if at < level]
                chain.append((level, name))
                counts = {}
        elif tag in KINDS and not closes and heading is None:
            inside = tag, 1, match.start()
    return found


def _keep(found, page, tag, start, end, title, chain, counts, least) -> None:
    """Counts a block that is whole, and keeps it if it is long enough."""
    raw = page[start:end]
    opening = _TAG.match(raw)
    text = to_text(raw)
    if not text or text == "Contents" or b"plainlinks" in opening[3]:
        return
    if tag != b"p" and re.match(r"Contents\b", text) and b"toc" in opening[3]:
        return
    kind = KINDS[tag]
    counts[kind] = counts.get(kind, 0) + 1
    if end - start >= least:
        sections = [name for _, name in chain] or [LEAD]
        hint = BETWEEN.join([title, *sections, f"{kind} #{counts[kind]}"])
        found.append(Passage(hint, text, start, end))


def to_text(fragment: bytes) -> str:
    """Words of HTML on one line; cells and items in a row, footnote marks left out."""
    spaced = re.sub(rb"<\s*br\s*/?\s*>", b" ; ", fragment, flags=re.I)
    spaced = _BLOCK.sub(b" ", spaced)
    text = _TAG.sub(b"", spaced).decode("utf-8", "replace")
    text = html.unescape(text)
    while (shorter := _FOOTNOTE.sub("", text)) != text:
        text = shorter
    return " ".join(text.split())


def hint_of(found: list[Passage], start: int, end: int) -> Passage | None:
    """The passage that bytes start..end are, or are part of; None without one."""
    whole = [p for p in found if p.start <= start and end <= p.end]
    return min(whole, key=lambda p: p.end - p.start) if whole else None
