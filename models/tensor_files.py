"""Folders of safetensors files: opened lazily, checked at once, written in shards."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file

from models.errors import CheckpointError
from models.paths import is_remote
from models.remote_tensors import RemoteFile

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}

_REFUSAL = """\
{directory}: weights are only there as pickle ({names}), which can run code and is not \
read. Convert them once, in a place that has torch and that you trust with the file:
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("{directory}")
    model.save_pretrained("{directory}-safe", safe_serialization=True)"""


class TensorFolder(NamedTuple):
    """The tensors of a checkpoint folder: shapes and dtypes known, values unread.

    shapes, dtypes: by tensor name; dtypes as safetensors spells them ("BF16")
    files: {tensor name: file}; slices: {tensor name: safetensors slice}
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    files: dict[str, Path]
    slices: dict[str, Any]

    def read(self, name: str, index: tuple[slice, ...] = (slice(None),)) -> np.ndarray:
        """A slice of a tensor, in its stored dtype; nothing else is read."""
        if not self.shapes[name]:
            return np.asarray(self.slices[name][:])
        try:
            return self.slices[name][index]
        except SafetensorError as e:
            raise CheckpointError(f"{self.files[name]}: cannot read {name}: {e}") from e


def read_json(path: Path) -> Any:
    """The value in a JSON file; CheckpointError names the file and the line."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as e:
        raise CheckpointError(f"{path}: cannot read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{path}: not UTF-8 text: {e}") from e
    except json.JSONDecodeError as e:
        raise CheckpointError(f"{path}:{e.lineno}: not valid JSON: {e.msg}") from e
    except RecursionError:
        raise CheckpointError(f"{path}: JSON is nested too deeply") from None


def open_folder(directory: Path) -> TensorFolder:
    """Opens `model.safetensors`, or the files that its index names.

    Raises:
      CheckpointError: no weights, only pickled weights, a damaged or missing file, an
        index that disagrees with its files, a dtype that is not a float of 16 to 64
        bits.
    """
    index = None
    if (directory / SINGLE).exists():
        paths = [directory / SINGLE]
    elif (directory / INDEX).exists():
        index = _read_index(directory / INDEX)
        paths = [directory / name for name in sorted(set(index.values()))]
    else:
        pickles = sorted(p.name for glob in PICKLES for p in directory.glob(glob))
        if pickles:
            names = listed(pickles, 3)
            raise CheckpointError(_REFUSAL.format(directory=directory, names=names))
        raise CheckpointError(f"{directory}: no weights: expected {SINGLE} or {INDEX}")
    folder = TensorFolder({}, {}, {}, {})
    for path in paths:
        opened = _open(path)
        for name in opened.keys():
            if index is not None and index.get(name) != path.name:
                continue  # the index decides which copy counts
            cut = opened.get_slice(name)
            folder.shapes[name] = tuple(cut.get_shape())
            folder.dtypes[name] = cut.get_dtype()
            folder.files[name] = path
            folder.slices[name] = cut
    lost = sorted(set(index or {}) - set(folder.shapes))
    if lost:
        told = [f"{name} in {index[name]}" for name in lost]
        raise CheckpointError(
            f"{directory / INDEX}: names tensors that are not in their files: "
            + listed(told)
        )
    return folder


def check_dtypes(folder: TensorFolder, names: Iterable[str]) -> None:
    """CheckpointError naming the tensors that are not plain floats (quantised ones)."""
    odd = [
        f"{name} ({folder.dtypes[name]})"
        for name in names
        if folder.dtypes[name] not in DTYPES
    ]
    if odd:
        where = folder.files[odd[0].split(" (")[0]].parent
        raise CheckpointError(
            f"{where}: tensors must be {', '.join(DTYPES)}; got {listed(odd)}. "
            "Quantised checkpoints are not supported: use the original weights"
        )


def listed(items: Iterable[str], limit: int = 10) -> str:
    """ "a, b, c and 5 more": the first `limit` items and how many were left out."""
    items = list(items)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _read_index(path: Path) -> dict[str, str]:
    index = read_json(path)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: expected a field weight_map {{tensor: file}}")
    for name, file in weights.items():
        # A plain name: an index must not lead out of its folder.
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise CheckpointError(
                f"{path}: weight_map[{name!r}] is {file!r}; expected a file name"
            )
    absent = sorted(f for f in set(weights.values()) if not (path.parent / f).is_file())
    if absent:
        raise CheckpointError(f"{path}: names files that are absent: {listed(absent)}")
    return weights


def _open(path: Path):
    if is_remote(path):
        return RemoteFile(path, DTYPES)
    try:
        return safe_open(path, framework="np")
    except SafetensorError as e:
        raise CheckpointError(
            f"{path}: not a whole safetensors file (truncated download?): {e}"
        ) from e
    except OSError as e:
        raise CheckpointError(f"{path}: cannot read: {e}") from e


class Shard(NamedTuple):
    """A file to be written and the tensors that go into it."""

    file: str
    names: tuple[str, ...]


def plan_shards(nbytes: Mapping[str, int], max_shard_bytes: float) -> list[Shard]:
    """Tensors in order; a new file where the next one does not fit in the last."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in nbytes.items():
        if groups[-1] and used + size > max_shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    if len(groups) == 1:
        return [Shard(SINGLE, tuple(groups[0]))]
    total = len(groups)
    return [
        Shard(f"model-{i:05d}-of-{total:05d}.safetensors", tuple(names))
        for i, names in enumerate(groups, 1)
    ]


def write_shards(
    directory: Path,
    shards: list[Shard],
    nbytes: Mapping[str, int],
    tensor: Callable[[str], np.ndarray],
) -> None:
    """Writes shards, one in memory at a time, and the index if there are several."""
    for shard in shards:
        # The arrays must live until the file is written: specs hold bare addresses.
        arrays = {name: np.ascontiguousarray(tensor(name)) for name in shard.names}
        specs = {
            name: TensorSpec(
                dtype=a.dtype.name,
                shape=a.shape,
                data_ptr=a.ctypes.data,
                data_len=a.nbytes,
            )
            for name, a in arrays.items()
        }
        serialize_file(specs, directory / shard.file, {"format": "pt"})
        sync(directory / shard.file)
        del arrays, specs
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(nbytes.values())},
            "weight_map": {n: shard.file for shard in shards for n in shard.names},
        }
        write_json(directory / INDEX, index)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, down to the disk."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
    sync(path)


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
