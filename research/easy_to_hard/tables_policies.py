"""Further training in the report: Table 6.2, and reward against truth during PPO."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.records import read_records
from research import plots
from research.easy_to_hard.policies import best, right_answers
from research.easy_to_hard.tables import GROUPS, in_group, points
from research.intervals import bootstrap, verdict
from research.report import Column, Figure, Interval, Section, Table, Verdict
from research.stages import StageResult

# name: (what, questions, answers, whether the process model rewards)
ROWS = {
    "full": ("full SFT", "", "", ""),
    "sft": ("easy-to-hard SFT", "", "", ""),
    "rest": ("ReST-EM", "easy", "easy", ""),
    "dpo": ("iterative DPO", "easy", "easy", "yes"),
    "ppo-easy": ("PPO", "easy", "easy", ""),
    "ppo-all": ("PPO, not easy-to-hard", "all", "all", ""),
    "ppo-prm": ("PPO", "all", "easy", "yes"),
    "ppo-free": ("PPO without a KL penalty", "all", "easy", "yes"),
    "ppo-faithful": ("PPO with the original's quirks", "all", "easy", "yes"),
}
# Table 6.2 (Llemma-7B, greedy, MATH500): easy, hard, all; PRM800K 1-3, MetaMath 1-3.
# The rows without hard answers are in the thesis, "ppo-all" in its appendix only.
THESIS = {
    "PRM800K": {
        "sft": (28.2, 12.2, 19.8),
        "rest": (33.2, 12.6, 22.4),
        "dpo": (42.0, 12.2, 26.4),
        "ppo-easy": (42.0, 14.1, 27.4),
        "ppo-all": (42.0, 10.7, 25.6),
        "ppo-prm": (45.4, 14.9, 29.4),
    },
    "MetaMath": {
        "full": (51.7, 13.7, 31.4),
        "sft": (44.1, 14.9, 28.8),
        "rest": (50.4, 14.5, 31.6),
        "dpo": (53.8, 16.0, 34.0),
        "ppo-easy": (50.8, 15.3, 32.2),
        "ppo-all": (50.8, 13.4, 31.2),
        "ppo-prm": (53.8, 16.0, 34.0),
    },
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
        kept = in_group(self.levels, group)
        return bootstrap((self.values[a] - self.values[b])[:, kept], rng)


def section(
    stages: Mapping[str, Sequence[Sequence[StageResult]]],
    ready: bool,
    rules: str = "exact",
) -> tuple[Section, list[Verdict]]:
    """The section of further training, and the verdicts for the top of the report.

    ready: whether the process model ranks steps well enough for claims about it.
    rules: how answers are compared.
    """
    read, rng = Trained(stages, rules), np.random.default_rng(62)
    blocks = [table_6_2(read, rng), rounds_table(read)]
    if "ppo-prm" in stages:
        blocks += hacking(read)
    return Section("Further training (Table 6.2)", blocks), verdicts(read, ready, rng)


def table_6_2(read: Trained, rng) -> Table:
    """Greedy accuracy, ours, then the thesis's two blocks."""
    rows = []
    for name, what in ROWS.items():
        if name in read.values:
            cells = [read.estimate(name, group, rng) for group in GROUPS]
            rows.append(["here", *what, *cells])
    for source, lines in THESIS.items():
        for name, numbers in lines.items():
            rows.append([source, *ROWS[name], *(x / 100 for x in numbers)])
    columns = [Column("source"), Column("method"), Column("questions")]
    columns += [Column("answers"), Column("PRM")]
    columns += [Column(group, format=".1%") for group in GROUPS]
    return Table(
        columns,
        rows,
        "Greedy accuracy after further training (Table 6.2)",
        "DPO and PPO start from the easy-to-hard generator, ReST-EM tunes the base on "
        "its samples. Checkpoints were chosen by easy development problems, where "
        "all answers are known by all; the thesis chose by all. PRM: the process model "
        "rewards steps. The quirks: KL clamped at 0, EOS outside the mask, statistics "
        "and means over padding; the graded penalty on formats is not among them.",
    )


def rounds_table(read: Trained) -> Table:
    """Development accuracy of each round, and which one was taken."""
    rows = []
    for name, runs in read.stages.items():
        if max(map(len, runs)) < 2:
            continue
        for number in range(len(runs[0])):
            scores = [rounds[number].value["development"] for rounds in runs]
            taken = sum(best(rounds) == number for rounds in runs)
            cells = [
                float(np.mean([s[g] for s in scores])) if scores[0][g] is not None
                else None
                for g in ("easy", "hard")
            ]  # fmt: skip
            used = [
                r[number].value.get("selected", r[number].value.get("pairs"))
                for r in runs
            ]
            mean = float(np.mean(used)) if None not in used else None
            rows.append([ROWS[name][0], number + 1, mean, *cells, taken])
    columns = [Column("method"), Column("round", format="d")]
    columns += [Column("solutions or pairs", format=",.0f")]
    columns += [Column("easy", format=".1%"), Column("hard", format=".1%")]
    columns += [Column("taken by seeds", format="d")]
    return Table(
        columns,
        rows,
        "Rounds, on development problems",
        "The round is chosen by the easy column; the hard one is shown only.",
    )


def hacking(read: Trained) -> list:
    """Reward against accuracy as PPO goes on, with and without the KL penalty."""
    out = []
    names = {"ppo-prm": "KL penalty", "ppo-free": "no KL penalty",
             "ppo-faithful": "faithful"}  # fmt: skip
    runs = {
        label: [
            [record.row for record in read_records(rounds[0].folder / "curve.jsonl")]
            for rounds in read.stages[name]
        ]
        for name, label in names.items()
        if name in read.stages
    }
    first = next(iter(runs.values()))[0]
    steps = [row["step"] for row in first if "easy" in row]
    # The answers of hard development problems are not known to every run.
    shown = "hard" if any("hard" in row for row in first) else "easy"
    for metric, title, percent in (
        ("reward", "reward of a response", False),
        (shown, f"accuracy on {shown} development problems", True),
        ("kl", "KL from the start, nats per response", False),
    ):
        series = {}
        for label, seeds in runs.items():
            values = np.array(
                [[r.get(metric) for r in rows if r["step"] in steps] for rows in seeds],
                float,
            )
            series[label] = [
                (m, low, high)
                for m, low, high in zip(
                    values.mean(0), values.min(0), values.max(0), strict=True
                )
            ]
        figure = plots.lines(
            steps, series, xlabel="PPO iterations", ylabel=title, percent=percent
        )
        out.append(
            Figure(
                figure,
                f"PPO with the process reward: {title}; bands: the range over seeds.",
                f"Lines of {title} against PPO iterations",
            )
        )
    return out


def verdicts(read: Trained, ready: bool, rng) -> list[Verdict]:
    """Claim 6, each part with its evidence."""
    out = []

    def claim(text, a, b, group):
        if a in read.values and b in read.values:
            gain = read.difference(a, b, group, rng)
            what = f"{ROWS[a][0]} minus {ROWS[b][0]}, {group} problems"
            judged = ready or "yes" not in (ROWS[a][3], ROWS[b][3])
            status = verdict(gain) if judged else "not tested here"
            out.append(Verdict(text, status, f"{what}: {points(gain)}."))

    claim(
        "PPO beats ReST-EM on the same questions and answers.",
        "ppo-easy",
        "rest",
        "all",
    )
    claim(
        "PPO with the process reward on all questions beats ReST-EM.",
        "ppo-prm",
        "rest",
        "all",
    )
    claim(
        "Iterative DPO, whose pairs the process model scores, beats ReST-EM.",
        "dpo",
        "rest",
        "all",
    )
    claim(
        "PPO with the easy-trained process reward on all questions beats the generator "
        "it starts from on hard problems.",
        "ppo-prm",
        "sft",
        "hard",
    )
    claim(
        "It beats PPO on final answers of easy problems.", "ppo-prm", "ppo-easy", "all"
    )
    claim(
        "It beats PPO on the final answers of all problems.",
        "ppo-prm",
        "ppo-all",
        "all",
    )
    claim("It beats SFT on solutions of all levels.", "ppo-prm", "full", "all")
    return out
