"""Answers of one generator to all problems: one greedily, several by sampling."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.records import write_jsonl
from data.tokenizers import Tokenizer
from data.worlds.arithmetic import final_answer
from models.config import DecoderConfig
from models.sampler import generate
from models.sampling import EOS, STOP, Sampling
from research.easy_to_hard.settings import Sampled
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
) -> dict:
    """Writes {level, answer, prompt, greedy, greedy_text, pool, texts} per problem.

    Args:
      problems: {prompt, answer, level}; prompts: the ids to generate from.
      clean: applied to each response's text. eos_ids, stop: what ends a response.
      prefix: ids that precede every prompt.

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


def unfinished(rollout) -> int:
    return int(np.sum(~np.isin(rollout.reasons, (EOS, STOP))))
