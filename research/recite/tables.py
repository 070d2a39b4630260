"""The chapter's tables in our numbers, the thesis's beside them."""

from collections.abc import Sequence

import numpy as np

from research import plots
from research.intervals import Resamples, bootstrap
from research.recite import errors
from research.recite.scores import Scores
from research.recite.thesis import (
    SYSTEMS,
    TABLE_4_1,
    TABLE_4_2,
    TABLE_4_3,
    TABLE_4_4,
    TABLE_4_5,
)
from research.recite.voting import path_curve, vote
from research.report import Column, Figure, Interval, Section, Table, Text

NAMES = {
    "direct": "direct",
    "direct votes": "direct, vote of {n}",
    "chain of thought": "chain of thought, vote of {n}",
    "first recitation": "first of two recitations, greedy",
    "recite greedily": "recite, greedy",
    "recite": "recite, vote of {n}",
    "diversified": "diversified: hints, one context",
    "hinted votes": "the same model, vote of {n}",
    "gold": "gold passage",
    "retrieved": "BM25, best passage",
    "shuffled": "recitation of another question",
}
SHARE = ".1%"


def name_of(method: str, scores: Scores) -> str:
    return NAMES[method].format(n=scores.settings.paths)


def both_scores(
    scores: Scores, method: str, task: str, draws: Resamples
) -> tuple[Interval, Interval]:
    """Exact match and F1 of the voted answers."""
    return (
        bootstrap(scores.right(method, task), draws),
        bootstrap(scores.overlap(method, task), draws),
    )


def accuracy(scores: Scores, draws: Resamples) -> Section:
    """Table 4.1: every method on every task, and the thesis's systems."""
    methods = (
        "direct", "direct votes", "chain of thought", "recite greedily",
        "recite",
    )  # fmt: skip
    ours = [
        [task, name_of(method, scores), *both_scores(scores, method, task, draws)]
        for task in scores.tasks
        for method in methods
        if scores.has(method, task)
    ]
    thesis = [
        [data, NAMES[method].format(n=20), *values]
        for data, of_methods in TABLE_4_1.items()
        for method, values in of_methods.items()
    ]
    return Section(
        "Answers (Table 4.1)",
        [
            Table(
                [
                    Column("questions"),
                    Column("method"),
                    Column("exact match", format=SHARE),
                    Column("F1", format=SHARE),
                ],
                ours,
                "Table 4.1, here",
                "Greedy where no vote is named. A vote of direct answers has the same "
                "number of samples as one of recitations.",
            ),
            Table(
                [Column("data"), Column("method"), *map(Column, SYSTEMS)],
                thesis,
                "Table 4.1, the thesis: exact match / F1",
                "With 5 exemplars, HotpotQA 4. Other models, other questions: compare "
                "the order and the gaps, not the levels.",
            ),
            *_by_type(scores, draws),
        ],
    )


def _by_type(scores: Scores, draws: Resamples) -> list[Table]:
    made = []
    for task in scores.tasks:
        kinds = sorted(
            {e.type for run in scores.of("direct", task) for e in run.entries}
        )
        if len(kinds) < 2:
            continue
        methods = [
            m
            for m in ("direct", "recite greedily", "recite", "gold", "retrieved")
            if scores.has(m, task)
        ]
        rows = []
        for kind in kinds:
            row = [kind]
            for method in methods:
                found = [
                    run.right(run.voted)[[e.type == kind for e in run.entries]]
                    for run in scores.of(method, task)
                ]
                row.append(float(np.mean(np.concatenate(found))))
            rows.append(row)
        made.append(
            Table(
                [Column("asked for")]
                + [Column(name_of(m, scores), format=SHARE) for m in methods],
                rows,
                f"Exact match by what is asked for: {task}",
            )
        )
    return made


def hints(scores: Scores, draws: Resamples) -> Section | None:
    """Table 4.2: diversified recitation, and what its hints are like."""
    task = next(iter(scores.tasks))
    if not scores.has("diversified", task):
        return None
    rows = [
        [name_of(m, scores), *both_scores(scores, m, task, draws), TABLE_4_2.get(m)]
        for m in ("direct", "recite", "hinted votes", "diversified")
    ]
    runs = scores.of("diversified", task)
    for field, label in (
        ("voted", "diversified: vote of its passages, one each"),
        ("weighted", "diversified: vote, each as often as drawn"),
    ):
        answers = [[row.more[field] for row in run.rows] for run in runs]
        right = [run.right(a) for run, a in zip(runs, answers, strict=True)]
        overlap = [run.overlap(a) for run, a in zip(runs, answers, strict=True)]
        estimates = bootstrap(right, draws), bootstrap(overlap, draws)
        rows.append([label, *estimates, None])
    counts = [len(row.more["hints"]) for run in runs for row in run.rows]
    known = [
        row.more["hints"][int(np.argmax(row.more["counts"]))] == entry.hint
        for run in runs
        for row, entry in zip(run.rows, run.entries, strict=True)
        if row.more["hints"]
    ]
    made = [scores.values[f"questions {seed}"] for seed in scores.seeds]
    asked = sum(v["kept"] for v in made)
    return Section(
        "Recitation by hints (Table 4.2)",
        [
            Table(
                [
                    Column("method"),
                    Column("exact match", format=SHARE),
                    Column("F1", format=SHARE),
                    Column("thesis, PaLM-62B"),
                ],
                rows,
                f"Table 4.2: {task}",
                "The thesis's are of Natural Questions with 5 exemplars.",
            ),
            Text(
                f"Of {scores.settings.paths} drawn hints {np.mean(counts):.2f} are "
                f"different on average; the most frequent is the one of the evidence "
                f"for {np.mean(known):.1%} of the questions (another page may answer "
                f"as well). {asked} questions were made for passages. What is learned "
                "from them shows the passages once more, which the other methods' "
                "model does not see: a gain may come from that, too."
            ),
        ],
    )


def contexts(scores: Scores, draws: Resamples) -> Section:
    """Table 4.3: no passage, the gold one, a retrieved one, a recited one."""
    methods = ("direct", "gold", "retrieved", "recite greedily", "recite", "shuffled")
    rows = [
        [
            task,
            name_of(method, scores),
            *both_scores(scores, method, task, draws),
            *TABLE_4_3.get(method, (None, None)),
        ]
        for task in scores.tasks
        for method in methods
        if scores.has(method, task)
    ]
    return Section(
        "Where the passage comes from (Table 4.3)",
        [
            Table(
                [
                    Column("questions"),
                    Column("passage"),
                    Column("exact match", format=SHARE),
                    Column("F1", format=SHARE),
                    Column("UL2-20B"),
                    Column("Codex"),
                ],
                rows,
                "Table 4.3",
                "The thesis's are of Natural Questions; its recitations are voted, 20 "
                "paths. BM25 finds one passage, also for questions that need two.",
            )
        ],
    )


def paths_of(scores: Scores, task: str) -> list[errors.Paths]:
    """The paths of all questions and seeds, for the classes of errors."""
    return [
        errors.Paths(row.recitations, row.answers, row.voted, entry.answers)
        for run in scores.of("recite", task)
        for row, entry in zip(run.rows, run.entries, strict=True)
    ]


def _shares(percents: Sequence[float], shown: bool) -> list[float | None]:
    return [value / 100 if shown else None for value in percents]


def losses(scores: Scores, beside: Sequence[str] | None = None) -> Section:
    """Tables 4.4 and 4.5: where answers are lost.

    beside: tasks that the thesis's numbers, of TriviaQA, stand beside; None: of all.
    """
    questions, single = [], []
    for task in scores.tasks:
        shown = beside is None or task in beside
        found = paths_of(scores, task)
        normalise = scores.of("recite", task)[0].normalise
        shares = errors.class_shares(found, normalise)
        table = errors.path_table(found, normalise)
        questions += [
            [task, name, shares[name], *_shares(TABLE_4_4[name], shown)]
            for name in errors.CLASSES
        ]
        single += [
            [
                task,
                "yes" if recited else "no",
                "yes" if right else "no",
                table[int(recited), int(right)] / table.sum(),
                *_shares(thesis, shown),
            ]
            for (recited, right), thesis in TABLE_4_5.items()
        ]
    systems = [Column(name, format=SHARE) for name in ("UL2-20B", "OPT-30B")]
    return Section(
        "Where answers are lost (Tables 4.4 and 4.5)",
        [
            Table(
                [Column("questions"), Column("class"), Column("here", format=SHARE)]
                + systems,
                questions,
                "Table 4.4: questions",
                "The classes of a task add up to 100%. OPT's right paths are printed "
                "as 20.07%; with 20.70%, 212 of 1,024 questions, they do there, too.",
            ),
            Table(
                [
                    Column("questions"),
                    Column("answer recited"),
                    Column("answered rightly"),
                    Column("here", format=SHARE),
                ]
                + systems,
                single,
                "Table 4.5: single paths",
                "A path recites an answer whose words stand next to each other in it.",
            ),
        ],
    )


def more_paths(scores: Scores) -> tuple[Section, dict]:
    """Figure 4.4, and its curves {task: [curve of each seed]} for the verdicts."""
    made, curves, blocks = {}, {}, []
    counts = scores.settings.counts
    for task in scores.tasks:
        for label in ("exact match", "F1"):
            found = []
            for seed, run in zip(scores.seeds, scores.of("recite", task), strict=True):

                def score(q, answer, run=run, label=label):
                    one = run._replace(entries=[run.entries[q]])
                    how = one.right if label == "exact match" else one.overlap
                    return float(how([answer])[0])

                rng = np.random.default_rng([seed, 10])
                pools = [row.answers for row in run.rows]
                repeats = scores.settings.repeats
                found.append(path_curve(pools, score, counts, repeats, rng, vote))
            mean = np.mean([curve.mean for curve in found], axis=0)
            spread = np.mean([curve.deviation for curve in found], axis=0)
            made[f"{task}, {label}"] = [
                (m, m - s, m + s) for m, s in zip(mean, spread, strict=True)
            ]
            if label == "exact match":
                curves[task] = found
                rows = [
                    [count, float(m), float(s)]
                    for count, m, s in zip(counts, mean, spread, strict=True)
                ]
                blocks.append(
                    Table(
                        [
                            Column("paths"),
                            Column("exact match", format=SHARE),
                            Column("deviation of a repeat", format=".2%"),
                        ],
                        rows,
                        f"Figure 4.4 in numbers: {task}",
                    )
                )
    figure = Figure(
        plots.lines(
            counts, made, xlabel="paths", ylabel="Right, or F1, by vote", log_x=True
        ),
        f"Figure 4.4: votes of fewer paths, {scores.settings.repeats} sub-samples of "
        "one pool each; bands are one standard deviation of them.",
        "Curves of exact match and F1 over the number of paths.",
    )
    return Section("More paths (Figure 4.4)", [figure, *blocks]), curves


def draws_of_exemplars(scores: Scores, task: str, method: str) -> np.ndarray:
    """Exact match [seeds, draws of exemplars] of the questions asked several times."""
    found = []
    for run in scores.of("robust", task):
        answers = zip(*(row.more[method] for row in run.rows), strict=True)
        found.append([float(run.right(a).mean()) for a in answers])
    return np.array(found)


def robustness(scores: Scores) -> Section | None:
    """How much depends on which exemplars a prompt shows."""
    rows: list[Sequence] = []
    asked = [task for task in scores.tasks if scores.has("robust", task)]
    for task in asked:
        for method, label in (("direct", "direct"), ("recite", "recite")):
            found = draws_of_exemplars(scores, task, method)
            rows.append(
                [
                    task,
                    label,
                    float(found.mean()),
                    float(found.std(axis=1, ddof=1).mean()),
                    float(np.ptp(found, axis=1).mean()),
                ]
            )
    if not asked:
        return None
    settings = scores.settings
    return Section(
        "Other exemplars",
        [
            Table(
                [
                    Column("questions"),
                    Column("method"),
                    Column("exact match", format=SHARE),
                    Column("deviation over draws", format=".2%"),
                    Column("best minus worst", format=SHARE),
                ],
                rows,
                f"{settings.exemplar_seeds} draws of {settings.shots} exemplars",
                f"The first {settings.robust_questions} questions of a task, at most; "
                f"recitations by a vote of {settings.robust_paths}. The thesis's table "
                "of this (UL2-20B on TriviaQA) is not printed with numbers.",
            )
        ],
    )


def transcripts(scores: Scores, count: int = 10) -> Section:
    """Questions with recitations, answers, vote and gold, for a person to read."""
    blocks = []
    tasks = list(scores.tasks)
    for n in range(count):
        task = tasks[n % len(tasks)]
        run = scores.of("recite", task)[0]
        direct = scores.of("direct", task)[0]
        place = (n // len(tasks)) * len(run.rows) // -(-count // len(tasks))
        row, entry = run.rows[place], run.entries[place]
        prompt = row.more["prompt"].replace("\n", "\n           ")
        lines = [f"Prompt     {prompt}", ""]
        for path in range(min(3, len(row.answers))):
            text = row.recitations[path].replace("\n", "\n           ")
            lines += [f"Recited    {text}", f"  answer   {row.answers[path]}", ""]
        lines += [
            f"Vote       {row.voted} (of {len(row.answers)} paths)",
            f"Direct     {direct.rows[place].voted}",
            f"Gold       {' | '.join(entry.answers)}",
            f"Evidence   {' / '.join(entry.evidence)}",
        ]
        blocks.append(Text("\n".join(lines), f"{task}: {entry.id}", verbatim=True))
    return Section("Transcripts", blocks)
