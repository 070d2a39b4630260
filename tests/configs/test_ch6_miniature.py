"""The variants of chapter 6, in miniature, run to their ends."""

import pytest
from helpers.config_runs import run_shipped, shipped


@pytest.mark.parametrize(
    ("path", "variant"),
    shipped(
        lambda name: name.startswith("ch6_") and ":paper" not in name,
        # What they add to the demo runs in test_ch6_paper, too.
        slow=lambda name: name.endswith((":mini", ":report")),
    ),
)
def test_every_miniature_variant_runs(path, variant, tmp_path):
    """Exit code 0, a report, and a second run that has nothing left to do."""
    run_shipped(path, variant, tmp_path)
