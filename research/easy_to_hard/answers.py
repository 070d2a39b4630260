"""Answers of one generator to all problems: one greedily, several by sampling."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.records import read_records, write_jsonl
from data.tokenizers import Tokenizer
from models.config import DecoderConfig
from models.sampler import generate
from models.sampling import EOS, STOP, Sampling
from research.easy_to_hard.rules import RULES
from research.easy_to_hard.selection import Pool, graded, make_pool
from research.easy_to_hard.settings import Sampled
from research.stages import StageResult
from train.progress import Progress


def write_answers(
    path: Path,
    cfg: DecoderConfig,
    params,
    tokenizer: Tokenizer,
    problems: Sequence[dict],
    prompts: Sequence[Sequence[int]],
    sampled: Sampled,
    key,
    *,
    clean=lambda text: text,
    eos_ids: tuple[int, ...] = (),
    stop: tuple[tuple[int, ...], ...] = (),
    prefix: Sequence[int] = (),
    rules: str = "exact",
) -> dict:
    """Writes {level, answer, prompt, greedy, greedy_text, pool, texts} per problem.

    Args:
      problems: {prompt, answer, level}; prompts: the ids to generate from.
      clean: applied to each response's text. eos_ids, stop: what ends a response.
      prefix: ids that precede every prompt. rules: how answers are read.

    Returns the numbers of unfinished responses and of tokens.
    """

    def draw(temperature, top_k, samples):
        rules = Sampling(
            temperature=temperature, top_k=top_k, eos_ids=eos_ids, stop=stop
        )
        total = len(prompts) * samples
        with Progress(total, unit="response") as bar:
            done = iter(range(1, total + 1))
            rollout = generate(
                cfg,
                params,
                prompts,
                rules,
                key,
                max_new_tokens=sampled.max_new_tokens,
                samples=samples,
                slots=sampled.slots,
                prefix=prefix,
                on_response=lambda _: bar.update(next(done)),
            )
        texts = [clean(tokenizer.decode(rollout.response(i))) for i in range(total)]
        return rollout, [texts[i : i + samples] for i in range(0, total, samples)]

    final_answer = RULES[rules].final_answer
    greedy, greedy_texts = draw(0.0, 0, 1)
    pool, texts = draw(sampled.temperature, sampled.top_k, sampled.votes)
    write_jsonl(path, [
        {
            "level": p["level"],
            "answer": p["answer"],
            "prompt": p["prompt"],
            "greedy": final_answer(g[0]),
            "greedy_text": g[0],
            "pool": [final_answer(t) for t in several],
            "texts": several,
        }
        for p, g, several in zip(problems, greedy_texts, texts, strict=True)
    ])  # fmt: skip
    return {
        "unfinished_greedy": unfinished(greedy),
        "unfinished_sampled": unfinished(pool),
        "tokens": int(greedy.lengths.sum() + pool.lengths.sum()),
    }


class Answered(NamedTuple):
    """What a generator answered, graded.

    rows: of answers.jsonl, one per problem. levels: int [problems]. greedy: 1 or 0 for
    each greedy answer, float64 [problems]. pools: of the sampled answers, without an
    evaluator's weights.
    """

    rows: list[dict]
    levels: np.ndarray
    greedy: np.ndarray
    pools: list[Pool]


def read_answers(stage: StageResult, rules: str = "exact") -> Answered:
    """Reads what `write_answers` left in a stage, and grades every answer."""
    by = RULES[rules]
    rows = [record.row for record in read_records(stage.folder / "answers.jsonl")]
    truths = [row["answer"] for row in rows]
    pools = [
        make_pool(row["pool"], row["answer"], classes=by.classes, equal=by.equal)
        for row in rows
    ]
    greedy = graded([row["greedy"] for row in rows], truths, by.equal)
    return Answered(rows, np.array([row["level"] for row in rows]), greedy, pools)


def unfinished(rollout) -> int:
    return int(np.sum(~np.isin(rollout.reasons, (EOS, STOP))))
