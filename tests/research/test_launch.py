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
from helpers.gcloud import Cloud, make_repository, short, write_program

from research import launch, slice_runs

ROOT = Path(__file__).parents[2]
SLICE = ("--name=ppo", "--zone=us-west4-a")
NEW = (*SLICE, "--tpu=v5p-16")  # two hosts
ONE = (*SLICE, "--tpu=v5e-4")  # one
FIRST = [  # all that a launch does on a new slice, and looking at it in between
    "create", "describe", "describe", "status", "scp", "unpack", "install", "start",
]  # fmt: skip
EXPERIMENT = ("python", "-m", "research.run", "--config=configs/ppo.py")


def GS(*arguments):
    return (*arguments, "--workdir=gs://bucket/w")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("repository"), ROOT)


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
        ([*NEW], ("x", "--workdir=gs://b"), "expected gs://BUCKET/NAME, got 'gs://b'"),
        ([*ONE, "--spot"], EXPERIMENT, "--spot: a preempted slice takes its disks"),
        ([*ONE], GS(*EXPERIMENT), "research.run keeps its stages on a local disk"),
        ([*NEW], EXPERIMENT, "research.run works on one host, this slice has 2"),
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
        ([*NEW], ("x", "--workdir=runs/x"), "--workdir: runs/x is a folder of its own"),
        ([*NEW], ("python", "-m", "train.sft"), "or --shared_workdir where all mount"),
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


@pytest.mark.parametrize(
    "slice, command, more",
    [
        (NEW, "python -m train.ppo --workdir=gs://bucket/x", ("--distributed=auto",)),
        (ONE, "python -m train.ppo --workdir=gs://bucket/x", ()),
        (NEW, "python -m train.sft --distributed=off", ()),
        (NEW, "python -m train.dpo --coordinator=a:1 --num-processes=2", ()),
        (NEW, "bash job.sh", ()),
    ],
)
def test_processes_on_several_hosts_find_one_another(slice, command, more):
    """Else each would make a run of its own, in the same folder."""
    values, words = launch.parse(["launch", *slice, "--", *command.split()])
    assert launch.read_request(values, words).command == (*words, *more)


@pytest.mark.parametrize("slice", [(*NEW, "--shared_workdir"), ONE])
def test_a_folder_that_all_hosts_have_may_be_on_a_disk(run, slice):
    """One that they mount, or that of the only host: no error, no warning."""
    code, out, said = run(*slice, job=("x", "--workdir=/mnt/runs/x"))
    assert code == 0 and "--workdir=/mnt/runs/x" in out and "warning" not in said


def test_the_slice_gets_what_is_committed(run, repository, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "configs" / "new.py").write_text("")
    job = ("x", "--config=configs/ppo.py:mini")
    code, _, said = run(*NEW, job=job, root=copy)
    assert code == 0
    assert "1 uncommitted changes are not copied, e.g. configs/new.py" in said
    assert "on disk is a folder of its own on each of the 2 hosts" in said
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
    assert "interrupted: ppo is PREEMPTED; restart 1 of at most 20" in said
    assert "the zone has no room for it: waiting" in said
    verbs = [v for v in cloud.verbs() if v.endswith(("create", "delete", "start"))]
    kind = "queued-resources" if more else "tpu-vm"
    create, delete = f"{kind} create", f"{kind} delete"
    assert verbs == [create, "start", delete, create, create, "start"]
    first, second = (c for c in cloud.calls() if short(c) == "start")
    assert first == second


@pytest.mark.parametrize("how", ["76", "134", "gone"])
def test_a_lost_host_of_a_slice_that_stays_is_one_restart(run, cloud, tmp_path, how):
    """The other host, which would wait for it, is stopped; then both start again."""
    code, out, said = run(*NEW, "--spot", "--yes", job=GS("lose", str(tmp_path), how))
    assert code == 0, said
    assert out.endswith("begin t1v-n-0-w-0\ncontinued\n")
    word = "lost" if how == "gone" else how
    assert f"interrupted: the run lost a host: workers 1 ({word}); restart 1" in said
    verbs = verbs_of(cloud)
    assert verbs.count("create") == 1 and verbs.count("start") == 2
    assert verbs.index("stop") > verbs.index("start") and "delete" not in verbs
    earlier = next(cloud.worker("ppo", 0).glob("salign/earlier.*/run"))
    assert (earlier / "stopped").exists() and (earlier / "code").read_text() == "75\n"


def test_hosts_are_not_lost_for_ever(run, cloud, tmp_path):
    code, _, said = run(
        *NEW, "--restarts=2", "--yes", job=("fail", "1", "76")
    )  # fmt: skip
    assert code == 4 and "no restart is left" in said
    assert cloud.verbs().count("start") == 3


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
