"""The tables and curves of the report."""

from collections.abc import Sequence

import numpy as np

from data.worlds.theorems_checked import LEVELS
from research import plots
from research.intervals import Resamples, bootstrap
from research.lean_star import thesis
from research.lean_star.passk import mcnemar, wilson
from research.lean_star.results import Results, title
from research.report import Column, Figure, Interval, Section, Table, Text

SHARE = ".1%"


def sampling(results: Results, draws: Resamples) -> Section:
    """Table 7.1: all systems by sampling; and how they came to that."""
    K = max(results.counts)
    rows = [
        [
            title(system),
            bootstrap(results.passed(system), draws),
            bootstrap(results.passed(system, "novel"), draws),
            bootstrap(results.predicted(system), draws),
            thesis.share(thesis.TABLE_7_1, system, 0),
            thesis.share(thesis.TABLE_7_1, system, 1),
        ]
        for system in results.systems
    ]
    counts = {split: int(results.of(split).sum()) for split in ("test", "novel")}
    columns = [
        Column("system"),
        Column("held-out proved", format=SHARE),
        Column("novel proved", format=SHARE),
        Column("known tactic predicted", format=SHARE),
        Column("thesis: miniF2F"),
        Column("thesis: LeanDojo"),
    ]
    table = Table(
        columns,
        rows,
        f"Table 7.1: theorems proved with K = {K} trajectories",
        f"{counts['test']} held-out problems stand where the thesis has miniF2F's 244, "
        f"{counts['novel']} whose rules were never trained on where it has LeanDojo's "
        "split of novel premises. The thesis's numbers are of a 7B model on Lean's "
        "problems. Predicted: one greedy tactic is the known one, to the letter; mean "
        "over the steps of a problem, then over problems.",
    )
    return Section("Proofs by sampling", [table, _costs(results), _first_seed(results)])


def _costs(results: Results) -> Table:
    rows = []
    for system in results.systems:
        tactics = max(1.0, results.mean(system, "counts", "tactics"))
        first = max(1.0, results.mean(system, "counts", "first"))
        trained = results.stages("trained", system)
        rows.append(
            [
                title(system),
                float(np.mean([stage.value["steps"] for stage in trained])),
                float(np.mean([stage.value["places"] for stage in trained])),
                results.mean(system, "counts", "first_legal") / first,
                1
                - (
                    results.mean(system, "counts", "progress")
                    + results.mean(system, "counts", "proved")
                )
                / tactics,
                results.mean(system, "counts", "tokens") / tactics,
                results.mean(system, "counts", "not_started"),
                results.mean(system, "throughput", "tactics_per_second"),
                results.mean(system, "throughput", "tokens_per_second"),
                results.mean(system, "throughput", "model_waiting"),
                results.mean(system, "throughput", "environment_idle"),
            ]
        )
    columns = [
        Column("system"),
        Column("updates", format=",.0f"),
        Column("token places", format=",.0f"),
        Column("first tries that apply", format=SHARE),
        Column("all tactics that fail", format=SHARE),
        Column("tokens per tactic", format=".1f"),
        Column("not started", format=".0f"),
        Column("tactics/s", format=",.0f"),
        Column("tokens/s", format=",.0f"),
        Column("model waits", format=SHARE),
        Column("prover idle", format=SHARE),
    ]
    note = (
        "Means over seeds. Updates of the last training alone, and the places for "
        "tokens in their rows. A first try is the first tactic of a trajectory on a "
        "state. The model waits while nothing is left to write before tactics are "
        "checked; the prover is idle while no tactic is there to check."
    )
    return Table(columns, rows, "What it cost", note)


def _first_seed(results: Results) -> Table:
    """Solved or not, of the first seed: Wilson's interval, McNemar's test."""
    seed = results.seeds[0]
    solved = {
        system: np.array([any(r["proved"]) for r in results.outcomes(system, seed)])[
            results.of("test")
        ]
        for system in results.systems
    }
    rows = []
    for system, right in solved.items():
        number, total = int(right.sum()), len(right)
        rows.append(
            [
                title(system),
                number,
                Interval(number / total, *wilson(number, total)),
                mcnemar(right, solved["sft"]) if system != "sft" else None,
                mcnemar(right, solved["cot"]) if system != "cot" else None,
            ]
        )
    columns = [
        Column("system"),
        Column("solved"),
        Column("share", format=SHARE),
        Column("p, against SFT", format=".3f"),
        Column("p, against Lean-CoT", format=".3f"),
    ]
    return Table(
        columns,
        rows,
        f"Held-out problems solved by seed {seed}",
        "Wilson's 95% interval, as if problems were drawn anew; p is McNemar's exact "
        "test on the same problems, two-sided, not corrected for their number.",
    )


def table_7_3(results: Results, draws: Resamples) -> Table | None:
    """Thoughts against expert iteration alone; None without iteration."""
    names = ("sft", "cot", "star-joint-1", "star-joint-2", "ei-joint-1", "ei-joint-2")
    shown = [name for name in names if results.has(name)]
    if "ei-joint-1" not in shown:
        return None
    rows = [
        [
            title(name),
            bootstrap(results.passed(name), draws),
            thesis.share(thesis.TABLE_7_3, name, 0),
            thesis.share(thesis.TABLE_7_3, name, 1),
        ]
        for name in shown
    ]
    columns = [
        Column("system"),
        Column("held-out proved", format=SHARE),
        Column("thesis: base"),
        Column("thesis: plus"),
    ]
    note = "The thesis has one round here, and continues in its plus model's."
    return Table(columns, rows, "Table 7.3: expert iteration with and without", note)


def rounds(results: Results) -> Table | None:
    """What every round of expert iteration found; None without iteration."""
    names = results.names("gathered")
    if not names:
        return None
    rows = []
    keys = ("yield", "kept", "examples", "mean_length", "output_tokens", "no_progress")
    for name in names:
        values = [stage.value for stage in results.stages("gathered", name)]
        rows.append([name, *(float(np.mean([v[k] for v in values])) for k in keys)])
    columns = [
        Column("round"),
        Column("statements proved", format=SHARE),
        Column("proofs kept", format=".0f"),
        Column("examples", format=",.0f"),
        Column("steps of a proof", format=".1f"),
        Column("tokens of a step", format=".1f"),
        Column("steps dropped for no progress", format=".0f"),
    ]
    return Table(columns, rows, "Rounds of expert iteration, means over seeds")


def search(results: Results, draws: Resamples) -> Section | None:
    """Best-first search; None where there was none."""
    names = results.names("searched")
    if not names:
        return None
    rows = []
    for name in names:
        system, _, score = name.rpartition(" ")
        rows.append(
            [
                title(system),
                score,
                bootstrap(results.searched(name), draws),
                bootstrap(results.searched(name, "novel"), draws),
                bootstrap(results.passed(system), draws),
                thesis.BEST_FIRST.get(name),
            ]
        )
    columns = [
        Column("candidates by"),
        Column("score"),
        Column("held-out, search", format=SHARE),
        Column("novel, search", format=SHARE),
        Column("held-out, sampling", format=SHARE),
        Column("thesis: miniF2F, search"),
    ]
    note = (
        "mean: the mean log-probability of all tokens, as in the thesis; sum: their "
        "sum; tactic: the mean over the tactic's tokens alone."
    )
    table = Table(columns, rows, "Best-first search", note)
    return Section("Best-first search", [table])


def curves(results: Results, draws: Resamples) -> Section:
    """pass@K over K, read from one run of the largest K."""
    shown = [s for s in ("sft", "cot", *(results.last or ())) if results.has(s)]
    series = {
        title(system): [
            _estimate(bootstrap(results.passed(system, k=k), draws))
            for k in results.counts
        ]
        for system in shown
    }
    figure = Figure(
        plots.lines(
            results.counts, series, xlabel="K", ylabel="held-out proved", log_x=True
        ),
        "Held-out theorems proved by K trajectories, with 95% intervals",
        "Lines of the share proved over the number of trajectories",
    )
    rows = [
        [title(s), *(bootstrap(results.passed(s, k=k), draws) for k in results.counts)]
        for s in shown
    ]
    columns = [Column("system")]
    columns += [Column(f"K={k}", format=SHARE) for k in results.counts]
    note = "Without bias from one run: 1 - C(n - c, k) / C(n, k)."
    return Section(
        "More trajectories",
        [figure, Table(columns, rows, "pass@K, held-out problems", note)],
    )


def difficulty(results: Results, draws: Resamples) -> Section:
    """By the length of the known proof."""
    levels = results.levels()
    wanted = ("sft", "sft-data", "cot", *(results.last or ()))
    shown = [system for system in wanted if results.has(system)]
    names = [level for level in LEVELS if (levels == level).any()]
    rows = [
        [
            title(system),
            *(
                bootstrap(results.passed(system)[:, levels == level], draws)
                for level in names
            ),
        ]
        for system in shown
    ]
    columns = [
        Column("system"),
        *(Column(f"{n} ({int((levels == n).sum())})", format=SHARE) for n in names),
    ]
    note = "Known proofs of easy problems have up to 3 steps, of medium ones up to 6."
    table = Table(columns, rows, "Held-out problems proved, by difficulty", note)
    return Section("By difficulty", [table])


def data(results: Results) -> Text:
    """What was trained on and asked, in a paragraph."""
    value = results.data.value
    return Text(
        f"{value['pairs']:,} steps of {value['known']:,} known proofs, "
        f"{value['thoughts']:,} of them with a thought; {value['statements']:,} "
        "statements for expert iteration, whose known proofs nobody sees."
    )


def _estimate(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def present(blocks: Sequence) -> list:
    """The blocks that there are."""
    return [block for block in blocks if block is not None]
