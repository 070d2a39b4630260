"""Small files in the published formats, and a checkpoint that answers them at times.

Problems are sums of two digits. Their answers, "0.5" or "2", have nothing to do with
them, so that a model is right on some samples and wrong on others. The solutions write
the first one as \\frac12: by their strings, half of the answers would never be right.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from helpers.entry import write_rows
from helpers.published_files import (
    apps_row,
    completion,
    math_row,
    metamath_row,
    prm_row,
    shepherd_row,
    step,
    write_files,
)

from data.chat import load_template
from data.formats import Completion
from data.sets.apps import completion_of
from data.sets.text import prompt_of
from data.tokenizers import word_tokenizer
from models import decoder
from models.config import DecoderConfig
from research.training import Training, train
from train.optim import OptimizerConfig

ANSWERS = {"0.5": "\\frac12", "2": "2"}  # as given, and as solutions write them
PROGRAMS = ("print(1)", "print(2)")
WORDS = [
    *("# Question\n\n", "# Solution\n\n", "# Answer\n\n", "\n\n", "\n", " + "),
    *"0123456789",
    *("Good.", "Bad.", "So.", "\\frac12", "0.5", "x", "Hard."),
    *("```python\n", *PROGRAMS, "\n```\n"),
]
TOKENIZER = word_tokenizer(WORDS)


def questions(count: int, start: int = 0) -> list[str]:
    return [f"{i // 10} + {i % 10}" for i in range(start, start + count)]


def problems(split: str, count: int, start: int = 0) -> list[dict]:
    """Lines of math_splits of all levels."""
    return [
        math_row(
            question,
            i % 5 + 1,
            list(ANSWERS)[i // 5 % 2],
            subject="Algebra",
            unique_id=split,
            by="Good.\n\nSo.",
        )
        for i, question in enumerate(questions(count, start))
    ]


def harder(row: dict) -> dict:
    """A hard problem with another solution and another answer; an easy one as it is."""
    changed = {"solution": "Hard.", "answer": "x"} if row["level"] > 3 else {}
    return row | changed


def rated(row: dict) -> dict:
    """A trajectory; its steps and ratings are others for a problem with answer x."""
    answer = ANSWERS.get(row["answer"], row["answer"])
    first, sign = ("Hard.", -1) if answer == "x" else ("Good.", 1)
    end = f"So.\n\n# Answer\n\n{answer}"
    return prm_row(
        row["problem"],
        step(completion(first, sign), completion("Bad.", -sign)),
        step(completion(end, sign)),
    )


def write_math(folder: Path, change=lambda row: row) -> dict[str, str | tuple]:
    """The published files of 60 training problems and 10 of the test set.

    change: applied to training problems, from which all labels are made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = [*problems("train", 40), *problems("test", 20, 40)]
    train, test = [change(row) for row in train], problems("test", 10, 60)
    answers = [ANSWERS.get(row["answer"], row["answer"]) for row in train]
    metamath = [
        metamath_row(row["problem"], f"Good. So.\nThe answer is: {answer}")
        for row, answer in zip(train, answers, strict=True)
    ]
    shepherd = [
        shepherd_row(row["problem"], ["Good.", f"So. The answer is: {answer}"], signs)
        for row, answer in zip(train, answers, strict=True)
        for signs in (["--"] if answer == "x" else ["+-", "++"])
    ]
    ratings = [rated(row) for row in train]
    return write_files(
        folder, train, test, (ratings[:30], ratings[30:]), metamath, shepherd
    )


def write_apps(folder: Path) -> dict[str, str]:
    """train.jsonl and test.jsonl of APPS: programs that print one of two numbers."""
    splits = {"train": (12, 4, 2), "test": (2, 2, 2)}
    kinds = ("introductory", "interview", "competition")
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, sizes) in enumerate(splits.items()):
        difficulties = [k for k, n in zip(kinds, sizes, strict=True) for _ in range(n)]
        rows = [
            apps_row(
                i,
                difficulty,
                question=question,
                solutions=f'["{PROGRAMS[i % 2]}"]',
                input_output=f'{{"inputs": [""], "outputs": ["{i % 2 + 1}\\n"]}}',
            )
            for i, (difficulty, question) in enumerate(
                zip(
                    difficulties, questions(len(difficulties), 70 * number), strict=True
                )
            )
        ]
        write_rows(folder / f"{split}.jsonl", rows)
    return {split: str(folder / f"{split}.jsonl") for split in splits}


def answering_checkpoint(folder: Path) -> None:
    """A tiny Llama that has seen the forms of solutions and programs, in seconds."""
    cfg = DecoderConfig(
        vocab_size=TOKENIZER.vocab_size,
        d_model=32,
        n_layers=1,
        n_heads=2,
        n_kv_heads=2,
        head_dim=16,
        d_ff=32,
        max_position=128,
        init_std=0.1,
    )
    chat, rng = load_template("plain", TOKENIZER), np.random.default_rng(0)
    ends = [f"Good.\n\nSo.\n\n# Answer\n\n{a}" for a in ANSWERS.values()]
    ends += [completion_of(program) for program in PROGRAMS]
    examples = [
        chat.encode(Completion(prompt_of(question), ends[rng.integers(len(ends))]))
        for question in questions(100) * 4
    ]
    training = Training(
        epochs=5.0, batch_size=8, length=64, optimizer=OptimizerConfig(lr=1e-2)
    )
    params = decoder.init_params(cfg, jax.random.key(0))
    train(folder, cfg, params, examples, training, 0, TOKENIZER)


_SAMPLED = (
    "{0}.votes=2 {0}.counts=(1,2) {0}.max_new_tokens=12 {0}.slots=16 {0}.repeats=2"
).format
_DRAWN = "{0}.drawn.samples={1} {0}.drawn.max_new_tokens=12 {0}.drawn.slots=16".format
_MATH = " ".join([
    "sft.epochs=0.5 sft.batch_size=8 sft.length=32 icl.count=2 icl.length=64",
    _SAMPLED("sampled"),
    _DRAWN("evaluators", 4),
    "evaluators.epochs=0.2",
    *(
        f"evaluators.{kind}.length=32 evaluators.{kind}.batch_size=8 "
        f"evaluators.{kind}.eval_every=2 evaluators.{kind}.held_out=0.2"
        for kind in ("training", "prm_training")
    ),
])  # fmt: skip
_FURTHER = " ".join([
    _DRAWN("policies.rest", 2), "policies.rest.rounds=1",
    _DRAWN("policies.dpo", 4), "policies.dpo.rounds=1 policies.dpo.most=1",
    "policies.dpo.batch_size=16 policies.dpo.length=32 policies.dpo.gap=0.2",
    _DRAWN("policies.ppo", 1), "policies.ppo.ppo.iterations=2",
    "policies.ppo.ppo.prompts=4 policies.ppo.ppo.minibatch=4 policies.ppo.ppo.accum=1",
    "policies.ppo.ppo.fit_critic=8 policies.ppo.eval_every=1",
])  # fmt: skip
_APPS = " ".join([
    "apps.test_sizes=(1,1,1) apps.held_out=0.2 apps.reward_samples=4 apps.workers=2",
    "apps.sft.epochs=0.5 apps.sft.batch_size=4 apps.sft.length=32",
    "apps.reward.epochs=1.0 apps.reward.batch_size=4 apps.reward.length=32",
    _SAMPLED("apps.sampled"), "apps.dtype=float32 apps.train_dtype=float32",
    "apps.sft.optimizer.lr=2e-5 apps.reward.optimizer.lr=2e-5",
    "apps.sft.accum=4 apps.reward.accum=4",
])  # fmt: skip
# What compiles in no time; half the numbers on a CPU take twice as long.
_PLAIN = "dtype=float32 train_dtype=float32 remat=none"
# With the numbers of `paper`, what it compiled serves again.
_AGAIN = (
    "sft.optimizer.lr=2e-5 evaluators.training.optimizer.lr=2e-5 "
    "evaluators.prm_training.optimizer.lr=2e-5"
)
_AGAIN_FURTHER = (
    "policies.rest.drawn.temperature=1.0 policies.ppo.drawn.temperature=0.7 "
    "policies.ppo.optimizer.lr=2e-5 policies.ppo.ppo.kl.coef=0.01"
)
# What makes every paper variant small.
OVERRIDES = {
    "paper": f"{_MATH} {_FURTHER} {_PLAIN}",
    "paper_faithful": f"{_MATH} {_FURTHER} {_PLAIN}",
    "paper_34b": _MATH,  # as shipped: numbers, recomputation, micro-batches
    "paper_metamath": f"{_MATH} {_FURTHER} {_PLAIN} {_AGAIN} {_AGAIN_FURTHER}",
    "paper_metamath_34b": f"{_MATH} {_PLAIN} {_AGAIN}",
    "paper_apps": _APPS,
    "paper_apps_34b": _APPS,
}


class Shared(NamedTuple):
    """What small runs start from."""

    checkpoint: Path
    math: dict
    apps: dict


def shared(root: Path) -> Shared:
    """The same for all tests of a session that give the same `root`."""
    folder = root / "paper"
    made = Shared(
        folder / "model" / "hf",
        write_math(folder / "math"),
        write_apps(folder / "apps"),
    )
    if not made.checkpoint.exists():
        answering_checkpoint(folder / "model")
    return made


def workdir(root: Path, name: str) -> Path:
    """The folder of a run; all those of `root` share what XLA compiled."""
    compiled, folder = root / "paper" / "compiled", root / "paper" / "runs" / name
    compiled.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "compiled").symlink_to(compiled)
    return folder


def arguments(variant: str, checkpoint: Path, files: dict) -> list[str]:
    """The command line of a small run; `files` of `write_math` or `write_apps`."""
    group = "apps" if "apps" in variant else "published"
    known = {
        "paper": ("math_train", "math_test", "prm800k"),
        "paper_faithful": ("math_train", "math_test", "prm800k"),
        "paper_34b": ("math_train", "math_test", "prm800k"),
        "paper_apps": ("train", "test"),
        "paper_apps_34b": ("train", "test"),
    }.get(variant, ("math_train", "math_test", "metamath", "math_shepherd"))
    given = {name: files[name] for name in known} | {"checkpoint": checkpoint}
    settings = [f"{group}.{name}={value}" for name, value in given.items()]
    return [f"--config.{x}" for x in [*OVERRIDES[variant].split(), *settings]]
