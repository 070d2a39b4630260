"""Further training in the report: Table 6.2, its rounds, and claim 6."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.records import read_records
from research.easy_to_hard import tables_hacking
from research.easy_to_hard.claims import Judges
from research.easy_to_hard.findings import Contest, Finding, least, settle, untestable
from research.easy_to_hard.policies import best
from research.easy_to_hard.settings import Policies, PPORuns
from research.easy_to_hard.tables import GROUPS, in_group, points
from research.easy_to_hard.trained import ROWS, Trained
from research.intervals import Resamples
from research.report import Column, Section, Table
from research.stages import StageResult

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
        "quoted-rl": (None, None, 33.0),
        "sft": (44.1, 14.9, 28.8),
        "rest": (50.4, 14.5, 31.6),
        "dpo": (53.8, 16.0, 34.0),
        "dpo-all": (49.6, 10.7, 29.2),
        "ppo-easy": (50.8, 15.3, 32.2),
        "ppo-all": (50.8, 13.4, 31.2),
        "ppo-prm": (53.8, 16.0, 34.0),
    },
}
# Full SFT on PRM800K is in Table 6.1 only; of all problems.
FULL_PRM800K = (None, None, 20.6)
NOT_OURS = ("quoted-rl", "dpo-all")  # rows of dashes, see the note
# All in which the run with the original's quirks differs: those of `ppo_config.Quirks`,
# and what `policies.ppo_run` adds.
QUIRKS = {
    "kl_clamp": "the KL of a token clamped at 0",
    "eos_outside": "EOS outside the mask",
    "pad_whitening": "statistics over padding",
    "shift_rewards": "the mean added back to whitened rewards",
    "pad_means": "means of losses over padding",
    "full_softmax": "log-probabilities of the full softmax beside top-k sampling",
    "unshuffled": "minibatches not shuffled",
}
OTHER_QUIRKS = (
    "rewards whitened",
    "the critic starting with the process model's head",
)
# Claim 6: what is said, of which two methods, on which problems.
CLAIMS = (
    ("PPO beats ReST-EM on the same questions and answers.",
     "ppo-easy", "rest", "all"),
    ("PPO with the process reward on all questions beats ReST-EM.",
     "ppo-prm", "rest", "all"),
    ("Iterative DPO, whose pairs the process model scores, beats ReST-EM.",
     "dpo", "rest", "all"),
    ("PPO with the easy-trained process reward on all questions beats the generator it "
     "starts from on hard problems.",
     "ppo-prm", "sft", "hard"),
    ("PPO with the process reward beats PPO on final answers of easy problems.",
     "ppo-prm", "ppo-easy", "all"),
    ("PPO with the process reward beats PPO on the final answers of all problems.",
     "ppo-prm", "ppo-all", "all"),
    ("PPO with the process reward beats SFT on solutions of all levels.",
     "ppo-prm", "full", "all"),
)  # fmt: skip


def section(
    stages: Mapping[str, Sequence[Sequence[StageResult]]],
    judges: Judges,
    settings: Policies,
    miniature: bool,
    rules: str = "exact",
) -> tuple[Section, list[Finding]]:
    """The section of further training, and the findings for the top of the report.

    judges: the evaluators, of which "prm" rewards. rules: how answers are compared.
    """
    read, draws = Trained(stages, rules), Resamples(62)
    spent = costs(read, settings)
    blocks = [table_6_2(read, draws, settings.ppo), costs_table(spent, settings)]
    if any(len(rounds) > 1 for runs in stages.values() for rounds in runs):
        blocks.append(rounds_table(read))
    if "ppo-prm" in stages:
        blocks += tables_hacking.blocks(read, draws, settings.ppo.ppo)
    found = verdicts(read, judges, draws, spent, miniature)
    return Section("Further training (Table 6.2)", blocks), found


def table_6_2(read: Trained, draws, runs: PPORuns) -> Table:
    """Greedy accuracy, ours, then the thesis's two blocks."""
    rows = []
    for name, what in ROWS.items():
        if name in read.values:
            cells = [read.estimate(name, group, draws) for group in GROUPS]
            rows.append(["here", *what, *cells])
        elif name in NOT_OURS:
            rows.append(["here", *what, *(None for _ in GROUPS)])
    for source, lines in THESIS.items():
        for name, numbers in lines.items():
            cells = [None if x is None else x / 100 for x in numbers]
            rows.append([source, *ROWS[name], *cells])
    columns = [Column("source"), Column("method"), Column("questions")]
    columns += [Column("answers"), Column("PRM")]
    columns += [Column(group, format=".1%") for group in GROUPS]
    return Table(
        columns,
        rows,
        "Greedy accuracy after further training (Table 6.2)",
        note(read, runs),
    )


def note(read: Trained, runs: PPORuns) -> str:
    """What the rows of Table 6.2 are, and how ours differ from the thesis's."""
    parts = [
        "DPO and PPO start from the easy-to-hard generator, ReST-EM tunes the base on "
        "its samples; PRM: the process model rewards steps.",
        "Our checkpoints are those best on easy development problems, or on all of "
        "them where a run may see all answers; the thesis chose every one by problems "
        "of all levels.",
        "They are chosen among a method's own rounds or evaluations: the generator "
        "that it starts from is not a candidate, so that a method may end below it.",
        "PRM800K and MetaMath are the thesis's rows, of Llemma-7B on MATH500; there "
        "Math-Shepherd's RL is quoted.",
        "Iterative DPO on all questions with easy answers has no number of ours: pairs "
        "must differ by more than 1, and on a hard question, without an answer, scores "
        "lie between 0 and 1, so that the published rule finds no pair there.",
    ]
    if "ppo-faithful" in read.values:
        quirks = "; ".join((*QUIRKS.values(), *OTHER_QUIRKS, *tokens_read(runs)))
        parts.append(
            f"The original's quirks: {quirks}. Its graded penalty on formats is not "
            "among them."
        )
    return " ".join(parts)


def tokens_read(runs: PPORuns) -> list[str]:
    """The quirks about a step's tokens, where this run has them."""
    read, spread = runs.faithful_read, runs.faithful_spread
    found = []
    if read > 1:
        found.append(f"a step's logit read as the lowest of its last {read} tokens")
    if spread > 1:
        found.append(f"a step's reward spread over its last {spread} tokens")
    return found


class Cost(NamedTuple):
    """What a run drew and how often it was updated, means over seeds."""

    responses: float
    updates: float

    def __str__(self):
        return f"{self.responses:,.0f} responses drawn, {self.updates:,.0f} updates"


def costs(read: Trained, settings: Policies) -> dict[str, Cost]:
    """Of every method that trains further, read from what its rounds left.

    ReST-EM and DPO kept their samples and count their updates. PPO's curve ends with
    its last iteration; what an iteration draws and updates is its config's.
    """
    cfg, found = settings.ppo.ppo, {}
    for name, runs in read.stages.items():
        if name in ("full", "sft"):
            continue
        if name.startswith("ppo"):
            iterations = np.mean([_iterations(rounds[0]) for rounds in runs])
            fitted = 0 if name == "ppo-faithful" else cfg.fit_critic
            cost = (
                iterations * cfg.responses + fitted,
                iterations * cfg.updates,
            )
        else:
            cost = (
                np.mean([sum(map(_drawn, rounds)) for rounds in runs]),
                np.mean([sum(r.value["steps"] for r in rounds) for rounds in runs]),
            )
        found[name] = Cost(*map(float, cost))
    return found


def costs_table(spent: Mapping[str, Cost], settings: Policies) -> Table:
    """The costs of all methods."""
    ppo = settings.ppo.ppo
    return Table(
        [Column("method"), Column("responses drawn", format=",.0f"),
         Column("updates", format=",.0f")],
        [[said(name), *cost] for name, cost in spent.items()],
        "What the methods cost",
        "All rounds together, means over seeds. The methods are not compared at equal "
        "cost. ReST-EM's updates begin at the base, the others' after fine-tuning; "
        "responses that a critic is fitted to count, its updates do not. "
        f"{tables_hacking.no_clipping(ppo)}"
        "Sampling, learning rates and sizes were chosen on development problems of "
        "all levels, in a few tries each; only checkpoints are chosen without hard "
        "answers.",
    )  # fmt: skip


def compared_costs(a: str, b: str, spent: Mapping[str, Cost]) -> str:
    """A sentence on what two methods cost, where that differs."""
    if spent.get(a) == spent.get(b):
        return ""
    parts = [f"{said(name)}: {spent[name]}" for name in (a, b) if name in spent]
    return f" Cost of further training: {'; against '.join(parts)}."


def at_costs(claim: str, a: str, b: str, spent: Mapping[str, Cost]) -> str:
    """A claim that says what its two methods spent, where these train and differ."""
    if a not in spent or b not in spent or spent[a] == spent[b]:
        return claim
    return f"{claim.rstrip('.')}, at {spent[a]} against {spent[b]}."


def _iterations(stage: StageResult) -> int:
    """How many iterations a run of PPO made."""
    rows = read_records(stage.folder / "curve.jsonl")
    return max(record.row["step"] for record in rows)


def _drawn(stage: StageResult) -> int:
    """Responses that a round of ReST-EM or DPO drew."""
    path = stage.folder / "samples.jsonl"
    return sum(len(record.row["texts"]) for record in read_records(path))


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


def said(name: str) -> str:
    """A row of `ROWS` in words: what it is, and on what it was trained."""
    method, questions, answers, rewarded = ROWS[name]
    if not questions:
        return method
    parts = [f"{questions} questions", f"{answers} answers", "PRM" if rewarded else ""]
    return f"{method} ({', '.join(filter(None, parts))})"


def effect(a: str, b: str, group: str) -> float:
    """By how much the thesis's method `a` beats `b`, the least of its two data sets."""

    def numbers(source, name):
        none = FULL_PRM800K if (source, name) == ("PRM800K", "full") else (None,) * 3
        return THESIS[source].get(name, none)[GROUPS.index(group)]

    pairs = [(numbers(source, a), numbers(source, b)) for source in THESIS]
    return least(None if None in pair else pair[0] - pair[1] for pair in pairs)


def verdicts(
    read: Trained, judges: Judges, draws, spent: Mapping[str, Cost], miniature: bool
) -> list[Finding]:
    """Claim 6, each part with its evidence."""
    out = []
    for claim, a, b, group in CLAIMS:
        if a not in read.values or b not in read.values:
            continue
        kept = in_group(read.levels, group)
        shares = {name: float(read.values[name][:, kept].mean()) for name in (a, b)}
        contest = Contest(
            f"{said(a)}, {group} problems,",
            shares[a],
            f"{said(b)}, {group} problems,",
            shares[b],
            effect(a, b, group),
        )
        gain = read.difference(a, b, group, draws)
        about = ("prm",) if "yes" in (ROWS[a][3], ROWS[b][3]) else ()
        out.append(
            settle(
                at_costs(claim, a, b, spent),
                gain,
                f"{said(a)} minus {said(b)}, {group} problems",
                points(gain),
                untestable([contest], miniature=miniature) + judges.too_weak(about),
                compared_costs(a, b, spent) + judges.said(about),
            )
        )
    return out
