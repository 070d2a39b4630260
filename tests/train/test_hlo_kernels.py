"""FLOPs of attention kernels are those of the products of visible pairs."""

import pytest

from train.hlo_kernels import kernel_flops
from train.hlo_text import Shape

N, H = 2, 128


def operands(rows: int, columns: int, T: int, S: int):
    blocks = Shape("s8", (1, rows, columns))
    q, k = Shape("bf16", (N, T, H)), Shape("bf16", (N, S, H))
    return [blocks, blocks, q, k, k, Shape("s32", (T, H))]


@pytest.mark.parametrize(("kernel", "products"), [("fwd", 2), ("dq", 3), ("dkv", 4)])
def test_causal_rows(kernel, products):
    T = 4096
    found = kernel_flops(f"splash_mha_{kernel}_segmented.3", operands(8, 8, T, T))
    assert found == products * 2 * N * H * T * (T + 1) / 2


def test_windows_cost_the_blocks_that_they_touch():
    """A grid of 2 blocks of 512 keys to a block of queries, and the reverse."""
    T, blocks = 4096, 16 * 512**2
    for kernel, grid, products in (("fwd", (8, 2), 2), ("dkv", (2, 8), 4)):
        found = kernel_flops(f"splash_mha_{kernel}_x", operands(*grid, T, T))
        assert found == products * 2 * N * H * blocks


def test_the_last_part_of_the_queries_counts():
    """Of four parts of a row: all keys for each query, but the later ones."""
    T, S = 1024, 4096
    found = kernel_flops("splash_mha_fwd_segmented", operands(2, 8, T, S))
    assert found == 4 * N * H * sum(range(S - T + 1, S + 1))


def test_other_kernels_are_not_known():
    assert kernel_flops("custom-call.3", operands(8, 8, 64, 64)) is None
