"""Composite checkpoints of a run: whole or absent, verified, and never guessed at.

A folder holds one folder per saved step:

    00000040/state/         arrays by name (Orbax), restorable on another mesh
    00000040/meta/          what else the run needs to continue (JSON), see `save`
    00000040/manifest.json  size and SHA-256 of each file, checked before a restore

Orbax notices a missing array but not every damaged one, hence the manifest. It is
written just before the folder gets its final name, so no folder is without it. On gs://
folders have no names to get: there a last object, commit_success.txt, says that all is
written, and the store keeps the contents, so that the manifest has only sizes.
"""

import hashlib
import json
import re
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from models.errors import CheckpointError
from models.paths import (
    absolute,
    as_path,
    children,
    is_remote,
    remove_tree,
    sizes_below,
)
from train.distributed import by_first
from train.files import write_json

FORMAT = "salign checkpoint 1"
MANIFEST = "manifest.json"
# Hashing a file costs about a second per gigabyte: above this, its size has to do.
HASHED_BYTES = 1 << 30
# Orbax writes these around its commit, after the manifest.
COMMIT = "commit_success.txt"
_UNLISTED = {MANIFEST, "_CHECKPOINT_METADATA", COMMIT}
_STEP = re.compile(r"\d{8,}")
_LEFTOVER = re.compile(r"\d{8,}\.(orbax-checkpoint-tmp.*|deleted)")


class _Handler(ocp.CompositeCheckpointHandler):
    def finalize(self, directory):
        super().finalize(directory)
        write_manifest(as_path(directory))


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _Args(ocp.args.Composite):
    """Tells Orbax to use our handler, which writes a manifest."""


class Checkpoints:
    """The checkpoints of one run, written in the background one at a time.

    Keeps the last `keep_last`, and the one whose meta["eval"][best] is lowest, or
    highest. Use as a context manager: leaving it waits for the write under way.

    Of several processes all make the same calls, on a folder that they share: each
    writes and reads its part of the arrays. What else is read, process 0 tells them.
    """

    def __init__(
        self,
        folder,
        *,
        keep_last: int = 2,
        best: str | None = None,
        highest: bool = False,
    ):
        self.folder = absolute(folder)
        self.keep_last, self.best, self.highest = keep_last, best, highest
        self._writer = ocp.AsyncCheckpointer(
            _Handler(
                state=ocp.StandardCheckpointHandler(), meta=ocp.JsonCheckpointHandler()
            )
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._writer.close()
        self._prune()

    def steps(self) -> list[int]:
        """Saved steps in order; CheckpointError if the folder holds anything else."""
        found = []
        for path in children(self.folder):
            if _STEP.fullmatch(path.name) and path.is_dir():
                if _committed(path):
                    found.append(int(path.name))
            elif not _LEFTOVER.fullmatch(path.name):
                raise CheckpointError(
                    f"{path}: not a checkpoint of this program; expected a new folder, "
                    "or one that holds a run"
                )
        return found

    def latest(self) -> int | None:
        return by_first(lambda: max(self.steps(), default=None))

    def best_step(self) -> int | None:
        """The kept step whose eval metric is best, None before the first."""
        return by_first(self._best_step)

    def _best_step(self) -> int | None:
        evals = {step: self._meta(step)["eval"] for step in self.steps()}
        scores = {step: scores.get(self.best) for step, scores in evals.items()}
        scores = {step: score for step, score in scores.items() if score is not None}
        sign = -1 if self.highest else 1
        return min(scores, key=lambda s: (sign * scores[s], s)) if scores else None

    def path(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def meta(self, step: int) -> dict:
        """What was saved beside the arrays; CheckpointError unless it is intact."""
        return by_first(lambda: self._meta(step))

    def _meta(self, step: int) -> dict:
        path = self.path(step) / "meta" / "metadata"
        verify(self.path(step), within="meta/")
        try:
            meta = json.loads(path.read_bytes())
        except (OSError, ValueError) as e:
            raise CheckpointError(f"{path}: not readable: {e}") from e
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise CheckpointError(f"{path}: not a checkpoint of this program")
        if meta.get("step") != step:
            raise CheckpointError(
                f"{path}: expected step {step} as in the folder's name, "
                f"found {meta.get('step')}"
            )
        return meta

    def save(self, step: int, state, meta: dict) -> None:
        """Copies the state, then writes it in the background.

        meta: JSON values; "eval" maps the names of metrics at this step to numbers.
        Waits for the previous write, and raises what went wrong with it.
        """
        self._writer.wait_until_finished()
        by_first(self._prune)
        arrays = by_name(state)
        tree = {name: [list(x.shape), x.dtype.name] for name, x in arrays.items()}
        meta = {"format": FORMAT, "step": step, "eval": {}, **meta, "tree": tree}
        # A copy: it is written while the caller goes on changing its lists.
        meta = json.loads(json.dumps(meta, allow_nan=False))
        self._writer.save(
            self.path(step),
            args=_Args(
                state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
            ),
        )

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._writer.wait_until_finished()

    def restore(self, step: int, like):
        """The state of a step, with the tree and the shardings of `like`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings (`abstract_state`).

        Raises CheckpointError naming the file or the array that is not as expected.
        """
        path = self.path(step)
        by_first(lambda: verify(path))
        wanted, saved = by_name(like), self.meta(step)["tree"]
        check_tree(path, wanted, saved)
        try:
            arrays = self._writer.restore(
                path, args=_Args(state=ocp.args.StandardRestore(wanted))
            )["state"]
        except (ValueError, OSError, KeyError, TypeError) as e:
            reason = " ".join(str(e).split())[:300]
            raise CheckpointError(f"{path}: cannot be restored: {reason}") from e
        return jax.tree.unflatten(
            jax.tree.structure(like), [arrays[name] for name in wanted]
        )

    def _prune(self) -> None:
        """Removes steps that are not kept, and what a killed process left behind."""
        if jax.process_index() != 0 or not self.folder.is_dir():
            return
        steps = self.steps()
        kept = set(steps[-self.keep_last :])
        if self.best is not None and len(steps) > self.keep_last:
            kept.add(self._best_step())
        for step in steps:
            if step not in kept:
                self._disown(step)
        for path in children(self.folder):
            if _LEFTOVER.fullmatch(path.name) or not _committed(path):
                remove_tree(path)

    def _disown(self, step: int) -> None:
        """What is being deleted, half a checkpoint, must not look like one."""
        if is_remote(self.folder):
            (self.path(step) / COMMIT).unlink()
        else:
            self.path(step).rename(self.folder / f"{step:08d}.deleted")


def _committed(path) -> bool:
    """Whether a step's folder is whole; a local one is, by having its name."""
    return not is_remote(path) or (path / COMMIT).exists()


def by_name(tree) -> dict:
    """{"params/embed/embedding": leaf, ...}, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def check_tree(path: Path, wanted: dict, saved: dict) -> None:
    """Raises CheckpointError naming arrays that are missing, unknown or misshapen."""
    missing, unknown = wanted.keys() - saved.keys(), saved.keys() - wanted.keys()
    if missing or unknown:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has the unexpected {_some(unknown)}"] if unknown else []
        raise CheckpointError(f"{path}: {' and '.join(parts)}")
    for name, array in wanted.items():
        shape, dtype = saved[name]
        if (list(array.shape), array.dtype.name) != (shape, dtype):
            raise CheckpointError(
                f"{path}: {name}: expected {array.dtype.name} {list(array.shape)}, "
                f"the checkpoint has {dtype} {shape}"
            )


def write_manifest(folder: Path) -> None:
    """Lists the files of a checkpoint with their sizes and SHA-256."""
    files = {
        name: [size, _digest(folder / name, size)]
        for name, size in sizes_below(folder).items()
        if name not in _UNLISTED
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files})


def verify(folder: Path, within: str = "") -> None:
    """Compares a checkpoint with its manifest; CheckpointError names the bad file.

    `within` ("meta/") looks at the files of that part only.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        files = dict(manifest["files"])
        ours = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(
            f"{folder}: not a checkpoint of this program ({MANIFEST}: {e})"
        ) from e
    if not ours:
        raise CheckpointError(f"{path}: expected the format {FORMAT!r}")
    found = sizes_below(folder)
    for name, (size, digest) in files.items():
        if not name.startswith(within):
            continue
        file = folder / name
        advice = f"the checkpoint is damaged; delete {folder} to use the one before"
        if name not in found:
            raise CheckpointError(f"{file}: missing; {advice}")
        if found[name] != size:
            raise CheckpointError(
                f"{file}: expected {size} bytes, found {found[name]}; {advice}"
            )
        if digest is not None and _digest(file, size) != digest:
            raise CheckpointError(f"{file}: its contents have changed; {advice}")


def _digest(path: Path, size: int) -> str | None:
    if size > HASHED_BYTES or is_remote(path):
        return None
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _some(names) -> str:
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
