"""A stand-in for gcloud: slices are folders, their workers run commands for real.

`Cloud(folder)` puts `gcloud` on a PATH of its own; the program that stands there is
this file. A worker is a folder that is its HOME, with a python3 that makes an
environment without installing anything. Every call is kept, and flags that gcloud does
not have are refused, as are slices in the wrong state.

`plan` says what is to happen, as lists that are used up from the front:
  queue: states of a queued resource, one per `describe`; the last one stays
  create: errors of `create`, None for none
  ssh: exit codes of `ssh` in place of running the command, None for running it
  preempt: for each `ssh` that follows the log, whether the slice is taken away before
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

# As in the reference of gcloud 528: what each command takes, and what it needs.
WIDE = {"zone", "project", "quiet", "format"}
COMMANDS = {
    ("tpu-vm", "create"): ({"accelerator-type", "version", "spot"}, {"version"}),
    ("tpu-vm", "delete"): (set(), set()),
    ("tpu-vm", "describe"): (set(), set()),
    ("tpu-vm", "ssh"): ({"worker", "command"}, {"command"}),
    ("tpu-vm", "scp"): ({"worker"}, set()),
    ("queued-resources", "create"): (
        {"node-id", "accelerator-type", "runtime-version", "spot"},
        {"node-id", "accelerator-type", "runtime-version"},
    ),
    ("queued-resources", "delete"): ({"force"}, set()),
    ("queued-resources", "describe"): (set(), set()),
}
WORKERS = {"v5litepod-4": 1, "v5litepod-16": 4, "v5p-16": 2}

PYTHON3 = """#!/bin/bash
# Stands for the python3 of a worker: it makes environments without a network.
if [ "$1" = -c ]; then exit "${OLD_PYTHON:-0}"; fi
if [ "$1 $2" = "-m pip" ]; then echo "python3 $*" >> "$HOME/calls"; exit; fi
if [ "$1 $2" != "-m venv" ]; then exit 9; fi
mkdir -p "$3/bin"
cat > "$3/bin/python" <<'END'
#!/bin/bash
if [ "$1 $2" = "-m pip" ]; then echo "pip $*" >> "$HOME/calls"; exit; fi
exec REAL "$@"
END
chmod +x "$3/bin/python"
"""
UV = """#!/bin/bash
echo "uv $*" >> "$HOME/calls"
exec python3 -m venv "${@: -1}"
"""

# What the workers are to run: bash job.sh WHAT ...
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
lose) # the first time worker 1 ends with code $3, or goes without one; 0 waits for it
    if [ -f "$2/$HOSTNAME" ]; then echo "continued"; exit 0; fi
    touch "$2/$HOSTNAME"
    if [ "$HOSTNAME" = t1v-n-0-w-1 ]; then
        if [ "$3" = gone ]; then kill -KILL -- "-$(cat "$HOME/salign/run/pid")"; fi
        exit "$3"
    fi
    trap 'echo saved; exit 75' TERM
    for i in $(seq 600); do sleep 0.05; done ;;
esac
"""


class Cloud:
    """A cloud in a folder, for a test.

    path: to be put before PATH, the only place of a `gcloud`
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "bin"
        tools = folder / "worker_bin"
        for place in (self.path, tools):
            place.mkdir(parents=True)
        # -I -S: without site-packages Python starts in 20 ms.
        line = f'exec "{sys.executable}" -I -S "{__file__}" "{folder}" "$@"'
        write_program(self.path / "gcloud", f"#!/bin/sh\n{line}\n")
        real = f'"{sys.executable}" -I -S'
        write_program(tools / "python3", PYTHON3.replace("REAL", real))
        write_program(tools / "uv", UV)
        self.write({"nodes": {}, "queues": {}, "plan": {}})

    def plan(self, **lists) -> None:
        """Adds to what is to happen."""
        state = self.read()
        state["plan"] |= lists
        self.write(state)

    def add(self, name: str, accelerator: str = "v5p-16", state="READY") -> None:
        """A slice that is there already."""
        now = self.read()
        now["nodes"][name] = new_node(accelerator) | {"state": state}
        self.write(now)

    def read(self) -> dict:
        return json.loads((self.folder / "state.json").read_text())

    def write(self, state: dict) -> None:
        (self.folder / "state.json").write_text(json.dumps(state))

    def calls(self) -> list[list[str]]:
        """The arguments of every call."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def verbs(self) -> list[str]:
        """E.g. 'tpu-vm create', or what `worker.sh` was asked for: 'start'."""
        return [short(c) for c in self.calls()]

    def worker(self, name: str, index: int) -> Path:
        """The home folder of a worker."""
        return self.folder / "homes" / name / str(index)

    def close(self) -> None:
        """Ends whatever still runs on workers."""
        for name in self.read()["nodes"]:
            kill_runs(self.folder, name)


def make_repository(root: Path, ours: Path) -> Path:
    """A repository with what a launch needs of ours, and job.sh, all committed."""
    for folder in ("launch", "configs"):
        (root / folder).mkdir()
    shutil.copy(ours / "launch/worker.sh", root / "launch")
    (root / "configs/ppo.py").write_text("")
    (root / "job.sh").write_text(JOB)
    for name in ("requirements.txt", "requirements-tpu.txt", "constraints.txt"):
        (root / name).write_text(name)
    git = ["git", "-C", root, "-c", "user.name=n", "-c", "user.email=e"]
    for more in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *more], check=True)
    return root


def short(call: list[str]) -> str:
    """What a call is, in a word or two."""
    script = next((a for a in call if a.startswith("--command=")), "")
    verb = re.search(r"bash salign/code/launch/worker\.sh (\w+)", script)
    if verb:
        return verb[1]
    return "unpack" if "tar -xzf" in script else " ".join(call[2:4])


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def new_node(accelerator: str) -> dict:
    endpoints = [{"ipAddress": f"10.0.0.{i}"} for i in range(WORKERS[accelerator])]
    return {
        "state": "READY",
        "acceleratorType": accelerator,
        "networkEndpoints": endpoints,
    }


def kill_runs(folder: Path, name: str) -> None:
    """What a VM's end does to the processes on it."""
    for pid in (folder / "homes" / name).glob("*/salign/run/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)


def main(folder: Path, arguments: list[str]) -> int:
    """One call of gcloud."""
    with open(folder / "calls.jsonl", "a") as f:
        f.write(json.dumps(arguments) + "\n")
    state_file = folder / "state.json"
    state = json.loads(state_file.read_text())
    group, verb = arguments[2:4]
    names = [a for a in arguments[4:] if not a.startswith("--")]
    flags = dict(a[2:].partition("=")[::2] for a in arguments[4:] if a[:2] == "--")
    allowed, needed = COMMANDS[group, verb]
    wrong = set(flags) - allowed - WIDE
    if arguments[:2] != ["compute", "tpus"] or wrong or not needed < set(flags):
        return fail(f"unrecognized arguments: {wrong}; needed: {needed}", 2)
    if not flags.get("zone") or "quiet" not in flags:
        return fail("zone or --quiet is missing: this would ask", 2)
    name = names[-1].partition(":")[0]
    code = act(folder, state, group, verb, name, names, flags)
    state_file.write_text(json.dumps(state))
    return code


def act(folder, state, group, verb, name, names, flags) -> int:
    """Does what was asked, in `state`; returns the exit code."""
    nodes, queues, plan = state["nodes"], state["queues"], state["plan"]
    queued = group == "queued-resources"
    if verb == "create":
        error = next_of(plan, "create")
        if error:
            return fail(error)
        if name in (queues if queued else nodes):
            return fail("ALREADY_EXISTS: the resource exists")
        if queued:
            queues[name] = {"accelerator": flags["accelerator-type"]}
            plan.setdefault("queue", ["ACTIVE"])
        else:
            nodes[name] = new_node(flags["accelerator-type"])
        return 0
    if verb == "describe":
        return describe(state, queued, name)
    if name not in nodes and not (queued and name in queues):
        return fail(f"NOT_FOUND: Resource 'nodes/{name}' was not found")
    if verb == "delete":
        if name in queues and not queued:
            return fail("FAILED_PRECONDITION: the node belongs to a queued resource")
        if queued and "force" not in flags:
            return fail("FAILED_PRECONDITION: the queued resource has nodes")
        kill_runs(folder, name)
        shutil.rmtree(folder / "homes" / name, ignore_errors=True)
        nodes.pop(name, None)
        queues.pop(name, None)
        return 0
    return reach(folder, state, verb, name, names, flags)


def describe(state: dict, queued: bool, name: str) -> int:
    """Prints JSON like gcloud's; a queued resource's state goes on as planned."""
    nodes, queues, plan = state["nodes"], state["queues"], state["plan"]
    if name not in (queues if queued else nodes):
        return fail(f"NOT_FOUND: Resource '{name}' was not found")
    if not queued:
        print(json.dumps(nodes[name]))
        return 0
    states = plan["queue"]
    now = states.pop(0) if len(states) > 1 else states[0]
    if name in nodes and nodes[name]["state"] == "PREEMPTED":
        now = "SUSPENDED"
    elif now == "ACTIVE" and name not in nodes:
        nodes[name] = new_node(queues[name]["accelerator"])
    print(
        json.dumps({"state": {"state": now, "failedData": {"error": {"message": "E"}}}})
    )
    return 0


def reach(folder, state, verb, name, names, flags) -> int:
    """ssh and scp."""
    node, plan = state["nodes"][name], state["plan"]
    command = flags.get("command", "")
    if "worker.sh follow" in command and next_of(plan, "preempt"):
        kill_runs(folder, name)
        node["state"] = "PREEMPTED"
    if node["state"] != "READY":
        return fail(f'This TPU has terminal state "{node["state"]}"')
    code = next_of(plan, "ssh") if verb == "ssh" else None
    if code is not None:
        print(f"ssh: planned exit code {code}", file=sys.stderr)
        return code
    which = flags.get("worker", "0")
    count = len(node["networkEndpoints"])
    codes = []
    for index in range(count) if which == "all" else [int(which)]:
        home = folder / "homes" / name / str(index)
        home.mkdir(parents=True, exist_ok=True)
        if verb == "scp":
            shutil.copy(names[0], home / names[1].partition(":")[2])
        else:
            codes.append(on_worker(folder, home, index, command))
    return next((c for c in codes if c), 0)


def on_worker(folder: Path, home: Path, index: int, command: str) -> int:
    """What sshd does with a command: its words joined, for the user's shell."""
    environment = {
        "HOME": str(home),
        "HOSTNAME": f"t1v-n-0-w-{index}",
        "PATH": f"{folder / 'worker_bin'}:/usr/bin:/bin",
        "OLD_PYTHON": str(int((folder / "old_python").exists())),
    }
    line = " ".join(command.split(" "))
    sys.stdout.flush()
    return subprocess.run(
        ["bash", "-c", line], env=environment, cwd=home, stdin=subprocess.DEVNULL
    ).returncode


def next_of(plan: dict, name: str):
    """The next planned thing, None where nothing is left."""
    return plan[name].pop(0) if plan.get(name) else None


def fail(message: str, code: int = 1) -> int:
    print(f"ERROR: (gcloud.compute.tpus) {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
