"""Mesh sizes multiply to the number of devices, or the error says both numbers.

Meshes of 8 devices are made in tests/models/test_sharding.py's subprocess.
"""

import jax
import numpy as np
import pytest

from train.errors import ConfigError
from train.mesh import batch_sharding, make_mesh, replicated


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        (dict(data=3), 8, "data=3 x fsdp=-1.*8 devices do not divide by 3"),
        (dict(fsdp=3, tensor=2), 8, "makes 6, but there are 8 devices"),
        (dict(data=-1), 8, "only one axis may be -1, not data and fsdp"),
        (dict(tensor=0), 8, "mesh.tensor is 0; expected an int >= 1, or -1"),
        (dict(sequence=-2), 8, "mesh.sequence is -2"),
        (dict(fsdp=2.0), 8, "mesh.fsdp is 2.0"),
        (dict(fsdp=16), 8, "makes 16, but there are 8 devices"),
    ],
)
def test_impossible_sizes(sizes, count, message):
    with pytest.raises(ConfigError, match=message):
        make_mesh(**sizes, devices=[object()] * count)


def test_one_device():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert dict(mesh.shape) == dict(data=1, fsdp=1, tensor=1, sequence=1)
    x = jax.device_put(np.arange(6).reshape(3, 2), batch_sharding(mesh))
    np.testing.assert_array_equal(x + jax.device_put(1, replicated(mesh)), x + 1)
