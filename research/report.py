"""A report is data; HTML for people, Markdown and JSON for everything else.

    report = Report("Easy to hard", "What was asked.", [Text(...), Table(...), ...])
    write(report, folder, provenance(run_info, seeds=[0, 1, 2]))

The page is one file: no script, no request, light and dark. Every string is escaped,
since tables and texts may hold what a model wrote.
"""

import dataclasses
import datetime
import math
import numbers
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from research.stages import RunInfo, Timing
from train.files import write_atomic, write_json

Status = Literal[
    "reproduced",
    "not reproduced",
    "holds in this run",  # of one seed
    "fails in this run",
    "no difference",
    "too noisy to tell",
    "not tested here",
]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "grain",
            "ml_collections", "tokenizers", "matplotlib")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: `format` is a format spec such as '.1%'; `unit` stands in the head."""

    name: str
    unit: str = ""
    format: str = ""


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, formatted as its column says."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of strings, numbers, `Interval`s or None (shown as a dash)."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    caption: str
    note: str = ""

    def __post_init__(self):
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.caption!r}: row {i} has {len(row)} cells,"
                    f" expected {len(self.columns)}"
                )


@dataclasses.dataclass(frozen=True)
class Figure:
    """An image: `content` is SVG text or PNG bytes, see `plots.render`."""

    content: str | bytes
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Text:
    """Paragraphs, separated by blank lines; `verbatim` keeps lines and spaces.

    `folded`: the page shows the caption, and the text to who asks for it.
    """

    text: str
    caption: str = ""
    verbatim: bool = False
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one claim of the thesis, and on what evidence."""

    claim: str
    status: Status
    evidence: str

    def __post_init__(self):
        if self.status not in Status.__args__:
            raise ValueError(
                f"verdict on {self.claim!r}: unknown status {self.status!r}"
            )


Block = Table | Figure | Text | Verdict


@dataclasses.dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Report:
    title: str
    intro: str
    sections: Sequence[Section]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a report comes from; times are seconds of wall time per stage."""

    command: str = ""
    config: dict = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    commit: str | None = None
    machine: str = ""
    written: str = ""


def provenance(run_info: RunInfo, seeds: Sequence[int] = ()) -> Provenance:
    """The facts of a run for its report; versions and commit as they are now."""
    return Provenance(
        command=run_info.command,
        config=run_info.config,
        seeds=tuple(seeds),
        versions=library_versions(),
        timings=run_info.timings,
        commit=git_commit(),
        machine=f"{platform.system()} {platform.machine()}",
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def library_versions() -> dict[str, str]:
    """{"python": ..., package: version} of the libraries that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # a report of a run that did not need it
    return versions


def git_commit() -> str | None:
    """The commit of this code, '+ changes' when files differ from it; else None."""

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} + changes" if changed else commit


def write(report: Report, folder: Path, origin: Provenance = Provenance()) -> Path:
    """Writes report.json, report.md with its figures, report.html; returns the page."""
    from research.report_html import html
    from research.report_markdown import FIGURES, figure_files, markdown

    folder = Path(folder)
    for name, content in figure_files(report).items():
        write_atomic(folder / FIGURES / name, content)
    write_json(folder / "report.json", _plain({"report": report, "origin": origin}))
    write_atomic(folder / "report.md", markdown(report, origin))
    write_atomic(folder / "report.html", html(report, origin))
    return folder / "report.html"


def cell(value: Any, column: Column) -> str:
    """A cell as text: the number in the column's format, its interval in brackets."""
    if isinstance(value, Interval):
        low, high = (cell(v, column).rstrip("%") for v in (value.low, value.high))
        return f"{cell(value.value, column)} [{low}, {high}]"
    if value is None or isinstance(value, numbers.Real) and math.isnan(value):
        return "–"
    if is_number(value):
        return format(value, column.format).replace("-", "\N{MINUS SIGN}")
    return str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real | Interval) and not isinstance(value, bool)


def heading(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def paragraphs(text: str) -> list[str]:
    return [p.strip() for p in text.split("\n\n") if p.strip()]


def duration(seconds: float) -> str:
    """Wall time as people say it: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _plain(value: Any) -> Any:
    """JSON-able image of the report; images by their captions, NaN as null."""
    if isinstance(value, Figure):
        return {"kind": "Figure", "caption": value.caption, "alt": value.alt}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        kind = {"kind": type(value).__name__} if isinstance(value, Block) else {}
        return kind | {k: _plain(v) for k, v in fields.items()}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()  # a numpy scalar
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
