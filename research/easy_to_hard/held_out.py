"""What a policy answers to held-out problems, greedily."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.records import write_jsonl
from data.steps import text_encoder
from models.sampler import generate
from models.sampling import Sampling
from research.easy_to_hard.rules import RULES
from research.easy_to_hard.settings import Drawn
from research.easy_to_hard.tasks import EASY, read_problems
from research.stages import StageResult
from research.weights import Loaded


def greedy(policy: Loaded, params, problems: Sequence[dict], drawn: Drawn) -> list[str]:
    """Greedy responses, as texts."""
    encode = text_encoder(policy.tokenizer)
    rollout = generate(
        policy.cfg,
        params,
        [encode(p["prompt"]) for p in problems],
        Sampling(temperature=0.0, eos_ids=policy.tokenizer.stop_ids),
        None,  # nothing is drawn
        max_new_tokens=drawn.max_new_tokens,
        slots=drawn.slots,
    )
    rows = range(len(problems))
    return [policy.tokenizer.decode(rollout.response(i)) for i in rows]


def accuracy(
    problems: Sequence[dict], texts: Sequence[str], rules: str = "exact"
) -> dict[str, float | None]:
    """Share of right answers among easy, hard and all problems; None without any."""
    by = RULES[rules]
    right = np.array([
        by.is_right(text, p["answer"]) for p, text in zip(problems, texts, strict=True)
    ])  # fmt: skip
    easy = np.array([p["level"] in EASY for p in problems])
    groups = {"easy": right[easy], "hard": right[~easy], "all": right}
    return {n: float(x.mean()) if len(x) else None for n, x in groups.items()}


def finish(
    folder: Path, policy: Loaded, params, data: StageResult, drawn: Drawn, rules: str
) -> dict[str, float | None]:
    """Answers the held-out problems; returns the accuracy on development problems."""
    test = read_problems(data.folder / "test.jsonl")
    final_answer = RULES[rules].final_answer
    texts = greedy(policy, params, test, drawn)
    write_jsonl(folder / "test.jsonl", [
        {"level": p["level"], "answer": p["answer"], "greedy": final_answer(text)}
        for p, text in zip(test, texts, strict=True)
    ])  # fmt: skip
    development = read_problems(data.folder / "development.jsonl")
    texts = greedy(policy, params, development, drawn)
    return accuracy(development, texts, rules)
