"""What a plan goes by beside the config of its run: flags, checkpoints, data.

Only configs of checkpoints are read, and the first row of data.
"""

import dataclasses

from data.records import stream
from train import plan_models
from train.advantages import ESTIMATORS
from train.errors import ConfigError
from train.plan_pieces import Given
from train.plan_runs import on_tpu
from train.ppo_run import RunConfig, check_adapted, is_adapter
from train.reward import RewardConfig, holds_pairs

ABSENT = "(not needed to plan)"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is planned for, beside the config of the run: the flags.

    model, reward_model: names in `plan_models.MODELS`, or config.json files; None: of
    the config's checkpoints. examples: rows of the data (PPO needs none). context: the
    most tokens of a sequence, in the place of the model's own.
    """

    model: str | None = None
    reward_model: str | None = None
    examples: int | None = None
    pairs: bool = False
    prompt_length: int = 256
    context: int | None = None


def start(cfg) -> str | None:
    """The checkpoint from which a run starts, as its config has it."""
    return cfg.policy if isinstance(cfg, RunConfig) else cfg.checkpoint


def judged(cfg: RunConfig) -> bool:
    """Whether a run of PPO has a reward model, for its rewards or as its critic."""
    critic = ESTIMATORS[cfg.ppo.estimator].critic and cfg.lora is None
    return bool(cfg.rewards.process or cfg.rewards.model or critic)


def given(cfg, asked: Asked) -> Given:
    """The architectures as a TPU computes them, and what kind of rows there are.

    Raises ConfigError for a model that is not known or too short for its rows,
    DataError for data that are given and cannot be read.
    """
    ppo = isinstance(cfg, RunConfig)
    checkpoint = None if start(cfg) == ABSENT else start(cfg)
    key = "config.policy" if ppo else "config.checkpoint"
    model = plan_models.model_shape("--model", asked.model, checkpoint, key, cfg.dtype)
    if asked.context is not None:
        model = dataclasses.replace(model, max_position=asked.context)
    length = asked.prompt_length + cfg.ppo.max_new_tokens if ppo else cfg.length
    if length > model.context:
        key = "--prompt_length" if ppo else "config.length"
        raise ConfigError(
            f"{key}: {length} tokens are more than the {model.context} of the model; "
            "--context=N plans one of more"
        )
    judge = None
    if ppo and (asked.reward_model or cfg.reward_model or judged(cfg)):
        judge = on_tpu(_judge(cfg, asked, model), cfg)
    data = cfg.prompts if ppo else cfg.data
    if data != ABSENT:
        next(stream(data), None)  # raises DataError where it cannot be read
    pairs = asked.pairs
    if isinstance(cfg, RewardConfig) and data != ABSENT:
        pairs = holds_pairs(data)
    return Given(on_tpu(model, cfg), judge, pairs, asked.prompt_length)


def _judge(cfg: RunConfig, asked: Asked, model):
    """The architecture of PPO's reward model: by default, and as adapters, `model`."""
    folder = cfg.reward_model
    if asked.reward_model is None and (folder is None or is_adapter(folder)):
        if folder is not None:
            check_adapted(cfg, model)
        return model
    return plan_models.model_shape(
        "--reward_model", asked.reward_model, folder, "config.reward_model", cfg.dtype
    )
