"""The Lean client against a REPL that fails: it goes on, and is never deceived."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.fake_lean_repl import FAULTS
from helpers.lean_backends import FAKE, SWAP, TESTS, settings
from helpers.lean_faults import (
    WANTED,
    WANTED_OPENING,
    committed,
    committed_opening,
)

from research.lean_star import repl_process, repl_protocol, repl_worker
from research.lean_star.environment import (
    Crashed,
    Progress,
    Proved,
    State,
    Theorem,
)
from research.lean_star.repl import LeanRepl
from research.lean_star.repl_process import (
    Died,
    Garbled,
    Hung,
    Overgrown,
    ReplProcess,
)
from research.lean_star.repl_worker import ReplSettings, anonymous, split_header

ASK = repl_protocol.command("import Init")


@pytest.fixture
def lean():
    with LeanRepl(settings(strict=False)) as made:
        yield made


def process_of(lean: LeanRepl) -> ReplProcess:
    return lean._pool.workers[0].process


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def gone(group: int) -> bool:
    """Whether a group disappears within some seconds."""
    until = time.monotonic() + 10
    while group_lives(group) and time.monotonic() < until:
        time.sleep(0.01)
    return not group_lives(group)


def test_every_fault_has_its_answer(tmp_path):
    """Result, processes lost and started, and going on, as the table says for each."""
    assert {fault.split()[-1] for fault in WANTED} == set(FAULTS)
    assert dict(committed(tmp_path)) == WANTED


def test_every_fault_at_a_start_has_its_answer(tmp_path):
    """As the table says for each; theorems opened with it have their states."""
    assert {fault.split()[-1] for fault in WANTED_OPENING} < set(FAULTS)
    assert dict(committed_opening(tmp_path)) == WANTED_OPENING


def opened(found) -> str | tuple[str, ...]:
    """What came of a theorem, without what is of one run."""
    return found.goals if isinstance(found, State) else found.reason


def test_many_theorems_are_opened_in_their_order():
    """By all workers what each alone is given by one; what is none says why."""
    bad = [
        Theorem("x", "theorem t : p ∧ := by"),
        Theorem("x", "theorem t : True := by sorry\ntheorem u : True := by sorry"),
        Theorem("x", "theorem t : p\ud835"),
        Theorem("x", "theorem t : p", header="open \ud835"),
        Theorem("x", ""),
        SWAP._replace(header="import Nowhere"),
    ]
    good = [
        Theorem(f"t{i}", f"theorem t{i} (p q : Prop) (h{i} : p) : p := by")
        for i in range(12)
    ]
    asked = [one for pair in zip(good, bad * 2, strict=True) for one in pair]
    with LeanRepl(settings()) as one:
        alone = [one.start(theorem) for theorem in asked]
    with LeanRepl(settings(), workers=3) as three:
        found = three.start_many(asked)
        assert list(map(opened, found)) == list(map(opened, alone))
        assert [state.theorem for state in found[::2]] == good
        assert len({state.id for state in found[::2]}) == 12
        stats = three.stats()
        assert (stats["state"], stats["crashed"], stats["steps"]) == (12, 12, 0)
        steps = [(state, f"exact h{i}") for i, state in enumerate(found[::2])]
        assert all(isinstance(one, Proved) for one in three.run_many(steps))
        assert three.start_many([]) == []
    closed = three.start_many(good)
    assert all(isinstance(one, Crashed) and "closed" in one.reason for one in closed)


def test_all_workers_open_theorems_at_once(tmp_path):
    """Three that wait for one another: with fewer at a time none would ever open."""
    header = f"import Init\nopen Fault meet {tmp_path} 3"
    with LeanRepl(settings(), workers=3) as lean:
        found = lean.start_many([SWAP._replace(header=header)] * 7)
        assert all(isinstance(state, State) for state in found)
        assert len(list(tmp_path.iterdir())) == lean.stats()["started"] == 3


def test_processes_are_recycled_while_theorems_open():
    """Every few requests another one; a state of an earlier one is replayed."""
    with LeanRepl(settings(steps_per_process=4), workers=2) as lean:
        found = lean.start_many([SWAP] * 12)
        stats = lean.stats()
        assert stats["recycled"] == stats["started"] - 2 >= 2
        after = lean.run_many([(state, "constructor") for state in found])
        assert all(isinstance(one, Progress) for one in after)
        assert lean.stats()["replayed"] >= 4


def test_states_outlive_their_process(lean):
    """Killed from outside: any earlier state goes on, replayed by its script alone."""
    first = lean.start(SWAP)
    left = lean.run(first, "constructor").state
    right = lean.run(left, "exact hq").state
    os.killpg(process_of(lean).pid, signal.SIGKILL)
    assert lean.run(right, "skip").state.goals == right.goals
    assert lean.run(left, "skip").state.goals == left.goals
    assert lean.run(first, "skip").state.goals == first.goals
    stats = lean.stats()
    # The first replay makes all three states known again.
    assert (stats["lost/died"], stats["started"], stats["replayed"]) == (1, 2, 1)


def test_a_replay_that_ends_elsewhere_is_no_state(lean, tmp_path):
    """A tactic that worked once and does not again: Crashed, and said so."""
    state = lean.run(lean.start(SWAP), f"fault spent {tmp_path / 'spent'}").state
    process_of(lean).kill()
    found = lean.run(state, "constructor")
    assert isinstance(found, Crashed) and "failed in a replay" in found.reason
    changed = state._replace(goals=("⊢ False",), handle=lean.start(SWAP).handle)
    process_of(lean).kill()
    found = lean.run(changed, "constructor")
    assert isinstance(found, Crashed) and "other goals after a replay" in found.reason
    assert anonymous(("h : ?m.12 = ?x.3",)) == anonymous(("h : ?m.9 = ?x.77",))


def test_processes_are_recycled_by_steps():
    """Every few requests another one, and nobody notices but the counts."""
    with LeanRepl(settings(steps_per_process=4)) as lean:
        state = lean.start(SWAP)
        for _ in range(6):
            assert isinstance(lean.run(state, "constructor"), Progress)
        stats = lean.stats()
    assert stats["recycled"] == stats["started"] - 1 == stats["replayed"] >= 2


def test_starting_again_and_again_has_its_pauses():
    """Doubled each time, up to a minute; then Crashed, with what the process said."""
    pauses = []
    lean = LeanRepl(settings("--at-start=die", restarts=9), sleep=pauses.append)
    with lean:
        found = lean.start(SWAP)
    assert isinstance(found, Crashed) and "unknown package" in found.reason
    assert "no REPL after 9 tries" in found.reason
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


@pytest.mark.parametrize(
    ("options", "fields", "reason"),
    [
        (["--at-start=noise"], {}, "toolchain"),
        (["--start-seconds=9"], {"start_seconds": 0.2}, "no reply within 0.2 s"),
        ([], {"command": ("/nowhere/repl",)}, "cannot be started"),
        ([], {"imports": ("Nowhere",)}, "unknown module prefix 'Nowhere'"),
    ],
)
def test_a_repl_that_cannot_be_had_is_a_crash(options, fields, reason):
    """Noise, slowness, absence, a module that is not there: the reason is told."""
    made = settings(*options, restarts=1)
    given = {"command": made.command, "cwd": made.cwd, "imports": made.imports}
    with LeanRepl(ReplSettings(**{**given, "restarts": 1, **fields})) as lean:
        found = lean.start(SWAP)
    assert isinstance(found, Crashed) and reason in found.reason


def test_a_slow_start_is_waited_for():
    """Importing may take long; only the tactics' deadlines are short."""
    slow = settings("--start-seconds=0.4", "--import-seconds=0.4", tactic_seconds=30)
    with LeanRepl(slow) as lean:
        assert isinstance(lean.start(SWAP), State)
        assert lean.stats()["started"] == 1


def test_theorems_that_lean_refuses_are_crashes_at_the_start(lean):
    """Not failed proofs: errors, two theorems, a proof, text that is no Unicode."""
    for statement, reason in (
        ("theorem t : p ∧ := by", "has errors"),
        ("theorem t : True\ntheorem u : True := by sorry", "one theorem"),
        ("theorem t : True := by sorry\ntheorem u : True := by sorry", "no proof"),
        ("theorem t : p\ud835", "no Unicode"),
    ):
        found = lean.start(Theorem("t", statement))
        assert isinstance(found, Crashed) and reason in found.reason, found
    found = lean.start(SWAP._replace(header="import Nowhere"))
    assert isinstance(found, Crashed) and "unknown module" in found.reason
    assert isinstance(lean.start(SWAP), State)


def test_headers_come_from_pickles_after_a_restart(tmp_path):
    """Import once, elaborate once: then unpickled. A broken pickle is made anew."""
    theorem = SWAP._replace(header="import Init\nopen Nat\naxiom big : True")
    given = settings(pickles=str(tmp_path))
    with LeanRepl(given) as lean:
        assert isinstance(lean.start(theorem), State)
        (pickle,) = tmp_path.glob("*.olean")
        process_of(lean).kill()
        state = lean.start(theorem)
        assert lean.stats()["unpickled"] == 1
        assert isinstance(lean.run(state, "have h : True := big"), Progress)
        pickle.write_text("broken")
        process_of(lean).kill()
        assert isinstance(lean.run(state, "have h : True := big"), Progress)
        assert lean.stats()["unpickled"] == 1 and lean.stats()["lost/died"] == 3
        assert pickle.read_text() != "broken"
    assert split_header("import A B\n\nimport C\nopen D\n", ("M",)) == (
        ("A", "B", "C"), "open D"
    )  # fmt: skip
    assert split_header("open D", ("M",)) == (("M",), "open D")


def test_workers_share_items_and_keep_their_order(tmp_path):
    """Results as one worker gives them; a crash or a hang of one item is its own."""
    with LeanRepl(settings()) as one, LeanRepl(settings(), workers=3) as three:
        first, mine = one.start(SWAP), three.start(SWAP)
        left, right = one.run(first, "constructor"), three.run(mine, "constructor")
        tactics = ["skip", "exact hq", "exact hp", "nonsense", "sorry", ""] * 3
        alone = one.run_many([(left.state, t) for t in tactics])
        tactics[4:4] = ["fault die", "fault slow"]
        found = three.run_many([(right.state, t) for t in tactics])
        assert isinstance(found.pop(4), Crashed) and isinstance(found.pop(4), Progress)

        def plain(result):
            return result.state.goals if isinstance(result, Progress) else result

        assert list(map(plain, found)) == list(map(plain, alone))
        assert three.run_many([]) == []
        assert three.stats()["steps"] == len(tactics) + 1
        # States that one worker knew went to others, by replay.
        assert sum(w.counts["requests"] > 0 for w in three._pool.workers) == 3
    for found in three.run_many([(right.state, "skip")] * 2):
        assert isinstance(found, Crashed) and "closed" in found.reason
    with pytest.raises(ValueError, match="workers: expected at least 1"):
        LeanRepl(settings(), workers=0)


def test_a_deadline_holds_in_any_thread():
    """Within a second of it, and of everything: no signals, and no process is left."""
    seen = {}

    def work():
        with LeanRepl(settings()) as lean:
            state = lean.start(SWAP)
            group, began = process_of(lean).pid, time.monotonic()
            result = lean.run(state, "fault hang", 0.3)
            seen.update(result=result, seconds=time.monotonic() - began, group=group)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert type(seen["result"]).__name__ == "Timeout" and seen["result"].seconds == 0.3
    assert 0.3 <= seen["seconds"] < 1.3 and gone(seen["group"])


def test_a_question_that_is_not_read_has_its_deadline():
    """A process that neither reads nor writes: more than a pipe holds, and still."""
    process = ReplProcess(("sleep", "60"))
    with pytest.raises(Hung, match="no reply within 0.2 s"):
        process.ask(repl_protocol.command("x" * (1 << 20)), 0.2)
    assert gone(process.pid)
    with pytest.raises(Died, match="ended before"):
        process.ask(ASK, 1)


def test_a_reply_without_end_is_not_kept(monkeypatch):
    """Longer than any reply may be: ended at once, not at the deadline."""
    monkeypatch.setattr(repl_process, "_MOST_BYTES", 1 << 20)
    process = ReplProcess(("sh", "-c", "read x; exec yes"))
    with pytest.raises(Overgrown, match="a reply of more than 1048576 bytes"):
        process.ask(ASK, 60)
    assert gone(process.pid) and len(process._received) < 2 << 20


def test_a_process_that_starts_while_the_pool_closes_is_ended(monkeypatch):
    """close() comes when the process is there and nobody has seen it yet."""
    begun = []

    def started(*args):
        begun.append(ReplProcess(*args))
        worker.close()
        return begun[-1]

    worker = repl_worker.Worker(settings())
    monkeypatch.setattr(repl_worker, "ReplProcess", started)
    with pytest.raises(repl_worker.Unavailable, match="the pool is closed"):
        worker.goals(repl_worker.Start("", "theorem t : True"))
    assert len(begun) == 1 and gone(begun[0].pid) and worker.process is None


def test_the_whole_group_is_ended_and_no_other():
    """A grandchild (as `lake env` makes one) goes as well; bystanders stay."""
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        # The grandchild's number, where a reply would be.
        script = 'read x; sleep 60 & echo "{\\"env\\": $!}"; echo; sleep 60'
        process = ReplProcess(("sh", "-c", script))
        grandchild = process.ask(ASK, 10).env
        assert os.getpgid(grandchild) == process.pid and process.memory() > 0
        process.kill()
        assert gone(process.pid) and bystander.poll() is None
        process.kill()
        process.close()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_copy_of_us_does_not_end_what_is_not_its_own():
    """The clean-up knows who started the process: a fork that exits leaves it alone."""
    process = ReplProcess((*FAKE,), str(TESTS))
    repl_process._end(process._process, process._asking, os.getpid() + 1)
    assert process.ask(ASK, 60) == repl_protocol.CommandReply(0, (), (), (), None)
    process.close()
    assert gone(process.pid)


def test_processes_end_with_the_interpreter():
    """Without close(): the last thing that an interpreter does."""
    code = f"""
import sys
sys.path.insert(0, {str(TESTS.parent)!r})
from research.lean_star.repl_process import ReplProcess
kept = ReplProcess(("sleep", "60"))
print(kept.pid)
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True)
    assert gone(int(done.stdout)), done.stderr


def test_output_that_nobody_asked_for_is_not_taken_for_an_answer():
    """Whether it comes before the question or with the answer."""
    one, two = "printf '{\"env\": 0}\\n\\n'", "printf '{\"env\": 7}\\n\\n'"
    for script, answered in ((two, 0), (f"read x; {one}; {two}", 1)):
        process = ReplProcess(("sh", "-c", f"{script}; cat > /dev/null"))
        for _ in range(answered):
            assert process.ask(ASK, 60).env == 0
        if not process._received:
            select.select([process._process.stdout], [], [], 60)
        with pytest.raises(Garbled, match="unasked"):
            process.ask(ASK, 60)
        assert gone(process.pid)


def test_a_leak_is_seen_while_it_works(tmp_path):
    """Resident memory of the group, from /proc; 0 for a group that is none."""
    own = repl_process.group_memory(os.getpgid(0))
    status = Path("/proc/self/status").read_text()
    mine = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    assert own >= 0.9 * mine
    assert repl_process.group_memory(2**22 + 1) == 0
