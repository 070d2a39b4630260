"""Labels of prefixes equal the truth of their source; rows are balanced, each once."""

import dataclasses
import math
import zlib

import jax
import numpy as np
import pytest
from helpers import forward
from helpers.forward import TINY, random_params
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.steps import LabelledSteps
from data.tokenizers import word_tokenizer
from data.worlds import arithmetic
from data.worlds.arithmetic import ANSWER, BREAK, ArithmeticWorld
from models.sampling import Sampling
from research.label_rows import balance, corrupted, distinct, replace_number
from research.labels import (
    Candidate,
    after_mistake,
    continuations,
    from_ratings,
    from_rollouts,
    from_verifier,
    parts,
)

WORLD = ArithmeticWorld(steps=((2, 2),) * 5, scale_rare=0.0, scale_common=0.0)
TOKENIZER = word_tokenizer(arithmetic.vocabulary(WORLD))


def problems(count, seed=0):
    rng = np.random.default_rng(seed)
    made = [arithmetic.problem(WORLD, 1 + i % 5, rng) for i in range(count)]
    return made, [arithmetic.solution(WORLD, p, rng) for p in made]


def verifier(made, **options):
    return from_verifier(
        lambda i, text: arithmetic.check_steps(WORLD, made[i], text),
        lambda i, text: arithmetic.is_correct(made[i], text),
        **options,
    )


# --- parts --------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["a = 2", BREAK, "\n", " ", ANSWER, "7"]), max_size=9),
    st.sampled_from(["joined", "own"]),
)
def test_parts_are_the_text_again(pieces, answer):
    """Invariance: the concatenation of the parts; an answer of its own is the last."""
    text = "".join(pieces)
    made = parts(text, answer=answer)
    assert "".join(made) == text
    assert all("# Answer" not in part for part in made[:-1])
    if "# Answer" in text and answer == "own":
        assert made[-1].startswith("# Answer")


def test_the_answer_is_joined_to_the_last_step_or_its_own():
    """Closed form: PRM800K's last step holds the answer; the world's does not."""
    text = "2a = 4: a = 2\n\n3b = 6: b = 2\n\n# Answer\n\n2"
    joined = ("2a = 4: a = 2\n\n", "3b = 6: b = 2\n\n# Answer\n\n2")
    assert parts(text) == joined
    own = ("2a = 4: a = 2\n\n", "3b = 6: b = 2\n\n", "# Answer\n\n2")
    assert parts(text, answer="own") == own
    with pytest.raises(ValueError, match="expected joined or own"):
        parts(text, answer="none")


# --- people -------------------------------------------------------------------------


def test_ratings_label_the_prefixes_that_people_saw():
    """Closed form: 1 and 0 are good, -1 is bad, none and disagreement say nothing."""
    rated = [
        ("p", ["a", "b"], -1),
        ("p", ["a"], 0),
        ("p", ["a", "c"], 1),
        ("p", ["a", "c", "d"], None),
        ("q", ["a"], -1),
        ("p", ["e"], 1),
        ("p", ["e"], -1),
        ("p", ["f"], 1),
        ("p", ["f"], 0),
    ]
    asked = [
        Candidate(0, "p", ("a", "b")),
        Candidate(0, "p", ("a", "c", "d", "x")),
        Candidate(1, "q", ("a",)),
        Candidate(0, "p", ("e",)),
        Candidate(0, "p", ("f",)),
    ]
    labels = [row.labels for row in from_ratings(rated)(asked)]
    assert labels == [(1, 0), (1, 1, None, None), (0,), (None,), (1,)]
    strict = [row.labels for row in from_ratings(rated, neutral=None)(asked)]
    assert strict == [(None, 0), (None, 1, None, None), (0,), (None,), (1,)]
    with pytest.raises(DataError, match="expected -1, 0, 1 or none, got 2"):
        from_ratings([("p", ["a"], 2)])


# --- a verifier ---------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["joined", "own"])
def test_right_solutions_are_right_in_every_prefix(answer):
    """Closed form: the world's own solutions have the label 1 everywhere."""
    made, texts = problems(20)
    rows = verifier(made)([
        Candidate(i, p.text, parts(t, answer=answer))
        for i, (p, t) in enumerate(zip(made, texts, strict=True))
    ])  # fmt: skip
    for row, problem, text in zip(rows, made, texts, strict=True):
        assert row.prompt == problem.text and "".join(row.steps) == text
        assert row.labels == (1.0,) * len(row.steps)


def test_a_slip_is_wrong_where_it_is_made():
    """Closed form: 3a = 7 has a = 6 mod 11; the wrong 5 is followed faithfully."""
    chain = arithmetic.Chain(7, (3, 5))
    made = [arithmetic.Problem(1, "p", "10", chain)]
    slip = ("3a = 7: a = 5\n\n", "5b = 5: b = 1\n\n", "# Answer\n\n1")

    def labels(steps, **options):
        return verifier(made, **options)([Candidate(0, "p", steps)])[0].labels

    assert labels(slip) == (0, 1, 0)  # the answer is judged by the truth
    assert labels((slip[0], slip[1] + slip[2])) == (0, 0)
    assert labels(slip, after="wrong") == (0, 0, 0)
    assert labels(slip, after="none") == (0, None, None)
    lucky = ("3a = 7: a = 5\n\n", "5b = 5: b = 10\n\n", "# Answer\n\n10")
    assert labels(lucky) == (0, 0, 1)
    assert labels(slip[:1]) == (0,)
    assert labels((" \n",)) == (None,)
    with pytest.raises(DataError, match="judged 2 steps of 1"):
        labels((slip[0] + slip[1],))


@given(st.lists(st.sampled_from([0.0, 1.0, None]), max_size=7))
def test_what_stands_behind_a_mistake(labels):
    """Closed form: up to the first 0 all is as it was, behind it as asked."""
    k = labels.index(0.0) + 1 if 0.0 in labels else len(labels)
    rest = len(labels) - k
    assert after_mistake(labels, "judged") == tuple(labels)
    assert after_mistake(labels, "wrong") == (*labels[:k], *[0.0] * rest)
    assert after_mistake(labels, "none") == (*labels[:k], *[None] * rest)


# --- rollouts -----------------------------------------------------------------------


def test_estimates_count_right_continuations():
    """Closed form: hard is any, soft the share; answered prefixes are judged alone."""
    asked = []

    def continue_from(pairs):
        asked.append(pairs)
        return [["!", "?", "!?", part[-1]] for _, part in pairs]

    def is_right(problem, text):
        return text.endswith("!") != bool(problem)

    solutions = [
        Candidate(0, "p", ("a", "b", "# Answer\n\n!")),
        Candidate(0, "p", ("a", "c")),
        Candidate(0, "p", ("a", "b", "# Answer\n\n?")),
        Candidate(1, "p", ("a",)),
    ]
    soft = from_rollouts(continue_from, is_right, "soft")(solutions)
    assert [r.labels for r in soft] == [
        (0.25, 0.25, 1.0), (0.25, 0.25), (0.25, 0.25, 0.0), (0.75,),
    ]  # fmt: skip
    assert [row[:2] for row in soft] == [c[1:] for c in solutions]
    hard = from_rollouts(continue_from, is_right, "hard")(solutions)
    assert [r.labels for r in hard] == [(1, 1, 1), (1, 1), (1, 1, 0), (1,)]
    # One batch; a prefix is continued once for each problem that is to judge it.
    assert asked[0] == asked[1] == [("p", p) for p in ("a", "ab", "ac", "a")]
    with pytest.raises(ValueError, match="expected hard or soft"):
        from_rollouts(continue_from, is_right, "mean")


CFG = dataclasses.replace(
    TINY, vocab_size=TOKENIZER.vocab_size, n_layers=1, max_position=128
)
RULES = Sampling(banned=(0, 1, 2, 3))  # specials have no text


@pytest.fixture(scope="module")
def params():
    return random_params(CFG)


def continuing(params, seed=0, **options):
    """One shape for all tests of the file: the sampler is compiled once."""
    options = {"samples": 4, "max_new_tokens": 3, "slots": 8} | options
    return continuations(
        CFG, params, TOKENIZER, TOKENIZER.encode, RULES, jax.random.key(seed),
        prefill_rows=1, **options,
    )  # fmt: skip


def judged(problem, text):
    """A coin by the text."""
    return zlib.crc32(text.encode()) % 2 == 0


@pytest.fixture(scope="module")
def solutions():
    """Three solutions of two steps, the answer a part of its own."""
    made, texts = problems(3)
    return [
        Candidate(i, p.text, parts(t, answer="own"))
        for i, (p, t) in enumerate(zip(made, texts, strict=True))
    ]


def test_a_deterministic_sampler_has_labels_zero_and_one(params, solutions):
    """Closed form: continuations that agree have soft = hard = their one verdict."""
    sharp = params | {
        "final_norm": {"scale": 1e5 * params["final_norm"]["scale"]}
    }  # all of the probability is on one token
    continue_from = continuing(sharp)
    soft = from_rollouts(continue_from, judged, "soft")(solutions)
    assert soft == from_rollouts(continue_from, judged, "hard")(solutions)
    for candidate, row in zip(solutions, soft, strict=True):
        done = ["".join(candidate.steps[: k + 1]) for k in range(3)]
        texts = continue_from([(candidate.prompt, part) for part in done[:-1]])
        assert all(len(set(several)) == 1 for several in texts)
        whole = [part + t[0] for part, t in zip(done[:-1], texts, strict=True)]
        assert row.labels == tuple(float(judged(0, t)) for t in [*whole, done[-1]])


def test_a_label_depends_on_its_prefix_alone(params, solutions):
    """Invariance: labelled alone, in a batch, or with repeats, rows are the same."""
    label = from_rollouts(continuing(params), judged, "soft")
    together = label(solutions)
    assert label([*reversed(solutions), solutions[0]]) == [
        *reversed(together),
        together[0],
    ]
    assert label(solutions[2:]) == together[2:]
    values = {x for row in together for x in row.labels}
    assert not values <= {0.0, 1.0}  # samples of one prefix do differ
    other = from_rollouts(continuing(params, seed=1), judged, "soft")
    assert other(solutions) != together


def test_soft_labels_are_probabilities(params, solutions):
    """Closed form: the share that goes on with a digit is the next token's chance."""
    samples = 400
    candidate = solutions[0]._replace(steps=solutions[0].steps[:2])
    text = candidate.prompt + "".join(candidate.steps)
    start = len("".join(candidate.steps))
    label = from_rollouts(
        continuing(params, samples=samples),
        lambda _, whole: whole[start : start + 1].isdigit(),
        "soft",
    )
    got = label([candidate])[0].labels[1]
    ids = TOKENIZER.encode(text)
    logits = forward.logits(CFG, params, *forward.rows([ids], len(ids)))[0, -1]
    digit = [TOKENIZER.decode([i])[:1].isdigit() for i in range(CFG.vocab_size)]
    chance = np.exp(logits - jax.nn.logsumexp(logits[4:]))
    exact = float(chance[np.array(digit)].sum())
    assert 0.05 < exact < 0.95
    assert abs(got - exact) <= 4.5 * math.sqrt(exact * (1 - exact) / samples)


def test_continuations_end_at_the_most_tokens(params, solutions):
    """Closed form: a prefix without room gets nothing, others what room there is."""
    prompt, steps = solutions[0].prompt, solutions[0].steps
    pairs = [(prompt, steps[0]), (prompt, steps[0] + steps[1])]
    ends = [len(TOKENIZER.encode(prompt + part)) for _, part in pairs]
    for limit in (ends[1], ends[1] + 2, ends[1] + 9):
        continued = continuing(params, max_length=limit)(pairs)
        for texts, end in zip(continued, ends, strict=True):
            # Two digits may be read back as one number: no text is longer than drawn.
            counts = [len(TOKENIZER.encode(text)) for text in texts]
            assert max(counts) == min(3, limit - end)


# --- rows ---------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40),
    st.sampled_from([1.0, 1.5, 3.0]),
    st.integers(0, 5),
)
def test_balanced_classes_are_within_the_ratio(rows, most, seed):
    """Closed form: the smaller class stays whole, the larger up to `most` times it."""
    problem, good = [r[0] for r in rows], [r[1] for r in rows]
    kept = balance(problem, good, np.random.default_rng(seed), most)
    assert kept == sorted(set(kept))
    assert kept == balance(problem, good, np.random.default_rng(seed), most)
    for p in set(problem):
        had = [sum(q == p and g == side for q, g in rows) for side in (0, 1)]
        has = [
            sum(problem[i] == p and good[i] == side for i in kept) for side in (0, 1)
        ]
        assert has == [min(n, int(most * min(had))) for n in had]


def test_which_rows_are_dropped_is_random():
    """Expectation: each of the larger class is kept as often as the others."""
    good = [True] + [False] * 9
    kept = np.zeros(10)
    for seed in range(600):
        kept[balance([0] * 10, good, np.random.default_rng(seed))] += 1
    assert kept[0] == 600
    share = 3 / 9
    error = math.sqrt(600 * share * (1 - share))
    assert np.all(np.abs(kept[1:] - 600 * share) < 4.5 * error)
    with pytest.raises(ValueError, match="most: expected at least 1"):
        balance([0], [True], np.random.default_rng(0), 0.5)


def test_equal_texts_of_two_problems_are_two_rows():
    """Closed form: the first of each prompt and text stays, whatever its labels."""
    rows = [
        LabelledSteps("p", ("a",), (1.0,)),
        LabelledSteps("q", ("a",), (0.0,)),
        LabelledSteps("p", ("a",), (0.0,)),
        LabelledSteps("p", ("a", "b"), (1.0, 1.0)),
    ]
    assert distinct(rows) == [rows[0], rows[1], rows[3]]
    assert distinct(rows + rows) == distinct(rows)


@pytest.fixture(scope="module")
def labelled():
    made, texts = problems(30, seed=3)
    assert len({p.text for p in made}) == 30
    index = {p.text: i for i, p in enumerate(made)}
    rows = verifier(made)([
        Candidate(i, p.text, parts(t, answer="own"))
        for i, (p, t) in enumerate(zip(made, texts, strict=True))
    ])  # fmt: skip
    return made, index, rows


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_corrupted_steps_are_wrong_and_as_many_as_stated(labelled, share):
    """Equality with the verifier: of each new row the last step alone is wrong."""
    made, index, rows = labelled
    total = sum(len(row.labels) for row in rows)
    replace = replace_number(range(WORLD.modulus))
    new = corrupted(rows, share, np.random.default_rng(0), replace)
    assert len(new) == round(share * total)
    assert new == corrupted(rows, share, np.random.default_rng(0), replace)
    assert len({(row.prompt, len(row.steps)) for row in new}) == len(new)
    originals = {row.prompt: row.steps for row in rows}
    label = verifier(made)
    for row in new:
        *before, last = row.labels
        assert before == [None] * len(before) and last == 0
        assert originals[row.prompt][: len(before)] == row.steps[:-1]
        (truth,) = label([Candidate(index[row.prompt], row.prompt, row.steps)])
        assert truth.labels == (1.0,) * len(before) + (0.0,)


def test_only_right_steps_are_corrupted_once_each():
    """Closed form: all three right steps with a number; a fourth is refused."""
    rows = [
        LabelledSteps("p", ("a = 1", "b = 2", "none", "c = 3"), (1.0, 0.0, 1.0, 1.0)),
        LabelledSteps("q", ("d = 4", "e = 5"), (1.0, None)),
    ]
    new = corrupted(rows, 0.6, np.random.default_rng(1), replace_number([1, 3, 4]))
    places = {(row.prompt, len(row.steps)) for row in new}
    assert places == {("p", 1), ("p", 4), ("q", 1)}
    with pytest.raises(ValueError, match="5 labelled steps is 4, but only 3"):
        corrupted(rows, 0.8, np.random.default_rng(1), replace_number([1, 3, 4]))


def test_a_number_is_replaced_by_another():
    """Expectation: the last number becomes each other value equally often."""
    replace = replace_number(range(5))
    rng = np.random.default_rng(0)
    made = [replace("10a = 3: a = 2\n\n", rng) for _ in range(800)]
    counts = [made.count(f"10a = 3: a = {v}\n\n") for v in range(5)]
    assert sum(counts) == 800 and counts[2] == 0
    assert all(abs(c - 200) < 4.5 * math.sqrt(150) for c in np.delete(counts, 2))
    assert replace("no number", rng) is None
    assert replace_number([2])("a = 2", rng) is None
