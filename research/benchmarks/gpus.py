"""What GPUs can do: dense bfloat16 FLOP/s and memory bandwidth, by the name JAX gives.

The numbers are those of NVIDIA's data sheets, without sparsity.
"""

from typing import NamedTuple


class Gpu(NamedTuple):
    """flops: bfloat16 with float32 sums, per second; bandwidth: bytes per second."""

    flops: float
    bandwidth: float


# The first whose words are all in the device's name.
GPUS = {
    "H100 PCIe": Gpu(756e12, 2039e9),
    "H100 NVL": Gpu(835e12, 3938e9),
    "H100": Gpu(989.4e12, 3352e9),
    "H200": Gpu(989.4e12, 4800e9),
    "GH200": Gpu(989.4e12, 4000e9),
    "B200": Gpu(2250e12, 8000e9),
    "A100 PCIE 80GB": Gpu(312e12, 1935e9),
    "A100 80GB": Gpu(312e12, 2039e9),
    "A100": Gpu(312e12, 1555e9),
    "L40S": Gpu(362e12, 864e9),
    "L4": Gpu(121e12, 300e9),
    "A10": Gpu(125e12, 600e9),
    "RTX 4090": Gpu(165.2e12, 1008e9),
}


def known(kind: str) -> Gpu | None:
    """The GPU of that name, as "NVIDIA H100 80GB HBM3"; None where it is not known."""
    words = set(kind.lower().replace("-", " ").split())
    for name, gpu in GPUS.items():
        if set(name.lower().split()) <= words:
            return gpu
    return None
