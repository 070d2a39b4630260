"""TPU slices: their names, the gcloud commands for them, what gcloud's answers mean.

Everything is a function of a `Request`; nothing is run here (see `research.launch`). A
command is a list of arguments, never a line of shell. What the workers of a slice have
to do is in `launch/worker.sh`, which travels with the code; what they answer is read
in `research.slice_workers`.

Flags and states: https://cloud.google.com/sdk/gcloud/reference/compute/tpus and
https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes and
.queuedResources (enum State).
"""

import hashlib
import json
import math
import re
import shlex
from typing import NamedTuple

from train.chips import CHIPS
from train.errors import ConfigError
from train.settings import nearest

HOME = "salign"  # on a worker, below its home folder
WORKER_FILE = "launch/worker.sh"
WORKER = f"{HOME}/code/{WORKER_FILE}"
SAVING = 300  # seconds that a stopped run has to save its state


class Kind(NamedTuple):
    """A generation of TPUs, as Cloud TPU's API names it.

    prefix: of the accelerator type; counts: what the number in that type counts per
    chip (v4 and v5p count TensorCores); runtime: the image for JAX; alone: a slice of
    up to so many chips is one VM, in a larger one every VM has 4
    """

    name: str
    prefix: str
    counts: int
    runtime: str
    alone: int

    @property
    def shapes(self) -> tuple[str, ...]:
        """The topologies that its types stand for."""
        return CHIPS[self.name].shapes


# Cores and VMs: https://cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e
# ("Configurations"). Images: https://cloud.google.com/tpu/docs/runtimes ("PyTorch and
# JAX"). tpu7x is not here: the Cloud TPU API does not have it, see launch/xpk.sh.
KINDS = (
    Kind("v4", "v4", 2, "tpu-ubuntu2204-base", 4),
    Kind("v5e", "v5litepod", 1, "v2-alpha-tpuv5-lite", 8),
    Kind("v5p", "v5p", 2, "v2-alpha-tpuv5", 4),
    Kind("v6e", "v6e", 1, "v2-alpha-tpuv6e", 8),
)
SPELLINGS = {name: kind for kind in KINDS for name in (kind.name, kind.prefix)}

# States of a TPU VM and of a queued resource. Those in none of the sets pass by
# themselves (CREATING, REPAIRING, WAITING_FOR_RESOURCES, PROVISIONING, DELETING, ...).
GONE = {"PREEMPTED", "TERMINATED"}
PUT_AWAY = {"STOPPED", "STOPPING", "HIDDEN", "HIDING", "UNKNOWN"}
QUEUE_GONE = {"SUSPENDED", "ACTIVE"}  # ... of a request whose VM is not there


class SliceType(NamedTuple):
    """A kind of TPU and a topology, e.g. '4x4x8'."""

    kind: Kind
    shape: str

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def accelerator(self) -> str:
        """As gcloud's --accelerator-type takes it."""
        return f"{self.kind.prefix}-{self.chips * self.kind.counts}"

    @property
    def hosts(self) -> int:
        """VMs: JAX has a process on each."""
        return 1 if self.chips <= self.kind.alone else self.chips // 4


class Request(NamedTuple):
    """What is wanted, of which slice.

    tpu: None where only an existing slice is meant; runtime: image, None for the
    kind's; commit: of the code; command: of the run, one argument per item
    """

    name: str
    zone: str
    project: str | None = None
    tpu: SliceType | None = None
    queued: bool = False
    spot: bool = False
    runtime: str | None = None
    commit: str = ""
    command: tuple[str, ...] = ()

    @property
    def run(self) -> str:
        """Names code and command: asked for again, it is the same run."""
        text = json.dumps([self.commit, *self.command])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def parse_tpu(text: str) -> SliceType:
    """`v5e-64`, `v5litepod-64`, `v5e:8x8`: all the same slice type.

    The number is gcloud's: of chips for v5e and v6e, of TensorCores, two per chip, for
    v4 and v5p. Raises ConfigError naming --tpu.
    """
    match = re.fullmatch(r"([a-z0-9]+)([-:])([0-9x]+)", text)
    if not match or match[1] not in SPELLINGS:
        name = re.split("[-:]", text)[0]
        raise ConfigError(
            f"--tpu: expected e.g. v5e-64 or v5p:4x4x4, got {text!r}"
            f"{nearest(name, SPELLINGS) if name not in SPELLINGS else ''}"
        )
    kind = SPELLINGS[match[1]]
    types = [SliceType(kind, shape) for shape in kind.shapes]
    for each in types:
        size = each.shape if match[2] == ":" else each.accelerator.rpartition("-")[2]
        if size == match[3]:
            return each
    raise ConfigError(
        f"--tpu: no slice {text!r}; expected one of "
        + ", ".join(f"{t.accelerator} ({t.shape})" for t in types)
    )


def create(request: Request) -> list[str]:
    """The slice itself, or the request that waits in a queue for it."""
    tpu = request.tpu
    accelerator = f"--accelerator-type={tpu.accelerator}"
    image = request.runtime or tpu.kind.runtime
    spot = ["--spot"] if request.spot else []
    if request.queued:
        node = f"--node-id={request.name}"
        runtime = f"--runtime-version={image}"
        return _queue(request, "create", node, accelerator, runtime, *spot)
    return _vm(request, "create", accelerator, f"--version={image}", *spot)


def delete(request: Request, queued: bool) -> list[str]:
    """Ends the slice with all on its disks; of a queued one, its request too."""
    return _queue(request, "delete", "--force") if queued else _vm(request, "delete")


def describe(request: Request, queued: bool) -> list[str]:
    """Asks for the TPU VM, or for its request in the queue, as JSON."""
    return (_queue if queued else _vm)(request, "describe", "--format=json")


def archive(request: Request, file: str) -> list[str]:
    """Packs the code of the commit: what is not committed stays behind."""
    return ["git", "archive", "--format=tar.gz", f"--output={file}", request.commit]


def copy(request: Request, file: str) -> list[str]:
    """The packed code to every worker."""
    target = f"{request.name}:{HOME}.tar.gz"
    return _tpus("tpu-vm", "scp", file, target, "--worker=all", *_where(request))


def unpack(request: Request) -> list[str]:
    """The code in place of an earlier one."""
    code = f"{HOME}/code"
    return on_workers(
        request,
        f"rm -rf {code} && mkdir -p {code} && tar -xzf {HOME}.tar.gz -C {code}",
    )


def install(request: Request) -> list[str]:
    """The environment on every worker, from the requirements files of the code."""
    return on_workers(request, worker("install"))


def start(request: Request) -> list[str]:
    """The run on every worker, detached; a second time it changes nothing."""
    return on_workers(request, worker("start", request.run, *request.command))


def status(request: Request) -> list[str]:
    """Has every worker say how its run is; `slice_workers.read_status` reads it."""
    absent = "echo salign-worker $HOSTNAME - absent - 0"
    return on_workers(request, _if_there(worker("status"), absent))


def follow(request: Request, offset: int, seconds: int) -> list[str]:
    """Worker 0's log from a byte on, until the run ends, at most so many seconds."""
    script = worker("follow", str(offset), str(seconds))
    return on_workers(request, script, "0")


def last_lines(request: Request, index: int, lines: int) -> list[str]:
    """The end of one worker's log."""
    return on_workers(request, worker("log", str(lines)), str(index))


def stop(request: Request) -> list[str]:
    """Asks the run to save and end, on every worker; waits for it."""
    return on_workers(request, _if_there(worker("stop", str(SAVING)), "true"))


def on_workers(request: Request, script: str, which: str = "all") -> list[str]:
    """A line of shell on workers of the slice. All else in it must be quoted."""
    return _vm(request, "ssh", f"--worker={which}", f"--command={script}")


def worker(verb: str, *arguments: str) -> str:
    """The line of shell that calls `launch/worker.sh`, with its arguments quoted."""
    return f"bash {WORKER} {shlex.join([verb, *arguments])}"


def _if_there(script: str, otherwise: str) -> str:
    return f"if [ -f {WORKER} ]; then {script}; else {otherwise}; fi"


def _vm(request: Request, verb: str, *flags: str) -> list[str]:
    return _tpus("tpu-vm", verb, request.name, *flags, *_where(request))


def _queue(request: Request, verb: str, *flags: str) -> list[str]:
    return _tpus("queued-resources", verb, request.name, *flags, *_where(request))


def _tpus(*arguments: str) -> list[str]:
    return ["gcloud", "compute", "tpus", *arguments]


def _where(request: Request) -> list[str]:
    project = [f"--project={request.project}"] if request.project else []
    # --quiet: without it gcloud may wait for an answer that nobody gives.
    return [f"--zone={request.zone}", *project, "--quiet"]


def next_step(request: Request, queue: dict | None, node: dict | None) -> str:
    """What brings the slice nearer to being ready.

    Args:
      queue, node: gcloud's descriptions, None where there is none.

    Returns: 'ready', 'wait', 'create' or 'delete' (it is gone: delete what is left).
    Raises ConfigError for a slice that is not what the request says.
    """
    if node:
        found = node.get("acceleratorType")
        if request.tpu and found and found != request.tpu.accelerator:
            raise ConfigError(
                f"--name: {request.name} is there and is {found}; expected "
                f"{request.tpu.accelerator}: choose another name, or --delete it"
            )
        state = node.get("state")
        if state in PUT_AWAY:
            raise ConfigError(
                f"--name: {request.name} is {state}; expected READY: "
                "start it with gcloud, or --delete it"
            )
        return {"READY": "ready"}.get(state, "delete" if state in GONE else "wait")
    if not queue:
        return "create"
    state = queue_state(queue)
    if state == "FAILED":
        error = queue["state"].get("failedData", {}).get("error", {})
        raise ConfigError(
            f"--queued: the request {request.name} failed: "
            f"{error.get('message', 'no reason given')}; --delete it, then try again"
        )
    return "delete" if state in QUEUE_GONE else "wait"


def queue_state(queue: dict | None) -> str | None:
    """E.g. 'WAITING_FOR_RESOURCES'."""
    return queue["state"]["state"] if queue else None
