"""The chapter's tables in our numbers, the thesis's beside them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.worlds.encyclopedia import EASY, REVERSED
from research.intervals import Resamples, bootstrap
from research.recite import errors
from research.recite.records import read_items
from research.recite.scores import Scores
from research.recite.thesis import (
    MORE_EXEMPLARS,
    SYSTEMS,
    TABLE_4_1,
    TABLE_4_2,
    TABLE_4_3,
    TABLE_4_4,
    TABLE_4_5,
    USUAL,
)
from research.report import Column, Interval, Section, Table, Text

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
        "direct", "direct votes", "chain of thought", "first recitation",
        "recite greedily", "recite",
    )  # fmt: skip
    ours = [
        [task, name_of(method, scores), *both_scores(scores, method, task, draws)]
        for task in scores.tasks
        for method in methods
        if scores.has(method, task)
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
                f"number of samples as one of recitations.{_guesses(scores)}",
            ),
            Table(
                [
                    Column("data"),
                    Column("exemplars"),
                    Column("method"),
                    *map(Column, SYSTEMS),
                ],
                _thesis_rows(),
                "Table 4.1, the thesis: exact match / F1",
                "Other models, other questions: compare the order and the gaps, not "
                "the levels.",
            ),
            *_by_type(scores, draws),
        ],
    )


def _thesis_rows() -> list[list]:
    """Table 4.1 as it is printed, more exemplars and all."""
    rows = []
    for data, of_methods in TABLE_4_1.items():
        for method, values in of_methods.items():
            rows.append([data, USUAL[data], NAMES[method].format(n=20), *values])
        for (shots, system), of_more in MORE_EXEMPLARS.items():
            for method, value in of_more.items() if data == "Natural Questions" else ():
                shown = [value if name == system else None for name in SYSTEMS]
                rows.append([data, shots, NAMES[method].format(n=20), *shown])
    return rows


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
        prior = _commonest(scores, task)
        rows = []
        for kind in kinds:
            row = [kind]
            for method in methods:
                found = [
                    run.right(run.voted)[[e.type == kind for e in run.entries]]
                    for run in scores.of(method, task)
                ]
                row.append(float(np.mean(np.concatenate(found))))
            rows.append(row + [prior.get(kind)] * bool(prior))
        columns = [name_of(m, scores) for m in methods]
        columns += ["always the commonest answer"] * bool(prior)
        made.append(
            Table(
                [Column("asked for")] + [Column(c, format=SHARE) for c in columns],
                rows,
                f"Exact match by what is asked for: {task}",
                " ".join(told for kind, told in CONTROLS.items() if kind in kinds),
            )
        )
    return made


CONTROLS = {
    EASY[0]: f"{EASY[0].capitalize()} is a control: it stands right behind the name, "
    "where it can be told without reciting.",
    REVERSED[0]: f"{REVERSED[0].capitalize()} is a control: it asks for the name in "
    "front of what the question says, so that no recitation can begin with it.",
}


def _commonest(scores: Scores, task: str) -> dict[str, float]:
    """How often the commonest answer of a type among the exemplars would be right.

    For types that exemplars are of; none of a published data set's are.
    """
    hits: dict[str, list[float]] = {}
    for seed, run in zip(scores.seeds, scores.of("direct", task), strict=True):
        solved = read_items(scores.data[seed] / f"exemplars_{task}.jsonl")
        counts: dict[str, Counter] = {}
        for entry in solved:
            counts.setdefault(entry.type, Counter())[entry.answers[0]] += 1
        for entry in run.entries:
            if entry.type in counts:
                ((answer, _),) = counts[entry.type].most_common(1)
                right = run._replace(entries=[entry]).right([answer])
                hits.setdefault(entry.type, []).append(float(right[0]))
    return {kind: float(np.mean(found)) for kind, found in hits.items()}


def _guesses(scores: Scores) -> str:
    """How often guesses by the kind of question alone are right, as a sentence."""
    shares = {}
    for task in scores.tasks:
        prior = _commonest(scores, task)
        kinds = [e.type for run in scores.of("direct", task) for e in run.entries]
        if prior:
            shares[task] = float(np.mean([prior.get(kind, 0.0) for kind in kinds]))
    listed = ", ".join(f"{task} {share:.1%}" for task, share in shares.items())
    said = " Always the commonest answer to what is asked for would be right on "
    return f"{said}{listed}." if shares else ""


REFUSED = {
    "no question": "that are no question",
    "copied": "copied from the passage",
    "twice": "that were there already",
    "of the test": "that the test asks",
}


def hints(scores: Scores, draws: Resamples) -> Section | None:
    """Table 4.2: diversified recitation, and what its hints are like."""
    task = next(iter(scores.tasks))
    if not scores.has("diversified", task):
        return None
    rows = [
        [
            name_of(m, scores),
            *both_scores(scores, m, task, draws),
            *TABLE_4_2.get(m, (None, None)),
        ]
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
        rows.append([label, *estimates, None, None])
    counts = [len(row.more["hints"]) for run in runs for row in run.rows]
    known = [
        row.more["hints"][int(np.argmax(row.more["counts"]))] == entry.hint
        for run in runs
        for row, entry in zip(run.rows, run.entries, strict=True)
        if row.more["hints"]
    ]
    best = f"{np.mean(known):.1%}" if known else "none"
    made = [scores.values[f"questions {seed}"] for seed in scores.seeds]
    asked = sum(v["kept"] for v in made)
    kinds = Counter()
    for v in made:
        kinds.update(v["left_out"])
    refused = ", ".join(f"{kinds[name]} {why}" for name, why in REFUSED.items())
    written = asked + kinds.total()
    lost = [scores.values[f"diversified {task} {seed}"] for seed in scores.seeds]
    cut = sum(v["contexts_cut"] for v in lost)
    dropped = sum(v["exemplars_dropped"] for v in lost)
    return Section(
        "Recitation by hints (Table 4.2)",
        [
            Table(
                [
                    Column("method"),
                    Column("exact match", format=SHARE),
                    Column("F1", format=SHARE),
                    Column("PaLM-62B, 5 exemplars"),
                    Column("PaLM-62B, 64"),
                ],
                rows,
                f"Table 4.2: {task}",
                "PaLM-62B is the thesis's, on Natural Questions.",
            ),
            Text(
                f"Of {scores.settings.paths} drawn hints {np.mean(counts):.2f} are "
                f"different on average; the most frequent is the one of the evidence "
                f"for {best} of the questions that have one (another page may answer "
                f"as well). {cut} contexts of several passages were cut, and {dropped} "
                "exemplars left out, to fit a prompt."
            ),
            Text(
                f"Of {written} texts that were written as questions to passages "
                f"{asked} are learned from; left out are {refused}. Questions may be "
                "about passages that the test asks about, but are, word for word, none "
                "of the test's. What is learned from them shows the passages once "
                "more, which the model of direct answers and of plain recitation does "
                "not see: a gain over these may come from that, too. A vote of the "
                "same model has no such advantage to make up for."
            ),
        ],
    )


def _one_hop(scores: Scores, task: str, values):
    """The thesis's two values beside questions of one hop, which they are of."""
    return values if values and scores.tasks[task].hops == 1 else (None, None)


def contexts(scores: Scores, draws: Resamples) -> Section:
    """Table 4.3: no passage, the gold one, a retrieved one, a recited one."""
    methods = ("direct", "gold", "retrieved", "recite greedily", "recite", "shuffled")
    rows = [
        [
            task,
            name_of(method, scores),
            *both_scores(scores, method, task, draws),
            *_one_hop(scores, task, TABLE_4_3.get(method)),
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


CLASS_NAMES = {  # the thesis's behind ours
    errors.MAJORITY: "right by vote (Hits@Majority)",
    errors.NOT_RECITED: "not recited (Not Recit.)",
    errors.RECITED: "recited only (Hits@20-Recit.)",
    errors.PATH: "right on a path (Hits@20-Path)",
}


def losses(scores: Scores, beside: Sequence[str]) -> Section:
    """Tables 4.4 and 4.5: where answers are lost.

    beside: tasks that the thesis's numbers, of TriviaQA, stand beside.
    """
    questions, single = [], []
    for task in scores.tasks:
        shown = task in beside
        found = paths_of(scores, task)
        normalise = scores.of("recite", task)[0].normalise
        shares = errors.class_shares(found, normalise)
        table = errors.path_table(found, normalise)
        questions += [
            [task, CLASS_NAMES[name], shares[name], *_shares(percents, shown)]
            for name, percents in TABLE_4_4.items()
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


def robustness(scores: Scores) -> Section | None:
    """How much depends on which exemplars a prompt shows."""
    rows: list[Sequence] = []
    asked = [task for task in scores.tasks if scores.has("robust", task)]
    for task in asked:
        for method, label in (("direct", "direct"), ("recite", "recite")):
            found = scores.by_exemplars(method, task).mean(axis=2).T  # [seeds, draws]
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
                f"{settings.exemplar_seeds} draws of {settings.shots} exemplar"
                + "s" * (settings.shots != 1),
                f"The first {settings.robust_questions} questions of a task, at most; "
                f"recitations by a vote of {settings.robust_paths}. The thesis's table "
                "of this (UL2-20B on TriviaQA) is not printed with numbers.",
            )
        ],
    )
