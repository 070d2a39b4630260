"""Re-ranking in the report: evaluators, voting and best-of-n, figures 6.4 and 6.5."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.records import read_records
from research import plots
from research.easy_to_hard.answers import Answered
from research.easy_to_hard.evaluators import logits_for
from research.easy_to_hard.selection import AGGREGATIONS, aggregate, curve
from research.easy_to_hard.settings import Sampled
from research.easy_to_hard.tables import GROUPS, in_group, points
from research.intervals import bootstrap, bootstrap_of, verdict
from research.report import Column, Figure, Interval, Section, Table, Text, Verdict
from research.stages import StageResult

KINDS = {"orm": "ORM", "prm": "PRM", "oprm": "OPRM", "large": "OPRM, large"}
GENERATORS = {"easy": "small", "large": "large"}
# The thesis takes the minimum for best-of-n, and for weighted voting the product with
# labels of people, the minimum with labels from rollouts.
BEST = "min"
UNTESTED = "not tested here"
LEAST_AUC = 0.9  # on easy problems; below, an evaluator's claims are not tested
# Appendix figures 1 to 6: Llemma on MATH500 with 1024 samples, easy, hard, all.
THESIS = {
    ("easy", None, "majority"): (56.76, 19.19, 37.10),
    ("easy", "orm", "weighted"): (60.81, 21.23, 39.98),
    ("easy", "prm", "weighted"): (60.19, 22.77, 40.47),
    ("easy", "oprm", "weighted"): (63.20, 24.12, 42.74),
    ("easy", "large", "weighted"): (66.54, 27.81, 46.27),
    ("easy", "orm", "best"): (50.91, 16.34, 32.77),
    ("easy", "prm", "best"): (49.09, 15.66, 31.55),
    ("easy", "oprm", "best"): (55.06, 19.91, 36.66),
    ("easy", "large", "best"): (None, None, 44.3),
    ("large", None, "majority"): (None, 26.41, 46.53),
    ("large", "oprm", "weighted"): (None, None, 50.67),
    ("large", "oprm", "best"): (None, None, 42.96),
    ("large", "large", "weighted"): (None, 32.58, 52.45),
    ("large", "large", "best"): (None, None, 46.31),
}


class Reranked:
    """Accuracy [seeds, problems] of ways to choose among a pool's answers.

    A way is (generator, evaluator or None, method); the numbers of answers are those of
    `counts`, all of which every evaluator has of the same sub-samples.
    """

    def __init__(
        self,
        answers: Mapping[str, Answered],
        scores,
        seeds: Sequence[int],
        sampled: Sampled,
        voting: str,
        joined: bool,
    ):
        self.voting, self.joined = voting, joined
        self.counts = tuple(sorted(sampled.counts))
        self.levels = None
        self.curves: dict[tuple, np.ndarray] = {}
        self.greedy: dict[str, np.ndarray] = {}
        self.found: dict[tuple, np.ndarray] = {}  # by aggregation, the whole pool
        ways = dict.fromkeys(key[:2] for key in scores)
        for generator in dict.fromkeys(generator for generator, _ in ways):
            self._add(generator, None, answers, scores, seeds, sampled)
        for generator, kind in ways:
            self._add(generator, kind, answers, scores, seeds, sampled)

    def _add(self, generator, kind, answers, scores, seeds, sampled):
        methods = ("majority",) if kind is None else ("weighted", "best")
        values = {method: [] for method in methods}
        whole = {(how, m): [] for how in AGGREGATIONS for m in methods}
        greedy = []
        for seed in seeds:
            answered = answers[f"{generator}-{seed}"]
            self.levels = answered.levels
            greedy.append(answered.greedy)
            logits = None
            if kind is not None:
                folder = scores[generator, kind, seed].folder
                asked = "oprm" if kind == "large" else kind
                logits = [
                    logits_for(asked, r.row, self.joined)
                    for r in read_records(folder / "scores.jsonl")
                ]

            def pools(how, made=answered.pools, logits=logits):
                if logits is None:
                    return made
                return [
                    pool._replace(log_weights=aggregate(s, how))
                    for pool, s in zip(made, logits, strict=True)
                ]

            def chosen(method, how, counts, seed=seed, pools=pools):
                rng = np.random.default_rng([seed, 64])
                return curve(pools(how), method, counts, sampled.repeats, rng).accuracy

            for method in methods:
                how = BEST if method == "best" else self.voting
                values[method].append(chosen(method, how, self.counts))
                if kind is not None:
                    for name in AGGREGATIONS:
                        most = chosen(method, name, (self.counts[-1],))
                        whole[name, method].append(most[0])
        for method in methods:
            self.curves[generator, kind, method] = np.array(values[method])
            if kind is not None:
                for name in AGGREGATIONS:
                    self.found[generator, kind, method, name] = np.array(
                        whole[name, method]
                    )
        self.greedy[generator] = np.array(greedy, float)

    def at(self, way, count=None) -> np.ndarray:
        """[seeds, problems] of a way, with `count` answers (default: all)."""
        if way[1] == "greedy":
            return self.greedy[way[0]]
        i = self.counts.index(self.counts[-1] if count is None else count)
        return self.curves[way][:, i]

    def estimate(self, way, group, rng, count=None) -> Interval:
        return bootstrap(self.at(way, count)[:, in_group(self.levels, group)], rng)

    def difference(self, a, b, group, rng) -> Interval:
        kept = in_group(self.levels, group)
        return bootstrap((self.at(a) - self.at(b))[:, kept], rng)


def section(
    answers: Mapping[str, Answered],
    scores: Mapping[str, StageResult],
    evaluators: Mapping[str, StageResult],
    seeds: Sequence[int],
    sampled: Sampled,
    *,
    voting: str = "product",
    joined: bool = False,
) -> tuple[Section, list]:
    """The section of re-ranking, and the verdicts for the top of the report.

    scores: stages named `<generator> <kind> <seed>`; evaluators: `<kind> <seed>`.
    voting: the aggregation for weighted votes; joined: see `rules.Rules`.
    """
    split = {(g, k, int(s)): v for (g, k, s), v in _split(scores)}
    read = Reranked(answers, split, seeds, sampled, voting, joined)
    rng = np.random.default_rng(64)
    blocks = [
        quality(evaluators, seeds),
        table(read, rng),
        *figures(read, rng),
        aggregations(read, rng),
    ]
    kinds = {kind for _, kind, _ in split}
    weak = {kind for kind in kinds if not ready(evaluators, kind, seeds)}
    title = "Re-ranking (figures 6.4 and 6.5)"
    return Section(title, blocks), verdicts(read, weak, rng)


def _split(named):
    return [(tuple(name.split()), stage) for name, stage in named.items()]


def quality(evaluators, seeds) -> Table:
    """How well evaluators rank and calibrate on easy problems held out from them."""
    kinds = dict.fromkeys(name[0] for name, _ in _split(evaluators))
    rows = []
    for kind in kinds:
        values = [evaluators[f"{kind} {seed}"].value for seed in seeds]

        def over_seeds(metric, of, values=values):
            found = [v[f"eval/{metric}"] for v in values]
            return None if None in found else float(of(found))  # None: undefined

        row = [KINDS[kind]]
        for metric in ("process_auc", "outcome_auc"):
            measured = all(f"eval/{metric}" in v for v in values)
            row.append(over_seeds(metric, np.mean) if measured else None)
        row.append(lowest_auc(evaluators, kind, seeds))
        row += [over_seeds(m, np.mean) for m in ("accuracy", "brier", "ece")]
        rows.append(row)
    columns = [Column("evaluator"), Column("AUC of steps", format=".3f")]
    columns += [Column("AUC of answers", format=".3f")]
    columns += [Column("lowest", format=".3f"), Column("accuracy", format=".1%")]
    columns += [Column("Brier", format=".3f"), Column("ECE", format=".3f")]
    return Table(
        columns,
        rows,
        "Evaluators on held-out easy problems",
        "Means over seeds, where scores are read; the best evaluation was "
        "chosen by the loss on the same problems. An evaluator whose lowest AUC (of "
        f"steps, for an ORM of answers) is under {LEAST_AUC} is too weak for verdicts.",
    )


def lowest_auc(evaluators, kind: str, seeds: Sequence[int]) -> float | None:
    """Of an evaluator's own task over the seeds: steps, or answers for an ORM."""
    metric = "eval/outcome_auc" if kind == "orm" else "eval/process_auc"
    found = [evaluators[f"{kind} {seed}"].value[metric] for seed in seeds]
    return None if None in found else min(found)


def ready(evaluators, kind: str, seeds: Sequence[int]) -> bool:
    """Whether an evaluator is good enough for claims about it."""
    lowest = lowest_auc(evaluators, kind, seeds)
    return lowest is not None and lowest >= LEAST_AUC


def ways_of(read: Reranked) -> list[tuple]:
    """Greedy, majority and the evaluators' ways, generator by generator."""
    generators = dict.fromkeys(way[0] for way in read.curves)
    return [
        way
        for generator in generators
        for way in [(generator, "greedy", None), *read.curves]
        if way[0] == generator
    ]


def name_of(way) -> str:
    _, kind, method = way
    if kind == "greedy":
        return "greedy"
    if kind is None:
        return "majority"
    return f"{KINDS[kind]}, {'voting' if method == 'weighted' else 'best-of-n'}"


def table(read: Reranked, rng) -> Table:
    """Every way with the whole pool, ours and the thesis's."""
    rows, theirs = [], []
    for way in ways_of(read):
        names = [GENERATORS[way[0]], name_of(way)]
        ours = [read.estimate(way, group, rng) for group in GROUPS]
        rows.append([*names, "here", *ours])
        if way in THESIS:
            numbers = [None if x is None else x / 100 for x in THESIS[way]]
            theirs.append([*names, "thesis", *numbers])
    columns = [Column("generator"), Column("way"), Column("source")]
    columns += [Column(group, format=".1%") for group in GROUPS]
    rows += theirs
    most = read.counts[-1]
    return Table(
        columns,
        rows,
        f"Re-ranking {most} answers of the easy-to-hard generator",
        f"Voting weighs every answer by the {read.voting} of its solution's scores; "
        f"best-of-n takes the solution with the highest {BEST}. The thesis has 1024 "
        "samples, 7B for small and 34B for large, and PRM800K.",
    )


def figures(read: Reranked, rng) -> list[Figure]:
    """Accuracy against the number of answers, on hard and on all problems."""
    out = []
    for generator in dict.fromkeys(way[0] for way in read.curves):
        ways = [way for way in read.curves if way[0] == generator]
        for group in ("hard", "all"):
            series = {}
            for way in ways:
                estimates = [read.estimate(way, group, rng, n) for n in read.counts]
                series[name_of(way)] = [(e.value, e.low, e.high) for e in estimates]
            figure = plots.lines(
                read.counts,
                series,
                xlabel="sampled answers",
                ylabel=f"accuracy on {group} problems",
                percent=True,
                log_x=True,
            )
            out.append(
                Figure(
                    figure,
                    f"{GENERATORS[generator].capitalize()} generator, {group} problems:"
                    " voting and best-of-n over sub-samples of one pool.",
                    f"Lines of accuracy on {group} problems against sampled answers",
                )
            )
    return out


def aggregations(read: Reranked, rng) -> Table:
    """Every aggregation of step scores, whole pool, all problems, small generator."""
    kinds = [k for g, k, m in read.curves if g == "easy" and m == "weighted"]
    rows = []
    for name in AGGREGATIONS:
        cells = [
            bootstrap(read.found["easy", kind, method, name], rng)
            for kind in kinds
            if kind != "orm"  # it has one score
            for method in ("weighted", "best")
        ]
        rows.append([name, *cells])
    columns = [Column("aggregation")] + [
        Column(f"{KINDS[kind]}, {short}", format=".1%")
        for kind in kinds
        if kind != "orm"
        for short in ("voting", "best")
    ]
    return Table(columns, rows, "Aggregation of step scores, all problems")


def gains(read: Reranked, kind: str, rng) -> tuple[Interval | None, Interval | None]:
    """Voting over majority, hard less easy: in points, and as a ratio of ratios - 1."""
    voting = read.at(("easy", kind, "weighted"))
    majority = read.at(("easy", None, "majority"))
    hard = np.broadcast_to(in_group(read.levels, "hard").astype(float), voting.shape)
    easy = 1 - hard
    shares = [
        voting * hard,
        majority * hard,
        hard,
        voting * easy,
        majority * easy,
        easy,
    ]

    def in_points(wh, mh, h, we, me, e):
        return (wh - mh) / h - (we - me) / e

    def relative(wh, mh, h, we, me, e):
        return (wh / mh) / (we / me) - 1

    return bootstrap_of(in_points, shares, rng), bootstrap_of(relative, shares, rng)


def verdicts(read: Reranked, weak: set[str], rng) -> list:
    """Claims 2 to 5, each with its evidence; none about evaluators that are weak."""
    kinds = [k for g, k, m in read.curves if g == "easy" and m == "weighted"]
    small = [kind for kind in kinds if kind != "large"]
    main = "oprm" if "oprm" in small else small[0]
    label = KINDS[main]
    weighted, majority = ("easy", main, "weighted"), ("easy", None, "majority")
    out = []

    def claim(text, gain, evidence, *about):
        if gain is None:
            return
        judged = not weak & {main, *about}
        out.append(Verdict(text, verdict(gain) if judged else UNTESTED, evidence))

    def compare(text, a, b, group, what, *about):
        gain = read.difference(a, b, group, rng)
        claim(text, gain, f"{what}, {group} problems: {points(gain)}.", *about)

    for group in ("hard", "all"):
        compare(
            f"An evaluator trained on easy problems raises accuracy on {group} ones: "
            "weighted voting beats majority voting.",
            weighted,
            majority,
            group,
            f"{label} voting minus majority",
        )
    compare(
        "Weighted voting beats greedy decoding on hard problems.",
        weighted,
        ("easy", "greedy", None),
        "hard",
        f"{label} voting minus greedy",
    )
    in_points, relative = gains(read, main, rng)
    claim(
        "Re-ranking helps more on hard problems than on easy ones, in points (the "
        "thesis's own figures say no).",
        in_points,
        f"gain on hard minus gain on easy: {in_points and points(in_points)}.",
    )
    if relative is not None:
        claim(
            "Re-ranking helps more on hard problems than on easy ones, relatively.",
            relative,
            "voting over majority, hard over easy: "
            f"{1 + relative.value:.2f} times [{1 + relative.low:.2f}, "
            f"{1 + relative.high:.2f}].",
        )
    compare(
        "Weighted voting beats best-of-n.",
        weighted,
        ("easy", main, "best"),
        "all",
        f"{label}, voting minus best-of-n",
    )
    for other in ("prm", "orm"):
        if main == "oprm" and other in kinds:
            compare(
                f"The mixed evaluator is better than the {KINDS[other]}.",
                weighted,
                ("easy", other, "weighted"),
                "all",
                f"OPRM minus {KINDS[other]}, voting",
                other,
            )
    if main == "oprm" and "large" in kinds:
        compare(
            "A larger evaluator helps a smaller generator more.",
            ("easy", "large", "weighted"),
            weighted,
            "all",
            "large minus small OPRM, voting",
            "large",
        )
        compare(
            "A smaller evaluator still helps a larger generator.",
            ("large", "oprm", "weighted"),
            ("large", None, "majority"),
            "all",
            "small OPRM voting minus majority of the large generator",
        )
    if len(kinds) == 1:
        out.append(Text("Other evaluators and sizes are in the full experiment."))
    return out
