"""The problems of a world made here, and readers of what any data stage left.

A data stage leaves train, development and test.jsonl; one of published files also
sft.jsonl (what generators imitate) and rl.jsonl (questions with or without answers).
"""

import json
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.records import read_records, write_jsonl
from data.tokenizers import save_tokenizer, word_tokenizer
from data.worlds import arithmetic
from research.easy_to_hard.settings import Miniature

EASY = arithmetic.EASY
FIELDS = {"prompt": (str,), "completion": (str,), "answer": (str,), "level": (int,)}
QUESTION_FIELDS = {"prompt": (str,), "answer": (str, type(None)), "level": (int,)}


def make_world(folder: Path, *, task: Miniature, seed: int) -> dict:
    """Stage: problems with solutions, facts, and the tokenizer of a miniature world.

    Leaves train.jsonl, development.jsonl and test.jsonl ({prompt, completion, answer,
    level}), facts.jsonl ({text}) and the tokenizer's files.
    """
    splits = arithmetic.splits(task.world, seed, task.sizes)
    for i, (name, problems) in enumerate(splits._asdict().items()):
        rng = np.random.default_rng([seed, 10 + i])
        write_jsonl(folder / f"{name}.jsonl", [
            {
                "prompt": p.text,
                "completion": arithmetic.solution(task.world, p, rng),
                "answer": p.answer,
                "level": p.level,
            }
            for p in problems
        ])  # fmt: skip
    rng = np.random.default_rng([seed, 20])
    facts = arithmetic.facts(
        task.world, rng, task.facts, task.wrong_share, task.scale_share
    )
    write_jsonl(folder / "facts.jsonl", [{"text": text} for text in facts])
    tokenizer = word_tokenizer(arithmetic.vocabulary(task.world))
    save_tokenizer(tokenizer, folder / "tokenizer")
    return {
        "counts": {name: len(problems) for name, problems in splits._asdict().items()},
        "vocab_size": tokenizer.vocab_size,
    }


def read_problems(path, levels=None) -> list[dict]:
    """Rows {prompt, completion, answer, level} of a file, of the given levels only.

    Raises DataError naming file, line and field.
    """
    return _read(path, FIELDS, levels)


def read_sft(folder: Path, levels=None) -> list[dict]:
    """What generators imitate: rows {prompt, completion, eos, level}.

    Those of sft.jsonl, or else the whole solutions of train.jsonl.
    """
    path = folder / "sft.jsonl"
    if not path.exists():
        problems = read_problems(folder / "train.jsonl", levels)
        return [row | {"eos": True} for row in problems]
    rows = [record.row for record in read_records(path)]
    return [row for row in rows if levels is None or row["level"] in levels]


def read_questions(folder: Path, levels=None) -> list[dict]:
    """Different questions to learn from by rewards: {prompt, answer or None, level}.

    Those of rl.jsonl, or else the problems of train.jsonl.
    """
    path = folder / "rl.jsonl"
    if path.exists():
        rows = _read(path, QUESTION_FIELDS, levels)
    else:
        rows = read_problems(folder / "train.jsonl", levels)
    return list({row["prompt"]: row for row in rows}.values())


def _read(path, fields: dict, levels) -> list[dict]:
    rows = []
    for record in read_records(path):
        for field, kinds in fields.items():
            if type(record.row.get(field)) not in kinds:
                raise DataError(
                    f"{record.where}: {field}: expected {kinds[0].__name__}, "
                    f"got {json.dumps(record.row.get(field))[:60]}"
                )
        if levels is None or record.row["level"] in levels:
            rows.append({field: record.row[field] for field in fields})
    return rows
