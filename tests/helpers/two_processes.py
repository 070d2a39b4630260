"""Several processes on one machine as one run, each on simulated devices.

As a script, in each of them:
  two_processes.py run MODULE ARGUMENTS...   the command `python -m MODULE ARGUMENTS`;
      AT=STEP:SIGNAL in the environment sends itself a signal when it loads that batch
  two_processes.py check FLAGS...            what tests/train/test_distributed.py reads,
      as JSON on the last line
  two_processes.py ppo FOLDER FLAGS...       iterations of PPO, and scores, as
      tests/train/test_sharded_rollouts.py reads them, as JSON on the last line
"""

import faulthandler
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LOST_AFTER = 20  # seconds
HANGS_AFTER = int(os.environ.get("HANGS_AFTER", 100))


class Ended(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(*arguments, devices: int, at: str = "", **environment) -> subprocess.Popen:
    """This file as a script, on so many simulated devices."""
    xla = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "AT": at,
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_group(*arguments, count=2, devices=4, at=None, own=None) -> list:
    """The processes of one run, told by flags; at and own flags are by process."""
    port = free_port()
    return [
        start(
            *arguments,
            f"--coordinator=127.0.0.1:{port}",
            f"--num-processes={count}",
            f"--process-id={i}",
            f"--lost-after={LOST_AFTER}",
            *(own or {}).get(i, ()),
            devices=devices,
            at=(at or {}).get(i, ""),
        )
        for i in range(count)
    ]


def start_slurm(*arguments, count=2, devices=4) -> list:
    """The processes of one run, told by the variables that SLURM sets."""
    port = free_port()
    return [
        start(
            *arguments,
            "--distributed=auto",
            f"--lost-after={LOST_AFTER}",
            devices=devices,
            SLURM_JOB_ID="1",
            SLURM_STEP_NODELIST="127.0.0.1",
            SLURM_NTASKS=str(count),
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
            JAX_COORDINATOR_PORT=str(port),
        )
        for i in range(count)
    ]


def ends(processes, timeout: float = HANGS_AFTER + 20) -> list[Ended]:
    """Waits for all; what still runs after `timeout` seconds is killed, and fails."""
    try:
        outputs = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [Ended(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


def main(mode: str, *arguments: str) -> None:
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)  # says where it hangs
    if mode in ("check", "ppo"):
        print(json.dumps({"check": check, "ppo": ppo}[mode](*arguments)))
        return
    module, *rest = arguments
    from data.batches import Batches
    from train import cli

    step, _, name = os.environ["AT"].partition(":")
    plain = Batches.__getitem__

    def getitem(self, index):
        if name and index == int(step):
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(1)  # steps as short as these would be done before JAX knows
        return plain(self, index)

    Batches.__getitem__ = getitem
    sys.argv[:] = [module, *rest]
    command = importlib.import_module(module)
    cli.run_main(command.main, command.define_flags)


def join(arguments) -> None:
    """Becomes one of the processes that flags tell of."""
    from absl import flags

    from train import distributed

    values = flags.FlagValues()
    distributed.define_flags(values)
    values(["join", *(a.replace("-", "_").replace("__", "--") for a in arguments)])
    distributed.initialize(
        values.distributed, values.coordinator, values.num_processes, values.process_id,
        lost_after=values.lost_after,
    )  # fmt: skip


def ppo(folder: str, *arguments: str) -> dict:
    """The iterations and the scores of helpers/sharded_run.py, by several processes."""
    join(arguments)
    from helpers import sharded_run
    from helpers.tiny_run import exact

    from models.sharding import fetch

    mesh, rollouts = sharded_run.mesh_of("2x2x2"), []
    fitted = sharded_run.ppo(mesh, Path(folder), len(sharded_run.MESHES), rollouts)
    return {
        "rollouts": [sharded_run.lists(rollout) for rollout in rollouts],
        "rows": exact(fitted.rows),
        "state": sharded_run.sums(fetch(fitted.state)),
        "scores": sharded_run.scores(mesh),
    }


def check(*arguments: str) -> dict:
    join(arguments)
    import jax
    import numpy as np
    from helpers.tiny_run import CFG, same_bits

    from data.batches import batches, eval_batches
    from data.chat import TokenizedExample
    from data.pairs import token_pair
    from models import decoder
    from models.sharding import fetch, param_shardings
    from train import distributed
    from train.errors import ConfigError
    from train.mesh import make_mesh
    from train.reference import _gather, reference_log_probs
    from train.step import own_rows, placer, whole_placer

    own, rng = jax.process_index(), np.random.default_rng(0)
    mixed = [jax.devices()[i] for i in (0, 4, 5, 1, 2, 6, 3, 7)]
    meshes = {
        "rows": make_mesh(fsdp=8),
        "rows and columns": make_mesh(data=2, fsdp=2, tensor=2),
        "columns over processes": make_mesh(fsdp=1, tensor=8),
        "processes take turns": make_mesh(data=2, fsdp=4, devices=mixed),
    }
    examples = [
        TokenizedExample(
            rng.integers(0, 31, n).astype(np.int32), np.ones(n, np.float32)
        )
        for n in rng.integers(1, 9, 20)
    ]
    layout = {"batch_size": 8, "length": 8, "pad_id": 0}
    equal, loaded = {}, {}
    for name, mesh in meshes.items():
        wholes = batches(examples, **layout, seed=0), eval_batches(examples, **layout)
        pairs = []
        for whole in wholes:
            share = own_rows(whole, mesh)
            loaded[name] = len(share[0].tokens)
            for step in range(2):
                placed = jax.tree.map(_gather, placer(mesh)(share[step]))
                pairs.append(same_bits(placed, whole[step]))
        whole = wholes[0][0]
        other = jax.tree.map(lambda x: x + x.dtype.type(own), whole)
        rollout = fetch(whole_placer(mesh)(other))  # that of process 0 counts
        equal[name] = all(pairs) and same_bits(rollout, whole)

    told = [distributed.by_first(lambda: {"from": own})]
    try:
        distributed.by_first(lambda: _raise(ConfigError("lr: no")))
    except (ConfigError, distributed.FirstFailed) as e:
        told.append([type(e).__name__, str(e), e.user_error])

    start = jax.device_get(decoder.init_params(CFG, jax.random.key(0)))
    mesh = meshes["processes take turns"]
    spread = jax.device_put(start, param_shardings(start, mesh))
    seen = []

    def write(params):
        layer = params["layers"]["mlp"]["gate"]["kernel"][1]
        seen.append(np.array_equal(layer, start["layers"]["mlp"]["gate"]["kernel"][1]))
        seen.append(same_bits(jax.tree.map(np.asarray, params), start))

    distributed.written_by_first(spread, write)

    chosen = [
        token_pair(*(rng.integers(1, 31, n) for n in (3, 2, 4))) for _ in range(11)
    ]
    scores = [
        reference_log_probs(
            CFG, params, chosen, batch_size=8, length=8, pad_id=0, mesh=given
        )
        for params, given in ((start, None), (spread, mesh))
    ]
    return {
        "equal": equal,
        "loaded": loaded,
        "told": told,
        "written": seen,
        "reference": float(np.abs(scores[0] - scores[1]).max()),
        "reference_spread": float(np.ptp(scores[0])),
    }


def _raise(error):
    raise error


if __name__ == "__main__":
    main(*sys.argv[1:])
