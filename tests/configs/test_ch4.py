"""Every variant of chapter 4 runs to its end, made tiny."""

import pytest
from helpers.config_runs import run_shipped, shipped


@pytest.mark.parametrize(
    ("path", "variant"),
    shipped(
        lambda name: name.startswith("ch4_"),
        slow=lambda name: not name.endswith((":paper_opt", ":paper_ul2")),
    ),
)
def test_every_variant_runs(path, variant, tmp_path):
    """Exit code 0, a report, and a second run that has nothing left to do."""
    run_shipped(path, variant, tmp_path)
