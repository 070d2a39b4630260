"""LoRA adapters in and out in PEFT's format: a folder of adapter_config.json and
adapter_model.safetensors, which `peft.PeftModel.from_pretrained` reads and writes.

PEFT keeps A [rank, inputs] and B [outputs, rank] for each layer apart; here they are
a [L, inputs, rank] and b [L, rank, *outputs]. Modules go by Llama's names, which all
families here but OPT share; InternLM2's adapters fit its export, which is a Llama.

A folder may hold a reward model's scalar head, too: PEFT's task SEQ_CLS, whose saved
module "score" goes over a base loaded as ...ForSequenceClassification with one label.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from models import pretrained
from models import tensor_files as files
from models.adapters import LoRAConfig, adapter_shapes
from models.config import DecoderConfig
from models.errors import CheckpointError
from models.hf_weights import LLAMA, OPT, SCORE
from models.params import flatten_names, unflatten_names
from models.paths import absolute, as_path, beside, is_remote
from models.remote_tensors import RemoteFile

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
CLASSIFIER = "SEQ_CLS"
HEAD = PREFIX + SCORE.theirs
# What PEFT saves along with a classifier: it tries every name for heads that it knows.
HEADS = ("classifier", SCORE.theirs.removesuffix(".weight"))

# What changes the numbers and is not LoRA as in `models.adapters`; off when falsy.
UNSUPPORTED = (
    "use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "layers_to_transform",
    "layer_replication", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "use_qalora", "use_bdlora",
    "fan_in_fan_out", "megatron_config", "kasa_config", "velora_config",
    "monteclora_config", "arrow_config",
)  # fmt: skip
# Ways to start that take something away from the base, which a folder does not hold.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Loaded(NamedTuple):
    """The adapters of a folder, how they are applied, and the scalar head beside them.

    head: {"kernel": [D, 1]} of a reward model's adapters, None of a language model's
    """

    adapters: Any
    lora: LoRAConfig
    head: Any = None


def save_adapters(
    folder: str | Path,
    cfg: DecoderConfig,
    adapters,
    lora: LoRAConfig,
    base_name: str | None = None,
    head=None,
) -> None:
    """Writes a folder that PEFT and `load_adapters` read; whole, or not at all.

    Args:
      adapters: of `init_adapters` for this config, in their own dtype.
      base_name: what PEFT is told the base model is called, or where it lies.
      head: of a reward model, {"kernel": [D, 1]}.

    Raises:
      CheckpointError: the folder holds something else, or the adapters or the head do
        not fit the config (no targeted kernel may lack its adapter).
    """
    folder = absolute(folder)
    pretrained.check_replaceable(folder)
    flat = flatten_names(adapters)
    targets = sorted({name.rpartition("/")[0] for name in flat})
    lora = dataclasses.replace(lora, targets=tuple(targets))
    wanted = _shapes(cfg, lora, scored=head is not None)
    wrong = [
        f"{name} is {list(flat[name].shape) if name in flat else 'absent'}, "
        f"expected {list(shape)}"
        for name, shape in wanted.items()
        if name not in flat or tuple(flat[name].shape) != shape
    ]
    if head is not None and tuple(head["kernel"].shape) != (cfg.d_model, 1):
        shape = list(head["kernel"].shape)
        wrong.append(f"head/kernel is {shape}, expected {[cfg.d_model, 1]}")
    if wrong:
        raise CheckpointError(
            f"adapters do not fit the config and rank {lora.rank}: "
            + files.listed(wrong)
        )
    sources = {}
    for name in targets:
        for layer in _layers(cfg, name):
            sources[_key(cfg, name, "A", layer)] = (f"{name}/a", layer)
            sources[_key(cfg, name, "B", layer)] = (f"{name}/b", layer)
    if head is not None:
        sources[HEAD] = ("head/kernel", None)
        flat["head/kernel"] = head["kernel"]

    def tensor(key: str) -> np.ndarray:
        name, layer = sources[key]
        value = np.asarray(flat[name] if layer is None else flat[name][layer])
        rows = value.shape[0]  # inputs, or rank of b; what follows is flat there
        return value.reshape(rows, -1).T

    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if head is None else CLASSIFIER,
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.use_rslora,
        "target_modules": [_module(cfg, name).rpartition(".")[2] for name in targets],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None if head is None else list(HEADS[1:]),
    }
    partial = beside(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        shard = files.Shard(WEIGHTS, tuple(sources))
        files.write_shards(partial, [shard], {}, tensor)
        files.write_json(partial / CONFIG, config)
        names = [CONFIG, WEIGHTS, pretrained.EXPORT]
        record = {"written_by": "salign", "files": names}
        files.write_json(partial / pretrained.EXPORT, record)
        files.sync(partial)
        pretrained._replace(folder, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_adapters(folder: str | Path, cfg: DecoderConfig, dtype=jnp.float32) -> Loaded:
    """What a folder holds that PEFT, or `save_adapters`, wrote.

    The targets are the names of the kernels that have adapters. Arrays are NumPy's, on
    the host: where they go on devices, and how they are split, is the caller's to say.

    Raises:
      CheckpointError: the folder cannot be read, asks for more than LoRA (DoRA, biases,
        saved modules other than one score, ...), or its tensors do not fit the config;
        names file and key.
    """
    folder = as_path(folder)
    path = folder / CONFIG
    config = files.read_json(path)
    _check_config(path, config)
    tensors = _read(folder)
    places = _places(cfg, scored=config.get("task_type") == CLASSIFIER)
    path = folder / WEIGHTS
    head = None
    if config.get("task_type") == CLASSIFIER:
        kernel = _tensor(path, tensors, HEAD, (cfg.d_model, 1))
        head = {"kernel": kernel.astype(dtype, copy=False)}
        del tensors[HEAD]
    unknown = sorted(key for key in tensors if key not in places)
    if unknown:
        raise CheckpointError(
            f"{path}: no kernel takes {files.listed(unknown, 5)}; expected names like "
            f"{next(iter(places))}, of {cfg.n_layers} layers"
        )
    targets = tuple(sorted({places[key][0] for key in tensors}))
    try:
        lora = LoRAConfig(
            rank=config["r"],
            alpha=config["lora_alpha"],
            dropout=config.get("lora_dropout", 0.0),
            targets=targets,
            use_rslora=bool(config.get("use_rslora", False)),
        )
    except KeyError as e:
        raise CheckpointError(f"{folder / CONFIG}: lacks the field {e}") from None
    except (TypeError, ValueError) as e:
        raise CheckpointError(f"{folder / CONFIG}: {e}") from e
    flat: dict[str, Any] = {}
    for name, shape in _shapes(cfg, lora).items():
        kernel, _, part = name.rpartition("/")
        layers = _layers(cfg, kernel)
        one = shape if layers == [None] else shape[1:]
        value = np.empty((len(layers), *one), np.float32)
        for row, layer in enumerate(layers):
            value[row] = _tensor(
                path, tensors, _key(cfg, kernel, part.upper(), layer), one
            )
        flat[name] = value.reshape(shape).astype(dtype, copy=False)
    return Loaded(unflatten_names(flat), lora, head)


def _check_config(path: Path, config) -> None:
    def refuse(field: str, expected: str):
        raise CheckpointError(
            f"{path}: {field} is {config.get(field)!r}; expected {expected}"
        )

    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected fields {{name: value}}")
    if config.get("peft_type") != "LORA":
        refuse("peft_type", "'LORA'")
    if config.get("bias", "none") != "none":
        refuse("bias", "'none': adapters change kernels only")
    for field in UNSUPPORTED:
        if config.get(field):
            refuse(field, "none: it is not supported")
    own = HEADS if config.get("task_type") == CLASSIFIER else ()
    if set(config.get("modules_to_save") or ()) - set(own):
        refuse("modules_to_save", f"none but {', '.join(own)}" if own else "none")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(CHANGES_BASE):
        refuse("init_lora_weights", "a start that leaves the base as it is")


def _read(folder: Path) -> dict[str, np.ndarray]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        hint = f" ({pickled.name} is pickle, which can run code and is not read)"
        raise CheckpointError(f"{path}: no such file" + hint * pickled.exists())
    if is_remote(path):
        opened = RemoteFile(path, files.DTYPES)
        return {key: opened.get_slice(key)[:] for key in opened.keys()}
    try:
        with safe_open(path, framework="np") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: cannot read: {e}") from e


def _tensor(path, tensors, key: str, shape) -> np.ndarray:
    """A [inputs, rank], B [rank, *outputs] or head [D, 1] from PEFT's transpose."""
    if key not in tensors:
        raise CheckpointError(f"{path}: lacks {key}")
    theirs = (int(np.prod(shape[1:])), shape[0])
    if tensors[key].shape != theirs:
        raise CheckpointError(
            f"{path}: {key} is {list(tensors[key].shape)}, expected {list(theirs)}"
        )
    return tensors[key].astype(np.float32).T.reshape(shape)


def _module(cfg: DecoderConfig, name: str) -> str:
    """ "layers/attn/q/kernel" -> "model.layers.{i}.self_attn.q_proj"."""
    rows = OPT if cfg.learned else LLAMA
    return next(row.theirs for row in rows if row.ours == name).removesuffix(".weight")


def _key(cfg: DecoderConfig, name: str, part: str, layer: int | None) -> str:
    return f"{PREFIX}{_module(cfg, name)}.lora_{part}.weight".format(i=layer)


def _layers(cfg: DecoderConfig, name: str) -> list[int | None]:
    return list(range(cfg.n_layers)) if "{i}" in _module(cfg, name) else [None]


def _shapes(
    cfg: DecoderConfig, lora: LoRAConfig, scored: bool = False
) -> dict[str, tuple[int, ...]]:
    try:
        made = adapter_shapes(pretrained.checkpoint_shapes(cfg, scored), lora)
    except ValueError as e:
        raise CheckpointError(f"adapters do not fit the config: {e}") from e
    return {name: leaf.shape for name, leaf in made.items()}


def _places(cfg: DecoderConfig, scored: bool) -> dict[str, tuple[str, str, int | None]]:
    """{PEFT's name: (our kernel, part, layer)} of everything that may be adapted."""
    every = LoRAConfig(rank=1, alpha=1.0, targets=("*",))
    kernels = {name.rpartition("/")[0] for name in _shapes(cfg, every, scored)}
    return {
        _key(cfg, name, part, layer): (name, part, layer)
        for name in sorted(kernels)
        for layer in _layers(cfg, name)
        for part in "AB"
    }
