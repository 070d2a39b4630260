"""Supervised fine-tuning: a checkpoint, a file of conversations, a better checkpoint.

    python -m train.sft --config=configs/sft.py --config.checkpoint=DIR \
        --config.data=FILE --workdir=W
        --show_batch      print the first batch, token by token with weights, and stop

Every file and setting is read and checked before anything is computed. The fine-tuned
model is in `W/hf`, a folder that `transformers` loads; the same command continues an
interrupted run.
"""

from train.host import tune_host

if __name__ == "__main__":
    tune_host()  # starts the process anew, so before anything slow is imported

import dataclasses
import json
import math
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from data.batches import Batches, batches, eval_batches
from data.chat import show_batch
from data.examples import load_examples
from data.tokenizers import Tokenizer, load_tokenizer
from models.config import DecoderConfig
from models.decoder import param_shapes
from models.pretrained import (
    check_replaceable,
    from_pretrained,
    read_config,
    save_pretrained,
)
from train.cli import run_main
from train.decoder import check_rows, train_decoder
from train.errors import ConfigError
from train.files import write_json
from train.locks import locked
from train.loop import LoopConfig
from train.mesh import make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.settings import at_least, build, fraction, positive


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the axes of the device mesh; one may be -1, the rest of the devices."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    sequence: int = 1


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """The settings of a run.

    `data` is JSON lines, a JSON list or Parquet in one of the three row shapes. Held
    out is `eval_data`, or else a share `eval_fraction` of `data`. `template` and
    `row_shape` None are found out. A run lasts `steps`, or else `epochs`. `batch_size`
    counts the rows of an update, `accum` the micro-batches they are computed in.
    """

    checkpoint: str
    data: str
    eval_data: str | None = None
    eval_fraction: float = fraction(0.05)
    template: str | None = None
    row_shape: Literal["messages", "alpaca", "prompt"] | None = None
    on_bad_row: Literal["error", "skip"] = "error"
    on_long: Literal["error", "truncate", "drop"] = "error"
    length: int = at_least(2, 2048)
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


class SFTResult(NamedTuple):
    """Where the model is, how long it trained, all rows of metrics, the last ones."""

    folder: Path
    steps: int
    rows: list[dict]
    metrics: dict[str, float]


def prepare(cfg: SFTConfig, workdir: Path | None = None) -> Prepared:
    """Reads and checks the model's config, the tokenizer and the data.

    Rows that were skipped are listed in `workdir/skipped.jsonl`. Raises DataError,
    CheckpointError and ConfigError, each naming what is wrong and where.
    """
    model = read_config(cfg.checkpoint, cfg.dtype)
    model = dataclasses.replace(model, remat=cfg.remat)
    if cfg.length > model.context:
        raise ConfigError(
            f"config.length: {cfg.length} is more than the {model.context} "
            "positions of the checkpoint"
        )
    tokenizer = load_tokenizer(cfg.checkpoint)
    notes = []

    def load(path, skipped):
        loaded = load_examples(
            path,
            tokenizer,
            length=cfg.length,
            template=cfg.template,
            shape=cfg.row_shape,
            on_bad_row=cfg.on_bad_row,
            on_long=cfg.on_long,
            skipped_path=None if workdir is None else workdir / skipped,
        )
        notes.append(
            f"{path}: {len(loaded.examples)} {loaded.shape} rows, template "
            f"{loaded.template.name}; {loaded.skipped} bad rows skipped, "
            f"{loaded.truncated} cut, {loaded.dropped} dropped"
        )
        return loaded.examples

    examples, held = load(cfg.data, "skipped.jsonl"), []
    if cfg.eval_data is not None:
        held = load(cfg.eval_data, "skipped_eval.jsonl")
    elif cfg.eval_fraction:
        examples, held = split_examples(examples, cfg.eval_fraction, cfg.seed)
    check_ids([*examples, *held], tokenizer, model)
    layout = {
        "batch_size": cfg.batch_size,
        "length": cfg.length,
        "pad_id": tokenizer.pad_id,
        "packing": cfg.packing,
    }
    train = batches(examples, **layout, seed=cfg.seed, buckets=cfg.buckets)
    held_out = eval_batches(held, **layout) if held else None
    if (watches := cfg.loop.watches) and held_out is None:
        raise ConfigError(f"config.loop.{watches}: needs held-out data to evaluate on")
    steps = run_steps(cfg, train)
    make_optimizer(cfg.optimizer, steps, param_shapes(model))  # checks its settings
    return Prepared(model, tokenizer, train, held_out, steps, tuple(notes))


def sft(cfg: SFTConfig, workdir: Path | str) -> SFTResult:
    """Fine-tunes and exports to `workdir/hf`, continuing what `workdir` holds.

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
    if mesh.size == 1:
        mesh = None
    check_rows("config.batch_size", cfg.batch_size, cfg.accum, mesh)
    ready = prepare(cfg, workdir)
    if jax.process_index() != 0:
        return _run(cfg, ready, mesh, workdir)
    with locked(workdir / ".lock", ConfigError):
        return _run(cfg, ready, mesh, workdir)


def _run(cfg: SFTConfig, ready: Prepared, mesh, workdir: Path) -> SFTResult:
    share = jax.process_index(), jax.process_count()
    train = ready.batches.for_process(*share)
    held_out = ready.held_out and ready.held_out.for_process(*share)
    first = jax.process_index() == 0
    if first:
        # A folder that holds another run keeps its config: `fit` will refuse it.
        if not (workdir / "checkpoints").exists():
            write_json(workdir / "config.json", dataclasses.asdict(cfg))
        print(*ready.notes, f"{ready.steps} steps", sep="\n", flush=True)

    loaded = from_pretrained(cfg.checkpoint, cfg.dtype, mesh)
    params, loaded = loaded.params, loaded._replace(params=None)
    state, rows = train_decoder(
        ready.model,
        params,
        train,
        ready.steps,
        optimizer=cfg.optimizer,
        loop=cfg.loop,
        accum=cfg.accum,
        eval_batches=held_out,
        workdir=workdir,
        identity=_identity(cfg, ready),
        mesh=mesh,
        consume=True,
    )
    save_pretrained(
        workdir / "hf",
        ready.model,
        state.params,
        loaded.hf_config,
        cfg.export_dtype,
        tokenizer_files=ready.tokenizer.files.contents,
        generation_config=loaded.generation_config,
    )
    metrics = {}
    for row in rows:
        metrics |= {k: v for k, v in row.items() if k.startswith(("train/", "eval/"))}
    return SFTResult(workdir / "hf", ready.steps, rows, metrics)


def split_examples(examples: list, share: float, seed: int) -> tuple[list, list]:
    """(kept, held out) in their order; which ones is a function of (number, seed)."""
    held = max(1, round(share * len(examples)))
    if held >= len(examples):
        raise ConfigError(
            f"config.eval_fraction: {share:g} of {len(examples)} examples leaves "
            "nothing to train on"
        )
    rng = np.random.default_rng([zlib.crc32(b"held out"), seed])
    chosen = np.zeros(len(examples), bool)
    chosen[rng.permutation(len(examples))[:held]] = True
    kept = [e for e, out in zip(examples, chosen, strict=True) if not out]
    return kept, [e for e, out in zip(examples, chosen, strict=True) if out]


def run_steps(cfg, train: Batches) -> int:
    """The steps of a run: `cfg.steps`, or else `cfg.epochs` of the data, rounded up."""
    key, steps = "steps", cfg.steps
    if steps is None:
        key, steps = "epochs", cfg.epochs * train.steps_per_epoch
    if not 0 < steps < 2**31:  # the state counts in int32; false for NaN
        raise ConfigError(
            f"config.{key}: expected between 1 and 2**31 - 1 steps, got {steps}"
        )
    return math.ceil(steps)


def check_free(workdir: Path) -> None:
    """Raises ConfigError over files that a run would replace but did not make."""
    if any((workdir / "checkpoints").glob("[0-9]*")):
        return  # `fit` tells whose they are
    config, metrics = workdir / "config.json", workdir / "metrics.jsonl"
    foreign = metrics if metrics.exists() else None
    if config.exists():
        foreign = None if _is_ours(config) else config
    if foreign is not None:
        raise ConfigError(
            f"--workdir: {foreign} is not of a run of this program; "
            "choose another folder"
        )


def _is_ours(config: Path) -> bool:
    try:
        settings = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    own = {"checkpoint", "data", "optimizer", "loop"}
    return isinstance(settings, dict) and own <= settings.keys()


def check_ids(examples, tokenizer: Tokenizer, model: DecoderConfig) -> None:
    """Raises ConfigError over a token of the examples that the model does not have."""
    largest = max(int(example.tokens.max()) for example in examples)
    largest = max(largest, tokenizer.pad_id)
    if largest >= model.vocab_size:
        raise ConfigError(
            f"config.checkpoint: the tokenizer makes the id {largest} "
            f"({tokenizer.token_text(largest)!r}), but the model has only "
            f"{model.vocab_size} embeddings"
        )


def _identity(cfg: SFTConfig, ready: Prepared) -> dict:
    """What two parts of one run must share; another mesh is no difference."""
    settings = dataclasses.asdict(cfg)
    for free in ("loop", "mesh", "export_dtype"):
        del settings[free]
    held_out = ready.held_out and ready.held_out.fingerprint
    return {"config": settings, "eval_data": held_out}


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool(
        "show_batch", False, "print the first batch and stop", flag_values=values
    )


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    cfg = build(SFTConfig, config)
    if values.show_batch:
        ready = prepare(cfg)
        print(*ready.notes, sep="\n")
        print(show_batch(ready.batches[0], ready.tokenizer, rows=cfg.batch_size))
        return
    if not values.workdir:
        raise ConfigError("--workdir: missing; expected the folder of this run")
    result = sft(cfg, values.workdir)
    numbers = ", ".join(
        f"{k} {v:.4g}" for k, v in result.metrics.items() if v is not None
    )
    print(f"{result.steps} steps: {numbers}")
    print(f"model: {result.folder}")


if __name__ == "__main__":
    run_main(main, define_flags)
