"""Evaluators: what a generator says of easy problems, judged, and models of that.

An outcome model (orm) learns whether a solution's answer is right, at every token; a
process model (prm) whether each step is, where it ends; the mixed one (oprm) learns
both kinds of rows. All see easy problems only. Every part of a solution, a step or the
answer, has one score: the logit at its last token.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from data.batch import LabelledExample
from data.errors import DataError
from data.packing import fit as fit_length
from data.records import read_records, stream, write_jsonl
from data.steps import LabelledSteps, encode_steps, text_encoder
from data.tokenizers import Tokenizer, load_tokenizer
from data.worlds import arithmetic
from models import reward_model
from models.config import DecoderConfig
from models.sampler import generate
from models.sampling import EOS, Sampling
from research.easy_to_hard.rules import RULES
from research.easy_to_hard.settings import Drawn, EvaluatorTraining
from research.easy_to_hard.tasks import read_problems
from research.label_rows import balance, distinct
from research.labels import ANSWER, Candidate, from_verifier, parts
from research.stages import StageResult
from research.weights import devices, load
from train.calibration import auc
from train.commands import MeshConfig
from train.keys import purpose_key
from train.loop import LoopConfig
from train.progress import Progress
from train.reward import train_reward

FILES = {"orm": ["outcome"], "prm": ["process"], "oprm": ["process", "outcome"]}


class Solutions(NamedTuple):
    """Texts of several responses per prompt, and whether each came to its end."""

    texts: list[list[str]]
    ended: list[list[bool]]


def sample(
    cfg: DecoderConfig,
    params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    drawn: Drawn,
    key,
) -> Solutions:
    """`drawn.samples` responses to each prompt."""
    encode = text_encoder(tokenizer)
    total = len(prompts) * drawn.samples
    with Progress(total, unit="response") as bar:
        done = iter(range(1, total + 1))
        rollout = generate(
            cfg,
            params,
            [encode(prompt) for prompt in prompts],
            Sampling(
                temperature=drawn.temperature,
                top_k=drawn.top_k,
                eos_ids=tokenizer.stop_ids,
            ),
            key,
            max_new_tokens=drawn.max_new_tokens,
            samples=drawn.samples,
            slots=drawn.slots,
            on_response=lambda _: bar.update(next(done)),
        )
    texts = [tokenizer.decode(rollout.response(i)) for i in range(total)]
    ended = (rollout.reasons == EOS).tolist()
    groups = [slice(i, i + drawn.samples) for i in range(0, total, drawn.samples)]
    return Solutions([texts[g] for g in groups], [ended[g] for g in groups])


def draw(
    folder: Path,
    *,
    data: StageResult,
    generator: StageResult,
    levels: Sequence[int],
    drawn: Drawn,
    dtype: str,
    seed: int,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: a generator's solutions of training problems of some levels.

    Leaves pool.jsonl: {prompt, answer, level, texts}, a row per different problem.
    """
    cfg, params, tokenizer, _ = load(generator, dtype, mesh=devices(mesh))
    rows = read_problems(data.folder / "train.jsonl", levels)
    problems = list({row["prompt"]: row for row in rows}.values())
    prompts = [p["prompt"] for p in problems]
    key = purpose_key(jax.random.key(seed), "training pool")
    texts = sample(cfg, params, tokenizer, prompts, drawn, key).texts
    write_jsonl(folder / "pool.jsonl", [
        {"prompt": p["prompt"], "answer": p["answer"], "level": p["level"], "texts": t}
        for p, t in zip(problems, texts, strict=True)
    ])  # fmt: skip
    return {"problems": len(problems), "solutions": len(problems) * drawn.samples}


def label(folder: Path, *, pool: StageResult, world, seed: int) -> dict:
    """Stage: judged solutions, each once, from the world's own verifier.

    Leaves process.jsonl (a label per step; the answer has none) and outcome.jsonl (one
    part, one label), both {prompt, steps, labels}. Outcomes are balanced: a problem
    has between 1 : 3 and 3 : 1 right to wrong ones, or none (thesis, appendix B.1).
    """
    rows, candidates = _candidates(pool)
    known = [arithmetic.parse(row["prompt"], row["level"]) for row in rows]

    def check_steps(i, text):
        return arithmetic.check_steps(world, known[i], text)

    def is_right(i, text):
        return RULES["exact"].is_right(text, rows[i]["answer"])

    judged = from_verifier(check_steps, is_right)(candidates)
    process = [
        row._replace(labels=(*row.labels[:-1], None))
        if ANSWER in row.steps[-1]
        else row
        for row in judged
    ]
    process = [row for row in process if any(x is not None for x in row.labels)]
    right = [is_right(c.problem, "".join(c.steps)) for c in candidates]
    outcome = _outcomes(candidates, right, seed)
    for name, labelled in (("process", process), ("outcome", outcome)):
        if not labelled:
            raise _nothing_left(pool, name, right)
        write_jsonl(
            folder / f"{name}.jsonl", [row._asdict() for row in distinct(labelled)]
        )
    steps = [x for row in process for x in row.labels if x is not None]
    return {
        "solutions": len(candidates),
        "right_solutions": float(np.mean(right)),
        "right_steps": float(np.mean(steps)),
        "process": len(process),
        "outcome": len(outcome),
    }


def label_published(
    folder: Path,
    *,
    data: StageResult,
    pool: StageResult,
    rules: str,
    seed: int,
) -> dict:
    """Stage: what people or rollouts said of steps, and outcomes of a pool.

    Leaves process.jsonl, the data stage's steps.jsonl, and outcome.jsonl as `label`.
    """
    rows, candidates = _candidates(pool)
    by = RULES[rules]
    right = [
        by.is_right("".join(c.steps), rows[c.problem]["answer"]) for c in candidates
    ]
    outcome = _outcomes(candidates, right, seed)
    if not outcome:
        raise _nothing_left(pool, "outcome", right)
    write_jsonl(folder / "outcome.jsonl", [row._asdict() for row in outcome])
    shutil.copyfile(data.folder / "steps.jsonl", folder / "process.jsonl")
    return {
        "solutions": len(candidates),
        "right_solutions": float(np.mean(right)),
        "process": sum(1 for _ in stream(folder / "process.jsonl")),
        "outcome": len(outcome),
    }


def _candidates(pool: StageResult) -> tuple[list[dict], list[Candidate]]:
    """The rows of a pool, and its different solutions that are not blank."""
    rows = [record.row for record in read_records(pool.folder / "pool.jsonl")]
    return rows, [
        Candidate(i, row["prompt"], parts(text, answer="own"))
        for i, row in enumerate(rows)
        for text in dict.fromkeys(row["texts"])
        if text.strip()
    ]


def _outcomes(
    candidates: Sequence[Candidate], right: Sequence[bool], seed: int
) -> list[LabelledSteps]:
    """Whole solutions with one label each, balanced within their problems."""
    rng = np.random.default_rng([seed, 30])
    kept = balance([c.problem for c in candidates], right, rng)
    return [
        LabelledSteps(
            candidates[i].prompt, ("".join(candidates[i].steps),), (float(right[i]),)
        )
        for i in kept
    ]


def _nothing_left(pool: StageResult, name: str, right: Sequence[bool]) -> DataError:
    return DataError(
        f"{pool.folder / 'pool.jsonl'}: no {name} label is left of {len(right)} "
        f"different solutions, {sum(right)} of them right; expected problems with "
        "right and wrong ones (draw more, or train the generator longer)"
    )


def train_evaluator(
    folder: Path,
    *,
    labels: StageResult,
    start: StageResult | str,
    kind: str,
    training: EvaluatorTraining,
    dtype: str,
    seed: int,
    epochs: float | None = None,
    remat: str = "none",
    accum: int = 1,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: an evaluator from a model's weights; leaves `hf`.

    Args:
      start: a stage that left `hf`, or the path of a Hugging Face folder.
      epochs: passes over the rows, instead of `training.steps` updates.
      accum: micro-batches per update.

    A share of the easy problems is held out for early stopping and for the metrics.
    Raises DataError where they, or the others, have no row that this kind learns from.
    """
    mesh = devices(mesh)
    loaded = load(start, dtype, remat, mesh)
    tokenizer = loaded.tokenizer
    encode = text_encoder(tokenizer)
    found = {
        name: [
            LabelledSteps(r["prompt"], tuple(r["steps"]), tuple(r["labels"]))
            for r in (x.row for x in read_records(labels.folder / f"{name}.jsonl"))
        ]
        for name in ("process", "outcome")
    }
    # The same problems are held out from every kind.
    prompts = sorted({row.prompt for rows in found.values() for row in rows})
    rng = np.random.default_rng([seed, 31])
    count = max(1, round(training.held_out * len(prompts)))
    held = set(rng.permutation(prompts)[:count].tolist())
    rows = [(name, row) for name in FILES[kind] for row in found[name]]

    def encoded(wanted: Callable[[str], bool], ends: bool) -> list[LabelledExample]:
        # An outcome is learned at every token, like a value; scores are read at ends.
        where = {"process": training.where, "outcome": "all"}
        chosen = [
            encode_steps(encode, row, "end" if ends else where[name])
            for name, row in rows
            if wanted(row.prompt)
        ]
        if not ends:
            chosen = even([name for name, row in rows if wanted(row.prompt)], chosen)
        return list(fit_length(chosen, training.length, "drop").examples)

    learned = encoded(lambda p: p not in held, False)
    judged = encoded(lambda p: p in held, True)
    for part, name in ((learned, "training"), (judged, "held-out")):
        if not part:
            raise DataError(
                f"{labels.folder}: of {len(prompts)} labelled problems {len(held)} are "
                f"held out, and the {name} ones have no {' or '.join(FILES[kind])} row "
                f"of at most {training.length} tokens for the {kind}; expected one at "
                "least (another held_out, or more solutions)"
            )
    fitted = train_reward(
        loaded.cfg,
        reward_model.init(loaded.cfg, loaded.params),
        learned,
        judged,
        length=training.length,
        pad_id=tokenizer.pad_id,
        batch_size=training.batch_size,
        steps=None if epochs else training.steps,
        epochs=epochs or 1.0,
        seed=seed,
        optimizer=training.optimizer,
        accum=accum,
        loop=LoopConfig(
            log_every=20,
            eval_every=training.eval_every,
            checkpoint_every=training.eval_every,
            keep_best=True,
            use_best=True,
        ),
        workdir=folder,
        mesh=mesh,
        consume=True,
    )
    reward_model.save_reward_model(
        folder / "hf",
        loaded.cfg,
        fitted.state.params,
        loaded.hf_config,
        tokenizer_files=tokenizer.files.contents,
        pad_id=tokenizer.pad_id,
    )
    step = int(fitted.state.step)
    best = {}
    for row in fitted.rows:
        if row["step"] == step:
            best |= {k: v for k, v in row.items() if k.startswith("eval/")}
    for name in FILES[kind]:
        best[f"eval/{name}_auc"] = _auc(
            loaded.cfg, fitted.state.params, encode, found[name], held
        )
    return {"rows": len(rows), "step": step, **best}


def even(
    sorts: Sequence[str], examples: Sequence[LabelledExample]
) -> list[LabelledExample]:
    """Examples of several sorts, weighted so that each sort weighs the same in all.

    An outcome is learned at some eighty tokens of a row and its steps at five: left as
    they are, a mixed model hears next to nothing of steps (of those in the miniature,
    AUC 0.63 instead of 0.93). The thesis does not say how it mixes.
    """
    totals = dict.fromkeys(sorts, 0.0)
    for name, example in zip(sorts, examples, strict=True):
        totals[name] += float(example.weights.sum())
    least = min((t for t in totals.values() if t), default=0.0)
    return [
        e._replace(weights=e.weights * np.float32(least / totals[name]))
        if totals[name]
        else e
        for name, e in zip(sorts, examples, strict=True)
    ]


def _auc(cfg, params, encode, rows, held) -> float | None:
    """Of labels of one sort on held-out problems, where they end; None: one class."""
    examples = [encode_steps(encode, row, "end") for row in rows if row.prompt in held]
    places = [np.flatnonzero(e.weights) for e in examples]
    scores = reward_model.score_places(
        cfg, params, [e.tokens for e in examples], places
    )
    truth = [e.labels[at] for e, at in zip(examples, places, strict=True)]
    value = auc(np.concatenate(scores), np.concatenate(truth)) if examples else np.nan
    return None if np.isnan(value) else float(value)


def score(
    folder: Path,
    *,
    answers: StageResult,
    evaluator: StageResult,
    dtype: str,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: an evaluator's logits of every part of every sampled solution.

    Leaves scores.jsonl, a row per problem: {steps: [[logit of each step]], answer:
    [logit of the answer, or null]}, one entry per solution.
    """
    path = evaluator.folder / "hf"
    tokenizer = load_tokenizer(path)
    judge = reward_model.load_reward_model(path, dtype, devices(mesh))
    rows = [record.row for record in read_records(answers.folder / "answers.jsonl")]
    solutions = [(row["prompt"], text) for row in rows for text in row["texts"]]
    found = score_solutions(judge.cfg, judge.params, tokenizer, solutions)
    out, at = [], iter(found)
    for row in rows:
        several = [next(at) for _ in row["texts"]]
        out.append(
            {"steps": [s for s, _ in several], "answer": [a for _, a in several]}
        )
    write_jsonl(folder / "scores.jsonl", out)
    return {"solutions": len(solutions)}


def score_solutions(
    cfg: DecoderConfig, params, tokenizer, solutions: Sequence[tuple[str, str]]
) -> list[tuple[list[float], float | None]]:
    """(logits of steps, logit of the answer or None) of (prompt, response) pairs."""
    encode = text_encoder(tokenizer)
    cut = partial(parts, answer="own")
    different = list(dict.fromkeys(solutions))
    sequences, places = [], []
    for prompt, text in different:
        ids, ends = list(encode(prompt)), []
        for part in cut(text):
            ids += encode(part, previous=ids[-1])
            ends.append(len(ids) - 1)
        sequences.append(ids)
        places.append(ends)
    logits = reward_model.score_places(cfg, params, sequences, places, batch=256)
    scores = {}
    for solution, values in zip(different, logits, strict=True):
        values = [float(x) for x in values]
        answered = ANSWER in solution[1]
        scores[solution] = (
            (values[:-1], values[-1]) if answered and values else (values, None)
        )
    return [scores[solution] for solution in solutions]


def logits_for(kind: str, row: dict, joined: bool = False) -> list[list[float]]:
    """What a kind of evaluator is asked about the solutions of a row of scores.jsonl.

    An outcome model: the answer. A process model: the steps. The mixed one: both. A
    solution without an answer has no score of it. joined: the answer stands for the
    last step, of which it is a part, to a process model and to the mixed one.
    """
    answers = [[] if a is None else [a] for a in row["answer"]]
    if kind == "orm":
        return answers
    if joined:
        pairs = zip(row["steps"], answers, strict=True)
        return [s[:-1] + a if a else s for s, a in pairs]
    if kind == "prm":
        return row["steps"]
    return [s + a for s, a in zip(row["steps"], answers, strict=True)]
