"""Reads the strict subset of Lean 4: terms, formulas, statements.

Precedences are Lean's own: ↔ 20, → 25, ∨ 30, ∧ 35, relations 50, + - 65, * 70,
^ 75, application above all; ¬ takes an argument of 40 or more, prefix - one of 75.
Numerals take the sort of what stands beside them, ℕ where nothing has one, as in Lean.
Left out, and refused: subtraction on ℕ, division, casts, mixed sorts, binders without
a type, a ∀ whose variable does not occur (Lean prints those as arrows), numerals that
go on (0x1, 1e5, 1.5: elsewhere they would be a numeral and a name).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from data.minilean import syntax
from data.minilean.syntax import (
    INT,
    NAT,
    PROP,
    Binder,
    Formula,
    Signature,
    Statement,
    Term,
)

MAX_TEXT = 8000
MAX_NESTING = 60
SORTS = {"ℕ": NAT, "Nat": NAT, "ℤ": INT, "Int": INT}
# op: (precedence, least precedence of what stands left of it, and right of it)
INFIX = {
    "↔": (20, 21, 21),
    "→": (25, 26, 25),
    "∨": (30, 31, 30),
    "∧": (35, 36, 35),
    **{op: (50, 51, 51) for op in syntax.RELATIONS},
    "+": (65, 65, 66),
    "-": (65, 65, 66),
    "*": (70, 70, 71),
    "^": (75, 76, 75),
}
MAX_PRECEDENCE = 1024
RESERVED = frozenset(
    "theorem lemma example def axiom by at with fun have show let in if then else do "
    "match from forall exists Prop Type Sort True False Nat Int sorry admit using "
    "open import end where and or not only intro calc suffices this rfl _ abbrev "
    "attribute catch class decreasing_by deriving export extends finally for "
    "generalizing hiding include inductive infix infixl infixr initialize instance "
    "local macro matches mut mutual namespace nofun nomatch noncomputable notation "
    "omit opaque partial postfix prefix private protected renaming return scoped "
    "section set_option structure syntax termination_by try universe unless unsafe "
    "variable".split()
)
GREEK = "αβγδεζηθικμνξοπρστυφχψω"  # but for λ, as in Lean
NAME = rf"[A-Za-z_{GREEK}][A-Za-z0-9_'₀-₉{GREEK}]*"
TOKEN = re.compile(
    rf"(?P<space> +)|(?P<name>{NAME}(?:\.{NAME})*)|(?P<number>[0-9]+(?![\w.]))"
    r"|(?P<symbol>:=|\?_|\.[12](?![0-9A-Za-z_])|[()⟨⟩\[\],:|←↔→∨∧¬=≠<≤>≥+\-*^∀∃ℕℤ])"
)
IS_NAME = re.compile(NAME)


class ParseError(ValueError):
    """Text that is not in the subset; the message says what was expected where."""


class Token(NamedTuple):
    """kind: name, number, symbol or end; text; where it starts."""

    kind: str
    text: str
    start: int


def is_name(text: str) -> bool:
    """text can name a variable or a hypothesis (dots and reserved words cannot)."""
    return IS_NAME.fullmatch(text) is not None and text not in RESERVED


def tokens(text: str) -> list[Token]:
    """The tokens of text, and one of kind "end". Raises ParseError."""
    if len(text) > MAX_TEXT:
        raise ParseError(f"longer than {MAX_TEXT} characters")
    found, at = [], 0
    for match in TOKEN.finditer(text):
        if match.start() != at:
            break
        at = match.end()
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup, match.group(), match.start()))
    if at != len(text):
        raise ParseError(f"unexpected {text[at]!r} at {at}")
    found.append(Token("end", "", at))
    return found


class Reader:
    """A position in a list of tokens; `raw` reads an expression to nested tuples."""

    def __init__(self, text: str):
        self.tokens = tokens(text)
        self.at = 0
        self.nesting = 0

    @property
    def text(self) -> str:
        return self.tokens[self.at].text

    def fail(self, expected: str):
        token = self.tokens[self.at]
        raise ParseError(f"expected {expected} at {token.start}, found {token.text!r}")

    def accept(self, text: str) -> bool:
        if self.text == text and self.tokens[self.at].kind != "end":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(repr(text))

    def end(self) -> None:
        if self.tokens[self.at].kind != "end":
            self.fail("the end")

    def name(self) -> str:
        """A name that may be bound."""
        if self.tokens[self.at].kind != "name" or not is_name(self.text):
            self.fail("a name")
        self.at += 1
        return self.tokens[self.at - 1].text

    def names(self) -> list[str]:
        found = [self.name()]
        while self.tokens[self.at].kind == "name" and is_name(self.text):
            found.append(self.name())
        return found

    def sort(self) -> str:
        if self.text not in SORTS:
            self.fail("ℕ or ℤ")
        self.at += 1
        return SORTS[self.tokens[self.at - 1].text]

    # Expressions: (op, ...) tuples, not yet known to be terms or formulas.

    def raw(self, least: int = 0) -> tuple:
        """An expression of precedence `least` or more."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise ParseError(f"nested more than {MAX_NESTING} deep")
        left, level = self._prefix(least)
        while True:
            op = self.text
            if op not in INFIX:
                break
            precedence, left_least, right_least = INFIX[op]
            if precedence < least or level < left_least:
                break
            self.at += 1
            left, level = (op, left, self.raw(right_least)), precedence
        self.nesting -= 1
        return left

    def _prefix(self, least: int) -> tuple[tuple, int]:
        """(expression, its precedence) that starts here, infixes aside."""
        if self.accept("¬"):
            return ("¬", self.raw(40)), MAX_PRECEDENCE
        if self.text == "-" and least <= 75:
            self.at += 1
            return ("neg", self.raw(75)), 75
        if self.text in syntax.QUANTIFIERS:
            return self._quantifier(), 0
        token = self.tokens[self.at]
        if token.kind == "name" and (is_name(token.text) or token.text in LITERALS):
            self.at += 1
            args = []
            while self._starts_atom():
                args.append(self._atom())
            return ("name", token.text, *args), MAX_PRECEDENCE - (1 if args else 0)
        return self._atom(), MAX_PRECEDENCE

    def _starts_atom(self) -> bool:
        token = self.tokens[self.at]
        if token.kind == "name":
            return is_name(token.text)
        return token.kind == "number" or token.text == "("

    def _atom(self) -> tuple:
        token = self.tokens[self.at]
        if token.kind == "number":
            self.at += 1
            if len(token.text) > syntax.MAX_DIGITS:
                raise ParseError(f"a number of more than {syntax.MAX_DIGITS} digits")
            return ("num", int(token.text))
        if token.kind == "name" and (is_name(token.text) or token.text in LITERALS):
            self.at += 1
            return ("name", token.text)
        if not self.accept("("):
            self.fail("a term or a formula")
        inside = self.raw()
        if self.accept(":"):
            inside = ("typed", self.sort(), inside)
        self.expect(")")
        return inside

    def _quantifier(self) -> tuple:
        op = self.text
        self.at += 1
        groups = []
        while self.accept("("):
            names = self.names()
            self.expect(":")
            groups.append((names, self.sort()))
            self.expect(")")
        if not groups:
            names = self.names()
            if len(names) == 1 and self.text in BOUNDED:
                bound = self.text
                self.at += 1
                limit = self.raw(51)
                self.expect(",")
                return ("bounded", op, names[0], bound, limit, self.raw())
            self.expect(":")
            groups.append((names, self.sort()))
        self.expect(",")
        body = self.raw()
        for names, sort in reversed(groups):
            for name in reversed(names):
                body = (op, name, sort, body)
        return body


LITERALS = ("True", "False")
BOUNDED = ("<", "≤", ">", "≥")  # ∀ x > 0, p  is  ∀ x, x > 0 → p


# From raw expressions to terms and formulas


def leaf_sort(raw: tuple, scope: Mapping) -> str | None:
    """The sort that the variables, functions and ascriptions in raw give it, or None.

    Raises ParseError for two different ones and for what is no term.
    """
    op = raw[0]
    if op == "num":
        return None
    if op == "typed":
        return raw[1]
    if op == "name":
        signature = scope.get(raw[1])
        if type(signature) is not Signature or signature.result == "Prop":
            raise ParseError(f"{raw[1]} is not a number")
        return signature.result
    if op == "^":
        return leaf_sort(raw[1], scope)
    if op not in ("+", "-", "*", "neg"):
        raise ParseError(f"{op} is not a term")
    found = {leaf_sort(part, scope) for part in raw[1:]} - {None}
    if len(found) > 1:
        raise ParseError("ℕ and ℤ in one term")
    return found.pop() if found else None


def to_term(raw: tuple, sort: str, scope: Mapping) -> Term:
    """The term of that sort. Raises ParseError."""
    op = raw[0]
    if op == "num":
        return Term("num", (raw[1],), sort)
    if op == "typed":
        if raw[1] != sort:
            raise ParseError(f"{raw[1]} where {sort} is expected")
        leaf_sort(raw[2], scope)
        return to_term(raw[2], sort, scope)
    if op == "name":
        signature = scope.get(raw[1])
        if type(signature) is not Signature or signature.result != sort:
            raise ParseError(f"{raw[1]} is not of type {sort}")
        args = arguments(raw, signature, scope)
        return Term("app", (raw[1], *args), sort) if args else syntax.var(raw[1], sort)
    if op == "^":
        if leaf_sort(raw[2], scope) not in (None, NAT):
            raise ParseError("an exponent is a natural number")
        return Term(
            "^", (to_term(raw[1], sort, scope), to_term(raw[2], NAT, scope)), sort
        )
    if op not in ("+", "-", "*", "neg"):
        raise ParseError(f"{op} is not a term")
    if sort == NAT and op in ("-", "neg"):
        raise ParseError("subtraction on ℕ is not part of this subset")
    return Term(op, tuple(to_term(part, sort, scope) for part in raw[1:]), sort)


def arguments(raw: tuple, signature: Signature, scope: Mapping) -> list[Term]:
    """The arguments of an applied name. Raises ParseError."""
    given, wanted = raw[2:], signature.args
    if len(given) != len(wanted):
        raise ParseError(f"{raw[1]} takes {len(wanted)} arguments")
    return [to_term(a, sort, scope) for a, sort in zip(given, wanted, strict=True)]


def to_formula(raw: tuple, scope: Mapping) -> Formula:
    """The formula. Raises ParseError."""
    op = raw[0]
    if op == "name":
        if raw[1] in LITERALS and len(raw) == 2:
            return Formula(raw[1], ())
        signature = scope.get(raw[1])
        if type(signature) is not Signature or signature.result != "Prop":
            raise ParseError(f"{raw[1]} is not a proposition")
        args = arguments(raw, signature, scope)
        return syntax.prop(raw[1], *args)
    if op == "¬" or op in syntax.CONNECTIVES:
        return Formula(op, tuple(to_formula(part, scope) for part in raw[1:]))
    if op in syntax.RELATIONS:
        sorts = {leaf_sort(part, scope) for part in raw[1:]} - {None}
        if len(sorts) > 1:
            raise ParseError(f"ℕ and ℤ beside {op}")
        sort = sorts.pop() if sorts else NAT
        return Formula(op, tuple(to_term(part, sort, scope) for part in raw[1:]))
    if op == "bounded":
        _, op, name, bound, limit, inside = raw
        sort = leaf_sort(limit, scope) or NAT
        connective = "→" if op == "∀" else "∧"
        inside = (connective, (bound, ("name", name), limit), inside)
        if name in names_in(limit):
            raise ParseError(f"{name} bounds itself")
        raw = (op, name, sort, inside)
    if op in syntax.QUANTIFIERS:
        op, name, sort, inside = raw
        body = to_formula(inside, {**scope, name: Signature((), sort)})
        if op == "∀" and name not in syntax.free_names(body):
            raise ParseError(f"{name} does not occur under its ∀")
        return Formula(op, (name, sort, syntax.abstract(body, name)))
    raise ParseError(f"{op} is not a formula")


def names_in(raw: tuple) -> set[str]:
    """Every name in a raw term."""
    own = {raw[1]} if raw[0] == "name" else set()
    return own.union(*(names_in(part) for part in raw if isinstance(part, tuple)))


def checked(convert, raw: tuple, *context):
    """convert(raw, *context), if its size is within the limits. Raises ParseError."""
    try:
        node = convert(raw, *context)
    except RecursionError:  # a sum of a thousand terms is as deep as it is long
        raise ParseError("a formula nested too deep") from None
    if not syntax.within_limits(node):
        raise ParseError("a formula beyond the limits of size")
    return node


def parse_formula(text: str, scope: Mapping[str, Signature | Formula]) -> Formula:
    """The formula in text; scope: the types of the names it may use.

    Raises ParseError.
    """
    reader = Reader(text)
    raw = reader.raw()
    reader.end()
    return checked(to_formula, raw, scope)


def parse_term(text: str, sort: str, scope: Mapping) -> Term:
    """The term of that sort in text. Raises ParseError."""
    reader = Reader(text)
    raw = reader.raw()
    reader.end()
    return checked(to_term, raw, sort, scope)


def parse_statement(text: str) -> Statement:
    """`theorem name (p q : Prop) (h : p → q) : goal := by`; `:= by` may be missing.

    Raises ParseError.
    """
    reader = Reader(text)
    reader.expect("theorem")
    title = reader.name()
    binders, scope = [], {}
    while reader.accept("("):
        names = reader.names()
        reader.expect(":")
        kind = binder_type(reader, scope)
        reader.expect(")")
        for name in names:
            if name in scope:
                raise ParseError(f"{name} is bound twice")
            scope[name] = kind
            binders.append(Binder(name, kind))
    reader.expect(":")
    goal = checked(to_formula, reader.raw(), scope)
    if reader.accept(":="):
        reader.expect("by")
    reader.end()
    return Statement(title, tuple(binders), goal)


def binder_type(reader: Reader, scope: Mapping) -> Signature | Formula:
    """What stands after the colon of a binder. Raises ParseError."""
    if reader.text != "Prop" and reader.text not in SORTS:
        return checked(to_formula, reader.raw(), scope)
    if reader.accept("Prop"):
        return PROP
    sorts = [reader.sort()]
    while reader.accept("→"):
        if reader.accept("Prop"):
            return Signature(tuple(sorts), "Prop")
        sorts.append(reader.sort())
    return Signature(tuple(sorts[:-1]), sorts[-1])
