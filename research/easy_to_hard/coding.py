"""Table 6.3 in miniature: generators of small programs, and an outcome reward model.

A base is trained on documents about single operations; one generator is fine-tuned on
programs of all levels, one on introductory problems. The outcome model learns from the
second one's samples on introductory problems, labelled by running their hidden tests,
and picks the best of n samples for held-out problems of all difficulties.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from data.chat import load_template
from data.formats import Completion
from data.packing import fit as fit_length
from data.records import read_records, write_jsonl
from data.tokenizers import load_tokenizer, save_tokenizer, word_tokenizer
from data.worlds import programs
from data.worlds.pipelines import BREAK
from data.worlds.programs import ProgramSizes, ProgramWorld
from models.pretrained import from_pretrained
from models.sampler import generate
from models.sampling import Sampling
from research.easy_to_hard import generators
from research.easy_to_hard.outcome import (
    OutcomeTraining,
    score_programs,
    train_outcome,
)
from research.easy_to_hard.settings import Sampled
from research.stages import Handle, Plan, StageResult
from research.training import ModelSize, Training, train
from train.keys import purpose_key
from train.settings import fraction, positive

TEMPLATE = "plain"
GENERATORS = {"full": programs.LEVELS, "easy": programs.EASY}


@dataclasses.dataclass(frozen=True)
class Coding:
    """The settings of the coding domain in miniature.

    `facts` are the base's documents, of up to `pieces` pieces of code; `wrong_share` of
    them say "no", and `code_first` of the pieces stand above what they are said to do;
    a share `outlines` has no code, only a question and its clauses as comments.
    `sampled` is how test problems are answered. Of each introductory training problem
    the outcome model sees at most `reward_ratio` of its `reward_samples` programs of
    one kind, right or wrong, to one of the other; `reward_temperature` is theirs.
    """

    pretrain: Training
    sft: Training
    reward: OutcomeTraining
    sampled: Sampled
    world: ProgramWorld = ProgramWorld()
    sizes: ProgramSizes = ProgramSizes()
    model: ModelSize = ModelSize()
    facts: int = positive(20000)
    wrong_share: float = fraction(0.5)
    code_first: float = fraction(0.0)
    pieces: int = positive(1)
    outlines: float = fraction(0.3)
    reward_samples: int = positive(8)
    reward_temperature: float = positive(1.0)
    reward_ratio: int = positive(3)
    reward_where: str = "end"

    def __post_init__(self):
        if not self.sizes.test or not any(self.sizes.train[:2]):
            raise ValueError("sizes: expected test problems, and easy ones to train on")
        if self.reward_where not in ("all", "end"):
            raise ValueError(
                f"reward_where: expected 'all' or 'end', got {self.reward_where!r}"
            )


def declare(plan: Plan, cfg: Coding, seeds: Sequence[int], dtype: str) -> list[Handle]:
    """Declares the stages, `coding-<what>-<seed>`; returns the results, one per seed.

    Data and base are of the first seed: seeds differ in fine-tuning and sampling.
    """
    # The world is the same however often the outcome model is looked at.
    task = dataclasses.replace(cfg, reward=cfg.reward.rest)
    data = plan.stage("coding-data", make_world, task=task, seed=seeds[0])
    base = plan.stage(
        "coding-base",
        generators.pretrain,
        data=data,
        model=cfg.model,
        training=cfg.pretrain,
        dtype=dtype,
        seed=seeds[0],
    )
    common = {"data": data, "dtype": dtype}
    pool = dataclasses.replace(
        cfg.sampled,
        votes=cfg.reward_samples,
        counts=(1,),
        temperature=cfg.reward_temperature,
    )
    results = []
    for seed in seeds:
        stages = {
            name: plan.stage(
                f"coding-sft-{name}-{seed}",
                finetune,
                base=base,
                levels=levels,
                training=cfg.sft,
                seed=seed,
                **common,
            )
            for name, levels in GENERATORS.items()
        }

        def write(what, generator, split, levels, sampled, seed=seed):
            return plan.stage(
                f"coding-{what}-{seed}",
                write_programs,
                generator=generator,
                split=split,
                levels=levels,
                sampled=sampled,
                seed=seed,
                **common,
            )

        full, easy = stages["full"], stages["easy"]
        labelled = write("labelled", easy, "train", programs.EASY, pool)
        held_out = write("heldout", easy, "development", programs.EASY, cfg.sampled)
        orm = plan.stage(
            f"coding-orm-{seed}",
            train_outcome,
            base=base,
            labelled=labelled,
            held_out=held_out,
            training=cfg.reward,
            ratio=cfg.reward_ratio,
            where=cfg.reward_where,
            dtype=dtype,
            seed=seed,
        )
        answers = {
            "full": write("answers-full", full, "test", programs.LEVELS, None),
            "easy": write("answers-easy", easy, "test", programs.LEVELS, cfg.sampled),
        }
        results.append(
            plan.stage(
                f"coding-results-{seed}",
                score_programs,
                answers=answers,
                orm=orm,
                counts=cfg.sampled.counts,
                dtype=dtype,
            )
        )
    return results


# --- stages -------------------------------------------------------------------------


def make_world(folder: Path, *, task: Coding, seed: int) -> dict:
    """Stage: problems with programs and hidden tests, documents, and the tokenizer.

    Leaves train.jsonl, development.jsonl and test.jsonl ({prompt, completion, level,
    tests}), facts.jsonl ({text}) and the tokenizer's files.
    """
    splits = programs.splits(task.world, seed, task.sizes)
    for i, (name, problems) in enumerate(splits._asdict().items()):
        rng = np.random.default_rng([seed, 10 + i])
        write_jsonl(folder / f"{name}.jsonl", [
            {
                "prompt": p.text,
                "completion": programs.solution(task.world, p, rng),
                "level": p.level,
                "tests": [[t.given, t.expected] for t in p.tests],
            }
            for p in problems
        ])  # fmt: skip
    documents = programs.facts(
        task.world,
        np.random.default_rng([seed, 20]),
        task.facts,
        task.wrong_share,
        task.code_first,
        task.pieces,
        task.outlines,
    )
    write_jsonl(folder / "facts.jsonl", [{"text": text} for text in documents])
    tokenizer = word_tokenizer(programs.vocabulary())
    save_tokenizer(tokenizer, folder / "tokenizer")
    return {
        "counts": {name: len(problems) for name, problems in splits._asdict().items()},
        "vocab_size": tokenizer.vocab_size,
    }


def finetune(
    folder: Path,
    *,
    data: StageResult,
    base: StageResult,
    levels: Sequence[int],
    training: Training,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: SFT of the base on the training programs of some levels."""
    path = base.folder / "hf"
    tokenizer = load_tokenizer(path)
    loaded = from_pretrained(path, dtype)
    chat = load_template(TEMPLATE, tokenizer)
    examples = [
        chat.encode(Completion(row["prompt"], row["completion"]))
        for row in _problems(data, "train", levels)
    ]
    fitted = fit_length(examples, training.length, "drop")
    result = train(
        folder,
        loaded.cfg,
        loaded.params,
        fitted.examples,
        training,
        seed,
        tokenizer,
        loaded.hf_config,
    )
    return {**result, "dropped": fitted.dropped}


def write_programs(
    folder: Path,
    *,
    data: StageResult,
    generator: StageResult,
    split: str,
    levels: Sequence[int],
    sampled: Sampled | None,
    dtype: str,
    seed: int,
) -> dict:
    """Stage: programs for the problems of a split, and the share of tests they pass.

    Leaves programs.jsonl as `outcome` describes it, without samples where `sampled` is
    None. A problem that a split repeats is one. Last lines are ended, as in the base's
    documents.
    """
    path = generator.folder / "hf"
    tokenizer = load_tokenizer(path)
    cfg, params, _, _ = from_pretrained(path, dtype)
    chat = load_template(TEMPLATE, tokenizer)
    rows = {row["prompt"]: row for row in _problems(data, split, levels)}.values()
    prompts = [chat.encode_prompt(Completion(row["prompt"], "")) for row in rows]
    key = purpose_key(jax.random.key(seed), "coding", len(split))

    def draw(temperature, top_k, samples):
        rollout = generate(
            cfg,
            params,
            prompts,
            Sampling(temperature=temperature, top_k=top_k, eos_ids=chat.stop_ids),
            key,
            max_new_tokens=sampled.max_new_tokens if sampled else 96,
            samples=samples,
            slots=sampled.slots if sampled else 256,
        )
        texts = [
            tokenizer.decode(rollout.response(i)).rstrip(BREAK) + BREAK
            for i in range(len(prompts) * samples)
        ]
        ended = int(np.sum(rollout.reasons != 1))
        return ended, [texts[i : i + samples] for i in range(0, len(texts), samples)]

    unfinished, greedy = draw(0.0, 0, 1)
    pools = [[] for _ in rows]
    if sampled is not None:
        cut, pools = draw(sampled.temperature, sampled.top_k, sampled.votes)
        unfinished += cut
    write_jsonl(folder / "programs.jsonl", [
        {
            "difficulty": programs.difficulty(row["level"]),
            "prompt": row["prompt"],
            "greedy": text,
            "greedy_passed": _share(row, text),
            "programs": pool,
            "passed": [_share(row, program) for program in pool],
        }
        for row, (text,), pool in zip(rows, greedy, pools, strict=True)
    ])  # fmt: skip
    return {"problems": len(prompts), "unfinished": unfinished}


def _problems(data: StageResult, split: str, levels: Sequence[int]) -> list[dict]:
    rows = [r.row for r in read_records(data.folder / f"{split}.jsonl")]
    return [row for row in rows if row["level"] in levels]


def _share(row: dict, program: str) -> float:
    """The share of a problem's hidden tests that a program passes."""
    tests = [
        programs.HiddenTest(tuple(given), tuple(out) if isinstance(out, list) else out)
        for given, out in row["tests"]
    ]
    return float(np.mean(programs.passed(tests, program)))
