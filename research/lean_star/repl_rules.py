"""What counts as a step, and as a proof: the rules that keep a REPL client sound.

1. No goals left is not success: errors are recovered to `sorry`, and leave no goals.
2. Success is the status "Completed" without an error message, and nothing else.
3. An error message makes a step illegal, whatever goals come with it.
4. A step that brings a `sorry` of its own is illegal at once: later it shows no more.
5. Theorems start from the environment of their header alone, under a fresh name: a
   proof state never sees the theorem that it is to prove.
6. {"message": ...} is a tactic that failed; ids that are unknown are our own loss.
7. At last the whole proof is a command of its own, without errors and `sorry`, whose
   axioms are among three; text that could change what is being proved never gets there.
"""

import re
from typing import NamedTuple

from research.lean_star.repl_protocol import (
    COMPLETED,
    CommandReply,
    Message,
    Refusal,
    StepReply,
    errors,
)

AXIOMS = frozenset({"propext", "Classical.choice", "Quot.sound"})
_BANNED = frozenset(
    """sorry admit stop native_decide axiom theorem lemma def abbrev example
    instance opaque structure inductive class initialize builtin_initialize import
    namespace section end open variable universe attribute local scoped export
    set_option macro macro_rules syntax notation infix infixl infixr prefix postfix
    elab elab_rules declare_syntax_cat unsafe implemented_by extern csimp run_tac
    run_cmd run_elab run_meta by_elab eval% decl_name% mutual noncomputable private
    protected partial deriving""".split()
)
# By any of their dotted names: what proves without a proof, or trusts a program.
_TRUSTED = frozenset(
    """sorryAx ofReduceBool reduceBool ofReduceNat reduceNat trustCompiler unsafeCast
    lcProof""".split()
)
_WORD = re.compile(r"--|/-|-/|#[a-z_]{2,}|[^\W\d][\w'!?]*(?:\.[^\W\d][\w'!?]*)*%?")
_DECLARED = re.compile(
    r"\b(theorem|lemma|example)\b[ \t\r\n]*([^\s:(){}\[\]⦃⦄]+?(?=\.\{|[\s:({\[⦃]|$))?"
)
# Comments, strings, and names that may hold anything: not to be read as Lean.
_QUOTED = re.compile(r'/-.*?(?:-/|\Z)|--[^\n]*|"(?:[^"\\]|\\.)*"|«[^»]*»', re.S)
_OUTLINE = re.compile(r"[({\[⦃⟨]|[)}\]⦄⟩]|:=|\b(?:let|have|letI|haveI)\b")
_UNPROVED = re.compile(r"\s*:=\s*(?:by\b)?\s*(?:sorry)?\s*\Z")
_PARSING = re.compile(r"<input>:\d+:\d+:")
_LIMITS = re.compile(r"maximum recursion depth|\(deterministic\) timeout|maxHeartbeats")
_NO_GOALS = re.compile(r"\bno goals\b", re.IGNORECASE)
_USES_SORRY = re.compile(r"declaration uses [`'‘]?sorry")
_DEPENDS = re.compile(r"'(.+)' depends on axioms: \[(.*)\]", re.S)
_NONE = re.compile(r"'(.+)' does not depend on any axioms")


class Open(NamedTuple):
    """A legal step: the goals that are left, the first of which is acted upon next."""

    goals: tuple[str, ...]
    messages: tuple[str, ...]


class Closed(NamedTuple):
    """The REPL vouches for a complete proof; only the whole command decides."""


class Failed(NamedTuple):
    """An illegal step; `kind` as in `environment`."""

    kind: str
    message: str


class Given(NamedTuple):
    """No goals are left, and nothing is proved."""

    reason: str


class Unknown(NamedTuple):
    """The process knows no such id: it lost, or never had, what was told to another."""

    message: str


class Contradiction(NamedTuple):
    """A reply at odds with itself or the protocol: its process is not to be used."""

    message: str


def forbidden(tactic: str) -> str | None:
    """The first word of a tactic that may not be in one; None for none.

    Give-ups, axioms, other declarations, options, syntax, comments, and programs that
    run while Lean elaborates.
    """
    for match in _WORD.finditer(tactic):
        word = match[0]
        last = word.rpartition(".")[2]
        if word[0] in "#-/" or word in _BANNED or last in _TRUSTED:
            return word
    return "a null character" if "\0" in tactic else None


def judge(
    reply: StepReply | Refusal | CommandReply,
) -> Open | Closed | Failed | Given | Unknown | Contradiction:
    """What a tactic's reply means, by rules 1 to 4 and 6."""
    if isinstance(reply, CommandReply):
        return Contradiction("a command's reply to a tactic")
    if isinstance(reply, Refusal):
        if reply.message.startswith("Unknown "):
            return Unknown(reply.message)
        return failure(reply.message.removeprefix("Lean error:\n"))
    if found := errors(reply.messages):
        return failure("\n".join(found))
    if reply.sorries or uses_sorry(reply.messages):
        return Failed("forbidden", "the step brings a sorry of its own")
    if reply.goals:
        if reply.status == COMPLETED:
            return Contradiction("the status says Completed beside open goals")
        return Open(reply.goals, tuple(m.data for m in reply.messages))
    if reply.status == COMPLETED:
        return Closed()
    if reply.status is None:
        return Given("no goals left, and this REPL does not check the proof")
    return Given(f"no goals left: {reply.status}")


def failure(message: str) -> Failed:
    """An error's text with its kind."""
    for kind, pattern in (
        ("no_goals", _NO_GOALS),
        ("limits", _LIMITS),
        ("parse", _PARSING),
    ):
        if pattern.search(message):
            return Failed(kind, message)
    return Failed("elaboration", message)


def uses_sorry(messages: tuple[Message, ...]) -> bool:
    """Whether a message says that a declaration rests on `sorry`."""
    return any(_USES_SORRY.search(m.data) for m in messages)


def declared(statement: str, fresh: str) -> tuple[str, str]:
    """(the statement as a theorem without its proof, its full name).

    `fresh` takes the place of the last part of the name, so that nothing can refer to
    the theorem, or to one of its name in a library; what goes before stays, for it
    opens a namespace. A statement without `theorem` in front is a type, or binders and
    a type. Raises ValueError for one that has a proof or declares more.
    """
    text = _UNPROVED.sub("", statement.strip())
    bare = _QUOTED.sub(lambda m: " «"[m[0][0] == "«"] * len(m[0]), text)
    if _assigns(bare):
        raise ValueError(f"expected no proof in a statement: {statement[:80]!r}")
    found = list(_DECLARED.finditer(bare))
    if not found:
        colon = "" if text.startswith(("(", "{", "[", ":")) and _binds(text) else ": "
        return f"theorem {fresh} {colon}{text}", fresh
    if len(found) > 1:
        raise ValueError(f"expected one theorem, got {len(found)}: {statement[:80]!r}")
    match = found[0]
    dot = (match[2] or "").rfind(".")
    space = text[match.start(2) :][: max(dot, 0)]
    name = f"{space}.{fresh}" if space else fresh
    after = text[match.end() :]
    gap = " " if after.startswith(("(", "{", "[", "⦃")) else ""
    return f"{text[: match.start()]}theorem {name}{gap}{after}", name


def _assigns(bare: str) -> bool:
    """Whether a := stands outside brackets, and belongs to no `let` or `have`."""
    depth = waiting = 0
    for match in _OUTLINE.finditer(bare):
        here = match[0]
        if here in "({[⦃⟨":
            depth += 1
        elif here in ")}]⦄⟩":
            depth -= 1
        elif depth == 0 and here != ":=":
            waiting += 1
        elif depth == 0 and not waiting:
            return True
        elif depth == 0:
            waiting -= 1
    return False


def _binds(text: str) -> bool:
    """Whether brackets at the start are binders: a colon follows the last of them."""
    depth = 0
    for c in text:
        depth += (c in "({[⦃") - (c in ")}]⦄")
        if depth == 0 and c == ":":
            return True
        if depth == 0 and not c.isspace() and c not in ")}]⦄":
            return False
        if depth < 0:
            return False
    return False


def opening(declaration: str, heartbeats: int) -> str:
    """The command that enters tactic mode."""
    return f"{_limit(heartbeats)}{declaration} := by sorry"


def whole(declaration: str, script: tuple[str, ...], heartbeats: int) -> str:
    """The command that is the proof: one tactic after the other."""
    lines = "\n".join(script).split("\n")
    body = "\n".join(f"  {line}" for line in lines)
    return f"{_limit(heartbeats)}{declaration} := by\n{body}"


def _limit(heartbeats: int) -> str:
    return f"set_option maxHeartbeats {heartbeats} in\n" if heartbeats else ""


def flaw(reply: CommandReply | Refusal | StepReply) -> str | None:
    """Why the reply to the whole proof is no success; None for one that may be."""
    if not isinstance(reply, CommandReply):
        return getattr(reply, "message", "not a command's reply")
    if found := errors(reply.messages):
        return "\n".join(found)
    if reply.sorries or uses_sorry(reply.messages):
        return "the proof uses sorry"
    return None


def axioms_of(reply: CommandReply | Refusal | StepReply, name: str) -> tuple[str, ...]:
    """The axioms that `#print axioms name` tells. Raises ValueError for another reply.

    One message alone counts: what a proof made Lean print beside it is a reason to
    doubt it.
    """
    if isinstance(reply, CommandReply) and len(reply.messages) == 1:
        said = reply.messages[0]
        if said.severity == "info":
            text = said.data.strip()
            if (match := _NONE.fullmatch(text)) and match[1] == name:
                return ()
            if (match := _DEPENDS.fullmatch(text)) and match[1] == name:
                return tuple(part.strip() for part in match[2].split(","))
    raise ValueError(f"expected the axioms of {name}, got {reply!r:.200}")
