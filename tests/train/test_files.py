"""A file written atomically is the old one or the new one, with nothing beside it."""

import json
import os

import pytest

from train.files import write_atomic, write_json


def test_content_comes_back_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "eins")
    write_atomic(path, "zwei é".encode())
    assert path.read_text() == "zwei é"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})

    def full(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]
