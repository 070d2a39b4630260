"""Run as a script on 4 simulated devices: stages on one and on all; prints JSON.

Argument: a folder. See tests/research/test_spread_stages.py.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from data.records import write_jsonl
from models.params import flatten_names
from models.pretrained import from_pretrained
from models.reward_model import load_reward_model
from research.easy_to_hard import evaluators, policies
from research.easy_to_hard.settings import DPORounds, Drawn, EvaluatorTraining
from research.stages import StageResult
from train.commands import MeshConfig
from train.optim import OptimizerConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import paper_runs  # noqa: E402

ADAM = OptimizerConfig(lr=1e-3, schedule="constant")
PROMPTS = [f"# Question\n\n{q}\n\n# Solution\n\n" for q in paper_runs.questions(12)]
ENDS = [f"\n\nSo.\n\n# Answer\n\n{answer}" for answer in ("\\frac12", "2")]
EVALUATOR = EvaluatorTraining(
    steps=4, batch_size=8, length=32, held_out=0.25, eval_every=2, optimizer=ADAM
)
ROUND = DPORounds(
    drawn=Drawn(samples=4, max_new_tokens=12, slots=16),
    gap=0.2, most=1, batch_size=8, length=32, optimizer=ADAM,
)  # fmt: skip


def inputs(folder: Path) -> tuple[StageResult, StageResult, StageResult]:
    """(a generator, labelled solutions, problems)."""
    paper_runs.answering_checkpoint(folder / "generator")
    labelled = [
        {"prompt": prompt, "steps": ["Good.", end], "labels": [1, i % 2]}
        for i, (prompt, end) in enumerate(zip(PROMPTS, ENDS * 6, strict=True))
    ]
    problems = [
        {"prompt": prompt, "completion": "", "answer": answer, "level": 1}
        for prompt, answer in zip(PROMPTS, ["0.5", "2"] * 6, strict=True)
    ]
    for name in ("process", "outcome"):
        write_jsonl(folder / "labels" / f"{name}.jsonl", labelled)
    for name in ("train", "development", "test"):
        write_jsonl(folder / "data" / f"{name}.jsonl", problems)
    names = ("generator", "labels", "data")
    return tuple(StageResult(folder / name, {}) for name in names)


def run(folder: Path, given, **settings) -> dict:
    """An evaluator, and a round of DPO by it: what the stages return and leave."""
    generator, labels, data = given
    common = {"dtype": "float32", "remat": "none", "seed": 0, **settings}
    learned = evaluators.train_evaluator(
        folder / "oprm", labels=labels, start=generator, kind="oprm",
        training=EVALUATOR, **common,
    )  # fmt: skip
    judge = StageResult(folder / "oprm", learned)
    told = policies.dpo_round(
        folder / "dpo", data=data, policy=generator, evaluator=judge, rounds=ROUND,
        number=1, rules="math", **common,
    )  # fmt: skip
    samples = (folder / "dpo" / "samples.jsonl").read_text()
    models = (
        load_reward_model(folder / "oprm" / "hf"),
        from_pretrained(folder / "dpo" / "hf"),
    )
    weights = [flatten_names(model.params) for model in models]
    return {"oprm": learned, "dpo": told, "samples": samples, "weights": weights}


def main(folder: Path) -> dict:
    given = inputs(folder)
    one = run(folder / "one", given)
    all_of_them = run(folder / "all", given, accum=2, mesh=MeshConfig())
    before = flatten_names(from_pretrained(folder / "generator" / "hf").params)
    pairs = [
        (np.asarray(a[name]), np.asarray(b[name]))
        for a, b in zip(one["weights"], all_of_them["weights"], strict=True)
        for name in a
    ]
    moved = one["weights"][1]
    return {
        "devices": len(jax.devices()),
        "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
        "moved": max(float(np.abs(moved[n] - before[n]).max()) for n in before),
        "samples": one["samples"] == all_of_them["samples"],
        "results": [[x["oprm"], x["dpo"]] for x in (one, all_of_them)],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
