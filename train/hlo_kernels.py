"""FLOPs of the Pallas kernels that programs call; HLO does not show what they do."""

import math
from collections.abc import Sequence

from train.hlo_text import Shape

# Matrix products of each kernel of splash attention, for all pairs of query and key:
# scores and values; with the gradient of scores, of values, of queries or of keys.
PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


def kernel_flops(name: str, operands: Sequence[Shape]) -> float | None:
    """FLOPs of a custom call, or None: not one of the kernels known here.

    Pairs of blocks that the kernel leaves out are not counted: later keys, and those
    before the window. Queries that are a part of a row count as its last ones: they see
    the most keys, and the other devices wait for them.

    Args:
      name: of the instruction, which begins with that of the kernel.
      operands: their shapes: which blocks to visit, masks, then q [..., N, T, H],
        k [..., K, S, H] and more.
    """
    products = next((n for k, n in PRODUCTS.items() if name.startswith(k)), None)
    floats = [s.dims for s in operands if s.dtype in ("bf16", "f32")]
    if products is None or len(floats) < 2:
        return None
    *lead, T, H = floats[0]
    S = floats[1][-2]
    rows, columns = operands[0].dims[-2:]
    # Blocks are squares; the axis that is not cut short tells their size.
    c = S // columns if name.startswith("splash_mha_dkv") else T // rows
    pairs = min(T * S - T * (T - 1) // 2, rows * columns * c * c)
    return 2.0 * products * H * math.prod(lead) * pairs
