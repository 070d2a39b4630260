"""The stand-in's faults, and what the Lean client does on each.

    cd tests && python -m helpers.lean_faults

commits each fault, and prints what the client returned, how many processes it lost and
how, and whether it went on: the same tactic at the same state, with the same result.
Then those that may befall a theorem's beginning, each amid theorems that are opened
together: whether the client went on says whether these have their states.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS.parent))

from helpers.fake_lean_repl import FAULTS  # noqa: E402
from helpers.lean_backends import SWAP, settings  # noqa: E402

from research.lean_star.environment import (  # noqa: E402
    Illegal,
    Progress,
    Proved,
    State,
)
from research.lean_star.repl import LeanRepl  # noqa: E402

MIB = 1 << 20


class Seen(NamedTuple):
    """What came of a fault: the result, processes lost by reason, started anew.

    goes_on: whether an ordinary tactic at the same state did what it did before.
    """

    result: str
    lost: dict[str, int]
    started: int
    goes_on: bool


def dies(result: str, how: str) -> Seen:
    """The worker is lost, asked again on another, lost again; then comes a third."""
    return Seen(result, {how: 2}, 2, True)


# What has to come of each.
WANTED = {
    "hang": Seen("Timeout", {"hung": 1}, 1, True),
    "die": dies("Crashed", "died"),
    "die_half": dies("Crashed", "died"),
    "malformed": dies("Crashed", "garbled"),
    "not_an_object": dies("Crashed", "garbled"),
    "wrong_shape": dies("Crashed", "garbled"),
    "forged": dies("Crashed", "garbled"),
    "old_id": dies("Crashed", "garbled"),
    "contradiction": dies("Crashed", "contradiction"),
    "disguised_sorry": Seen("GaveUp", {}, 0, True),
    "metavariables": Seen("GaveUp", {}, 0, True),
    "kernel": Seen("GaveUp", {}, 0, True),
    "lying": Seen("Proved, but verify says no", {}, 0, True),
    "error_with_goals": Seen("Illegal (elaboration)", {}, 0, True),
    "grow": Seen("Progress", {"recycled": 1}, 1, True),
    "grow_hang": Seen("Illegal (limits)", {"overgrown": 1}, 1, True),
    "stderr": Seen("Progress", {}, 0, True),
    "slow": Seen("Progress", {}, 0, True),
    "forget": Seen("Progress", {"unknown": 1}, 1, True),
    "once die": Seen("Progress", {"died": 1}, 1, True),
    "once malformed": Seen("Progress", {"garbled": 1}, 1, True),
}


# At the beginning of a theorem. What takes too long or too much is not tried again.
WANTED_OPENING = {
    "hang": Seen("Crashed", {"hung": 1}, 1, True),
    "die": dies("Crashed", "died"),
    "malformed": dies("Crashed", "garbled"),
    "grow": Seen("State", {"recycled": 1}, 1, True),
    "grow_hang": Seen("Crashed", {"overgrown": 1}, 1, True),
    "stderr": Seen("State", {}, 0, True),
    "slow": Seen("State", {}, 0, True),
    "once die": Seen("State", {"died": 1}, 1, True),
    "once malformed": Seen("State", {"garbled": 1}, 1, True),
}


def commit(fault: str, lean: LeanRepl, state: State, folder: Path) -> Seen:
    """Commits a fault at a state after the tactic `constructor`, and goes on."""
    before, wanted = lean.stats(), lean.run(state, "exact hq")
    tactic = f"fault {fault}"
    if fault.startswith("once"):
        tactic += f" {folder / fault.replace(' ', '_')}"
    found = lean.run(state, tactic, 0.5 if fault == "hang" else None)
    name = type(found).__name__
    if isinstance(found, Illegal):
        name += f" ({found.kind})"
    if isinstance(found, Proved):
        verdict = lean.verify(state.theorem, found.script)
        name += f", {'and' if verdict.ok else 'but'} verify says "
        name += "yes" if verdict.ok else "no"
    again = lean.run(state, "exact hq")
    goes_on = isinstance(again, Progress) and again.state.goals == wanted.state.goals
    return Seen(name, *losses(before, lean.stats()), goes_on)


def commit_opening(fault: str, lean: LeanRepl, folder: Path) -> Seen:
    """Commits a fault at the second of three theorems that are opened together."""
    before = lean.stats()
    words = f"{fault} {folder / fault.replace(' ', '_')}"
    faulty = SWAP._replace(header=f"import Init\nopen Fault {words}")
    first, found, last = lean.start_many([SWAP, faulty, SWAP])
    goes_on = all(
        isinstance(lean.run(state, "constructor"), Progress) for state in (first, last)
    )
    lost, started = losses(before, lean.stats())
    return Seen(type(found).__name__, lost, started, goes_on)


def losses(before: dict, after: dict) -> tuple[dict[str, int], int]:
    """(processes lost between two counts, by reason; processes started)."""
    change = {k: n - before.get(k, 0) for k, n in after.items()}
    lost = {
        name.removeprefix("lost/"): n
        for name, n in change.items()
        if n and (name.startswith("lost/") or name == "recycled")
    }
    return lost, change["started"]


def committed(folder: Path):
    """(fault, `Seen`) of all faults, one after the other on the same client."""
    bounds = settings(
        growth_bytes=32 * MIB,
        memory_bytes=200 * MIB,
        watch_seconds=0.0,
        tactic_seconds=300.0,
        strict=False,  # a folder's name could hold a word that is not allowed
    )
    with LeanRepl(bounds) as lean:
        state = lean.run(lean.start(SWAP), "constructor").state
        for fault in WANTED:
            yield fault, commit(fault, lean, state, folder)


def committed_opening(folder: Path):
    """(fault, `Seen`) of those at a theorem's beginning, each on a client of its own.

    Only what hangs has a short deadline, which a new process has to meet as well.
    """
    for fault in WANTED_OPENING:
        bounds = settings(
            growth_bytes=32 * MIB,
            memory_bytes=200 * MIB,
            watch_seconds=0.0,
            start_seconds=8.0 if fault == "hang" else 300.0,
        )
        with LeanRepl(bounds) as lean:
            assert isinstance(lean.start(SWAP), State)
            yield fault, commit_opening(fault, lean, folder)


def main() -> None:
    line = "{:<16} {:<28} {:<16} {:<4} {:<8} {}".format
    print(line("fault", "the client returns", "lost", "new", "goes on", "the stand-in"))
    for commit_all, where in ((committed, "a step"), (committed_opening, "a start")):
        print(f"-- at {where}")
        with tempfile.TemporaryDirectory() as folder:
            for fault, seen in commit_all(Path(folder)):
                lost = ", ".join(f"{n} {how}" for how, n in seen.lost.items()) or "-"
                goes_on = "yes" if seen.goes_on else "NO"
                what = FAULTS[fault.split()[-1]]
                print(line(fault, seen.result, lost, seen.started, goes_on, what))


if __name__ == "__main__":
    main()
