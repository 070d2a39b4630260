"""Every variant of every config but the chapters' runs to its end, in seconds.

A config or a variant that has no tiny overrides fails, so none can rot unseen: what no
other file of this folder claims is run here.
"""

import pytest
from helpers.config_runs import run_shipped, shipped


@pytest.mark.parametrize(
    ("path", "variant"),
    shipped(lambda name: not name.startswith("ch")),
)
def test_every_shipped_config_runs(path, variant, tmp_path):
    """Exit code 0, and what the config promises is there."""
    run_shipped(path, variant, tmp_path)
