"""A prepared TFDS data set reads by index, and no TensorFlow is imported."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.formats import Completion, Conversation, parse_record
from data.published import load_tfds, to_text


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    import tensorflow_datasets as tfds

    class TinySums(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        code_path = Path(__file__)  # else TFDS asks importlib_resources for it

        def _info(self):
            text = tfds.features.Text()
            features = {
                "prompt": text,
                "completion": text,
                "level": np.int32,
                "messages": tfds.features.Sequence({"role": text, "content": text}),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(10):
                turns = [("user", f"é{i}"), ("assistant", str(i))]
                yield (
                    i,
                    {
                        "prompt": f"{i}+1=",
                        "completion": str(i + 1),
                        "level": i,
                        "messages": [{"role": r, "content": c} for r, c in turns],
                    },
                )

    data_dir = tmp_path_factory.mktemp("tfds")
    TinySums(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_rows_read_back_by_index(data_dir):
    """The rows that went in come out, as text and numbers, and parse in both shapes."""
    source = load_tfds("tiny_sums", "train", data_dir)
    rows = sorted((source[i] for i in range(len(source))), key=lambda row: row["level"])
    assert [row["prompt"] for row in rows] == [f"{i}+1=" for i in range(10)]
    assert source[3] == source[3]
    assert "tensorflow" not in sys.modules
    record = next(source.records())
    assert record.where == "tfds:tiny_sums/train:1"
    level = record.row["level"]
    completion = Completion(f"{level}+1=", str(level + 1))
    assert parse_record(record, "prompt") == completion
    conversation = parse_record(record, "messages")
    assert isinstance(conversation, Conversation)
    assert [turn.text for turn in conversation.turns] == [f"é{level}", str(level)]


def test_slices_of_a_split(data_dir):
    """TFDS's own split language works, and slices partition the split."""
    parts = [load_tfds("tiny_sums", s, data_dir) for s in ("train[:3]", "train[3:]")]
    levels = [part[i]["level"] for part in parts for i in range(len(part))]
    assert [len(part) for part in parts] == [3, 7] and sorted(levels) == list(range(10))


def test_what_cannot_be_read_is_a_data_error(data_dir, tmp_path):
    """Unknown names and splits, and data sets that are not prepared here."""
    with pytest.raises(DataError, match="tfds:tiny_sums: split 'test' cannot be read"):
        load_tfds("tiny_sums", "test", data_dir)
    with pytest.raises(
        DataError, match="tfds:ag_news_subst: no such .*did you mean 'ag_news_subset'"
    ):
        load_tfds("ag_news_subst", "train", data_dir)
    with pytest.raises(DataError, match="tfds:ag_news_subset: not prepared in"):
        load_tfds("ag_news_subset", "train", tmp_path)


def test_to_text_reaches_every_level():
    """Bytes become strings and scalars numbers, wherever they are."""
    value = {"a": [b"x", np.int32(3)], "b": np.array([b"y"], object), "c": np.ones(2)}
    text = to_text(value)
    assert text["a"] == ["x", 3] and text["b"] == ["y"] and text["c"].tolist() == [1, 1]
