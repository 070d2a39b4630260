"""What the stages of chapter 6 leave, with shares of right answers as one asks.

`COUNT` easy problems come first, then as many hard ones; of each kind a share, from the
first on, is answered rightly. A share is a number, or (of easy ones, of hard ones).
"""

import math

from data.records import write_jsonl
from research.easy_to_hard.settings import Sampled
from research.stages import StageResult

COUNT = 30
LEVELS = [2] * COUNT + [5] * COUNT
SAMPLED = Sampled(votes=5, counts=(1, 5), repeats=3)
# Probabilities of five solutions, of which three have one answer and two another: by
# weighted votes and by the best single one, which of the two wins.
MOST, FEW = "three", "two"
JUDGED = {
    (MOST, MOST): (0.9, 0.9, 0.9, 0.1, 0.1),
    (MOST, FEW): (0.8, 0.8, 0.8, 0.9, 0.1),
    (FEW, MOST): (0.9, 0.1, 0.1, 0.8, 0.8),
    (FEW, FEW): (0.1, 0.1, 0.1, 0.9, 0.9),
}


def logit(p):
    return math.log(p / (1 - p))


def rights(share):
    """Whether each problem is answered rightly."""
    easy, hard = share if isinstance(share, tuple) else (share, share)
    return [i < of * COUNT for of in (easy, hard) for i in range(COUNT)]


def answers(folder, greedy=0.5, majority=0.5):
    """A stage of answers: 1 is right, 0 is wrong; three of five are the majority's."""
    rows = [
        {
            "level": level,
            "answer": "1",
            "prompt": "q",
            "greedy": "01"[g],
            "greedy_text": "text",
            "pool": ["01"[m]] * 3 + ["01"[not m]] * 2,
            "texts": ["text"] * 5,
        }
        for level, g, m in zip(LEVELS, rights(greedy), rights(majority), strict=True)
    ]
    write_jsonl(folder / "answers.jsonl", rows)
    return StageResult(folder, {})


def scores(folder, kind, majority=0.5, weighted=0.5, best=0.5):
    """A stage of scores by which so many votes and so many best solutions are right."""
    rows = []
    for m, w, b in zip(*map(rights, (majority, weighted, best)), strict=True):
        sides = (MOST if w == m else FEW, MOST if b == m else FEW)
        logits = [logit(p) for p in JUDGED[sides]]
        if kind == "orm":  # whose steps say the contrary
            rows.append({"steps": [[-x] for x in logits], "answer": logits})
        else:
            rows.append({"steps": [[x] for x in logits], "answer": [None] * 5})
    write_jsonl(folder / "scores.jsonl", rows)
    return StageResult(folder, {})


def evaluator(folder, kind, auc=0.95):
    """A trained evaluator's stage; `auc` is of its own task."""
    own, other = ("outcome", "process") if kind == "orm" else ("process", "outcome")
    value = {f"eval/{own}_auc": auc, "eval/accuracy": 0.9}
    value |= {"eval/brier": 0.1, "eval/ece": 0.02, "step": 600}
    if kind in ("oprm", "large"):
        value[f"eval/{other}_auc"] = 0.2  # no claim is about it
    return StageResult(folder, value)


def policy(folder, right=0.5, easy=0.5, **value):
    """A round of further training; easy: its accuracy on development problems."""
    rows = [
        {"level": level, "answer": "1", "greedy": "01"[r]}
        for level, r in zip(LEVELS, rights(right), strict=True)
    ]
    write_jsonl(folder / "test.jsonl", rows)
    write_jsonl(folder / "samples.jsonl", [{"texts": ["text"] * 4}] * 3)
    development = {"easy": easy, "hard": 0.2}
    return StageResult(folder, {"development": development, "steps": 7, **value})


CURVE = (
    {"step": 8, "reward": 1.0, "process": 0.1, "kl": 0.5, "easy": 0.5, "hard": 0.5},
)


def ppo(folder, curve=CURVE, best=8, right=0.5):
    """A run of PPO with the rows of its curve."""
    made = policy(folder, right, best=best)
    write_jsonl(folder / "curve.jsonl", curve)
    return made


def programs(folder, gain, **auc):
    """Results of programs; gain: what the best of 16 solves more than others do.

    auc: of the outcome model on test problems, by difficulty.
    """
    rows = []
    for i in range(40):
        low = float(i % 10 < 2)
        high = float(i % 10 < 2 + 10 * abs(gain))
        best, others = (high, low) if gain > 0 else (low, high)
        ways = {"full-greedy": 0.5, "easy-greedy": others, "best-of-1": others}
        ways["best-of-16"] = best
        rows.append({
            "difficulty": ("introductory", "interview")[i % 2],
            "average": ways,
            "strict": {**ways, "pass-at-16": 1.0},
        })  # fmt: skip
    write_jsonl(folder / "results.jsonl", rows)
    found = {"auc": 0.95, "auc_within": 0.9, "mixed_problems": 3}
    ranks = {name: {**found, "auc": value} for name, value in auc.items()}
    return StageResult(folder, {"ranking": {**ranks, "all": found}})
