"""A plot is a function of its numbers: equal input gives equal SVG, gaps are gaps."""

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

from research import plots

SERIES = {"one": [(0.2, 0.1, 0.3), None, (0.4, 0.3, 0.6)], "two": [(0.5, 0.5, 0.5)] * 3}


def test_plots_are_reproducible_well_formed_svg():
    for draw in (
        lambda: plots.grouped_bars("abc", SERIES, ylabel="accuracy"),
        lambda: plots.lines([1, 2, 4], SERIES, log_x=True, xlabel="n"),
    ):
        first, second = draw(), draw()
        assert first == second
        root = ET.fromstring(first)
        assert root.tag.endswith("svg") and "http://www.w3.org/2000/svg" in root.tag


def test_a_missing_estimate_draws_no_bar():
    full = {"one": [(0.2, 0.1, 0.3)] * 3}
    gap = {"one": [(0.2, 0.1, 0.3), None, (0.2, 0.1, 0.3)]}
    colour = plots.COLOURS[0]
    count = [plots.grouped_bars("abc", s).count(colour) for s in (full, gap)]
    assert count[0] > count[1] > 0


def test_lines_that_share_a_colour_differ_in_style():
    """Closed form: of nine lines, as many as are over the colours are dashed."""
    for count in (len(plots.COLOURS), 9):
        made = plots.lines([1, 2], {str(i): [(i, i, i)] * 2 for i in range(count)})
        assert made.count("stroke-dasharray") == max(0, count - len(plots.COLOURS))


def test_ticks_are_read_as_they_stand():
    """Invariance: ticks are evenly spaced, and so are the numbers beside them."""
    made = plots.lines([1, 2], {"a": [(0.2, 0.2, 0.2), (0.37, 0.37, 0.37)]})
    ticks = [float(t) for t in re.findall(r"<!-- ([-\d.]+)% -->", made)]
    steps = {round(b - a, 6) for a, b in itertools.pairwise(ticks)}
    assert len(ticks) > 3 and len(steps) == 1 and steps != {round(min(steps))}


def contrast(colour, paper):
    def luminance(hexadecimal):
        channels = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                  for c in channels]  # fmt: skip
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted([luminance(colour), luminance(paper)])
    return (high + 0.05) / (low + 0.05)


def test_every_colour_is_visible_on_light_and_dark_paper():
    for colour in (*plots.COLOURS, plots.INK):
        assert contrast(colour, "#fdfcfa") >= 3 and contrast(colour, "#17181a") >= 3


def test_matplotlib_is_imported_only_to_draw():
    code = (
        "import sys, research.plots, research.report\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
