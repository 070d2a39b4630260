"""Every parameter has a sharding, and each device reads its slice of it and no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import forward
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from models.decoder import param_shapes
from models.kernels import Adapted
from models.params import flatten_names
from models.pretrained import from_pretrained
from models.quantized import Int8
from models.sharding import RULES, Rule, fill_rows, fitting, param_specs

ROOT = Path(__file__).parents[2]
KERNEL = jax.ShapeDtypeStruct((4, 4), np.float32)
NAMES = ("llama", "llama-tied-bias", "internlm2", "qwen3-bias-sliding")


def mesh(data=1, fsdp=1, tensor=1, sequence=1):
    sizes = dict(data=data, fsdp=fsdp, tensor=tensor, sequence=sequence)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


@pytest.fixture(scope="module")
def eight(checkpoints, tmp_path_factory):
    """What helpers/eight_devices.py found, and the folder of its exports."""
    out = tmp_path_factory.mktemp("exports")
    folders = [str(checkpoints(name).folder) for name in NAMES]
    flags = "--xla_force_host_platform_device_count=8"
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, ROOT / "tests/helpers/eight_devices.py", out, *folders],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), out


@pytest.mark.parametrize("name", NAMES)
def test_each_element_is_read_once(eight, name):
    """8 devices hold 2 copies of 4 parts; the file is read once, part by part.

    A head count that tensor=2 does not divide keeps its kv heads whole.
    """
    found = eight[0][name]
    assert found["equal"]
    assert found["elements_read"] == found["parameters"]
    assert found["largest_read"] < found["parameters"] / 10
    assert found["on_one_device"] < 0.45 * found["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_sharded_forward_equals_whole(eight, name):
    assert eight[0][name]["logit_difference"] < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_export_of_sharded_parameters(eight, checkpoints, name):
    """Bit for bit what was loaded, InternLM2 too, though it is written as a Llama."""
    found, out = eight
    before = flatten_names(from_pretrained(checkpoints(name).folder).params)
    after = flatten_names(from_pretrained(out / name).params)
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])


def test_specs_on_devices(eight):
    """Heads and ffn over tensor, the model axis over fsdp, odd vocabularies whole."""
    specs = eight[0]["llama"]["specs"]
    assert specs["layers/attn/q/kernel"] == "(None, 'fsdp', 'tensor', None)"
    assert specs["layers/mlp/down/kernel"] == "(None, 'tensor', 'fsdp')"
    assert specs["embed/embedding"] == "(None, 'fsdp')"  # 61 does not divide by 2
    one_head = eight[0]["llama-tied-bias"]["specs"]
    assert one_head["layers/attn/k/kernel"] == "(None, 'fsdp', None, None)"


def test_optimizer_state_lies_as_its_parameters(eight):
    """Both AdamW moments of every parameter; counters are on all devices."""
    found = eight[0]["optimizer"]
    for name, spec in found["params"].items():
        copies = [s for n, s in found["state"].items() if n.endswith(name)]
        assert len(copies) == 2 and set(copies) == {spec}
    rest = [s for n, s in found["state"].items() if "count" in n]
    assert rest and set(rest) == {"()"}


def test_mesh_sizes(eight):
    found = eight[0]["mesh"]
    assert found["default"] == dict(data=1, fsdp=8, tensor=1, sequence=1)
    assert found["filled"] == dict(data=2, fsdp=2, tensor=2, sequence=1)
    assert found["exact"] == dict(data=1, fsdp=2, tensor=2, sequence=2)


def test_rules_cover_every_parameter():
    """All optional parameters included, with as many axes as the parameter."""
    cfg = forward.TINY.__class__(
        **{
            **forward.TINY.__dict__,
            "qkv_bias": True,
            "out_bias": True,
            "mlp_bias": True,
            "qk_norm": True,
        }
    )
    shapes = param_shapes(cfg)
    specs = flatten_names(param_specs(shapes, mesh()))
    assert set(specs) == set(flatten_names(shapes))


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"gate": {"a": jax.ShapeDtypeStruct((3,), np.float32)}}, "gate/a"),
        ({"gate": {"kernel": KERNEL}}, "gate/kernel"),
        ({"gate": {"kernel": Adapted(KERNEL, KERNEL, KERNEL)}}, "gate/kernel/base"),
        ({"gate": {"kernel": Int8(KERNEL, KERNEL)}}, "gate/kernel/codes"),
    ],
)
def test_uncovered_parameter_is_named(tree, name):
    """Arrays, adapters and parts of quantised kernels that no rule knows."""
    shapes = param_shapes(forward.TINY) | tree
    with pytest.raises(ValueError, match=f"no sharding rule covers {name}"):
        param_specs(shapes, mesh())


def test_axes_that_do_not_divide_stay_whole():
    """Six rows over 2 x 2 devices, eight over them; one head over two."""
    rows = ("data", "fsdp")
    over = mesh(data=2, fsdp=2, tensor=2)
    assert fitting((6, 4, 3), over, rows, "tensor", None) == P(None, "tensor", None)
    assert fitting((8, 1, 3), over, rows, "tensor", None) == P(rows, None, None)
    assert [fill_rows(n, over) for n in (1, 4, 6)] == [4, 4, 8]
    assert fill_rows(6, None) == 6


def test_axis_that_does_not_divide_is_named():
    """Names the parameter, the axis, its size and the mesh."""
    with pytest.raises(ValueError) as e:
        param_specs(param_shapes(forward.TINY), mesh(fsdp=3))
    message = str(e.value)
    assert "axis 1 of (31, 16) does not divide into 3 parts" in message
    assert "embed/embedding" in message and "'fsdp': 3" in message


def test_uneven_axes_that_may_stay_whole():
    """A vocabulary of 31, and 2 kv heads over tensor=4; 4 query heads are split."""
    shapes = param_shapes(forward.TINY)
    specs = flatten_names(param_specs(shapes, mesh(tensor=4)))
    assert specs["embed/embedding"] == P(None, "fsdp")
    assert specs["layers/attn/k/kernel"] == P(None, "fsdp", None, None)
    assert specs["layers/attn/q/kernel"] == P(None, "fsdp", "tensor", None)


def test_own_rules_come_first():
    rules = (Rule("embed/.*", P()), *RULES)
    specs = flatten_names(param_specs(param_shapes(forward.TINY), mesh(), rules))
    assert specs["embed/embedding"] == P()
