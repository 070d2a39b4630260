"""Questions on disk, of a world or of a published data set alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError
from data.records import read_records, write_jsonl
from data.sets.closed_book import QARow
from data.worlds.encyclopedia import Encyclopedia, Question
from research.recite.prompts import Item


class Entry(NamedTuple):
    """A question with all answers that count.

    evidence: its passages, in order; hint: the name of the first
    """

    id: str
    question: str
    answers: tuple[str, ...]
    type: str
    evidence: tuple[str, ...]
    hint: str
    rationale: str

    def item(self, hints: bool = False) -> Item:
        """As an exemplar, or to be asked; with its hint or without."""
        return Item(
            self.question,
            self.answers[0],
            self.evidence,
            self.hint if hints else "",
            self.rationale,
        )


def write_items(path: Path, book: Encyclopedia, questions: Sequence[Question]) -> None:
    """Writes questions about an encyclopedia, one JSON object a line."""
    write_jsonl(
        path,
        [
            {
                "id": q.id,
                "question": q.text,
                "answers": list(q.answers),
                "type": q.type,
                "evidence": [book.passages[i].text for i in q.evidence[0]],
                "hint": book.passages[q.evidence[0][0]].hint,
                "rationale": q.rationale,
            }
            for q in questions
        ],
    )


def row_of(row: QARow) -> dict:
    """A published question as such an object; it has no rationale."""
    return {
        **row._asdict(),
        "answers": list(row.answers),
        "evidence": list(row.evidence),
        "rationale": "",
    }


FIELDS = {
    "id": str,
    "question": str,
    "answers": list,
    "type": str,
    "evidence": list,
    "hint": str,
    "rationale": str,
}


def read_items(path: Path) -> list[Entry]:
    """Reads such a file. Raises DataError naming file, line and field."""
    entries = []
    for record in read_records(path):
        row = record.row
        for field, kind in FIELDS.items():
            if not isinstance(row.get(field), kind):
                raise DataError(
                    f"{record.where}: {field}: expected {kind.__name__}, "
                    f"got {row.get(field)!r}"
                )
        for field in ("answers", "evidence"):
            if not all(isinstance(x, str) for x in row[field]):
                raise DataError(f"{record.where}: {field}: expected texts")
        if not row["answers"]:
            raise DataError(f"{record.where}: answers: expected at least one")
        entries.append(
            Entry(
                row["id"],
                row["question"],
                tuple(row["answers"]),
                row["type"],
                tuple(row["evidence"]),
                row["hint"],
                row["rationale"],
            )
        )
    return entries
