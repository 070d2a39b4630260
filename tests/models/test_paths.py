"""Folders of checkpoints on gs:// are read and written as those on a disk are."""

import json
from pathlib import Path
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import pytest
from helpers.bucket import needs_gcsfs, served
from helpers.entry import TINY, snapshot
from helpers.tiny_run import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from models import paths
from models.adapters import LoRAConfig, init_adapters
from models.decoder import init_params, param_shapes
from models.errors import CheckpointError
from models.peft_files import load_adapters, save_adapters
from models.pretrained import EXPORT, from_pretrained, save_pretrained
from models.remote_tensors import RemoteFile
from models.tensor_files import DTYPES

pytestmark = needs_gcsfs


@pytest.fixture(scope="module")
def bucket():
    with served("bucket") as buckets:
        yield buckets


def test_a_local_path_stays_one_of_pathlib(tmp_path):
    assert type(paths.as_path(str(tmp_path))) is type(tmp_path) is type(Path())
    assert paths.absolute("x") == Path("x").absolute()
    assert paths.same(tmp_path / "a" / "..", tmp_path)
    assert not paths.same(tmp_path, "gs://bucket/x")
    assert paths.same("gs://bucket/x", paths.as_path("gs://bucket/x/"))


def test_listings_are_those_of_a_disk(bucket, tmp_path):
    for name in ("a", "b/c", "b/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 3)
    bucket.upload("bucket", tmp_path, "listed")
    bucket.put("bucket", "listed/", b"")  # a folder as the console makes it
    there = paths.as_path("gs://bucket/listed")
    assert paths.sizes_below(there) == paths.sizes_below(tmp_path)
    names = [p.name for p in paths.children(tmp_path)]
    assert [p.name for p in paths.children(there)] == names == ["a", "b"]
    assert paths.children(there / "no") == paths.children(tmp_path / "no") == []
    bucket.put("bucket", "listed/b/new", b"")  # by another program, meanwhile
    assert "b/new" in paths.sizes_below(there)
    paths.remove_tree(there)
    paths.remove_tree(there)
    assert not bucket.folder("bucket", "listed")


ARRAYS = {
    "matrix": np.arange(60, dtype=np.float32).reshape(12, 5),
    "half": np.arange(24).reshape(2, 3, 4).astype(ml_dtypes.bfloat16),
    "vector": np.linspace(0, 1, 7, dtype=np.float16),
    "scalar": np.array(2.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
    "codes": np.arange(6, dtype=np.uint8),
}


@pytest.fixture(scope="module")
def tensors(bucket, tmp_path_factory):
    """(the library's file, ours of the same bytes)."""
    path = tmp_path_factory.mktemp("tensors") / "t.safetensors"
    save_file(ARRAYS, path, {"format": "pt"})
    bucket.put("bucket", "t.safetensors", path.read_bytes())
    with safe_open(path, framework="np") as theirs:
        yield theirs, RemoteFile(paths.as_path("gs://bucket/t.safetensors"), DTYPES)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_slices_are_those_of_the_library(tensors, data):
    theirs, ours = tensors
    assert sorted(ours.keys()) == sorted(theirs.keys()) == sorted(ARRAYS)
    name = data.draw(st.sampled_from(sorted(set(ARRAYS) - {"codes"})))
    a, b = theirs.get_slice(name), ours.get_slice(name)
    assert (a.get_shape(), a.get_dtype()) == (b.get_shape(), b.get_dtype())
    ends = [
        sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in a.get_shape()
    ]
    index = tuple(slice(*pair) for pair in ends)
    wanted = ARRAYS[name][index] if index else ARRAYS[name]
    found = b[index] if index else b[:]
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


def test_only_the_rows_that_are_needed_are_read(bucket, tensors):
    _, ours = tensors
    bucket.log.clear()
    rows = ours.get_slice("matrix")
    first, second = rows[2:4, :2], rows[2:4, 2:]
    assert np.array_equal(np.concatenate([first, second], 1), ARRAYS["matrix"][2:4])
    assert len(bucket.log) == 1  # both columns from one read, of 2 x 5 floats
    assert bucket.sent == 2 * 5 * 4
    with pytest.raises(CheckpointError, match="t.safetensors: U8 is not read"):
        ours.get_slice("codes")[:]


@pytest.mark.parametrize(
    "content, message",
    [(b"", "it has 0 bytes"), (b"\xff" * 30, "not a whole safetensors file"),
     (b"\x02" + b"\0" * 7 + b"[]", "not a whole"), (None, "ends behind the file")],
)  # fmt: skip
def test_a_damaged_file_is_refused(bucket, tensors, content, message):
    whole = bucket.objects["bucket", "t.safetensors"][0]
    bucket.put("bucket", "bad", whole[:-4] if content is None else content)
    with pytest.raises(CheckpointError, match="gs://bucket/bad") as error:
        RemoteFile(paths.as_path("gs://bucket/bad"), DTYPES)
    assert message in str(error.value)


def test_a_model_goes_to_a_bucket_and_comes_back(bucket, tmp_path):
    """The same files as on a disk, in shards; an older export is replaced by it."""
    params = init_params(TINY, jax.random.key(0))
    there, files = "gs://bucket/models/hf", {"tokenizer.json": "{}"}
    save_pretrained(there, TINY, params, max_shard_bytes=4000, tokenizer_files=files)
    assert len([n for n in bucket.folder("bucket", "models/hf") if "-of-" in n]) > 2
    save_pretrained(there, TINY, params, max_shard_bytes=8000)
    save_pretrained(tmp_path / "hf", TINY, params, max_shard_bytes=8000)
    found = bucket.folder("bucket", "models/hf")
    assert found == {
        n: (tmp_path / "hf" / n).read_bytes() for n in snapshot(tmp_path / "hf")
    }
    assert same_bits(from_pretrained(there).params, params)
    bucket.put("bucket", "models/hf/mine", b"")
    with pytest.raises(CheckpointError, match="gs://bucket/models/hf.*mine"):
        save_pretrained(there, TINY, params)
    with pytest.raises(CheckpointError, match="gs://bucket/no: does not exist"):
        from_pretrained("gs://bucket/no")


@pytest.mark.parametrize("uploads", range(3))
def test_an_upload_that_was_cut_is_no_model_and_can_be_repeated(bucket, uploads):
    """At first there is the list of what is to come, and at last the config."""
    params = init_params(TINY, jax.random.key(0))
    name, other = f"cut{uploads}", jax.tree.map(lambda x: x + 1, params)
    save_pretrained(f"gs://bucket/{name}", TINY, params, max_shard_bytes=8000)
    with mock.patch.object(bucket, "quota", uploads):
        with pytest.raises(OSError, match="no quota is left"):
            save_pretrained(f"gs://bucket/{name}", TINY, other)
    assert EXPORT in bucket.folder("bucket", name)
    with pytest.raises(CheckpointError, match="config.json: no such file"):
        from_pretrained(f"gs://bucket/{name}")
    save_pretrained(f"gs://bucket/{name}", TINY, other)
    assert same_bits(from_pretrained(f"gs://bucket/{name}").params, other)


def test_adapters_go_to_a_bucket_and_come_back(bucket):
    cfg = TINY
    lora = LoRAConfig(rank=2, alpha=4.0)
    made = init_adapters(param_shapes(cfg), lora, jax.random.key(0), np.float32)
    made = jax.tree.map(lambda x: x + 1, made)
    save_adapters("gs://bucket/adapter", cfg, made, lora, "base")
    config = json.loads(bucket.folder("bucket", "adapter")["adapter_config.json"])
    assert config["r"] == 2 and config["base_model_name_or_path"] == "base"
    assert same_bits(load_adapters("gs://bucket/adapter", cfg).adapters, made)
