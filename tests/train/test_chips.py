"""Slices are read as Google Cloud writes them, and whole rings have two ways out."""

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
        ("v5e:64x64", "no slice 'v5e:64x64'; expected one of v5e:1x1, v5e:2x2"),
        ("v5e:4x6", "no slice"),
        ("v5e:2x16", "no slice"),
        ("v5e:16x32", "no slice"),
        ("v5p:2x2x6", "expected one of v5p:2x2x1"),
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


@pytest.mark.parametrize("name, pod, chips, digits", [
    ("v4", 1.1e15, 4096, 2),
    ("v5e", 51.2e12, 256, 3),
    ("v6e", 102.4e12, 256, 4),
])  # fmt: skip
def test_all_chips_of_a_pod_reach_its_all_reduce(name, pod, chips, digits):
    """Equality, in the digits of Google's pages, with what a pod does in bytes/s.

    A whole slice that is a torus has all of each chip's links.
    """
    total = chips * CHIPS[name].ici_bandwidth
    assert float(f"{total:.{digits - 1}e}") == pod
    largest = parse_slice(f"{name}:{CHIPS[name].shapes[-1]}")
    assert group_bandwidth(largest, largest.chips) == CHIPS[name].ici_bandwidth


def links(topology: str, *groups: int) -> list[float]:
    """Links of a chip that collectives of so many devices use."""
    where = parse_slice(topology)
    link = where.chip.ici_bandwidth / (2 * where.chip.axes)
    return [group_bandwidth(where, group) / link for group in groups]


def test_only_a_group_that_fills_a_ring_has_two_links():
    """v5e has 4 links of 50 GB/s: a ring of 16 uses 2, the square of 256 all 4.

    A part of a ring is a line: its ends have one link to the rest.
    """
    whole = parse_slice("v5e:16x16")
    assert group_bandwidth(whole, 16) == 100e9
    assert group_bandwidth(whole, 256) == 200e9
    assert links("v5e:16x16", 2, 4, 8, 16, 32, 256) == [1, 1, 1, 2, 3, 4]
    assert links("v5e:8x16", 2, 8, 16, 128) == [1, 1, 2, 3]
    assert links("v5e:8x8", 2, 4, 8, 16, 64) == [1, 1, 1, 2, 2]
    assert links("v5e:2x4", 8) == [2]


def test_a_slice_smaller_than_a_cube_is_no_torus():
    """v4 and v5p close their axes all or none: all are multiples of 4, or lines."""
    assert links("v5p:4x4x4", 2, 4, 16, 64) == [1, 2, 4, 6]
    assert links("v5p:4x8x8", 4, 8, 64, 256) == [2, 2, 4, 6]
    assert links("v5p:2x4x4", 2, 4, 8, 16, 32) == [1, 1, 2, 2, 3]
    assert links("v4:2x2x4", 2, 4, 16) == [1, 2, 3]


def test_both_devices_of_a_chip_are_beside_each_other():
    """A tpu7x chip is two: 8 devices are the 4 chips of a square."""
    assert links("tpu7x:2x2x1", 2, 8) == [2, 2]
    assert links("tpu7x:4x4x4", 8) == [2]
