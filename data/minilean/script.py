"""Reads one tactic: text -> Tactic(head, args), without looking at any goal.

Expressions that prove are nested tuples, elaborated against a goal later:
("name", dotted name, *arguments), ("part", expression, "1" or "2"), ("call",
expression, *arguments), ("anon", *parts) for ⟨…⟩, ("?_",), and ("term", raw) for a
number that is no name. Patterns of obtain and rcases: a name, ("and", *patterns) for
⟨…⟩, ("or", *patterns) for … | ….
"""

import re
from functools import lru_cache
from typing import NamedTuple

from data.minilean.parser import ParseError, Reader, is_name
from data.minilean.state import Fault

MAX_TACTIC = 1000
FORBIDDEN = re.compile(
    r"\b(sorry|admit|native_decide|decide|set_option|sorryAx|unsafe|axiom|theorem|"
    r"lemma|def|open|import|macro|syntax|elab|notation|run_tac|eval)\b"
    r"|--|/-|-/|;|#|\r|\n|\x00"
)
PROVING_WORDS = ("rfl", "trivial")


class Tactic(NamedTuple):
    """head: the tactic's first word; args: what follows, read."""

    head: str
    args: tuple = ()


@lru_cache(maxsize=1 << 16)
def read(text: str) -> Tactic | Fault:
    """The tactic in text, or why there is none. Never raises, whatever the text."""
    if len(text) > MAX_TACTIC:
        return Fault("limits", f"longer than {MAX_TACTIC} characters")
    found = FORBIDDEN.search(text)
    if found:
        return Fault("forbidden", f"{found.group()!r} is not allowed")
    try:
        reader = Reader(text)
        tactic = _tactic(reader, nested=False)
        reader.end()
    except ParseError as fault:
        return Fault("parse", str(fault))
    return tactic


def _tactic(reader: Reader, nested: bool) -> Tactic:
    head = reader.text
    if head not in _ARGUMENTS or (nested and head == "have"):
        reader.fail("a tactic")
    reader.at += 1
    return Tactic(head, _ARGUMENTS[head](reader))


def _nothing(reader: Reader) -> tuple:
    return ()


def _names(reader: Reader) -> tuple:
    return tuple(reader.names())


def _one_name(reader: Reader) -> tuple:
    return (reader.name(),)


def _expression(reader: Reader) -> tuple:
    return (expression(reader),)


def _obtain(reader: Reader) -> tuple:
    found = pattern(reader)
    reader.expect(":=")
    return expression(reader), found


def _rcases(reader: Reader) -> tuple:
    major = expression(reader)
    reader.expect("with")
    return major, alternatives(reader)


def _cases(reader: Reader) -> tuple:
    name = reader.name()
    reader.expect("with")
    return name, *reader.names()


def _have(reader: Reader) -> tuple:
    """(name, raw formula or None, expression or Tactic)."""
    name, formula = reader.name(), None
    if reader.accept(":"):
        formula = reader.raw()
    reader.expect(":=")
    if formula is not None and reader.accept("by"):
        return name, formula, _tactic(reader, nested=True)
    return name, formula, expression(reader)


def _rewrite(reader: Reader) -> tuple:
    """(((backwards, expression), ...), name of a hypothesis or None)."""
    reader.expect("[")
    rules = []
    while True:
        backwards = reader.accept("←")
        rules.append((backwards, expression(reader)))
        if not reader.accept(","):
            break
    reader.expect("]")
    return tuple(rules), _place(reader)


def _place(reader: Reader) -> str | None:
    return reader.name() if reader.accept("at") else None


def _norm_num(reader: Reader) -> tuple:
    hints = _hints(reader)[0]
    return hints, _place(reader)


def _hints(reader: Reader) -> tuple:
    """(the expressions of an optional list,)."""
    found = []
    if reader.accept("["):
        found.append(expression(reader))
        while reader.accept(","):
            found.append(expression(reader))
        reader.expect("]")
    return (tuple(found),)


def _terms(reader: Reader) -> tuple:
    found = [reader.raw()]
    while reader.accept(","):
        found.append(reader.raw())
    return tuple(found)


def _named_formula(reader: Reader) -> tuple:
    name = reader.name()
    reader.expect(":")
    return name, reader.raw()


_ARGUMENTS = {
    "intro": _names,
    "intros": _names,
    "exact": _expression,
    "apply": _expression,
    "refine": _expression,
    "constructor": _nothing,
    "left": _nothing,
    "right": _nothing,
    "obtain": _obtain,
    "rcases": _rcases,
    "cases'": _cases,
    "exfalso": _nothing,
    "contradiction": _nothing,
    "assumption": _nothing,
    "trivial": _nothing,
    "have": _have,
    "rfl": _nothing,
    "rw": _rewrite,
    "subst": _one_name,
    "simp": None,
    "ring": _nothing,
    "norm_num": _norm_num,
    "linarith": _hints,
    "nlinarith": _hints,
    "induction'": _cases,
    "use": _terms,
    "exists": _terms,
    "by_contra": _one_name,
    "by_cases": _named_formula,
}


def _simp(reader: Reader) -> tuple:
    reader.expect("only")
    return _rewrite(reader)


_ARGUMENTS["simp"] = _simp


def expression(reader: Reader) -> tuple:
    """A proof: a name with arguments, ⟨…⟩, ?_, with parts .1 and .2."""
    head = _argument(reader)
    args = []
    while _starts_argument(reader):
        args.append(_argument(reader))
    if not args:
        return head
    if head[0] in ("anon", "?_", "term"):
        reader.fail("a proof that takes no arguments")
    return (*head, *args) if len(head) == 2 else ("call", head, *args)


def _starts_argument(reader: Reader) -> bool:
    token = reader.tokens[reader.at]
    if token.kind == "name":
        return _proving_name(token.text)
    return token.kind == "number" or token.text in ("(", "⟨", "?_")


def _proving_name(text: str) -> bool:
    # with a dot it is one identifier to Lean, whatever its parts: False.elim
    return text in PROVING_WORDS or "." in text or is_name(text)


def _argument(reader: Reader) -> tuple:
    reader.nesting += 1
    if reader.nesting > 40:
        raise ParseError("nested more than 40 deep")
    found = _primary(reader)
    while reader.text in (".1", ".2"):
        found = ("part", found, reader.text[1])
        reader.at += 1
    reader.nesting -= 1
    return found


def _primary(reader: Reader) -> tuple:
    token = reader.tokens[reader.at]
    if reader.accept("?_"):
        return ("?_",)
    if token.kind == "number":
        return ("term", reader.raw(1024))
    if token.kind == "name" and _proving_name(token.text):
        reader.at += 1
        return ("name", token.text)
    if reader.accept("⟨"):
        parts = [expression(reader)]
        while reader.accept(","):
            parts.append(expression(reader))
        reader.expect("⟩")
        return ("anon", *parts)
    if not reader.accept("("):
        reader.fail("a proof")
    start, nesting = reader.at, reader.nesting
    try:
        inside = expression(reader)
        reader.expect(")")
        return inside
    except ParseError:  # a number then: (x + 1), (-x)
        reader.at, reader.nesting = start, nesting
    inside = ("term", reader.raw())
    reader.expect(")")
    return inside


def alternatives(reader: Reader):
    """Patterns separated by |."""
    found = [pattern(reader)]
    while reader.accept("|"):
        found.append(pattern(reader))
    return found[0] if len(found) == 1 else ("or", *found)


def pattern(reader: Reader):
    """A name, ⟨patterns⟩, or alternatives in parentheses."""
    reader.nesting += 1
    if reader.nesting > 20:
        raise ParseError("patterns nested more than 20 deep")
    if reader.accept("⟨"):
        parts = [alternatives(reader)]
        while reader.accept(","):
            parts.append(alternatives(reader))
        reader.expect("⟩")
        if len(parts) < 2:
            raise ParseError("⟨…⟩ takes two patterns or more")
        found = ("and", *parts)
    elif reader.accept("("):
        found = alternatives(reader)
        reader.expect(")")
    else:
        found = reader.name()
    reader.nesting -= 1
    return found
