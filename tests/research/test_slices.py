"""Names, commands and states of slices, as pure functions; files for other launchers.

What the commands do is in test_launch.py.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers.gcloud import write_program
from hypothesis import given, settings
from hypothesis import strategies as st

from research import slice_workers, slices
from research.slice_workers import Worker
from research.slices import Request, SliceType, parse_tpu
from train.chips import parse_slice
from train.errors import ConfigError

ROOT = Path(__file__).parents[2]
REQUEST = Request("ppo", "us-west4-a", None, parse_tpu("v5e-16"), commit="c0ffee")


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
    """And is a slice to plan for."""
    for kind in slices.KINDS:
        types = [SliceType(kind, shape) for shape in kind.shapes]
        assert len({t.accelerator for t in types}) == len(types)
        for t in types:
            assert parse_tpu(t.accelerator) == parse_tpu(f"{kind.name}:{t.shape}") == t
            assert parse_slice(f"{kind.name}:{t.shape}").chips == t.chips
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
        ("exited:1 running", "failed"), ("exited:0 lost", "interrupted"),
        ("exited:76 lost", "interrupted"), ("lost running", "interrupted"),
        ("exited:134 lost", "interrupted"), ("exited:76 running", "interrupted"),
        ("exited:134 exited:76", "interrupted"), ("exited:137 exited:76", "failed"),
        ("exited:1 exited:76", "failed"), ("exited:134 exited:2", "failed"),
        ("stopped:75 exited:76", "stopped"),
        ("exited:75 exited:0", "interrupted"), ("exited:75 running", "running"),
        ("stopped:75 exited:0", "stopped"), ("stopped:137 stopped:75", "stopped"),
        ("absent absent", "idle"), ("idle running", "idle"),
        ("exited:3 exited:75", "failed"),
    ],
)  # fmt: skip
def test_how_a_run_is(text, how):
    assert slice_workers.verdict(workers(text), 2) == how


def test_a_crash_where_there_is_no_other_host():
    """What tells of a lost host among several is a failure on one; a reboot is not."""
    for text, how in (("exited:134", "failed"), ("lost", "interrupted")):
        assert slice_workers.verdict(workers(text), 1) == how


def test_reading_what_workers_say_amid_noise():
    out = (
        "SSH: Attempting\nsalign-worker t1v-n-w-10 ab exited 3 70\r\n"
        "salign-worker t1v-n-w-2 ab running - 12\nsalign-worker x y\n"
        "salign-worker lone - absent - 0\n"
    )
    found = slice_workers.read_status(out)
    assert [(w.index, w.state, w.code, w.bytes) for w in found] == [
        (0, "absent", None, 0), (2, "running", None, 12), (10, "exited", 3, 70),
    ]  # fmt: skip


# -- What the README launches --------------------------------------------------


def test_the_readme_plans_the_runs_that_it_launches():
    """Equality of slices, configs and settings, but for files, which no plan needs."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    ours = (x for x in text.splitlines() if x.startswith("    python -m "))
    lines = [shlex.split(x, comments=True) for x in ours]
    files = ("checkpoint", "data", "policy", "reward_model", "prompts", "validation")
    files = tuple(f"--config.{name}=" for name in files)

    def settings_of(words):
        own = [w for w in words if w.startswith("--config")]
        return tuple(w for w in own if not w.startswith(files))

    def option(words, name):
        return next(w.partition("=")[2] for w in words if w.startswith(name + "="))

    plans = {
        (option(words, "--topology"), settings_of(words))
        for words in lines
        if words[:3] == ["python", "-m", "train.plan"]
    }
    launched = []
    for words in lines:
        if "research.launch" in words and "--" in words:
            tpu = parse_tpu(option(words, "--tpu"))
            launched.append((f"{tpu.kind.name}:{tpu.shape}", settings_of(words)))
    assert len(launched) == 3 and set(launched) <= plans


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
