"""Several processes as one run: joining, what the first does alone, losing one.

    python -m train.sft ... --distributed=auto
        on every host of a TPU pod, or in every task of SLURM or Open MPI
    python -m train.sft ... --coordinator=HOST:PORT --num-processes=2 --process-id=0

Every process runs the same command on a file system that all share. Each loads its rows
of every batch; process 0 alone prints and writes what is not a checkpoint. Rollouts are
drawn by all together, each has them whole, and the rewards of process 0 count.

Joining has to be asked for. What `auto` goes by is also there when somebody tries one
host of a pod, or works inside a SLURM allocation: a run that joined by itself would
wait there for processes that nobody started.

When a process dies, the others end with an error, and the same commands continue from
the last checkpoint. A broken connection may tell at once (exit code 76); at the latest
JAX's service does, which misses the signs of life for `--lost-after` seconds and aborts
the processes that it still has, with a message of its own and the signal SIGABRT. A
process that lives but is stuck is not noticed.
"""

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from train.errors import ConfigError

LOST_AFTER = 60  # seconds
# At its end a process waits so long for the others to come to theirs.
SHUTDOWN_SECONDS = 60
# Process 0 may be writing a large model meanwhile.
WAIT_MS = 24 * 3600 * 1000
# The coordinator's process outlives an error a little: the others may be about to
# report the same one, and JAX ends them when it is gone.
GRACE_SECONDS = 2.0

# Process 0 and the others count alike: they make the same calls in the same order.
_calls = itertools.count()


class FirstFailed(RuntimeError):
    """What process 0 did alone has failed; `user_error` as that of its error."""

    user_error = False


def define_flags(values) -> None:
    """Adds to absl's flag values what `initialize` takes."""
    from absl import flags

    flags.DEFINE_enum(
        "distributed",
        "off",
        ["off", "auto"],
        "auto: join the processes of this TPU pod, SLURM, Open MPI or Kubernetes job",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT that process 0 listens on", flag_values=values
    )
    flags.DEFINE_integer(
        "num_processes", None, "processes of the run", 1, flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "which of them this is, from 0 on", 0, flag_values=values
    )
    flags.DEFINE_integer(
        "lost_after",
        LOST_AFTER,
        "seconds of silence after which a process counts as dead",
        1,
        flag_values=values,
    )


def initialize(
    distributed: str = "off",
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    lost_after: int = LOST_AFTER,
    timeout: int = 300,
) -> None:
    """Joins the other processes of a run, if the arguments say that there are any.

    To be called before anything is computed. With 'auto', what is not given is found
    out by `jax.distributed.initialize`.

    Args:
      coordinator: "host:port" on which process 0 listens.
      lost_after: seconds of silence after which a process counts as dead.
      timeout: seconds to wait for the others to come.

    Raises ConfigError for arguments that name no process of a group, and where the
    others do not come.
    """
    given = {
        "--coordinator": coordinator,
        "--num-processes": num_processes,
        "--process-id": process_id,
    }
    missing = [flag for flag, value in given.items() if value is None]
    if distributed == "off":
        if len(missing) == len(given):
            return
        if missing:
            raise ConfigError(
                f"{missing[0]}: missing; expected all of {', '.join(given)}, or "
                "--distributed=auto"
            )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ConfigError(f"--coordinator: expected HOST:PORT, got {coordinator!r}")
    if num_processes is not None and process_id is not None:
        if process_id >= num_processes:
            raise ConfigError(
                f"--process-id: expected less than --num-processes {num_processes}, "
                f"got {process_id}"
            )
    if num_processes == 1:
        return
    import jax

    # The collectives of simulated devices; other platforms have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if distributed == "off" else None,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=lost_after,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as e:  # nothing was detected
        raise ConfigError(
            "--distributed: found no TPU pod, SLURM, Open MPI or Kubernetes job; "
            f"expected one, or {', '.join(given)}"
        ) from e
    except jax.errors.JaxRuntimeError as e:
        raise ConfigError(
            f"--coordinator: cannot join {coordinator or 'the others'}: {e}"
        ) from e


def count() -> int:
    """The number of processes, without starting a backend that is not there yet."""
    state = _state()
    return 1 if state is None or state.client is None else state.num_processes


def refuse_several(what: str) -> None:
    """Raises ConfigError where several processes run what only one can."""
    if count() > 1:
        raise ConfigError(
            f"--num-processes: {what} can be run by one process only, got {count()}"
        )


def by_first(act: Callable[[], Any]):
    """What `act` returns, a JSON value, in every process; process 0 alone calls it.

    Its error is raised in all: elsewhere as FirstFailed with its message.
    """
    return _by_first(lambda ask: act(), None)


def written_by_first(params, write: Callable[[Any], Any]):
    """As `by_first(lambda: write(params))`, for arrays that no process has whole.

    `write` gets a tree whose leaves have `shape`, `dtype` and `leaf[layer]`, and become
    numpy arrays by `np.asarray`: only then all processes gather that leaf, or layer, so
    that no host or device holds more than one of them at a time.
    """
    import jax

    if jax.process_count() == 1:
        return write(params)
    leaves, tree = jax.tree.flatten(params)

    def act(ask):
        own = [_Leaf(x, functools.partial(ask, i)) for i, x in enumerate(leaves)]
        return write(jax.tree.unflatten(tree, own))

    return _by_first(act, lambda number, layer: _gather(leaves[number], layer))


def is_loss(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that another process is gone."""
    if count() == 1:
        return False
    import jax

    signs = ("Gloo", "UNAVAILABLE", "heartbeat", "barrier", "Barrier", "coordination")
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            if any(sign in str(error) for sign in signs):
                return True
        error = error.__cause__ or error.__context__
    return False


def loss_message(error: BaseException) -> str:
    """One line on a lost process, with the beginning of what the library says."""
    state, reason = _state(), " ".join(str(error).split())
    return (
        f"process {state.process_id} of {state.num_processes} lost another, see its "
        f"output; the same commands continue from the last checkpoint ({reason:.200})"
    )


def leave(code: int) -> None:
    """Ends this process now, with an exit code, if it is one of several.

    For errors: an ordinary exit would wait for the others, which may be waiting for
    this process, and JAX would end both with errors about that.
    """
    if count() == 1:
        return
    if _state().process_id == 0:
        time.sleep(GRACE_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Leaf:
    """An array that is spread over processes, for the one that asks for its values."""

    def __init__(self, array, ask, layer: int | None = None):
        self._array, self._ask, self._layer = array, ask, layer
        self.shape = array.shape if layer is None else array.shape[1:]
        self.dtype = array.dtype

    def __getitem__(self, layer: int) -> "_Leaf":
        return _Leaf(self._array, self._ask, layer)

    def __array__(self, dtype=None, copy=None):
        value = self._ask(self._layer)
        return value if dtype is None else value.astype(dtype)


def _gather(array, layer: int | None):
    """A whole array, or a layer of it, on this host; all processes must take part."""
    import numpy as np

    if array.is_fully_replicated:
        whole = np.asarray(array.addressable_data(0))
        return whole if layer is None else whole[layer]
    take = _whole(array.sharding.mesh, layer is not None)
    return np.asarray(take(array, np.int32(layer or 0)).addressable_data(0))


@functools.cache
def _whole(mesh, layered: bool):
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    def take(x, layer):
        return jax.lax.dynamic_index_in_dim(x, layer, 0, False) if layered else x

    return jax.jit(take, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _by_first(act, serve):
    """`act(ask)` in process 0; each `ask(*what)` there is `serve(*what)` in all."""
    import jax

    if jax.process_count() == 1:
        return act(None)
    # Through the key-value store of JAX's service: a wait there may be long, carries
    # text, and ends with an error when a process is lost.
    client, call, messages = _state().client, next(_calls), itertools.count()

    def key() -> str:
        return f"salign/{call}/{next(messages)}"

    def ask(*what):
        client.key_value_set(key(), json.dumps({"ask": what}))
        return serve(*what)

    if jax.process_index() == 0:
        try:
            value = act(ask)
        except BaseException as e:
            told = f"process 0: {' '.join(str(e).split()) or type(e).__name__}"
            user_error = getattr(e, "user_error", False)
            answer = {"error": told, "user_error": user_error}
            client.key_value_set(key(), json.dumps(answer))
            raise
        client.key_value_set(key(), json.dumps({"value": value}))
        return value
    while True:
        told = json.loads(client.blocking_key_value_get(key(), WAIT_MS))
        if "ask" in told:
            serve(*told["ask"])
        elif "error" in told:
            failed = FirstFailed(told["error"])
            failed.user_error = told["user_error"]
            raise failed
        else:
            return told["value"]


def _state():
    """JAX's side of the group: no public name gives its key-value store."""
    if "jax" not in sys.modules:
        return None
    from jax._src import distributed

    return distributed.global_state
