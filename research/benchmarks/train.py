"""Training throughput beside PyTorch's, on the same model and the same batches.

    python -m research.benchmarks.train [--rounds=5] [--steps=5] [--out=FILE.json]

A Llama of 4.46M parameters (vocabulary 512, width 256, 4 layers, 8 heads, ffn 1024) on
32 rows of 128 tokens, float32, AdamW with clipping: forward, backward and update. The
sides are this code and `transformers` LlamaForCausalLM with `torch.optim.AdamW`, each
in a process of its own with its best settings, taking turns so that both see the same
load of the machine. Needs torch and transformers. About 2 minutes on two cores.
"""

import argparse
import statistics
import time
from pathlib import Path

from research.benchmarks.common import (
    CORES,
    MODEL,
    decoder_config,
    own_side,
    require,
    serve,
    write,
)

SHAPE = {"rows": 32, "length": 128}
LR, DECAY, CLIP = 1e-3, 0.01, 1.0
SIDES = ("salign", "torch")


def make_tokens(step: int):
    """int32 [rows, length], the same for both sides."""
    import numpy as np

    rng = np.random.default_rng(step)
    return rng.integers(0, MODEL["vocab"], tuple(SHAPE.values()), dtype=np.int32)


def salign_side():
    """`run(first, n)`: n updates; returns the last loss."""
    from functools import partial

    import jax
    import numpy as np

    from data.batch import TokenBatch
    from models import decoder
    from train.losses import token_nll
    from train.optim import OptimizerConfig, make_optimizer
    from train.state import init_state
    from train.step import make_train_step

    cfg = decoder_config(SHAPE["length"])
    params = decoder.init_params(cfg, jax.random.key(0))
    settings = OptimizerConfig(
        lr=LR, schedule="constant", weight_decay=DECAY, clip_norm=CLIP
    )
    optimizer = make_optimizer(settings, 1000, params)
    state = init_state(params, optimizer)
    step = make_train_step(partial(token_nll, cfg), optimizer, state=state)

    def batch(i):
        tokens = make_tokens(i)
        ones = np.ones(tokens.shape, np.int32)
        positions = np.cumsum(ones, axis=1, dtype=np.int32) - 1
        return TokenBatch(tokens, ones.astype(np.float32), positions, ones)

    def run(first, n):
        nonlocal state
        before = None
        for i in range(first, first + n):
            state, metrics = step(state, jax.device_put(batch(i)))
            if before is not None:
                jax.device_get(before)
            before = metrics
        total, weight = jax.device_get(before)["loss"]
        jax.block_until_ready(state)
        return float(total / weight)

    return run


def torch_side():
    """`run(first, n)`: n updates; returns the last loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=MODEL["vocab"], hidden_size=MODEL["width"],
        intermediate_size=MODEL["ffn"], num_hidden_layers=MODEL["layers"],
        num_attention_heads=MODEL["heads"], max_position_embeddings=SHAPE["length"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, weight_decay=DECAY, fused=True
    )

    def run(first, n):
        for i in range(first, first + n):
            tokens = torch.from_numpy(make_tokens(i)).long()
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        return loss.item()

    return run


def worker(side: str) -> None:
    """Answers {first, n} with {seconds, loss} of n updates from step `first` on."""
    run = {"salign": salign_side, "torch": torch_side}[side]()

    def answer(first: int, n: int) -> dict:
        began = time.perf_counter()
        loss = run(first, n)
        return {"seconds": time.perf_counter() - began, "loss": loss}

    serve(answer)


def measure(rounds: int, steps: int) -> dict:
    """Tokens per second of each side, round by round, and their first step."""
    sides = {name: own_side("research.benchmarks.train", name) for name in SIDES}
    per_run = steps * SHAPE["rows"] * SHAPE["length"]
    first = {name: side.ask(first=0, n=1) for name, side in sides.items()}
    for side in sides.values():
        side.ask(first=1, n=2)
    rates, loss = {name: [] for name in SIDES}, {}
    for r in range(rounds):
        for name, side in sides.items():
            done = side.ask(first=3 + r * steps, n=steps)
            loss[name] = done["loss"]
            rates[name].append(per_run / done["seconds"])
    for side in sides.values():
        side.close()
    ratios = [a / b for a, b in zip(rates["salign"], rates["torch"], strict=True)]
    return {
        "shape": SHAPE,
        "model": MODEL,
        "cores": CORES,
        "tokens_per_s": rates,
        "median": {name: statistics.median(rates[name]) for name in SIDES},
        "best": {name: max(rates[name]) for name in SIDES},
        "ratio": statistics.median(ratios),
        "first_step_s": {name: first[name]["seconds"] for name in SIDES},
        "loss": {"first": {n: first[n]["loss"] for n in SIDES}, "last": loss},
    }


def table(result: dict) -> str:
    """The result for people."""
    lines = ["side      tokens/s (median)   best   first step"]
    for name in SIDES:
        lines.append(
            f"{name:<8}  {result['median'][name]:17,.0f}  {result['best'][name]:5,.0f}"
            f"  {result['first_step_s'][name]:8.1f} s"
        )
    lines.append(f"salign / torch, median of the rounds: {result['ratio']:.2f}x")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    require("torch", "transformers")
    result = measure(arguments.rounds, arguments.steps)
    print(table(result))
    write(result, arguments.out)


if __name__ == "__main__":
    main()
