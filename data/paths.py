"""Paths of what is read: on this machine, or gs://BUCKET/NAME."""

import os
from pathlib import Path


def as_path(path):
    """One of pathlib, which would garble gs://; for that one of etils, over gcsfs."""
    if not os.fspath(path).startswith("gs://"):
        return Path(path)
    from etils import epath

    return epath.Path(path)
