"""Answers as stages of chapter 4 leave them, for tests of what is made of them."""

from pathlib import Path

from data.records import write_jsonl
from research.recite.scores import Scores
from research.recite.settings import Methods, Task
from research.stages import StageResult

ONE, TWO = Task("one"), Task("two", hops=2)
SETTINGS = Methods(paths=4, counts=(1, 2, 4), exemplar_seeds=3)
ANSWER = "yes"
N = 20


def entry(number: int, kind: str = "plain") -> dict:
    return {"id": str(number), "question": f"q{number}?", "answers": [ANSWER],
            "type": kind, "evidence": ["It is so: yes."], "hint": "T",
            "rationale": ""}  # fmt: skip


def answers(right, *, K=4, recited=0) -> list[dict]:
    """Rows whose first `right[i]` of K paths are right, and the first of them recited.

    The vote is right where more than half of the paths are.
    """
    rows = []
    for i, count in enumerate(right):
        found = [ANSWER] * count + [f"no {n}" for n in range(K - count)]
        told = ["It is so: yes."] * recited + ["Nothing."] * (K - recited)
        voted = ANSWER if 2 * count > K else "no"
        rows.append({"id": str(i), "recitations": told, "answers": found,
                     "voted": voted, "more": {"prompt": "Q:"}})  # fmt: skip
    return rows


class Written:
    """Stages on disk, as a run leaves them."""

    def __init__(self, root: Path, *tasks: Task, count=N, kinds=("plain",), seed=0):
        self.root, self.stages = root, {}
        rows = [entry(i, kinds[i % len(kinds)]) for i in range(count)]
        for task in tasks:
            for name in (task.name, f"exemplars_{task.name}"):
                write_jsonl(root / f"world{seed}" / f"{name}.jsonl", rows)
        self.stages[f"world {seed}"] = StageResult(root / f"world{seed}", {})

    def add(self, name: str, rows: list[dict]):
        folder = self.root / name.replace(" ", "-")
        write_jsonl(folder / "answers.jsonl", rows)
        self.stages[name] = StageResult(folder, {"exemplars_dropped": 0})
        return self

    def scores(self, *tasks: Task, seeds=(0,)) -> Scores:
        return Scores(self.stages, tasks, SETTINGS, seeds)
