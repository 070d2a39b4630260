"""The tests of the Lean client against a real REPL, where there is one.

    make lean-check
    LEAN_REPL='lake env /opt/repl/.lake/build/bin/repl' \\
    LEAN_REPL_PROJECT=/opt/project LEAN_REPL_IMPORTS=Mathlib make lean-check

LEAN_REPL is its command, run in the Lean project LEAN_REPL_PROJECT, whose toolchain it
was built with; LEAN_REPL_IMPORTS are the modules to start from (default: Init). The
same tests run against the stand-in in `make test`. Exit code 2: no REPL is named, or
it does not prove `True`, and why; 1: a test fails.
"""

import os
import subprocess
import sys

from research.lean_star.environment import Crashed, Theorem
from research.lean_star.repl import LeanRepl, settings_from_environment

TESTS = ("tests/research/test_lean_protocol.py", "tests/research/test_lean_repl.py")
TRUE = Theorem("true", "theorem salign_true : True := by")


def trouble(variables) -> str | None:
    """Why there is no REPL to test against; None where there is."""
    try:
        settings = settings_from_environment(variables)
    except ValueError as error:
        return str(error)
    command = " ".join(settings.command)
    with LeanRepl(settings) as lean:
        state = lean.start(TRUE)
        if isinstance(state, Crashed):
            return f"LEAN_REPL: {command}: {state.reason}"
        verdict = lean.verify(TRUE, ["trivial"])
    if not verdict.ok:
        return f"LEAN_REPL: {command}: does not prove True: {verdict.detail}"
    return None


def main() -> None:
    found = trouble(os.environ)
    if found is not None:
        print(f"error: {found}", file=sys.stderr)
        sys.exit(2)
    print(f"testing against {os.environ['LEAN_REPL']}")
    command = [sys.executable, "-m", "pytest", "-v", *TESTS]
    sys.exit(1 if subprocess.call(command) else 0)


if __name__ == "__main__":
    main()
