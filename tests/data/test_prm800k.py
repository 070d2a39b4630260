"""PRM800K: the walk along carried steps, and the rows that it yields."""

from collections import Counter

import numpy as np
import pytest
from helpers.entry import write_rows
from helpers.published_files import completion, prm_row, step
from hypothesis import given, settings
from hypothesis import strategies as st

from data.chat import load_template
from data.errors import DataError
from data.records import Record
from data.sets import prm800k
from data.sets.math500 import EASY, LEVELS, MathProblem, allowed
from data.sets.prm800k import Prm800kRules, original
from data.sets.text import clean_step, encode_sft, separated
from data.steps import encode_steps, parse_steps
from data.tokenizers import char_tokenizer

Q, HARD_Q, OTHER = "What is $x$?", "Prove it.", "Not in MATH."
KNOWN = [
    MathProblem(Q, "s", "7", "Algebra", 2, "train/1.json"),
    MathProblem("Why?", "s", "7", "Algebra", 1, "train/2.json"),
    MathProblem(HARD_Q, "s", "7", "Algebra", 5, "train/3.json"),
]
HELD = [MathProblem("Held out?", "s", "7", "Algebra", 1, "test/4.json")]
START = "# Question\n\nWhat is $x$?\n\n# Solution\n\n"
END = "So $x=7$.\n\n# Answer\n\n7"


def rows(make, *given, rules=None, wanted=LEVELS, length=len):
    """Rows, and counts of what was left out."""
    rules = rules or Prm800kRules()
    parsed = [prm800k.parse_trajectory(Record(r, "f", 1)) for r in given]
    may, counts = allowed(KNOWN, HELD, wanted, rules.unlisted), Counter()
    return list(make(iter(parsed), may, counts, rules, length)), counts


PHASE_2 = prm_row(
    Q,
    step(completion("Let us see.", 0)),
    step(
        completion("$x=8$.", -1, False),
        completion("$x$ is odd.", 1, True),
        completion("Hm.", None),
        chosen=1,
    ),
    step(completion(END, 1)),
)
PHASE_1 = prm_row(
    Q,
    step(completion("$x=1$.", -1), completion("$x=2$.", -1), chosen=None, human="Odd."),
    step(completion(END, 1), completion("No.", -1), chosen=None),
    step(completion("Never reached.", 1)),
    phase=1,
    finish_reason="give_up",
)


def test_sft_rows_are_positive_steps_after_their_prefixes():
    """Written out: neutral steps in prefixes only, separators in front, EOS at last."""
    found, counts = rows(prm800k.sft_rows, PHASE_2)
    assert found == [
        {
            "prompt": START + "Let us see.",
            "completion": "\n\n$x$ is odd.",
            "eos": False,
            "level": 2,
        },
        {
            "prompt": START + "Let us see.\n\n$x$ is odd.",
            "completion": f"\n\n{END}",
            "eos": True,
            "level": 2,
        },
    ]
    assert counts == {"trajectories": 1}


def test_label_rows_are_every_rated_step():
    """Written out: 1 for good and neutral, 0 for bad, null ratings nowhere."""
    found, _ = rows(prm800k.label_rows, PHASE_2)
    first, second = "Let us see.\n\n", "$x$ is odd.\n\n"
    assert [(r["steps"], r["labels"]) for r in found] == [
        ([first], [1.0]),
        ([first, "$x=8$.\n\n"], [None, 0.0]),
        ([first, second], [None, 1.0]),
        ([first, second, END], [None, None, 1.0]),
    ]
    assert {r["prompt"] for r in found} == {START} and {r["level"] for r in found} == {
        2
    }
    found, _ = rows(prm800k.label_rows, PHASE_2, rules=Prm800kRules(neutral=None))
    assert [r["labels"][-1] for r in found] == [0.0, 1.0, 1.0]


def test_a_persons_step_is_carried_but_is_no_row():
    """Phase 1: prefixes hold it; after a place without a next step nothing is read."""
    found, _ = rows(prm800k.label_rows, PHASE_1)
    assert [(r["steps"][-1], r["labels"][-1]) for r in found] == [
        ("$x=1$.\n\n", 0.0), ("$x=2$.\n\n", 0.0), (END, 1.0), ("No.\n\n", 0.0),
    ]  # fmt: skip
    assert found[-1]["steps"][0] == "Odd.\n\n"
    sft, _ = rows(prm800k.sft_rows, PHASE_1)
    assert [r["prompt"] for r in sft] == [START + "Odd."]


def test_the_walk_ends_where_nothing_is_carried():
    """Null completions, no next step, and the answer end it; an only one is carried."""
    null = step(chosen=None) | {"completions": None}
    for last, n in ((null, 1), (step(chosen=None), 1), (step(completion(END, 1)), 2)):
        only = step(completion("One.", 1), chosen=None)
        row = prm_row(Q, only, last, step(completion("Behind.", 1)))
        found, _ = rows(prm800k.label_rows, row)
        assert len(found) == n


def test_a_persons_step_comes_before_an_only_completion():
    """Written where all completions are wrong, it is what goes on."""
    row = prm_row(
        Q,
        step(completion("Wrong.", -1), chosen=None, human="Right."),
        step(completion(END, 1)),
    )
    found, _ = rows(prm800k.label_rows, row)
    assert [r["steps"] for r in found] == [["Wrong.\n\n"], ["Right.\n\n", END]]


def test_every_level_but_the_wanted_ones_is_left_out():
    """Counts by reason add up to the trajectories; hard and held out give no rows."""
    given = [
        prm_row(q, step(completion(f"{q} yes.", 1)))
        for q in (Q, HARD_Q, OTHER, "Held out?")
    ]
    for make in (prm800k.sft_rows, prm800k.label_rows):
        found, counts = rows(make, *given, wanted=EASY)
        assert [r["prompt"] for r in found] == [START]
        assert counts == {
            "trajectories": 4, "other_level": 1, "unlisted": 1, "held_out": 1
        }  # fmt: skip
        found, _ = rows(make, *given, wanted=EASY, rules=original())
        assert [r["level"] for r in found] == [2, None]
        found, counts = rows(make, *given)
        assert [r["level"] for r in found] == [2, 5, None] and counts["held_out"] == 1


def test_duplicates_are_found_within_a_question():
    """The original's key without the question loses the second problem's label."""
    given = [
        prm_row(Q, step(completion("Let us see.", 1))),
        prm_row("Why?", step(completion("Let us see.", -1))),
        prm_row("Why?", step(completion("Let us see.", 1))),
    ]
    found, counts = rows(prm800k.label_rows, *given)
    assert [r["labels"] for r in found] == [[1.0], [0.0]]
    assert (counts["duplicates"], counts["conflicting"]) == (1, 1)
    found, counts = rows(prm800k.label_rows, *given, rules=original())
    assert [r["labels"] for r in found] == [[1.0]]
    assert (counts["duplicates"], counts["conflicting"]) == (2, 1)


def test_an_empty_completion_is_skipped_or_ends_its_list():
    """The fixed rule reads on; the original's stops there."""
    row = prm_row(
        Q, step(completion("A.", 1), completion("", -1), completion("B.", -1))
    )
    assert [r["steps"] for r in rows(prm800k.label_rows, row)[0]] == [
        ["A.\n\n"], ["B.\n\n"]
    ]  # fmt: skip
    found, _ = rows(prm800k.label_rows, row, rules=original())
    assert [r["steps"] for r in found] == [["A.\n\n"]]


def test_after_mr_and_mrs_stands_a_space():
    """A sentence that a splitter cut is one line of the text again."""
    row = prm_row(
        Q, step(completion("We ask Mr.", 1)), step(completion("Bean counts.", 1))
    )
    found, _ = rows(prm800k.sft_rows, row)
    assert (
        found[1]["prompt"] + found[1]["completion"] == f"{START}We ask Mr. Bean counts."
    )
    found, _ = rows(prm800k.label_rows, row)
    assert [r["steps"] for r in found] == [
        ["We ask Mr."], ["We ask Mr. ", "Bean counts.\n\n"]
    ]  # fmt: skip


def test_the_answer_marker_stands_after_a_blank_line():
    """However many newlines were there; a step may be nothing but the answer."""
    for newlines in ("", "\n", "\n\n", "\n\n\n"):
        assert clean_step(f"So 7.{newlines}# Answer\n\n7") == "So 7.\n\n# Answer\n\n7"
    row = prm_row(Q, step(completion("So 7.", 1)), step(completion("# Answer\n\n7", 1)))
    sft, _ = rows(prm800k.sft_rows, row)
    label, _ = rows(prm800k.label_rows, row)
    whole = f"{START}So 7.\n\n# Answer\n\n7"
    assert sft[1]["prompt"] + sft[1]["completion"] == whole
    assert label[1]["prompt"] + "".join(label[1]["steps"]) == whole


def test_long_rows_are_left_out_and_counted():
    """Question, prefix and step together, measured by the caller's length."""
    for limit in (len(Q) + len("Let us see.\n\n") + len("$x$ is odd."), 10**6):
        rules = Prm800kRules(sft_tokens=limit)
        found, counts = rows(prm800k.sft_rows, PHASE_2, rules=rules)
        assert len(found) + counts["too_long"] == 2
        assert len(found) == (1 if limit < 10**6 else 2)


texts = st.text("ab .$\n", min_size=1, max_size=8).map(clean_step).filter(bool)
completions = st.builds(completion, texts, st.sampled_from([-1, 0, 1, None]))


@st.composite
def trajectories(draw):
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        candidates = draw(st.lists(completions, min_size=1, max_size=3))
        chosen = draw(st.none() | st.integers(0, len(candidates) - 1))
        human = draw(st.none() | texts) if chosen is None else None
        steps.append(step(*candidates, chosen=chosen, human=human))
    return prm_row(Q, *steps)


@given(trajectories())
@settings(max_examples=60, deadline=None)
def test_prefix_and_carried_step_begin_the_trajectory(row):
    """The carried steps' text begins with each place's prefix and carried step."""
    places = list(prm800k.walk(prm800k.parse_trajectory(Record(row, "f", 1))))
    whole = "".join(separated([p.carried for p in places if p.carried is not None]))
    for place in places:
        assert whole.startswith("".join(place.prefix) + (place.carried or ""))
    sft, _ = rows(prm800k.sft_rows, row)
    texts = [
        f"{START}{''.join(p.prefix)}{c.text}"
        for p in places
        for c in p.completions
        if c.rating == 1
    ]
    assert [r["prompt"] + r["completion"] for r in sft] == list(dict.fromkeys(texts))


@given(st.lists(trajectories(), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_chains_hold_the_same_labels_as_steps(given_rows):
    """Both row forms weigh the same (text before, step, label), each exactly once."""

    def labelled(form):
        found, _ = rows(prm800k.label_rows, *given_rows, rules=Prm800kRules(rows=form))
        out = Counter()
        for i, row in enumerate(found):
            solution = parse_steps(Record(row, "f", i + 1))
            for k, label in enumerate(solution.labels):
                if label is not None:
                    step = solution.steps[k].strip()
                    out["".join(solution.steps[:k]), step, label] += 1
        return out, found

    (by_step, single), (by_chain, chains) = labelled("step"), labelled("chain")
    assert by_step == by_chain and len(chains) <= len(single)
    assert not by_step or max(by_step.values()) == 1


def test_encoded_rows_learn_the_step_alone():
    """Weights are on the completion's characters, and on EOS only after an answer."""
    tokenizer = char_tokenizer("".join(sorted(set(str(PHASE_2) + "\n#"))))
    template = load_template("plain", tokenizer)
    found, _ = rows(prm800k.sft_rows, PHASE_2)
    for row in found:
        example = encode_sft(template, row)
        learned = example.tokens[np.nonzero(example.weights)]
        assert tokenizer.decode(learned) == row["completion"]
        assert (example.tokens[-1] == tokenizer.eos_id) == row["eos"]
    with pytest.raises(DataError, match="expected 'plain'"):
        encode_sft(load_template("vicuna_v1", tokenizer), found[0])
    label, _ = rows(prm800k.label_rows, PHASE_2)
    example = encode_steps(tokenizer.encode, parse_steps(Record(label[1], "f", 1)))
    weighed = example.tokens[np.nonzero(example.weights)]
    assert tokenizer.decode(weighed) == "$x=8$.\n\n"


def broken(path, value):
    """PHASE_2 with one place of its label changed."""
    row = prm_row(Q, step(completion("A.", 1)))
    node = row
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return row


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("question",), None, "question"),
        (("question", "problem"), 3, "problem"),
        (("label", "steps"), {}, "label.steps"),
        (("label", "steps", 0), "A.", "label.steps[0]"),
        (("label", "steps", 0, "completions"), "A.", "label.steps[0].completions"),
        (("label", "steps", 0, "completions", 0), "A.", "completions[0]"),
        (("label", "steps", 0, "completions", 0, "rating"), 2, "completions[0].rating"),
        (("label", "steps", 0, "completions", 0, "text"), None, "text"),
        (("label", "steps", 0, "chosen_completion"), 1, "chosen_completion"),
        (("label", "steps", 0, "chosen_completion"), -1, "chosen_completion"),
        (("label", "steps", 0, "human_completion"), "B.", "human_completion"),
    ],
)
def test_bad_rows_name_place_and_field(path, value, field, tmp_path):
    """Raised with file, line and field; or given to on_bad while good rows go on."""
    file = write_rows(tmp_path / "phase1_train.jsonl", [PHASE_1, broken(path, value)])
    with pytest.raises(DataError) as error:
        list(prm800k.read_prm800k([file]))
    assert f"{file}:2: " in str(error.value) and field in str(error.value)
    bad = []
    assert len(list(prm800k.read_prm800k([file], bad.append))) == len(bad) == 1
