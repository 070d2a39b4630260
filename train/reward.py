"""Reward models: a checkpoint, a file of judgements, a model that scores every token.

    python -m train.reward --config=configs/reward.py --config.checkpoint=DIR \
        --config.data=FILE --workdir=W

Rows are solutions labelled by step {"prompt", "steps", "labels"} (a process model) or
by outcome {"prompt", "completion", "label"} (an outcome model; both kinds in one file
make the mixed one), or preferences {"prompt", "chosen", "rejected"} (Bradley-Terry).
The best model by the held-out rows is in `W/hf`, a folder that `transformers` loads as
a sequence classifier; the same command continues an interrupted run. Adapters and a
head that were trained beside a frozen base (`lora`, as configs/reward.py:qlora has it)
are in `W/adapter`, too, a folder that PEFT loads.
"""

from train.host import tune_host

if __name__ == "__main__":
    tune_host()  # starts the process anew, so before anything slow is imported

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_dict

from data.batch import Example, PairBatch, PairExample
from data.batches import Batches, batches, eval_batches
from data.pairs import load_pairs, prompt_of
from data.records import stream
from data.steps import load_steps, text_encoder
from data.tokenizers import load_tokenizer
from models import reward_model
from models.config import Attention, DecoderConfig
from models.paths import as_path
from models.pretrained import from_pretrained
from train.cli import run_main
from train.commands import (
    MeshConfig,
    Prepared,
    Result,
    check_run,
    fit_options,
    last_metrics,
    lay_out,
    needed_workdir,
    read_data,
    read_model,
    running,
    say,
    split_rows,
)
from train.decoder import check_rows, flops_per_token
from train.distributed import written_by_first
from train.errors import ConfigError
from train.loop import Fitted, LoopConfig, fit
from train.lora import (
    Adapters,
    LoRASettings,
    adapt,
    check_lora,
    export_adapters,
    merged_by_layer,
)
from train.optim import OptimizerConfig, make_optimizer
from train.reward_terms import label_metrics, pair_metrics, score_loss
from train.settings import at_least, build, fraction, positive
from train.state import init_state
from train.step import make_train_step, placer


def train_reward(
    cfg: DecoderConfig,
    params,
    examples: Sequence[Example],
    held_out: Sequence[Example] = (),
    *,
    length: int,
    pad_id: int,
    batch_size: int = 32,
    epochs: float = 1.0,
    steps: int | None = None,
    packing: bool = True,
    buckets: Sequence[int] | None = None,
    seed: int = 0,
    **options,
) -> Fitted:
    """Trains on labelled examples or on pairs; see `fit_reward` for `options`.

    Args:
      params: of `models.reward_model`, as from `init`.
      examples: all of one kind: `LabelledExample`, or `PairExample` (never packed).
      held_out: evaluated on; labelled ones as `encode_steps(..., "end")` makes them, so
        that metrics are of the places where scores are read.
      length: of a row; no example is longer.
      epochs: passes over the examples, where `steps` is None.
    """
    layout = {
        "batch_size": batch_size,
        "length": length,
        "pad_id": pad_id,
        "packing": packing and not isinstance(examples[0], PairExample),
    }
    data = batches(examples, **layout, seed=seed, buckets=buckets)
    steps = steps or math.ceil(epochs * data.steps_per_epoch)
    evaluated = eval_batches(held_out, **layout) if len(held_out) else None
    return fit_reward(cfg, params, data, steps, held_out=evaluated, **options)


def fit_reward(
    cfg: DecoderConfig,
    params,
    data: Batches,
    steps: int,
    *,
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (immutable)
    loop: LoopConfig = LoopConfig(),  # noqa: B008 (immutable)
    accum: int = 1,
    held_out: Batches | None = None,
    workdir: Path | str | None = None,
    identity: Mapping = {},  # noqa: B006 (never mutated)
    mesh: jax.sharding.Mesh | None = None,
    consume: bool = False,
    adapters: Adapters | None = None,
) -> Fitted:
    """Minimises the loss that suits the batches; see `train.loop.fit`.

    Args:
      optimizer: names of parameters begin with "decoder/" or "head/"; the thesis
        freezes ("decoder/embed/*", "*norm*").
      loop: `use_best` returns the parameters of the best evaluation; `patience` stops
        early. Metrics: "eval/loss", "eval/accuracy", and of labels "eval/auc",
        "eval/brier", "eval/ece", of pairs "eval/margin".
      held_out: batches to evaluate on.
      consume: `params` may be destroyed, which spares a copy of them.
      adapters: whose `trained` are `params`, as `adapt_reward` makes them; its base
        stays as it is.
    """
    cfg = dataclasses.replace(cfg, mesh=mesh)
    first = data[0]
    pairs = isinstance(first, PairBatch)
    rows, length = (first.chosen if pairs else first).tokens.shape
    check_rows("batch_size", rows * jax.process_count(), accum, mesh)
    chosen = make_optimizer(optimizer, steps, params)
    # No output matrix is used, neither its own nor the embedding.
    untied = dataclasses.replace(cfg, tie_embeddings=False)
    shapes, constants, noise = params, (), None
    if adapters is not None:
        shapes = reward_model.param_shapes(cfg)
        constants, noise = (adapters.base,), adapters.noise
    flops = flops_per_token(untied, shapes, length, frozen=adapters is not None)
    state, place = init_state(params, chosen, copy=not consume), placer(mesh)
    evaluate = None
    if held_out is not None:
        make = pair_metrics if pairs else label_metrics
        evaluate = make(cfg, held_out, place, mesh, adapters)
    return fit(
        state,
        make_train_step(
            score_loss(cfg, pairs, adapters),
            chosen,
            accum=accum,
            state=state,
            constants=constants,
            noise=noise,
        ),
        data,
        steps,
        loop,
        workdir=workdir,
        identity=identity,
        evaluate=evaluate,
        place=place,
        flops_per_token=flops,
    )


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """The settings of a run.

    `checkpoint` is a language model, or a reward model to train on. Held out are the
    rows of `eval_data`, or else those of a share `eval_fraction` of the prompts.
    `where` is where a step's label is learned: at each of its tokens, or at its last;
    an outcome is learned at each. `template` lays out preferences; labelled rows give
    the whole text of the prompt. A run lasts `steps`, or else `epochs`. With `lora`,
    adapters and the head are trained beside the checkpoint's frozen parameters.
    """

    checkpoint: str
    data: str
    eval_data: str | None = None
    eval_fraction: float = fraction(0.05)
    where: Literal["all", "end"] = "all"
    template: str | None = None
    on_bad_row: Literal["error", "skip"] = "error"
    on_long: Literal["error", "truncate", "drop"] = "error"
    length: int = at_least(2, 1024)
    packing: bool = True
    buckets: tuple[int, ...] | None = None
    batch_size: int = positive(8)
    accum: int = positive(1)
    epochs: float = positive(1.0)
    steps: int | None = positive(None)
    seed: int = at_least(0, 0)
    dtype: Literal["float32", "bf16_compute", "bfloat16"] = "float32"
    remat: Literal["none", "full", "dots"] = "none"
    attention: Attention = "auto"
    export_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    lora: LoRASettings | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    mesh: MeshConfig = MeshConfig()


def prepare(cfg: RewardConfig) -> Prepared:
    """Reads and checks the model's config, the tokenizer and the data.

    Raises DataError, CheckpointError and ConfigError, each naming what is wrong and
    where.
    """
    model = read_model(cfg, cfg.checkpoint, cfg.length)
    if cfg.lora is not None:
        check_lora(model, cfg.lora, cfg.optimizer, _decoder_shapes)
    tokenizer = load_tokenizer(cfg.checkpoint)
    read = _read_pairs if holds_pairs(cfg.data) else _read_steps
    # By prompt: answers to one question must not be on both sides.
    split = partial(split_rows, prompt=operator.itemgetter(0))
    data = read_data(cfg, lambda path: read(cfg, path, tokenizer), split)
    data = data._replace(
        rows=[example for _, example, _ in data.rows],
        held_out=[ends for _, _, ends in data.held_out if ends is not None],
    )
    return lay_out(cfg, model, tokenizer, data, reward_model.param_shapes)


def _decoder_shapes(cfg: DecoderConfig):
    return reward_model.param_shapes(cfg)["decoder"]


def holds_pairs(path) -> bool:
    """Whether the first row of a file is a preference; what else it is, others say."""
    rows = (row for _, _, row in stream(path) if isinstance(row, dict))
    return bool({"chosen", "output_1"} & set(next(rows, ())))


def _read_steps(cfg: RewardConfig, path, tokenizer):
    """Rows (prompt, example, example to evaluate on or None); see `read_data`."""
    if cfg.template not in (None, "plain"):
        raise ConfigError(
            f"config.template: {cfg.template!r} is for preferences; labelled rows give "
            "the whole text of the prompt"
        )
    loaded = load_steps(
        path,
        text_encoder(tokenizer),
        length=cfg.length,
        where=cfg.where,
        on_bad_row=cfg.on_bad_row,
        on_long=cfg.on_long,
    )
    rows = [(row.solution.prompt, row.example, row.ends) for row in loaded.rows]
    return rows, f"{len(rows)} labelled rows", loaded


def _read_pairs(cfg: RewardConfig, path, tokenizer):
    loaded = load_pairs(
        path,
        tokenizer,
        length=cfg.length,
        template=cfg.template,
        on_bad_row=cfg.on_bad_row,
        on_long=cfg.on_long,
    )
    rows = [(prompt_of(pair), pair, pair) for pair in loaded.pairs]
    return rows, f"{len(rows)} pairs, template {loaded.template.name}", loaded


def reward(cfg: RewardConfig, workdir: Path | str) -> Result:
    """Trains and exports to `workdir/hf`, continuing what `workdir` holds.

    Raises the errors of `prepare`, of `from_pretrained` and of `train.loop.fit`, and
    ConfigError where another process works in `workdir`, or it holds other files.
    """
    workdir = as_path(workdir)
    mesh = check_run(cfg, workdir)
    ready = prepare(cfg)
    with running(cfg, workdir, ready):
        kept = None if cfg.lora is None else cfg.lora.base
        params, hf_config = start(cfg.checkpoint, cfg.dtype, mesh, kept)
        adapters = None
        if cfg.lora is not None:
            adapters = adapt_reward(ready.model, params, cfg.lora, mesh)
            params = adapters.trained
        state, rows = fit_reward(
            ready.model,
            params,
            ready.batches,
            ready.steps,
            held_out=ready.held_out,
            adapters=adapters,
            **fit_options(cfg, workdir, ready, mesh),
        )
        parts = state.params
        if adapters is not None:
            trained, head = parts["adapters"], parts["head"]
            parts = {"decoder": (adapters.base, trained), "head": head}
            export_adapters(
                workdir, ready.model, adapters, trained, cfg.checkpoint, head
            )

        def write(params) -> None:
            if adapters is not None:
                params = _merged(ready.model, adapters, params)
            reward_model.save_reward_model(
                workdir / "hf",
                ready.model,
                params,
                hf_config,
                dtype=cfg.export_dtype,
                tokenizer_files=ready.tokenizer.files.contents,
                pad_id=ready.tokenizer.pad_id,
            )

        written_by_first(parts, write)
    step = int(state.step)  # the best one
    metrics = last_metrics(row for row in rows if row["step"] == step)
    return Result(workdir / "hf", step, rows, metrics)


def _merged(cfg: DecoderConfig, adapters: Adapters, parts):
    """Parameters of a reward model, merged as they are asked for, in one dtype."""
    body = merged_by_layer(adapters, parts["decoder"], cfg.param_dtype)
    kernel = np.asarray(parts["head"]["kernel"]).astype(cfg.param_dtype)
    return {"decoder": body, "head": {"kernel": kernel}}


def start(checkpoint, dtype=None, mesh=None, quantize=None):
    """(reward model parameters, config.json) of a folder: its own head, or a zero one.

    A folder that holds a sequence classifier goes on from its head. quantize: as for
    `from_pretrained`.
    """
    scored = reward_model.is_reward_model(checkpoint)
    loaded = from_pretrained(checkpoint, dtype, mesh, scored=scored, quantize=quantize)
    body = {name: part for name, part in loaded.params.items() if name != "head"}
    params = reward_model.init(loaded.cfg, body)
    if scored:
        params["head"] = loaded.params["head"]
    return params, loaded.hf_config


def adapt_reward(
    cfg: DecoderConfig, params, settings: LoRASettings, mesh=None
) -> Adapters:
    """As `train.lora.adapt`, of a reward model: trained are the adapters and the head.

    The head is float32, as adapters are; the base is the decoder's.
    """
    given = adapt(cfg, params["decoder"], settings, mesh)
    trained = {n: x for n, x in given.trained.items() if n in params["decoder"]}
    head = jax.tree.map(lambda x: x.astype(jnp.float32), params["head"])
    return given._replace(trained={"adapters": trained, "head": head})


def define_flags(values: flags.FlagValues) -> None:
    """No flags of its own."""


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    cfg = build(RewardConfig, config)
    result = reward(cfg, needed_workdir(values))
    say(f"step {result.steps}", result)


if __name__ == "__main__":
    run_main(main, define_flags)
