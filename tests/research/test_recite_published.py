"""Published questions become what a miniature's own are: the rows that count, whole."""

import gzip
import json

import pytest
from helpers import qa_files

from data.errors import DataError
from data.records import read_records
from data.sets import closed_book
from research.recite import answering, published, thesis
from research.recite.published import Files, PublishedTask, read_questions
from research.recite.records import read_items
from research.stages import StageResult


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return qa_files.write_qa(tmp_path_factory.mktemp("qa"))


def sources(files) -> dict[str, Files]:
    return {
        "natural_questions": Files((files.nq_test,), (files.nq_train,)),
        "trivia_qa": Files((files.trivia,)),
        "hotpot_qa": Files((files.hotpot,)),
    }


def read(folder, files, *tasks, passages=None, pool=1024, given=None):
    folder.mkdir(parents=True, exist_ok=True)
    return read_questions(
        folder,
        files=given or sources(files),
        wanted={task.name: task.wanted for task in tasks},
        passages=passages,
        pool=pool,
        per_page=1,
        seed=0,
    )


FIVE = PublishedTask(name="five", source="natural_questions")
SIXTEEN = PublishedTask(
    name="sixteen", source="natural_questions", shots=16, most_tokens=16, most_bytes=512
)
TRIVIA = PublishedTask(name="trivia", source="trivia_qa", hints=True, questions=2)
HOTPOT = PublishedTask(name="hotpot", source="hotpot_qa", hops=2, shots=4)


def test_rows_that_count_are_kept_in_order(tmp_path, files):
    """Without a short or a long answer, or with yes or no, a question is left out."""
    value = read(tmp_path, files, FIVE, TRIVIA, HOTPOT)
    found = read_items(tmp_path / "five.jsonl")
    towns = [f"when was the bridge of town {i} built" for i in (1, 2, 3, 5)]
    assert [entry.question for entry in found] == towns
    assert found[0].answers == ("1901",) and found[3].answers[0].split()[19] == "word19"
    assert found[0].hint == "Town 1 --- History --- Paragraph #1"
    trivia = read_items(tmp_path / "trivia.jsonl")
    assert [entry.id for entry in trivia] == ["tc_0", "tc_1"]  # the first 2 of 3
    assert trivia[1].answers == ("River 1", "the River 1")
    hotpot = read_items(tmp_path / "hotpot.jsonl")
    assert [entry.answers for entry in hotpot] == [("yes",), ("Land 1",), ("yes",)]
    assert hotpot[0].evidence[0] == "Town 0 lies on River 0."
    counts = {"five": 4, "trivia": 2, "hotpot": 3, "exemplars_five": 21}
    counts |= {"exemplars_trivia": 5, "exemplars_hotpot": 4}
    assert value["counts"] == counts | {"passages": len(passages(tmp_path))}
    without = {"no short or no long answer": 2}
    left_out = {"five": without, "exemplars_five": {"no short or no long answer": 1}}
    assert value["left_out"] == left_out | {"trivia": {}, "hotpot": {}}


def test_with_more_exemplars_long_answers_go_and_passages_are_cut(tmp_path, files):
    """By tokens of the data set and by bytes; no character is cut in half."""
    read(tmp_path, files, FIVE, SIXTEEN)
    assert len(read_items(tmp_path / "sixteen.jsonl")) == 3
    whole = {e.id: e for e in read_items(tmp_path / "exemplars_five.jsonl")}
    for entry in read_items(tmp_path / "exemplars_sixteen.jsonl"):
        text, given = entry.evidence[0], whole[entry.id].evidence[0]
        assert given.startswith(text) and len(text.encode()) <= 512
        assert text == given or len(text.encode()) > 508
    assert max(len(e.evidence[0].encode()) for e in whole.values()) > 512
    # A byte more or less is half of this character.
    assert [published.cut_bytes("aéé", n) for n in (2, 3, 4, 5)] == [
        "a", "aé", "aé", "aéé",
    ]  # fmt: skip


def passages(folder) -> list[dict]:
    return [record.row for record in read_records(folder / "passages.jsonl")]


def test_passages_are_those_of_the_pages(tmp_path, files):
    """All of a page that is asked about, one of a page of the training split."""
    read(tmp_path, files, FIVE, pool=4)
    found = passages(tmp_path)
    pages = [row["hint"].split(" --- ")[0] for row in found]
    assert [pages.count(f"Town {i}") for i in (1, 2, 3)] == [2, 2, 2]
    assert [pages.count(f"Town {i}") for i in range(100, 105)] == [1, 1, 1, 1, 0]
    assert pages.count("Town 0") == 0  # does not count
    gold = {e.hint: e.evidence[0] for e in read_items(tmp_path / "five.jsonl")}
    texts = {row["hint"]: row["passage"] for row in found}
    assert gold.items() <= texts.items()


def test_a_corpus_is_read_in_its_formats(tmp_path, files):
    """Anserini's JSON lines and DPR's table of the same passages are the same."""
    rows = [("Town 1", 'It is "old".'), ("Town 2", "It is new.")]
    anserini, dpr = tmp_path / "passages.jsonl", tmp_path / "psgs_w100.tsv.gz"
    anserini.write_text(
        "".join(
            json.dumps({"id": str(i), "contents": text, "title": title}) + "\n"
            for i, (title, text) in enumerate(rows)
        )
    )
    with gzip.open(dpr, "wt") as file:
        file.write("id\ttext\ttitle\n")
        for i, (title, text) in enumerate(rows):
            quoted = text.replace('"', '""')
            file.write(f'{i}\t"{quoted}"\t{title}\n')
    expected = [{"hint": title, "passage": text} for title, text in rows]
    for path in (anserini, dpr):
        assert list(published.read_passages(str(path))) == expected
    value = read(tmp_path / "out", files, FIVE, passages=str(anserini))
    assert passages(tmp_path / "out") == expected and value["corpus"] == str(anserini)
    anserini.write_text('{"id": "1"}\n')
    with pytest.raises(DataError, match=r"passages.jsonl:1: contents: expected text"):
        list(published.read_passages(str(anserini)))


def test_tfds_gives_the_same_as_the_files(tmp_path, files, monkeypatch):
    """Its rows of Natural Questions have columns in the place of objects."""

    def columns(objects):
        return {key: [x[key] for x in objects] for key in objects[0]} if objects else {}

    def rows(name, split):
        if name.startswith("trivia_qa"):
            return [
                {
                    "question": row["Question"],
                    "question_id": row["QuestionId"],
                    "answer": {
                        "aliases": row["Answer"]["Aliases"],
                        "value": row["Answer"]["Value"],
                    },
                }
                for row in qa_files.trivia(3)["Data"]
            ]
        path = files.nq_test if split == "validation" else files.nq_train
        return [
            {
                "id": str(row["example_id"]),
                "document": {"title": row["document_title"],
                             "html": row["document_html"]},
                "question": {"text": row["question_text"]},
                "annotations": [
                    a | {"short_answers": columns(a["short_answers"]),
                         "yes_no_answer": -1}
                    for a in row["annotations"]
                ],
            }
            for _, row in closed_book.natural_questions_lines(path)
        ]  # fmt: skip

    monkeypatch.setattr(published, "load_tfds", rows)
    nq = ("tfds:natural_questions/default",)
    given = {
        "natural_questions": Files(nq, nq),
        "trivia_qa": Files(("tfds:trivia_qa/rc.nocontext",)),
    }
    tasks = (FIVE, SIXTEEN, TRIVIA)
    assert read(tmp_path / "a", files, *tasks) == read(
        tmp_path / "b", files, *tasks, given=given
    )
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_what_is_missing_is_named(tmp_path, files):
    """Before anything is read: all files that are not there, at once."""
    gone = {"natural_questions": Files(("no-dev.gz",), ("no-train.gz",))}
    with pytest.raises(DataError, match=r"no-dev.gz, no-train.gz: no such file"):
        read(tmp_path, files, FIVE, given=gone)
    alone = {"natural_questions": Files((files.nq_test,))}
    with pytest.raises(DataError, match="natural_questions: expected files of the tr"):
        read(tmp_path, files, FIVE, given=alone)
    empty = {"natural_questions": Files((files.nq_test,), (files.nq_train,))}
    with gzip.open(tmp_path / "none.gz", "wt") as file:
        file.write(json.dumps(qa_files.natural_question(0, "none")) + "\n")
    empty["natural_questions"] = Files((str(tmp_path / "none.gz"),), (files.nq_train,))
    with pytest.raises(DataError, match="none.gz: no question with an answer"):
        read(tmp_path, files, FIVE, given=empty)


def test_too_few_exemplars_are_refused(tmp_path, files):
    """A smaller draw begins a larger one."""
    read(tmp_path, files, FIVE, TRIVIA)
    data = StageResult(tmp_path, {})
    drawn = [answering.exemplars(data, FIVE, count, 3) for count in (4, 16)]
    assert len(drawn[1]) == 16 and drawn[1][:4] == drawn[0]
    assert drawn[0] != answering.exemplars(data, FIVE, 4, 4)
    with pytest.raises(DataError, match="5 exemplars; expected 6 at least"):
        answering.exemplars(data, TRIVIA, 6, 3)


@pytest.mark.parametrize("changed, told", [
    ({"hops": 2}, "hops: expected 2 for hotpot_qa"),
    ({"source": "trivia_qa", "contexts": ("gold",)}, "contexts: expected none"),
])  # fmt: skip
def test_tasks_that_cannot_be_are_refused(changed, told):
    with pytest.raises(ValueError, match=told):
        PublishedTask(**({"name": "x", "source": "natural_questions"} | changed))


@pytest.mark.parametrize("system, data, shots, method, expected", [
    ("OPT-30B", "TriviaQA", 5, "recite", "49.02/54.22"),
    ("UL2-20B", "HotpotQA", 4, "chain of thought", "17.68/24.87"),
    ("UL2-20B", "Natural Questions", 16, "direct", "12.70/21.97"),
    ("UL2-20B", "Natural Questions", 5, "gold", "41.02/55.73"),
    ("OPT-30B", "Natural Questions", 5, "gold", None),
    ("OPT-30B", "Natural Questions", 16, "direct", None),
    ("UL2-20B", "Natural Questions", 16, "gold", None),
    ("OPT-30B", "TriviaQA", 5, "recite greedily", None),
])  # fmt: skip
def test_the_thesis_is_quoted(system, data, shots, method, expected):
    """Tables 4.1 and 4.3, by hand."""
    assert thesis.answers(system, data, shots, method) == expected


SOLVED = {"id": "e", "question": "q?", "answers": ["a"], "type": "exemplar",
          "evidence": ["p", "p"], "hint": "", "rationale": "So."}  # fmt: skip


@pytest.mark.parametrize("changed, told", [
    ({"evidence": ["p"]}, "own.jsonl: e: evidence: expected 2 passages, got 1"),
    ({"rationale": ""}, "own.jsonl: e: rationale: expected text"),
    ({"answers": []}, "own.jsonl:1: answers: expected at least one"),
    ({"hint": None}, "own.jsonl:1: hint: expected str, got None"),
])  # fmt: skip
def test_exemplars_lack_nothing_that_a_prompt_shows(tmp_path, files, changed, told):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(SOLVED | changed) + "\n")
    given = {"hotpot_qa": Files((files.hotpot,), exemplars=str(path))}
    with pytest.raises(DataError, match=told):
        read(tmp_path / "out", files, HOTPOT, given=given)


def test_a_question_without_an_answer_is_left_out(tmp_path, files):
    """And counted; those behind it come up."""
    rows = qa_files.trivia(3)
    rows["Data"][0]["Answer"] |= {"Value": "", "Aliases": []}
    path = tmp_path / "web-dev.json"
    path.write_text(json.dumps(rows))
    given = {"trivia_qa": Files((str(path),))}
    value = read(tmp_path / "out", files, TRIVIA, given=given)
    found = read_items(tmp_path / "out" / "trivia.jsonl")
    assert [entry.id for entry in found] == ["tc_1", "tc_2"]
    assert value["left_out"] == {"trivia": {"no answer": 1}}


@pytest.mark.parametrize("name, data, told", [
    ("x.tsv", b"id\ttext\ttitle\n1\tit\n", "x.tsv:2: expected id, text and title"),
    ("x.tsv", b"id\ttext\ttitle\n1\t\xff\tT\n", "x.tsv: cannot be read after line"),
    ("x.tsv.gz", b"id\ttext\ttitle\n", "x.tsv.gz: cannot be read after line 0"),
    ("x.tsv", b'1\t"' + b"x" * 200_000, "x.tsv: cannot be read after line 0: field"),
    ("x.jsonl", b'{"contents": "p", "title": 3}\n', "x.jsonl:1: title: expected text"),
    ("x.txt", b"p\n", "x.txt: expected a .jsonl, .json or .parquet file"),
])  # fmt: skip
def test_a_corpus_of_another_format_is_refused(tmp_path, name, data, told):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=told):
        list(published.read_passages(str(path)))
