"""Reward models: a checkpoint, a file of judgements, a model that scores every token.

    python -m train.reward --config=configs/reward.py --config.checkpoint=DIR \
        --config.data=FILE --workdir=W

Rows are solutions labelled by step {"prompt", "steps", "labels"} (a process model) or
by outcome {"prompt", "completion", "label"} (an outcome model; both kinds in one file
make the mixed one), or preferences {"prompt", "chosen", "rejected"} (Bradley-Terry).
The best model by the held-out rows is in `W/hf`, a folder that `transformers` loads as
a sequence classifier; the same command continues an interrupted run.
"""

from train.host import tune_host

if __name__ == "__main__":
    tune_host()  # starts the process anew, so before anything slow is imported

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from data.batch import Example, PairBatch, PairExample
from data.batches import Batches, batches, eval_batches
from data.pairs import load_pairs
from data.records import stream
from data.steps import load_steps, text_encoder
from data.tokenizers import Tokenizer, load_tokenizer
from models import reward_model
from models.config import DecoderConfig
from models.pretrained import check_replaceable, from_pretrained, read_config
from train.cli import run_main
from train.decoder import check_rows, flops_per_token
from train.errors import ConfigError
from train.files import write_json
from train.locks import locked
from train.loop import Fitted, LoopConfig, fit
from train.mesh import make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.reward_terms import label_loss, label_metrics, pair_metrics, pairwise_loss
from train.settings import at_least, build, fraction, positive
from train.sft import (
    MeshConfig,
    SFTResult,
    check_free,
    check_ids,
    run_steps,
    split_examples,
)
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
    """
    first = data[0]
    pairs = isinstance(first, PairBatch)
    rows, length = (first.chosen if pairs else first).tokens.shape
    check_rows("batch_size", rows * jax.process_count(), accum, mesh)
    chosen = make_optimizer(optimizer, steps, params)
    # No output matrix is used, neither its own nor the embedding.
    untied = dataclasses.replace(cfg, tie_embeddings=False)
    flops = flops_per_token(untied, params, length)
    state, place = init_state(params, chosen, copy=not consume), placer(mesh)

    def loss_fn(params, batch):
        return (pairwise_loss if pairs else label_loss)(cfg, params, batch)

    evaluate = None
    if held_out is not None:
        make = pair_metrics if pairs else label_metrics
        evaluate = make(cfg, held_out, place, mesh)
    return fit(
        state,
        make_train_step(loss_fn, chosen, accum=accum, state=state),
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
    the whole text of the prompt. A run lasts `steps`, or else `epochs`.
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
    export_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    mesh: MeshConfig = MeshConfig()


class Prepared(NamedTuple):
    """All that a run needs except the weights."""

    model: DecoderConfig
    tokenizer: Tokenizer
    batches: Batches
    held_out: Batches | None
    steps: int
    notes: tuple[str, ...]  # what the data loader did, in words


def prepare(cfg: RewardConfig, workdir: Path | None = None) -> Prepared:
    """Reads and checks the model's config, the tokenizer and the data.

    Rows that were skipped are listed in `workdir/skipped.jsonl`. Raises DataError,
    CheckpointError and ConfigError, each naming what is wrong and where.
    """
    model = dataclasses.replace(read_config(cfg.checkpoint, cfg.dtype), remat=cfg.remat)
    if cfg.length > model.context:
        raise ConfigError(
            f"config.length: {cfg.length} is more than the {model.context} "
            "positions of the checkpoint"
        )
    tokenizer = load_tokenizer(cfg.checkpoint)
    pairs = holds_pairs(cfg.data)
    read, notes = (_read_pairs if pairs else _read_steps), []

    def load(path, skipped):
        skipped = None if workdir is None else workdir / skipped
        keys, train, held, note = read(cfg, path, tokenizer, skipped)
        notes.append(f"{path}: {note}")
        return keys, train, held

    keys, examples, ends = load(cfg.data, "skipped.jsonl")
    held = []
    if cfg.eval_data is not None:
        held = load(cfg.eval_data, "skipped_eval.jsonl")[2]
    elif cfg.eval_fraction:
        # By prompt: answers to one question must not be on both sides.
        prompts = list(dict.fromkeys(keys))
        kept = set(split_examples(prompts, cfg.eval_fraction, cfg.seed)[0])
        held = [e for key, e in zip(keys, ends, strict=True) if key not in kept]
        examples = [e for key, e in zip(keys, examples, strict=True) if key in kept]
    held = [example for example in held if example is not None]
    sides = [s for e in [*examples, *held] for s in ((e[0], e[1]) if pairs else (e,))]
    check_ids(sides, tokenizer, model)
    layout = {
        "batch_size": cfg.batch_size,
        "length": cfg.length,
        "pad_id": tokenizer.pad_id,
        "packing": cfg.packing and not pairs,
    }
    train = batches(examples, **layout, seed=cfg.seed, buckets=cfg.buckets)
    held_out = eval_batches(held, **layout) if held else None
    if cfg.loop.watches and held_out is None:
        raise ConfigError(
            f"config.loop.{cfg.loop.watches}: needs held-out data to evaluate on"
        )
    steps = run_steps(cfg, train)
    shapes = reward_model.param_shapes(model)
    make_optimizer(cfg.optimizer, steps, shapes)  # checks its settings
    return Prepared(model, tokenizer, train, held_out, steps, tuple(notes))


def holds_pairs(path) -> bool:
    """Whether the first row of a file is a preference; what else it is, others say."""
    rows = (row for _, _, row in stream(path) if isinstance(row, dict))
    return bool({"chosen", "output_1"} & set(next(rows, ())))


def _read_steps(cfg: RewardConfig, path, tokenizer, skipped):
    """(prompts, examples, examples to evaluate on or None, what happened)."""
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
        skipped_path=skipped,
    )
    prompts, examples, ends = zip(
        *((row.solution.prompt, row.example, row.ends) for row in loaded.rows),
        strict=True,
    )
    return prompts, examples, ends, _note(loaded, f"{len(examples)} labelled rows")


def _read_pairs(cfg: RewardConfig, path, tokenizer, skipped):
    loaded = load_pairs(
        path,
        tokenizer,
        length=cfg.length,
        template=cfg.template,
        on_bad_row=cfg.on_bad_row,
        on_long=cfg.on_long,
        skipped_path=skipped,
    )
    prompts = [
        tuple(side.tokens[: int(np.argmax(side.weights > 0))].tolist())
        for side in (pair.chosen for pair in loaded.pairs)
    ]
    count = f"{len(loaded.pairs)} pairs, template {loaded.template.name}"
    return prompts, loaded.pairs, loaded.pairs, _note(loaded, count)


def _note(loaded, count: str) -> str:
    return (
        f"{count}; {loaded.skipped} bad rows skipped, {loaded.truncated} cut, "
        f"{loaded.dropped} dropped"
    )


def reward(cfg: RewardConfig, workdir: Path | str) -> SFTResult:
    """Trains and exports to `workdir/hf`, continuing what `workdir` holds.

    Raises the errors of `prepare`, of `from_pretrained` and of `train.loop.fit`, and
    ConfigError where another process works in `workdir`, or it holds other files.
    """
    workdir = Path(workdir)
    if workdir.resolve() == Path(cfg.checkpoint).resolve():
        raise ConfigError(
            f"--workdir: {workdir} is the checkpoint itself; expected another folder"
        )
    check_replaceable(workdir / "hf")
    check_free(workdir)
    mesh = make_mesh(**dataclasses.asdict(cfg.mesh))
    mesh = None if mesh.size == 1 else mesh
    check_rows("config.batch_size", cfg.batch_size, cfg.accum, mesh)
    ready = prepare(cfg, workdir)
    if jax.process_index() != 0:
        return _run(cfg, ready, mesh, workdir)
    with locked(workdir / ".lock", ConfigError):
        return _run(cfg, ready, mesh, workdir)


def _run(cfg: RewardConfig, ready: Prepared, mesh, workdir: Path) -> SFTResult:
    share = jax.process_index(), jax.process_count()
    if share[0] == 0:
        if not (workdir / "checkpoints").exists():
            write_json(workdir / "config.json", dataclasses.asdict(cfg))
        print(*ready.notes, f"{ready.steps} steps", sep="\n", flush=True)
    held_out = ready.held_out and ready.held_out.for_process(*share)
    settings = dataclasses.asdict(cfg)
    for free in ("loop", "mesh", "export_dtype"):  # no part of what a run computes
        del settings[free]
    fingerprint = ready.held_out and ready.held_out.fingerprint
    params, hf_config = start(cfg.checkpoint, cfg.dtype, mesh)
    state, rows = fit_reward(
        ready.model,
        params,
        ready.batches.for_process(*share),
        ready.steps,
        optimizer=cfg.optimizer,
        loop=cfg.loop,
        accum=cfg.accum,
        held_out=held_out,
        workdir=workdir,
        identity={"config": settings, "eval_data": fingerprint},
        mesh=mesh,
        consume=True,
    )
    reward_model.save_reward_model(
        workdir / "hf",
        ready.model,
        state.params,
        hf_config,
        dtype=cfg.export_dtype,
        tokenizer_files=ready.tokenizer.files.contents,
        pad_id=ready.tokenizer.pad_id,
    )
    best = [row for row in rows if row["step"] == int(state.step)]
    metrics = {}
    for row in best:
        metrics |= {k: v for k, v in row.items() if k.startswith(("train/", "eval/"))}
    return SFTResult(workdir / "hf", int(state.step), rows, metrics)


def start(checkpoint, dtype=None, mesh=None):
    """(reward model parameters, config.json) of a folder: its own head, or a zero one.

    A folder that holds a sequence classifier goes on from its head.
    """
    if reward_model.is_reward_model(checkpoint):
        loaded = reward_model.load_reward_model(checkpoint, dtype, mesh)
        return loaded.params, loaded.hf_config
    loaded = from_pretrained(checkpoint, dtype, mesh)
    return reward_model.init(loaded.cfg, loaded.params), loaded.hf_config


def define_flags(values: flags.FlagValues) -> None:
    """No flags of its own."""


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    cfg = build(RewardConfig, config)
    if not values.workdir:
        raise ConfigError("--workdir: missing; expected the folder of this run")
    result = reward(cfg, values.workdir)
    shown = {k: v for k, v in result.metrics.items() if v is not None}
    print(f"step {result.steps}:", ", ".join(f"{k} {v:.4g}" for k, v in shown.items()))
    print(f"model: {result.folder}")


if __name__ == "__main__":
    run_main(main, define_flags)
