"""Files that are either whole or absent: write beside, flush to disk, rename.

On an object store that is what writing does anyway.
"""

import json
import os
from pathlib import Path

from models.paths import as_path, is_remote


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file such that a reader, or a crash, never sees half of it."""
    path = as_path(path)
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
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
