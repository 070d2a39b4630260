"""Slices are read as Google Cloud writes them, and rings have two ways out."""

import pytest

from train.chips import CHIPS, Chip, group_bandwidth, parse_slice
from train.errors import ConfigError


@pytest.mark.parametrize(
    "text, chips, devices",
    [
        ("v5e:16x16", 256, 256),
        ("v5e:2x4", 8, 8),
        ("v5p:2x2x1", 4, 4),
        ("v4:4x4x4", 64, 64),
        ("tpu7x:2x2x1", 4, 8),
    ],
)
def test_slices_multiply_out(text, chips, devices):
    """chips = product of the axes; a tpu7x chip is two devices; the name returns."""
    found = parse_slice(text)
    assert (found.chips, found.devices, found.name) == (chips, devices, text)


@pytest.mark.parametrize(
    "text, told",
    [
        ("v5x:2x4", "unknown chip 'v5x'; did you mean"),
        ("v5e", "expected e.g. v5e:4x4, got 'v5e'"),
        ("v5e:2x0", "expected e.g. v5e:4x4"),
        ("v5e:-2x4", "expected e.g. v5e:4x4"),
        ("v5p:4x4", "has 3 axes, e.g. v5p:4x4x4"),
    ],
)
def test_errors_name_the_flag(text, told):
    with pytest.raises(ConfigError, match="^--topology: ") as e:
        parse_slice(text)
    assert told in str(e.value)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda c: c.name)
def test_numbers_are_in_the_units_they_claim(chip: Chip):
    """A chip has more FLOP/s than bytes/s of HBM, and more of those than of links."""
    assert 1e14 < chip.flops < 1e16
    assert 8 * 2**30 < chip.usable <= 1.01 * chip.hbm
    assert chip.hbm_bandwidth > chip.ici_bandwidth > 1e11


def test_a_group_along_one_ring_has_two_links_of_a_chip():
    """v5e has 4 links of 50 GB/s: a ring of 16 uses 2, the square of 256 all 4."""
    whole = parse_slice("v5e:16x16")
    assert group_bandwidth(whole, 16) == 100e9
    assert group_bandwidth(whole, 256) == 200e9
    assert group_bandwidth(parse_slice("v5e:8x8"), 8) == 50e9  # a line, not a ring
    assert group_bandwidth(parse_slice("v5e:2x4"), 8) == 100e9


def test_bandwidth_grows_with_the_axes_that_a_group_lies_along():
    where = parse_slice("v5p:4x4x4")
    found = [group_bandwidth(where, n) for n in (2, 4, 16, 64)]
    assert found == sorted(found)
    assert found[-1] == where.chip.ici_bandwidth
