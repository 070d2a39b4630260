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

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from data.errors import DataError
from data.records import Record, read_rows
from data.steps import step_places, text_encoder
from data.tokenizers import Tokenizer, load_tokenizer
from models import peft_files, reward_model, sampler
from models.config import Attention, DecoderConfig
from models.paths import as_path
from models.peft_files import Loaded
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
from train.distributed import by_first
from train.errors import ConfigError
from train.loop import LoopConfig
from train.lora import LoRASettings, check_lora
from train.named import named_function
from train.optim import OptimizerConfig
from train.ppo import best_state, ppo
from train.ppo_config import PPOConfig
from train.ppo_roles import Start, adapted_start, whole_start
from train.settings import at_least, build, fraction, positive

REWARDS = ("answer", "process", "model", "missing_eos", "length")


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """Weights of the rewards of `train.rewards`, 0 to leave one out; their parameters.

    `answer` compares the text behind `marker` with the prompt's answer: as words, or by
    the function `equal`, "package.module:function", of (answer, truth), which also
    counts for `eval/accuracy`. A response without an answer gets 0; one to a prompt
    without a known one `unavailable`. `process` and `model` need a reward model;
    `model` is read `at` the EOS, where models of pairs learned it, or at the answer's
    last token before it, as outcome models did. Steps of a response end with
    `separator`.
    """

    answer: float = 1.0
    unavailable: float = 0.25
    marker: str = "# Answer"
    equal: str | None = None
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

    def __post_init__(self):
        if not any(getattr(self, name) for name in REWARDS):
            raise ValueError("expected at least one weight other than 0")


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
    optimizer is the policy's, but for the frozen parameters. With `lora` both are
    trained as adapters over `policy`, which is kept once: `policy_adapter` is the
    adapter/ that the policy starts from and the reference keeps (of a run of SFT; its
    rank counts, not that of `lora`), and `reward_model` may be the adapter/ of a reward
    model over the same base. Beside a reward model of its own the critic starts as the
    base with a head of zeros.
    `validation` has prompts with answers for `eval/accuracy` and `eval/error`, greedily
    answered, so that `loop.keep_best` with `loop.best` "eval/error" selects by them;
    with `loop.eval_start` the policy as it was is among what it selects from.
    """

    policy: str
    prompts: str
    policy_adapter: str | None = None
    reward_model: str | None = None
    validation: str | None = None
    dtype: Literal["float32", "bf16_compute", "bfloat16"] = "float32"
    remat: Literal["none", "full", "dots"] = "none"
    attention: Attention = "auto"
    export_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    lora: LoRASettings | None = None
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
    """All that a run needs except the weights.

    equal: (answer, truth) -> whether they say the same.
    """

    model: DecoderConfig
    tokenizer: Tokenizer
    sampling: Sampling
    problems: Problems
    validation: Problems | None
    equal: Callable[[str, str], bool]


def prepare(cfg: RunConfig) -> Prepared:
    """Reads and checks configs, tokenizer and prompts.

    Raises DataError, CheckpointError, PromptError and ConfigError, each naming what is
    wrong and where.
    """
    model = read_model(cfg, cfg.policy)
    check_adapted(cfg, model)
    contexts = [model]
    scored = [name for name in ("process", "model") if getattr(cfg.rewards, name)]
    needs = [f"config.rewards.{name}" for name in scored]
    if ESTIMATORS[cfg.ppo.estimator].critic and cfg.lora is None:
        needs.append(f"config.ppo.estimator {cfg.ppo.estimator!r}")
    if cfg.reward_model is not None and not is_adapter(cfg.reward_model):
        contexts.append(read_config(cfg.reward_model, cfg.dtype))
    if cfg.reward_model is None and needs:
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

    rules, equal = dataclasses.asdict(cfg.sampling), cfg.rewards.equal
    del rules["slots"]
    return Prepared(
        model,
        tokenizer,
        Sampling(**rules, eos_ids=tokenizer.stop_ids),
        load(cfg.prompts),
        None if cfg.validation is None else load(cfg.validation),
        same_words if equal is None else named_function(equal, "config.rewards.equal"),
    )


def _problem(encode, record: Record) -> tuple[list[int], str | None]:
    prompt, answer = record.row.get("prompt"), record.row.get("answer")
    if not isinstance(prompt, str) or not prompt:
        raise DataError(f"{record.where}: prompt: expected text, got {prompt!r}")
    if answer is not None and not isinstance(answer, str):
        raise DataError(f"{record.where}: answer: expected text, got {answer!r}")
    return encode(prompt), answer


def check_adapted(cfg: RunConfig, model: DecoderConfig) -> None:
    """Raises ConfigError for adapters that cannot be, before weights are read."""
    if cfg.lora is None:
        for key in ("policy_adapter", "reward_model"):
            folder = getattr(cfg, key)
            if folder is not None and (key != "reward_model" or is_adapter(folder)):
                raise ConfigError(
                    f"config.{key}: {folder} holds adapters, which lie over a frozen "
                    "base; expected config.lora to be set, or a whole model"
                )
        return
    check_lora(model, cfg.lora, cfg.optimizer)
    if cfg.lora.dropout:
        raise ConfigError(
            "config.lora.dropout: expected 0, as PPO compares probabilities of the "
            f"same tokens, got {cfg.lora.dropout:g}"
        )
    if cfg.value_frozen:
        raise ConfigError(
            "config.value_frozen: expected none, as config.lora freezes all but the "
            f"adapters, got {cfg.value_frozen}"
        )


def is_adapter(folder: str) -> bool:
    """Whether a folder holds adapters, to be put over a base."""
    return (as_path(folder) / peft_files.CONFIG).is_file()


def answer_of(tokenizer: Tokenizer, ids: list[int], marker: str) -> str | None:
    """The text behind the first marker, white space normalised; None without one."""
    stops = set(tokenizer.stop_ids)
    text = tokenizer.decode([i for i in ids if i not in stops])
    _, found, answer = text.partition(marker)
    return " ".join(answer.split()) if found else None


def same_words(answer: str, truth: str) -> bool:
    """Whether two texts are equal but for white space."""
    return answer.split() == truth.split()


def make_correct(
    ready: Prepared, problems: Problems, marker: str
) -> Callable[[list[int], int], bool | None]:
    """(response ids, prompt id) -> whether the answer is the known one."""
    found = partial(answer_of, ready.tokenizer, marker=marker)
    return rewards.known_answer(found, problems.answers, ready.equal)


def make_rewards(cfg: RewardSettings, ready: Prepared, score):
    """The reward function of the settings; `score` may be None where none is used."""
    tokenizer = ready.tokenizer
    places = partial(step_places, tokenizer, separator=cfg.separator, until=cfg.marker)
    known = make_correct(ready, ready.problems, cfg.marker)
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
    correct = make_correct(ready, problems, cfg.rewards.marker)

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
    workdir = as_path(workdir)
    mesh = check_run(
        cfg, workdir, start="policy", rows="ppo.minibatch", accum="ppo.accum"
    )
    ready = prepare(cfg)
    ready = ready._replace(model=dataclasses.replace(ready.model, mesh=mesh))
    evaluate = make_evaluate(cfg, ready)
    adapters = read_adapters(cfg, ready.model)
    with running(cfg, workdir):
        kept = None if cfg.lora is None else cfg.lora.base
        loaded = from_pretrained(cfg.policy, cfg.dtype, mesh, quantize=kept)
        begin = make_start(cfg, ready.model, loaded.params, adapters, mesh)
        loaded, score = loaded._replace(params=None), None
        adapters.clear()  # on the devices by now
        if begin.judge is not None:
            judge = begin.judge
            score = partial(reward_model.score_places, judge.cfg, judge.params)
        state, rows = ppo(
            ready.model,
            begin.params,
            ready.problems.prompts,
            make_rewards(cfg.rewards, ready, score),
            cfg.ppo,
            ready.sampling,
            value=begin.value,
            reference=begin.reference,
            roles=begin.roles,
            optimizer=cfg.optimizer,
            value_optimizer=dataclasses.replace(cfg.optimizer, frozen=cfg.value_frozen),
            loop=cfg.loop,
            workdir=workdir,
            identity={"config": lasting(cfg), "answers": _digest(ready.problems)},
            evaluate=evaluate,
            mesh=mesh,
            consume=begin.adapters is not None,
            slots=cfg.sampling.slots,
        )
        if cfg.loop.keep_best:
            state, step = best_state(workdir, state, cfg.loop)
            by_first(lambda: print(f"best: iteration {step} by {cfg.loop.best}"))
        folder = export(
            cfg, workdir, ready, state.params, loaded, begin.adapters, start="policy"
        )
    return folder, rows


def read_adapters(cfg: RunConfig, model: DecoderConfig) -> dict[str, Loaded]:
    """The adapters that the settings name, by key: before the base, which is large.

    Raises CheckpointError for a folder that does not fit, ConfigError for adapters
    without a head in the place of a reward model.
    """
    found = {}
    for key in ("policy_adapter", "reward_model"):
        folder = getattr(cfg, key)
        if folder is not None and (key == "policy_adapter" or is_adapter(folder)):
            found[key] = peft_files.load_adapters(folder, model)
    if "reward_model" in found and found["reward_model"].head is None:
        raise ConfigError(
            f"config.reward_model: {cfg.reward_model} has no head; expected the "
            "adapters of a reward model"
        )
    return found


def make_start(
    cfg: RunConfig, model: DecoderConfig, params, adapters: dict[str, Loaded], mesh
) -> Start:
    """The roles of a run, from the policy's parameters and what `read_adapters` found.

    Reads a reward model that is a model of its own.
    """
    judge = adapters.get("reward_model")
    if judge is None and cfg.reward_model is not None:
        judge = reward_model.load_reward_model(cfg.reward_model, cfg.dtype, mesh)
    if cfg.lora is None:
        return whole_start(params, judge, cfg.remat)
    own = adapters.get("policy_adapter")
    return adapted_start(model, params, cfg.lora, judge, own, mesh)


def _digest(problems: Problems) -> str:
    return hashlib.sha256(repr(problems.answers).encode()).hexdigest()[:16]


def define_flags(values: flags.FlagValues) -> None:
    """No flags of its own."""


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    cfg = build(RunConfig, config)
    folder, rows = run(cfg, needed_workdir(values))
    if jax.process_index() != 0:
        return
    last = {k: v for row in rows for k, v in row.items() if k != "time"}
    shown = ("train/reward", "train/kl/response", "eval/accuracy")
    print(", ".join(f"{k} {last[k]:.4g}" for k in shown if last.get(k) is not None))
    print(f"policy: {folder}")
