"""Natural Questions, TriviaQA and HotpotQA as they are published: one shape of rows.

    Natural Questions   nq-{train,dev}-*.jsonl(.gz), with the pages' HTML and bytes
    TriviaQA            {unfiltered-,}{web-,wikipedia-,}{train,dev}.json
    HotpotQA            hotpot_{train_v1.1,dev_distractor_v1}.json

The same rows come from TFDS (`natural_questions`, `trivia_qa`) by the `from_tfds_*`
functions. Evaluation takes the first rows of a file, in its order.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from data.errors import DataError
from data.sets import wiki_html


class QARow(NamedTuple):
    """A question, all answers that count, and its evidence where it is known.

    evidence: passages in order; hint: the name of the first, "" where there is none
    """

    id: str
    question: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...]
    hint: str
    type: str


# --- Natural Questions --------------------------------------------------------------


def read_natural_questions(path) -> Iterator[QARow]:
    """Rows that have a short and a long answer; questions of yes or no are left out.

    Raises DataError naming file, line and field.
    """
    for where, row in natural_questions_lines(path):
        made = parse_natural_question(row, where)
        if made is not None:
            yield made


def natural_questions_lines(path) -> Iterator[tuple[str, Any]]:
    """(place, row) of every line, as `parse_natural_question` takes them.

    Raises DataError naming file and line.
    """
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{path}:{number}"
                if line.strip():
                    yield where, _parsed(line, where)
    except BROKEN as e:
        raise _broken(path, e, f" after line {number}") from e


def parse_natural_question(
    row: Any, where: str, most_tokens: int | None = None
) -> QARow | None:
    """A line of the full format; None for one without a short and a long answer.

    Of several annotators' long answers, the longest in bytes; of their short answers,
    all, in order, each once. most_tokens: longer short answers, in tokens of the data
    set, do not count.
    """
    row = _fields(
        row,
        where,
        {
            "example_id": (int, str),
            "question_text": str,
            "document_title": str,
            "document_html": str,
            "annotations": list,
        },
    )
    page = row["document_html"].encode()
    long, answers = None, []
    for i, annotation in enumerate(row["annotations"]):
        at = f"{where}: annotations[{i}]"
        fields = {
            "long_answer": dict,
            "short_answers": list,
            "yes_no_answer": (str, int),
        }
        annotation = _fields(annotation, at, fields)
        span = _span(annotation["long_answer"], at, len(page))
        if span and (long is None or span[1] - span[0] > long[1] - long[0]):
            long = span
        for short in annotation["short_answers"]:
            found = _span(short, at, len(page))
            if found and most_tokens is not None:
                fields = {"start_token": int, "end_token": int}
                tokens = _fields(short, at, fields)
                if tokens["end_token"] - tokens["start_token"] > most_tokens:
                    continue
            text = wiki_html.to_text(page[slice(*found)]) if found else ""
            answers += [text] if text else []
    if long is None or not answers:
        return None
    passage = wiki_html.hint_of(
        wiki_html.passages(page, row["document_title"], least=0), *long
    )
    return QARow(
        str(row["example_id"]),
        row["question_text"],
        tuple(dict.fromkeys(answers)),
        (wiki_html.to_text(page[slice(*long)]),),
        passage.hint if passage else wiki_html.UNKNOWN,
        "short answer",
    )


def _span(value: Any, where: str, size: int) -> tuple[int, int] | None:
    """(start, end) bytes of an answer; None where there is none, written as -1."""
    fields = _fields(value, where, {"start_byte": int, "end_byte": int})
    start, end = fields["start_byte"], fields["end_byte"]
    if start < 0 or end < 0:
        return None
    if not start < end <= size:
        raise DataError(
            f"{where}: start_byte, end_byte: expected a span of the {size} bytes of "
            f"document_html, got {start} to {end}"
        )
    return start, end


def from_tfds_natural_questions(rows: Iterable[dict], name: str) -> Iterator[QARow]:
    """The same of TFDS `natural_questions/default`, whose sequences are columns."""
    for where, row in natural_questions_of_tfds(rows, name):
        made = parse_natural_question(row, where)
        if made is not None:
            yield made


def natural_questions_of_tfds(
    rows: Iterable[dict], name: str
) -> Iterator[tuple[str, Any]]:
    """(place, row) of TFDS's rows in the shape of the published lines."""
    for number, row in enumerate(rows, start=1):
        where = f"tfds:{name}: row {number}"
        row = _fields(
            row, where, {"id": (str, int), "question": dict, "document": dict,
                         "annotations": (dict, list)},
        )  # fmt: skip
        made = {
            "example_id": row["id"],
            "question_text": row["question"].get("text"),
            "document_title": row["document"].get("title"),
            "document_html": row["document"].get("html"),
            "annotations": _rows_of(_plain(row["annotations"])),
        }
        for annotation in made["annotations"]:
            annotation["short_answers"] = _rows_of(annotation.get("short_answers", []))
        yield where, made


def _plain(value: Any) -> Any:
    """Arrays as lists and their numbers as Python's own, in any nesting."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _rows_of(columns: Any) -> list:
    """Objects of an object of columns, as TFDS keeps a sequence of objects."""
    if not isinstance(columns, dict):
        return list(columns)
    size = max((len(v) for v in columns.values() if not isinstance(v, dict)), default=0)
    made = []
    for i in range(size):
        one = {}
        for key, value in columns.items():
            nested = isinstance(value, dict)
            one[key] = {k: v[i] for k, v in value.items()} if nested else value[i]
        made.append(one)
    return made


# --- TriviaQA -----------------------------------------------------------------------


def read_trivia(path) -> Iterator[QARow]:
    """Rows of a published TriviaQA file; those of the test split, unanswered, are none.

    Raises DataError naming file, row and field.
    """
    for number, row in enumerate(_fields(_json(path), path, {"Data": list})["Data"]):
        where = f"{path}: Data[{number}]"
        row = _fields(row, where, {"Question": str, "QuestionId": str})
        if "Answer" not in row:
            continue
        answer = _fields(row, where, {"Answer": dict})["Answer"]
        where = f"{where}: Answer"
        answer = _fields(answer, where, {"Value": str, "Aliases": list})
        for alias in answer["Aliases"]:
            _fields({"Aliases": alias}, where, {"Aliases": str})
        yield _trivia(row["QuestionId"], row["Question"], answer["Value"],
                      answer["Aliases"])  # fmt: skip


def from_tfds_trivia(rows: Iterable[dict], name: str) -> Iterator[QARow]:
    """The same of TFDS `trivia_qa/rc.nocontext`."""
    for number, row in enumerate(rows, start=1):
        where = f"tfds:{name}: row {number}"
        row = _fields(row, where, {"question": str, "question_id": str, "answer": dict})
        aliases = list(row["answer"].get("aliases", []))
        value = row["answer"].get("value", "")
        yield _trivia(row["question_id"], row["question"], value, aliases)


def _trivia(name: str, question: str, value: str, aliases: list[str]) -> QARow:
    """Scored are the aliases; the value, which they should hold, goes first."""
    answers = tuple(dict.fromkeys([value, *aliases] if value else aliases))
    return QARow(name, question, answers, (), "", "trivia")


# --- HotpotQA -----------------------------------------------------------------------


def read_hotpot(path) -> Iterator[QARow]:
    """Rows of a published HotpotQA file; evidence: the two pages of supporting facts.

    The pages are in the order in which the facts name them. Raises DataError naming
    file, row and field.
    """
    rows = _json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of questions")
    for number, row in enumerate(rows):
        where = f"{path}: [{number}]"
        row = _fields(
            row, where, {"_id": str, "question": str, "answer": str, "type": str}
        )
        pages = {
            title: "".join(sentences).strip()
            for title, sentences in _pairs(row, "context", where)
        }
        named = dict.fromkeys(
            title for title, _ in _pairs(row, "supporting_facts", where)
        )
        evidence = tuple(pages[title] for title in named if title in pages)
        yield QARow(
            row["_id"], row["question"], (row["answer"],), evidence, "", row["type"]
        )


PAIRS = {"context": "[title, [sentence, ...]]", "supporting_facts": "[title, number]"}


def _pairs(row: dict, field: str, where: str) -> list:
    """Titles, each with its sentences or a number; none where the field is absent."""
    found = row.get(field, [])
    for pair in found if isinstance(found, list) else [found]:
        match field, pair:
            case "context", [str(), [*sentences]] if set(map(type, sentences)) <= {str}:
                continue
            case "supporting_facts", [str(), int()]:
                continue
        got = f"got {pair!r:.60}"
        raise DataError(f"{where}: {field}: expected {PAIRS[field]}, {got}")
    return found


# --- shared -------------------------------------------------------------------------

BROKEN = (OSError, EOFError, zlib.error)  # files that are no files, or half of one


def _open(path):
    """A file of bytes, unpacked if its name ends in .gz."""
    return (gzip.open if str(path).endswith(".gz") else open)(path, "rb")


def _broken(path, error: Exception, where: str = "") -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{path}: cannot be read{where}: {reason}")


def _json(path):
    try:
        with _open(path) as file:
            data = file.read()
    except BROKEN as e:
        raise _broken(path, e) from e
    return _parsed(data, path)


def _parsed(data: bytes, where) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise DataError(f"{where}: not UTF-8: {e.reason} at byte {e.start}") from e
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}: not JSON: {e}") from e


def _fields(row: Any, where, kinds: dict) -> dict:
    """The row, if it is an object with fields of these types."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, got {type(row).__name__}")
    for field, kind in kinds.items():
        if field not in row:
            raise DataError(f"{where}: {field}: missing")
        if not isinstance(row[field], kind):
            names = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join(k.__name__ for k in names)
            got = type(row[field]).__name__
            raise DataError(f"{where}: {field}: expected {expected}, got {got}")
        if isinstance(row[field], str):
            try:
                row[field].encode()
            except UnicodeEncodeError as e:
                raise DataError(
                    f"{where}: {field}: half of a surrogate pair at character {e.start}"
                ) from e
    return row
