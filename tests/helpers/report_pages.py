"""A report as its files must be: one set of numbers, one page without requests."""

import json
import re
import typing
from html.parser import HTMLParser

from research.report import Status


def check_report(work, title):
    """One page without requests; one set of numbers in three files; legal verdicts."""
    page = Page()
    page.feed((work / "report.html").read_text())
    assert title in page.text and page.links
    for link in page.links:
        assert link.startswith(("data:", "#")), link
    assert not {"script", "link", "iframe", "object"} & page.tags
    assert "url(" not in page.text and "@import" not in page.text

    report = json.loads((work / "report.json").read_text())["report"]
    blocks = [block for section in report["sections"] for block in section["blocks"]]
    tables = [block for block in blocks if block["kind"] == "Table"]
    lines = (work / "report.md").read_text().splitlines()
    assert tables
    for table in tables:
        head = next(i for i, x in enumerate(lines) if x == f"**{plain(table)}**") + 2
        shown = [cells(x) for x in lines[head + 2 : head + 2 + len(table["rows"])]]
        for row, texts in zip(table["rows"], shown, strict=True):
            for column, value, text in zip(table["columns"], row, texts, strict=True):
                check_cell(value, text, column["format"])
                assert text in page.text
    statuses = [block["status"] for block in blocks if block["kind"] == "Verdict"]
    assert statuses and set(statuses) <= set(typing.get_args(Status))


def check_cell(value, text, form):
    """A number's text is the number, to the digits that are shown."""
    if value is None:
        assert text == "–"
        return
    if isinstance(value, str):
        assert text == value
        return
    expected = [value]
    if isinstance(value, dict):
        expected = [value["value"], value["low"], value["high"]]
    shown = re.findall(r"[−-]?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text))
    assert len(shown) == len(expected), text
    for number, exact in zip(shown, expected, strict=True):
        digits = len(number.partition(".")[2])
        scale = 100 if "%" in form else 1
        off = abs(float(number.replace("−", "-")) - scale * exact)
        assert off <= 0.5001 * 10**-digits, (text, value)


class Page(HTMLParser):
    """What a browser would load, and all text."""

    def __init__(self):
        super().__init__()
        self.links, self.tags, self.text = [], set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        names = ("src", "href", "srcset", "data", "action", "poster")
        self.links += [value for name, value in attrs if name in names]

    def handle_data(self, data):
        self.text += data


def plain(table) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", table["caption"])


def cells(line) -> list[str]:
    texts = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", text.strip()) for text in texts]
