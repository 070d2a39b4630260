"""One PPO iteration beside TRL's and tunix's, the same work on the same machine.

    python -m research.benchmarks.ppo [--rounds=5] [--only=trl|tunix]
        [--environments=runs/benchmarks] [--out=FILE.json]

64 prompts of 32 tokens, 64 new tokens for each, one epoch with one update of all 64, in
float32. Policy, reference, reward model and critic are four Llamas of 4.46M parameters
(vocabulary 512, width 256, 4 layers, 8 heads, ffn 1024); no token ends a response. Each
side is a process of its own that does an iteration when it is its turn. The first one,
in which things are compiled, is shown but not counted. Where there is a choice of
micro-batches, each is tried and the quickest is measured.

The peers run in environments of their own, which the command builds once (about 3 GB
for TRL, 2 GB for tunix) with the versions of peers/*.txt. About 8 minutes on two cores
when they are there. Exit code 1: a peer could not be built or did not run, and why.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from research.benchmarks import common, environments
from research.benchmarks.environments import PEERS

OURS = "salign"
SIDES = (OURS, *PEERS)
TARGETS = {"trl": 2.0, "tunix": 3.0}
MICRO = (64, 16)
PARTS = ("rollout", "scoring", "update")
NOTES = (
    "What differs in the work:",
    "  trl has old log-probs from generation; the others run the old policy again.",
    "  salign scores with old policy, reference and critic in the call of the update:",
    "  that is in its part 'update'; its part 'scoring' is the reward model alone.",
    "  salign clips gradients and measures KL and entropy of the rollout, trl entropy.",
    "  tunix reads prompts from text, and makes text of the responses.",
)


def work_of(micro: int, folder: str) -> dict:
    """What a peer's script is told: model, prompts, settings, a folder to write to."""
    from research.benchmarks.iteration import Work, make_prompts

    work = Work()
    return {
        **dataclasses.asdict(work),
        "prompts": make_prompts(work, common.MODEL["vocab"]),
        "model": common.MODEL,
        "micro": micro,
        "cores": common.CORES,
        "folder": folder,
    }


def start(side: str, micro: int, home: Path, folder: str) -> common.Side:
    """The process of a side with that micro-batch, compiled nothing yet."""
    if side == OURS:
        module = "research.benchmarks.ppo"
        return common.own_side(module, OURS, f"--micro={micro}")
    peer = PEERS[side]
    script = environments.PINS / peer.script
    python = home / side / "bin" / "python"
    command = [str(python), str(script), json.dumps(work_of(micro, folder))]
    return common.Side(command, Path(folder) / f"{side}.log")


def worker(micro: int) -> None:
    """Answers {} with one iteration's seconds, tokens, updates and parts."""
    from research.benchmarks.iteration import Work, make_run

    work = Work()
    common.serve(make_run(common.decoder_config(), work, work.minibatch // micro))


def checked(side: str, answer: Mapping) -> Mapping:
    """The answer of a side that did the work. Raises RuntimeError otherwise."""
    from research.benchmarks.iteration import Work

    work = Work()
    for name, expected in (("tokens", work.tokens), ("updates", work.updates)):
        if answer[name] != expected:
            raise RuntimeError(
                f"{side}: an iteration had {answer[name]} {name}, expected {expected}"
            )
    return answer


def choose(side: str, begin: Callable[[str, int], common.Side], tries: int = 2):
    """(the side with its quickest micro-batch, that, its first iteration's seconds).

    Args:
      begin: (side, micro) -> a `Side`.

    Raises RuntimeError where none of them does the work.
    """
    best, failed = None, None
    for micro in MICRO:
        process = None
        try:
            process = begin(side, micro)
            first = checked(side, process.ask())["seconds"]
            quickest = min(
                checked(side, process.ask())["seconds"] for _ in range(tries)
            )
        except RuntimeError as e:
            failed = e
            if process is not None:
                process.close()
            continue
        if best is None:
            best = quickest, process, micro, first
        elif quickest < best[0]:
            best[1].close()
            best = quickest, process, micro, first
        else:
            process.close()
    if best is None:
        raise failed
    return best[1:]


def measure(sides: Mapping[str, common.Side], rounds: int) -> tuple[dict, dict]:
    """(answers of each side, round by round; why a side has none)."""
    answers, failed = {side: [] for side in sides}, {}
    for _ in range(rounds):
        for side, process in sides.items():
            if side in failed:
                continue
            try:
                answers[side].append(checked(side, process.ask()))
            except RuntimeError as e:
                failed[side] = str(e)
    return {s: a for s, a in answers.items() if s not in failed}, failed


def summary(answers: Mapping[str, list]) -> dict:
    """Medians of each side, and how many times as long as ours a peer's round took."""
    sides = {
        side: {
            "seconds": [a["seconds"] for a in given],
            "median": statistics.median(a["seconds"] for a in given),
            "cpu": statistics.median(a["cpu"] for a in given),
            "parts": {
                part: statistics.median(a["parts"][part] for a in given)
                for part in PARTS
            },
        }
        for side, given in answers.items()
    }
    for side in sides:
        if side != OURS and OURS in sides:
            pairs = zip(sides[side]["seconds"], sides[OURS]["seconds"], strict=True)
            ratios = [theirs / ours for theirs, ours in pairs]
            sides[side]["ratio"] = {
                "median": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
                "target": TARGETS[side],
            }
    return sides


def table(result: Mapping) -> str:
    """The result for people."""
    lines = [
        "seconds of an iteration, median of the rounds; cpu: of all threads together",
        f"{'side':<8}{'all':>7}{'cpu':>7}{'rollout':>9}{'scoring':>9}{'update':>8}{'first':>8}"
        f"{'micro':>7}  ratio (least, most)   target",
    ]
    for side, of in result["sides"].items():
        parts = of["parts"]
        line = (
            f"{side:<8}{of['median']:>7.2f}{of['cpu']:>7.2f}{parts['rollout']:>9.2f}"
            f"{parts['scoring']:>9.2f}{parts['update']:>8.2f}{of['first']:>8.1f}"
            f"{of['micro']:>7}"
        )
        if "ratio" in of:
            r = of["ratio"]
            line += (
                f"  {r['median']:.2f}x ({r['least']:.2f}, {r['most']:.2f})"
                f"{r['target']:>11.1f}x"
            )
        lines.append(line)
    for side, why in result["not_run"].items():
        lines.append(f"{side:<8}not run: {why}")
    for side, packages in result["versions"].items():
        shown = ", ".join(f"{name} {v}" for name, v in packages.items())
        lines.append(f"versions of {side}: {shown}")
    lines.append(f"load of the machine before and after: {result['load']}")
    return "\n".join([*lines, *NOTES])


def own_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("jax", "flax", "optax")}


def run(peers: list[str], rounds: int, home: Path) -> dict:
    """Builds what is missing, measures, and says what could not be run."""
    not_run, all_versions = {}, {OURS: own_versions()}
    for name in peers:
        try:
            environments.build(PEERS[name], home)
            every = environments.versions(PEERS[name], home)
            all_versions[name] = {p: every.get(p) for p in PEERS[name].shown}
        except environments.NotBuilt as e:
            not_run[name] = f"its environment could not be built: {e}"
    sides, chosen, load = {}, {}, [round(os.getloadavg()[0], 1)]
    with tempfile.TemporaryDirectory() as folder:

        def begin(side, micro):
            return start(side, micro, home, folder)

        try:
            for side in (OURS, *(p for p in peers if p not in not_run)):
                try:
                    sides[side], micro, first = choose(side, begin)
                    chosen[side] = {"micro": micro, "first": first}
                except RuntimeError as e:
                    if side == OURS:
                        raise
                    not_run[side] = str(e)
            answers, failed = measure(sides, rounds)
        finally:
            for process in sides.values():
                process.close()
    load.append(round(os.getloadavg()[0], 1))
    found = summary(answers)
    return {
        "model": common.MODEL,
        "cores": common.CORES,
        "versions": all_versions,
        "sides": {side: {**chosen[side], **of} for side, of in found.items()},
        "not_run": {**not_run, **failed},
        "load": load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(PEERS))
    parser.add_argument("--environments", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=(OURS,), help=argparse.SUPPRESS)
    parser.add_argument("--micro", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.micro)
        return
    if arguments.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {arguments.rounds}")
    peers = [arguments.only] if arguments.only else list(PEERS)
    result = run(peers, arguments.rounds, arguments.environments.absolute())
    print(table(result))
    common.write(result, arguments.out)
    if result["not_run"]:
        print(f"error: not run: {', '.join(result['not_run'])}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
