"""The variants of chapter 6, at paper size, on tiny checkpoints and small files."""

import pytest
from helpers.config_runs import run_shipped, shipped


@pytest.mark.parametrize(
    ("path", "variant"),
    shipped(lambda name: name.startswith("ch6_") and ":paper" in name),
)
def test_every_paper_variant_runs(path, variant, tmp_path):
    """Exit code 0, a report, and a second run that has nothing left to do."""
    run_shipped(path, variant, tmp_path)
