"""Figures in one style: colour-blind safe, labelled directly, on light and dark paper.

Each function draws numbers that already carry their intervals and returns SVG text;
an axis in per cent takes shares (0.25 is drawn as 25%). Ink is a mid grey and the
background transparent, so one image serves both colour schemes of a page.
"""

import io
from collections.abc import Mapping, Sequence

# Okabe and Ito's palette, shifted a little so that each colour has a contrast of at
# least 3 to 1 on white and on near black.
COLOURS = ("#1f83c4", "#d0740a", "#0f9a72", "#b8619a", "#7a7fd1", "#8c8a1c")
INK = "#827f7a"
MARKERS = "os^Dv<"
STYLES = ("-", "--")  # of the first lines, and of those that have their colours again
WIDTH, HEIGHT = 7.2, 3.4  # inches, at 72 points each

Estimate = tuple[float, float, float]  # value, low, high


def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    ylabel: str = "",
    percent: bool = True,
) -> str:
    """Bars side by side in each group, one colour per series, with intervals.

    `series[name][i]` is (value, low, high) for groups[i], or None for no bar.
    """
    figure, axes = _axes(ylabel, percent)
    width = 0.8 / len(series)
    for k, (name, estimates) in enumerate(series.items()):
        offset = (k - (len(series) - 1) / 2) * width
        kept = [(i + offset, e) for i, e in enumerate(estimates) if e is not None]
        colour = COLOURS[k % len(COLOURS)]
        axes.bar(
            [x for x, _ in kept],
            [e[0] for _, e in kept],
            width * 0.9,
            yerr=_errors([e for _, e in kept]),
            color=(colour, 0.55),  # a whisker must be visible on its bar
            error_kw={"ecolor": colour, "elinewidth": 1.8, "capsize": 3},
            label=name,
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    if len(series) > 1:
        _legend(axes, len(series))
        axes.set_title(ylabel, loc="left", fontsize=10, color=INK, pad=28)
    return render(figure)


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    percent: bool = True,
    log_x: bool = False,
) -> str:
    """One line per series with a band for its interval, named at its end.

    `series[name][i]` is (value, low, high) at x[i], or None for no point there.
    """
    figure, axes = _axes(ylabel, percent)
    axes.set_xlabel(xlabel)
    if log_x:
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{v:g}" for v in x])
        axes.minorticks_off()
    shade = 0.18 if len(series) < 5 else 0.07  # many darker bands make one of grey
    ends = []
    for k, (name, estimates) in enumerate(series.items()):
        kept = [(v, e) for v, e in zip(x, estimates, strict=True) if e is not None]
        if not kept:
            continue
        xs, (values, lows, highs) = (
            [v for v, _ in kept],
            zip(*[e for _, e in kept], strict=True),
        )
        colour = COLOURS[k % len(COLOURS)]
        axes.fill_between(xs, lows, highs, color=colour, alpha=shade, linewidth=0)
        marker = MARKERS[k % len(MARKERS)] if len(xs) < 40 else ""
        style = STYLES[k // len(COLOURS) % len(STYLES)]
        axes.plot(xs, values, color=colour, marker=marker, linestyle=style)
        ends.append((xs[-1], values[-1], name, colour))
    _name_ends(axes, ends)
    return render(figure)


def render(figure) -> str:
    """The SVG text of a matplotlib figure, equal for equal figures; closes it."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None}
    with plt.rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            metadata=metadata,
        )
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(ylabel: str, percent: bool):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    style = {
        "font.family": "sans-serif", "font.size": 10, "text.color": INK,
        "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
        "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
        "axes.spines.left": False, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": INK, "grid.alpha": 0.25, "grid.linewidth": 0.7,
        "axes.axisbelow": True, "ytick.major.size": 0, "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
    }  # fmt: skip
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    # The vertical label is read more easily lying down, above its axis.
    axes.set_title(ylabel, loc="left", fontsize=10, color=INK, pad=10)
    axes.margins(x=0.02)
    if percent:
        # No rounding to whole ones: steps of 2.5 would read 38, 35, 33.
        shown = FuncFormatter(lambda share, _: f"{100 * share + 0:.4g}%")
        axes.yaxis.set_major_formatter(shown)
    return figure, axes


def _errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    below = [max(0.0, value - low) for value, low, _ in estimates]
    above = [max(0.0, high - value) for value, _, high in estimates]
    return [below, above]


def _legend(axes, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=min(columns, 4),
        handlelength=0.9, handleheight=0.9, columnspacing=1.6, borderaxespad=0.2,
        borderpad=0.2,
        labelcolor=INK, frameon=False,
    )  # fmt: skip


def _name_ends(axes, ends) -> None:
    """Writes each line's name beside its last point, moved apart where they collide."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.065
    place = low - gap
    for x, y, name, colour in sorted(ends, key=lambda e: e[1]):
        place = max(y, place + gap)
        axes.annotate(
            name, (x, place), xytext=(8, 0), textcoords="offset points", color=colour,
            va="center", fontsize=10, annotation_clip=False,
        )  # fmt: skip
