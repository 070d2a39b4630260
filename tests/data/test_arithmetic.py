"""Sampled solutions check right; one wrong number makes the expected labels wrong."""

import collections
import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.tokenizers import word_tokenizer
from data.worlds import arithmetic
from data.worlds.arithmetic import ArithmeticWorld, SplitSizes

WORLD = ArithmeticWorld()
worlds = st.builds(
    ArithmeticWorld,
    modulus=st.sampled_from([5, 7, 11, 13]),
    scale_rare=st.floats(0, 1),
    scale_common=st.floats(0, 1),
    rare_share=st.tuples(*[st.floats(0, 1)] * 5),
    pair_seed=st.integers(0, 9),
)
seeds = st.integers(0, 2**32)
levels = st.sampled_from(arithmetic.LEVELS)


def draw(world, level, seed):
    rng = np.random.default_rng(seed)
    problem = arithmetic.problem(world, level, rng)
    return problem, arithmetic.solution(world, problem, rng), rng


@settings(max_examples=200, deadline=None)
@given(worlds, levels, seeds)
def test_every_solution_is_right_step_by_step(world, level, seed):
    problem, text, _ = draw(world, level, seed)
    labels = arithmetic.check_steps(world, problem, text)
    assert labels and all(labels) and arithmetic.is_correct(problem, text)
    # the answer by multiplication alone: c_0 v_0 = start, c_i v_i = v_{i-1}
    value = int(problem.answer)
    for c in reversed(problem.spec.coefficients):
        value = value * c % world.modulus
    assert value == problem.spec.start
    low, high = world.steps[level - 1]
    assert low <= len(problem.spec.coefficients) <= high <= 2 * len(labels)


@settings(max_examples=200, deadline=None)
@given(levels, seeds, st.data())
def test_corrupting_one_number_makes_exactly_the_expected_labels_false(
    level, seed, data
):
    problem, text, _ = draw(WORLD, level, seed)
    steps = arithmetic.solution_steps(text)
    i = data.draw(st.integers(0, len(steps) - 1))
    spans = [m.span() for m in re.finditer(r"\d+", steps[i])]
    j = data.draw(st.integers(0, len(spans) - 1))
    (low, high), old = spans[j], int(steps[i][slice(*spans[j])])
    new = data.draw(st.integers(0, WORLD.modulus - 1).filter(lambda v: v != old))
    corrupted = [*steps]
    corrupted[i] = steps[i][:low] + str(new) + steps[i][high:]
    labels = arithmetic.check_steps(WORLD, problem, "\n\n".join(corrupted))
    # The line itself is wrong. So is the next one when what changed is the state that
    # this line leaves: its value, or either side of its scaled equation.
    scaled = " by " in steps[i]
    leaves = j >= len(spans) - (2 if scaled else 1)
    expected = [True] * len(steps)
    expected[i] = False
    if leaves and i + 1 < len(steps):
        expected[i + 1] = False
    assert labels == expected


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_step_that_follows_from_a_slip_is_right(seed):
    problem, text, _ = draw(WORLD, 5, seed)
    first, c = problem.spec.start, problem.spec.coefficients
    right = first * pow(c[0], -1, 11) % 11
    slip = right % 10 + 1
    then = slip * pow(c[1], -1, 11) % 11
    text = f"{c[0]}a = {first}: a = {slip}\n\n{c[1]}b = {slip}: b = {then}"
    assert arithmetic.check_steps(WORLD, problem, text) == [False, True]


def test_lines_that_are_no_steps_are_wrong_and_change_nothing():
    problem, text, _ = draw(WORLD, 5, 0)
    steps = arithmetic.solution_steps(text)
    for junk in [
        "",
        "a =",
        "9 9 9",
        "²a = 1",
        "9a = 9 by 99: 1a = 1",
        "z = 3",
        "3a = 7: b = 1",
    ]:
        lines = [steps[0], junk, *steps[1:]]
        labels = arithmetic.check_steps(WORLD, problem, "\n\n".join(lines))
        right_after = [True] * len(steps)
        assert len(labels) == len(steps) + bool(junk)
        assert junk == "" or labels[1] is False
        if junk in ("a =", "9 9 9"):
            assert labels[:1] + labels[2:] == right_after
    extra = arithmetic.check_steps(WORLD, problem, "\n\n".join([*steps, steps[-1]]))
    assert extra[-1] is False


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789 ab=:by\n#Answer", max_size=60))
def test_the_checker_takes_any_text(text):
    problem, _, _ = draw(WORLD, 1, 0)
    labels = arithmetic.check_steps(WORLD, problem, text)
    assert len(labels) == len(arithmetic.solution_steps(text))


def test_solutions_take_several_right_ways_and_scale_rare_pairs_into_common_ones():
    problem, _, rng = draw(WORLD, 5, 1)
    ways = {arithmetic.solution(WORLD, problem, rng) for _ in range(50)}
    assert len(ways) > 20
    rare = arithmetic.rare_pairs(WORLD)
    for text in ways:
        for c, y in re.findall(r" by \d+: (\d+)[a-z] = (\d+)", text):
            assert not rare[int(c), int(y)]
    never = dataclasses.replace(WORLD, scale_rare=0.0, scale_common=0.0)
    assert len({arithmetic.solution(never, problem, rng) for _ in range(9)}) == 1


@pytest.mark.parametrize("level", arithmetic.LEVELS)
def test_levels_have_the_stated_lengths_and_shares_of_rare_pairs(level):
    rng, rare = np.random.default_rng(level), arithmetic.rare_pairs(WORLD)
    lengths, pairs = collections.Counter(), []
    for _ in range(1000):
        chain = arithmetic.problem(WORLD, level, rng).spec
        lengths[len(chain.coefficients)] += 1
        right = chain.start
        for c in chain.coefficients:
            pairs.append(rare[c, right])
            right = right * pow(c, -1, 11) % 11
    low, high = WORLD.steps[level - 1]
    assert set(lengths) == set(range(low, high + 1))
    expected = 1000 / (high - low + 1)
    assert all(abs(n - expected) < 5 * expected**0.5 for n in lengths.values())
    share = WORLD.rare_share[level - 1]
    sigma = (share * (1 - share) / len(pairs)) ** 0.5
    assert abs(np.mean(pairs) - share) < 5 * sigma


def test_a_third_of_the_pairs_is_rare_for_every_right_side():
    rare = arithmetic.rare_pairs(WORLD)
    assert (rare.sum(0)[1:] == 3).all() and not rare[:2].any() and not rare[:, 0].any()


def test_texts_are_words_of_the_vocabulary_and_come_back():
    words = arithmetic.vocabulary(WORLD)
    assert len(set(words)) == len(words)
    tokenizer = word_tokenizer(words)
    unknown = tokenizer.special["<unk>"]
    rng = np.random.default_rng(0)
    texts = arithmetic.facts(WORLD, rng, 50)
    for level in arithmetic.LEVELS * 20:
        problem = arithmetic.problem(WORLD, level, rng)
        solution = arithmetic.solution(WORLD, problem, rng)
        texts += [problem.text, solution]
        # prompt and solution are tokenized apart or together alike
        ids = tokenizer.encode(problem.text + solution)
        assert ids == tokenizer.encode(problem.text) + tokenizer.encode(solution)
        assert len(ids) <= 140
    for text in texts:
        ids = tokenizer.encode(text)
        assert unknown not in ids and tokenizer.decode(ids) == text


def test_facts_are_true_when_they_say_so():
    documents = arithmetic.facts(
        WORLD, np.random.default_rng(0), 4000, wrong_share=0.35
    )
    wrong = 0
    for document in documents:
        u, v, w, verdict = re.fullmatch(
            r"(\d+) \* (\d+) = (\d+) (yes|no)", document
        ).groups()
        assert (int(u) * int(v) % 11 == int(w)) == (verdict == "yes")
        assert 1 <= int(w) <= 10
        wrong += verdict == "no"
    assert abs(wrong / 4000 - 0.35) < 5 * (0.35 * 0.65 / 4000) ** 0.5
    pairs = {tuple(d.split()[:3:2]) for d in documents}
    assert len(pairs) == 100


def test_facts_about_scaling_are_true_when_they_say_so():
    """Closed form: yes if and only if both sides were multiplied; shares as asked."""
    documents = arithmetic.facts(
        WORLD, np.random.default_rng(1), 4000, wrong_share=0.35, scale_share=0.4
    )
    scaled = [d for d in documents if " by " in d]
    wrong = 0
    for document in scaled:
        u, x, v, k, c, y, w, verdict = re.fullmatch(
            r"(\d+)([a-z]) = (\d+) by (\d+): (\d+)([a-z]) = (\d+) (yes|no)", document
        ).groups()
        right = int(u) * int(k) % 11 == int(c) and int(v) * int(k) % 11 == int(w)
        assert x == y and right == (verdict == "yes")
        wrong += verdict == "no"
    assert abs(len(scaled) / 4000 - 0.4) < 5 * (0.4 * 0.6 / 4000) ** 0.5
    assert abs(wrong / len(scaled) - 0.35) < 5 * (0.35 * 0.65 / len(scaled)) ** 0.5


@given(levels, seeds)
def test_a_prompt_says_its_problem(level, seed):
    """Round trip: problem -> text -> problem, but for the answer."""
    problem = arithmetic.problem(WORLD, level, np.random.default_rng(seed))
    assert arithmetic.parse(problem.text, level) == problem._replace(answer="")


@given(st.text() | st.text("0123456789ab=, "))
def test_other_texts_are_no_problems(question):
    """Either an error that says what was expected, or a problem with this very text."""
    for text in (question, arithmetic.prompt(question)):
        try:
            found = arithmetic.parse(text)
        except DataError as error:
            assert "chain of equations" in str(error)
        else:
            assert found.text == text


def test_splits_share_no_text_and_follow_from_the_seed():
    sizes = SplitSizes(train=(40, 80, 80, 20, 20), development=100, test=200)
    parts = arithmetic.splits(WORLD, 3, sizes)
    train, development, test = ({q.text for q in part} for part in parts)
    assert not train & development and not train & test and not development & test
    assert len(development) == 100 and len(test) == 200
    assert [len(part) for part in parts] == [240, 100, 200]
    counts = collections.Counter(q.level for q in parts.train)
    assert [counts[level] for level in arithmetic.LEVELS] == [40, 80, 80, 20, 20]
    assert arithmetic.splits(WORLD, 3, sizes) == parts
    assert arithmetic.splits(WORLD, 4, sizes).test != parts.test
    # the held-out problems do not depend on how much is drawn to train on
    more = arithmetic.splits(
        WORLD, 3, dataclasses.replace(sizes, train=(50, 90, 90, 0, 0))
    )
    assert more.test == parts.test and more.development == parts.development


def test_test_split_has_the_level_proportions_of_math500():
    assert arithmetic.proportional(500) == arithmetic.MATH500
    for total in range(0, 60, 7):
        assert sum(arithmetic.proportional(total)) == total
    with pytest.raises(ValueError, match="too few problems of level 1"):
        arithmetic.splits(ArithmeticWorld(modulus=5), 0)


@pytest.mark.parametrize(
    "text, answer",
    [
        ("x\n\n# Answer\n\n7", "7"),
        ("# Answer\n\n7\n\n8", "7"),
        ("# Answer\n\n", None),
        ("7", None),
        ("# Answer 7", None),
        ("# Answer\n\n7 </s>", "7 </s>"),
    ],
)
def test_final_answer_is_the_line_after_the_marker(text, answer):
    assert arithmetic.final_answer(text) == answer


@pytest.mark.parametrize(
    "change, message",
    [
        ({"modulus": 9}, "prime"),
        ({"steps": ((1, 2),)}, "5 levels"),
        ({"steps": ((2, 1),) * 5}, "low <= high"),
        ({"scale_rare": 2.0}, "0 to 1"),
        ({"rare_fraction": 1.0}, "no common"),
    ],
)
def test_impossible_worlds_say_what_they_expect(change, message):
    with pytest.raises(ValueError, match=message):
        ArithmeticWorld(**change)


def test_impossible_sizes_say_what_they_expect():
    with pytest.raises(ValueError, match="expected 5 levels"):
        SplitSizes(train=(1, 2))
    with pytest.raises(ValueError, match="no negative sizes"):
        SplitSizes(test=-1)
