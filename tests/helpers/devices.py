"""A script of this folder in a process of its own, on simulated devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_on_devices(count: int, script: str, folder: Path, *arguments: str):
    """What `tests/helpers/<script> folder arguments...` prints on its last line."""
    flags = f"--xla_force_host_platform_device_count={count}"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/helpers" / script, folder, *arguments],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=max(300, int(os.environ.get("HANGS_AFTER", 0))),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
