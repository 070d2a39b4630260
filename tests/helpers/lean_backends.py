"""The Lean REPL that tests use: the stand-in, or the real one that LEAN_REPL names."""

import os
import sys
from pathlib import Path

import pytest

from research.lean_star.environment import Theorem
from research.lean_star.repl import settings_from_environment
from research.lean_star.repl_process import ReplProcess
from research.lean_star.repl_worker import ReplSettings

TESTS = Path(__file__).parents[1]
REAL = bool(os.environ.get("LEAN_REPL"))
FAKE = (sys.executable, "-S", "-E", "-m", "helpers.fake_lean_repl")
SWAP = Theorem("swap", "theorem swap (p q : Prop) (hp : p) (hq : q) : q ∧ p := by")
# What shows a fault, or looks into the stand-in.
stand_in = pytest.mark.skipif(REAL, reason="needs the stand-in")


def settings(*options: str, **fields) -> ReplSettings:
    """The stand-in, with its options, as the REPL to use."""
    fields = {"imports": ("Init",), "cwd": str(TESTS)} | fields
    return ReplSettings((*FAKE, *options), **fields)


def used(**fields) -> ReplSettings:
    """The REPL to test against."""
    if REAL:
        return settings_from_environment(os.environ, **fields)
    return settings(**fields)


def started() -> ReplProcess:
    """A process of it."""
    made = used()
    return ReplProcess(made.command, made.cwd)
