"""Programs mean what their clauses say; the interpreter takes any text and ends."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokenizers import word_tokenizer
from data.worlds import pipelines, programs
from data.worlds.pipelines import ProgramError, execute, parse
from data.worlds.programs import CLAUSES, ProgramSizes, ProgramWorld

WORLD = ProgramWorld()
SIZES = ProgramSizes(train=(20, 20, 5, 5, 5), development=10, test=40)
lists = st.lists(st.integers(-50, 50), max_size=9).map(tuple)
seeds = st.integers(0, 2**32)
# What each clause asks for, written a second time: x is a list, k its digit.
MEANING = {
    "plus": lambda x, k: [v + k for v in x],
    "minus": lambda x, k: [v - k for v in x],
    "times": lambda x, k: [v * k for v in x],
    "at most": lambda x, k: [v if v < k else k for v in x],
    "at least": lambda x, k: [v if v > k else k for v in x],
    "doubled": lambda x, k: [2 * v for v in x],
    "tripled": lambda x, k: [3 * v for v in x],
    "negated": lambda x, k: [-v for v in x],
    "in order": lambda x, k: sorted(x),
    "in falling order": lambda x, k: sorted(x, reverse=True),
    "backwards": lambda x, k: list(reversed(x)),
    "the first": lambda x, k: [v for i, v in enumerate(x) if i < k],
    "the last": lambda x, k: [v for i, v in enumerate(x) if i >= len(x) - k],
    "all but the first": lambda x, k: [v for i, v in enumerate(x) if i >= k],
    "all but the last": lambda x, k: [v for i, v in enumerate(x) if i < len(x) - k],
    "those over": lambda x, k: [v for v in x if v > k],
    "those under": lambda x, k: [v for v in x if v < k],
    "the even ones": lambda x, k: [v for v in x if v // 2 * 2 == v],
    "the odd ones": lambda x, k: [v for v in x if v // 2 * 2 != v],
    "running totals": lambda x, k: [sum(x[: i + 1]) for i in range(len(x))],
    "each once": lambda x, k: [v for i, v in enumerate(x) if v not in x[:i]],
    "the sum": lambda x, k: sum(x),
    "the largest one": lambda x, k: sorted(x)[-1] if x else 0,
    "the smallest one": lambda x, k: sorted(x)[0] if x else 0,
    "how many": lambda x, k: len(x),
    "the first one": lambda x, k: next(iter(x), 0),
    "the final one": lambda x, k: next(reversed(x), 0),
}


def every_way(clause, digit):
    """All programs of a clause, each split of its digit included."""
    for way in clause.ways:
        if "{a}" in way:
            for a in range(1, digit):
                yield way.format(k=digit, a=a, b=digit - a)
        else:
            yield way.format(k=digit)


def value_of(x):
    return tuple(x) if isinstance(x, list) else x


@settings(max_examples=60, deadline=None)
@given(lists)
def test_every_way_of_every_clause_does_what_the_clause_means(x):
    """Equality with a second, independent writing of each clause's meaning."""
    assert {c.common for c in CLAUSES} == set(MEANING)
    for clause in CLAUSES:
        for digit in clause.digits or (None,):
            expected = value_of(MEANING[clause.common](x, digit))
            for way in every_way(clause, digit):
                got = execute(parse(way.replace(";", "\n")), x)
                assert got == expected, (clause.common, digit, way)
                assert isinstance(got, int) == clause.reduces


@settings(max_examples=60, deadline=None)
@given(st.integers(-50, 50))
def test_clauses_that_may_follow_a_number_treat_it_like_a_list_of_one(v):
    """Equality of a number's result with that of the list that holds only it."""
    for clause in CLAUSES:
        for digit in clause.digits or (None,):
            program = parse(next(every_way(clause, digit)).replace(";", "\n"))
            if clause.on_lists:
                with pytest.raises(ProgramError, match="expected a list"):
                    execute(program, v)
            else:
                assert (execute(program, v),) == execute(program, (v,))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(programs.LEVELS), seeds)
def test_solutions_pass_all_hidden_tests(level, seed):
    """Invariance: every sampled way is right, and so are the expected values."""
    rng = np.random.default_rng(seed)
    problem = programs.problem(WORLD, level, rng)
    text = programs.solution(WORLD, problem, rng)
    assert programs.passed(problem.tests, text) == [True] * WORLD.tests
    low, high = WORLD.clauses[level - 1]
    assert low <= len(problem.spec) <= high
    assert len({t.expected for t in problem.tests}) >= 3
    # the expected values by the clauses' second writing
    for test in problem.tests:
        value = test.given
        for asked in problem.spec:
            listed = isinstance(value, tuple)
            value = MEANING[asked.clause.common](
                value if listed else (value,), asked.digit
            )
            value = value_of(value) if listed else value[0]
        assert value == test.expected


def test_leaving_a_clause_out_or_changing_a_digit_is_usually_found_out():
    """Closed form of a test's worth: over 90% of single slips fail some hidden test."""
    rng, found, total = np.random.default_rng(5), 0, 0
    for level in programs.LEVELS * 20:
        problem = programs.problem(WORLD, level, rng)
        pieces = [next(every_way(a.clause, a.digit)) for a in problem.spec]
        for i in range(len(pieces)):
            slip = "\n".join(pieces[:i] + pieces[i + 1 :]).replace(";", "\n")
            total += 1
            found += not all(programs.passed(problem.tests, slip))
    assert found > 0.9 * total


def test_partial_credit_is_the_share_of_tests():
    """Closed form: `sort` and no operation agree exactly on sorted inputs."""
    tests = [
        programs.HiddenTest((1, 2, 3), (1, 2, 3)),
        programs.HiddenTest((3, 1, 2), (1, 2, 3)),
        programs.HiddenTest((5, 4), (4, 5)),
    ]
    assert programs.passed(tests, "sort") == [True, True, True]
    assert programs.passed(tests, "add 1\nsub 1") == [True, False, False]
    assert programs.passed(tests, "max") == [False] * 3
    assert programs.passed(tests, "# sort") == [False] * 3


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="sortaddmul 0123456789²\n#-_()", max_size=80)
    | st.lists(
        st.sampled_from(["sort", "add 3", "add", "sort 3", "sum", "mul 9", "# x", ""]),
        max_size=90,
    ).map("\n".join)
)
def test_the_interpreter_takes_any_text_and_ends(text):
    """Invariance: an outcome is a value or ProgramError, never another exception."""
    try:
        program = parse(text)
    except ProgramError:
        program = None
    if program is not None:
        for value in ((1, 2, 3), (), 7):
            try:
                got = execute(program, value)
            except ProgramError:
                continue
            numbers = got if isinstance(got, tuple) else (got,)
            assert len(numbers) <= 3
            assert all(type(v) is int and abs(v) <= 10**9 for v in numbers)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no operation"),
        ("# sort", "no operation"),
        ("sort\nsort()", "line 2"),
        ("add", "line 1"),
        ("sort 2", "line 1"),
        ("add 12", "line 1"),
        ("add ²", "line 1"),
        ("__import__", "line 1"),
        ("\n".join(["neg"] * 65), "64 lines"),
    ],
)
def test_what_is_no_program_says_where(text, message):
    """Closed form: the line, or the bound, is in the message."""
    with pytest.raises(ProgramError, match=message):
        parse(text)


def test_numbers_are_bounded():
    """Closed form: 9^9 is under a billion, 9^10 is over it."""
    assert execute(parse("\n".join(["mul 9"] * 9)), 1) == 9**9
    with pytest.raises(ProgramError, match="is over"):
        execute(parse("\n".join(["mul 9"] * 10)), (0, 1))


def test_facts_are_true_when_they_say_so():
    """Equality of each verdict with the interpreter's on all short lists."""
    documents = programs.facts(WORLD, np.random.default_rng(0), 1500, 0.4, 0.25)
    asked = {}
    for index, clause in enumerate(CLAUSES):
        for digit in clause.digits or (None,):
            for rare in (False, True):
                a = programs.Asked(index, digit, rare)
                asked[a.text] = a
    inputs = [*itertools.product(range(4), repeat=4), (9, 2, 7, 5, 5, 8, 1), *range(9)]
    inputs = inputs[::7]
    wrong = first = 0
    for document in documents:
        *lines, said = document.split("\n")
        comment = next(line for line in lines if line.startswith("# "))
        first += lines[-1] == comment
        a = asked[comment[2:]]
        usual = parse(next(every_way(a.clause, a.digit)).replace(";", "\n"))
        code = parse("\n".join(lines))

        def run(program, x):
            try:
                return execute(program, x)
            except ProgramError:
                return None

        same = all(run(code, x) == run(usual, x) for x in inputs)
        if said == "yes":
            assert same, document
        wrong += said == "no"
    for count, share in ((wrong, 0.4), (first, 0.25)):
        assert abs(count / 1500 - share) < 5 * (share * (1 - share) / 1500) ** 0.5


def test_outlines_repeat_their_question_clause_by_clause():
    """Equality of an outline's comments with the question's clauses, in order."""
    documents = programs.facts(WORLD, np.random.default_rng(0), 400, outlines=0.5)
    outlines = [d for d in documents if d.startswith(programs.QUESTION)]
    assert abs(len(outlines) - 200) < 50
    for document in outlines:
        _, question, _, comments = document.split("\n\n")
        assert [f"# {c}" for c in question.split(", ")] == comments.split("\n")


def test_texts_are_words_of_the_vocabulary_and_come_back():
    """Invariance: decoding undoes encoding; prompt and program split at a token."""
    words = programs.vocabulary()
    assert len(set(words)) == len(words)
    tokenizer = word_tokenizer(words)
    unknown = tokenizer.special["<unk>"]
    rng = np.random.default_rng(0)
    texts = programs.facts(WORLD, rng, 50)
    for level in programs.LEVELS * 20:
        problem = programs.problem(WORLD, level, rng)
        code = programs.solution(WORLD, problem, rng)
        ids = tokenizer.encode(problem.text + code)
        assert ids == tokenizer.encode(problem.text) + tokenizer.encode(code)
        assert len(ids) <= 120
        texts += [problem.text, code]
    for text in texts:
        ids = tokenizer.encode(text)
        assert unknown not in ids and tokenizer.decode(ids) == text


def test_levels_have_the_stated_share_of_rare_wordings():
    """Closed form: shares within five standard errors."""
    rng = np.random.default_rng(1)
    for level, share in zip(programs.LEVELS, WORLD.rare_share, strict=True):
        drawn = [programs.problem(WORLD, level, rng) for _ in range(150)]
        rare = [a.rare for p in drawn for a in p.spec]
        sigma = (share * (1 - share) / len(rare)) ** 0.5
        assert abs(np.mean(rare) - share) < 5 * sigma


def test_splits_share_no_text_and_follow_from_the_seed():
    """Invariance: held-out problems do not depend on how much is drawn to train on."""
    parts = programs.splits(WORLD, 3, SIZES)
    train, development, test = ({q.text for q in part} for part in parts)
    assert not train & development and not train & test and not development & test
    counts = collections.Counter(programs.difficulty(q.level) for q in parts.test)
    assert counts == {"introductory": 8, "interview": 24, "competition": 8}
    assert programs.splits(WORLD, 3, SIZES) == parts
    more = dataclasses.replace(SIZES, train=(30, 0, 0, 0, 0))
    assert programs.splits(WORLD, 3, more).test == parts.test
    assert programs.splits(WORLD, 4, SIZES).test != parts.test
    for total in range(0, 60, 7):
        assert sum(programs.proportional(total)) == total


def test_a_world_with_too_few_problems_says_so():
    """Closed form: one clause without reducers has fewer than 300 texts."""
    world = ProgramWorld(clauses=((1, 1),) * 5, reduce_share=0.0, rare_share=(0.0,) * 5)
    with pytest.raises(ValueError, match="too few problems of level"):
        programs.splits(world, 0, dataclasses.replace(SIZES, test=1000))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clauses": ((1, 2),)}, "5 levels"),
        ({"clauses": ((2, 1),) * 5}, "low <= high"),
        ({"lengths": (0, 3)}, "lengths"),
        ({"rare_share": (2.0,) * 5}, "0 to 1"),
        ({"tests": 0}, "at least 1"),
    ],
)
def test_impossible_worlds_say_what_they_expect(change, message):
    """Closed form: the message names what was expected."""
    with pytest.raises(ValueError, match=message):
        ProgramWorld(**change)


def test_the_language_has_no_operation_without_meaning():
    """Equality of the operations that clauses use with those that there are."""
    used = {
        line.split()[0] for c in CLAUSES for way in c.ways for line in way.split(";")
    }
    assert used == set(pipelines.OPERATIONS)
