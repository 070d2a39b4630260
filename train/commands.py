"""What the commands that train a checkpoint share, in the order of a command.

Before anything is read: `check_run`. Then, still before anything is computed:
`read_model`, `read_data` and `lay_out`. Around the computing: `running`. After it:
`export`, `last_metrics` and `say`. What they ask of a config are its attributes; see
`train.sft.SFTConfig` for their names.
"""

import contextlib
import dataclasses
import json
import math
import operator
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from data.batch import PairExample
from data.batches import Batches, batches, eval_batches
from data.records import write_jsonl
from data.tokenizers import Tokenizer
from models.config import DecoderConfig
from models.decoder import param_shapes
from models.paths import as_path, children, is_remote, same
from models.pretrained import check_replaceable, read_config, save_pretrained
from train import distributed
from train.decoder import check_rows
from train.distributed import by_first, written_by_first
from train.errors import ConfigError
from train.files import write_json
from train.locks import locked
from train.lora import FOLDER, Adapters, export_adapters, merged_by_layer
from train.mesh import make_mesh, row_parts
from train.optim import make_optimizer
from train.step import own_rows


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the axes of the device mesh; one may be -1, the rest of the devices."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    sequence: int = 1


class Data(NamedTuple):
    """Rows to train on and held out, what the loader did, the bad rows it skipped."""

    rows: Sequence
    held_out: Sequence
    notes: tuple[str, ...]
    skipped: Mapping[str, list[dict]]  # by the name of the file that lists them


class Prepared(NamedTuple):
    """All that a run needs except the weights; of batches, what this process loads."""

    model: DecoderConfig
    tokenizer: Tokenizer
    batches: Batches
    held_out: Batches | None
    steps: int
    notes: tuple[str, ...]
    skipped: Mapping[str, list[dict]]


class Result(NamedTuple):
    """Where the model is, how long it trained, all rows of metrics, the last ones."""

    folder: Path
    steps: int
    rows: list[dict]
    metrics: dict[str, float]


def check_run(
    cfg, workdir: Path, *, start="checkpoint", rows="batch_size", accum="accum"
) -> jax.sharding.Mesh | None:
    """The mesh of a run, None for one device, if `workdir` and the settings allow it.

    start, rows, accum: names of settings. Raises CheckpointError over an export that is
    not ours, ConfigError over everything else.
    """
    if same(workdir, getattr(cfg, start)):
        raise ConfigError(
            f"--workdir: {workdir} is the {start} itself; expected another folder"
        )
    if cfg.loop.profile is not None and is_remote(workdir):
        raise ConfigError(
            "config.loop.profile: is written to local disks only; expected None, or a "
            f"local --workdir, got {workdir}"
        )
    check_replaceable(workdir / "hf")
    if getattr(cfg, "lora", None) is not None:
        check_replaceable(workdir / FOLDER)
    check_free(cfg, workdir)
    mesh = make_mesh(**dataclasses.asdict(cfg.mesh))
    row_parts(mesh)  # refuses those that processes cannot load rows for
    mesh = None if mesh.size == 1 else mesh
    sizes = operator.attrgetter(rows, accum)(cfg)
    check_rows(f"config.{rows}", *sizes, mesh)
    return mesh


def check_free(cfg, workdir: Path) -> None:
    """Raises ConfigError over files that a run would replace but did not make."""
    if any(path.name[0].isdigit() for path in children(workdir / "checkpoints")):
        return  # `fit` tells whose they are
    config, metrics = workdir / "config.json", workdir / "metrics.jsonl"
    foreign = metrics if metrics.exists() else None
    if config.exists():
        foreign = None if _is_ours(cfg, config) else config
    if foreign is not None:
        raise ConfigError(
            f"--workdir: {foreign} is not of a run of this program; "
            "choose another folder"
        )


def _is_ours(cfg, config: Path) -> bool:
    """Whether a file has the settings without which `cfg` is none."""
    try:
        settings = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    missing = dataclasses.MISSING
    own = {f.name for f in dataclasses.fields(cfg) if f.default is missing}
    own |= {"optimizer", "loop"}
    return isinstance(settings, dict) and own <= settings.keys()


def read_model(cfg, checkpoint: str, length: int | None = None) -> DecoderConfig:
    """The architecture of a checkpoint, computed as a run's settings have it.

    Raises ConfigError if `length` is too much for it.
    """
    model = dataclasses.replace(
        read_config(checkpoint, cfg.dtype), remat=cfg.remat, attention=cfg.attention
    )
    if length is not None and length > model.context:
        raise ConfigError(
            f"config.length: {length} is more than the {model.context} "
            "positions of the checkpoint"
        )
    return model


def read_data(
    cfg,
    load: Callable[[str], tuple[Sequence, str, Any]],
    split: Callable[[Sequence, float, int], tuple[Sequence, Sequence]],
) -> Data:
    """Reads `cfg.data`; held out is `cfg.eval_data`, or what `split` takes away.

    Args:
      load: path -> (rows, their number and kind in words, what a loader returned).
      split: (rows, share, seed) -> (kept, held out).
    """
    read, notes, skipped = {}, [], {}
    files = {"skipped.jsonl": cfg.data, "skipped_eval.jsonl": cfg.eval_data}
    for name, path in files.items():
        if path is None:
            continue
        read[name], count, loaded = load(path)
        notes.append(
            f"{path}: {count}; {len(loaded.skipped)} bad rows skipped, "
            f"{loaded.truncated} cut, {loaded.dropped} dropped"
        )
        if cfg.on_bad_row == "skip":
            skipped[name] = loaded.skipped
    rows, *held = read.values()
    if held:
        held = held[0]
    elif cfg.eval_fraction:
        rows, held = split(rows, cfg.eval_fraction, cfg.seed)
    return Data(rows, held, tuple(notes), skipped)


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


def split_rows(
    rows: list, share: float, seed: int, *, prompt: Callable[[Any], Any]
) -> tuple[list, list]:
    """(kept, held out): by `prompt` of a row, so that none is on both sides."""
    prompts = list(dict.fromkeys(map(prompt, rows)))
    held = set(split_examples(prompts, share, seed)[1])
    kept = [row for row in rows if prompt(row) not in held]
    return kept, [row for row in rows if prompt(row) in held]


def lay_out(
    cfg, model: DecoderConfig, tokenizer: Tokenizer, data: Data, shapes=param_shapes
) -> Prepared:
    """Batches and steps of a run. Raises ConfigError where settings do not fit them.

    Args:
      data: of examples, or of pairs, which are never packed.
      shapes: architecture -> the parameters, abstract, that the optimizer is for.
    """
    pairs = isinstance(data.rows[0], PairExample)
    given = [*data.rows, *data.held_out]
    sides = [side for pair in given for side in pair[:2]] if pairs else given
    check_ids(sides, tokenizer, model)
    layout = {
        "batch_size": cfg.batch_size,
        "length": cfg.length,
        "pad_id": tokenizer.pad_id,
        "packing": not pairs and cfg.packing,
    }
    train = batches(data.rows, **layout, seed=cfg.seed, buckets=cfg.buckets)
    held_out = eval_batches(data.held_out, **layout) if data.held_out else None
    if (watches := cfg.loop.watches) and held_out is None:
        raise ConfigError(f"config.loop.{watches}: needs held-out data to evaluate on")
    steps = run_steps(cfg, train)
    make_optimizer(cfg.optimizer, steps, shapes(model))  # checks its settings
    if distributed.count() > 1:
        mesh = make_mesh(**dataclasses.asdict(cfg.mesh))
        train = own_rows(train, mesh)
        held_out = None if held_out is None else own_rows(held_out, mesh)
    return Prepared(model, tokenizer, train, held_out, steps, data.notes, data.skipped)


def check_ids(examples: Iterable, tokenizer: Tokenizer, model: DecoderConfig) -> None:
    """Raises ConfigError over a token of the examples that the model does not have."""
    largest = max(int(example.tokens.max()) for example in examples)
    largest = max(largest, tokenizer.pad_id)
    if largest >= model.vocab_size:
        raise ConfigError(
            f"config.checkpoint: the tokenizer makes the id {largest} "
            f"({tokenizer.token_text(largest)!r}), but the model has only "
            f"{model.vocab_size} embeddings"
        )


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


@contextlib.contextmanager
def running(cfg, workdir: Path, ready: Prepared | None = None):
    """Holds the folder of a run, which gets its config and lists of skipped rows.

    All by process 0. Raises ConfigError where another run's process works there.
    """
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(locked(workdir / ".lock", ConfigError))
            # A folder that holds another run keeps its files: `fit` will refuse it.
            if not (workdir / "checkpoints").exists():
                _write_first(cfg, workdir, ready)
            if ready is not None:
                print(*ready.notes, f"{ready.steps} steps", sep="\n", flush=True)

        by_first(begin)
        yield


def _write_first(cfg, workdir: Path, ready: Prepared | None) -> None:
    """Config and skipped rows; ConfigError where a remote folder takes no files."""
    try:
        write_json(workdir / "config.json", dataclasses.asdict(cfg))
        for name, rows in ready.skipped.items() if ready else ():
            write_jsonl(workdir / name, rows)
    except Exception as e:  # of gcsfs, of Google's libraries, of the network
        if not is_remote(workdir):
            raise
        raise ConfigError(f"--workdir: {workdir}: cannot be written: {e}") from e


def fit_options(cfg, workdir: Path, ready: Prepared, mesh) -> dict:
    """What every command tells `train.loop.fit`, as keyword arguments."""
    return {
        "optimizer": cfg.optimizer,
        "loop": cfg.loop,
        "accum": cfg.accum,
        "workdir": workdir,
        "identity": identity(cfg, ready.held_out),
        "mesh": mesh,
        "consume": True,
    }


def identity(cfg, held_out: Batches | None) -> dict:
    """What two parts of one run must share."""
    fingerprint = None if held_out is None else held_out.fingerprint
    return {"config": lasting(cfg), "eval_data": fingerprint}


def lasting(cfg) -> dict:
    """The settings that a continued run must keep; another mesh is no difference."""
    settings = dataclasses.asdict(cfg)
    for free in ("loop", "mesh", "export_dtype"):
        del settings[free]
    return settings


def export(
    cfg,
    workdir: Path,
    ready,
    params,
    loaded,
    adapters: Adapters | None = None,
    *,
    start="checkpoint",
) -> Path:
    """Writes a language model and its tokenizer to `workdir/hf`, which it returns.

    Args:
      loaded: what `from_pretrained` returned for the checkpoint it comes from.
      adapters: whose `trained` have become `params`: written to `workdir/adapter`, too,
        and merged into the model layer by layer.
      start: as in `check_run`.
    """
    parts = params
    if adapters is not None:
        parts = (adapters.base, params)
        base = getattr(cfg, start)
        export_adapters(workdir, ready.model, adapters, params, base)

    def write(parts) -> None:
        params = parts
        if adapters is not None:
            params = merged_by_layer(adapters, parts, ready.model.param_dtype)
        save_pretrained(
            workdir / "hf",
            ready.model,
            params,
            loaded.hf_config,
            cfg.export_dtype,
            tokenizer_files=ready.tokenizer.files.contents,
            generation_config=loaded.generation_config,
        )

    written_by_first(parts, write)
    return workdir / "hf"


def last_metrics(rows: Iterable[Mapping]) -> dict[str, float]:
    """The last value of every metric of training and evaluation."""
    metrics = {}
    for row in rows:
        metrics |= {k: v for k, v in row.items() if k.startswith(("train/", "eval/"))}
    return metrics


def needed_workdir(values: flags.FlagValues) -> Path:
    if not values.workdir:
        raise ConfigError("--workdir: missing; expected the folder of this run")
    return as_path(values.workdir)


def say(when: str, result: Result) -> None:
    """Prints the last metrics and where the model is, in process 0."""
    if jax.process_index() != 0:
        return
    shown = {k: v for k, v in result.metrics.items() if v is not None}
    print(f"{when}:", ", ".join(f"{k} {v:.4g}" for k, v in shown.items()))
    print(f"model: {result.folder}")
