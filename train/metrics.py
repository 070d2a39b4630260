"""Metrics of a run: one JSON line per event, the same numbers for TensorBoard.

A line holds "step" (updates done so far) and named numbers: `train/loss`,
`train/grad_norm`, `train/lr`, `eval/loss`, `eval/perplexity`, which replay exactly when
a run is resumed, and `perf/*` and `time`, which are of the clock.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.errors import CheckpointError

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
    """

    def __init__(self, folder, *, position: int = 0, tensorboard: bool = True):
        self.rows: list[dict] = []
        self._file = self._board = None
        if folder is None:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            raise CheckpointError(
                f"{path}: expected the {position} bytes written before the checkpoint, "
                f"found {size}"
            )
        if position:
            self.rows = _read_rows(path, position)
        self._file = open(path, "ab")
        self._file.truncate(position)
        if tensorboard:
            from tensorboardX import SummaryWriter

            last = self.rows[-1]["step"] if self.rows else 0
            board = str(folder / "tensorboard")
            self._board = SummaryWriter(board, purge_step=last + 1)

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
            self._file.flush()
        if self._board is not None:
            for name, value in finite.items():
                if name != "time" and value is not None:
                    self._board.add_scalar(name, value, step)

    def position(self) -> int:
        """Bytes of the file so far, on disk when this returns."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()


def _read_rows(path: Path, size: int) -> list[dict]:
    """The rows in the first `size` bytes; CheckpointError names a damaged line."""
    with open(path, "rb") as f:
        lines = f.read(size).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "step" not in row:
            raise CheckpointError(f"{path}:{number}: damaged; expected a row of JSON")
        rows.append(row)
    return rows
