"""Whether a given answer is the true one, by the rules of the MATH data set.

A missing answer is wrong. Equal strict or loose forms are right. Else both are taken
apart: tuples, intervals and lists element by element in order, brackets included, and
matrices entry by entry, as long as nothing nests. An element is right if its strings
are equal; two fractions, or an integer beside anything else, have to be (so 2/4 is not
1/2: an unreduced answer is wrong, as the rules say, and 4/2 is not 2); other formulas
may be equal by algebra if they are small enough.

`faithful` decides by strings alone, as the thesis's released code does, which comments
the algebra out. `fixed`, the default, has it, as the grader that the code copied."""

import re
from collections.abc import Sequence
from typing import Literal

from research.grading.algebra import equal_formulas
from research.grading.normalize import loose_form, strict_form

Rules = Literal["fixed", "faithful"]

_INTEGER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"-?\d+/0*[1-9]\d*")
_WORDS = re.compile("sqrt|root|pi")
# Powers of several digits or terms, and towers, may be astronomically large.
_LARGE = re.compile(r"\^\d+\^|\^\d\d|\^\(|\^\{|!!|\d\d\d!")


def equivalent(given: str | None, truth: str, rules: Rules = "fixed") -> bool:
    """Whether `given` answers as `truth` does; symmetric, and never raises on text.

    Equal to itself is every text but a blank one, which is no answer.

    Raises SandboxError only if the algebra worker cannot be started at all."""
    if given is None or not given.strip():
        return False
    if given.strip() == truth.strip():
        return True
    # Forms that lost everything ("x=", "$") say nothing.
    a, b = strict_form(given), strict_form(truth)
    if a == b and a:
        return True
    a, b = loose_form(given), loose_form(truth)
    if a == b or not a or not b:
        return a == b != ""
    # 10,100 is one number beside 10100, and two beside "10, 100" or "10 or 100".
    if "," in a + b and loose_form(given, False) == loose_form(truth, False):
        return True
    first, second = _parts(a), _parts(b)
    if first[0] != second[0] or len(first[1]) != len(second[1]):
        return False
    return all(_element(x, y, rules) for x, y in zip(first[1], second[1], strict=True))


def group_answers(
    answers: Sequence[str | None], rules: Rules = "fixed"
) -> list[int | None]:
    """The class of each answer for a vote; None for a missing or blank answer.

    Classes count from 0 by first appearance. An answer joins the first class whose
    first member it is equivalent to: equivalence by string rules is not transitive, so
    the order matters, as in the code of the thesis's successor."""
    members: list[str] = []
    known: dict[str, int] = {}
    classes = []
    for answer in answers:
        if answer is None or not answer.strip():
            classes.append(None)
            continue
        if answer not in known:
            matches = (i for i, m in enumerate(members) if equivalent(answer, m, rules))
            known[answer] = next(matches, len(members))
            if known[answer] == len(members):
                members.append(answer)
        classes.append(known[answer])
    return classes


def _parts(text: str) -> tuple[tuple, list[str]]:
    """The shape of an answer (its brackets, its rows) and its elements."""
    if text.startswith("matrix(") and text.endswith(")"):
        rows = [row.split(",") for row in text[len("matrix(") : -1].split(";")]
        return ("matrix", *map(len, rows)), [x for row in rows for x in row]
    if "," not in text:
        return ("",), [text]
    inner, shape = text, ("list",)
    if text[0] in "([" and text[-1] in ")]":
        inner, shape = text[1:-1], (text[0], text[-1])
    elements = _split(inner)
    return (shape, elements) if elements else (("",), [text])


def _split(text: str) -> list[str] | None:
    """Split at the commas; None if a bracket is left open around one of them."""
    elements = text.split(",")
    if any(x.count("(") != x.count(")") or "[" in x or "]" in x for x in elements):
        return None
    return elements


def _element(a: str, b: str, rules: Rules) -> bool:
    if a == b:
        return bool(a)
    if rules == "faithful":
        return False
    a, b = _bare(a), _bare(b)
    if a == b:
        return bool(a)
    if _FRACTION.fullmatch(a) and _FRACTION.fullmatch(b):
        return False
    if _INTEGER.fullmatch(a) or _INTEGER.fullmatch(b):
        return False
    return _small(a) and _small(b) and equal_formulas(a, b)


def _bare(text: str) -> str:
    """(A) -> A: parentheses around a single element say nothing."""
    whole = re.fullmatch(r"\(([^()\[\]]+)\)", text)
    return whole[1] if whole else text


def _small(text: str) -> bool:
    """At most two unknown letters, no large powers, and short."""
    letters = {c for c in _WORDS.sub("", text) if c.isalpha()}
    return len(letters) <= 2 and len(text) <= 200 and not _LARGE.search(text)
