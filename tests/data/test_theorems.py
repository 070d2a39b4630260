"""Theorems of the small world: proved, true by other means, in disjoint splits."""

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.minilean.parser import parse_statement, parse_term
from data.minilean.syntax import INT, INT_TYPE, PROP, Binder, Formula, Signature, rename
from data.sets.lean import read_minif2f
from data.worlds import theorems as world
from data.worlds.draws import Draws
from data.worlds.prop_proofs import script
from data.worlds.prop_search import prove
from data.worlds.propositions import schema, schemas, tautology, text
from data.worlds.theorems import (
    HELD_OUT,
    NOVEL,
    SOURCES,
    TheoremSizes,
    TheoremWorld,
    apportioned,
    held_out,
    held_out_forms,
    pairs,
    splits,
)
from data.worlds.theorems_canonical import canonical
from data.worlds.theorems_checked import level, parsed, replay
from data.worlds.theorems_draft import linear, plus, product, value, written
from data.worlds.theorems_words import length, tokenizer

SHA256 = "9f00f23fc6996b3bada67a8a5dc47329ae28deebceb09984c5c2fb0aa6202039"
SIZES = TheoremSizes(train=122, development=61, test=61, novel=61)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def drawn():
    return splits(TheoremWorld(), 3, SIZES)


def statements(theorems):
    return [parse_statement(one.statement) for one in theorems]


def drafts(source: str, count: int):
    draws, found = Draws(np.random.default_rng([11, 5])), []
    while len(found) < count:
        draft = SOURCES[source](draws)
        found += [] if draft is None else [draft]
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_every_proof_that_is_generated_checks(source):
    """The kernel accepts the known proof of every draft: none is dropped for it."""
    for draft in drafts(source, 60):
        found = replay(parsed(draft), draft.script)
        assert not found.detail, (draft, found.detail)


MEANING = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "^": lambda a, b: a**b,
    "neg": lambda a: -a,
    "¬": lambda a: not a,
    "∧": lambda a, b: a and b,
    "∨": lambda a, b: a or b,
    "→": lambda a, b: not a or b,
    "↔": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "≤": lambda a, b: a <= b,
    "≥": lambda a, b: a >= b,
}


def holds(node, at: dict):
    """The value of a closed term or formula: a second semantics, over integers."""
    op, args = node[0], node[1]
    if op in ("var", "prop"):
        return at[args[0]]
    if op == "num":
        return args[0]
    if op in ("True", "False"):
        return op == "True"
    return MEANING[op](*[holds(arg, at) for arg in args])


@pytest.mark.parametrize("source", ["prop", "forward", *list(SOURCES)[2:5]])
def test_statements_are_true(source):
    """Of all truth tables, or of a grid of integers, none is a counter-model."""
    looked_at = 0
    for draft in drafts(source, 40):
        statement = parsed(draft)
        names = [n for n, kind in statement.binders if isinstance(kind, Signature)]
        kinds = {kind for _, kind in statement.binders if isinstance(kind, Signature)}
        if kinds not in ({PROP}, {INT_TYPE}) or set("∀∃") & set(repr(draft)):
            continue
        looked_at += 1
        values = range(-3, 9) if kinds == {INT_TYPE} else (False, True)
        if len(names) > 4 and INT_TYPE in kinds:
            values = range(-1, 3)
        for point in itertools.product(values, repeat=len(names)):
            at = dict(zip(names, point, strict=True))
            given_ones = (k for _, k in statement.binders if isinstance(k, Formula))
            if all(holds(kind, at) for kind in given_ones):
                assert holds(statement.goal, at), (draft, at)
    assert looked_at > 10


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(list(SOURCES)))
def test_canonical_forms_ignore_names_and_what_is_introduced(seed, source):
    """Renaming all, another order, the last hypothesis in the goal: the same form."""
    draws = Draws(np.random.default_rng(seed))
    draft = None
    while draft is None:
        draft = SOURCES[source](draws)
    one = parsed(draft)
    names = [name for name, _ in one.binders]
    new = dict(zip(names, draws.shuffled([f"{n}'" for n in names]), strict=True))
    other = one._replace(
        binders=tuple(
            Binder(new[n], k if isinstance(k, Signature) else rename(k, new))
            for n, k in one.binders
        ),
        goal=rename(one.goal, new),
    )
    assert canonical(other) == canonical(one)
    given_ones = [b for b in one.binders if isinstance(b.type, Formula)]
    variables = [b for b in one.binders if not isinstance(b.type, Formula)]
    mixed = (*draws.shuffled(variables), *draws.shuffled(given_ones))
    assert canonical(one._replace(binders=mixed)) == canonical(one)
    if given_ones:
        *kept, last = one.binders
        goal = Formula("→", (last.type, one.goal))
        assert canonical(one._replace(binders=tuple(kept), goal=goal)) == canonical(one)


def test_canonical_forms_tell_statements_apart():
    """What differs in more than names differs in form; ¬p is p → False."""
    texts = [
        "(p q : Prop) : p → q → p",
        "(p q : Prop) : p → q → q",
        "(p q : Prop) (h : p) : p ∨ q",
        "(a b : ℤ) (h : a = b) : b = a",
        "(a b : ℕ) (h : a = b) : b = a",
        "(a b : ℤ) (h : a = 2) : a = b",
        "(a b : ℤ) (h : a = 3) : a = b",
        "(f : ℤ → ℤ) (a : ℤ) : f a = a",
        "(f g : ℤ → ℤ) (a : ℤ) : f (g a) = a",
        "(f : ℤ → ℤ) (a : ℤ) : f (f a) = a",
    ]
    forms = [canonical(parse_statement(f"theorem t {t}")) for t in texts]
    # p → q → p and p → q → q are the same but for the order of premises.
    assert forms[0] == forms[1]
    assert len(set(forms)) == len(texts) - 1
    one, other = "(p : Prop) : ¬p → p → False", "(r : Prop) (h : r → False) : ¬r"
    assert (
        len({canonical(parse_statement(f"theorem t {t}")) for t in (one, other)}) == 1
    )


SYMMETRIC = [
    # a ring of implications, from another place on
    ("(p q r : Prop) (h1 : p → q) (h2 : q → r) (h3 : r → p) : False",
     "(p q r : Prop) (h1 : p → q) (h2 : r → p) (h3 : q → r) : False"),
    ("(a b : ℤ) (h : a + 2 * b = 7) (k : b = 3) : a = 1",
     "(x y : ℤ) (h : 3 = y) (k : 7 = y * 2 + x) : 1 = x"),
    ("(p q r : Prop) (h : (p ∧ q) ∧ r) : q ∨ p",
     "(p q r : Prop) : r ∧ p ∧ q → p ∨ q"),
    ("(p q r : Prop) (h : (p → q → r) ↔ p) : r",
     "(p q r : Prop) (h : p ↔ (q → p → r)) : r"),
    ("(p q : Prop) (h : p) (k : p) : p ∨ q", "(p q : Prop) (h : q) : p ∨ q"),
    ("(f : ℤ → ℤ) (a b : ℤ) (h : f (a + b) = b) : f b = a",
     "(f : ℤ → ℤ) (b a : ℤ) (h : a = f (a + b)) : b = f a"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SYMMETRIC)
def test_canonical_forms_ignore_symmetry(one, other):
    """Premises in another order, sides exchanged, other parentheses, one said twice."""
    forms = [canonical(parse_statement(f"theorem t {text}")) for text in (one, other)]
    assert forms[0] == forms[1]


ASYMMETRIC = [
    ("(a b : ℤ) (h : a - b = 1) : a = 2", "(a b : ℤ) (h : b - a = 1) : a = 2"),
    ("(p q : Prop) (h : p → q) : p", "(p q : Prop) (h : p → q) : q"),
    ("(p q r : Prop) : p ∧ (q ∨ r)", "(p q r : Prop) : (p ∧ q) ∨ r"),
    ("(a b : ℤ) (h : a < b) : a = 2", "(a b : ℤ) (h : b < a) : a = 2"),
    ("(a b : ℤ) : a + a = b", "(a b : ℤ) : a + b = a"),
    ("(n : ℕ) (a : ℤ) : a ^ (n + 1) = 1", "(n : ℕ) (a : ℤ) : a ^ (n + n) = 1"),
    ("(p q r : Prop) (h : p → q) (k : q → r) : False",
     "(p q r : Prop) (h : p → q) (k : p → r) : False"),
    ("(P : ℤ → Prop) : ∀ x : ℤ, P x", "(P : ℤ → Prop) : ∃ x : ℤ, P x"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ASYMMETRIC)
def test_canonical_forms_see_what_is_not_symmetric(one, other):
    """The same symbols as often, joined in another way."""
    forms = [canonical(parse_statement(f"theorem t {text}")) for text in (one, other)]
    assert forms[0] != forms[1]


def test_splits_are_disjoint_whatever_the_names(drawn):
    """No canonical form occurs twice, in the splits and in the held-out problems."""
    forms = [canonical(s) for part in drawn for s in statements(part)]
    assert len(forms) == sum((122, 61, 61, 61))
    assert len(set(forms)) == len(forms)
    assert not set(forms) & held_out_forms()


def test_novel_rules_are_in_no_other_split(drawn):
    """Known proofs in "novel" use a novel rule; no training state has one at hand."""
    for one in drawn.novel:
        assert one.shapes & NOVEL
    for one in (*drawn.train, *drawn.development, *drawn.test):
        assert not one.around & NOVEL
    formal = [one for one in drawn.train if one.source in ("prop", "forward")]
    for state, _ in pairs(formal):
        for line in state.split("\n"):
            name, _, kind = line.partition(" : ")
            if name[:1] == "h":
                assert "∨" not in premises_of(kind), line


def premises_of(kind: str) -> list[str]:
    """The main connectives of a hypothesis's premises, by the parser."""
    atoms = "".join(f"({a} : Prop) " for a in "pqrstu")
    formula, found = parse_statement(f"theorem t {atoms}: {kind}").goal, []
    while formula.op in ("→", "¬"):
        found.append(formula.args[0].op)
        if formula.op == "¬":
            break
        formula = formula.args[1]
    return found


def test_splits_follow_the_seed_alone():
    """The same seed gives the same theorems, another one others."""
    few = TheoremSizes(train=30, development=6, test=6, novel=6)
    one, again, other = (splits(TheoremWorld(), seed, few) for seed in (3, 3, 4))
    assert again == one
    assert {t.statement for t in other.train} != {t.statement for t in one.train}


def test_theorems_keep_to_their_caps(drawn):
    """States and tactics of known proofs are short and in the vocabulary."""
    limits, tokens = TheoremWorld(), tokenizer()
    unknown = tokens.special["<unk>"]
    for state, tactic in pairs(drawn.train + drawn.novel):
        assert length(state) <= limits.state_tokens
        assert length(tactic) <= limits.tactic_tokens
        for piece in (state, tactic):
            ids = tokens.encode(piece)
            assert unknown not in ids and tokens.decode(ids) == piece


def test_held_out_problems_are_the_ones_that_were_written():
    """The file's hash; its proofs check, and its labels are the lengths of these."""
    content = HELD_OUT.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    rows = [json.loads(line) for line in content.decode().splitlines()]
    assert Counter(r["source"] for r in rows) == dict(
        zip(SOURCES, TheoremWorld().shares, strict=True)
    )
    assert len(held_out_forms()) == len(rows) == 244 == len(held_out())
    for row in rows:
        statement = parse_statement(row["statement"])
        found = replay(statement, row["proof"])
        assert not found.detail
        assert row["steps"] == len(row["proof"]) == len(found.proof)
        easy, hard = row["steps"] <= 3, row["steps"] > 6
        assert row["difficulty"] == ("easy" if easy else "hard" if hard else "medium")
        assert not set(row["shapes"]) & NOVEL
    counts = Counter()
    problems = read_minif2f(HELD_OUT, "test", counts)
    assert [p.statement for p in problems] == [r["statement"] for r in rows]


def test_a_wrong_proof_is_not_taken():
    """A script that ends too early, goes too far or does not apply has its reason."""
    statement = parse_statement("theorem t (p q : Prop) (h1 : p) (h2 : q) : p ∧ q")
    good = ["constructor", "exact h1", "exact h2"]
    assert not replay(statement, good).detail
    for bad in (good[:2], [*good, "exact h2"], ["constructor", "exact h2"], []):
        assert replay(statement, bad).detail


def test_a_line_may_depend_on_whether_a_goal_is_left():
    """With "?" it is run if the goal of the line before is still there, else not."""
    closed = parse_statement("theorem t (p q : Prop) (h1 : p) (h2 : q) : p ∧ q")
    steps = ["constructor", "exact h1", "?exact h1", "exact h2"]
    assert replay(closed, steps).proof == ("constructor", "exact h1", "exact h2")
    open_ = parse_statement("theorem t (p : Prop) : p → p")
    assert replay(open_, ["intro h1", "?exact h1"]).proof == ("intro h1", "exact h1")


formulas = st.recursive(
    st.sampled_from("pqr"),
    lambda part: st.one_of(
        st.tuples(st.just("¬"), part),
        st.tuples(st.sampled_from("→∧∨↔"), part, part),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(formulas)
def test_the_search_proves_what_holds_and_nothing_else(formula):
    """What it proves is a tautology, and the kernel takes its script."""
    found = prove((), formula)
    if found is not None:
        assert tautology(formula)
        statement = parse_statement(f"theorem t (p q r : Prop) : {text(formula)}")
        assert not replay(statement, script(found, ())).detail


def test_names_of_shapes():
    """A schema is the connective and the form of its premise; polarity counts."""
    either = ("→", ("∨", "p", "q"), "r")
    assert schema(either) == "(_ ∨ _) → _"
    assert schema(("¬", ("→", "p", "q"))) == "¬(_ → _)"
    assert schema(("→", "p", either)) == "_ → _"
    assert schema(("∧", either, "p")) == "_ ∧ _"
    assert schemas(either) == {"_ ∨ _"}  # to be shown: its premise is given
    assert schemas(("→", either, "p")) == {"(_ ∨ _) → _"}
    assert schemas(("→", ("↔", "p", ("¬", "q")), "p")) == {
        "_ ↔ _",
        "_ → _",
        "¬_ → _",
        "¬_",
    }


coefficients = st.integers(-4, 4)


@settings(max_examples=60, deadline=None)
@given(
    seeds, *[st.tuples(*[coefficients] * 3)] * 2, st.tuples(*[st.integers(-9, 9)] * 2)
)
def test_polynomials_mean_what_they_are_written_as(seed, one, other, at):
    """The parsed text of a product and a sum has the value of its factors."""
    p, q = (linear([(a, "x"), (b, "y")], c) for a, b, c in (one, other))
    where = dict(zip("xy", at, strict=True))
    total = plus(product(p, q), p, -2)
    text_ = written(Draws(np.random.default_rng(seed)), total)
    scope = {"x": INT_TYPE, "y": INT_TYPE}
    expected = value(p, where) * value(q, where) - 2 * value(p, where)
    assert (
        holds(parse_term(text_, INT, scope), where) == expected == value(total, where)
    )


@given(st.integers(0, 5000), st.lists(st.integers(0, 50), min_size=1).filter(sum))
def test_shares_add_up(total, shares):
    """Parts add up to the total, each less than one from its exact share."""
    parts = apportioned(total, tuple(shares))
    assert sum(parts) == total
    for part, share in zip(parts, shares, strict=True):
        assert abs(part - total * share / sum(shares)) < 1


@given(seeds, st.lists(st.integers(), max_size=20), st.integers(1, 9))
def test_draws(seed, options, n):
    """A sample is of different places; the same seed draws the same."""
    draws, again = (Draws(np.random.default_rng(seed)) for _ in range(2))
    assert sorted(draws.shuffled(options)) == sorted(options)
    assert 0 <= draws.below(n) < n
    again.shuffled(options), again.below(n)
    assert draws.random() == again.random()


def test_levels():
    """Three steps are easy, six medium."""
    assert [level(n) for n in (1, 3, 4, 6, 7, 20)] == [
        "easy", "easy", "medium", "medium", "hard", "hard",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"shares": (1, 2)}, {"shares": (0,) * 6}, {"state_tokens": 0}]
)
def test_bad_knobs_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TheoremWorld(**wrong)


def test_an_exhausted_source_is_an_error(monkeypatch):
    """A source that repeats itself cannot fill a split."""
    only = drafts("linear", 1)[0]
    monkeypatch.setitem(world.SOURCES, "linear", lambda draws: only)
    monkeypatch.setattr(world, "TRIES", 20)
    knobs = TheoremWorld(shares=(0, 0, 0, 1, 0, 0))
    with pytest.raises(world.DataError, match="linear"):
        splits(knobs, 0, TheoremSizes(train=2, development=0, test=0, novel=0))
