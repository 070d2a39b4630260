"""What the stages of chapter 7 leave, with proofs where one asks for them.

Of the test four kinds of easy problems and four of hard ones, then four novel ones;
`EACH` problems of every kind. A system's proofs are a text: of every kind how many of a
problem's two trajectories prove it.
"""

from data.records import write_jsonl
from research.lean_star.results import Results
from research.stages import StageResult

EACH = 4
LEVELS = ["easy"] * 4 * EACH + ["hard"] * 4 * EACH + ["medium"] * 4 * EACH
SPLITS = ["test"] * 8 * EACH + ["novel"] * 4 * EACH
RULES = {"trajectories": 2, "tactics": 4}
NOTES = {
    "yield": 0.5, "kept": 3, "examples": 9, "mean_length": 3.0, "output_tokens": 12.0,
    "no_progress": 0,
}  # fmt: skip
STEPS = ({"state": "p : Prop\n⊢ p", "output": "h\n", "tactic": "h"},)
ALL, NONE, HALF = "2" * 12, "0" * 12, "220022002200"


def problems(known: bool = True) -> list[dict]:
    """Rows of the problems; those of the test have known proofs, or not."""
    return [
        {
            "name": f"{split}{i}",
            "statement": f"theorem {split}{i} : p",
            "split": split,
            "source": "prop",
            "steps": 1,
            "level": level if known or split == "novel" else None,
            "proof": ["h"] if known or split == "novel" else [],
            "states": ["⊢ p"] if known or split == "novel" else [],
        }
        for i, (split, level) in enumerate(zip(SPLITS, LEVELS, strict=True))
    ]


def data(folder, known: bool = True) -> StageResult:
    """The stage that made the problems."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = problems(known)
    for split in ("test", "novel"):
        own = [row for row in rows if row["split"] == split]
        write_jsonl(folder / f"{split}.jsonl", own)
    step = {"state": "p : Prop\n⊢ p → p", "tactic": "intro h", "thought": None}
    write_jsonl(folder / "known.jsonl", [{"theorem": "train0", **step}])
    value = {"pairs": 90, "known": 30, "thoughts": 80, "statements": 12}
    return StageResult(folder, value)


def proved(folder, marks: str, steps=STEPS, calls=(), tokens=20) -> StageResult:
    """A proof search; see above for the marks. tokens: of every trajectory."""
    spent = {"tactics": 8, "tokens": 2 * tokens}
    folder.mkdir(parents=True)
    rows = []
    for problem, mark in zip(problems(), marks, strict=True):
        found = [1] * int(mark) + [0] * (2 - int(mark))
        rows.append(
            {key: problem[key] for key in ("name", "statement", "split")}
            | {"solved": mark != "0", "proved": found, "crashed": "", "counts": spent}
            | {"proof": list(steps) if mark != "0" else None}
        )
    write_jsonl(folder / "outcomes.jsonl", rows)
    write_jsonl(folder / "calls.jsonl", list(calls))
    counts = {
        "tactics": 40, "tokens": 400, "progress": 10, "proved": 6, "first": 20,
        "first_legal": 10,
    }  # fmt: skip
    spent = dict.fromkeys(
        ("tactics_per_second", "tokens_per_second", "model_waiting",
         "environment_idle"), 0.5,
    )  # fmt: skip
    return StageResult(folder, {"rules": RULES, "counts": counts, "throughput": spent})


def predicted(folder, marks: str, known: bool = True) -> StageResult:
    """A stage of predictions: right where the mark is not 0."""
    folder.mkdir(parents=True)
    rows = [
        {"name": problem["name"], "split": problem["split"], "step": 0,
         "output": "h\n" if mark != "0" else "g\n",
         "tactic": "h" if mark != "0" else "g", "right": mark != "0"}
        for problem, mark in zip(problems(), marks, strict=True)
        if known or problem["split"] == "novel"
    ]  # fmt: skip
    write_jsonl(folder / "predicted.jsonl", rows)
    return StageResult(folder, {})


def searched(folder, marks: str, tree=(), expansions=2) -> StageResult:
    """A best-first search: solved where the mark is not 0.

    Of at most two expansions, each of which tries two tactics.
    """
    folder.mkdir(parents=True)
    counts = {"expansions": expansions, "tactics": 2 * expansions, "tokens": 40}
    rows = [
        {key: problem[key] for key in ("name", "statement", "split")}
        | {"solved": mark != "0", "crashed": "", "counts": counts, "tree": list(tree)}
        for problem, mark in zip(problems(), marks, strict=True)
    ]
    write_jsonl(folder / "outcomes.jsonl", rows)
    return StageResult(folder, {"rules": {"expansions": 2, "candidates": 2}})


def made(
    root, systems, right=None, searches=None, seeds=(0,), known=True, tokens=None,
    expansions=2, **more,
):  # fmt: skip
    """The stages that a report reads, by kind.

    systems, right, searches: marks by name, the same of every seed, or a tuple of them.
    tokens: by name, of every trajectory. expansions: of searches. more: of `proved`.
    """
    right, searches, tokens = right or {}, searches or {}, tokens or {}
    found = {}

    def of(kind, names, make):
        found[kind] = {}
        for name, marks in names.items():
            for seed, own in zip(
                seeds, marks if isinstance(marks, tuple) else (marks,) * len(seeds),
                strict=True,
            ):  # fmt: skip
                folder = root / kind / f"{name} {seed}".replace(" ", "_")
                marks_of_all = "".join(mark * EACH for mark in own)
                found[kind][f"{name} {seed}"] = make(name, folder, marks_of_all)

    def sampled(name, folder, own):
        return proved(folder, own, tokens=tokens.get(name, 20), **more)

    of("proved", systems, sampled)
    told = {name: right.get(name, marks) for name, marks in systems.items()}
    of("predicted", told, lambda _, folder, own: predicted(folder, own, known))
    of("searched", searches,
       lambda _, folder, own: searched(folder, own, expansions=expansions))  # fmt: skip
    training = {"steps": 7, "tokens": 700.0, "places": 800}
    trained = [name for name in systems if name != "untuned"]
    found["trained"] = {
        f"{name} {seed}": StageResult(root, training)
        for name in trained
        for seed in seeds
    }
    rounds = [name for name in systems if name.startswith(("star", "ei"))]
    found["gathered"] = {
        f"{name} {seed}": StageResult(root, NOTES) for name in rounds for seed in seeds
    }
    return found


def results(root, systems, seeds=(0,), known=True, published=None, **more) -> Results:
    """What a report reads of such stages."""
    stages = made(root, systems, seeds=seeds, known=known, **more)
    return Results(data(root / "data", known), stages, seeds, (1, 2), published)
