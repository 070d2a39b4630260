"""Generators trained further: ReST-EM, iterative DPO, PPO.

A stage is one round (or one run) from one policy. It leaves `hf`, and test.jsonl with
its greedy answers to the held-out problems; what it returns under "development" is the
accuracy on development problems, by which `best` chooses a round. The choice looks at
easy problems only: the original looks at the answers of hard ones too.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from data.batches import batches
from data.chat import load_template
from data.formats import Completion
from data.packing import fit as fit_length
from data.pairs import token_pair
from data.records import read_records, write_jsonl
from data.steps import step_places, text_encoder
from models import reward_model
from models.pretrained import from_pretrained, save_pretrained
from models.sampling import Sampling
from research.easy_to_hard import evaluators
from research.easy_to_hard.held_out import accuracy, finish, greedy
from research.easy_to_hard.rules import RULES
from research.easy_to_hard.selection import graded
from research.easy_to_hard.settings import DPORounds, Drawn, PPORuns, ReST
from research.easy_to_hard.tasks import EASY, read_problems, read_questions
from research.labels import ANSWER
from research.stages import StageResult
from research.training import Training, train
from research.weights import Loaded, devices, load
from train import rewards
from train.commands import MeshConfig
from train.dpo import train_dpo
from train.expert_iteration import preference_rows, select
from train.keys import purpose_key
from train.loop import LoopConfig
from train.ppo import ppo
from train.ppo_config import FAITHFUL
from train.preference import PreferenceConfig
from train.rewards import sigmoid


def problems_of(data: StageResult, levels: Sequence[int] | None) -> list[dict]:
    """Different training problems of some levels (None: all)."""
    rows = read_problems(data.folder / "train.jsonl", levels)
    return list({row["prompt"]: row for row in rows}.values())


def measured(
    folder: Path,
    *,
    data: StageResult,
    policy: StageResult,
    drawn: Drawn,
    dtype: str,
    rules: str = "exact",
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: greedy answers of a policy that another stage trained."""
    loaded = load(policy, dtype, mesh=devices(mesh))
    return {"development": finish(folder, loaded, loaded.params, data, drawn, rules)}


def _solutions(folder: Path, policy: Loaded, problems, drawn: Drawn, key):
    """Solutions drawn from a policy; kept in the folder, so that a rerun has the same.

    Training that goes on must find the data that it began with, also where another
    machine would draw other samples.
    """
    path = folder / "samples.jsonl"
    if not path.exists():
        found = evaluators.sample(
            policy.cfg,
            policy.params,
            policy.tokenizer,
            [p["prompt"] for p in problems],
            drawn,
            key,
        )
        write_jsonl(path, [
            {"texts": texts, "ended": ended}
            for texts, ended in zip(*found, strict=True)
        ])  # fmt: skip
    rows = [record.row for record in read_records(path)]
    return evaluators.Solutions([r["texts"] for r in rows], [r["ended"] for r in rows])


def rest_round(
    folder: Path,
    *,
    data: StageResult,
    policy: StageResult,
    base: StageResult | str,
    levels: Sequence[int] | None,
    rest: ReST,
    training: Training,
    template: str,
    dtype: str,
    seed: int,
    number: int,
    rules: str = "exact",
    remat: str = "none",
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: one round of ReST-EM on questions and answers of some levels.

    Right solutions of the policy, each once and at most `rest.most` of a problem, are
    what the base, a stage or a Hugging Face folder, is fine-tuned on.
    """
    mesh = devices(mesh)
    start = load(policy, dtype, mesh=mesh)
    problems = problems_of(data, levels)
    key = purpose_key(jax.random.key(seed), "rest", number)
    texts = _solutions(folder, start, problems, rest.drawn, key).texts
    right = [
        [RULES[rules].is_right(t, p["answer"]) for t in several]
        for p, several in zip(problems, texts, strict=True)
    ]
    kept = select(texts, right, most=rest.most, seed=seed * 1000 + number)
    ground = load(base, dtype, remat, mesh)
    chat = load_template(template, ground.tokenizer)
    examples = [
        chat.encode(Completion(p["prompt"], several[i]))
        for p, several, chosen in zip(problems, texts, kept, strict=True)
        for i in chosen
    ]
    if not examples:
        return _unchanged(folder, start, data, rest.drawn, rules, "selected")
    fitted = fit_length(examples, training.length, "drop")
    result = train(
        folder,
        ground.cfg,
        ground.params,
        fitted.examples,
        training,
        seed,
        ground.tokenizer,
        ground.hf_config,
        mesh,
    )
    trained = from_pretrained(folder / "hf", dtype, mesh).params
    score = finish(folder, ground, trained, data, rest.drawn, rules)
    return {"selected": len(examples), "steps": result["steps"], "development": score}


def dpo_round(
    folder: Path,
    *,
    data: StageResult,
    policy: StageResult,
    evaluator: StageResult,
    rounds: DPORounds,
    dtype: str,
    seed: int,
    number: int,
    rules: str = "exact",
    remat: str = "none",
    accum: int = 1,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: one round of iterative DPO on easy questions.

    A solution's score is the lowest step of the process model, in 0 to 1, plus 1 for a
    right answer; pairs differ by more than `rounds.gap` (thesis, appendix B.3).
    """
    mesh, by = devices(mesh), RULES[rules]
    start = load(policy, dtype, remat, mesh)
    problems = problems_of(data, EASY)
    prompts = [p["prompt"] for p in problems]
    key = purpose_key(jax.random.key(seed), "dpo", number)
    texts, ended = _solutions(folder, start, problems, rounds.drawn, key)
    judge = reward_model.load_reward_model(evaluator.folder / "hf", dtype, mesh)
    flat = [(p, t) for p, several in zip(prompts, texts, strict=True) for t in several]
    found = iter(
        evaluators.score_solutions(judge.cfg, judge.params, start.tokenizer, flat)
    )
    scores = []
    for p, several in zip(problems, texts, strict=True):
        steps, answers = zip(*(next(found) for _ in several), strict=True)
        asked = evaluators.logits_for(
            "prm", {"steps": steps, "answer": answers}, by.joined
        )
        lowest = [min(logits, default=-np.inf) for logits in asked]
        right = [by.is_right(t, p["answer"]) for t in several]
        scores.append(
            [float(sigmoid(x)) + r for x, r in zip(lowest, right, strict=True)]
        )
    rows = preference_rows(
        prompts, texts, scores, gap=rounds.gap, most=rounds.most,
        seed=seed * 1000 + number,
    )  # fmt: skip
    if not rows:
        return _unchanged(folder, start, data, rounds.drawn, rules, "pairs")
    encode, stop = text_encoder(start.tokenizer), list(start.tokenizer.stop_ids[:1])
    whole = {
        (p, t)
        for p, several, whole in zip(prompts, texts, ended, strict=True)
        for t, end in zip(several, whole, strict=True)
        if end
    }

    def pair(row):
        prompt = encode(row["prompt"])
        sides = []
        for side in (row["chosen"], row["rejected"]):
            ids = encode(side, previous=prompt[-1])
            # A response that was cut at its budget did not choose to stop.
            sides.append(ids + (stop if (row["prompt"], side) in whole else []))
        return token_pair(prompt, *sides)

    fitting = [
        made
        for made in map(pair, rows)
        if max(len(made.chosen.tokens), len(made.rejected.tokens)) <= rounds.length
    ]
    if not fitting:
        left = _unchanged(folder, start, data, rounds.drawn, rules, "pairs")
        return left | {"dropped": len(rows)}
    pairs = batches(
        fitting,
        batch_size=rounds.batch_size,
        length=rounds.length,
        pad_id=start.tokenizer.pad_id,
        seed=seed,
    )
    steps = max(1, round(rounds.epochs * pairs.steps_per_epoch))
    fitted = train_dpo(
        start.cfg,
        start.params,
        pairs,
        steps,
        preference=PreferenceConfig(beta=rounds.beta),
        optimizer=rounds.optimizer,
        loop=LoopConfig(log_every=10),
        accum=accum,
        workdir=folder,
        mesh=mesh,
    )
    params = fitted.state.params
    export(folder, start, params)
    score = finish(folder, start, params, data, rounds.drawn, rules)
    return {
        "pairs": len(fitting),
        "dropped": len(rows) - len(fitting),
        "steps": steps,
        "development": score,
    }


def _unchanged(folder, policy: Loaded, data, drawn, rules: str, what: str) -> dict:
    """A round that found nothing to train on leaves the policy as it was."""
    export(folder, policy, policy.params)
    score = finish(folder, policy, policy.params, data, drawn, rules)
    return {what: 0, "steps": 0, "development": score}


def export(folder: Path, policy: Loaded, params) -> None:
    """Writes `folder/hf` with the policy's tokenizer and config."""
    save_pretrained(
        folder / "hf",
        policy.cfg,
        params,
        policy.hf_config,
        tokenizer_files=policy.tokenizer.files.contents,
    )


def ppo_run(
    folder: Path,
    *,
    data: StageResult,
    policy: StageResult,
    evaluator: StageResult,
    process: bool,
    questions: Sequence[int] | None,
    answers: Sequence[int] | None,
    runs: PPORuns,
    kl_coef: float | None,
    faithful: bool,
    dtype: str,
    seed: int,
    critic: StageResult | None = None,
    rules: str = "exact",
    remat: str = "none",
    value_frozen: Sequence[str] | None = None,
    mesh: MeshConfig | None = None,
) -> dict:
    """Stage: PPO on questions of some levels, with the answers of some (None: all).

    Args:
      evaluator: a process model; `process` says whether it rewards steps, or final
        answers are the only reward. critic: what the critic starts as; None: as it.
      kl_coef: None for that of `runs`. faithful: with the original code's quirks, the
        critic's head as it is.
      value_frozen: of the critic's parameters; None: as the policy's.

    Leaves curve.jsonl, a row per evaluation: {step, reward, process (what of it is the
    process model's), kl, unfinished, easy, hard}; the last two on development problems,
    where there are such. The best policy by the easy ones is kept, or by all where the
    answers of all are known.
    """
    mesh = devices(mesh)
    start = load(policy, dtype, remat, mesh)
    tokenizer, by = start.tokenizer, RULES[rules]
    problems = read_questions(data.folder, questions)
    truth = [
        p["answer"] if answers is None or p["level"] in answers else None
        for p in problems
    ]
    encode = text_encoder(tokenizer)
    drawn = runs.drawn

    def answer_of(ids):
        return by.final_answer(tokenizer.decode(ids))

    correct = rewards.known_answer(answer_of, truth, by.equal)

    def unfinished(rollout, prompt_ids):
        rows = range(len(prompt_ids))
        missing = np.array([answer_of(rollout.response(i)) is None for i in rows])
        return -(missing | ~rewards.ended(rollout)).astype(np.float32)

    judge = reward_model.load_reward_model(evaluator.folder / "hf", dtype, mesh)
    terms = [
        rewards.Term(rewards.final_answer(correct, unavailable=runs.unavailable)),
        rewards.Term(rewards.Reward("unfinished", "terminal", unfinished)),
    ]
    if process:
        score = partial(reward_model.score_places, judge.cfg, judge.params, batch=256)
        places = partial(step_places, tokenizer, until=ANSWER)
        tokens = {}
        if faithful:
            tokens = {"read": runs.faithful_read, "spread": runs.faithful_spread}
        terms.append(
            rewards.Term(
                rewards.process(
                    score, places, upper=runs.upper, bonus=runs.bonus, **tokens
                ),
                runs.process,
            )
        )
    development = read_problems(data.folder / "development.jsonl")

    def evaluate(params):
        found = accuracy(development, greedy(start, params, development, drawn), rules)
        return {f"eval/{n}": value for n, value in found.items() if value is not None}

    ppo_cfg = dataclasses.replace(
        runs.ppo, max_new_tokens=drawn.max_new_tokens, samples=drawn.samples, seed=seed
    )
    if kl_coef is not None:
        ppo_cfg = dataclasses.replace(
            ppo_cfg, kl=dataclasses.replace(ppo_cfg.kl, coef=kl_coef)
        )
    if faithful:
        ppo_cfg = dataclasses.replace(
            ppo_cfg, quirks=FAITHFUL, whiten_rewards=True, fit_critic=0
        )
    value = judge
    if critic is not None:
        value = reward_model.load_reward_model(critic.folder / "hf", dtype, mesh)
    value_optimizer = None
    if value_frozen is not None:
        value_optimizer = dataclasses.replace(
            runs.optimizer, frozen=tuple(value_frozen)
        )
    fitted = ppo(
        start.cfg,
        start.params,
        [encode(p["prompt"]) for p in problems],
        rewards.combine(terms),
        ppo_cfg,
        Sampling(
            temperature=drawn.temperature, top_k=drawn.top_k, eos_ids=tokenizer.stop_ids
        ),
        value=(dataclasses.replace(value.cfg, remat=remat), value.params),
        optimizer=runs.optimizer,
        value_optimizer=value_optimizer,
        loop=LoopConfig(
            log_every=runs.eval_every,
            eval_every=runs.eval_every,
            checkpoint_every=runs.eval_every,
            keep_best=True,
            use_best=True,
            best="eval/all" if answers is None else "eval/easy",
            best_is="highest",
        ),
        workdir=folder,
        evaluate=evaluate,
        mesh=mesh,
        slots=drawn.slots,
    )
    params = fitted.state.params
    export(folder, start, params)
    curve: dict[int, dict] = {}
    names = {"train/reward": "reward", "train/kl/response": "kl",
             "train/reward/unfinished": "unfinished",
             "train/reward/process": "process",
             "eval/easy": "easy", "eval/hard": "hard"}  # fmt: skip
    for row in fitted.rows:
        seen = {names[k]: v for k, v in row.items() if k in names}
        curve.setdefault(row["step"], {"step": row["step"]}).update(seen)
    write_jsonl(folder / "curve.jsonl", list(curve.values()))
    best = int(fitted.state.iteration)
    score = finish(folder, start, params, data, drawn, rules)
    return {"best": best, "development": score}


def best(rounds: Sequence[StageResult]) -> int:
    """Which round to take: the earliest with the highest accuracy on easy problems."""
    values = [r.value["development"]["easy"] for r in rounds]
    return int(np.argmax(values))


def right_answers(stage: StageResult, rules: str = "exact") -> np.ndarray:
    """Whether each held-out problem was answered rightly, float64 [problems]."""
    rows = [record.row for record in read_records(stage.folder / "test.jsonl")]
    given, truths = ([row[key] for row in rows] for key in ("greedy", "answer"))
    return graded(given, truths, RULES[rules].equal)
