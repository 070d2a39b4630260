"""What training, writing and checking cost."""

import numpy as np

from research.lean_star.names import short
from research.lean_star.results import Results
from research.report import Column, Section, Table

SHARE = ".1%"


def costs(results: Results, jobs: int) -> Section:
    """Of every system; jobs: how many stages ran at once."""
    return Section(
        "What it cost", [_training(results), _writing(results), _rates(results, jobs)]
    )


def _training(results: Results) -> Table:
    rows = [
        [short(system), *results.trained(system, "steps", "tokens", "places")]
        for system in results.systems
    ]
    columns = [
        Column("system"),
        Column("updates", format=",.0f"),
        Column("tokens read", format=",.0f"),
        Column("places", format=",.0f"),
    ]
    note = (
        "Means over seeds. Updates of the last training alone, the tokens in their "
        "rows, and the rows' places for tokens, padding included."
    )
    return Table(columns, rows, "Training", note)


def _writing(results: Results) -> Table:
    rows = []
    for system in results.systems:
        tactics = max(1.0, results.mean(system, "counts", "tactics"))
        applied = results.mean(system, "counts", "progress")
        applied += results.mean(system, "counts", "proved")
        rows.append(
            [
                short(system),
                tactics / len(results.rows),
                results.mean(system, "counts", "tokens") / tactics,
                1 - applied / tactics,
                results.mean(system, "counts", "cut"),
                results.mean(system, "counts", "not_started"),
                results.mean(system, "counts", "crashed"),
            ]
        )
    columns = [
        Column("system"),
        Column("tactics per problem", format=".1f"),
        Column("tokens per tactic", format=".1f"),
        Column("tactics that fail", format=SHARE),
        Column("prompts cut", format=",.0f"),
        Column("not started", format=".0f"),
        Column("prover fell over", format=".0f"),
    ]
    note = (
        "Means over seeds, of sampling. Prompts cut: those that lost their beginning "
        "as the state was too long. Not started: theorems that the prover refused; "
        "fell over: tactics that it did not survive; neither is a proof that failed, "
        "but they count as not proved."
    )
    return Table(columns, rows, "What was written to prove", note)


def _rates(results: Results, jobs: int) -> Table:
    keys = ("seconds", "tactics_per_second", "tokens_per_second")
    rows = [
        [
            short(system),
            *(results.mean(system, "throughput", key) for key in keys),
            results.mean(system, "throughput", "model_waiting"),
            results.mean(system, "throughput", "environment_idle"),
            hidden(results, system),
        ]
        for system in results.systems
    ]
    columns = [
        Column("system"),
        Column("seconds", format=",.0f"),
        Column("tactics/s", format=",.0f"),
        Column("tokens/s", format=",.0f"),
        Column("model waits", format=SHARE),
        Column("prover idle", format=SHARE),
        Column("checking hidden", format=SHARE),
    ]
    shared = (
        f"{jobs} stages ran at once and shared the machine"
        if jobs > 1
        else "one stage ran at a time"
    )
    note = (
        "Means over seeds. The seconds hold the compilation of the first batches, "
        f"which a later stage of the same shapes finds done, and {shared}: rates show "
        "what a stage took, not which system is faster. The model waits while nothing "
        "is left to write before tactics are checked; the prover is idle while no "
        "tactic is there to check. Checking hidden: the share of the prover's working "
        "time in which the model did not wait for it."
    )
    return Table(columns, rows, "How fast: writing and checking at the same time", note)


def hidden(results: Results, system: str) -> float | None:
    """Share of checking that went on while the model wrote; None without checking."""
    found = []
    for stage in results.stages("proved", system):
        spent = stage.value["throughput"]
        checking = 1 - spent["environment_idle"]
        if checking > 0:
            found.append(max(0.0, 1 - spent["model_waiting"] / checking))
    return float(np.mean(found)) if found else None
