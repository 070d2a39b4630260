"""Preference optimisation: a checkpoint and pairs of responses in, a better one out.

    python -m train.dpo --config=configs/dpo.py --config.checkpoint=DIR \
        --config.data=FILE --workdir=W
        --show_batch      print the first pairs, token by token with weights, and stop

DPO and its kin (see `train.preference`). The reference is the checkpoint the run starts
from; its log-probs are computed once, before the first update, and then are data. The
model is in `W/hf`, a folder that `transformers` loads; the same command continues an
interrupted run.
"""

from train.host import tune_host

if __name__ == "__main__":
    tune_host()  # starts the process anew, so before anything slow is imported

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from data.batch import PairExample
from data.batches import Batches, batches, eval_batches
from data.chat import show_batch
from data.pairs import PreferenceBatch, ReferencedBatches, load_pairs
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
from train.decoder import check_rows, flops_per_token
from train.errors import ConfigError
from train.evaluate import make_evaluate
from train.files import write_json
from train.locks import locked
from train.loop import Fitted, LoopConfig, fit
from train.mesh import make_mesh
from train.optim import OptimizerConfig, make_optimizer
from train.preference import PreferenceConfig, pair_log_probs, policy_loss
from train.reference import cached_log_probs, pair_chunk
from train.settings import at_least, build, fraction, positive
from train.sft import (
    MeshConfig,
    check_free,
    check_ids,
    run_steps,
    split_examples,
)
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
) -> Fitted:
    """Minimises a preference loss for `steps` updates; see `train.loop.fit`.

    Args:
      params: of `models.decoder`, already where `mesh` wants them.
      pairs: of PairExamples, from `data.batches.batches`; held_out: for the metrics
        "eval/loss", "eval/accuracy", "eval/margin", ...
      reference: parameters of the reference policy; None: `params` as they are given.
      consume: `params` may be destroyed, which spares a copy of them.

    The reference's log-probs are kept in `workdir/reference.npz`, by the data and
    `identity`, so that a continued run does not compute them again.
    """
    check_labels(preference, pairs)
    rows = pairs.batch_size
    check_rows("batch_size", rows, accum, mesh)
    chosen = make_optimizer(optimizer, steps, params)
    flops = flops_per_token(cfg, params, pairs.plan[0][0])
    scorer = params if reference is None else reference

    def with_reference(given: Batches, name: str) -> ReferencedBatches:
        if preference.reference_free:
            return ReferencedBatches(given, np.zeros((len(given.rows), 2), np.float32))
        file = None if workdir is None else Path(workdir) / f"{name}.npz"
        key = json.dumps([given.fingerprint, dict(identity)], sort_keys=True)
        return ReferencedBatches(
            given, cached_log_probs(file, key, cfg, scorer, given, mesh)
        )

    train = with_reference(pairs, "reference")
    place = placer(mesh)

    def loss_fn(params, batch: PreferenceBatch):
        chunk = pair_chunk(cfg, batch.pairs, mesh)
        log_probs, lengths = pair_log_probs(cfg, params, batch.pairs, chunk=chunk)
        return policy_loss(preference, log_probs, batch.reference, lengths, batch.pairs)

    evaluate = None
    if held_out is not None:
        scores = make_evaluate(loss_fn, with_reference(held_out, "held_out"), place)

        def evaluate(params):
            row = scores(params)
            row.pop("eval/perplexity", None)  # this loss is no NLL
            return row

    state = init_state(params, chosen, copy=not consume)
    return fit(
        state,
        make_train_step(loss_fn, chosen, accum=accum, state=state),
        train,
        steps,
        loop,
        workdir=workdir,
        identity=identity,
        evaluate=evaluate,
        place=place,
        flops_per_token=flops,
    )


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
    `steps`, or else `epochs`. `batch_size` counts pairs.
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
    export_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    preference: PreferenceConfig = PreferenceConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    mesh: MeshConfig = MeshConfig()


class Prepared(NamedTuple):
    """All that a run needs except the weights."""

    model: DecoderConfig
    tokenizer: Tokenizer
    pairs: Batches
    held_out: Batches | None
    steps: int
    notes: tuple[str, ...]  # what the data loader did, in words


class DPOResult(NamedTuple):
    """Where the model is, how long it trained, all rows of metrics, the last ones."""

    folder: Path
    steps: int
    rows: list[dict]
    metrics: dict[str, float]


def prepare(cfg: DPOConfig, workdir: Path | None = None) -> Prepared:
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
        loaded = load_pairs(
            path,
            tokenizer,
            length=cfg.length,
            template=cfg.template,
            label=cfg.label,
            offset=cfg.offset,
            on_bad_row=cfg.on_bad_row,
            on_long=cfg.on_long,
            skipped_path=None if workdir is None else workdir / skipped,
        )
        notes.append(
            f"{path}: {len(loaded.pairs)} pairs ({loaded.shape}), template "
            f"{loaded.template.name}; {loaded.skipped} bad rows skipped, "
            f"{loaded.truncated} cut, {loaded.dropped} dropped"
        )
        return loaded.pairs

    pairs, held = load(cfg.data, "skipped.jsonl"), []
    if cfg.eval_data is not None:
        held = load(cfg.eval_data, "skipped_eval.jsonl")
    elif cfg.eval_fraction:
        pairs, held = split_pairs(pairs, cfg.eval_fraction, cfg.seed)
    check_ids([s for p in (*pairs, *held) for s in p[:2]], tokenizer, model)
    layout = {
        "batch_size": cfg.batch_size,
        "length": cfg.length,
        "pad_id": tokenizer.pad_id,
    }
    train = batches(pairs, **layout, seed=cfg.seed, buckets=cfg.buckets)
    check_labels(cfg.preference, train)
    held_out = eval_batches(held, **layout) if held else None
    if (watches := cfg.loop.watches) and held_out is None:
        raise ConfigError(f"config.loop.{watches}: needs held-out data to evaluate on")
    steps = run_steps(cfg, train)
    make_optimizer(cfg.optimizer, steps, param_shapes(model))  # checks its settings
    return Prepared(model, tokenizer, train, held_out, steps, tuple(notes))


def split_pairs(
    pairs: list[PairExample], share: float, seed: int
) -> tuple[list[PairExample], list[PairExample]]:
    """(kept, held out): by prompt, so that none is on both sides."""

    def prompt(pair: PairExample) -> bytes:
        side = pair.chosen
        return side.tokens[: np.argmax(side.weights > 0)].tobytes()

    prompts = list(dict.fromkeys(map(prompt, pairs)))
    held = set(split_examples(prompts, share, seed)[1])
    kept = [pair for pair in pairs if prompt(pair) not in held]
    return kept, [pair for pair in pairs if prompt(pair) in held]


def dpo(cfg: DPOConfig, workdir: Path | str) -> DPOResult:
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
    if mesh.size == 1:
        mesh = None
    check_rows("config.batch_size", cfg.batch_size, cfg.accum, mesh)
    ready = prepare(cfg, workdir)
    if jax.process_index() != 0:
        return _run(cfg, ready, mesh, workdir)
    with locked(workdir / ".lock", ConfigError):
        return _run(cfg, ready, mesh, workdir)


def _run(cfg: DPOConfig, ready: Prepared, mesh, workdir: Path) -> DPOResult:
    share = jax.process_index(), jax.process_count()
    if share[0] == 0:
        # A folder that holds another run keeps its config: `fit` will refuse it.
        if not (workdir / "checkpoints").exists():
            write_json(workdir / "config.json", dataclasses.asdict(cfg))
        print(*ready.notes, f"{ready.steps} steps", sep="\n", flush=True)
    loaded = from_pretrained(cfg.checkpoint, cfg.dtype, mesh)
    params, loaded = loaded.params, loaded._replace(params=None)
    state, rows = train_dpo(
        ready.model,
        params,
        ready.pairs.for_process(*share),
        ready.steps,
        preference=cfg.preference,
        optimizer=cfg.optimizer,
        loop=cfg.loop,
        accum=cfg.accum,
        held_out=ready.held_out and ready.held_out.for_process(*share),
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
    return DPOResult(workdir / "hf", ready.steps, rows, metrics)


def _identity(cfg: DPOConfig, ready: Prepared) -> dict:
    """What two parts of one run must share; another mesh is no difference."""
    settings = dataclasses.asdict(cfg)
    for free in ("loop", "mesh", "export_dtype"):
        del settings[free]
    held_out = ready.held_out and ready.held_out.fingerprint
    return {"config": settings, "eval_data": held_out}


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
            shown = getattr(ready.pairs[0], side)
            print(show_batch(shown, ready.tokenizer, rows=cfg.batch_size))
        return
    if not values.workdir:
        raise ConfigError("--workdir: missing; expected the folder of this run")
    result = dpo(cfg, values.workdir)
    numbers = ", ".join(
        f"{k} {v:.4g}" for k, v in result.metrics.items() if v is not None
    )
    print(f"{result.steps} steps: {numbers}")
    print(f"model: {result.folder}")


if __name__ == "__main__":
    run_main(main, define_flags)
