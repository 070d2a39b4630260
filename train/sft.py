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
from pathlib import Path
from typing import Literal

from absl import flags
from ml_collections import config_dict

from data.chat import show_batch
from data.examples import load_examples
from data.tokenizers import load_tokenizer
from models.config import Attention
from models.paths import as_path
from models.pretrained import from_pretrained
from train.cli import run_main
from train.commands import (
    MeshConfig,
    Prepared,
    Result,
    check_run,
    export,
    fit_options,
    last_metrics,
    lay_out,
    needed_workdir,
    read_data,
    read_model,
    running,
    say,
    split_examples,
)
from train.decoder import train_decoder
from train.loop import LoopConfig
from train.lora import LoRASettings, adapt, check_lora
from train.optim import OptimizerConfig
from train.settings import at_least, build, fraction, positive


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """The settings of a run.

    `data` is JSON lines, a JSON list or Parquet in one of the three row shapes. Held
    out is `eval_data`, or else a share `eval_fraction` of `data`. `template` and
    `row_shape` None are found out. A run lasts `steps`, or else `epochs`. `batch_size`
    counts the rows of an update, `accum` the micro-batches they are computed in. With
    `lora`, adapters are trained beside the checkpoint's frozen parameters.
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
    attention: Attention = "auto"
    export_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    lora: LoRASettings | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    mesh: MeshConfig = MeshConfig()


def prepare(cfg: SFTConfig) -> Prepared:
    """Reads and checks the model's config, the tokenizer and the data.

    Raises DataError, CheckpointError and ConfigError, each naming what is wrong and
    where.
    """
    model = read_model(cfg, cfg.checkpoint, cfg.length)
    if cfg.lora is not None:
        check_lora(model, cfg.lora, cfg.optimizer)
    tokenizer = load_tokenizer(cfg.checkpoint)

    def load(path):
        loaded = load_examples(
            path,
            tokenizer,
            length=cfg.length,
            template=cfg.template,
            shape=cfg.row_shape,
            on_bad_row=cfg.on_bad_row,
            on_long=cfg.on_long,
        )
        count = f"{len(loaded.examples)} {loaded.shape} rows"
        return loaded.examples, f"{count}, template {loaded.template.name}", loaded

    data = read_data(cfg, load, split_examples)
    return lay_out(cfg, model, tokenizer, data)


def sft(cfg: SFTConfig, workdir: Path | str) -> Result:
    """Fine-tunes and exports to `workdir/hf`, continuing what `workdir` holds.

    Raises the errors of `prepare`, of `from_pretrained` and of `train.loop.fit`, and
    ConfigError where another process works in `workdir`, or it holds other files.
    """
    workdir = as_path(workdir)
    mesh = check_run(cfg, workdir)
    ready = prepare(cfg)
    with running(cfg, workdir, ready):
        kept = None if cfg.lora is None else cfg.lora.base
        loaded = from_pretrained(cfg.checkpoint, cfg.dtype, mesh, quantize=kept)
        params, loaded = loaded.params, loaded._replace(params=None)
        adapters = None
        if cfg.lora is not None:
            adapters = adapt(ready.model, params, cfg.lora, mesh)
            params = adapters.trained
        state, rows = train_decoder(
            ready.model,
            params,
            ready.batches,
            ready.steps,
            eval_batches=ready.held_out,
            adapters=adapters,
            **fit_options(cfg, workdir, ready, mesh),
        )
        folder = export(cfg, workdir, ready, state.params, loaded, adapters)
    return Result(folder, ready.steps, rows, last_metrics(rows))


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
    result = sft(cfg, needed_workdir(values))
    say(f"{result.steps} steps", result)


if __name__ == "__main__":
    run_main(main, define_flags)
