"""Metrics of a run: one JSON line per event, the same numbers for TensorBoard.

A line holds "step" (updates done so far) and named numbers: `train/loss`,
`train/grad_norm`, `train/lr`, `eval/loss`, `eval/perplexity`, which replay exactly when
a run is resumed, and `perf/*` and `time`, which are of the clock.
"""

import json
import math
from collections.abc import Mapping, Sequence

from models.errors import CheckpointError
from models.paths import as_path
from train.appended import appended
from train.board import Board

# Peak dense bfloat16 FLOP/s per chip, from the vendors' data sheets; the first name
# that `device_kind` contains counts.
PEAK_FLOPS = (
    ("TPU v6", 918e12),
    ("TPU v5p", 459e12),
    ("TPU v5e", 197e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a chip by `jax.Device.device_kind`; None if unknown."""
    return next((peak for name, peak in PEAK_FLOPS if name in device_kind), None)


def is_clock(name: str) -> bool:
    """Whether a metric is of the clock, so that a resumed run may differ in it."""
    return name == "time" or name.startswith("perf/")


def summarize(steps: Sequence[Mapping], prefix: str = "train") -> dict[str, float]:
    """One set of numbers from the metrics of several steps.

    Pairs [sum, weight] are summed, then divided (left out where nothing has weight);
    "lr" is that of the last step; other numbers are averaged.
    """
    row = {}
    for name in steps[-1] if steps else ():
        values = [step[name] for step in steps]
        if isinstance(values[0], list | tuple):
            weight = math.fsum(w for _, w in values)
            if weight:
                row[f"{prefix}/{name}"] = math.fsum(s for s, _ in values) / weight
        elif name == "lr":
            row[f"{prefix}/{name}"] = values[-1]
        else:
            row[f"{prefix}/{name}"] = math.fsum(values) / len(values)
    return row


class MetricsLog:
    """Appends rows to `metrics.jsonl` and to TensorBoard files beside it.

    `position` (bytes) is where a resumed run continues; what follows it is cut off.
    With folder None rows are only kept in `rows`, which also holds the earlier ones.
    In a folder on gs:// what was written last comes half a minute later, TensorBoard's
    two minutes; of rows all are there before a checkpoint is saved.
    """

    def __init__(self, folder, *, position: int = 0, tensorboard: bool = True):
        self.rows: list[dict] = []
        self._file = self._board = None
        if folder is None:
            return
        folder = as_path(folder)
        path = folder / "metrics.jsonl"
        if position:
            self.rows = _read_rows(path, position)
        self._file = appended(path, position)
        if tensorboard:
            last = self.rows[-1]["step"] if self.rows else 0
            self._board = Board(folder / "tensorboard", last + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a row; what is not finite becomes null in the file."""
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        row = {"step": step, **finite}
        self.rows.append(row)
        if self._file is not None:
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        if self._board is not None:
            shown = {k: v for k, v in finite.items() if k != "time" and v is not None}
            self._board.write(step, shown)

    def position(self) -> int:
        """Bytes of the file so far, on disk when this returns."""
        return 0 if self._file is None else self._file.position()


def _read_rows(path, size: int) -> list[dict]:
    """The rows in the first `size` bytes; CheckpointError names a damaged line."""
    content = path.read_bytes() if path.exists() else b""
    if len(content) < size:
        raise CheckpointError(
            f"{path}: expected the {size} bytes written before the checkpoint, "
            f"found {len(content)}"
        )
    rows = []
    for number, line in enumerate(content[:size].splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "step" not in row:
            raise CheckpointError(f"{path}:{number}: damaged; expected a row of JSON")
        rows.append(row)
    return rows
