"""Natural Questions, TriviaQA and HotpotQA are read in the formats they come in."""

import gzip
import json

import pytest

from data.errors import DataError
from data.sets import closed_book, wiki_html

TITLE = "Child support"
PAGE = """<!DOCTYPE html><html><head><title>Child support</title></head><body>
<H1>Child support</H1>
<P>Child support is money that one parent pays the other. [1] It goes on for years.</P>
<P></P>
<Div><Ul class="toc"><Li>Contents</Li><Li>1 Law</Li></Ul></Div>
<H2>Law</H2>
<P>Every state has rules &amp; tables.<Br>They differ.</P>
<Table class="plainlinks"><Tr><Td>This section needs sources.</Td></Tr></Table>
<Table><Tr><Th>State</Th><Th>Rate</Th></Tr><Tr><Td>Ohio</Td><Td>17%</Td></Tr></Table>
<H3>Enforcement</H3>
<P>Wages may be withheld.</P>
<P>In 1975 an office was founded for it.</P>
<Ul><Li>letters</Li><Li>courts<Ul><Li>of counties</Li></Ul></Li></Ul>
<H2>History</H2>
<P>The first law is of 1601.</P>
<H2>References</H2>
<Ol><Li>A book</Li></Ol>
</body></html>"""


def passages():
    return wiki_html.passages(PAGE.encode(), TITLE, least=0)


def test_hints_are_chains_of_headings_with_numbers_of_their_sections():
    assert [p.hint for p in passages()] == [
        "Child support --- Short description --- Paragraph #1",
        "Child support --- Law --- Paragraph #1",
        "Child support --- Law --- Table #1",
        "Child support --- Law --- Enforcement --- Paragraph #1",
        "Child support --- Law --- Enforcement --- Paragraph #2",
        "Child support --- Law --- Enforcement --- List #1",
        "Child support --- History --- Paragraph #1",
    ]


def test_texts_have_no_tags_entities_or_footnotes():
    assert [p.text for p in passages()][:3] == [
        "Child support is money that one parent pays the other. It goes on for years.",
        "Every state has rules & tables. ; They differ.",
        "State Rate Ohio 17%",
    ]
    assert passages()[5].text == "letters courts of counties"
    for p in passages():
        assert wiki_html.to_text(PAGE.encode()[p.start : p.end]) == p.text


def test_short_passages_are_left_out_but_counted():
    kept = wiki_html.passages(PAGE.encode(), TITLE, least=40)
    assert "Child support --- Law --- Enforcement --- Paragraph #2" in {
        p.hint for p in kept
    }
    assert "Child support --- Law --- Enforcement --- Paragraph #1" not in {
        p.hint for p in kept
    }


def span(text: str) -> dict:
    start = PAGE.encode().index(text.encode())
    return {
        "start_byte": start,
        "end_byte": start + len(text.encode()),
        "start_token": 1,
        "end_token": 2,
    }


NONE = {"start_byte": -1, "end_byte": -1, "start_token": -1, "end_token": -1}
LONG = "<P>In 1975 an office was founded for it.</P>"


def nq_row(annotations, **changed):
    """A line of nq-dev-*.jsonl, all of its fields."""
    return {
        "annotations": annotations,
        "document_html": PAGE,
        "document_title": TITLE,
        "document_tokens": [
            {"end_byte": 14, "html_token": True, "start_byte": 0, "token": "<H1>"}
        ],
        "document_url": "https://en.wikipedia.org//w/index.php?title=Child_support",
        "example_id": 797803103760793766,
        "long_answer_candidates": [
            {"end_byte": 9, "end_token": 3, "start_byte": 0, "start_token": 1,
             "top_level": True}
        ],
        "question_text": "when was the office of child support founded",
        "question_tokens": ["when", "was"],
        **changed,
    }  # fmt: skip


def annotation(long, *short, yes_no="NONE"):
    return {
        "annotation_id": 13591449469826568799,
        "long_answer": {"candidate_index": 1, **long},
        "short_answers": list(short),
        "yes_no_answer": yes_no,
    }


def test_natural_questions(tmp_path):
    """All short answers, each once; the longest long answer; its hint."""
    rows = [
        nq_row([
            annotation(span("Wages may be withheld."), span("1975")),
            annotation(span(LONG), span("1975"), span("In 1975")),
            annotation(NONE),
        ]),
        nq_row([annotation(span(LONG))]),  # no short answer
        nq_row([annotation(NONE, span("1975"))]),  # no long one
        nq_row([annotation(span(LONG), yes_no="YES")]),
    ]  # fmt: skip
    path = tmp_path / "nq-dev-00.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (found,) = closed_book.read_natural_questions(path)
    assert found == closed_book.QARow(
        "797803103760793766",
        "when was the office of child support founded",
        ("1975", "In 1975"),
        ("In 1975 an office was founded for it.",),
        "Child support --- Law --- Enforcement --- Paragraph #2",
        "short answer",
    )


def test_natural_questions_through_tfds_are_the_same():
    """TFDS keeps sequences of objects as columns, the inner ones too."""
    annotations = [annotation(span(LONG), span("1975"), span("In 1975"))]
    row = nq_row(annotations)
    columns = {
        "id": ["1"],
        "long_answer": {k: [v] for k, v in annotations[0]["long_answer"].items()},
        "short_answers": [
            {
                k: [s[k] for s in annotations[0]["short_answers"]]
                for k in annotations[0]["short_answers"][0]
            }
        ],
        "yes_no_answer": [-1],
    }
    tfds = {
        "id": str(row["example_id"]),
        "document": {"title": TITLE, "html": PAGE, "url": "", "tokens": {}},
        "question": {"text": row["question_text"], "tokens": []},
        "annotations": columns,
        "long_answer_candidates": {},
    }
    (found,) = closed_book.from_tfds_natural_questions([tfds], "natural_questions")
    assert found == closed_book.parse_natural_question(row, "here")


TRIVIA = {
    "Data": [
        {
            "Answer": {
                "Aliases": ["Sunset Blvd", "West Sunset Boulevard"],
                "MatchedWikiEntityName": "",
                "NormalizedAliases": ["sunset blvd", "west sunset boulevard"],
                "NormalizedMatchedWikiEntityName": "",
                "NormalizedValue": "sunset boulevard",
                "Type": "WikipediaEntity",
                "Value": "Sunset Boulevard",
            },
            "EntityPages": [
                {"DocSource": "TagMe", "Filename": "x.txt", "Title": "Sunset"}
            ],
            "Question": "Which musical premiered in the US in 1993?",
            "QuestionId": "tc_33",
            "QuestionSource": "http://www.triviacountry.com/",
            "SearchResults": [],
        },
        {"Question": "Unanswered, of the test?", "QuestionId": "tc_34"},
    ],
    "Domain": "Web",
    "Split": "dev",
    "VerifiedEval": False,
    "Version": 1.0,
}


def test_trivia(tmp_path):
    path = tmp_path / "web-dev.json"
    path.write_text(json.dumps(TRIVIA))
    (found,) = closed_book.read_trivia(path)
    answers = ("Sunset Boulevard", "Sunset Blvd", "West Sunset Boulevard")
    assert found.id == "tc_33" and found.answers == answers
    tfds = {
        "question": TRIVIA["Data"][0]["Question"],
        "question_id": "tc_33",
        "question_source": "",
        "answer": {"aliases": list(answers[1:]), "value": answers[0], "type": ""},
    }
    assert list(closed_book.from_tfds_trivia([tfds], "trivia_qa")) == [found]


HOTPOT = [
    {
        "_id": "5a8b57f25542995d1e6f1371",
        "answer": "yes",
        "question": "Were both directors of the same nationality?",
        "supporting_facts": [["Ed Wood", 0], ["Scott D.", 0], ["Ed Wood", 1]],
        "context": [
            [
                "Scott D.",
                ["Scott D. is an American director.", " He was born in 1966."],
            ],
            ["Other", ["Not needed."]],
            ["Ed Wood", ["Ed Wood was an American filmmaker."]],
        ],
        "type": "comparison",
        "level": "hard",
    }
]


def test_hotpot(tmp_path):
    """The pages of the supporting facts, in the order in which these name them."""
    path = tmp_path / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps(HOTPOT))
    (found,) = closed_book.read_hotpot(path)
    assert found.evidence == (
        "Ed Wood was an American filmmaker.",
        "Scott D. is an American director. He was born in 1966.",
    )
    assert found.answers == ("yes",) and found.type == "comparison"


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"question_text": 3}, "question_text: expected str, got int"),
        ({"annotations": {}}, "annotations: expected list"),
        (
            {"annotations": [annotation({"start_byte": 5, "end_byte": 10**6})]},
            "expected a span of the",
        ),
    ],
)
def test_a_bad_row_is_named(changed, told):
    with pytest.raises(DataError, match=f"file:7.*{told}"):
        closed_book.parse_natural_question(nq_row([]) | changed, "file:7")


def test_files_that_are_not_json_are_named(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("{")
    for read in (closed_book.read_trivia, closed_book.read_hotpot):
        with pytest.raises(DataError, match="bad.json: not JSON"):
            list(read(path))
    with pytest.raises(DataError, match="bad.json:1: not JSON"):
        list(closed_book.read_natural_questions(path))


@pytest.mark.parametrize(
    "data, told",
    [
        (b'{"a": 1}\n\xff\n', ":2: not UTF-8"),
        (b'{"a": 1}\n\n[1\n', ":3: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, data, told):
    """By its number in the file, empty lines and all; the lines before it are read."""
    path = tmp_path / "nq-dev-00.jsonl"
    path.write_bytes(data)
    lines = closed_book.natural_questions_lines(path)
    assert next(lines) == (f"{path}:1", {"a": 1})
    with pytest.raises(DataError, match=told):
        list(lines)


def test_files_that_end_early_are_named(tmp_path):
    """Half of a .gz, what is no .gz at all, and a folder."""
    whole = gzip.compress(b'{"a": 1}\n' * 10**5)
    half, none = tmp_path / "nq-half.jsonl.gz", tmp_path / "nq-none.jsonl.gz"
    half.write_bytes(whole[: len(whole) // 2])
    none.write_bytes(b"{}\n")
    for path in (half, none, tmp_path):
        for read in (closed_book.natural_questions_lines, closed_book.read_trivia):
            with pytest.raises(DataError, match=f"{path.name}.*: cannot be read"):
                list(read(path))


def trivia_of(aliases) -> dict:
    answer = {"Value": "x", "Aliases": aliases}
    return {"Data": [{"Question": "q?", "QuestionId": "1", "Answer": answer}]}


def hotpot_of(**changed) -> list[dict]:
    return [HOTPOT[0], HOTPOT[0] | changed]


@pytest.mark.parametrize(
    "read, rows, told",
    [
        ("read_trivia", trivia_of([1]), r"Data\[0\]: Answer: Aliases: expected"),
        ("read_trivia", trivia_of(["\ud800"]), r"Data\[0\].*half of a surrogate pair"),
        ("read_hotpot", hotpot_of(context={"title": []}), r"\[1\]: context: expected"),
        ("read_hotpot", hotpot_of(context=[["Ed", "x"]]), r"\[1\]: context: expected"),
        ("read_hotpot", hotpot_of(context=[["Ed", [1]]]), r"\[1\]: context: expected"),
        ("read_hotpot", hotpot_of(supporting_facts=[0]), r"\[1\]: supporting_facts"),
        ("read_hotpot", hotpot_of(question="\ud800"), r"\[1\]: question: half of a"),
    ],
)
def test_fields_of_another_shape_are_named(tmp_path, read, rows, told):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=told):
        list(getattr(closed_book, read)(path))
