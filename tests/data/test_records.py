"""Rows in equal rows out, from every format; a bad one is named by file and line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.records import Record, read_records, read_rows, write_jsonl

ROWS = [
    {"messages": [{"role": "user", "content": "a\u2028b"}], "n": 1},
    {"messages": [{"role": "user", "content": "é🙂"}], "n": 2},
]


def put(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_formats_hold_the_same_rows(tmp_path):
    """JSONL, JSON and Parquet of the same rows read back equal, nested fields too."""
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    put(tmp_path / "a.json", json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "a.parquet"):
        path = tmp_path / name
        records = read_records(path)
        assert records == [Record(r, str(path), i) for i, r in enumerate(ROWS, 1)]
        assert records[1].where == f"{path}:2"


def test_bom_crlf_and_blank_lines_are_tolerated(tmp_path):
    """Line numbers count the file's lines, blank ones too."""
    path = put(
        tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "\xe2\x80\xa8"}'
    )
    assert [(r.row, r.line) for r in read_records(path)] == [
        ({"a": 1}, 1),
        ({"a": "\u2028"}, 4),
    ]


BAD_LINES = {
    b'{"a": 1': "not JSON",
    b"[1, 2]": "expected an object with named fields, got list",
    b"null": "got NoneType",
    b'{"a": NaN}': "NaN is not JSON",
    b'{"a": -Infinity}': "-Infinity is not JSON",
    b'{"a": 1, "a": 2}': "key 'a' appears more than once",
    b'{"a": "\xff"}': "not UTF-8",
    b"[" * 100_000: "not readable",
    b'{"a": ' + b"9" * 5000 + b"}": "not readable",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[:16]))
def test_a_bad_line_is_an_error_or_skipped(tmp_path, line):
    """'error' names file:line and cause; 'skip' returns both, and the raw text."""
    path = put(tmp_path / "a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(DataError, match=f"a.jsonl:2: .*{BAD_LINES[line]}"):
        read_records(path)
    rows = read_rows(path, lambda record: record, "skip")
    assert [r.line for r in rows.items] == [1, 3]
    (bad,) = rows.skipped
    assert (bad["file"], bad["line"]) == (str(path), 2)
    assert BAD_LINES[line] in bad["reason"] and "a.jsonl" not in bad["reason"]
    assert bad["raw"] == line.decode("utf-8", "backslashreplace")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    listed = tmp_path / "out" / "skipped.jsonl"
    write_jsonl(listed, rows.skipped)
    assert [json.loads(line) for line in listed.read_text().splitlines()] == [bad]
    assert [p.name for p in listed.parent.iterdir()] == ["skipped.jsonl"]


def test_errors_of_parse_are_bad_rows(tmp_path):
    """items + skipped are all the rows; a file of bad rows only is an error."""
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"n": n} for n in range(10)])

    def parse(record):
        if record.row["n"] % 3:
            raise DataError(f"{record.where}: no multiple of three")
        return record.row["n"]

    rows = read_rows(path, parse, "skip")
    assert rows.items == [0, 3, 6, 9]
    assert [bad["line"] for bad in rows.skipped] == [2, 3, 5, 6, 8, 9]
    write_jsonl(path, [{"n": 1}, {"n": 2}])
    with pytest.raises(
        DataError, match="all 2 rows are bad; the first, line 1: no mul"
    ):
        read_rows(path, parse, "skip")


BAD_FILES = {
    "none.jsonl": (None, "No such file"),
    "a.csv": (b"a,b", "expected a .jsonl, .json or .parquet"),
    "empty.jsonl": (b"\n\n", "at least one row"),
    "empty.json": (b"[]", "at least one row"),
    "object.json": (b'{"a": 1}', "expected a list of rows, got dict"),
    "broken.json": (b"[1, ", "not JSON"),
    "utf16.json": ("[{}]".encode("utf-16"), "not UTF-8"),
    "empty.parquet": (b"", "not a whole Parquet file"),
    "junk.parquet": (b"PAR1 this is no table PAR1", "not a whole Parquet file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_bad_file_is_an_error_either_way(tmp_path, name, policy):
    """What cannot be read as a whole is never skipped."""
    content, message = BAD_FILES[name]
    path = tmp_path / name
    if content is not None:
        put(path, content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_records(path, policy)


def test_other_misuse_is_named(tmp_path):
    """A folder, an unknown policy."""
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(DataError, match="expected a file, got a folder"):
        read_records(tmp_path / "d.jsonl")
    with pytest.raises(DataError, match="on_bad_row: expected 'error' or 'skip'"):
        read_records(tmp_path / "d.jsonl", "ignore")


def test_truncated_and_corrupt_parquet_is_an_error(tmp_path):
    """Cut or with flipped bytes, a Parquet file never gives rows silently."""
    path = tmp_path / "a.parquet"
    rows = [{"text": f"row {i} " * 20} for i in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    whole = path.read_bytes()
    for end in (len(whole) - 1, len(whole) // 2, 9):
        put(path, whole[:end])
        with pytest.raises(DataError, match="not a whole Parquet file"):
            read_records(path)
    put(path, whole[:40] + bytes(60) + whole[100:])
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_records(path)


def test_parquet_text_that_is_not_utf8_is_a_bad_row(tmp_path):
    """One row with broken text is skipped and the others stay."""
    path = tmp_path / "a.parquet"
    text = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": text}), path)
    with pytest.raises(DataError, match="a.parquet:2: not UTF-8"):
        read_records(path)
    assert [r.row["text"] for r in read_records(path, "skip")] == ["good", "fine"]


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=60), suffix=st.sampled_from(["jsonl", "json", "parquet"])
)
def test_any_bytes_give_rows_or_a_data_error(tmp_path_factory, data, suffix):
    """No other exception, whatever the file holds."""
    path = put(tmp_path_factory.getbasetemp() / f"fuzz.{suffix}", data)
    try:
        assert all(isinstance(r.row, dict) for r in read_records(path, "skip"))
    except DataError as error:
        assert str(path) in str(error)
