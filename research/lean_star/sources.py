"""A theorem in its Lean file: what stands before it, and its statement.

LeanDojo's benchmark tells where a theorem stands and how its proof went, but not what
it says. A REPL needs both: the file up to there, in which names mean what they mean
there, and the theorem without its proof.
"""

import re
from typing import NamedTuple

Place = tuple[int, int]  # line and column, from 1, in characters

_STRING = r'"(?:\\.|[^"\\])*"'
_QUOTED = re.compile(rf"""'"'|{_STRING}""", re.S)
_TOKEN = re.compile(rf"{_QUOTED.pattern}|--[^\n]*|/-|-/", re.S)
_KEYWORD = re.compile(r"\b(?:theorem|lemma)\b")
_PROOF = re.compile(r":=\s*by\b")
# Of one theorem only: `open Classical in theorem ...`
_CLAUSE = (
    r"\b(?:open|set_option|attribute|variable|omit|include|universe)\b[^\n]*?\bin\b"
)
_CLAUSES = re.compile(_CLAUSE)
# All that may stand between the command before and the keyword.
_FRONT = re.compile(
    r"(?:(?:@\[[^\]]*\]|\b(?:private|protected|noncomputable|nonrec|unsafe|partial)\b|"
    rf"{_CLAUSE})\s*)*\Z"
)


class Cut(NamedTuple):
    """before: characters of the file up to the theorem; statement: up to its `:=`."""

    before: int
    statement: str


def cut(source: str, start: Place, end: Place) -> Cut:
    """The theorem that stands between two places of a file, proved by tactics.

    Attributes, comments and modifiers are left out; `open ... in` and the like stay.
    Raises ValueError where there is no such theorem.
    """
    first, last = _offset(source, start), _offset(source, end)
    code = without_comments(source[:last])
    shape = _QUOTED.sub(lambda m: "_" * len(m[0]), code)
    keyword = _KEYWORD.search(shape, first)
    if keyword is None:
        raise ValueError("expected a theorem or a lemma")
    at = keyword.start()
    proof = _proof(shape, at)
    if proof is None:
        raise ValueError("expected a proof by tactics, ':= by'")
    front = _FRONT.search(shape, 0, at).start()
    clauses = _CLAUSES.findall(code[front:at])
    lines = "\n".join([*clauses, code[at:proof]]).split("\n")
    text = "\n".join(line.rstrip() for line in lines if line.strip())
    # Nor does a comment stay behind: one that documents wants what it documents.
    return Cut(len(shape[:front].rstrip()), text)


def before(source: str, end: int) -> str:
    """The file up to a theorem, from its imports on: a licence may stand above them."""
    code = without_comments(source[:end])
    return source[len(code) - len(code.lstrip()) : end]


def without_comments(source: str) -> str:
    """The source with spaces in the place of comments; lines stay where they are."""
    kept, at = [], 0
    for start, stop in _comments(source):
        kept += [source[at:start], re.sub(r"[^\n]", " ", source[start:stop])]
        at = stop
    return "".join([*kept, source[at:]])


def _comments(source: str):
    """(start, end) of comments; those in /- -/ are nested, strings have none."""
    depth = place = begun = 0
    while (match := _TOKEN.search(source, place)) is not None:
        place, text = match.end(), match[0]
        if text == "/-":
            begun = begun if depth else match.start()
            depth += 1
        elif depth and text == "-/":
            depth -= 1
            if not depth:
                yield begun, place
        elif depth:  # in a comment a quote or a dash opens nothing
            place = match.start() + 1
        elif text.startswith("--"):
            yield match.span()
    if depth:
        yield begun, len(source)


def _proof(shape: str, start: int) -> int | None:
    """Where the first `:= by` outside of brackets begins."""
    depth = 0
    for i in range(start, len(shape)):
        depth += (shape[i] in "([{⟨⦃") - (shape[i] in ")]}⟩⦄")
        if not depth and shape[i] == ":" and _PROOF.match(shape, i):
            return i
    return None


def _offset(source: str, place: Place) -> int:
    lines, (line, column) = source.split("\n"), place
    if not 1 <= line <= len(lines) or not 1 <= column <= len(lines[line - 1]) + 1:
        raise ValueError(f"expected line {line}, column {column} in the file")
    return sum(len(text) + 1 for text in lines[: line - 1]) + column - 1
