"""The tables of a published model: our numbers beside the thesis's of the same one."""

from collections.abc import Mapping
from typing import NamedTuple

from research.intervals import Resamples
from research.recite import thesis
from research.recite.scores import Scores
from research.recite.tables import SHARE, both_scores, name_of
from research.report import Column, Section, Table, Text

ORDER = (
    "direct",
    "direct votes",
    "chain of thought",
    "first recitation",
    "recite greedily",
    "recite",
    "gold",
    "retrieved",
)


class Beside(NamedTuple):
    """Whose numbers stand beside ours, and what the tasks are.

    titles: of every task, the data set as the thesis calls it; shots: its exemplars
    """

    system: str
    titles: Mapping[str, str]
    shots: Mapping[str, int]


def answers(scores: Scores, draws: Resamples, beside: Beside) -> Section:
    """Tables 4.1 and 4.3 of one system, and what did not fit into its prompts."""
    rows, lost = [], []
    for task in scores.tasks:
        title, shots = beside.titles[task], beside.shots[task]
        for method in ORDER:
            if not scores.has(method, task):
                continue
            theirs = thesis.answers(beside.system, title, shots, method)
            exact, overlap = theirs.split("/") if theirs else (None, None)
            exact, overlap = (None if x is None else float(x) / 100
                              for x in (exact, overlap))  # fmt: skip
            rows.append(
                [
                    title,
                    shots,
                    name_of(method, scores),
                    *both_scores(scores, method, task, draws),
                    exact,
                    overlap,
                ]
            )
            values = [scores.values[f"{method} {task} {s}"] for s in scores.seeds]
            dropped, cut = (
                sum(v[name] for v in values)
                for name in ("exemplars_dropped", "contexts_cut")
            )
            if dropped or cut:
                lost.append(
                    f"{title} with {shots}, {name_of(method, scores)}: {dropped} "
                    f"exemplars left out, {cut} contexts cut."
                )
    told = _told(scores, beside)
    return Section(
        f"Answers of {beside.system} (Tables 4.1 and 4.3)",
        [
            Table(
                [
                    Column("data"),
                    Column("exemplars", format="d"),
                    Column("method"),
                    Column("exact match", format=SHARE),
                    Column("F1", format=SHARE),
                    Column("exact match, thesis", format=".2%"),
                    Column("F1, thesis", format=".2%"),
                ],
                rows,
                f"{beside.system} here and in the thesis",
                "Greedy where no vote is named. The thesis's questions are the first "
                "1,024 in TFDS's order, of HotpotQA in the file's; its figures of "
                "OPT-30B on Natural Questions are no multiples of 1/1,024, and so of "
                "another number of questions. Here all questions have the exemplars "
                "of one draw; the original code draws anew for each of Natural "
                "Questions.",
            ),
            Text(" ".join([*told, *(lost or ["Every exemplar and context fitted."])])),
        ],
    )


def _told(scores: Scores, beside: Beside) -> list[str]:
    """What passages were retrieved from, and exemplars drawn from."""
    data = scores.values[f"world {scores.seeds[0]}"]
    counts, corpus = data["counts"], data["corpus"]
    told = []
    if any(scores.has("retrieved", task) for task in scores.tasks):
        where = corpus
        if corpus == "pages":
            where = (
                "the pages that the questions are about, and of some of the training "
                "split's: easier to search than all of Wikipedia"
            )
        told.append(f"Retrieved is one of {counts['passages']} passages of {where}.")
    for task in scores.tasks:
        known = counts[f"exemplars_{task}"]
        if scores.has("robust", task) and known <= beside.shots[task]:
            told.append(
                f"Of {beside.titles[task]} there are {known} exemplars, so that draws "
                "of them differ in their order alone."
            )
    return told
