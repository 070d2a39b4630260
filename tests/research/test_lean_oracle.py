"""The rule-based oracle says what is there, never the tactic, and always the same."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.minilean.parser import parse_formula
from data.minilean.printer import show_formula
from data.minilean.script import _ARGUMENTS as TACTICS
from data.minilean.syntax import PROP
from data.worlds.propositions import text
from data.worlds.theorems import TheoremSizes, TheoremWorld, pairs, splits
from data.worlds.theorems_words import LETTERS
from research.lean_star import rules
from research.lean_star.oracle import (
    MAX_TOKENS,
    RuleOracle,
    filler,
    keeps,
    shuffled,
    thought,
    tokens,
    wordings,
)
from research.lean_star.reading import Goal, first_goal, premises, shape
from research.lean_star.retrospect import refused
from research.lean_star.rules import RULES
from research.lean_star.vocabulary import tokenizer
from research.lean_star.wordings import TEMPLATES, words

SIZES = TheoremSizes(train=244, development=0, test=0, novel=61)


@pytest.fixture(scope="module")
def steps():
    drawn = splits(TheoremWorld(), 5, SIZES)
    return pairs(drawn.train + drawn.novel)


def test_every_step_has_a_thought_that_passes_the_filters(steps):
    """Short, from the goal, without the tactic or a tactic's name; always the same."""
    names = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, TACTICS))})(?!\w)")
    thoughts = RuleOracle()(steps)
    for (state, tactic), said in zip(steps, thoughts, strict=True):
        assert said is not None, (state, tactic)
        assert said.startswith("The goal")
        assert refused(said, tactic) is None and keeps(said, tactic)
        assert not names.search(said), said
        assert tokens(said) <= MAX_TOKENS
        assert 1 <= len(re.findall(r"\.( |$)", said)) <= 2
    assert thoughts == [thought(*step) for step in steps]


def test_no_step_of_the_world_is_without_a_rule(steps):
    """The case "unknown" is for what only a model would write."""
    for state, tactic in steps:
        options = wordings(first_goal(state), tactic)
        assert not options[-1].endswith("One step brings it closer."), (state, tactic)


def test_thoughts_have_no_hindsight_of_names(steps):
    """A name that the tactic makes is not in the thought: it is not there yet."""
    name, no_names = re.compile(r"[A-Za-z_][\w']*"), {"at", "by", "with", *TACTICS}
    seen = 0
    for state, tactic in steps:
        made = set(name.findall(tactic)) - set(name.findall(state)) - no_names
        seen += bool(made)
        assert not made & set(name.findall(thought(state, tactic)))
    assert seen > len(steps) / 5


def test_wordings_vary(steps):
    """Of every case with several wordings, more than one occurs."""
    seen = defaultdict(set)
    for state, tactic in steps:
        options = [w for w in wordings(first_goal(state), tactic) if keeps(w, tactic)]
        seen[tactic.split(" ")[0]].add(options.index(thought(state, tactic)))
    often = [head for head, found in seen.items() if len(found) == 3]
    assert len(often) >= 12, seen


STATE = "p q r : Prop\nh1 : p → q → r\nh2 : p\nh3 : ¬q\nh4 : q ∨ r\n⊢ {}"


@pytest.mark.parametrize(
    ("target", "tactic", "facts"),
    [
        ("r", "apply h1", ["The goal is r", "h1", "p and q"]),
        ("p", "exact h2", ["h2"]),
        ("p ∧ r", "constructor", ["p", "r"]),
        ("q ∨ p", "right", ["p", "second", "h2"]),
        ("p ∨ q", "left", ["p", "first", "h2"]),
        ("r", "rcases h4 with h5 | h6", ["h4", "q", "r"]),
        ("q → r", "intro h5", ["q", "r"]),
        ("¬r", "intro h5", ["r"]),
        ("False", "apply h3", ["h3", "q"]),
    ],
)
def test_thoughts_name_the_facts(target, tactic, facts):
    """Every wording of a choice says on what it rests, or what remains."""
    options = wordings(first_goal(STATE.format(target)), tactic)
    for fact in facts:
        said = sum(bool(re.search(rf"(?<!\w){fact}(?!\w)", o)) for o in options)
        assert said >= len(options) - 1, (fact, options)


def test_states_without_a_goal_have_no_thought():
    assert thought("no goals", "exact h1") is None
    assert RuleOracle()([("no goals", "rfl")]) == [None]
    with pytest.raises(ValueError, match="⊢"):
        first_goal("no goals")


def test_filters():
    """A thought that has the tactic in it, is too long, or is for two lines is out."""
    assert keeps("The goal is p.", "exact h1")
    assert not keeps("The goal is p, so exact h1.", "exact h1")
    assert not keeps("The goal is to take the left part.", "left")
    assert not keeps("The goal is p. " * 9, "exact h1")
    assert not keeps("The goal is p.", "constructor\nexact h1")


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_shuffled_thoughts_are_all_of_another_step(n, seed):
    """A permutation without a fixed point, the same for the same seed."""
    thoughts = [f"thought {i}" for i in range(n)]
    moved = shuffled(thoughts, seed)
    assert sorted(moved) == sorted(thoughts)
    assert all(a != b for a, b in zip(moved, thoughts, strict=True))
    assert moved == shuffled(thoughts, seed)


def test_one_thought_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2"):
        shuffled(["alone"], 0)


def test_filler_is_as_long_as_the_thought(steps):
    """In tokens; it consists of one word only."""
    for state, tactic in steps[:100]:
        said = thought(state, tactic)
        assert tokens(filler(said)) == tokens(said)
        assert set(filler(said).split()) == {"so"}


def test_the_vocabulary_is_enough(steps):
    """States, tactics, thoughts and prompts come back from the tokenizer unchanged."""
    words_, unknown = tokenizer(), tokenizer().special["<unk>"]
    for state, tactic in steps:
        said = thought(state, tactic)
        prompt = f"Tactic state:\n---\n{state}\n---\nReasoning:\n---\n"
        answer = f"{said}\n---\nNext tactic:\n---\n```lean4\n{tactic}\n```\n---"
        ids = words_.encode(prompt + answer)
        assert unknown not in ids and words_.decode(ids) == prompt + answer
    # The words of thoughts do not cut states and tactics in another way.
    assert not set(words()) & set(LETTERS)
    assert all(len(word.strip()) > 1 or not word.strip().isalpha() for word in words())


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(RULES)),
    st.text(alphabet="h12 ⟨⟩[](),:=|←?_-+xk\n", max_size=12),
    st.sampled_from(
        ["p ∧ ¬q", "∃ k, k = 2", "∀ (n : ℕ), P n", "x = 1 ∨ p", "", "∃", "→"]
    ),
)
def test_any_text_has_a_thought_or_none(head, rest, target):
    """What only a model would write raises nothing; what is said passes the filter."""
    state, tactic = f"p q : Prop\nh1 : p → q\nh2 : x = 1\n⊢ {target}", head + rest
    said = thought(state, tactic)
    assert said is None or keeps(said, tactic)


def test_every_template_is_used():
    """Each case is named by a rule; its wordings differ."""
    source = Path(rules.__file__).read_text()
    for case, options in TEMPLATES.items():
        assert f'"{case}"' in source
        assert len(set(options)) == len(options) >= 2


formulas = st.recursive(
    st.sampled_from("pqr"),
    lambda part: st.one_of(
        st.tuples(st.just("¬"), part),
        st.tuples(st.sampled_from("→∧∨↔"), part, part),
    ),
    max_leaves=7,
)
SCOPE = dict.fromkeys("pqr", PROP)


@settings(max_examples=200, deadline=None)
@given(formulas)
def test_shapes_agree_with_the_parser(formula):
    """Operator and parts that are read from text are those of the parsed formula."""
    known = parse_formula(text(formula), SCOPE)
    found = shape(show_formula(known))
    if known.op == "prop":
        assert found.op == "" and found.parts == (known.args[0],)
    else:
        assert found.op == known.op
        parts = tuple(parse_formula(part, SCOPE) for part in found.parts)
        assert parts == known.args


def test_shapes_of_quantifiers_and_relations():
    """What stands behind a quantifier belongs to it; a relation has two sides."""
    assert shape("¬a + 1 ≤ b") == ("¬", ("a + 1 ≤ b",))
    assert shape("p → ∃ k, a = 2 * k ∧ p").op == "→"
    assert shape("∀ (n : ℕ), P n → P (n + 1)") == ("∀", ("(n : ℕ)", "P n → P (n + 1)"))
    assert shape("(a + b) ^ 2 ≤ c * (d - 1)") == ("≤", ("(a + b) ^ 2", "c * (d - 1)"))
    assert premises("∀ (n : ℕ), P n → ¬Q n") == (["P n", "Q n"], "False")
    assert premises("p → q → r ∧ p") == (["p", "q"], "r ∧ p")


def test_goals_are_read_from_states():
    """The first goal's hypotheses by name, variables left out, and its target."""
    state = (
        "case left.mp\np q : Prop\nf : ℤ → ℤ\nP : ℕ → Prop\na b : ℤ\n"
        "h1 h2 : p → q\nih : f a = 2\n⊢ p ∧ q\n\np : Prop\n⊢ p"
    )
    hypotheses = {"h1": "p → q", "h2": "p → q", "ih": "f a = 2"}
    assert first_goal(state) == Goal(hypotheses, "p ∧ q")
