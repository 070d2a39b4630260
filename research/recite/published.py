"""Questions of Natural Questions, TriviaQA and HotpotQA, as the miniature has its own.

Files are those that the data sets are published in, or names of TFDS. The thesis reads
Natural Questions and TriviaQA through TFDS, whose rows are in another order than the
files': only `tfds:natural_questions/default` and `tfds:trivia_qa/rc.nocontext` have its
very first 1,024 questions. HotpotQA's file has the order of its Hugging Face copy.
"""

import csv
import dataclasses
import gzip
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data.errors import DataError
from data.published import load_tfds
from data.records import as_record, stream, write_jsonl
from data.sets import closed_book, wiki_html
from data.sets.closed_book import QARow
from research.recite.records import Entry, read_items, row_of
from research.recite.settings import Task
from train.settings import at_least, checked, positive

Source = Literal["natural_questions", "trivia_qa", "hotpot_qa"]
TITLES: dict[Source, str] = {  # as the thesis's tables call them
    "natural_questions": "Natural Questions",
    "trivia_qa": "TriviaQA",
    "hotpot_qa": "HotpotQA",
}
TFDS = "tfds:"
EXEMPLARS = Path(__file__).parent / "exemplars"
OWN = {"trivia_qa": "one_hop.jsonl", "hotpot_qa": "two_hop.jsonl"}


@dataclasses.dataclass(frozen=True)
class Files:
    """A data set: files in their order, or one name `tfds:NAME/CONFIG`.

    test: of the validation split. train: whose first rows exemplars are drawn from.
    exemplars: JSON lines of solved items that are drawn from in their place; those of
    `research/recite/exemplars` where there is neither.
    """

    test: tuple[str, ...]
    train: tuple[str, ...] = ()
    exemplars: str | None = None

    def __post_init__(self):
        if not self.test:
            raise ValueError("test: expected at least one file")
        if self.train and self.exemplars:
            raise ValueError("exemplars: expected no file of them beside train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedTask(Task):
    """Questions of a data set, the first `questions` that count, and what is asked.

    most_tokens, most_bytes: longer short answers do not count, longer passages are cut;
    the original code does so where there are more than 5 exemplars.
    methods, contexts: see `research.recite.answering`; robust: draws of exemplars, too.
    """

    source: Source
    shots: int = at_least(0, 5)
    questions: int = positive(1024)
    most_tokens: int | None = positive(None)
    most_bytes: int | None = positive(None)
    methods: tuple[str, ...] = ("direct", "recite")
    contexts: tuple[str, ...] = checked(
        lambda c: c in ("gold", "retrieved"), "'gold' or 'retrieved'", ()
    )
    robust: bool = False

    def __post_init__(self):
        super().__post_init__()
        if (self.hops == 2) != (self.source == "hotpot_qa"):
            raise ValueError("hops: expected 2 for hotpot_qa and 1 for the others")
        if self.contexts and self.source != "natural_questions":
            raise ValueError(
                f"contexts: expected none, for {self.source} has no passages"
            )

    @property
    def plain(self) -> Task:
        """What answering and scoring need to know."""
        own = [f.name for f in dataclasses.fields(Task)]
        return Task(**{name: getattr(self, name) for name in own})

    @property
    def wanted(self) -> dict[str, Any]:
        """What reading needs to know."""
        names = ("source", "questions", "most_tokens", "most_bytes")
        return {name: getattr(self, name) for name in names}


class _Read(NamedTuple):
    """A row and the passages of its page; none but Natural Questions has these."""

    row: QARow
    passages: tuple[wiki_html.Passage, ...] = ()


def read_questions(
    folder: Path,
    *,
    files: Mapping[str, Files],
    wanted: Mapping[str, Mapping[str, Any]],
    passages: str | None,
    pool: int,
    per_page: int,
    seed: int,
) -> dict:
    """Stage: questions, exemplars and passages, in the files of a miniature's world.

    Leaves {task}.jsonl and exemplars_{task}.jsonl of every task, and passages.jsonl
    ({hint, passage}) to retrieve from and to ask questions about.

    Args:
      files: of every source. wanted: of every task, `PublishedTask.wanted`.
      passages: a file of passages (see `read_passages`); None: those of the pages that
        the questions are about, and at most `per_page` of each page of an exemplar.
      pool: rows of the training split from which exemplars are drawn.

    Raises DataError naming file, row and field; or the file that has no question.
    """
    _check_files(files, passages)
    rng = np.random.default_rng([seed, 11])
    pages: dict[str, str] = {}
    counts, left_out = {}, {}
    for name, rules in wanted.items():
        source, given = rules["source"], files[rules["source"]]
        seen: Counter[str] = Counter()
        found = list(
            itertools.islice(
                _rows(source, given.test, "validation", rules, seen), rules["questions"]
            )
        )
        if not found:
            raise DataError(f"{given.test[0]}: no question with an answer")
        counts[name] = _write(folder / f"{name}.jsonl", found)
        for read in found:
            pages |= {p.hint: p.text for p in read.passages}
        solved = folder / f"exemplars_{name}.jsonl"
        if given.train:
            left_out[f"exemplars_{name}"] = unfit = Counter()
            train = _rows(source, given.train, "train", rules, unfit)
            asked = {read.row.question for read in found}
            kept = [r for r in itertools.islice(train, pool) if r.row.evidence]
            kept = [r for r in kept if r.row.question not in asked]
            if not kept:
                raise DataError(f"{given.train[0]}: no row with a passage to show")
            for read in kept:
                some = rng.permutation(len(read.passages))[:per_page]
                chosen = [read.passages[i] for i in sorted(some)]
                pages |= {p.hint: p.text for p in chosen if p.hint not in pages}
            counts[f"exemplars_{name}"] = _write(solved, kept)
        else:
            entries = _solved(Path(given.exemplars or _own(source)), source)
            write_jsonl(solved, [entry._asdict() for entry in entries])
            counts[f"exemplars_{name}"] = len(entries)
        left_out[name] = seen
    if passages is not None:
        corpus = list(read_passages(passages))
    else:
        corpus = [{"hint": hint, "passage": text} for hint, text in pages.items()]
    write_jsonl(folder / "passages.jsonl", corpus)
    counts["passages"] = len(corpus)
    return {"counts": counts, "left_out": left_out, "corpus": passages or "pages"}


def _check_files(files: Mapping[str, Files], passages: str | None) -> None:
    """Raises DataError naming the files that are not there, before any is read."""
    named = [passages] if passages else []
    for given in files.values():
        named += [*given.test, *given.train]
        named += [given.exemplars] if given.exemplars else []
    absent = [x for x in named if not x.startswith(TFDS) and not Path(x).is_file()]
    if absent:
        raise DataError(f"{', '.join(absent)}: no such file")


def _solved(path: Path, source: str) -> list[Entry]:
    """Exemplars of a file, with all that a prompt shows of them.

    Raises DataError naming the one that lacks passages or a rationale.
    """
    entries = read_items(path)
    hops = 2 if source == "hotpot_qa" else 1
    for entry in entries:
        if len(entry.evidence) != hops:
            raise DataError(
                f"{path}: {entry.id}: evidence: expected {hops} passages, got "
                f"{len(entry.evidence)}"
            )
        if hops == 2 and not entry.rationale:
            raise DataError(f"{path}: {entry.id}: rationale: expected text")
    return entries


def _own(source: str) -> Path:
    if source not in OWN:
        raise DataError(
            f"{source}: expected files of the training split, or of exemplars"
        )
    return EXEMPLARS / OWN[source]


def _write(path: Path, found: Iterable[_Read]) -> int:
    rows = [row_of(read.row) for read in found]
    write_jsonl(path, rows)
    return len(rows)


def _rows(
    source: str, paths: Iterable[str], split: str, rules, seen: Counter
) -> Iterator[_Read]:
    """Rows of files that count, in order; `seen` counts what is left out."""
    for path in paths:
        yield from _READERS[source](path, split, rules, seen)


def _natural_questions(path: str, split: str, rules, seen) -> Iterator[_Read]:
    most = rules["most_bytes"]
    if path.startswith(TFDS):
        name = path.removeprefix(TFDS)
        lines = closed_book.natural_questions_of_tfds(_tfds(name, split), name)
    else:
        lines = closed_book.natural_questions_lines(path)
    for where, line in lines:
        row = closed_book.parse_natural_question(line, where, rules["most_tokens"])
        if row is None:
            seen["no short or no long answer"] += 1
            continue
        page = line["document_html"].encode()
        found = wiki_html.passages(page, line["document_title"])
        if most is not None:
            evidence = tuple(cut_bytes(text, most) for text in row.evidence)
            row = row._replace(evidence=evidence)
        yield _Read(row, tuple(found))


def _trivia(path: str, split: str, rules, seen) -> Iterator[_Read]:
    if path.startswith(TFDS):
        name = path.removeprefix(TFDS)
        rows = closed_book.from_tfds_trivia(_tfds(name, split), name)
    else:
        rows = closed_book.read_trivia(path)
    for row in rows:
        if row.answers:
            yield _Read(row)
        else:
            seen["no answer"] += 1


def _hotpot(path: str, split: str, rules, seen) -> Iterator[_Read]:
    if path.startswith(TFDS):
        raise DataError(f"{path}: expected a file; HotpotQA is none of TFDS's")
    return map(_Read, closed_book.read_hotpot(path))


_READERS = {
    "natural_questions": _natural_questions,
    "trivia_qa": _trivia,
    "hotpot_qa": _hotpot,
}


def _tfds(name: str, split: str) -> Iterator[dict]:
    data = load_tfds(name, split)
    return (data[i] for i in range(len(data)))


def cut_bytes(text: str, most: int) -> str:
    """The text's first `most` bytes of UTF-8, without half a character."""
    return text.encode()[:most].decode("utf-8", "ignore").rstrip()


def read_passages(path: str) -> Iterator[dict]:
    """Rows {hint, passage} of a corpus.

    JSON lines with "contents" (Anserini's collections) or "passage", with or without a
    "title" or "hint"; or DPR's psgs_w100.tsv(.gz): id, text, title.
    Raises DataError naming file, row and field.
    """
    if path.removesuffix(".gz").endswith(".tsv"):
        yield from _table(path)
        return
    for line, _, row in stream(path):
        row = as_record(path, line, row).row
        found = row.get("hint", row.get("title", "")), row.get("contents")
        hint, text = found[0], row.get("passage", found[1])
        for field, value in (("contents", text), ("title", hint)):
            if not isinstance(value, str):
                told = f"expected text, got {value!r:.60}"
                raise DataError(f"{path}:{line}: {field}: {told}")
        yield {"hint": hint, "passage": text}


def _table(path: str) -> Iterator[dict]:
    """Rows {hint, passage} of id, text, title, with tabs between them."""
    opened = gzip.open if path.endswith(".gz") else open
    line = 0
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t")
            for row in rows:
                line = rows.line_num
                if row[:1] == ["id"]:
                    continue
                if len(row) != 3:
                    raise DataError(
                        f"{path}:{line}: expected id, text and title, got "
                        f"{len(row)} columns"
                    )
                yield {"hint": row[2], "passage": row[1]}
    except (csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: cannot be read after line {line}: {e}") from e
