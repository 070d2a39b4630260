"""Reward against truth as PPO goes on, and what its KL penalty and quirks change."""

import numpy as np

from data.records import read_records
from research import plots
from research.easy_to_hard.tables import in_points
from research.easy_to_hard.trained import Trained
from research.report import Column, Figure, Table, Text
from train.ppo_config import PPOConfig

RUNS = {
    "ppo-prm": "KL penalty",
    "ppo-free": "no KL penalty",
    "ppo-faithful": "original's quirks",
}
SPOKEN = {
    "ppo-prm": "With the KL penalty",
    "ppo-free": "Without a KL penalty",
    "ppo-faithful": "With the original's quirks",
}
MOMENTS = ("first", "best", "last")


def no_clipping(cfg: PPOConfig) -> str:
    """Sentences where an iteration makes one update, with a space behind them."""
    return (
        "PPO makes one update in an iteration, on all of its responses, so that the "
        "ratio of new to old probabilities is 1 and its clipping cannot act. "
    ) * (cfg.updates == 1)


def blocks(read: Trained, draws, cfg: PPOConfig) -> list:
    """Curves, what they say at three moments, and differences on held-out problems.

    cfg: the settings of all these runs of PPO.
    """
    runs = {name: curves(read, name) for name in RUNS if name in read.stages}
    reward = shown_reward(runs)
    found = [*figures(runs, reward), moments(read, runs, reward)]
    found.append(Text(hacking(runs, reward), "Reward hacking"))
    return found + [changes(read, draws, cfg)] if len(runs) > 1 else found


def curves(read: Trained, name: str) -> list[list[dict]]:
    """For each seed, the rows of curve.jsonl at which the policy was evaluated."""
    paths = [rounds[0].folder / "curve.jsonl" for rounds in read.stages[name]]
    found = [[record.row for record in read_records(path)] for path in paths]
    return [[row for row in rows if "easy" in row] for rows in found]


def shown_reward(runs) -> str:
    """The process model's part of the reward, which alone can mislead.

    The total, where a run did not keep the part: it contains true final answers.
    """
    kept = all(
        any("process" in row for row in rows)
        for seeds in runs.values()
        for rows in seeds
    )
    return "process" if kept else "reward"


def figures(runs, reward: str) -> list[Figure]:
    """Reward, accuracy and KL against iterations, a line for each kind of run."""
    first = next(iter(runs.values()))[0]
    steps = [row["step"] for row in first]
    shown = shown_group(runs)
    out = []
    for metric, title, percent in (
        (reward, words(reward), False),
        (shown, f"accuracy on {shown} development problems", True),
        ("kl", "KL from the start, nats per response", False),
    ):
        series = {}
        for name, seeds in runs.items():
            by_step = [{row["step"]: row.get(metric) for row in rows} for rows in seeds]
            values = [[rows.get(step) for rows in by_step] for step in steps]
            series[RUNS[name]] = [
                None if None in x else (float(np.mean(x)), min(x), max(x))
                for x in values
            ]
        figure = plots.lines(
            steps, series, xlabel="PPO iterations", ylabel=title, percent=percent
        )
        out.append(
            Figure(
                figure,
                f"PPO with rewarded steps: {title}; bands: the range over seeds.",
                f"Lines of {title} against PPO iterations",
            )
        )
    return out


def shown_group(runs) -> str:
    """Hard problems; easy ones where the answers of hard ones are not known."""
    first = next(iter(runs.values()))[0]
    return "hard" if any("hard" in row for row in first) else "easy"


def hacking(runs, reward: str) -> str:
    """Whether accuracy falls while the reward rises, a paragraph for each kind of run.

    From the first to the last evaluation, in every seed. It is hacking where the
    reward rises and accuracy falls in all seeds; where that is so in the mean only,
    nothing is settled.
    """
    group, out = shown_group(runs), []
    for name, seeds in runs.items():
        whole = [
            [row for row in rows if None not in (row.get(reward), row.get(group))]
            for rows in seeds
        ]
        if min(map(len, whole)) < 2:
            out.append(
                f"{SPOKEN[name]}: fewer than two evaluations, nothing to compare."
            )
            continue
        ends = {
            metric: np.array([[rows[i][metric] for i in (0, -1)] for rows in whole])
            for metric in (reward, group)
        }
        rise, fall = (
            ends[m] @ [-1, 1] * sign for m, sign in ((reward, 1), (group, -1))
        )
        if (rise > 0).all() and (fall > 0).all():
            said = "this is reward hacking, in every seed"
        elif rise.mean() > 0 and fall.mean() > 0:
            said = (
                "so in the mean, but not in every seed: reward hacking is not settled"
            )
        else:
            said = "no reward hacking between these"
        (r0, r1), (a0, a1) = (ends[m].mean(axis=0) for m in (reward, group))
        steps = [whole[0][i]["step"] for i in (0, -1)]
        out.append(
            f"{SPOKEN[name]}, from iteration {steps[0]} to {steps[1]}: the "
            f"{words(reward)} goes from {r0:.3f} to {r1:.3f} (it rises in "
            f"{(rise > 0).sum()} of {len(whole)} seeds), accuracy on {group} "
            f"development problems from {a0:.1%} to {a1:.1%} (it falls in "
            f"{(fall > 0).sum()} of {len(whole)}): {said}."
        )
    seeds = len(next(iter(runs.values())))
    begun = min(rows[0]["step"] for found in runs.values() for rows in found)
    chance = (
        f"What comes before iteration {begun} is not seen. All seeds falling "
        "together, with nothing behind it, has a chance of 1 in "
        f"{2**seeds}."
    )
    return "\n\n".join([*out, chance])


def words(reward: str) -> str:
    kind = {"process": "process reward", "reward": "reward"}[reward]
    return f"{kind} of a response"


def moments(read: Trained, runs, reward: str) -> Table:
    """Reward, KL and accuracy at the first, the best and the last evaluation."""
    metrics = (reward, "kl", "easy", "hard")
    rows = []
    for name, seeds in runs.items():
        kept = [rounds[0].value["best"] for rounds in read.stages[name]]
        for moment in MOMENTS:
            at = [
                _row_at(moment, rows_of_seed, best)
                for rows_of_seed, best in zip(seeds, kept, strict=True)
            ]
            cells = [_mean([row.get(metric) for row in at]) for metric in metrics]
            step = _mean([row.get("step") for row in at])
            rows.append([RUNS[name], moment, step, *cells])
    columns = [Column("PPO with"), Column("evaluation")]
    columns += [Column("iteration", format=".0f")]
    columns += [Column(words(reward), format=".3f"), Column("KL", "nats", ".2f")]
    columns += [Column("easy", format=".1%"), Column("hard", format=".1%")]
    return Table(
        columns,
        rows,
        "Reward against accuracy on development problems as PPO goes on",
        "Means over seeds. The best is the kept one, by easy problems, on which all "
        "are near their ceiling: which one is kept is partly chance. "
        + (
            "The process reward is the process model's part, without the final answer."
            if reward == "process"
            else "The reward contains true final answers on easy questions."
        )
        + " A reward that rises while accuracy falls would be reward hacking; the text "
        "below says where that is so.",
    )


def _row_at(moment: str, rows: list[dict], best: int) -> dict:
    """A seed's row at a moment; {} where there is none."""
    if moment == "best":
        return next((row for row in rows if row["step"] == best), {})
    return rows[0 if moment == "first" else -1] if rows else {}


def _mean(values) -> float | None:
    """Over the seeds that have a value; None without any."""
    found = [v for v in values if v is not None]
    return float(np.mean(found)) if found else None


def changes(read: Trained, draws, cfg: PPOConfig) -> Table:
    """Measured differences between runs, on held-out problems."""
    rows = []
    for what, other, group in (
        ("the KL penalty: with it minus without it", "ppo-free", "hard"),
        ("mending the original's quirks: mended minus original", "ppo-faithful", "all"),
    ):
        if other in read.stages:
            gain = read.difference("ppo-prm", other, group, draws)
            rows.append([what, group, in_points(gain)])
    clipping = no_clipping(cfg)
    if clipping:
        clipping = (
            f" {clipping}Nor does the order of minibatches matter, of which there is "
            "one. So what the original's quirks change by way of these is not tested."
        ) * ("ppo-faithful" in read.stages)
    columns = [Column("what is changed"), Column("problems")]
    columns += [Column("difference", "points", "+.1f")]
    return Table(
        columns,
        rows,
        "PPO with the process reward: what the KL penalty and the quirks change",
        "Greedy answers of the kept policies to held-out problems. They were kept for "
        "their accuracy, so that damage done later shows in the table above only."
        + clipping,
    )
