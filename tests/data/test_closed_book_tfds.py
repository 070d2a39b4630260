"""Natural Questions and TriviaQA as TFDS itself stores them: the rows of the files.

The features, and for Natural Questions the conversion, are those of TFDS's builders.
"""

import json
from pathlib import Path

import pytest
from helpers import qa_files

from data.published import load_tfds
from data.sets import closed_book


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.datasets.natural_questions import (
        natural_questions_dataset_builder as nq,
    )

    convert = nq.Builder._parse_example_default
    monkeypatch = pytest.MonkeyPatch()
    text = tfds.features.Text()
    texts = tfds.features.Sequence(text)

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        code_path = Path(__file__)  # else TFDS asks importlib_resources for it

        def _split_generators(self, dl_manager):
            return {"validation": self._generate_examples()}

    class TinyQuestions(Base):
        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=nq._features()["default"]
            )

        def _generate_examples(self):
            yield from (convert(json.dumps(row)) for row in questions())

    class TinyTrivia(Base):
        def _info(self):
            answer = {"aliases": texts, "normalized_aliases": texts, "value": text}
            features = {"question": text, "question_id": text, "answer": answer}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self):
            for row in qa_files.trivia(3)["Data"]:
                answer = row["Answer"]
                yield (
                    row["QuestionId"],
                    {
                        "question": row["Question"],
                        "question_id": row["QuestionId"],
                        "answer": {
                            "aliases": answer["Aliases"],
                            "normalized_aliases": answer["NormalizedAliases"],
                            "value": answer["Value"],
                        },
                    },
                )

    # Types of nested sequences are all that TFDS asks TensorFlow for when it writes.
    plain = property(lambda info: info.np_dtype)
    monkeypatch.setattr(tfds.features.TensorInfo, "dtype", plain)
    root = tmp_path_factory.mktemp("tfds")
    for builder in (TinyQuestions, TinyTrivia):
        builder(data_dir=root, file_format="array_record").download_and_prepare()
    monkeypatch.undo()
    return root


def questions() -> list[dict]:
    """Rows with one annotation or several, of one short answer, several, or none."""
    rows = [qa_files.natural_question(i) for i in range(3)]
    rows.append(qa_files.natural_question(3, "none"))
    (given,) = rows[1]["annotations"]
    short = given["short_answers"]
    rows[1]["annotations"] = [given, given | {"short_answers": short * 2}]
    return rows


def rows_of(data_dir, name):
    source = load_tfds(name, "validation", data_dir)
    return [source[i] for i in range(len(source))]


def test_natural_questions_are_those_of_the_file(data_dir):
    """In another order, which is TFDS's own."""
    rows = rows_of(data_dir, "tiny_questions")
    found = closed_book.from_tfds_natural_questions(rows, "tiny_questions")
    expected = [closed_book.parse_natural_question(r, "here") for r in questions()]
    assert sorted(found) == sorted(filter(None, expected))
    assert len(expected) == 4 and expected[3] is None


def test_trivia_is_that_of_the_file(data_dir, tmp_path):
    path = tmp_path / "web-dev.json"
    path.write_text(json.dumps(qa_files.trivia(3)))
    found = closed_book.from_tfds_trivia(rows_of(data_dir, "tiny_trivia"), "tiny")
    assert sorted(found) == sorted(closed_book.read_trivia(path))
