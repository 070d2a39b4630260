"""A base that is quantised as it is read: the same bits, and never held in full."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.devices import run_on_devices
from helpers.entry import checkpoint

from models import loading, reward_model, tensor_files
from models.errors import CheckpointError
from models.params import count, flatten_names
from models.pretrained import checkpoint_shapes, from_pretrained, read_config
from models.quantized import quantize_params


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    names = flatten_names(wanted)
    for name, value in flatten_names(found).items():
        assert value.dtype == names[name].dtype, name
        np.testing.assert_array_equal(value, names[name], err_msg=name)


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("llama", "float32", "nf4"),
        ("internlm2", "bfloat16", "nf4"),
        ("llama-tied-bias", "bf16_compute", "int8"),
    ],
)
def test_equal_to_quantising_what_was_loaded(checkpoints, name, dtype, kind):
    """Bit for bit, whatever the family's layout and the dtype it is read in."""
    folder = checkpoints(name).folder
    found = from_pretrained(folder, dtype, quantize=kind)
    whole = from_pretrained(folder, dtype)
    assert found.cfg == whole.cfg
    assert_same(found.params, quantize_params(whole.params, kind))


def test_a_reward_models_head_stays_as_it_is(checkpoints, tmp_path):
    """Equality, as above; the head is no kernel of the layers."""
    source = from_pretrained(checkpoints("llama").folder)
    model = reward_model.init(source.cfg, source.params)
    model["head"]["kernel"] += np.arange(source.cfg.d_model, dtype=np.float32)[:, None]
    reward_model.save_reward_model(tmp_path / "rm", source.cfg, model)
    found = from_pretrained(tmp_path / "rm", scored=True, quantize="nf4").params
    whole = from_pretrained(tmp_path / "rm", scored=True).params
    assert_same(found, quantize_params(whole, "nf4"))
    np.testing.assert_array_equal(found["head"]["kernel"], model["head"]["kernel"])


def floats_alive() -> int:
    """Bytes of all floating arrays on devices."""
    alive = jax.live_arrays()
    return sum(x.nbytes for x in alive if jnp.issubdtype(x.dtype, jnp.floating))


def test_no_more_than_a_layer_of_a_kernel_is_held(tmp_path, monkeypatch):
    """Closed form of what may be held: what stays in floats, and two layers of the
    largest kernel on the device and three on the host (read, cast, given over).
    """
    folder = checkpoint(
        tmp_path / "m", d_model=256, d_ff=768, n_layers=8, n_heads=4, head_dim=64
    )
    kept = from_pretrained(folder, quantize="nf4").params  # compiles
    stays = sum(
        x.nbytes for x in jax.tree.leaves(kept) if jnp.issubdtype(x.dtype, jnp.floating)
    )
    del kept
    sizes, alive, read = [], [], tensor_files.TensorFolder.read

    def counted(self, name, index=(slice(None),)):
        block = read(self, name, index)
        sizes.append(block.nbytes)
        alive.append(floats_alive())
        return block

    monkeypatch.setattr(tensor_files.TensorFolder, "read", counted)
    before = floats_alive()
    tracemalloc.start()
    try:
        params = from_pretrained(folder, quantize="nf4").params
        host = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    largest, shapes = 4 * 256 * 768, checkpoint_shapes(read_config(folder))
    whole = 4 * count(shapes)
    assert max(sizes) == largest and sum(sizes) == whole
    assert max(alive) - before <= stays + 2 * largest < whole / 8
    held = sum(x.nbytes for x in jax.tree.leaves(params))
    assert host <= held + 3 * largest < whole / 3  # on a CPU arrays are the host's


def test_what_cannot_be_quantised_is_told_before_weights_are_read(
    checkpoints, tmp_path, monkeypatch
):
    """An unknown kind; a kernel of an odd axis, two of whose codes share no byte."""
    monkeypatch.setattr(loading, "load_params", None)
    monkeypatch.setattr(tensor_files, "open_folder", None)
    with pytest.raises(CheckpointError, match="kind is 'fp4'; expected one of nf4"):
        from_pretrained(checkpoints("llama").folder, quantize="fp4")
    monkeypatch.undo()
    folder = checkpoint(tmp_path / "odd", d_ff=5, n_layers=1)
    with pytest.raises(CheckpointError, match="m?odd: .*nf4 needs an even axis -2"):
        from_pretrained(folder, quantize="nf4")


def test_eight_devices_read_their_parts_and_keep_the_same_bits(tmp_path):
    """Parts lie as `models.sharding` says; the file is read once, slice by slice.

    Equality with one device, also where a group of magnitudes (a mean over 24 columns)
    lies on several devices.
    """
    sizes = dict(d_model=24, d_ff=40, n_heads=4, n_kv_heads=2, head_dim=6)
    folder = checkpoint(tmp_path / "m", **sizes)
    for kind, found in run_on_devices(8, "quantized_devices.py", folder).items():
        assert not found["misplaced"] and not found["unequal"], kind
        assert found["elements_read"] == found["parameters"]
        assert found["largest_read"] < found["parameters"] / 10
        assert {f"layers/mlp/{x}/kernel/codes" for x in ("up", "down")} < set(
            found["split"]
        )
