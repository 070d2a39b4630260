"""Generators trained further, as the report reads them from their stages."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.records import read_records
from research.easy_to_hard.policies import best, right_answers
from research.easy_to_hard.tables import in_group
from research.intervals import bootstrap
from research.report import Interval
from research.stages import StageResult

# name: (what, questions, answers, whether the process model rewards)
ROWS = {
    "full": ("full SFT", "", "", ""),
    "quoted-rl": ("earlier RL (Math-Shepherd)", "", "", ""),
    "sft": ("easy-to-hard SFT", "", "", ""),
    "rest": ("ReST-EM", "easy", "easy", ""),
    "dpo": ("iterative DPO", "easy", "easy", "yes"),
    "dpo-all": ("iterative DPO", "all", "easy", "yes"),
    "ppo-easy": ("PPO", "easy", "easy", ""),
    "ppo-all": ("PPO, not easy-to-hard", "all", "all", ""),
    "ppo-prm": ("PPO", "all", "easy", "yes"),
    "ppo-free": ("PPO without a KL penalty", "all", "easy", "yes"),
    "ppo-faithful": ("PPO with the original's quirks", "all", "easy", "yes"),
}


class Trained:
    """Right greedy answers [seeds, problems] of the chosen round of every method."""

    def __init__(
        self, stages: Mapping[str, Sequence[Sequence[StageResult]]], rules: str
    ):
        """stages[name][seed][round], the rounds of one run in order."""
        self.stages = stages
        self.chosen = {
            name: [rounds[best(rounds)] for rounds in runs]
            for name, runs in stages.items()
        }
        self.values = {
            name: np.array([right_answers(stage, rules) for stage in chosen])
            for name, chosen in self.chosen.items()
        }
        first = next(iter(self.chosen.values()))[0]
        rows = [record.row for record in read_records(first.folder / "test.jsonl")]
        self.levels = np.array([row["level"] for row in rows])

    def estimate(self, name, group, rng) -> Interval:
        return bootstrap(self.values[name][:, in_group(self.levels, group)], rng)

    def difference(self, a, b, group, rng) -> Interval:
        """Paired difference a - b of two methods."""
        kept = in_group(self.levels, group)
        return bootstrap((self.values[a] - self.values[b])[:, kept], rng)
