"""A run of `train.loop.fit` that takes a second: a tiny decoder on random batches.

As a script: `python tiny_run.py WORKDIR STEPS [--signal=STEP] [--slow=SECONDS]`.
"""

import functools
import os
import signal
import sys
import time
from functools import partial

import jax
import numpy as np

from data.batch import TokenBatch
from models import decoder
from models.config import DecoderConfig
from train.evaluate import make_evaluate
from train.loop import LoopConfig, fit
from train.losses import token_nll
from train.metrics import is_clock
from train.optim import OptimizerConfig, make_optimizer
from train.state import init_state
from train.step import make_train_step

CFG = DecoderConfig(
    vocab_size=31, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=24, head_dim=8
)  # fmt: skip
LOSS = partial(token_nll, CFG)
LOOP = LoopConfig(
    log_every=3, eval_every=4, checkpoint_every=8, keep_best=True, tensorboard=False,
    progress=False,
)  # fmt: skip


@functools.cache
def _params(seed):
    return decoder.init_params(CFG, jax.random.key(seed))


def params(seed=0):
    return jax.tree.map(jax.numpy.copy, _params(seed))


def batch(seed, rows=4, length=12) -> TokenBatch:
    """Random tokens and weights, two segments and some padding in every row."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, CFG.vocab_size, (rows, length)).astype(np.int32)
    weights = rng.random((rows, length)).astype(np.float32)
    positions = np.zeros((rows, length), np.int32)
    segments = np.zeros((rows, length), np.int32)
    for b in range(rows):
        cut, end = sorted(rng.choice(np.arange(2, length + 1), 2, replace=False))
        positions[b, :cut], positions[b, cut:end] = np.arange(cut), np.arange(end - cut)
        segments[b, :cut], segments[b, cut:end] = 1, 2
    return TokenBatch(tokens, weights, positions, segments)


class RandomBatches:
    """Batches by step; `before(step)` runs when one is asked for."""

    def __init__(self, before=lambda step: None, fingerprint="random"):
        self.before, self.fingerprint = before, fingerprint

    def __getitem__(self, step):
        self.before(step)
        return batch(step)


@functools.cache
def program(steps, lr, loss_fn):
    """(optimizer, step, evaluate), compiled once for all runs of a test session."""
    settings = OptimizerConfig(lr=lr, weight_decay=0.1, warmup=3)
    optimizer = make_optimizer(settings, steps, params())
    step = make_train_step(loss_fn, optimizer, state=init_state(params(), optimizer))
    held_out = [batch(1000), batch(1001)]
    return optimizer, step, make_evaluate(loss_fn, held_out, jax.device_put)


def run(workdir, steps, *, batches=None, loop=LOOP, loss_fn=LOSS, lr=1e-2, **kwargs):
    """Trains, continuing what the folder holds; returns `Fitted`."""
    optimizer, step, evaluate = program(steps, lr, loss_fn)
    state = init_state(params(), optimizer)
    kwargs = {"evaluate": evaluate, "identity": {"lr": lr}, **kwargs}
    batches = batches or RandomBatches()
    return fit(state, step, batches, steps, loop, workdir=workdir, **kwargs)


class NanBatches(RandomBatches):
    """Batches of which one, that of update `bad`, has a weight that is not a number."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def __getitem__(self, step):
        given = super().__getitem__(step)
        if step == self.bad - 1:
            given.weights[given.segment_ids > 0] = np.nan
        return given


def exact(rows):
    """Rows of metrics without what is of the clock."""
    return [{k: v for k, v in row.items() if not is_clock(k)} for row in rows]


def same_bits(a, b):
    """Whether two trees of arrays are equal, bit by bit."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() and x.dtype == y.dtype
        for x, y in zip(a, b, strict=True)
    )


def main(argv):
    from train import cli

    workdir, steps, *options = argv
    options = dict(o.removeprefix("--").split("=") for o in options)

    def before(step):
        print(f"batch {step}", flush=True)
        time.sleep(float(options.get("slow", 0)))
        if step == int(options.get("signal", -1)):
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        run(workdir, int(steps), batches=RandomBatches(before))
    except cli.Preempted as e:
        print(e)
        return cli.PREEMPTED
    return cli.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
