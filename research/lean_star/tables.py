"""The tables and curves of the report."""

from collections.abc import Sequence

import numpy as np

from data.worlds.theorems_checked import LEVELS
from research import plots
from research.intervals import Resamples, bootstrap
from research.lean_star import thesis
from research.lean_star.passk import mcnemar, wilson
from research.lean_star.results import THESIS_K, Results, title
from research.lean_star.settings import BestFirst
from research.report import Column, Figure, Interval, Section, Table, Text

SHARE = ".1%"


def sampling(results: Results, draws: Resamples) -> Section:
    """Table 7.1, or 7.2: all systems by sampling; and how they came to that."""
    era, K, words = results.era, results.k, results.words
    more = max(results.counts) if max(results.counts) > K else None
    rows = [
        [
            title(system),
            bootstrap(results.passed(system), draws),
            *([bootstrap(results.passed(system, k=more), draws)] if more else []),
            bootstrap(results.passed(system, "novel"), draws),
            bootstrap(results.predicted(system), draws),
            thesis.minif2f(era, system, THESIS_K),
            *([thesis.minif2f(era, system, more)] if more else []),
            thesis.leandojo(era, system),
        ]
        for system in results.systems
    ]
    columns = [
        Column("system"),
        Column(f"{words.test} proved", format=SHARE),
        *([Column(f"by K = {more}", format=SHARE)] if more else []),
        Column(f"{words.novel} proved", format=SHARE),
        Column("known tactic predicted", format=SHARE),
        Column(f"thesis: miniF2F, K = {THESIS_K}"),
        *([Column(f"thesis: K = {more}")] if more else []),
        Column("thesis: LeanDojo"),
    ]
    number = "7.2" if era == "plus" else "7.1"
    table = Table(
        columns,
        rows,
        f"Table {number}: theorems proved with K = {K} trajectories",
        _problems(results),
    )
    return Section(
        "Proofs by sampling",
        present([table, _cited(results), _costs(results), _first_seed(results)]),
    )


def _problems(results: Results) -> str:
    counts = {split: int(results.of(split).sum()) for split in ("test", "novel")}
    read = (
        "Predicted: one greedy tactic is the known one, to the letter; mean over the "
        "steps of a problem, then over problems."
    )
    if results.published:
        return (
            f"{counts['test']} problems of miniF2F-test, {counts['novel']} theorems of "
            f"LeanDojo's split of novel premises; only these have a known proof. {read}"
        )
    return (
        f"{counts['test']} held-out problems stand where the thesis has miniF2F's 244, "
        f"{counts['novel']} whose rules were never trained on where it has LeanDojo's "
        "split of novel premises. The thesis's numbers are of a 7B model on Lean's "
        f"problems. {read}"
    )


def _cited(results: Results) -> Table | None:
    """Others' results on miniF2F; None beside a miniature, which has other problems."""
    if results.era == "plus" or not results.published:
        return None
    rows = [
        [name, given, thesis.percent(value)]
        for name, (given, value) in thesis.CITED.items()
    ]
    columns = [Column("system"), Column("N / K / S"), Column("miniF2F-test")]
    return Table(columns, rows, "Table 7.1, others: as the thesis cites them")


def _costs(results: Results) -> Table:
    rows = []
    for system in results.systems:
        tactics = max(1.0, results.mean(system, "counts", "tactics"))
        first = max(1.0, results.mean(system, "counts", "first"))
        applied = results.mean(system, "counts", "progress")
        applied += results.mean(system, "counts", "proved")
        rows.append(
            [
                title(system),
                *results.trained(system, "steps", "tokens", "places"),
                results.mean(system, "counts", "first_legal") / first,
                1 - applied / tactics,
                results.mean(system, "counts", "tokens") / tactics,
                results.mean(system, "counts", "not_started"),
                results.mean(system, "counts", "crashed"),
                results.mean(system, "throughput", "tactics_per_second"),
                results.mean(system, "throughput", "tokens_per_second"),
                results.mean(system, "throughput", "model_waiting"),
                results.mean(system, "throughput", "environment_idle"),
            ]
        )
    columns = [
        Column("system"),
        Column("updates", format=",.0f"),
        Column("tokens read", format=",.0f"),
        Column("places", format=",.0f"),
        Column("first tries that apply", format=SHARE),
        Column("all tactics that fail", format=SHARE),
        Column("tokens per tactic", format=".1f"),
        Column("not started", format=".0f"),
        Column("prover fell over", format=".0f"),
        Column("tactics/s", format=",.0f"),
        Column("tokens/s", format=",.0f"),
        Column("model waits", format=SHARE),
        Column("prover idle", format=SHARE),
    ]
    note = (
        "Means over seeds. Updates of the last training alone, the tokens in their "
        "rows, and the rows' places for tokens, padding included. A first try is the "
        "first tactic of a trajectory on a state. Not started: theorems that the "
        "prover refused; fell over: tactics that it did not survive; neither is a "
        "proof that failed, but they count as not proved. The model waits while "
        "nothing is left to write before tactics are checked; the prover is idle while "
        "no tactic is there to check."
    )
    return Table(columns, rows, "What it cost", note)


def _first_seed(results: Results) -> Table:
    """Solved or not, of the first seed: Wilson's interval, McNemar's test."""
    seed, K = results.seeds[0], max(results.counts)
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
        f"{results.words.test} problems solved by seed {seed}, K = {K}",
        "Wilson's 95% interval, as if problems were drawn anew; p is McNemar's exact "
        "test on the same problems, two-sided, not corrected for their number.",
    )


def table_7_3(results: Results, draws: Resamples) -> Table | None:
    """Thoughts against expert iteration alone; None without iteration."""
    if results.last is None or not results.has(results.last[1]):
        return None
    names = ["untuned", "sft", "cot"]
    for last in results.last:
        chain, _, number = last.rpartition("-")
        names += [f"{chain}-{n}" for n in range(1, int(number) + 1)]
    rows = [
        [
            title(name),
            bootstrap(results.passed(name), draws),
            thesis.table_7_3(name, "base"),
            thesis.table_7_3(name, "plus"),
        ]
        for name in names
        if results.has(name)
    ]
    columns = [
        Column("system"),
        Column(f"{results.words.test} proved", format=SHARE),
        Column("thesis: base"),
        Column("thesis: plus"),
    ]
    note = (
        f"K = {results.k} here, {THESIS_K} in the thesis, which has one round in this "
        "table: joint with its base model, continued with its plus model."
    )
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


def search(
    results: Results, draws: Resamples, rules: BestFirst | None
) -> Section | None:
    """Best-first search; None where there was none."""
    names = results.names("searched")
    if not names or rules is None:
        return None
    rows, K = [], results.as_costly(rules)
    for name in names:
        system, _, score = name.rpartition(" ")
        rows.append(
            [
                title(system),
                score,
                bootstrap(results.searched(name), draws),
                bootstrap(results.searched(name, "novel"), draws),
                bootstrap(results.passed(system, k=K), draws),
                thesis.best_first(results.era, name),
            ]
        )
    test, novel, _ = results.words
    columns = [
        Column("candidates by"),
        Column("score"),
        Column(f"{test}, search", format=SHARE),
        Column(f"{novel}, search", format=SHARE),
        Column(f"{test}, sampling, K = {K}", format=SHARE),
        Column("thesis: miniF2F, search"),
    ]
    note = (
        f"{rules.expansions} expansions of {rules.candidates} candidates; sampling "
        "with as many tactics, or the next fewer that were counted. mean: the mean "
        "log-probability of all tokens, as in the thesis; sum: their sum; tactic: the "
        "mean over the tactic's tokens alone."
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
    test = results.words.test
    figure = Figure(
        plots.lines(
            results.counts, series, xlabel="K", ylabel=f"{test} proved", log_x=True
        ),
        f"{test} theorems proved by K trajectories, with 95% intervals",
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
        [figure, Table(columns, rows, f"pass@K, {test} problems", note)],
    )


def difficulty(results: Results, draws: Resamples) -> Section:
    """By the length of the known proof."""
    levels, split = results.levels(), results.known
    wanted = ("sft", "sft-data", "cot", *(results.last or ()))
    shown = [system for system in wanted if results.has(system)]
    names = [level for level in LEVELS if (levels == level).any()]
    rows = [
        [
            title(system),
            *(
                bootstrap(results.passed(system, split)[:, levels == level], draws)
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
    which = getattr(results.words, split)
    table = Table(columns, rows, f"{which} problems proved, by difficulty", note)
    return Section("By difficulty", [table])


def data(results: Results) -> Text:
    """What was trained on and asked, in a paragraph."""
    value = results.data.value
    unseen = (
        "drawn from the training split"
        if results.published
        else "whose known proofs nobody sees"
    )
    return Text(
        f"{value['pairs']:,} steps of {value['known']:,} known proofs, "
        f"{value['thoughts']:,} of them with a thought; {value['statements']:,} "
        f"statements for expert iteration, {unseen}."
    )


def _estimate(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def present(blocks: Sequence) -> list:
    """The blocks that there are."""
    return [block for block in blocks if block is not None]
