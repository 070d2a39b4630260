"""The three forms of a report say the same, and nothing written by a model can act."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import plots
from research.report import (
    Column,
    Figure,
    Interval,
    Report,
    Section,
    Table,
    Text,
    Verdict,
    cell,
    duration,
    provenance,
    write,
)
from research.report_html import html
from research.report_markdown import markdown
from research.stages import RunInfo, Timing

EVIL = '<script>alert("x")</script>&amp; | `</pre>` [a](http://x) <img src=http://x>'
COLUMNS = [Column("model"), Column("easy", format=".1%"), Column("time", "s", ".2f")]
INFO = RunInfo(
    {"seed": 3, "note": EVIL},
    "python -m research.run --x=1",
    timings=(Timing("sft", 61.0, ""), Timing("evaluate", 2.5, "")),
)


def example(text=EVIL):
    svg = plots.grouped_bars(["1"], {"a": [(0.5, 0.4, 0.6)]})
    return Report(
        text,
        f"{text}\n\nsecond",
        [
            Section(
                "one " + text,
                [
                    Table(
                        COLUMNS,
                        [
                            [text, Interval(0.5, 0.4, -0.6), None],
                            ["b", float("nan"), 1.234],
                        ],
                        text,
                        text,
                    ),
                    Figure(svg, text, text),
                    Figure(b"\x89PNG", text, text),
                    Text(text, text),
                    Text(text, verbatim=True),
                    Verdict(text, "too noisy to tell", text),
                    Verdict("b", "reproduced", "c"),
                ],
            ),
        ],
    )


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    VOID = {"meta", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.urls, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_self_contained_and_inert(tmp_path):
    page = Page(write(example(), tmp_path, provenance(INFO, [1, 2])).read_text())
    assert "script" not in page.tags and "link" not in page.tags
    assert all(u.startswith(("#", "data:image/")) for u in page.urls)
    assert page.tags.count("img") == 2
    assert EVIL in page.text
    css = re.search(r"<style>(.*?)</style>", html(example(), provenance(INFO)), re.S)[1]
    assert "url(" not in css and "@import" not in css and "</" not in css


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_stays_text(text):
    report = Report(
        "t",
        text,
        [
            Section(
                "s",
                [
                    Table(COLUMNS, [[text, 1, 2]], text, text),
                    Text(text, text),
                    Text(text, verbatim=True),
                    Verdict(text, "reproduced", text),
                ],
            )
        ],
    )
    plain = Report(
        "t",
        "x",
        [
            Section(
                "s",
                [
                    Table(COLUMNS, [["x", 1, 2]], "x", "x"),
                    Text("x", "x"),
                    Text("x", verbatim=True),
                    Verdict("x", "reproduced", "x"),
                ],
            )
        ],
    )
    info = provenance(RunInfo())
    kinds = set(Page(html(report, info)).tags) - {"p", "h3"}  # text may be empty
    assert kinds == set(Page(html(plain, info)).tags) - {"p", "h3"}
    rows = [r for r in markdown(report, info).splitlines() if r.startswith("| ")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", r.replace("\\\\", ""))) == 4 for r in rows)


def test_all_forms_hold_the_same_cells(tmp_path):
    write(example("plain"), tmp_path, provenance(INFO, [1, 2]))
    page = re.sub("<[^>]*>", "", (tmp_path / "report.html").read_text())
    text = (tmp_path / "report.md").read_text().replace("\\", "")
    for expected in [
        "50.0% [40.0, −60.0]",
        "1.23",
        "time (s)",
        "too noisy to tell",
        "1 min 01 s",
        "2.5 s",
        "1 min 04 s",
        "sum over stages",  # which may have run at the same time
        "jax 0.",
    ]:
        assert expected in page and expected in text
    data = json.loads((tmp_path / "report.json").read_text())
    blocks = data["report"]["sections"][0]["blocks"]
    assert blocks[0]["rows"][0][1] == {"value": 0.5, "low": 0.4, "high": -0.6}
    assert blocks[0]["rows"][1][1] is None
    assert [b["kind"] for b in blocks] == [
        "Table",
        "Figure",
        "Figure",
        "Text",
        "Text",
        "Verdict",
        "Verdict",
    ]
    assert data["origin"]["seeds"] == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "figures",
        "report.html",
        "report.json",
        "report.md",
    ]


@pytest.mark.parametrize(
    "value, column, expected",
    [
        (None, Column("a"), "–"),
        (3, Column("a"), "3"),
        (-0.5, Column("a", format=".1f"), "−0.5"),
        (True, Column("a"), "True"),
        ("-x", Column("a"), "-x"),
        (Interval(1, 0, 2), Column("a", format=".0f"), "1 [0, 2]"),
    ],
)
def test_cells_are_formatted_by_their_column(value, column, expected):
    assert cell(value, column) == expected


def test_numpy_numbers_are_numbers():
    import numpy as np

    assert cell(np.float32(0.5), COLUMNS[1]) == "50.0%"
    assert cell(np.int64(3), Column("n")) == "3"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_malformed_reports_are_refused():
    with pytest.raises(ValueError, match="row 0 has 1 cells, expected 3"):
        Table(COLUMNS, [["a"]], "t")
    with pytest.raises(ValueError, match="unknown status"):
        Verdict("a", "maybe", "b")


def test_the_markdown_shows_the_figures_that_lie_beside_it(tmp_path):
    """Every picture of report.md is a file that holds its figure, in their order."""
    report = example("plain")
    write(report, tmp_path)
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "report.md").read_text())
    figures = [b for s in report.sections for b in s.blocks if isinstance(b, Figure)]
    assert shown == ["figures/1.svg", "figures/2.png"]
    for name, figure in zip(shown, figures, strict=True):
        content = figure.content
        expected = content.encode() if isinstance(content, str) else content
        assert (tmp_path / name).read_bytes() == expected
