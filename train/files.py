"""Files that are either whole or absent: write beside, flush to disk, rename."""

import json
import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file such that a reader, or a crash, never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def write_json(path: Path, value) -> None:
    """`write_atomic` of indented JSON; NaN and unknown types raise."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
