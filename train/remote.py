"""Whether gs://BUCKET/NAME in a flag or a config can be used, before anything is."""

import importlib.util
import re

from models.paths import REMOTE, file_system
from train.errors import ConfigError

# https://cloud.google.com/storage/docs/buckets#naming, domains among them.
SHAPE = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/\s]+)+/?")


def check_remote(key: str, value: str, *, there: bool) -> None:
    """Raises ConfigError, by name of the key, for gs://... that cannot be used.

    there: it has to exist; else it may be new, but its bucket has to answer. Looks at
    nothing of other values.
    """
    if not value.startswith(REMOTE.rstrip("/")):
        return
    if not SHAPE.fullmatch(value):
        raise ConfigError(f"{key}: expected gs://BUCKET/NAME, got {value!r}")
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(
            f"{key}: {value} needs gcsfs: pip install -r requirements-tpu.txt "
            "-c constraints.txt"
        )
    try:
        files, name = file_system(value)
        files.info(name) if there else files.ls(name)
    except FileNotFoundError as e:
        if there:
            raise ConfigError(f"{key}: {value}: no such file or folder") from e
    except Exception as e:  # of gcsfs, of Google's libraries, of the network
        reason = " ".join(str(e).split()) or type(e).__name__
        raise ConfigError(f"{key}: {value}: cannot be reached: {reason}") from e
