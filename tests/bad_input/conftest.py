"""Inputs that work, made once, and a copy of them for every test to spoil."""

import pytest
from helpers.bad_input import ROW, Bench
from helpers.entry import checkpoint, write_rows


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A folder of inputs that work: checkpoint/ and data.jsonl."""
    folder = tmp_path_factory.mktemp("good")
    checkpoint(folder / "checkpoint", n_layers=1)
    write_rows(folder / "data.jsonl", [ROW] * 8)
    return folder


@pytest.fixture
def bench(good, tmp_path):
    return Bench(good, tmp_path)
