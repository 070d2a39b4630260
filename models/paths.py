"""Paths on this machine, and gs://BUCKET/NAME on Google Cloud Storage.

A local path is one of pathlib; a remote one is of etils, which acts alike, over gcsfs
(in requirements-tpu.txt). An object appears whole when it is written, but a store of
objects does not append, rename a folder or lock; folders are only parts of names.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

REMOTE = "gs://"
# What makes a folder one that can be read: of an upload these come last.
CONFIGS = ("config.json", "adapter_config.json")


def is_remote(path) -> bool:
    return os.fspath(path).startswith(REMOTE)


def as_path(path):
    """The path of a local name or of gs://BUCKET/NAME, which pathlib would garble."""
    if not is_remote(path):
        return Path(path)
    from etils import epath
    from fsspec.config import conf

    # Orbax writes past gcsfs, which would not know it from the listings that it keeps.
    conf.setdefault("gcs", {})["use_listings_cache"] = False
    return epath.Path(path)


def absolute(path):
    """`as_path`, a local one from the root on."""
    path = as_path(path)
    return path if is_remote(path) else path.absolute()


def same(a, b) -> bool:
    """Whether two paths name the same place."""
    a, b = as_path(a), as_path(b)
    if is_remote(a) or is_remote(b):
        return str(a) == str(b)
    return a.resolve() == b.resolve()


def children(folder) -> list:
    """What a folder holds, by name; nothing if there is no such folder."""
    folder = as_path(folder)
    try:
        if not is_remote(folder):
            return sorted(folder.iterdir())
        files, root = file_system(folder)
        names = [name.rstrip("/") for name in files.ls(root, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Some tools mark a folder by an empty object of its own name.
    return sorted(folder / n.rpartition("/")[2] for n in names if n != root)


def sizes_below(folder) -> dict[str, int]:
    """{name within the folder: bytes} of all files at any depth."""
    folder = as_path(folder)
    if not is_remote(folder):
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        return {p.relative_to(folder).as_posix(): p.stat().st_size for p in files}
    files, root = file_system(folder)
    found = files.find(root, detail=True)
    sizes = {name.removeprefix(root).lstrip("/"): x for name, x in found.items()}
    return {n: x["size"] for n, x in sizes.items() if n and not n.endswith("/")}


def remove_tree(folder) -> None:
    """Removes a folder with all that it holds, if it is there."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif children(folder):
        as_path(folder).rmtree(missing_ok=True)


def file_system(path):
    """(fsspec's file system, the name in it) of a remote path."""
    from fsspec.core import url_to_fs

    return url_to_fs(str(as_path(path)))


def beside(folder) -> Path:
    """A local path at which to make a folder that is to appear as a whole."""
    if is_remote(folder):
        return Path(tempfile.mkdtemp(prefix="salign-"))
    return folder.with_name(f".{folder.name}.partial")


def upload(local: Path, folder, record: str) -> None:
    """Puts the files of a local folder in the place of those of a remote one.

    A reader sees the old ones, no config, or the new ones. `record`, the file that
    lists them, comes first and goes last: what an interrupted upload left has one.
    """
    files, root = file_system(folder)
    old, new = list(sizes_below(folder)), [p.name for p in sorted(local.iterdir())]
    for name in sorted(old, key=lambda n: n not in CONFIGS):
        if name != record:
            files.rm_file(f"{root}/{name}")

    def put(names: Sequence[str]) -> None:
        files.put([str(local / n) for n in names], [f"{root}/{n}" for n in names])

    last = [n for n in new if n in CONFIGS]
    for group in ([record], [n for n in new if n not in (record, *last)], last):
        put([n for n in group if n in new])
