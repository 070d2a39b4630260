"""What a GPU does with a model of 1.24B parameters: share of its peak and bandwidth.

    make gpu-check
    python -m research.benchmarks.gpu [--only=sft|decode|ppo] [--json] [--out=FOLDER]

The shape is that of Llama-3.2-1B, with random weights, attention by cuDNN:

    sft      an update in bf16_compute (float32 parameters and AdamW) on full rows of
             2,048 tokens, as many rows as fit, up to 8
    decode   64 rows in bfloat16, prompts of 128 tokens, 256 new ones, without prefill
    ppo      an iteration in bf16_compute: 64 prompts of 128 tokens, 256 new ones, one
             update of policy and critic; a reference and a reward model of that size

MFU is the share of the peak that the FLOPs of the model make, each product counted
once, recomputation not at all. The share of the bandwidth is that of the bytes that a
step of decoding must read: weights once, and the keys and values of what is there so
far. The figures go to docs/results/gpu/<date>-<device>.json. For a GPU that is not
known: --peak=TFLOP/s --bandwidth=GB/s. --tiny runs everything small, on any backend.
Exit code 1: something did not fit or could not be run, and why.
"""

import argparse
import dataclasses
import datetime
import gc
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.batch import TokenBatch
from models import decoder, sampler
from models.config import DecoderConfig, RopeConfig
from models.sampling import Sampling
from research.benchmarks.gpus import Gpu, known
from research.benchmarks.iteration import Work, make_run
from train.decoder import decoder_loss, flops_per_token
from train.optim import OptimizerConfig, make_optimizer
from train.state import init_state
from train.step import make_train_step

CHECKS = ("sft", "decode", "ppo")
FOLDER = Path("docs/results/gpu")


class Sizes(NamedTuple):
    """What is run: `rows` and `accum` are tried in turn until one fits."""

    model: DecoderConfig
    rows: tuple[int, ...]
    length: int
    slots: int
    prompt: int
    new: int
    work: Work
    accum: tuple[int, ...]
    repeats: int


FULL = Sizes(
    model=DecoderConfig(
        vocab_size=128_256,
        d_model=2048,
        n_layers=16,
        n_heads=32,
        n_kv_heads=8,
        d_ff=8192,
        head_dim=64,
        rope=RopeConfig(theta=5e5),
        norm_eps=1e-5,
        max_position=8192,
        tie_embeddings=True,
        remat="dots",
    ),
    rows=(8, 4, 2, 1),
    length=2048,
    slots=64,
    prompt=128,
    new=256,
    work=Work(prompts=64, prompt=128, new=256, minibatch=64),
    accum=(4, 16, 64),
    repeats=10,
)
TINY = Sizes(
    model=DecoderConfig(
        vocab_size=64,
        d_model=16,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        d_ff=32,
        head_dim=8,
        tie_embeddings=True,
        remat="dots",
    ),
    rows=(2,),
    length=16,
    slots=4,
    prompt=8,
    new=8,
    work=Work(prompts=4, prompt=8, new=8, minibatch=4),
    accum=(2,),
    repeats=2,
)


class DoesNotFit(Exception):
    """No size of a check fits into the device's memory."""


def first_that_fits(sizes: Sequence[int], run: Callable[[int], dict]) -> dict:
    """`run(size)` of the first size for which the memory is enough."""
    for size in sizes:
        try:
            return run(size)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
        gc.collect()
    raise DoesNotFit(f"out of memory with each of {list(sizes)}")


def seconds_of(call: Callable[[], object], repeats: int) -> tuple[float, list[float]]:
    """(seconds of the first call, which compiles; of the ones after it)."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return times[0], times[1:]


def sft(sizes: Sizes, gpu: Gpu) -> dict:
    """An update of all parameters on full rows."""
    cfg = dataclasses.replace(sizes.model, dtype="bf16_compute")

    def run(rows: int) -> dict:
        params = decoder.init_params(cfg, jax.random.key(0))
        optimizer = make_optimizer(OptimizerConfig(), 1000, params)
        flops = flops_per_token(cfg, params, sizes.length)
        state = init_state(params, optimizer)
        del params
        step = make_train_step(decoder_loss(cfg, None), optimizer, state=state)
        shape = rows, sizes.length
        rng = np.random.default_rng(0)
        ones = np.ones(shape, np.int32)
        positions = np.cumsum(ones, axis=1, dtype=np.int32) - 1
        tokens = rng.integers(0, cfg.vocab_size, shape, dtype=np.int32)
        batch = TokenBatch(tokens, ones.astype(np.float32), positions, ones)
        batch = jax.device_put(batch)

        def call():
            nonlocal state
            state, metrics = step(state, batch)
            return state, metrics

        first, times = seconds_of(call, sizes.repeats)
        seconds, count = statistics.median(times), rows * sizes.length
        return {
            "what": f"{rows} x {sizes.length} tokens",
            "seconds": seconds,
            "first_s": first,
            "times_s": times,
            "tokens_per_s": count / seconds,
            "flops": flops * count,
            "mfu": flops * count / seconds / gpu.flops,
        }

    return first_that_fits(sizes.rows, run)


def read_bytes(cfg: DecoderConfig, params, rows: int, length: float) -> float:
    """Bytes that a step of decoding must read: weights, and `length` keys a row.

    Of an embedding that is no output matrix, `rows` rows are read: nothing beside it.
    """
    size = jnp.dtype(cfg.compute_dtype).itemsize
    weights = sum(x.size for x in jax.tree.leaves(params))
    if not cfg.tie_embeddings:
        weights -= params["embed"]["embedding"].size
    cache = 2 * cfg.n_layers * cfg.n_kv_heads * cfg.head_dim * length
    return size * (weights + rows * cache)


def decode(sizes: Sizes, gpu: Gpu) -> dict:
    """Tokens after the first: with the prefill, less the prefill and one token."""
    cfg = dataclasses.replace(sizes.model, dtype="bfloat16")
    params = decoder.init_params(cfg, jax.random.key(0))
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, cfg.vocab_size, (sizes.slots, sizes.prompt)).tolist()

    def draw(new):
        rollout = sampler.generate(
            cfg,
            params,
            prompts,
            Sampling(),
            jax.random.key(1),
            max_new_tokens=new,
            slots=sizes.slots,
        )
        if (rollout.lengths != new).any():
            raise RuntimeError(f"expected {new} tokens in each row")
        return rollout.tokens

    _, prefill = seconds_of(lambda: draw(1), sizes.repeats)
    first, whole = seconds_of(lambda: draw(sizes.new), sizes.repeats)
    steps = sizes.new - 1
    seconds = max(statistics.median(whole) - statistics.median(prefill), 1e-9)
    # The first of the steps sees the prompt and itself.
    read = read_bytes(cfg, params, sizes.slots, sizes.prompt + (steps + 1) / 2)
    return {
        "what": f"{sizes.slots} rows, {sizes.prompt} + {sizes.new} tokens",
        "seconds": seconds / steps,
        "first_s": first,
        "whole_s": whole,
        "prefill_s": prefill,
        "tokens_per_s": sizes.slots * steps / seconds,
        "read_bytes": read,
        "bandwidth": read * steps / seconds / gpu.bandwidth,
    }


def ppo(sizes: Sizes, gpu: Gpu) -> dict:
    """An iteration: rollout, four models that score it, an update of two of them."""
    cfg, work = dataclasses.replace(sizes.model, dtype="bf16_compute"), sizes.work
    length = work.prompt + work.new
    forward = flops_per_token(cfg, decoder.param_shapes(cfg), length) / 3
    # Drawn, rewarded, scored by old policy, reference and critic; two models updated.
    passes = 5 + 2 * 3 * work.epochs
    flops = passes * forward * work.prompts * length

    def run(accum: int) -> dict:
        step = make_run(cfg, work, accum)
        done = [step() for _ in range(1 + max(1, sizes.repeats // 3))]
        for answer in done:
            if (answer["tokens"], answer["updates"]) != (work.tokens, work.updates):
                raise RuntimeError(f"ppo: not the work it should be: {answer}")
        first, times = done[0]["seconds"], [a["seconds"] for a in done[1:]]
        seconds = statistics.median(times)
        return {
            "what": f"{work.prompts} x ({work.prompt} + {work.new}) tokens",
            "seconds": seconds,
            "first_s": first,
            "times_s": times,
            "parts_s": {
                name: statistics.median(a["parts"][name] for a in done[1:])
                for name in done[0]["parts"]
            },
            "accum": accum,
            "tokens_per_s": work.tokens / seconds,
            "flops": flops,
            "mfu": flops / seconds / gpu.flops,
        }

    return first_that_fits(sizes.accum, run)


def check(sizes: Sizes, gpu: Gpu, names: Sequence[str] = CHECKS) -> dict:
    """The checks by name; one that could not be run has only "not_run"."""
    if jax.default_backend() == "gpu":
        model = dataclasses.replace(sizes.model, attention="cudnn")
        sizes = sizes._replace(model=model)
    found = {}
    for name in names:
        try:
            found[name] = {"sft": sft, "decode": decode, "ppo": ppo}[name](sizes, gpu)
        except (DoesNotFit, RuntimeError, ValueError) as e:
            found[name] = {"not_run": str(e).splitlines()[0]}
        gc.collect()
    device = jax.devices()[0]
    count = sum(x.size for x in jax.tree.leaves(decoder.param_shapes(sizes.model)))
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.device_kind,
        "backend": jax.default_backend(),
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "peak": gpu._asdict(),
        "parameters": count,
        "attention": sizes.model.attention,
        "checks": found,
    }


def table(record: dict) -> str:
    """The record for people."""
    peak = record["peak"]
    lines = [
        f"{record['device']}, {record['date']}, jax {record['versions']['jax']}",
        f"peak {peak['flops'] / 1e12:,.0f} TFLOP/s, {peak['bandwidth'] / 1e9:,.0f} GB/s"
        f"; {record['parameters'] / 1e9:.2f}B parameters, attention "
        f"{record['attention']}",
        f"{'':<8}{'':<30}{'seconds':>9}{'tokens/s':>12}{'MFU':>8}{'bandwidth':>11}",
    ]

    def share(x):
        return "" if x is None else f"{x:.1%}"

    for name, of in record["checks"].items():
        if "not_run" in of:
            lines.append(f"{name:<8}not run: {of['not_run']}")
            continue
        lines.append(
            f"{name:<8}{of['what']:<30}{of['seconds']:>9.4f}{of['tokens_per_s']:>12,.0f}"
            f"{share(of.get('mfu')):>8}{share(of.get('bandwidth')):>11}"
        )
        if "parts_s" in of:
            parts = (f"{part} {s:.3f} s" for part, s in of["parts_s"].items())
            lines.append(f"{'':<8}{', '.join(parts)}")
    return "\n".join(lines)


def record_file(record: dict, folder: Path) -> Path:
    """Where a record is kept: <date>-<device>.json."""
    device = re.sub(r"[^a-z0-9]+", "-", record["device"].lower()).strip("-")
    return folder / f"{record['date'][:10]}-{device}.json"


def chosen_gpu(peak: float | None, bandwidth: float | None, tiny: bool) -> Gpu:
    """The device's numbers, or those of the flags. Raises ValueError without."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "gpu" and not tiny:
        raise ValueError(
            f"JAX finds no GPU, but {kind!r}; expected one (make gpu-check installs "
            "what JAX needs for it). --tiny runs small sizes on any backend"
        )
    found = known(kind)
    if peak is not None and bandwidth is not None:
        return Gpu(peak * 1e12, bandwidth * 1e9)
    if found is None:
        raise ValueError(
            f"{kind!r} is not among the known GPUs; expected --peak=TFLOP/s (dense, "
            "bfloat16) and --bandwidth=GB/s of its data sheet"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CHECKS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--peak", type=float, help="TFLOP/s, dense, bfloat16")
    parser.add_argument("--bandwidth", type=float, help="GB/s")
    parser.add_argument("--json", action="store_true", help="print the record")
    parser.add_argument("--out", type=Path, help=f"folder of the record ({FOLDER})")
    arguments = parser.parse_args()
    try:
        gpu = chosen_gpu(arguments.peak, arguments.bandwidth, arguments.tiny)
    except ValueError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    names = [arguments.only] if arguments.only else CHECKS
    record = check(TINY if arguments.tiny else FULL, gpu, names)
    text = json.dumps(record, indent=2)
    print(text if arguments.json else table(record))
    folder = arguments.out or (None if arguments.tiny else FOLDER)
    if folder is not None:
        path = record_file(record, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        print(f"written: {path}", file=sys.stderr)
    if any("not_run" in of for of in record["checks"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
