"""The command of PPO: checkpoints, a file of prompts and a config in, a policy out.

Prompts are JSON lines {"prompt": text, "answer": text or absent}. Every file and
setting is read and checked before anything is computed; the trained policy is in
`W/hf`, and the same command continues an interrupted run. See `train.ppo` for the
algorithm.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from absl import flags
from ml_collections import config_dict

from data.errors import DataError
from data.records import Record, read_rows
from data.steps import step_places, text_encoder
from data.tokenizers import Tokenizer, load_tokenizer
from models import reward_model, sampler
from models.config import DecoderConfig
from models.pretrained import from_pretrained, read_config
from models.rollout import Rollout
from models.sampling import Sampling
from train import rewards
from train.advantages import ESTIMATORS
from train.commands import (
    MeshConfig,
    check_run,
    export,
    lasting,
    needed_workdir,
    read_model,
    running,
)
from train.distributed import refuse_several
from train.errors import ConfigError
from train.loop import LoopConfig
from train.optim import OptimizerConfig
from train.ppo import best_state, ppo
from train.ppo_config import PPOConfig
from train.settings import at_least, build, fraction, positive


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """Weights of the rewards of `train.rewards`, 0 to leave one out; their parameters.

    `answer` compares the text behind `marker` with the prompt's answer; `process` and
    `model` need a reward model; `model` is read `at` the EOS, where models of pairs
    learned it, or at the answer's last token before it, as outcome models did. Steps of
    a response end with `separator`.
    """

    answer: float = 1.0
    unavailable: float = 0.25
    marker: str = "# Answer"
    process: float = 0.0
    scheme: Literal["min", "prod"] = "min"
    upper: float = fraction(0.5)
    bonus: float = 0.25
    read: int = positive(1)
    spread: int = positive(1)
    separator: str = "\n\n"
    model: float = 0.0
    at: Literal["eos", "answer"] = "eos"
    missing_eos: float = 1.0
    length: float = 0.0


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """How rollouts are drawn; see `models.sampling.Sampling`."""

    temperature: float = positive(1.0)
    top_k: int = at_least(0, 0)
    top_p: float = fraction(1.0)
    min_p: float = fraction(0.0)
    slots: int = positive(64)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings of a run.

    The reference is the policy as it was. The critic starts as the reward model; its
    optimizer is the policy's, but for the frozen parameters.
    `validation` has prompts with answers for `eval/accuracy` and `eval/error`, greedily
    answered, so that `loop.keep_best` with `loop.best` "eval/error" selects by them;
    with `loop.eval_start` the policy as it was is among what it selects from.
    """

    policy: str
    prompts: str
    reward_model: str | None = None
    validation: str | None = None
    dtype: Literal["float32", "bf16_compute", "bfloat16"] = "float32"
    remat: Literal["none", "full", "dots"] = "none"
    export_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    rewards: RewardSettings = RewardSettings()
    sampling: SamplingSettings = SamplingSettings()
    ppo: PPOConfig = PPOConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    value_frozen: tuple[str, ...] = ()
    loop: LoopConfig = LoopConfig(best="eval/error", eval_start=True)
    mesh: MeshConfig = MeshConfig()


class Problems(NamedTuple):
    """Prompts as ids, and their answers where known."""

    prompts: list[list[int]]
    answers: list[str | None]


class Prepared(NamedTuple):
    """All that a run needs except the weights."""

    model: DecoderConfig
    tokenizer: Tokenizer
    sampling: Sampling
    problems: Problems
    validation: Problems | None


def prepare(cfg: RunConfig) -> Prepared:
    """Reads and checks configs, tokenizer and prompts.

    Raises DataError, CheckpointError, PromptError and ConfigError, each naming what is
    wrong and where.
    """
    model = read_model(cfg.policy, cfg.dtype, cfg.remat)
    contexts = [model]
    scored = [name for name in ("process", "model") if getattr(cfg.rewards, name)]
    needs = [f"config.rewards.{name}" for name in scored]
    if ESTIMATORS[cfg.ppo.estimator].critic:
        needs.append(f"config.ppo.estimator {cfg.ppo.estimator!r}")
    if cfg.reward_model is not None:
        contexts.append(read_config(cfg.reward_model, cfg.dtype))
    elif needs:
        raise ConfigError(f"config.reward_model: missing; needed for {needs[0]}")
    if cfg.loop.keep_best and cfg.validation is None:
        raise ConfigError("config.loop.keep_best: needs config.validation")
    tokenizer = load_tokenizer(cfg.policy)
    if not tokenizer.stop_ids:
        raise ConfigError(f"config.policy: {cfg.policy} has no token that ends a text")

    def load(path):
        rows = read_rows(path, partial(_problem, text_encoder(tokenizer)), "error")
        if not rows.items:
            raise DataError(f"{path}: holds no prompt")
        prompts, answers = (list(x) for x in zip(*rows.items, strict=True))
        budgets = [cfg.ppo.max_new_tokens] * len(prompts)
        for context in contexts:
            name = f"{path}: prompt {{}}".format
            sampler.check_prompts(context, prompts, (), budgets, name=name)
        return Problems(prompts, answers)

    rules = dataclasses.asdict(cfg.sampling)
    del rules["slots"]
    return Prepared(
        model,
        tokenizer,
        Sampling(**rules, eos_ids=tokenizer.stop_ids),
        load(cfg.prompts),
        None if cfg.validation is None else load(cfg.validation),
    )


def _problem(encode, record: Record) -> tuple[list[int], str | None]:
    prompt, answer = record.row.get("prompt"), record.row.get("answer")
    if not isinstance(prompt, str) or not prompt:
        raise DataError(f"{record.where}: prompt: expected text, got {prompt!r}")
    if answer is not None and not isinstance(answer, str):
        raise DataError(f"{record.where}: answer: expected text, got {answer!r}")
    return encode(prompt), answer


def answer_of(tokenizer: Tokenizer, ids: list[int], marker: str) -> str | None:
    """The text behind the first marker, white space normalised; None without one."""
    stops = set(tokenizer.stop_ids)
    text = tokenizer.decode([i for i in ids if i not in stops])
    _, found, answer = text.partition(marker)
    return " ".join(answer.split()) if found else None


def make_correct(
    tokenizer: Tokenizer, problems: Problems, marker: str
) -> Callable[[list[int], int], bool | None]:
    """(response ids, prompt id) -> whether the answer is the known one, as text."""

    def correct(ids, prompt_id):
        truth = problems.answers[prompt_id]
        if truth is None:
            return None
        return answer_of(tokenizer, ids, marker) == " ".join(truth.split())

    return correct


def make_rewards(cfg: RewardSettings, ready: Prepared, score):
    """The reward function of the settings; `score` may be None where none is used."""
    tokenizer = ready.tokenizer
    places = partial(step_places, tokenizer, separator=cfg.separator, until=cfg.marker)
    known = make_correct(tokenizer, ready.problems, cfg.marker)
    made = {
        "answer": lambda: rewards.final_answer(known, unavailable=cfg.unavailable),
        "process": lambda: rewards.process(
            score,
            places,
            scheme=cfg.scheme,
            upper=cfg.upper,
            bonus=cfg.bonus,
            read=cfg.read,
            spread=cfg.spread,
        ),
        "model": lambda: rewards.model_score(score, at=cfg.at),
        "missing_eos": rewards.missing_eos,
        "length": rewards.length,
    }
    terms = [
        rewards.Term(make(), weight)
        for name, make in made.items()
        if (weight := getattr(cfg, name))
    ]
    if not terms:
        raise ConfigError("config.rewards: expected at least one weight other than 0")
    return rewards.combine(terms)


def make_evaluate(cfg: RunConfig, ready: Prepared):
    """`params -> {"eval/accuracy", "eval/error"}` of greedy answers; None without."""
    problems = ready.validation
    if problems is None:
        return None
    if None in problems.answers:
        number = problems.answers.index(None)
        raise ConfigError(
            f"config.validation: prompt {number} of {cfg.validation} has no answer"
        )
    greedy = Sampling(temperature=0.0, eos_ids=ready.sampling.eos_ids)
    correct = make_correct(ready.tokenizer, problems, cfg.rewards.marker)

    def evaluate(params) -> dict[str, float]:
        rollout = sampler.generate(
            ready.model,
            params,
            problems.prompts,
            greedy,
            None,
            max_new_tokens=cfg.ppo.max_new_tokens,
            slots=cfg.sampling.slots,
        )
        right = _share(rollout, correct)
        return {"eval/accuracy": right, "eval/error": 1.0 - right}

    return evaluate


def _share(rollout: Rollout, correct) -> float:
    rows = range(len(rollout.lengths))
    return float(np.mean([correct(rollout.response(i), i) for i in rows]))


def run(cfg: RunConfig, workdir: Path | str) -> tuple[Path, list[dict]]:
    """Trains and exports to `workdir/hf`: (that folder, all rows of metrics).

    Raises the errors of `prepare` and of `train.ppo.ppo`.
    """
    refuse_several("PPO")
    workdir = Path(workdir)
    mesh = check_run(
        cfg, workdir, start="policy", rows="ppo.minibatch", accum="ppo.accum"
    )
    ready = prepare(cfg)
    evaluate = make_evaluate(cfg, ready)
    value = score = None
    if cfg.reward_model is not None:
        judge = reward_model.load_reward_model(cfg.reward_model, cfg.dtype, mesh)
        score = partial(reward_model.score_places, judge.cfg, judge.params)
        value = dataclasses.replace(judge.cfg, remat=cfg.remat), judge.params
    reward_fn = make_rewards(cfg.rewards, ready, score)
    with running(cfg, workdir):
        loaded = from_pretrained(cfg.policy, cfg.dtype, mesh)
        state, rows = ppo(
            ready.model,
            loaded.params,
            ready.problems.prompts,
            reward_fn,
            cfg.ppo,
            ready.sampling,
            value=value,
            optimizer=cfg.optimizer,
            value_optimizer=dataclasses.replace(cfg.optimizer, frozen=cfg.value_frozen),
            loop=cfg.loop,
            workdir=workdir,
            identity={"config": lasting(cfg), "answers": _digest(ready.problems)},
            evaluate=evaluate,
            mesh=mesh,
            slots=cfg.sampling.slots,
        )
        if cfg.loop.keep_best:
            state, step = best_state(workdir, state, cfg.loop)
            print(f"best: iteration {step} by {cfg.loop.best}")
        folder = export(cfg, workdir, ready, state.params, loaded)
    return folder, rows


def _digest(problems: Problems) -> str:
    return hashlib.sha256(repr(problems.answers).encode()).hexdigest()[:16]


def define_flags(values: flags.FlagValues) -> None:
    """No flags of its own."""


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    cfg = build(RunConfig, config)
    folder, rows = run(cfg, needed_workdir(values))
    last = {k: v for row in rows for k, v in row.items() if k != "time"}
    shown = ("train/reward", "train/kl/response", "eval/accuracy")
    print(", ".join(f"{k} {last[k]:.4g}" for k in shown if last.get(k) is not None))
    print(f"policy: {folder}")
