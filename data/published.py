"""Published data sets through TensorFlow Datasets, read without TensorFlow.

TFDS reads ArrayRecord files by index; a data set is prepared once with
`builder.download_and_prepare(file_format="array_record")`, on any machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import DataError
from data.formats import nearest
from data.records import Record


@dataclass(frozen=True)
class TfdsSource:
    """A prepared split by index: `source[i]` is a dict of strings, numbers, arrays."""

    name: str
    split: str
    data: Any

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        row = to_text(self.data[index])
        if isinstance(messages := row.get("messages"), dict):
            # TFDS keeps a sequence of objects as an object of lists.
            columns = messages.values()
            row["messages"] = [
                dict(zip(messages, m, strict=True)) for m in zip(*columns, strict=True)
            ]
        return row

    def records(self) -> Iterator[Record]:
        """Rows as the readers of files give them, for `data.formats.parse_record`."""
        for i in range(len(self)):
            yield Record(self[i], f"tfds:{self.name}/{self.split}", i + 1)


def load_tfds(name: str, split: str, data_dir=None) -> TfdsSource:
    """A split of a prepared TFDS data set; slices such as 'train[:10%]' work.

    Raises DataError if it is unknown, not prepared under `data_dir`, or not in the
    ArrayRecord format."""
    import tensorflow_datasets as tfds

    wanted = f"tfds:{name}"
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        near = nearest(name, tfds.list_builders(with_community_datasets=False))
        hint = f"; did you mean {near!r}?" if near else ""
        raise DataError(f"{wanted}: no such data set in {data_dir}{hint}") from error
    if not builder.is_prepared():
        raise DataError(
            f"{wanted}: not prepared in {builder.data_dir}; run its builder's "
            "download_and_prepare(file_format='array_record') first"
        )
    try:
        data = builder.as_data_source(split)
    except (ValueError, OSError, NotImplementedError) as error:
        raise DataError(f"{wanted}: split {split!r} cannot be read: {error}") from error
    return TfdsSource(name, split, data)


def to_text(value: Any) -> Any:
    """TFDS's bytes as strings, its array scalars as numbers, in any nesting."""
    if isinstance(value, dict):
        return {key: to_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_text(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [to_text(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
