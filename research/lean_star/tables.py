"""The tables and curves of the report."""

from collections.abc import Sequence

import numpy as np

from data.worlds.theorems_checked import LEVELS
from research import plots
from research.intervals import Resamples, bootstrap
from research.lean_star import thesis
from research.lean_star.names import key, short
from research.lean_star.passk import mcnemar, wilson
from research.lean_star.results import THESIS_K, Results
from research.lean_star.settings import REGIMES, BestFirst
from research.report import Column, Figure, Interval, Section, Table, Text

SHARE = ".1%"
POINTS = 12  # of a curve over tokens
# Which rounds the thesis's table 7.3 has of which model.
THESIS_REGIMES = {"base": "joint", "plus": "continue"}


def sampling(results: Results, draws: Resamples) -> Section:
    """Table 7.1, or 7.2: all systems by sampling; and what their names stand for."""
    era, K, words = results.era, results.k, results.words
    rows = [
        [
            short(system),
            bootstrap(results.passed(system), draws),
            bootstrap(results.passed(system, "novel"), draws),
            thesis.minif2f(era, system, THESIS_K),
            thesis.leandojo(era, system),
        ]
        for system in results.systems
    ]
    columns = [
        Column("system"),
        Column(f"{words.test} proved", format=SHARE),
        Column(f"{words.novel} proved", format=SHARE),
        Column(f"thesis: miniF2F, K = {THESIS_K}"),
        Column("thesis: LeanDojo"),
    ]
    number = "7.2" if era == "plus" else "7.1"
    table = Table(
        columns,
        rows,
        f"Table {number}: theorems proved with K = {K} trajectories",
        _problems(results),
    )
    names = Table(
        [Column("name"), Column("system")], key(results.systems), "What names stand for"
    )
    more = _by_more(results, draws, number)
    return Section(
        "Proofs by sampling",
        present([table, names, more, _cited(results), _first_seed(results)]),
    )


def _by_more(results: Results, draws: Resamples, number: str) -> Table | None:
    """The same by all trajectories, where these are more than the thesis's K."""
    more = max(results.counts)
    if more <= results.k:
        return None
    rows = [
        [
            short(system),
            bootstrap(results.passed(system, k=more), draws),
            thesis.minif2f(results.era, system, more),
        ]
        for system in results.systems
    ]
    columns = [
        Column("system"),
        Column(f"{results.words.test} proved", format=SHARE),
        Column(f"thesis: K = {more}"),
    ]
    return Table(columns, rows, f"Table {number} by K = {more}")


def _problems(results: Results) -> str:
    counts = {split: int(results.of(split).sum()) for split in ("test", "novel")}
    if results.published:
        return (
            f"{counts['test']} problems of miniF2F-test, {counts['novel']} theorems of "
            f"LeanDojo's split of novel premises; only these have a known proof."
        )
    return (
        f"{counts['test']} held-out problems stand where the thesis has miniF2F's 244, "
        f"{counts['novel']} whose rules were never trained on where it has LeanDojo's "
        "split of novel premises. The thesis's numbers are of a 7B model on Lean's "
        "problems."
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
                short(system),
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
    chains = [f"{c}-{regime}" for c in ("star", "ei") for regime in REGIMES]
    names = ["untuned", "sft", "cot"]
    for chain in chains:
        names += [f"{chain}-{n}" for n in range(1, results.rounds(chain) + 1)]
    rows = [
        [
            short(name),
            bootstrap(results.passed(name), draws),
            *(_in_7_3(results, name, era) for era in THESIS_REGIMES),
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


def _in_7_3(results: Results, name: str, era) -> str | None:
    """The thesis's number at the rounds of its model's regime, where there are any."""
    own = THESIS_REGIMES[era]
    if results.rounds(f"star-{own}") and name.split("-")[1:2] not in ([], [own]):
        return None
    return thesis.table_7_3(name, era)


def rounds(results: Results) -> Table | None:
    """What every round of expert iteration found; None without iteration."""
    names = results.names("gathered")
    if not names:
        return None
    rows = []
    keys = ("yield", "kept", "examples", "mean_length", "output_tokens", "no_progress")
    for name in names:
        values = [stage.value for stage in results.stages("gathered", name)]
        shown = name.replace("star", "STaR").replace("ei", "EI")
        rows.append([shown, *(float(np.mean([v[k] for v in values])) for k in keys)])
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
    rows, facts = [], []
    for name in names:
        system, _, score = name.rpartition(" ")
        K, found = results.as_many(name), results.search_facts(name)
        rows.append(
            [
                f"{short(system)}, {score}",
                bootstrap(results.searched(name), draws),
                bootstrap(results.searched(name, "novel"), draws),
                bootstrap(results.passed_at(system, K), draws),
                thesis.best_first(results.era, name),
            ]
        )
        facts.append([f"{short(system)}, {score}", *found, K])
    test, novel, _ = results.words
    columns = [
        Column("candidates by, score"),
        Column(f"{test}, search", format=SHARE),
        Column(f"{novel}, search", format=SHARE),
        Column(f"{test}, sampling", format=SHARE),
        Column("thesis: miniF2F"),
    ]
    note = (
        f"At most {rules.expansions} expansions of {rules.candidates} candidates; "
        "sampling with as many tactics as the search tried, in the mean, or with all "
        f"{max(results.counts)} trajectories where these tried fewer. mean: the mean "
        "log-probability of all tokens, as in the thesis; sum: their sum; tactic: the "
        "mean over the tactic's tokens alone. The thesis's numbers are of search."
    )
    done = [
        Column("candidates by, score"),
        Column("expansions", format=".1f"),
        Column("tactics tried", format=".1f"),
        Column("tokens", format=",.0f"),
        Column("queue ran empty", format=SHARE),
        Column("different tactics", format=".2f"),
        Column("only one", format=SHARE),
        Column("K", format=".2f"),
    ]
    told = (
        f"Of a {test} problem, means over seeds. Queue ran empty: of the problems that "
        "were not solved, those that had nothing left to expand before "
        f"{rules.expansions} expansions. Different tactics of an expansion, and the "
        "share of expansions with only one; candidates that lead to a state that was "
        "expanded before are left out. K: trajectories of sampling that try as many "
        "tactics."
    )
    tables = [
        Table(columns, rows, "Best-first search", note),
        Table(done, facts, "How far the searches went", told),
    ]
    return Section("Best-first search", tables)


def curves(results: Results, draws: Resamples) -> Section:
    """pass@K over K, and over the tokens that K trajectories write, from one run."""
    wanted = ("sft", "sft-data", "cot", *(results.last or ()))
    shown = [system for system in wanted if results.has(system)]
    passed = {
        system: [bootstrap(results.passed(system, k=k), draws) for k in results.counts]
        for system in shown
    }
    test = results.words.test
    figure = Figure(
        plots.lines(
            results.counts,
            {short(s): [*map(_estimate, found)] for s, found in passed.items()},
            xlabel="K",
            ylabel=f"{test} proved",
            log_x=True,
        ),
        f"{test} theorems proved by K trajectories, with 95% intervals",
        "Lines of the share proved over the number of trajectories",
    )
    columns = [Column("system")]
    columns += [Column(f"K={k}", format=SHARE) for k in results.counts]
    # Intervals of more would make the table wider than the page.
    wide = len(results.counts) > 3
    rows = [
        [short(s), *(one.value if wide else one for one in found)]
        for s, found in passed.items()
    ]
    note = "Without bias from one run: 1 - C(n - c, k) / C(n, k)."
    table = Table(columns, rows, f"pass@K, {test} problems", note)
    return Section(
        "More trajectories", [figure, table, *_by_tokens(results, shown, draws)]
    )


def _by_tokens(results: Results, shown: Sequence[str], draws: Resamples) -> list:
    """Proved at equal numbers of tokens written: a figure and its table.

    Between the K's that were counted pass@K is on a line.
    """
    each = {system: results.spent(system, "tokens") for system in shown}
    K, least = max(results.counts), min(each.values(), default=0.0)
    if not least:
        return []
    most = K * max(each.values())
    grid = least * np.geomspace(1, most / least, POINTS)
    passed: dict[str, list[Interval | None]] = {}
    for system in shown:
        # A rounding above all trajectories is all of them.
        counts = [round(tokens / each[system], 9) for tokens in grid]
        passed[system] = [
            bootstrap(results.passed_at(system, k), draws) if 1 <= k <= K else None
            for k in counts
        ]
    test = results.words.test
    figure = Figure(
        plots.lines(
            [round(tokens) for tokens in grid],
            {
                short(system): [one and _estimate(one) for one in found]
                for system, found in passed.items()
            },
            xlabel="tokens written of a problem",
            ylabel=f"{test} proved",
            log_x=True,
        ),
        f"{test} theorems proved, by the tokens that are written of each, with 95% "
        "intervals",
        "Lines of the share proved over the tokens that were written",
    )
    rows = [
        [tokens, *(found[i] and found[i].value for found in passed.values())]
        for i, tokens in enumerate(grid)
    ]
    columns = [Column("tokens of a problem", format=",.0f")]
    columns += [Column(short(system), format=SHARE) for system in shown]
    per = ", ".join(f"{short(s)} {tokens:,.0f}" for s, tokens in each.items())
    note = (
        "From one trajectory to all of them; between whole numbers of trajectories on "
        "a line. A dash: fewer than one trajectory, or more than were drawn. Tokens of "
        f"one trajectory: {per}."
    )
    return [figure, Table(columns, rows, f"{test} proved, by tokens written", note)]


def difficulty(results: Results, draws: Resamples) -> Section:
    """By the length of the known proof."""
    levels, split = results.levels(), results.known
    wanted = ("sft", "sft-data", "cot", *(results.last or ()))
    shown = [system for system in wanted if results.has(system)]
    names = [level for level in LEVELS if (levels == level).any()]
    rows = [
        [
            short(system),
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
