"""Sampling throughput beside `transformers` generate, with the same weights.

    python -m research.benchmarks.generate [--rounds=3] [--only=NAME] [--out=FILE.json]

A Llama of 4.46M parameters (vocabulary 512, width 256, 4 layers, 8 heads, ffn 1024) in
float32. Three workloads, useful response tokens per second, median of the rounds:

    equal      64 prompts of 16 tokens, 64 greedy tokens each (and the tokens agree)
    geometric  256 prompts of 16 tokens, greedy, lengths geometric with a mean of 16, a
               quarter of the limit of 64; tokens after a row's length are not counted
    prefix     16 samples of 64 tokens for each of 16 prompts that share 512 tokens

Each side runs in a process of its own with its best settings: where there is a choice,
all variants are tried and the best one is measured. Needs torch and transformers. About
4 minutes on two cores, most of it in the other library's `prefix`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from research.benchmarks import common

SIDES = ("salign", "transformers")
NEW, PROMPT, PREFIX, SAMPLES = 64, 16, 512, 16
QUICK = 10.0  # seconds of trying a variant, after which it is not tried again
TARGETS = {"equal": 1.2, "geometric": 3.0, "prefix": 4.0}
# What may be chosen: slots for this code; for transformers the batch size, or how the
# samples of a prompt share its prefill.
VARIANTS = {
    "equal": {"salign": ("slots 64",), "transformers": ("batch 64",)},
    "geometric": {
        "salign": ("slots 64", "slots 128", "slots 256"),
        "transformers": ("batch 64", "batch 256"),
    },
    "prefix": {
        "salign": ("slots 64", "slots 256"),
        "transformers": ("num_return_sequences", "cached prefix"),
    },
}


def make_workload(name: str):
    """(prefix, prompts, response length of each prompt, samples of each)."""
    import numpy as np

    rng = np.random.default_rng(list(TARGETS).index(name))
    count = {"equal": 64, "geometric": 256, "prefix": 16}[name]
    prompts = rng.integers(0, common.MODEL["vocab"], (count, PROMPT)).tolist()
    lengths = [NEW] * count
    if name == "geometric":
        lengths = rng.geometric(0.061, count).clip(1, NEW).tolist()
    if name == "prefix":
        prefix = rng.integers(0, common.MODEL["vocab"], PREFIX).tolist()
        return prefix, prompts, lengths, SAMPLES
    return [], prompts, lengths, 1


def salign_side(folder: Path):
    """`run(workload, variant, seed)` -> list of responses; exports the weights."""
    import jax

    from models import decoder, pretrained, sampler
    from models.sampling import Sampling

    cfg = common.decoder_config()
    params = decoder.init_params(cfg, jax.random.key(1))
    pretrained.save_pretrained(folder, cfg, params)

    def run(workload, variant, seed):
        prefix, prompts, lengths, samples = make_workload(workload)
        rollout = sampler.generate(
            cfg,
            params,
            prompts,
            Sampling(temperature=1.0 if workload == "prefix" else 0.0),
            jax.random.key(seed),
            max_new_tokens=lengths,
            samples=samples,
            prefix=prefix,
            slots=int(variant.split()[-1]),
            shrink=True,
        )
        return [rollout.response(row) for row in range(len(rollout.lengths))]

    return run


def transformers_side(folder: Path):
    """`run(workload, variant, seed)` -> list of responses."""
    import torch
    from transformers import DynamicCache, LlamaForCausalLM

    torch.set_num_threads(common.CORES)
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    plain = dict(max_new_tokens=NEW, eos_token_id=None, pad_token_id=0)
    draw = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)

    def until(lengths):
        """Stops each row at its own length, and the batch when all have stopped."""
        ends = torch.tensor(lengths) + PROMPT
        return [lambda ids, scores, **_: ids.shape[1] >= ends]

    def greedy(prompts, lengths, batch):
        out = []
        for start in range(0, len(prompts), batch):
            some = slice(start, start + batch)
            ids = torch.tensor(prompts[some])
            tokens = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),  # or id 0 would count as padding
                do_sample=False,
                stopping_criteria=until(lengths[some]),
                **plain,
            )
            out += tokens[:, PROMPT:].tolist()
        return out

    def cached(prefix, ids):
        """One prefill of the prefix, one of the prompts; copied for the samples."""
        cache = DynamicCache(config=model.config)
        model(torch.tensor([prefix]), past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(len(ids))
        rest = ids[:, len(prefix) : -1]
        model(rest, past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(SAMPLES)
        return cache

    def run(workload, variant, seed):
        prefix, prompts, lengths, samples = make_workload(workload)
        torch.manual_seed(seed)
        with torch.inference_mode():
            if workload != "prefix":
                rows = greedy(prompts, lengths, int(variant.split()[-1]))
                return [row[:n] for row, n in zip(rows, lengths, strict=True)]
            ids = torch.tensor([prefix + prompt for prompt in prompts])
            width = ids.shape[1]
            options = {"num_return_sequences": samples}
            if variant == "cached prefix":
                options = {"past_key_values": cached(prefix, ids)}
                ids = ids.repeat_interleave(samples, dim=0)
            ones = torch.ones_like(ids)
            tokens = model.generate(
                ids, attention_mask=ones, **options, **draw, **plain
            )
            return tokens[:, width:].tolist()

    return run


def worker(side: str, folder: Path) -> None:
    """Answers {workload, variant, seed, show} with {seconds, count, tokens}."""
    run = {"salign": salign_side, "transformers": transformers_side}[side](folder)

    def answer(workload, variant, seed, show=False):
        began = time.perf_counter()
        responses = run(workload, variant, seed)
        seconds = time.perf_counter() - began
        count = sum(map(len, responses))
        return {
            "seconds": seconds,
            "count": count,
            "tokens": responses if show else None,
        }

    common.serve(answer)


def measure(workload: str, sides: dict, rounds: int) -> dict:
    """Tokens per second of both sides, and their ratio.

    Every variant is tried, up to three times where that is quick (once more here, where
    the first run compiles); then the variant of each side with the quickest try is
    measured, both sides in turn.
    """
    _, _, lengths, samples = make_workload(workload)
    useful = sum(lengths) * samples

    def ask(side, variant, seed, show=False):
        answer = sides[side].ask(
            workload=workload, variant=variant, seed=seed, show=show
        )
        if answer["count"] != useful:
            raise RuntimeError(
                f"{side} made {answer['count']} tokens, expected {useful}"
            )
        return answer["tokens"] if show else useful / answer["seconds"]

    tried = {side: {} for side in SIDES}
    for side in SIDES:
        for variant in VARIANTS[workload][side]:
            if side == "salign":
                ask(side, variant, 0)
            began, tries = time.perf_counter(), []
            while len(tries) < 3 and time.perf_counter() - began < QUICK:
                tries.append(ask(side, variant, 0))
            tried[side][variant] = max(tries)
    best = {side: max(tried[side], key=tried[side].get) for side in SIDES}
    rates = {side: [] for side in SIDES}
    for seed in range(1, rounds + 1):
        for side in SIDES:
            rates[side].append(ask(side, best[side], seed))
    same = None
    if workload != "prefix":  # greedy
        ours, theirs = (ask(side, best[side], 0, show=True) for side in SIDES)
        same = ours == theirs
    return {
        "tokens": useful,
        "tried": tried,
        "best": best,
        "tokens_per_s": rates,
        "median": {side: statistics.median(rates[side]) for side in SIDES},
        "ratio": statistics.median(
            a / b for a, b in zip(*(rates[side] for side in SIDES), strict=True)
        ),
        "target": TARGETS[workload],
        "same_tokens": same,
    }


def table(results: dict) -> str:
    """The results for people."""
    lines = [
        f"{'workload':<10} {'salign':>9} {'transformers':>13}   ratio  target  tokens"
    ]
    same = {True: "same", False: "DIFFER", None: "drawn"}
    for name, r in results.items():
        ours, theirs = (r["median"][side] for side in SIDES)
        lines.append(
            f"{name:<10} {ours:>9,.0f} {theirs:>13,.0f}  {r['ratio']:>5.2f}x "
            f"{r['target']:>6.1f}x  {same[r['same_tokens']]}"
        )
    lines.append("useful tokens/s, median of the rounds; best variants:")
    for name, r in results.items():
        lines.append(
            f"  {name}: " + ", ".join(f"{s} {v}" for s, v in r["best"].items())
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.folder)
        return
    if arguments.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {arguments.rounds}")
    common.require("torch", "transformers")
    workloads = [arguments.only] if arguments.only else list(TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        # In this order: the first exports the weights that the second loads.
        module, place = "research.benchmarks.generate", f"--folder={folder}/llama"
        sides = {side: common.own_side(module, side, place) for side in SIDES}
        results = {w: measure(w, sides, arguments.rounds) for w in workloads}
        for side in sides.values():
            side.close()
    print(table(results))
    result = {"model": common.MODEL, "cores": common.CORES, "workloads": results}
    common.write(result, arguments.out)
    if any(r["same_tokens"] is False for r in results.values()):
        print("error: greedy tokens differ from transformers'", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
