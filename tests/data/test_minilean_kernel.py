"""The kernel accepts what each rule allows and refuses its nearest misuse."""

import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.minilean import polynomials, syntax
from data.minilean.kernel import Proof, check
from data.minilean.parser import parse_formula, parse_statement, parse_term
from data.minilean.polynomials import Work
from data.minilean.syntax import INT, INT_TYPE, NAT, NAT_TYPE, Formula, Term, var
from data.minilean.wellformed import formula_fault, term_fault


def P(op, *args):
    return Proof(op, args)


def hyp(name):
    return P("hyp", name)


def verdict(text: str, proof: Proof):
    statement = parse_statement(f"theorem t {text}")
    return check(statement.binders, proof, statement.goal)


def linear(*items):
    return P("linear", items)


A_PROP = {"p": syntax.PROP}
TERM = parse_term("x + 1", INT, {"x": INT_TYPE})
X, Z = var("x", INT), var("z", INT)
H, K = hyp("h"), hyp("k")
NOT_P = P("intro", "a", P("apply", K, P("inl", hyp("a"))))
EXAMPLES = [
    # (statement, proof, a proof that is almost one)
    ("(p q : Prop) (h : p) : q → p", P("intro", "k", H), P("intro", "k", K)),
    ("(p : Prop) : ¬¬(p ∨ ¬p)",
     P("intro", "k", P("apply", K, P("inr", NOT_P))),
     P("intro", "k", P("apply", K, P("inl", NOT_P)))),
    ("(p q : Prop) (h : p ∧ q) : q ∧ p",
     P("pair", P("snd", H), P("fst", H)), P("pair", P("fst", H), P("snd", H))),
    ("(p q : Prop) (h : p ↔ q) (k : q) : p",
     P("apply", P("snd", H), K), P("apply", P("fst", H), K)),
    ("(p q : Prop) (h : p ∨ q) : q ∨ p",
     P("cases", H, "a", P("inr", hyp("a")), "b", P("inl", hyp("b"))),
     P("cases", H, "a", P("inl", hyp("a")), "b", P("inl", hyp("b")))),
    ("(p : Prop) (h : False) : p", P("absurd", H), H),
    (": True", P("true"), P("refl")),
    ("(P : ℤ → Prop) (h : ∀ x : ℤ, P x) (x : ℤ) : P (x + 1)",
     P("at", H, TERM), P("at", H, X)),
    ("(P : ℤ → Prop) (h : ∃ x : ℤ, P x) : ∃ y : ℤ, P y",
     P("unpack", H, "z", "k", P("witness", Z, K)),
     P("unpack", H, "z", "k", P("witness", X, K))),
    ("(P : ℤ → Prop) (x : ℤ) (h : P x) : ∃ y : ℤ, P y",
     P("witness", X, H), P("witness", TERM, H)),
    ("(x : ℤ) : x + 1 = x + 1", P("refl"), P("true")),
    ("(x : ℤ) : x + 1 = 1 + x", P("ring"), P("refl")),
    ("(x y : ℤ) (h : x = y) : y = x", P("symm", H), H),
    (": (2 : ℤ) * 3 < 7 ∧ ¬(1 : ℤ) = 2", P("norm_num"), P("true")),
    ("(p : Prop) : p ∨ ¬p",
     P("em", parse_formula("p", A_PROP)), P("em", parse_formula("¬p", A_PROP))),
    ("(x : ℤ) (h : x < 1) (k : x > 0) : False",
     linear((1, H), (1, K)), linear((1, H), (2, K))),
    ("(x : ℤ) (h : 2 * x ≤ 5) : x ≤ 2 ∨ True", P("inr", P("true")),
     P("inl", P("contra", "k", linear((1, H), (1, K))))),
    ("(x : ℤ) (h : 2 * x ≤ 4) : x ≤ 2",
     P("contra", "k", linear((1, H), (2, K))),
     P("contra", "k", linear((-1, H), (2, K)))),
    ("(x y : ℤ) (h : x ≤ y) (k : y ≤ x) : x = y",
     P("antisymm", H, K), P("antisymm", K, H)),
    ("(x : ℤ) : 0 ≤ (x + 1) ^ 2", P("square", TERM), P("square", X)),
    ("(n : ℕ) : 0 ≤ n", P("nonneg", var("n", NAT)), P("nonneg", X)),
]  # fmt: skip


@pytest.mark.parametrize("text, proof, wrong", EXAMPLES, ids=lambda e: str(e)[:30])
def test_each_rule_and_its_misuse(text, proof, wrong):
    found = verdict(text, proof)
    assert found.ok, found.detail
    assert found.axioms == (("Classical.em",) if proof.op == "em" else ())
    refused = verdict(text, wrong)
    assert not refused.ok and refused.detail


def test_rewriting_needs_the_motive_of_the_goal():
    """h : x = y turns P x into P y, by the motive P _, not by another."""
    text = "(P : ℤ → Prop) (x y : ℤ) (h : x = y) (k : P x) : P y"
    hole = syntax.prop("P", syntax.Term("bound", (0,), INT))
    assert verdict(text, P("rewrite", H, hole, K)).ok
    back = P("rewrite", P("symm", H), hole, K)
    assert not verdict(text, back).ok
    for motive in (syntax.prop("P", X), syntax.HOLE, syntax.TRUE):
        assert not verdict(text, P("rewrite", H, motive, K)).ok
    text = "(p q r : Prop) (h : p ↔ q) (k : p ∧ r) : q ∧ r"
    motive = syntax.conj(syntax.HOLE, syntax.prop("r"))
    assert verdict(text, P("rewrite", H, motive, K)).ok
    assert not verdict(text, P("rewrite", K, motive, K)).ok


def test_numbers_that_only_equal_integers_prove_nothing():
    """To Python 1e16 equals 10 ** 16, and 1e16 + 1 equals 1e16: a motive that says so
    is the goal by ==, and proves what is false. It is refused for what it is."""
    big, same = "1" + "0" * 16, syntax.Term("num", (1e16,), INT)
    text = f"(h : (0 : ℤ) = 0) : (({big} : ℤ) + 1 = {big}) ∧ True"
    one = syntax.num(1, INT)
    motive = syntax.conj(syntax.equals(syntax.add(same, one), same), syntax.TRUE)
    goal = parse_statement(f"theorem t {text}").goal
    assert motive == goal
    for part in (P("norm_num"), P("pair", P("ring"), P("true"))):
        assert not verdict(text, P("rewrite", H, motive, part)).ok


def test_induction_forgets_what_is_known_of_the_variable():
    """∀ n, s n = 0 by induction; not from a hypothesis about n itself."""
    text = (
        "(s : ℕ → ℕ) (a : s 0 = 0) (b : ∀ k : ℕ, s k = 0 → s (k + 1) = 0) (n : ℕ) "
        ": s n = 0"
    )
    step = P("apply", P("at", hyp("b"), var("m", NAT)), hyp("ih"))
    assert verdict(text, P("induct", "n", "m", "ih", hyp("a"), step)).ok
    again = P("apply", P("at", hyp("b"), var("n", NAT)), hyp("ih"))
    assert verdict(text, P("induct", "n", "n", "ih", hyp("a"), again)).ok
    assert not verdict(text, P("induct", "n", "m", "ih", hyp("a"), hyp("ih"))).ok
    assert not verdict(text, P("induct", "n", "s", "ih", hyp("a"), step)).ok
    # n = 0 says nothing of another n: its hypothesis is gone in both cases
    text = "(n : ℕ) (h : n = 0) : n = 0"
    assert not verdict(text, P("induct", "n", "m", "ih", P("refl"), H)).ok
    assert not verdict(text, P("induct", "n", "n", "ih", P("refl"), H)).ok


def test_products_of_comparisons_follow():
    """(b - a)(d - c) is not negative, without subtraction; nor with one side turned."""
    text = "(a b c d : ℤ) (h : a ≤ b) (k : c < d) : a * d + b * c ≤ b * d + a * c"
    assert verdict(text, P("product", H, K)).ok
    assert not verdict(text, P("product", K, H)).ok
    strict = text.replace("≤ b *", "< b *")
    assert not verdict(strict, P("product", H, K)).ok
    both = strict.replace("a ≤ b", "a < b")
    assert verdict(both, P("product", H, K)).ok


def test_a_variable_is_never_hidden():
    """P y for a new y only: a name that formulas speak of is refused."""
    text = "(P : ℤ → Prop) (x : ℤ) (h : ∃ y : ℤ, P y) : P x"
    assert not verdict(text, P("unpack", H, "x", "k", K)).ok
    assert not verdict(text, P("unpack", H, "P", "k", K)).ok
    assert not verdict(text, P("have", "x", None, H, H)).ok
    free = "(P : ℤ → Prop) (x : ℤ) (h : P x) : ∀ y : ℤ, P y"
    assert not verdict(free, P("intro", "x", H)).ok


@pytest.mark.parametrize(
    "proof",
    [None, (), "hyp", P("hyp"), P("hyp", []), P("hyp", "x"), P("no"), P("hyp", None),
     P("absurd", P("absurd", 3)), P("intro", 3, P("true")), P("have", "k", 3, 4, 5),
     linear(), P("linear", ((float("nan"), H),)), P("em", None), Proof("hyp", "h"),
     P("have", "k", syntax.prop("z"), H, K),
     P("have", "k", syntax.Formula("¬", ()), H, K),
     P("have", "k", syntax.Formula("∀", ("k", INT, "x")), H, K)],
)  # fmt: skip
def test_malformed_terms_are_refused(proof):
    assert not verdict("(p : Prop) (x : ℤ) (h : x = x) : p", proof).ok


@pytest.mark.parametrize(
    "scale",
    [Fraction(1), 1.0, True, "1", "1e10000000", 10**1000 + 1, 1 << 20_000, None],
    ids=lambda s: f"{type(s).__name__}-{str(s)[:6] if type(s) is not int else ''}",
)
def test_multipliers_are_integers_of_a_limited_size(scale):
    """Nothing that would have to be converted, rounded, or multiplied for minutes."""
    text = "(x : ℤ) (h : x < 0) (k : 0 < x) : False"
    assert verdict(text, linear((1, H), (1, K))).ok
    assert verdict(text, linear((10**1000, H), (10**1000, K))).ok
    assert "multiplier" in verdict(text, linear((scale, H), (scale, K))).detail


def test_a_sum_of_facts_costs_what_adding_it_up_does():
    """x ≤ 0 for n variables, 0 ≤ x for all of them, 1 < 1: n terms grow and go again,
    at n ** 2 in all, beside n for the reading."""
    zero, one = syntax.num(0, INT), syntax.num(1, INT)
    for n, ok in ((300, True), (800, False)):
        variables = [var(f"x{i}", INT) for i in range(n)]
        binders = [(x.args[0], INT_TYPE) for x in variables]
        facts = [syntax.relation("≤", x, zero) for x in variables]
        facts += [syntax.relation("≤", zero, x) for x in variables]
        facts.append(syntax.relation("<", one, one))
        binders += [(f"h{i}", fact) for i, fact in enumerate(facts)]
        proof = linear(*((1, hyp(f"h{i}")) for i in range(len(facts))))
        found = check(binders, proof, syntax.FALSE)
        assert found.ok == ok and ("work" in found.detail) != ok


def test_what_is_nested_without_end_is_refused():
    """In the place of every name, sort, rule and formula; in a process of its own, for
    what goes as deep as its argument ends the process."""
    folder = Path(__file__).parents[1]
    path = os.pathsep.join((str(folder.parent), str(folder)))
    done = subprocess.run(
        [sys.executable, "-m", "helpers.minilean_malformed"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr[-400:]
    count, refused = map(int, done.stdout.split()[-2:])
    assert count == refused > 30


def test_depth_and_size_are_limited():
    """A term too deep, a formula too large and a power too high are refused."""
    deep = hyp("h")
    for _ in range(3000):
        deep = P("have", "k", None, H, deep)
    assert not verdict("(p : Prop) (h : p) : p", deep).ok
    formula = syntax.prop("p")
    for _ in range(90):
        formula = syntax.negate(formula)
    binders = (syntax.Binder("p", syntax.PROP), syntax.Binder("h", formula))
    assert not check(binders, hyp("h"), formula).ok
    assert not verdict("(x y : ℤ) : (x + y) ^ 61 = (y + x) ^ 61", P("ring")).ok
    assert not verdict(": (9 : ℕ) ^ 60 ^ 60 = 1", P("norm_num")).ok


def test_ill_formed_contexts_are_refused():
    h = syntax.Binder("h", syntax.prop("p"))
    assert not check((h,), hyp("h"), syntax.prop("p")).ok
    p = syntax.Binder("p", syntax.PROP)
    assert check((p, h), hyp("h"), syntax.prop("p")).ok
    assert not check((p, p, h), hyp("h"), syntax.prop("p")).ok


P_PROP, N, ONE_INT = syntax.prop("p"), var("n", NAT), syntax.num(1, INT)
LOOSE = Term("bound", (0,), INT)


@pytest.mark.parametrize(
    "node",
    [Formula("∧", (P_PROP,)), Formula("∧", (P_PROP, X)), Formula("¬", (X,)),
     Formula("∧", (P_PROP, ("prop", ("p",)))), Formula("prop", ("p", X)),
     syntax.prop("x"), syntax.prop("no"), syntax.prop("P"), syntax.prop("P", N),
     syntax.prop("P", P_PROP), syntax.prop("P", X, X), syntax.equals(X, N),
     Formula("=", (X,)), Formula("=", (X, P_PROP)), Formula("True", (1,)),
     Formula("∀", ("x", "Prop", P_PROP)), Formula("∃", ("x", INT, X)),
     syntax.prop("P", LOOSE), syntax.forall("k", NAT, syntax.prop("P", LOOSE)),
     Formula("no", ()), var("y", INT), var("x", NAT), var("P", INT), LOOSE,
     Term("num", (True,), INT), Term("num", (1.0,), INT), Term("num", (-1,), INT),
     Term("num", (10**60,), INT), Term("-", (N, N), NAT), Term("neg", (N,), NAT),
     Term("+", (X, N), INT), Term("^", (X, X), INT), Term("^", (X, N), "Prop"),
     Term("%", (X, X), INT), Term("+", (X,), INT), Term("app", ("x", X), INT),
     Term("*", (X, P_PROP), INT), None, "p", ("prop", ("p",))],
)  # fmt: skip
def test_ill_formed_nodes_are_found_wherever_they_are(node):
    """Alone, below a connective, below a quantifier, and as part of a term."""
    scope = {"p": syntax.PROP, "x": INT_TYPE, "n": NAT_TYPE, "h": P_PROP,
             "P": syntax.Signature((INT,), "Prop")}  # fmt: skip
    assert formula_fault(syntax.prop("P", X), scope) is None
    assert formula_fault(node, scope) and term_fault(node, scope)
    places = [Formula("→", (P_PROP, node)), Formula("∀", ("k", NAT, node)),
              Formula("=", (Term("+", (ONE_INT, node), INT), X))]  # fmt: skip
    for formula in places:
        assert formula_fault(formula, scope), formula


# Polynomials


def term_of(rng: random.Random, size: int, sort: str = INT):
    """A random term over x y (ℤ) or n (ℕ)."""
    if size == 0:
        names = "xy" if sort == INT else "n"
        if rng.random() < 0.5:
            return syntax.num(rng.randint(0, 5), sort)
        return var(rng.choice(names), sort)
    op = rng.choice("+*-^~")
    if op == "^":
        return syntax.power(term_of(rng, size - 1, sort), rng.randint(0, 3))
    if op in "-~" and sort == NAT:
        op = "+"
    if op == "~":
        return syntax.neg(term_of(rng, size - 1, sort))
    left = rng.randrange(size)
    parts = term_of(rng, left, sort), term_of(rng, size - 1 - left, sort)
    return syntax.Term(op, parts, sort)


def value(term, model):
    """Evaluated by Python, part by part."""
    op, args, _ = term
    if op in ("num", "var"):
        return args[0] if op == "num" else model[args[0]]
    parts = [value(part, model) for part in args]
    if op == "neg":
        return -parts[0]
    a, b = parts
    return {"+": a + b, "-": a - b, "*": a * b, "^": a**b if op == "^" else 0}[op]


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_polynomials_have_the_values_of_their_terms(seed):
    """At random points; so equal normal forms mean equal numbers."""
    rng = random.Random(seed)
    term = term_of(rng, rng.randint(0, 6), rng.choice([INT, NAT]))
    try:
        found = polynomials.polynomial(term, Work(20_000))
    except ValueError:
        return
    model = {"x": rng.randint(-9, 9), "y": rng.randint(-9, 9), "n": rng.randint(0, 9)}
    total = 0
    for monomial, coefficient in found.items():
        for atom, exponent in monomial:
            coefficient *= value(atom, model) ** exponent
        total += coefficient
    assert total == value(term, model)
    assert all(found.values())


@pytest.mark.parametrize(
    "left, right, same",
    [("(x + y) ^ 2", "x ^ 2 + 2 * x * y + y ^ 2", True), ("x - x", "0", True),
     ("(x - y) * (x + y)", "x ^ 2 - y ^ 2", True), ("x ^ 0", "1", True),
     ("x * y", "x + y", False), ("x ^ (n + 2)", "x * x ^ n * x", True),
     ("x ^ (n + n)", "x ^ n * x ^ n", False), ("-(-x)", "x", True)],
)  # fmt: skip
def test_normal_forms_of_known_identities(left, right, same):
    scope = {"x": INT_TYPE, "y": INT_TYPE, "n": NAT_TYPE}
    sides = (parse_term(text, INT, scope) for text in (left, right))
    assert (polynomials.difference(*sides, Work(10_000)) == {}) == same
