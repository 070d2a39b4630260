"""Hostile programs are contained and fail; honest ones run, are judged and ordered."""

import errno
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.sandbox_attacks import ATTACKS, marked, survivors
from hypothesis import given, settings
from hypothesis import strategies as st

from research.sandbox import launch, run
from research.sandbox.limits import (
    Limits,
    ProgramResult,
    SandboxError,
    SandboxUnavailable,
    SlowSetUp,
)
from research.sandbox.run import Case, Job, judge, passes, run_many, run_program
from research.sandbox.seccomp import deny_filter

ROOT = Path(__file__).parents[2]
SMALL = Limits(
    cpu_seconds=1,
    wall_seconds=10.0,
    memory_bytes=128 << 20,
    scratch_bytes=4 << 20,
    scratch_files=32,
    processes=8,
    output_bytes=1 << 16,
)
isolated = pytest.mark.skipif(
    launch.why_not_isolated() is not None, reason="this host cannot isolate programs"
)
TOKEN = "token-" + secrets.token_hex(8)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A folder with secrets, a listening port, and an environment worth reading."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "secret.txt").write_text(TOKEN)
    (folder / "expected.txt").write_text(TOKEN)
    folder.chmod(0o777)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.MonkeyPatch.context() as p,
    ):
        p.setenv("API_TOKEN", TOKEN)
        p.chdir(folder)
        yield folder, server.getsockname()[1]


def test_a_host_that_can_isolate_is_used():
    """Where `unshare` makes the namespaces, the trial run works: nothing is skipped."""
    command = ["unshare", "-mpnf", *(["-Ur"] if os.geteuid() else []), "true"]
    try:
        able = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able or deny_filter(os.uname().machine) is None:
        pytest.skip("this host cannot isolate programs")
    assert launch.why_not_isolated() is None


def attack(name, host, mode="isolated"):
    folder, port = host
    allowed, source = ATTACKS[name]
    mark = "a" + secrets.token_hex(6)
    before = sorted(folder.iterdir())
    begun = time.monotonic()
    source = marked(source, mark, str(folder), port, os.getpid())
    # Short where it has to run out, long where a busy machine must not end it.
    waits = allowed == {"timeout"} and "infinite_loop" not in name
    limits = replace(SMALL, wall_seconds=0.8) if waits else SMALL
    result = run_program(source, "input\n", limits, mode=mode)
    assert result.status in allowed, result
    assert "LEAK" not in result.stdout and TOKEN not in result.stdout + result.stderr
    assert not passes(result, TOKEN)
    assert not survivors(mark)
    assert sorted(folder.iterdir()) == before
    assert len(result.stdout) <= SMALL.output_bytes
    assert time.monotonic() - begun < 15


@isolated
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails(name, host):
    """Score 0, no secret in the output, nothing left running or written."""
    attack(name, host)


@isolated
@pytest.mark.skipif(os.geteuid() != 0, reason="the test above took this way already")
@pytest.mark.parametrize(
    "name",
    ["read_home", "read_a_file", "tcp", "write_outside", "write_own_python", "daemon",
     "kill_parent", "trace_parent", "new_namespace", "gain_root", "memory_bomb"],
)  # fmt: skip
def test_an_attack_fails_in_a_users_namespace(name, host):
    """The way without privileges contains the same attacks, here forced on root."""
    attack(name, host, "unprivileged")


def test_an_unprivileged_user_is_protected_too(host, tmp_path):
    """Every attack, run by a user without rights, ends as it may and leaks nothing."""
    folder, port = host
    python = "/usr/bin/python3"
    script = """
import json, sys
sys.path.insert(0, sys.argv[1])
from research.sandbox import launch
from research.sandbox.limits import Limits
from research.sandbox.run import Job, run_many
if launch.why_not_isolated():
    sys.exit(launch.why_not_isolated())
limits, sources = json.load(sys.stdin)
results = run_many([Job(s, "input") for s in sources], Limits(**limits), workers=4)
print(json.dumps([(r.status, r.stdout) for r in results]))
"""
    if os.geteuid() != 0:
        pytest.skip("not root: the suite above ran as such a user")
    names = [n for n in ATTACKS if ATTACKS[n][0] != {"timeout"}]
    mark = "u" + secrets.token_hex(6)
    sources = [
        marked(ATTACKS[n][1], mark, str(folder), port, os.getpid()) for n in names
    ]
    limits = {n: getattr(SMALL, n) for n in SMALL.__dataclass_fields__}
    try:
        done = subprocess.run(
            [python, "-I", "-B", "-c", script, str(ROOT)],
            input=json.dumps([limits, sources]),
            capture_output=True, text=True, user=65534, group=65534, extra_groups=[],
            cwd="/", env={"SECRET": TOKEN}, timeout=120,
        )  # fmt: skip
    except OSError as error:
        pytest.skip(f"no system Python for another user: {error}")
    if done.returncode and "Error" in done.stderr:
        if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
            pytest.skip("the project's folder cannot be read by another user")
    if done.returncode and "namespaces" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    for name, (status, stdout) in zip(names, json.loads(done.stdout), strict=True):
        assert status in ATTACKS[name][0], (name, status, stdout)
        assert "LEAK" not in stdout and TOKEN not in stdout, (name, stdout)
    assert not survivors(mark)


@isolated
def test_the_runners_death_ends_the_program():
    """kill -9 of the process that asked leaves none of its programs behind."""
    mark = "d" + secrets.token_hex(6)
    source = marked("import time\ntime.sleep(60)", mark, "", 0, 0)
    code = (
        "from research.sandbox.run import run_program; from research.sandbox.limits "
        f"import Limits; run_program({source!r}, limits=Limits(wall_seconds=60))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as runner:
        deadline = time.monotonic() + 30
        while not survivors(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert survivors(mark)
        runner.kill()
    while survivors(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not survivors(mark)


@isolated
@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_text_comes_back_as_it_went_in(text):
    """cat(x) = x for any text without carriage returns, whatever the locale."""
    result = run_program("import sys\nsys.stdout.write(sys.stdin.read())", text)
    assert (result.status, result.stdout) == ("ok", text)


@isolated
def test_large_input_does_not_block():
    """A megabyte through both pipes at once arrives whole; one unread is no error."""
    text = "0123456789abcde\n" * (1 << 16)
    echo = "import sys\nfor line in sys.stdin: sys.stdout.write(line)"
    assert run_program(echo, text, Limits(output_bytes=1 << 21)).stdout == text
    assert run_program("print(1)", text).stdout == "1\n"


@isolated
def test_files_are_given_and_checked():
    """Files arrive byte for byte; names that leave the folder are refused."""
    files = {"a/b.bin": bytes(range(256)), "t.txt": "é"}
    source = "print(sum(open('a/b.bin','rb').read()), open('t.txt').read())"
    assert run_program(source, files=files).stdout == f"{255 * 128} é\n"
    for name in ("../x", "/x", "", "program.py", "a/../../x"):
        with pytest.raises(ValueError, match="files"):
            run_program("", files={name: ""})


@isolated
def test_the_set_up_does_not_leak_memory_or_descriptors():
    """Descriptors of this process: as many after 10 runs as before."""
    run_program("pass")
    before = len(os.listdir("/proc/self/fd"))
    for source in ("pass", "while 1: print('x' * 999)") * 5:
        run_program(source, "text" * 50000, SMALL)
    assert len(os.listdir("/proc/self/fd")) == before


@isolated
def test_run_many_keeps_order_and_tells_progress():
    """Results stand in the order of the jobs, though the first takes longest."""
    jobs = [
        Job(f"import time; time.sleep({0.4 * (i == 0)}); print({i})") for i in range(5)
    ]
    told = []
    results = run_many(jobs, workers=3, progress=lambda *place: told.append(place))
    assert [r.stdout for r in results] == [f"{i}\n" for i in range(5)]
    assert told == [(i, 5) for i in range(1, 6)]


@isolated
def test_judge_scores_case_by_case():
    """A program right on even numbers only passes exactly those cases."""
    source = "n = int(input())\nif n % 2: 1 / 0\nprint(n * n)"
    cases = [Case(str(n), f"{n * n}") for n in range(4)]
    assert judge(source, cases) == [True, False, True, False]
    assert judge(source, cases, stop_at_failure=True) == [True, False, False, False]
    assert judge("not python at all", cases[:2]) == [False, False]


def test_output_is_compared_by_lines_and_words():
    """White space at line ends and around the text is free; lines and order are not."""

    def told(stdout, status="ok"):
        return ProgramResult(status, 0, stdout, "", 0.0)

    assert passes(told("1 2\n3\n"), "1  2 \n3")
    assert not passes(told("1 2 3"), "1 2\n3")
    assert not passes(told("1\n\n2"), "1\n2")
    assert not passes(told("1", "timeout"), "1")
    assert not passes(told("1\n2"), "1") and not passes(told("1"), "1 2")


@pytest.mark.parametrize(
    ("printed", "expected", "near"),
    [
        ("0.50000", "0.5", True),
        ("0.500004", "0.5", True),  # 1e-8 + 1e-5 * 0.5 is 5.01e-6
        ("0.500006", "0.5", False),
        ("1.0", "1", True),
        ("1e3", "1000", True),
        ("-0.0", "0", True),
        ("1e-8", "0.0", True),
        ("2e-8", "0.0", False),
        ("100000001", "100000000", False),  # integers are exact
        ("+1", "1", False),
        ("1.5x", "1.5", False),
        ("1_0.0", "10.0", False),
        ("nan", "nan", True),
        ("nan", "1.0", False),
        ("1e999", "2e999", False),
        ("inf", "1e999", False),
        ("1.5", "1e999", False),
        ("0.5", "9" * 400, False),  # infinite as a float
        ("9" * 400, "9" * 400, True),
        (".5e1", "5", True),
        ("5.", "5", True),
    ],
)
def test_numbers_that_are_no_integers_may_be_near(printed, expected, near):
    """Closed form, as numpy.allclose has it where both are numbers; word by word."""
    for text in ("{}", "a {}\n{} b"):
        pair = (text.replace("{}", x) for x in (printed, expected))
        assert passes(ProgramResult("ok", 0, next(pair), "", 0.0), next(pair)) == near


@pytest.mark.parametrize("end", ["x", ".x", "e", "e+", ".5.", "e1x"])
def test_a_word_that_is_nearly_a_number_is_judged_in_time(end):
    """False at once for a megabyte of digits: the judge has no limits of its own."""
    begun = time.monotonic()
    assert not passes(ProgramResult("ok", 0, "1" * (1 << 20) + end, "", 0.0), "5")
    assert time.monotonic() - begun < 5


@isolated
def test_programs_may_use_numpy_and_see_nothing_of_their_start():
    """Closed form; the names, arguments and path are those of a program of its own."""
    source = (
        "import numpy as np\n"
        "print(np.linalg.solve(np.eye(2) * 2, np.ones(2)).sum(), np.arange(4).sum())"
    )
    result = run_program(source)
    assert (result.status, result.stdout) == ("ok", "1.0 6\n"), result
    own = (
        "names = [n for n in globals() if not n.startswith('__')]\n"
        "import os, sys, __main__\n"
        "print(names, __name__, sys.argv, __file__, __main__.names is names)\n"
        "print(sorted(os.environ.keys() - {'LC_CTYPE'}))"
    )
    assert run_program(own).stdout == (
        "[] __main__ ['program.py'] /box/program.py True\n[]\n"
    )
    failed = run_program("x = 1\nimport sys; sys.exit(3)")
    assert (failed.status, failed.returncode) == ("error", 3)
    assert 'File "program.py", line 2' in run_program("\n1 / 0").stderr


@isolated
def test_a_set_up_that_is_slow_once_loses_no_run(monkeypatch):
    """Equality: the results of others and of its second try; twice is an error."""
    watch, slow = run._watch, iter([False, True, False, False])

    def slowly(running, stdin, limits):
        if next(slow, True):
            running.close()
            raise SlowSetUp("the set-up of a program did not end")
        return watch(running, stdin, limits)

    monkeypatch.setattr(run, "_watch", slowly)
    found = run_many([Job(f"print({i})") for i in range(3)], workers=1)
    assert [r.stdout for r in found] == ["0\n", "1\n", "2\n"]
    with pytest.raises(SandboxError, match="did not end"):
        run_program("print(1)")


def test_a_trial_that_took_too_long_is_tried_again(monkeypatch):
    """Equality: the next question gets the host's own answer; that one is kept."""
    known = launch.why_not_isolated()
    launch._tried.cache_clear()
    asked = []

    def start(*args, **options):
        asked.append(args)
        if len(asked) == 1:
            return SimpleNamespace(process=Endless(), close=lambda: None)
        return launch_start(*args, **options)

    class Endless:
        def communicate(self, timeout):
            raise subprocess.TimeoutExpired("python", timeout)

    launch_start = launch.start
    monkeypatch.setattr(launch, "start", start)
    if known is None:
        assert launch.why_not_isolated() == "a trial program did not end"
    assert launch.why_not_isolated() == known == launch.why_not_isolated()
    assert len(asked) <= 2


def verdict(code: bytes, number: int) -> int:
    """What the kernel would return for a system call without arguments."""
    steps = [struct.unpack("=HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]
    machine = steps[1][3]  # what the first comparison wants
    data = {0: number, 4: machine, 16: 0}
    place, held = 0, 0
    while True:
        kind, yes, no, value = steps[place]
        match kind:
            case 0x20:
                held, jump = data[value], 0
            case 0x15:
                jump = yes if held == value else no
            case 0x35:
                jump = yes if held >= value else no
            case 0x45:
                jump = yes if held & value else no
            case 0x06:
                return value
        place += 1 + jump


@pytest.mark.parametrize(
    ("machine", "calls"),
    [("x86_64", {"syslog": 103, "ptrace": 101}), ("aarch64", {"syslog": 116})],
)
def test_the_call_filter_denies_by_number(machine, calls):
    """Closed form: EPERM for these, leave for write and clone without namespaces."""
    code = deny_filter(machine)
    for name, number in calls.items():
        assert verdict(code, number) == 0x00050000 | errno.EPERM, name
    for number in {"x86_64": (1, 56), "aarch64": (64, 220)}[machine]:
        assert verdict(code, number) == 0x7FFF0000


def test_a_host_without_isolation_is_refused(monkeypatch):
    """Nothing runs unprotected unless asked for by name; then limits still bind."""
    monkeypatch.setattr(launch, "why_not_isolated", lambda: "no namespaces")
    with pytest.raises(SandboxUnavailable, match="no namespaces"):
        run_program("print(1)")
    # Processes count together with all others of the user here: no forks.
    assert run_program("print(1)", mode="limits").stdout == "1\n"
    result = run_program("while 1: pass", "", SMALL, mode="limits")
    assert result.status == "timeout" and result.seconds < SMALL.wall_seconds
    assert run_program("x = 'a' * 10**10", mode="limits").status == "memory"


@pytest.mark.parametrize(
    "field, value", [("cpu_seconds", 0), ("processes", 1.5), ("wall_seconds", "9"),
                     ("memory_bytes", True), ("wall_seconds", float("nan"))],
)  # fmt: skip
def test_a_bad_limit_is_named(field, value):
    """The message starts with the field."""
    with pytest.raises(ValueError, match=rf"limits\.{field}: expected"):
        Limits(**{field: value})


def test_the_call_filter_is_well_formed():
    """Every jump lands inside, and the last instruction returns, on both machines."""
    for machine in ("x86_64", "aarch64"):
        code = deny_filter(machine)
        steps = [code[i : i + 8] for i in range(0, len(code), 8)]
        for i, step in enumerate(steps):
            if step[0] & 7 == 5:
                assert i + 1 + max(step[2], step[3]) < len(steps)
        assert steps[-1][0] == 6
    assert deny_filter("sparc") is None
