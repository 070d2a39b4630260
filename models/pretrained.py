"""Checkpoints in and out: a Hugging Face folder <-> (config, parameters).

Reading: config.json decides the architecture, the weight map says which slice of which
tensor each parameter is, and each device gets only its slice (`models.loading`).
Writing: the reverse, one shard in memory at a time, into a folder that appears whole or
not at all.
"""

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import ml_dtypes
import numpy as np

from models import hf_config as hf
from models import hf_weights
from models import tensor_files as files
from models.config import DecoderConfig, DType
from models.decoder import param_shapes
from models.errors import CheckpointError
from models.loading import load_params, quantized_shapes
from models.params import flatten_names
from models.paths import absolute, as_path, beside, is_remote, upload
from models.quantized import Kind
from models.sharding import RULES, Rule

# Buffers that old checkpoints store and that follow from the config.
IGNORED = re.compile(r".*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)")
HEAD = "lm_head/kernel"
EXPORT = "export.json"
EXPORT_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


REMOTE_CODE_FIELDS = ("auto_map", "bias")


class Pretrained(NamedTuple):
    """A checkpoint in memory.

    params: the tree of `checkpoint_shapes`
    hf_config, generation_config: config.json and generation_config.json as they were,
      for export; the latter is None when the folder has none
    """

    cfg: DecoderConfig
    params: Any
    hf_config: dict[str, Any]
    generation_config: dict[str, Any] | None = None


def checkpoint_shapes(cfg: DecoderConfig, scored: bool = False):
    """The parameter tree of a folder as shapes, nothing allocated.

    That of `models.decoder.init_params`; `scored`: with a scalar head {"head":
    {"kernel": [D, 1]}} in the place of "lm_head".
    """
    shapes = param_shapes(cfg)
    if scored:
        shapes.pop("lm_head", None)
        kernel = jax.ShapeDtypeStruct((cfg.d_model, 1), cfg.param_dtype)
        shapes["head"] = {"kernel": kernel}
    return shapes


def from_pretrained(
    directory: str | Path,
    dtype: DType | None = None,
    mesh: jax.sharding.Mesh | None = None,
    rules: tuple[Rule, ...] = RULES,
    *,
    scored: bool = False,
    quantize: Kind | None = None,
) -> Pretrained:
    """Reads a folder in the Hugging Face format (config.json and safetensors).

    Args:
      dtype: the policy of `DecoderConfig.dtype`; None means 'float32'.
      mesh: where the parameters go, split by `rules`, each device reading only its
        slice, and the config's; None puts them whole on the default device.
      scored: the folder is a ...ForSequenceClassification with one label.
      quantize: keeps the kernels of the layers in 4 or 8 bits, as
        `models.quantized.quantize_params` does, but layer by layer as they are read:
        the model is never held in full.

    Raises:
      CheckpointError: the folder, its config or its weights cannot be used; all
        missing, unexpected and misshapen tensors are named together.
    """
    directory = as_path(directory)
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise CheckpointError(f"{directory}: {what}; expected a checkpoint folder")
    hf_config, cfg = _read_config(directory, dtype)
    shapes = checkpoint_shapes(cfg, scored)
    try:
        quantized_shapes(shapes, quantize)
    except ValueError as e:
        raise CheckpointError(f"{directory}: cannot be quantised: {e}") from e
    folder = files.open_folder(directory)
    found = hf_weights.decoder_places(cfg, hf_config["model_type"], shapes)
    _check_tensors(directory, folder, cfg, hf_config["model_type"], found)

    params = load_params(found, shapes, folder, mesh, rules, quantize)
    generation = directory / "generation_config.json"
    return Pretrained(
        dataclasses.replace(cfg, mesh=mesh),
        params,
        hf_config,
        files.read_json(generation) if generation.exists() else None,
    )


def read_config(directory: str | Path, dtype: DType | None = None) -> DecoderConfig:
    """The decoder that a folder's config.json describes; no weights are looked at."""
    return _read_config(as_path(directory), dtype)[1]


def save_pretrained(
    directory: str | Path,
    cfg: DecoderConfig,
    params,
    hf_config: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    max_shard_bytes: float = 5e9,
    tokenizer_files: Mapping[str, bytes | str] | None = None,
    generation_config: Mapping[str, Any] | None = None,
    *,
    scored: bool = False,
) -> None:
    """Writes a folder that `transformers` and `from_pretrained` read.

    The folder appears whole, by a rename, or not at all. An existing one is replaced
    if it is empty or an earlier export to which nothing was added.

    Args:
      hf_config: the config.json the parameters came with: decides model_type and keeps
        its other fields; InternLM2 is written as the Llama that it is. Without it the
        plainest fitting model_type is written.
      dtype: 'float32', 'bfloat16' or 'float16'; None keeps each parameter's own.
      max_shard_bytes: of one file; also about what is held on the host at a time.
      tokenizer_files: {file name: content} to be written along.
      scored: the parameters end in a scalar head (`checkpoint_shapes`); the folder is a
        ...ForSequenceClassification with one label.

    Raises:
      CheckpointError: the folder holds something else, the parameters do not fit the
        config, or the config's model_type cannot express the decoder.
    """
    directory = absolute(directory)
    check_replaceable(directory)
    if dtype is not None and dtype not in EXPORT_DTYPES:
        raise CheckpointError(
            f"dtype is {dtype!r}; expected one of {', '.join(EXPORT_DTYPES)}"
        )
    hf_config = dict(hf_config or {})
    if hf_config.get("model_type") == "internlm2":
        # transformers reads InternLM2 only with code that the checkpoint brings along;
        # the same decoder written as a Llama needs none.
        hf_config = {k: v for k, v in hf_config.items() if k not in REMOTE_CODE_FIELDS}
        hf_config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    model_type = hf_config.get("model_type") or hf.default_model_type(cfg)
    config = hf.for_head(hf.to_hf(cfg, model_type, hf_config), scored)
    flat, shapes = flatten_names(params), checkpoint_shapes(cfg, scored)
    _check_params(shapes, flat)
    stored = EXPORT_DTYPES[dtype] if dtype else np.dtype(flat["embed/embedding"].dtype)
    spelling = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[spelling] = stored.name

    found = hf_weights.decoder_places(cfg, model_type, shapes)
    sources = hf_weights.tensors(found, cfg.n_layers)
    nbytes = {}
    for name, (group, _) in sources.items():
        width = (stored if dtype else np.dtype(flat[group[0].name].dtype)).itemsize
        nbytes[name] = int(np.prod(group[0].their_shape)) * width

    def tensor(name: str) -> np.ndarray:
        group, layer = sources[name]
        values = {}
        for place in group:
            value = flat[place.name] if layer is None else flat[place.name][layer]
            value = np.asarray(value)
            values[place.name] = value.astype(EXPORT_DTYPES[dtype]) if dtype else value
        return hf_weights.write(group, values)

    partial = beside(directory)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        shards = files.plan_shards(nbytes, max_shard_bytes)
        files.write_shards(partial, shards, nbytes, tensor)
        files.write_json(partial / "config.json", config)
        if generation_config is not None:
            files.write_json(partial / "generation_config.json", generation_config)
        for name, content in (tokenizer_files or {}).items():
            data = content.encode() if isinstance(content, str) else content
            (partial / name).write_bytes(data)
        names = sorted([EXPORT, *(p.name for p in partial.iterdir())])
        files.write_json(partial / EXPORT, {"written_by": "salign", "files": names})
        files.sync(partial)
        _replace(directory, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_config(directory: Path, dtype: DType | None):
    if dtype is not None and dtype not in get_args(DType):
        raise CheckpointError(
            f"dtype is {dtype!r}; expected one of {', '.join(get_args(DType))}"
        )
    path = directory / "config.json"
    config = files.read_json(path)
    cfg = hf.from_hf(config, str(path))
    return config, dataclasses.replace(cfg, dtype=dtype or cfg.dtype)


def _check_tensors(directory, folder, cfg, model_type, found) -> None:
    expected = {
        name: group[0].their_shape
        for name, (group, _) in hf_weights.tensors(found, cfg.n_layers).items()
    }
    stored = {n: s for n, s in folder.shapes.items() if not IGNORED.fullmatch(n)}
    tied = _tied_copy(cfg, model_type)
    if tied and tied[0] in stored:
        head, embedding = tied
        if stored[head] != expected[embedding] or not _equal(folder, head, embedding):
            raise CheckpointError(
                f"{directory}: config.json has tie_word_embeddings true, but {head} "
                f"differs from {embedding}; set tie_word_embeddings to false"
            )
        del stored[head]
    problems = []
    missing = [f"{n} {list(s)}" for n, s in expected.items() if n not in stored]
    unexpected = [f"{n} {list(s)}" for n, s in stored.items() if n not in expected]
    misshapen = [
        f"{n} is {list(stored[n])}, expected {list(s)}"
        for n, s in expected.items()
        if n in stored and stored[n] != s
    ]
    for kind, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", misshapen),
    ):
        if names:
            problems.append(f"  {len(names)} {kind}: {files.listed(names)}")
    if problems:
        raise CheckpointError(
            f"{directory}: tensors do not fit config.json ({model_type}, "
            f"{cfg.n_layers} layers):\n" + "\n".join(problems)
        )
    files.check_dtypes(folder, expected)


def _tied_copy(cfg: DecoderConfig, model_type: str) -> tuple[str, str] | None:
    """(output tensor, embedding tensor) that a tied checkpoint may store both of."""
    if not cfg.tie_embeddings:
        return None
    rows = {row.ours: row.theirs for row in hf_weights.MAPS[model_type]}
    return rows[HEAD], rows["embed/embedding"]


def _equal(folder: files.TensorFolder, a: str, b: str, rows: int = 4096) -> bool:
    """Whether two tensors of equal shape are equal, read a block of rows at a time."""
    total = folder.shapes[a][0]
    cuts = (slice(i, min(i + rows, total)) for i in range(0, total, rows))
    return all(
        np.array_equal(folder.read(a, (cut,)), folder.read(b, (cut,))) for cut in cuts
    )


def _check_params(wanted, flat: Mapping[str, Any]) -> None:
    expected = {n: s.shape for n, s in flatten_names(wanted).items()}
    shapes = {name: tuple(x.shape) for name, x in flat.items()}
    wrong = [
        f"{name} is {list(shapes[name]) if name in shapes else 'absent'}, "
        f"expected {list(expected[name]) if name in expected else 'absent'}"
        for name in sorted({*shapes, *expected})
        if shapes.get(name) != expected.get(name)
    ]
    if wrong:
        raise CheckpointError("params do not fit the config: " + files.listed(wrong))


def check_replaceable(directory: Path) -> None:
    """CheckpointError unless the folder is absent, empty, or wholly our own export."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: is a file; expected a folder to write")
    names = {p.name for p in directory.iterdir()}
    if not names:
        return
    ours: set[str] = set()
    if EXPORT in names:
        record = files.read_json(directory / EXPORT)
        if isinstance(record, dict) and record.get("written_by") == "salign":
            ours = set(map(str, record.get("files") or ()))
    foreign = sorted(names - ours)
    if foreign:
        raise CheckpointError(
            f"{directory}: not replaced, it holds files that no export wrote: "
            f"{files.listed(foreign, 5)}; choose another folder or remove it"
        )


def _replace(directory: Path, partial: Path) -> None:
    """Puts the finished folder in place of the old one, if there is one."""
    if is_remote(directory):
        return upload(partial, directory, EXPORT)
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    try:
        partial.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise
    files.sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)
