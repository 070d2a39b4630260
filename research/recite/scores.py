"""Scores of all methods on all tasks, as arrays over seeds and questions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.recite.answering import Row, read_rows
from research.recite.records import Entry, read_items
from research.recite.scoring import NORMALISERS, exact_match, f1
from research.recite.settings import Methods, Task
from research.stages import StageResult


class Run(NamedTuple):
    """The answers of one method to the questions of one task and seed."""

    task: Task
    entries: list[Entry]
    rows: list[Row]

    @property
    def normalise(self):
        return NORMALISERS[self.task.normaliser]

    def right(self, answers: Sequence[str]) -> np.ndarray:
        """Exact match of one answer a question, float64 [questions]."""
        pairs = zip(answers, self.entries, strict=True)
        return np.array(
            [exact_match(a, e.answers, self.normalise) for a, e in pairs], float
        )

    def overlap(self, answers: Sequence[str]) -> np.ndarray:
        """F1 of one answer a question, float64 [questions]."""
        pairs = zip(answers, self.entries, strict=True)
        return np.array([f1(a, e.answers, self.normalise) for a, e in pairs])

    @property
    def voted(self) -> list[str]:
        return [row.voted for row in self.rows]

    @property
    def paths(self) -> np.ndarray:
        """Exact match of every path, float64 [questions, K]."""
        columns = zip(*(row.answers for row in self.rows), strict=True)
        return np.array([self.right(column) for column in columns]).T


class Scores:
    """What every method scored; a task has different questions in every seed.

    Where seeds have different numbers of them, the least number counts, of each the
    first ones; they are in random order.
    """

    def __init__(
        self,
        stages: Mapping[str, StageResult],
        tasks: Sequence[Task],
        settings: Methods,
        seeds: Sequence[int],
    ):
        self.tasks = {task.name: task for task in tasks}
        self.settings, self.seeds = settings, tuple(seeds)
        self.runs: dict[tuple[str, str, int], Run] = {}
        self.values = {name: stage.value for name, stage in stages.items()}
        self.data = {seed: stages[f"world {seed}"].folder for seed in seeds}
        for task in tasks:
            entries = {
                seed: read_items(folder / f"{task.name}.jsonl")
                for seed, folder in self.data.items()
            }
            most = min(map(len, entries.values()))
            for seed in seeds:
                end = f" {task.name} {seed}"
                for name, stage in stages.items():
                    if name.endswith(end):
                        rows = read_rows(stage)[:most]
                        key = name.removesuffix(end), task.name, seed
                        self.runs[key] = Run(task, entries[seed][: len(rows)], rows)

    def has(self, method: str, task: str) -> bool:
        return (method, task, self.seeds[0]) in self.runs

    def of(self, method: str, task: str) -> list[Run]:
        """The runs of all seeds."""
        return [self.runs[method, task, seed] for seed in self.seeds]

    def right(self, method: str, task: str) -> np.ndarray:
        """Exact match of the voted answer, float64 [seeds, questions]."""
        return np.array([run.right(run.voted) for run in self.of(method, task)])

    def overlap(self, method: str, task: str) -> np.ndarray:
        """F1 of the voted answer, float64 [seeds, questions]."""
        return np.array([run.overlap(run.voted) for run in self.of(method, task)])

    def single(self, method: str, task: str) -> np.ndarray:
        """Exact match of one path, the mean of all, float64 [seeds, questions]."""
        return np.array([run.paths.mean(axis=1) for run in self.of(method, task)])

    def by_exemplars(self, method: str, task: str) -> np.ndarray:
        """Exact match with each draw of exemplars, float64 [draws, seeds, questions].

        method: "direct" or "recite"
        """
        runs = self.of("robust", task)
        return np.array(
            [
                [run.right([row.more[method][d] for row in run.rows]) for run in runs]
                for d in range(self.settings.exemplar_seeds)
            ]
        )
