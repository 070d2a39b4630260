"""Texts and trees are one: what is printed is read back, and is what Lean prints."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.minilean import parser, printer, syntax
from data.minilean.parser import ParseError, parse_formula, parse_statement, parse_term
from data.minilean.printer import show_formula, show_goal, show_statement
from data.minilean.syntax import INT, NAT, PROP, Binder, Formula, Signature
from data.minilean.wellformed import formula_fault

SCOPE = {
    "p": PROP,
    "q": PROP,
    "r'": PROP,
    "P": Signature((NAT,), "Prop"),
    "R": Signature((NAT, INT), "Prop"),
    "x": syntax.INT_TYPE,
    "y₁": syntax.INT_TYPE,
    "n": syntax.NAT_TYPE,
    "μ": syntax.NAT_TYPE,
    "f": Signature((NAT,), NAT),
    "g": Signature((INT, NAT), INT),
}
BOUND_NAMES = ("n", "x", "k", "k_1")


@functools.cache
def terms(sort: str, size: int = 4):
    names = {INT: ("x", "y₁"), NAT: ("n", "μ")}[sort]
    leaves = st.one_of(
        st.sampled_from(names).map(lambda name: syntax.var(name, sort)),
        st.integers(0, 12).map(lambda value: syntax.num(value, sort)),
    )

    def larger(inner):
        binary = [syntax.add, syntax.mul]
        unary = [lambda a: syntax.power(a, 3)]
        if sort == INT:
            n = syntax.var("n", NAT)
            binary.append(syntax.sub)
            unary += [syntax.neg, lambda a: syntax.apply("g", INT, a, n)]
            unary.append(lambda a: syntax.power(a, syntax.add(n, n)))
        else:
            binary.append(syntax.power)
            unary.append(lambda a: syntax.apply("f", NAT, a))
        return st.one_of(
            st.builds(lambda op, a, b: op(a, b), st.sampled_from(binary), inner, inner),
            st.builds(lambda op, a: op(a), st.sampled_from(unary), inner),
        )

    return st.recursive(leaves, larger, max_leaves=size)


def relations():
    def of(sort):
        return st.builds(
            syntax.relation,
            st.sampled_from(syntax.RELATIONS),
            terms(sort),
            terms(sort),
        )

    return st.one_of(of(INT), of(NAT))


def quantified(inner):
    """∀ and ∃ over a variable of the formula, under any name; ∀ only if it occurs."""

    def build(formula, op, name, old):
        sort = INT if old in ("x", "y₁") else NAT
        if op == "∀" and old not in syntax.free_names(formula):
            op = "∃"
        body = syntax.abstract(formula, old)
        return Formula(op, (name, sort, body))

    return st.builds(
        build,
        inner,
        st.sampled_from("∀∃"),
        st.sampled_from(BOUND_NAMES),
        st.sampled_from(["x", "y₁", "n", "μ"]),
    )


leaves = st.one_of(
    st.sampled_from("pq").map(syntax.prop),
    st.just(syntax.TRUE),
    st.just(syntax.FALSE),
    terms(NAT, 2).map(lambda t: syntax.prop("P", t)),
    st.builds(lambda a, b: syntax.prop("R", a, b), terms(NAT, 2), terms(INT, 2)),
    relations(),
)
formulas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda op, a, b: Formula(op, (a, b)),
            st.sampled_from(syntax.CONNECTIVES),
            inner,
            inner,
        ),
        inner.map(syntax.negate),
        quantified(inner),
    ),
    max_leaves=8,
)


@settings(max_examples=400)
@given(formulas)
def test_formulas_are_read_back(formula):
    """The same up to the names of bound variables, and the same text once more."""
    text = show_formula(formula, typed=True)
    back = parse_formula(text, SCOPE)
    assert syntax.normal(back) == syntax.normal(formula)
    assert show_formula(back, typed=True) == text
    assert formula_fault(formula, SCOPE) is None
    assert show_formula(back) == show_formula(formula)


@settings(max_examples=200)
@given(st.sampled_from([INT, NAT]), st.data())
def test_terms_are_read_back(sort, data):
    term = data.draw(terms(sort))
    assert parse_term(printer.show_term(term), sort, SCOPE) == term


@settings(max_examples=100)
@given(st.lists(formulas, max_size=3), formulas)
def test_statements_are_read_back(hypotheses, goal):
    binders = [Binder(name, kind) for name, kind in SCOPE.items()]
    binders += [Binder(f"h{i}", formula) for i, formula in enumerate(hypotheses)]
    text = show_statement(syntax.Statement("t", tuple(binders), goal))
    back = parse_statement(text)
    assert show_statement(back) == text
    assert parse_statement(text.removesuffix(" := by")) == back


@settings(max_examples=200)
@given(formulas, st.sampled_from(["x", "n"]), st.data())
def test_binding_undoes_instantiating(formula, name, data):
    """abstract then instantiate is substitution, for closed terms and for the name."""
    sort = SCOPE[name].result
    term = data.draw(terms(sort, 2))
    body = syntax.abstract(formula, name)
    assert syntax.instantiate(body, syntax.var(name, sort)) == formula
    assert syntax.instantiate(body, term) == syntax.substitute(formula, name, term)
    assert name not in syntax.free_names(body)


@settings(max_examples=150)
@given(
    st.text(alphabet="pq PRxnfg()⟨⟩∀∃λ¬∧∨→↔=≠<≤+-*^:,0123456789ℕℤ'₁αh.", max_size=40)
)
def test_any_text_is_read_or_refused(text):
    """Never another exception; what is read is well formed."""
    try:
        formula = parse_formula(text, SCOPE)
    except ParseError:
        return
    assert formula_fault(formula, SCOPE) is None


# How Lean 4 with Mathlib reads and prints: text, and its goal view if that differs.
AS_LEAN_PRINTS = [
    ("p → q → r'", None),
    ("(p → q) → r'", None),
    ("(p ∧ q) ∧ p ∨ q", None),
    ("¬(p ∧ ¬¬q)", None),
    ("¬p ∧ q ↔ p", None),
    ("¬x = y₁", None),
    ("x ≠ -3", None),
    ("-x ^ 2 = (-x) ^ 2", None),
    ("x - (y₁ - 1) - 1 = x * -y₁", None),
    ("- -x = x", None),
    ("(x ^ 2) ^ n = x ^ (2 * n)", None),
    ("f (n + 1) = f n + f (f 0)", None),
    ("P n ∧ R 0 (-1)", None),
    ("(2 : ℤ) + 2 = 4", "2 + 2 = 4"),
    ("2 + 2 = 4", None),
    ("∀ (k : ℕ), P k → P (k + 1)", None),
    ("∀ (k l : ℕ) (z : ℤ), R (k + l) z", None),
    ("∃ k : ℕ, ∃ l : ℕ, k + l = 2", "∃ k l, k + l = 2"),
    ("(∀ (k : ℕ), P k) ∧ p", None),
    ("p ∧ ∀ (k : ℕ), P k", None),
    ("(p ∧ ∀ (k : ℕ), P k) → q", None),
    ("(¬∀ (k : ℕ), P k) ↔ p", None),
    ("¬∃ k : ℤ, k * k = 2", "¬∃ k, k * k = 2"),
    ("∀ (k : ℕ), k > 0 → P k", "∀ k > 0, P k"),
    ("∃ k : ℤ, k ≤ x ∧ k = y₁", "∃ k ≤ x, k = y₁"),
    ("∀ (l k : ℕ), k < l → P k", "∀ (l : ℕ), ∀ k < l, P k"),
]


@pytest.mark.parametrize("text, shown", AS_LEAN_PRINTS)
def test_printing_is_leans(text, shown):
    formula = parse_formula(text, SCOPE)
    assert show_formula(formula) == (shown or text)
    assert parse_formula(show_formula(formula, typed=True), SCOPE) == formula


def test_precedences_are_leans():
    """Fully parenthesised texts mean the same."""
    for text, parenthesised in [
        ("p ∧ q ∨ r' → p ↔ q", "(((p ∧ q) ∨ r') → p) ↔ q"),
        ("¬x = 1 ∨ p", "(¬(x = 1)) ∨ p"),
        ("x - y₁ + x * y₁ ^ 2 ^ n < 0", "((x - y₁) + (x * (y₁ ^ (2 ^ n)))) < 0"),
        ("-x * y₁ = -(x ^ 2)", "((-x) * y₁) = (-(x ^ 2))"),
        ("∀ k > n, P k → p", "∀ k : ℕ, ((k > n) → ((P k) → p))"),
        ("∃ k : ℕ, P k ∧ p", "∃ k : ℕ, ((P k) ∧ p)"),
    ]:
        assert parse_formula(text, SCOPE) == parse_formula(parenthesised, SCOPE)


@pytest.mark.parametrize(
    "text",
    ["p ↔ q ↔ p", "x = x = x", "n - 1 = 0", "-n = 0", "x = n", "x ^ x = 1", "p + 1 = 2",
     "p q", "P", "P x", "f n", "∀ k, P k", "∀ k : ℕ, p", "∃ k : ℝ, p", "x / 2 = 1",
     "n = 1 ∧", "(p", "p)", "∀ (k : ℕ) P k", "∃ k < k, p", "sorry", "theorem", "z = 1",
     "x = 1 :", "h.1", "fun x", "∀ p : Prop, p", "¬", "x ≤ y₁ ≤ x", "f -n = 0",
     "2x = 1", "9" * 70 + " = x", "¬" * 70 + "p", "p ∧ " * 90 + "p", "#p", "p -- q",
     "λ", "f 0x1 = n", "f 1e5 = n", "f 1_0 = n", "f 1.5 = n", "f 2n = n"],
)  # fmt: skip
def test_what_is_outside_the_subset_is_refused(text):
    with pytest.raises(ParseError):
        parse_formula(text, SCOPE)


@pytest.mark.parametrize(
    "text",
    ["", "theorem", "lemma t : True := by", "theorem t (p : Prop) (p : Prop) : p := by",
     "theorem t (p : Prop) : p := by exact", "theorem t (h : p) : p := by",
     "theorem t (p : Type) : True := by", "theorem t (P : Prop → Prop) : True := by",
     "theorem by : True := by", "theorem t : True := rfl",
     "theorem t (x : ℤ) : x := by",
     "theorem t (f : ℕ → ℕ → ℕ) (x1 : ℕ) : f 0x1 = 0",
     f"theorem t (x : ℤ) : {'x + ' * 1900}x = 0 := by",
     f"theorem t (x : ℤ) (h : {'x + ' * 1900}x = 0) : True := by"],
)  # fmt: skip
def test_broken_statements_are_refused(text):
    with pytest.raises(ParseError):
        parse_statement(text)


def test_hypotheses_are_grouped_and_tagged_as_in_goals():
    statement = parse_statement(
        "theorem t (p q : Prop) (a b : p) (c : q) (x : ℤ) (f : ℕ → ℕ) : p := by"
    )
    assert show_goal(statement.binders, statement.goal, "inl.left") == (
        "case inl.left\np q : Prop\na b : p\nc : q\nx : ℤ\nf : ℕ → ℕ\n⊢ p"
    )
    assert printer.show_goals([]) == "no goals"
    assert printer.show_goals(["a", "b"]) == "a\n\nb"


def test_a_bound_name_that_is_taken_is_printed_anew():
    """∃ n, n = (the other n) cannot print both as n."""
    n = syntax.var("n", NAT)
    body = syntax.abstract(syntax.equals(syntax.var("k", NAT), n), "k")
    formula = Formula("∃", ("n", NAT, body))
    assert show_formula(formula) == "∃ n_1, n_1 = n"
    again = parse_formula(show_formula(formula, typed=True), SCOPE)
    assert syntax.normal(again) == syntax.normal(formula)


def test_renaming_reaches_every_name():
    formula = parse_formula("∀ k : ℕ, P (f k) ∧ p → R k x", SCOPE)
    names = {"P": "Q", "f": "g", "p": "s", "R": "T", "x": "y"}
    assert syntax.free_names(syntax.rename(formula, names)) == set(names.values())
    assert parser.is_name("h₁'") and not parser.is_name("by")
