"""Environments of other libraries: built with pip from kept versions, used again.

Each peer has a folder with a virtual environment and `versions.json`, which is written
last: what is in the environment, and what it was asked for.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from research.benchmarks.common import last_lines

PINS = Path(__file__).parent / "peers"
STAMP = "versions.json"


class NotBuilt(Exception):
    """An environment that could not be built; says what failed."""


class Peer(NamedTuple):
    """A library to compare with: `packages` are asked for, `script` runs in `peers/`.

    All other versions are those of peers/<name>.txt.
    """

    name: str
    packages: tuple[str, ...]
    script: str
    shown: tuple[str, ...]  # packages whose versions the table names


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "trl",
            ("trl==1.9.2", "torch==2.13.0"),
            "trl_ppo.py",
            ("trl", "torch", "transformers"),
        ),
        Peer(
            "tunix",
            ("google-tunix==0.1.7", "jax==0.10.2"),
            "tunix_ppo.py",
            ("google-tunix", "jax", "flax"),
        ),
    )
}


def request(peer: Peer) -> list[str]:
    """What an environment is made of, for pip; the pins are part of it."""
    pins = (PINS / f"{peer.name}.txt").read_text().split()
    return [*peer.packages, *pins]


def build(peer: Peer, folder: Path) -> Path:
    """The Python of the peer's environment in `folder`, which is built if it must be.

    Raises NotBuilt with the last lines of what failed; its output is in build.log.
    """
    home = folder / peer.name
    python = home / "bin" / "python"
    if built(peer, folder):
        return python
    home.mkdir(parents=True, exist_ok=True)
    stamp, log = home / STAMP, home / "build.log"
    stamp.unlink(missing_ok=True)
    pins = str(PINS / f"{peer.name}.txt")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    print(f"building {home} (its output: {log})", file=sys.stderr)
    with open(log, "w") as out:
        for command in (
            [sys.executable, "-m", "venv", str(home)],
            [*pip, "install", *peer.packages, "--constraint", pins],
        ):
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT)
            if done.returncode:
                raise NotBuilt(f"{' '.join(command)}: {last_lines(log)}")
    listed = subprocess.run(
        [*pip, "list", "--format=json"], capture_output=True, text=True, check=True
    )
    versions = {p["name"].lower(): p["version"] for p in json.loads(listed.stdout)}
    content = {"request": request(peer), "versions": versions}
    stamp.write_text(json.dumps(content, indent=2) + "\n")
    return python


def built(peer: Peer, folder: Path) -> bool:
    """Whether the peer's environment is there, as it would be built now."""
    stamp = folder / peer.name / STAMP
    if not stamp.exists():
        return False
    return json.loads(stamp.read_text())["request"] == request(peer)


def versions(peer: Peer, folder: Path) -> dict[str, str]:
    """Every package of a built environment and its version."""
    return json.loads((folder / peer.name / STAMP).read_text())["versions"]
