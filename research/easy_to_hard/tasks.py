"""Where problems and the base model come from: a world made here, or files."""

import json
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.records import read_records, write_jsonl
from data.tokenizers import load_tokenizer, save_tokenizer, word_tokenizer
from data.worlds import arithmetic
from research.easy_to_hard.settings import Miniature, Published

EASY = arithmetic.EASY
FIELDS = {"prompt": str, "completion": str, "answer": str, "level": int}


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


def read_published(folder: Path, *, task: Published) -> dict:
    """Stage: checks published files and copies them beside the run's other stages."""
    counts = {}
    for name in ("train", "test"):
        rows = read_problems(getattr(task, name))
        write_jsonl(folder / f"{name}.jsonl", rows)
        counts[name] = len(rows)
    save_tokenizer(load_tokenizer(task.checkpoint), folder / "tokenizer")
    return {"counts": counts}


def read_problems(path, levels=None) -> list[dict]:
    """Rows {prompt, completion, answer, level} of a file, of the given levels only.

    Raises DataError naming file, line and field.
    """
    rows = []
    for record in read_records(path):
        for field, kind in FIELDS.items():
            if type(record.row.get(field)) is not kind:
                raise DataError(
                    f"{record.where}: {field}: expected {kind.__name__}, "
                    f"got {json.dumps(record.row.get(field))[:60]}"
                )
        if levels is None or record.row["level"] in levels:
            rows.append({field: record.row[field] for field in FIELDS})
    return rows
