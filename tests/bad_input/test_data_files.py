"""Any file of rows is used, or refused in one line that names file, line and field."""

import json
import tempfile
from pathlib import Path

import pytest
from helpers.bad_input import DEEP, FUZZ, JSON, ROW, TALK, Bench, accepted_or_refused
from helpers.entry import write_rows
from hypothesis import given
from hypothesis import strategies as st


def parquet(**columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


GOOD = lines(ROW) * 3
DATA = {
    "empty": ("d.jsonl", b"", ["d.jsonl"]),
    "blank": ("d.jsonl", b"\n \n\n", ["d.jsonl"]),
    "binary": ("d.jsonl", bytes(range(256)) * 9, ["d.jsonl:1"]),
    "utf-8": ("d.jsonl", GOOD + b'{"prompt": "\xff"}\n', ["d.jsonl:4: not UTF-8"]),
    "half a row": ("d.jsonl", GOOD + b'{"prompt": "a', ["d.jsonl:4: not JSON"]),
    "a list": ("d.jsonl", GOOD + b"[1]\n", ["d.jsonl:4", "list"]),
    "a number": ("d.jsonl", b"3\n", ["d.jsonl:1", "int"]),
    "nan": ("d.jsonl", b'{"prompt": NaN, "completion": "a"}\n', ["d.jsonl:1", "NaN"]),
    "nesting": ("d.jsonl", DEEP.encode(), ["d.jsonl:1"]),
    "twice": ("d.jsonl", b'{"prompt": "a", "prompt": "b"}\n', ["'prompt'", "once"]),
    "keys": ("d.jsonl", lines({"promt": "a", "completion": "b"}), ["'prompt'"]),
    "number": ("d.jsonl", GOOD + lines(ROW | {"completion": 3}),
               ["d.jsonl:4: completion: expected a string, got int"]),
    "null": ("d.jsonl", lines(ROW | {"prompt": None}), ["d.jsonl:1: prompt", "null"]),
    "silent": ("d.jsonl", lines(ROW | {"completion": " "}), ["d.jsonl:1: completion"]),
    "other shape": ("d.jsonl", GOOD + lines(TALK), ["d.jsonl:4", "'prompt'"]),
    "surrogate": ("d.jsonl", b'{"prompt": "\\ud800", "completion": "a"}\n',
                  ["d.jsonl:1: prompt", "surrogate"]),
    "role": ("d.jsonl", lines({"messages": [{"role": "assistent", "content": "a"}]}),
             ["messages[0].role", "did you mean 'assistant'"]),
    "no messages": ("d.jsonl", lines({"messages": []}), ["d.jsonl:1: messages"]),
    "messages text": ("d.jsonl", lines({"messages": "hi"}), ["d.jsonl:1: messages"]),
    "no answer": ("d.jsonl", lines({"messages": TALK["messages"][:1]}),
                  ["messages[0].role"]),
    "json object": ("d.json", b'{"prompt": "a"}', ["d.json", "list"]),
    "json half": ("d.json", b'[{"prompt": "a"', ["d.json"]),
    "suffix": ("d.csv", b"prompt,completion\n", ["d.csv", ".jsonl"]),
    "parquet half": ("d.parquet", parquet(prompt=["a"] * 9, completion=["b"] * 9)[:-9],
                     ["d.parquet"]),
    "parquet text": ("d.parquet", GOOD, ["d.parquet"]),
    "parquet columns": ("d.parquet", parquet(a=[1]), ["d.parquet:1", "'prompt'"]),
    "parquet types": ("d.parquet", parquet(prompt=[1], completion=[2]),
                      ["d.parquet:1: prompt"]),
    "parquet empty": ("d.parquet", parquet(prompt=[], completion=[]), ["d.parquet"]),
    "parquet null": ("d.parquet", parquet(prompt=["a"], completion=[None]),
                     ["d.parquet:1: completion"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_broken_data_files(name, bench):
    file, content, mentions = DATA[name]
    bench.data = bench.inputs / file
    bench.data.write_bytes(content)
    bench.refused(*mentions)
    bench.data.rename(bench.inputs / f"eval_{file}")
    bench.data = bench.inputs / "data.jsonl"
    bench.refused(
        *mentions, more=[f"--config.eval_data={bench.inputs / 'eval_'}{file}"]
    )


def test_missing_data_files(bench):
    bench.data = bench.inputs / "no.jsonl"
    bench.refused("no.jsonl", "No such file")
    bench.data = bench.inputs
    bench.refused("inputs")
    bench.data.joinpath("d.jsonl").mkdir()
    bench.data = bench.inputs / "d.jsonl"
    bench.refused("d.jsonl", "folder")


def test_skipping_bad_rows_still_needs_good_ones(bench):
    bench.data.write_bytes(b"no\n" * 3)
    bench.refused("at least one row", "data.jsonl:3", more=["--config.on_bad_row=skip"])
    bench.data.write_bytes(b"no\n" + GOOD)
    assert bench.sft("--config.on_bad_row=skip").code == 0
    skipped = json.loads((bench.work / "skipped.jsonl").read_text())
    assert skipped["line"] == 1 and skipped["raw"] == "no"


def test_rows_that_do_not_fit(bench):
    write_rows(bench.data, [ROW | {"prompt": "long " * 100}] * 3)
    whole = ["--config.length=64", "--config.on_long=error"]
    bench.refused("tokens", "length of 64", more=whole)
    bench.refused("no row", more=["--config.length=64", "--config.on_long=drop"])
    write_rows(bench.data, [ROW])
    bench.refused("config.eval_fraction", "nothing to train on")


@FUZZ
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["prompt", "completion", "messages", "output", "x"]),
            JSON
            | st.just([{"role": "assistant", "content": "a"}])
            | st.text(max_size=9),
            max_size=3,
        )
        | JSON,
        max_size=3,
    ),
    st.sampled_from(["error", "skip"]),
)
def test_any_rows_are_used_or_refused(good, rows, on_bad_row):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        write_rows(bench.data, [ROW, ROW, *rows])
        accepted_or_refused(bench, f"--config.on_bad_row={on_bad_row}")
