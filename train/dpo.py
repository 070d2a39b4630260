"""Preference optimisation: a checkpoint and pairs of responses in, a better one out.

    python -m train.dpo --config=configs/dpo.py --config.checkpoint=DIR \
        --config.data=FILE --workdir=W
        --show_batch      print the first pairs, token by token with weights, and stop

DPO and its kin (see `train.preference`). The reference is the checkpoint the run starts
from; its log-probs are computed once, before the first update, and then are data. The
model is in `W/hf`, a folder that `transformers` loads; the same command continues an
interrupted run. With `lora`, as configs/dpo.py:qlora has it, the policy is adapters
over the reference; they are in `W/adapter`, too, a folder that PEFT loads.
"""

from train.host import tune_host

if __name__ == "__main__":
    tune_host()  # starts the process anew, so before anything slow is imported

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from data.batch import PairExample
from data.batches import Batches
from data.chat import show_batch
from data.pairs import PreferenceBatch, ReferencedBatches, load_pairs, prompt_of
from data.tokenizers import load_tokenizer
from models.config import Attention, DecoderConfig
from models.decoder import param_shapes
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
    split_rows,
)
from train.decoder import check_rows, flops_per_token
from train.errors import ConfigError
from train.evaluate import make_evaluate
from train.loop import Fitted, LoopConfig, fit
from train.lora import Adapters, LoRASettings, adapt, attached, check_lora
from train.optim import OptimizerConfig, make_optimizer
from train.preference import PreferenceConfig, pair_log_probs, policy_loss
from train.reference import cached_log_probs, pair_chunk
from train.settings import at_least, build, fraction, positive
from train.state import init_state
from train.step import make_train_step, placer


def train_dpo(
    cfg: DecoderConfig,
    params,
    pairs: Batches,
    steps: int,
    *,
    preference: PreferenceConfig = PreferenceConfig(),  # noqa: B008 (immutable)
    reference=None,
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
    """Minimises a preference loss for `steps` updates; see `train.loop.fit`.

    Args:
      params: of `models.decoder`, already where `mesh` wants them.
      pairs: of PairExamples, from `data.batches.batches`; held_out: for the metrics
        "eval/loss", "eval/accuracy", "eval/margin", ...
      reference: parameters of the reference policy; None: `params` as they are given,
        or the base of `adapters`.
      consume: `params` may be destroyed, which spares a copy of them.
      adapters: whose `trained` are `params`; its base stays as it is.

    The reference's log-probs are kept in `workdir/reference.npz`, by the data and
    `identity`, so that a continued run does not compute them again.
    """
    check_labels(preference, pairs)
    rows = pairs.batch_size
    cfg = dataclasses.replace(cfg, mesh=mesh)
    check_rows("batch_size", rows, accum, mesh)
    chosen = make_optimizer(optimizer, steps, params)
    start, shapes, constants, noise = params, params, (), None
    if adapters is not None:
        start, shapes = adapters.base, param_shapes(cfg)
        constants, noise = (adapters.base,), adapters.noise
    width, frozen = pairs.plan[0][0], adapters is not None
    flops = flops_per_token(cfg, shapes, width, frozen=frozen)
    scorer = start if reference is None else reference

    def with_reference(given: Batches, name: str) -> ReferencedBatches:
        if preference.reference_free:
            return ReferencedBatches(given, np.zeros((len(given.rows), 2), np.float32))
        file = None if workdir is None else as_path(workdir) / f"{name}.npz"
        key = json.dumps([given.fingerprint, dict(identity)], sort_keys=True)
        return ReferencedBatches(
            given, cached_log_probs(file, key, cfg, scorer, given, mesh)
        )

    train = with_reference(pairs, "reference")
    place, loss_fn = placer(mesh), dpo_loss(cfg, preference, mesh, adapters)
    evaluate = None
    if held_out is not None:
        given = with_reference(held_out, "held_out")
        scores = make_evaluate(loss_fn, given, place, constants=constants)

        def evaluate(params):
            row = scores(params)
            row.pop("eval/perplexity", None)  # this loss is no NLL
            return row

    state = init_state(params, chosen, copy=not consume)
    return fit(
        state,
        make_train_step(
            loss_fn,
            chosen,
            accum=accum,
            state=state,
            constants=constants,
            noise=noise,
        ),
        train,
        steps,
        loop,
        workdir=workdir,
        identity=identity,
        evaluate=evaluate,
        place=place,
        flops_per_token=flops,
    )


def dpo_loss(
    cfg: DecoderConfig,
    preference: PreferenceConfig,
    mesh: jax.sharding.Mesh | None,
    adapters: Adapters | None = None,
):
    """`(params, batch) -> Loss`; of adapters `(trained, batch, base, key=None)`."""

    def loss(params, batch: PreferenceBatch, base=None, key=None):
        if adapters is not None:
            params = attached(adapters._replace(base=base), params, key)
        chunk = pair_chunk(cfg, batch.pairs, mesh)
        log_probs, lengths = pair_log_probs(cfg, params, batch.pairs, chunk=chunk)
        return policy_loss(preference, log_probs, batch.reference, lengths, batch.pairs)

    return loss


def check_labels(preference: PreferenceConfig, pairs: Batches) -> None:
    """Raises ConfigError over a loss that cannot have the pairs' labels."""
    labels = [pair.label for row in pairs.rows for pair in row]
    if preference.loss == "robust" and min(labels) <= 0.5:
        raise ConfigError(
            "preference.loss: 'robust' needs labels above 1/2, the data has "
            f"{min(labels):g}"
        )


@dataclasses.dataclass(frozen=True)
class DPOConfig:
    """The settings of a run.

    `data` is a file of preference rows (see `data.pairs`). Held out is `eval_data`, or
    else the pairs of a share `eval_fraction` of the prompts. `label` and `offset` are
    of rows that give none. `length` is that of a prompt and one response. A run lasts
    `steps`, or else `epochs`. `batch_size` counts pairs. With `lora`, the policy is
    adapters over the checkpoint, whose frozen parameters are the reference.
    """

    checkpoint: str
    data: str
    eval_data: str | None = None
    eval_fraction: float = fraction(0.05)
    template: str | None = None
    label: float = fraction(1.0)
    offset: float = 0.0
    on_bad_row: Literal["error", "skip"] = "error"
    on_long: Literal["error", "truncate", "drop"] = "error"
    length: int = at_least(2, 1024)
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
    preference: PreferenceConfig = PreferenceConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    mesh: MeshConfig = MeshConfig()


def prepare(cfg: DPOConfig) -> Prepared:
    """Reads and checks the model's config, the tokenizer and the data.

    Raises DataError, CheckpointError and ConfigError, each naming what is wrong and
    where.
    """
    model = read_model(cfg, cfg.checkpoint, cfg.length)
    if cfg.lora is not None:
        check_lora(model, cfg.lora, cfg.optimizer)
    tokenizer = load_tokenizer(cfg.checkpoint)

    def load(path):
        loaded = load_pairs(
            path,
            tokenizer,
            length=cfg.length,
            template=cfg.template,
            label=cfg.label,
            offset=cfg.offset,
            on_bad_row=cfg.on_bad_row,
            on_long=cfg.on_long,
        )
        count = f"{len(loaded.pairs)} pairs ({loaded.shape})"
        return loaded.pairs, f"{count}, template {loaded.template.name}", loaded

    ready = lay_out(cfg, model, tokenizer, read_data(cfg, load, split_pairs))
    check_labels(cfg.preference, ready.batches)
    return ready


def split_pairs(
    pairs: list[PairExample], share: float, seed: int
) -> tuple[list[PairExample], list[PairExample]]:
    """(kept, held out): by prompt, so that none is on both sides."""
    return split_rows(pairs, share, seed, prompt=prompt_of)


def dpo(cfg: DPOConfig, workdir: Path | str) -> Result:
    """Trains and exports to `workdir/hf`, continuing what `workdir` holds.

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
        state, rows = train_dpo(
            ready.model,
            params,
            ready.batches,
            ready.steps,
            preference=cfg.preference,
            held_out=ready.held_out,
            adapters=adapters,
            **fit_options(cfg, workdir, ready, mesh),
        )
        folder = export(cfg, workdir, ready, state.params, loaded, adapters)
    return Result(folder, ready.steps, rows, last_metrics(rows))


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool(
        "show_batch", False, "print the first pairs and stop", flag_values=values
    )


def main(config: config_dict.ConfigDict, values: flags.FlagValues) -> None:
    cfg = build(DPOConfig, config)
    if values.show_batch:
        ready = prepare(cfg)
        print(*ready.notes, sep="\n")
        for side in ("chosen", "rejected"):
            print(f"{side}:")
            shown = getattr(ready.batches[0], side)
            print(show_batch(shown, ready.tokenizer, rows=cfg.batch_size))
        return
    result = dpo(cfg, needed_workdir(values))
    say(f"{result.steps} steps", result)


if __name__ == "__main__":
    run_main(main, define_flags)
