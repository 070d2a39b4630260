"""Tensors of a safetensors file on an object store, read by ranges of bytes.

The format: 8 bytes (length of the header, little-endian), the header {name: {dtype,
shape, data_offsets}} in JSON, the tensors: https://github.com/huggingface/safetensors.
The objects here have the methods that those of `safetensors.safe_open` have.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models.errors import CheckpointError
from models.paths import file_system

MAX_HEADER = 100_000_000  # that of the library


class RemoteFile:
    """A safetensors file of which only the header has been read."""

    def __init__(self, path, dtypes: Mapping[str, np.dtype]):
        self.path, self.dtypes = path, dtypes
        self._files, self._name = file_system(path)
        self._held: tuple[tuple[int, int], bytes] = ((0, 0), b"")
        self.tensors, self._start = self._header()

    def keys(self) -> list[str]:
        return list(self.tensors)

    def get_slice(self, name: str) -> "RemoteSlice":
        return RemoteSlice(self, self.tensors[name])

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of the tensors. The last ones stay: of the same rows, each device of a
        host may want other columns."""
        if (start, stop) != self._held[0]:
            self._held = ((0, 0), b"")  # room for the new ones
            begin, end = self._start + start, self._start + stop
            data = self._files.cat_file(self._name, start=begin, end=end)
            if len(data) != stop - start:
                raise CheckpointError(
                    f"{self.path}: cannot read bytes {begin} to {end}: got {len(data)}"
                )
            self._held = ((start, stop), data)
        return self._held[1]

    def _header(self) -> tuple[dict[str, Any], int]:
        """(what the header says of each tensor, where the tensors start)."""
        try:
            total = self._files.info(self._name)["size"]
            if total < 8:
                raise ValueError(f"it has {total} bytes")
            size = int.from_bytes(self._files.cat_file(self._name, 0, 8), "little")
            if not 0 < size <= min(MAX_HEADER, total - 8):
                raise ValueError(f"the header has {size} of the file's {total} bytes")
            header = json.loads(self._files.cat_file(self._name, 8, 8 + size))
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                begin, end = tensor["data_offsets"]
                if not 0 <= begin <= end <= total - 8 - size:
                    raise ValueError(f"{name} ends behind the file")
                dtype = self.dtypes.get(tensor["dtype"])
                wanted = math.prod(tensor["shape"]) * (dtype.itemsize if dtype else 0)
                if dtype is not None and wanted != end - begin:
                    raise ValueError(f"{name} has {end - begin} bytes, not {wanted}")
        except OSError as e:
            raise CheckpointError(f"{self.path}: cannot read: {e}") from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise CheckpointError(
                f"{self.path}: not a whole safetensors file (truncated upload?): {e}"
            ) from e
        return header, 8 + size


class RemoteSlice(NamedTuple):
    """A tensor of a file, of which slices are read."""

    file: RemoteFile
    about: Mapping[str, Any]

    def get_shape(self) -> list[int]:
        return list(self.about["shape"])

    def get_dtype(self) -> str:
        return self.about["dtype"]

    def __getitem__(self, index) -> np.ndarray:
        """Reads the rows (along the first axis) that a tuple of slices needs."""
        shape, dtype = self.about["shape"], self.file.dtypes.get(self.get_dtype())
        if dtype is None:
            raise CheckpointError(f"{self.file.path}: {self.get_dtype()} is not read")
        offset, end = self.about["data_offsets"]
        if not shape:
            return np.frombuffer(self.file.read(offset, end), dtype).reshape(())
        index = index if isinstance(index, tuple) else (index,)
        first, last, _ = index[0].indices(shape[0])
        rows = max(0, last - first)
        width = math.prod(shape[1:]) * dtype.itemsize
        data = self.file.read(offset + first * width, offset + (first + rows) * width)
        array = np.frombuffer(data, dtype).reshape(rows, *shape[1:])
        return array[(slice(None), *index[1:])]
