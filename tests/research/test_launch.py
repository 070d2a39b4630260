"""A command runs on every worker of a slice, whatever happens to the slice meanwhile.

The slice is `helpers.gcloud.Cloud`: a gcloud on PATH that refuses what gcloud refuses,
with workers on which `launch/worker.sh` runs for real.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers.gcloud import Cloud, short, write_program
from hypothesis import given, settings
from hypothesis import strategies as st

from research import launch, slice_runs, slices
from research.slices import Request, SliceType, Worker, parse_tpu
from train.errors import ConfigError

ROOT = Path(__file__).parents[2]
SLICE = ("--name=ppo", "--zone=us-west4-a")
NEW = (*SLICE, "--tpu=v5p-16")  # two hosts
REQUEST = Request("ppo", "us-west4-a", None, parse_tpu("v5e-16"), commit="c0ffee")

JOB = r"""
echo "begin $HOSTNAME"
case $1 in
arguments) printf '%s\0' "$@" > "$HOME/arguments" ;;
fail) if [ "$HOSTNAME" = "t1v-n-0-w-$2" ]; then echo "the reason"; exit "$3"; fi ;;
wait)
    trap 'echo saved; exit 75' TERM
    for i in $(seq 600); do
        if [ -f "$HOME/go" ]; then exit 0; fi
        sleep 0.05
    done ;;
second) # waits the first time, which leaves a file in folder $2; then ends well
    if [ -f "$2/$HOSTNAME" ]; then echo "continued"; exit 0; fi
    touch "$2/$HOSTNAME"
    sleep 30 ;;
esac
"""
FIRST = [  # all that a launch does on a new slice, and looking at it in between
    "create", "describe", "describe", "status", "scp", "unpack", "install", "start",
]  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    (root / "launch").mkdir()
    (root / "configs").mkdir()
    shutil.copy(ROOT / slices.WORKER_FILE, root / "launch")
    (root / "configs" / "ppo.py").write_text("")
    (root / "job.sh").write_text(JOB)
    for name in ("requirements.txt", "requirements-tpu.txt", "constraints.txt"):
        (root / name).write_text(name)
    git = ["git", "-C", root, "-c", "user.name=n", "-c", "user.email=e"]
    for more in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *more], check=True)
    return root


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    made = Cloud(tmp_path / "cloud")
    monkeypatch.setenv("PATH", f"{made.path}:{os.environ['PATH']}")
    assert shutil.which("gcloud") == str(made.path / "gcloud")
    yield made
    made.close()


@pytest.fixture
def run(cloud, repository, capsys):
    """Runs the program; returns (exit code, stdout, what it said)."""

    def run(*arguments, job=(), show=slice_runs.show, root=repository):
        said = []
        runner = slice_runs.Runner(
            slice_runs.call, show, lambda seconds: None, said.append, window=5
        )
        command = ["--", "bash", "job.sh", *job] if job else []
        code = launch.main(["launch", *arguments, *command], runner, root)
        out, err = capsys.readouterr()
        return code, out, "\n".join([*said, err]).strip()

    return run


# -- Names of slices -----------------------------------------------------------


@pytest.mark.parametrize(
    "text, accelerator, chips, hosts",
    [
        ("v5e-64", "v5litepod-64", 64, 16), ("v5litepod-16", "v5litepod-16", 16, 4),
        ("v5e:8x8", "v5litepod-64", 64, 16), ("v5e-8", "v5litepod-8", 8, 1),
        ("v5e-1", "v5litepod-1", 1, 1), ("v6e:16x16", "v6e-256", 256, 64),
        ("v6e-8", "v6e-8", 8, 1), ("v5p-128", "v5p-128", 64, 16),
        ("v5p:4x4x4", "v5p-128", 64, 16), ("v5p:16x16x24", "v5p-12288", 6144, 1536),
        ("v4-8", "v4-8", 4, 1), ("v4:2x2x4", "v4-32", 16, 4),
    ],
)  # fmt: skip
def test_spellings_of_a_slice(text, accelerator, chips, hosts):
    tpu = parse_tpu(text)
    assert (tpu.accelerator, tpu.chips, tpu.hosts) == (accelerator, chips, hosts)


@pytest.mark.parametrize(
    "text, message",
    [
        ("v6x-8", "did you mean 'v6e'"), ("h100-8", "known: v4, v5e, v5litepod"),
        ("v5e-63", "expected one of v5litepod-1 (1x1)"), ("v5e", "e.g. v5e-64"),
        ("v5p:4x4", "v5p-128 (4x4x4)"), ("v5e-0x8", "no slice"), ("", "got ''"),
    ],
)  # fmt: skip
def test_unknown_slices(text, message):
    with pytest.raises(ConfigError, match="^--tpu: ") as error:
        parse_tpu(text)
    assert message in str(error.value)


def test_every_shape_has_its_own_type():
    for kind in slices.KINDS:
        types = [SliceType(kind, shape) for shape in kind.shapes]
        assert len({t.accelerator for t in types}) == len(types)
        for t in types:
            assert parse_tpu(t.accelerator) == parse_tpu(f"{kind.name}:{t.shape}") == t
            assert t.hosts * (t.chips if t.hosts == 1 else 4) == t.chips


# -- Commands ------------------------------------------------------------------


def test_the_commands_that_create():
    vm = "gcloud compute tpus tpu-vm create ppo --accelerator-type=v5litepod-16"
    where = "--zone=us-west4-a --quiet"
    assert shlex.join(slices.create(REQUEST)) == (
        f"{vm} --version=v2-alpha-tpuv5-lite {where}"
    )
    spot = REQUEST._replace(spot=True, runtime="mine", project="p")
    assert shlex.join(slices.create(spot)) == (
        f"{vm} --version=mine --spot --zone=us-west4-a --project=p --quiet"
    )
    queue = REQUEST._replace(spot=True, queued=True, tpu=parse_tpu("v5p-16"))
    assert shlex.join(slices.create(queue)) == (
        "gcloud compute tpus queued-resources create ppo --node-id=ppo "
        f"--accelerator-type=v5p-16 --runtime-version=v2-alpha-tpuv5 --spot {where}"
    )


words = st.lists(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
    | st.sampled_from(
        ["$(touch x)", "`id`", "a b", "'", '"', "\\", "\n", "-", "*", ""]
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(words)
def test_the_runs_arguments_stay_arguments(arguments):
    """A shell, ours or a worker's, sees each as one word, whatever is in it."""
    command = slices.start(REQUEST._replace(command=tuple(arguments)))
    assert shlex.split(shlex.join(command)) == command
    (script,) = [c for c in command if c.startswith("--command=")]
    # What gcloud and ssh do with it: cut at spaces, then joined again.
    sent = " ".join(script.removeprefix("--command=").split(" "))
    run = REQUEST._replace(command=tuple(arguments)).run
    assert shlex.split(sent) == ["bash", slices.WORKER, "start", run, *arguments]


@settings(max_examples=20, deadline=None)
@given(arguments=words)
def test_bash_sees_them_so_too(tmp_path_factory, arguments):
    home = tmp_path_factory.getbasetemp() / "quoting"
    program = home / slices.WORKER
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("printf '%s\\0' \"$@\"")
    script = slices.worker("start", *arguments)
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True)
    assert done.stdout.decode() == "".join(a + "\0" for a in ("start", *arguments))
    assert done.stderr == b"" and os.listdir(home) == [slices.HOME]


def test_runs_are_the_same_by_code_and_command():
    one = REQUEST._replace(command=("a", "b"))
    assert one.run == one._replace(spot=True, queued=True).run
    others = {("a b",), ("a", "b", ""), ("b", "a")}
    assert len({one._replace(command=c).run for c in others} | {one.run}) == 4
    assert one._replace(commit="other").run != one.run


# -- States --------------------------------------------------------------------


def node(state, accelerator="v5litepod-16"):
    return {"state": state, "acceleratorType": accelerator}


def queued(state):
    return {"state": {"state": state, "failedData": {"error": {"message": "why"}}}}


@pytest.mark.parametrize(
    "queue, vm, step",
    [
        (None, None, "create"), (None, "READY", "ready"), (None, "CREATING", "wait"),
        (None, "REPAIRING", "wait"), (None, "PREEMPTED", "delete"),
        (None, "TERMINATED", "delete"), (None, "DELETING", "wait"),
        ("ACCEPTED", None, "wait"), ("WAITING_FOR_RESOURCES", None, "wait"),
        ("PROVISIONING", None, "wait"), ("PROVISIONING", "CREATING", "wait"),
        ("ACTIVE", "READY", "ready"), ("ACTIVE", None, "delete"),
        ("SUSPENDING", None, "wait"), ("SUSPENDED", None, "delete"),
        ("SUSPENDED", "PREEMPTED", "delete"), ("DELETING", None, "wait"),
    ],
)  # fmt: skip
def test_what_to_do_next(queue, vm, step):
    given = queued(queue) if queue else None, node(vm) if vm else None
    assert slices.next_step(REQUEST, *given) == step


@pytest.mark.parametrize(
    "queue, vm, message",
    [
        (
            None,
            node("READY", "v6e-16"),
            "is there and is v6e-16; expected v5litepod-16",
        ),
        (None, node("STOPPED"), "is STOPPED; expected READY"),
        (queued("FAILED"), None, "the request ppo failed: why"),
    ],
)
def test_slices_that_cannot_be_used(queue, vm, message):
    with pytest.raises(ConfigError, match=message):
        slices.next_step(REQUEST, queue, vm)


def workers(text):
    """'running exited:0' as workers 0 and 1."""
    found = []
    for i, word in enumerate(text.split()):
        state, _, code = word.partition(":")
        found.append(Worker(f"n-w-{i}", "id", state, int(code) if code else None, 9))
    return found


@pytest.mark.parametrize(
    "text, how",
    [
        ("running running", "running"), ("running", "unknown"), ("", "unknown"),
        ("exited:0 running", "running"), ("exited:0 exited:0", "finished"),
        ("exited:1 running", "failed"), ("exited:0 lost", "failed"),
        ("exited:75 exited:0", "interrupted"), ("exited:75 running", "running"),
        ("stopped:75 exited:0", "stopped"), ("stopped:137 stopped:75", "stopped"),
        ("absent absent", "idle"), ("idle running", "idle"),
        ("exited:3 exited:75", "failed"),
    ],
)  # fmt: skip
def test_how_a_run_is(text, how):
    assert slices.verdict(workers(text), 2) == how


def test_reading_what_workers_say_amid_noise():
    out = (
        "SSH: Attempting\nsalign-worker t1v-n-w-10 ab exited 3 70\r\n"
        "salign-worker t1v-n-w-2 ab running - 12\nsalign-worker x y\n"
        "salign-worker lone - absent - 0\n"
    )
    found = slices.read_status(out)
    assert [(w.index, w.state, w.code, w.bytes) for w in found] == [
        (0, "absent", None, 0), (2, "running", None, 12), (10, "exited", 3, 70),
    ]  # fmt: skip


# -- The dry run ---------------------------------------------------------------


def test_a_dry_run_prints_what_a_shell_can_run(run, cloud, repository, tmp_path):
    hostile = "a b'\"$(touch x)`\\\n*"
    code, out, said = run(*NEW, "--spot", "--queued", job=GS("arguments", hostile))
    assert code == 0 and cloud.calls() == [] and "dry run" in said
    assert "# a slice v5p-16: 8 chips, 2x2x2, on 2 hosts" in out
    assert "uncommitted" not in said
    done = subprocess.run(
        ["bash", "-e", "-c", out], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [short(c).split()[-1] for c in cloud.calls()] == [
        "create", "describe", "scp", "unpack", "install", "start", "follow", "status",
        "stop", "delete",
    ]  # fmt: skip
    assert "begin t1v-n-0-w-0" in done.stdout
    start = next(c for c in cloud.calls() if short(c) == "start")
    script = next(a for a in start if a.startswith("--command="))
    assert shlex.split(script)[-4:] == ["job.sh", *GS("arguments", hostile)]
    assert not cloud.read()["nodes"] and not cloud.read()["queues"]


def GS(*arguments):
    return (*arguments, "--workdir=gs://b/w")


@pytest.mark.parametrize(
    "flag, verbs",
    [("--attach", ["follow", "status"]), ("--stop", ["stop"]),
     ("--delete", ["tpu-vm delete"])],
)  # fmt: skip
def test_dry_runs_of_the_rest(run, cloud, flag, verbs):
    code, out, _ = run(*SLICE, flag)
    lines = [shlex.split(x) for x in out.splitlines() if not x.startswith("#")]
    assert code == 0 and [short(x[1:]) for x in lines] == verbs
    assert cloud.calls() == []


@pytest.mark.parametrize(
    "arguments, job, message",
    [
        (["--zone=us-west4-a"], ("x",), "--name: missing"),
        (["--name=ppo"], ("x",), "--zone: missing"),
        (["--name=-x", "--zone=us-west4-a"], ("x",), "--name: expected lower-case"),
        (["--name=ppo", "--zone=$(id)"], ("x",), "--zone: expected a zone"),
        ([*SLICE], ("x",), "--tpu: missing"),
        ([*NEW], (), "the run's command is missing"),
        ([*NEW, "--project=-p"], ("x",), "--project: expected"),
        ([*NEW, "--runtime=--x"], ("x",), "--runtime: expected"),
        ([*NEW, "--restarts=-1"], ("x",), "--restarts"),
        ([*NEW, "--sopt"], ("x",), "Did you mean: spot"),
        ([*NEW, "python"], ("x",), "unexpected argument 'python'"),
        ([*NEW, "--spot"], ("x", "--workdir=runs/x"), "got 'runs/x'"),
        ([*NEW, "--spot"], ("x",), "expected --workdir=gs://... in the command"),
        ([*NEW, "--spot"], (*GS("x"), "--workdir", "/mnt/x"), "got '/mnt/x'"),
        ([*SLICE, "--stop"], ("x",), "--stop: takes no command"),
        ([*SLICE, "--stop", "--delete"], (), "--delete: not together with --stop"),
        ([*NEW], ("x", "--config=configs/no.py:a"), "configs/no.py: not in commit"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_nothing_is_done(
    run, cloud, arguments, job, message
):
    for more in ([], ["--yes"]):
        code, out, said = run(*arguments, *more, job=job)
        assert code == 2 and out == ""
        errors = [x for x in said.splitlines() if not x.startswith("warning: ")]
        assert len(errors) == 1 and errors[0].startswith("error: "), said
        assert message in errors[0]
    assert cloud.calls() == []


def test_the_slice_gets_what_is_committed(run, repository, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "configs" / "new.py").write_text("")
    job = ("x", "--config=configs/ppo.py:mini")
    code, _, said = run(*NEW, job=job, root=copy)
    assert code == 0
    assert "1 uncommitted changes are not copied, e.g. configs/new.py" in said
    assert "--workdir=None is a folder of its own on each of the 2 hosts" in said
    code, _, said = run(*NEW, job=("x", "--config", "configs/new.py"), root=copy)
    assert code == 2 and "configs/new.py: not in commit" in said


def test_without_gcloud_there_is_only_the_dry_run(run, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert run(*NEW, job=GS("x"))[0] == 0
    code, _, said = run(*NEW, "--yes", job=GS("x"))
    assert code == 2 and "gcloud is not on PATH" in said and "cloud.google.com" in said


# -- Runs ----------------------------------------------------------------------


def verbs_of(cloud):
    return [v.split()[-1] for v in cloud.verbs()]


def test_a_run_on_a_new_slice_and_again(run, cloud):
    hostile = "a b'\"$(touch x)`\\\n*é"
    job = GS("arguments", hostile)
    code, out, said = run(*NEW, "--yes", job=job)
    assert code == 0, said
    assert out == "begin t1v-n-0-w-0\n"
    assert verbs_of(cloud) == ["describe", "describe", *FIRST] + [
        "follow", "describe", "status",
    ]  # fmt: skip
    for i in range(2):
        home = cloud.worker("ppo", i)
        sent = (home / "arguments").read_bytes().decode().split("\0")[:-1]
        assert tuple(sent) == job
        assert (home / "salign/run/code").read_text() == "0\n"
        assert (home / "calls").read_text() == (
            "pip -m pip install --quiet --disable-pip-version-check "
            "-r requirements.txt -r requirements-tpu.txt -c constraints.txt\n"
        )
    assert "ended well on all hosts" in said and "--yes --delete" in said
    before = len(cloud.calls())
    code, _, _ = run(*NEW, "--yes", job=job)  # the slice and the environment are there
    assert code == 0 and "create" not in verbs_of(cloud)[before:]
    assert (cloud.worker("ppo", 0) / "calls").read_text().count("pip install") == 1
    logs = list(cloud.worker("ppo", 0).glob("salign/earlier.*/run/log"))
    assert len(logs) == 1


def test_a_slice_that_is_there_is_used_if_it_is_the_right_one(run, cloud):
    cloud.add("ppo", "v5litepod-16")
    code, _, said = run(*NEW, "--yes", job=("x",))
    assert code == 2 and "is there and is v5litepod-16" in said
    cloud.add("ppo", state="STOPPED")
    assert run(*NEW, "--yes", job=("x",))[0] == 2
    cloud.add("ppo")
    assert run(*NEW, "--yes", job=("x",))[0] == 0
    assert "create" not in verbs_of(cloud)


def test_an_old_python_on_the_workers_is_replaced(run, cloud):
    (cloud.folder / "old_python").touch()
    assert run(*NEW, "--yes", job=("x",))[0] == 0
    calls = (cloud.worker("ppo", 1) / "calls").read_text()
    assert calls.startswith("uv venv --quiet --seed --python 3.12 ")
    assert "-r requirements-tpu.txt" in calls


def test_the_queue_is_waited_for(run, cloud):
    states = ["ACCEPTED", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES"]
    cloud.plan(queue=[*states, "PROVISIONING", "ACTIVE"])
    code, _, said = run(*NEW, "--queued", "--yes", job=("x",))
    assert code == 0, said
    told = [x for x in said.splitlines() if x.endswith("waiting")]
    assert told == [f"ppo is {s}: waiting" for s in (*states[:2], "PROVISIONING")]
    assert cloud.verbs().count("queued-resources create") == 1


def test_a_request_that_failed(run, cloud):
    cloud.plan(queue=["FAILED"])
    code, _, said = run(*NEW, "--queued", "--yes", job=("x",))
    assert code == 2 and "the request ppo failed: E; --delete it" in said


@pytest.mark.parametrize("more", [[], ["--queued"]])
def test_a_preempted_slice_is_made_anew_and_the_run_continues(
    run, cloud, tmp_path, more
):
    cloud.plan(preempt=[True])
    full = "There is no more capacity in the zone"
    cloud.plan(create=[None, full, None])
    job = GS("second", str(tmp_path))
    code, out, said = run(*NEW, "--spot", *more, "--yes", job=job)
    assert code == 0, said
    assert out.endswith("begin t1v-n-0-w-0\ncontinued\n")
    assert "preempted: ppo is PREEMPTED; restart 1 of at most 20" in said
    assert "the zone has no room for it: waiting" in said
    verbs = [v for v in cloud.verbs() if v.endswith(("create", "delete", "start"))]
    kind = "queued-resources" if more else "tpu-vm"
    create, delete = f"{kind} create", f"{kind} delete"
    assert verbs == [create, "start", delete, create, create, "start"]
    first, second = (c for c in cloud.calls() if short(c) == "start")
    assert first == second


def test_only_so_many_restarts(run, cloud, tmp_path):
    cloud.plan(preempt=[True, True, True])
    code, _, said = run(
        *NEW, "--spot", "--restarts=1", "--yes", job=GS("second", str(tmp_path / "no"))
    )
    assert code == 4 and "no restart is left" in said
    assert cloud.verbs().count("start") == 2


def test_no_room_for_a_new_slice(run, cloud):
    cloud.plan(create=["RESOURCE_EXHAUSTED: no capacity"])
    code, _, said = run(*NEW, "--yes", job=("x",))
    assert code == 5 and "no capacity" in said and "--queued waits for room" in said


def test_a_worker_that_fails_ends_the_run_and_says_why(run, cloud):
    code, _, said = run(*NEW, "--yes", job=("fail", "1", "7"))
    assert code == 1
    assert (
        "the last lines of worker 1 (t1v-n-0-w-1):\nbegin t1v-n-0-w-1\nthe reason"
        in (said)
    )
    assert "error: the run failed on workers 1 (7)" in said


def test_a_command_that_is_not_there(run, cloud):
    code, _, said = run(*NEW, "--yes", "--", "no-such-program")
    assert code == 1 and "no-such-program: command not found" in said
    assert "workers 0 (127), 1 (127)" in said


def test_a_broken_connection(run, cloud, monkeypatch):
    monkeypatch.setattr(slice_runs, "SILENCES", 3)
    # status, unpack; install fails
    cloud.plan(ssh=[None, None, 255])
    code, _, said = run(*NEW, "--yes", job=("x",))
    assert code == 5 and "install: exit code 255" in said and "planned" in said
    cloud.plan(ssh=[None, None, None, None, 255, 255, 255])  # two answers are missing
    code, out, said = run(*NEW, "--yes", job=("x",))
    assert code == 0 and "begin t1v-n-0-w-0" in out
    cloud.plan(ssh=[None, None, None, None, *[255] * 9])
    code, _, said = run(*NEW, "--yes", job=("x",))
    assert code == 5 and "cannot reach all workers" in said


def test_errors_of_gcloud_are_not_taken_for_a_missing_slice(run, cloud):
    text = "echo 'ERROR: PERMISSION_DENIED: no tpu.nodes.get' >&2; exit 1"
    write_program(cloud.path / "gcloud", f"#!/bin/sh\n{text}\n")
    code, _, said = run(*NEW, "--yes", job=("x",))
    assert code == 5 and "PERMISSION_DENIED" in said


def alive(cloud, index):
    home = cloud.worker("ppo", index) / "salign/run"
    return (
        not (home / "code").exists()
        and Path("/proc", (home / "pid").read_text().strip()).exists()
    )


def interrupted(command):
    raise KeyboardInterrupt


def test_detaching_attaching_stopping_deleting(run, cloud):
    code, _, said = run(*NEW, "--yes", job=("wait",), show=interrupted)
    assert code == 130 and "detached" in said
    for verb in ("attach", "stop", "delete"):
        line = f"python -m research.launch {' '.join(SLICE)} --yes --{verb}"
        assert line in said
    assert all(alive(cloud, i) for i in range(2))
    # Another command is refused; the same one attaches, and starts nothing.
    code, _, said = run(*NEW, "--yes", job=("wait", "longer"))
    assert code == 2 and "another run going on" in said
    before = len(cloud.calls())
    code, _, said = run(*NEW, "--yes", job=("wait",), show=interrupted)
    assert code == 130 and "going on already" in said
    assert "start" not in verbs_of(cloud)[before:]
    for i in range(1, 2):
        (cloud.worker("ppo", i) / "go").touch()
    # Stopped: it saved on worker 0; whoever follows learns that it was stopped.
    code, _, said = run(*SLICE, "--stop", "--yes")
    assert code == 0 and "worker 0: stopped, exit code 75" in said
    code, out, said = run(*SLICE, "--attach", "--yes")
    assert code == 75 and out.endswith("saved\n") and "was stopped" in said
    assert run(*SLICE, "--delete", "--yes")[0] == 0
    code, _, said = run(*SLICE, "--delete", "--yes")
    assert code == 0 and "ppo is not there" in said
    assert run(*SLICE, "--attach", "--yes")[0] == 2
    assert run(*SLICE, "--stop", "--yes")[0] == 2


def test_attaching_to_a_run_that_ends(run, cloud):
    assert run(*NEW, "--yes", job=("wait",), show=interrupted)[0] == 130
    for i in range(2):
        (cloud.worker("ppo", i) / "go").touch()
    code, out, _ = run(*SLICE, "--attach", "--yes")
    assert code == 0 and out == "begin t1v-n-0-w-0\n"


def test_a_run_on_some_workers_only_is_started_on_all(run, cloud):
    assert run(*NEW, "--yes", job=("wait",), show=interrupted)[0] == 130
    home = cloud.worker("ppo", 1)
    os.killpg(int((home / "salign/run/pid").read_text()), signal.SIGKILL)
    shutil.rmtree(home)  # as after a repair
    code, _, said = run(*NEW, "--yes", job=("wait",), show=interrupted)
    assert code == 130 and "started on 2 hosts" in said
    assert all(alive(cloud, i) for i in range(2))


def test_an_empty_slice_has_nothing_to_attach_to(run, cloud):
    cloud.add("ppo")
    code, _, said = run(*SLICE, "--attach", "--yes")
    assert code == 2 and "no run on all workers" in said


def test_a_queued_slice_is_deleted_with_its_request(run, cloud):
    assert run(*NEW, "--queued", "--yes", job=("x",))[0] == 0
    assert run(*SLICE, "--delete", "--yes")[0] == 0
    assert cloud.read()["nodes"] == cloud.read()["queues"] == {}


def test_ctrl_c_ends_the_process_but_not_the_run(cloud, repository):
    code = (
        "import sys\nfrom pathlib import Path\nfrom research.launch import main\n"
        f"sys.exit(main(sys.argv, root=Path({str(repository)!r})))"
    )
    arguments = [*NEW, "--yes", "--", "bash", "job.sh", "wait"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begin t1v-n-0-w-0\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "detached" in err and "Traceback" not in err
    time.sleep(0.1)
    assert all(alive(cloud, i) for i in range(2))


def test_help_names_every_exit_code_and_flag(run):
    code, out, _ = run("--help")
    assert code == 0
    for n in (0, 1, 2, 4, 5, 75, 130):
        assert f" {n} " in out.partition("Exit codes:")[2]
    for flag in ("--yes", "--queued", "--spot", "--restarts", "--attach", "--stop"):
        assert flag in out


# -- For other launchers -------------------------------------------------------


def test_the_skypilot_file_names_what_is_there():
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    resources = task["resources"]
    kind = parse_tpu(resources["accelerators"].removeprefix("tpu-")).kind
    assert resources["accelerator_args"] == {"runtime_version": kind.runtime}
    assert resources["use_spot"] and task["workdir"] == "."
    assert task["setup"].strip() == f"bash {slices.WORKER_FILE} install"
    script = (ROOT / slices.WORKER_FILE).read_text()
    for name in ("requirements.txt", "requirements-tpu.txt", "constraints.txt"):
        assert name in script and (ROOT / name).is_file()
    assert (ROOT / task["envs"]["CONFIG"].partition(":")[0]).is_file()
    words = shlex.split(task["run"].replace("\\\n", " "))
    assert words[:5] == ["bash", slices.WORKER_FILE, "exec", "python", "-m"]
    assert (ROOT / (words[5].replace(".", "/") + ".py")).is_file()
    used = {w.partition("=")[2].lstrip("$") for w in words if "=$" in w}
    assert used == set(task["envs"])


def test_the_xpk_script_quotes_the_command(tmp_path):
    write_program(tmp_path / "xpk", "#!/bin/bash\nprintf '%s\\0' \"$@\"\n")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["python", "-m", "train.ppo", "a b'$(id)\n", "--workdir=gs://b/w"]
    arguments = ["bash", ROOT / "launch/xpk.sh", "pods", "ppo", "v5litepod-64"]
    done = subprocess.run(
        [*arguments, *command], env=environment, capture_output=True, check=True
    )
    words = done.stdout.decode().split("\0")[:-1]
    assert words[:2] == ["workload", "create"] and "--tpu-type=v5litepod-64" in words
    script = words[-1].removeprefix("--command=")
    assert "\n" not in script
    show = script.replace("bash launch/worker.sh install && ", "").replace(
        "bash launch/worker.sh exec", "printf '%s\\0'"
    )
    out = subprocess.run(["bash", "-c", show], capture_output=True).stdout.decode()
    assert out.split("\0")[:-1] == command
    local = [*arguments, "python", "--workdir=runs/x"]
    done = subprocess.run(local, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "--workdir=gs://" in done.stderr
