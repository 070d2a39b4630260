"""Theorems and proofs as text for real Lean: replayed there, they are proofs there.

`data.minilean.coq` exports to Coq.
"""

from collections.abc import Sequence

from data.minilean.printer import show_statement
from data.minilean.syntax import Statement

LEAN_HEADER = "import Mathlib\n\n"


def lean(statement: Statement, script: Sequence[str]) -> str:
    """The theorem with its tactics, one a line; LEAN_HEADER goes before the first."""
    return "\n  ".join([show_statement(statement), *script]) + "\n"


def lean_file(proofs: Sequence[tuple[Statement, Sequence[str]]]) -> str:
    """One file with all theorems and what each rests on."""
    parts = [
        f"{lean(statement, script)}\n#print axioms {statement.name}\n"
        for statement, script in proofs
    ]
    return LEAN_HEADER + "\n".join(parts)
