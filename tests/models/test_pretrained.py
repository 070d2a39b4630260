"""save_pretrained inverts from_pretrained bit for bit; bad folders are clear errors."""

import json
import os
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from helpers import checkpoints as ckpt
from helpers import forward
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from models import pretrained
from models.errors import CheckpointError
from models.hf_config import to_hf
from models.params import flatten_names
from models.pretrained import from_pretrained, save_pretrained


def tensors(folder):
    """{name: array} of all safetensors files of a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def equal_bits(a, b) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", list(ckpt.INTERNLM2))
def test_internlm2_is_written_as_the_llama_that_it_is(checkpoints, tmp_path, name):
    """transformers loads it without remote code; parameters come back bit for bit."""
    from transformers import AutoModelForCausalLM

    ours = from_pretrained(checkpoints(name).folder)
    save_pretrained(tmp_path / "out", ours.cfg, ours.params, ours.hf_config)
    _, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    again = from_pretrained(tmp_path / "out")
    assert again.hf_config["architectures"] == ["LlamaForCausalLM"]
    for a, b in zip(
        jax.tree.leaves(ours.params), jax.tree.leaves(again.params), strict=True
    ):
        assert equal_bits(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", [n for n in ckpt.ALL if n not in ckpt.INTERNLM2])
def test_round_trip_equals_bit_for_bit(checkpoints, tmp_path, name):
    source = checkpoints(name).folder
    ours = from_pretrained(source)
    save_pretrained(tmp_path / "out", ours.cfg, ours.params, ours.hf_config)
    before, after = tensors(source), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(equal_bits(before[n], after[n]) for n in before)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == json.loads((source / "config.json").read_text())


@pytest.mark.parametrize("name", list(ckpt.VARIANTS))
def test_transformers_loads_the_export(checkpoints, tmp_path, name):
    """No missing or unexpected keys, the same logits; from a config written afresh."""
    from transformers import AutoModelForCausalLM

    made = checkpoints(name)
    ours = from_pretrained(made.folder)
    config = to_hf(ours.cfg, ours.hf_config["model_type"])
    save_pretrained(tmp_path / "out", ours.cfg, ours.params, config, "float32", 20e3)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not info["mismatched_keys"] and not info.get("error_msgs")
    tokens = np.random.default_rng(0).integers(0, 61, (2, 48))
    np.testing.assert_array_equal(
        ckpt.torch_logits(model.eval(), tokens), ckpt.torch_logits(made.model, tokens)
    )
    again = from_pretrained(tmp_path / "out")
    want = flatten_names(ours.params)
    for key, value in flatten_names(again.params).items():
        assert equal_bits(np.asarray(value), np.asarray(want[key]))


def test_model_trained_from_scratch_exports(tmp_path):
    """Without a config.json the plainest model_type is chosen, and reads back equal."""
    params = forward.random_params(forward.TINY)
    extra = {"tokenizer.json": b"{}", "chat_template.jinja": "{{ x }}"}
    save_pretrained(
        tmp_path / "m",
        forward.TINY,
        params,
        tokenizer_files=extra,
        generation_config={"eos_token_id": [2, 3]},
    )
    again = from_pretrained(tmp_path / "m")
    assert again.hf_config["model_type"] == "llama"
    assert again.cfg == forward.TINY
    assert again.generation_config == {"eos_token_id": [2, 3]}
    assert (tmp_path / "m/tokenizer.json").read_bytes() == b"{}"
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_stored_dtypes(checkpoints, tmp_path, stored):
    """Each stored dtype is read as the value it holds, under each policy."""
    ours = from_pretrained(checkpoints("llama").folder)
    save_pretrained(tmp_path / "m", ours.cfg, ours.params, ours.hf_config, stored)
    held = next(iter(tensors(tmp_path / "m").values()))
    assert held.dtype.name == stored
    assert from_pretrained(tmp_path / "m").hf_config["dtype"] == stored
    kernel = np.asarray(ours.params["lm_head"]["kernel"])
    kept = kernel.astype(pretrained.EXPORT_DTYPES[stored])
    for dtype, held in (
        ("float32", np.float32),
        ("bf16_compute", np.float32),
        ("bfloat16", ml_dtypes.bfloat16),
    ):
        again = from_pretrained(tmp_path / "m", dtype=dtype)
        assert again.cfg.dtype == dtype
        got = np.asarray(again.params["lm_head"]["kernel"])
        assert equal_bits(got, kept.astype(held))


# Reading: what can be wrong with a folder.


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of the llama checkpoint that a test may damage."""
    return shutil.copytree(checkpoints("llama").folder, tmp_path / "model")


def edit(folder, change, config=None):
    """Rewrites the weights after `change` edits the dict of tensors in place."""
    weights = tensors(folder)
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if config:
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(known | config))


def failure(folder, **options) -> str:
    with pytest.raises(CheckpointError) as e:
        from_pretrained(folder, **options)
    return str(e.value)


def test_folder_config_or_weights_missing(folder, tmp_path):
    assert "does not exist" in failure(tmp_path / "nowhere")
    assert "is a file" in failure(folder / "config.json")
    (folder / "model.safetensors").unlink()
    assert "no weights: expected model.safetensors or" in failure(folder)
    (folder / "config.json").unlink()
    assert "config.json: no such file" in failure(folder)


def test_config_that_is_not_json(folder):
    (folder / "config.json").write_text('{\n "a": 1,\n oops\n}')
    assert "config.json:3: not valid JSON" in failure(folder)
    (folder / "config.json").write_text("[]")
    assert "expected a JSON object" in failure(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in failure(folder)


def test_pickle_is_refused_with_a_way_out(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = failure(folder)
    assert "pytorch_model.bin" in message and "safe_serialization=True" in message


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = failure(folder)
    assert str(path) in message and "not a whole safetensors file" in message


def test_all_wrong_tensors_are_named_together(folder):
    def change(weights):
        del weights["model.norm.weight"]
        weights["score.weight"] = np.zeros((1, 24), np.float32)
        weights["lm_head.weight"] = np.zeros((60, 24), np.float32)

    edit(folder, change)
    message = failure(folder)
    assert "1 missing: model.norm.weight [24]" in message
    assert "1 unexpected: score.weight [1, 24]" in message
    assert "1 misshapen: lm_head.weight is [60, 24], expected [61, 24]" in message


def test_long_lists_are_cut(folder):
    edit(folder, dict.clear)
    message = failure(folder)
    assert "30 missing" in message and "and 20 more" in message


def test_rotary_buffers_are_ignored(folder):
    before = from_pretrained(folder).params

    def change(weights):
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(3, np.float32)

    edit(folder, change)
    jax.tree.map(np.testing.assert_array_equal, from_pretrained(folder).params, before)


def test_quantised_tensors_are_refused(folder):
    def change(weights):
        weights["lm_head.weight"] = weights["lm_head.weight"].astype(np.int8)

    edit(folder, change)
    message = failure(folder)
    assert "lm_head.weight (I8)" in message and "not supported" in message


def test_tied_copy_of_the_head(checkpoints, tmp_path):
    """A tied checkpoint may store its head too, if it is the embedding."""
    folder = shutil.copytree(checkpoints("llama-tied-bias").folder, tmp_path / "m")

    def copy(weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()

    edit(folder, copy)
    assert "lm_head" not in from_pretrained(folder).params

    def change(weights):
        weights["lm_head.weight"][60, 3] += 1

    edit(folder, change)
    message = failure(folder)
    assert "lm_head.weight differs from model.embed_tokens.weight" in message


SIZES = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
         "num_attention_heads", "head_dim", "max_position_embeddings"]  # fmt: skip


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("size", [1, 7, 2**31 - 2, 2**31, 10**400])
def test_impossible_sizes(folder, field, size):
    """A wrong size costs an error, not memory or time."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: size}))
    if field == "max_position_embeddings" and size < 2**31:
        from_pretrained(folder)
    else:
        assert str(folder) in failure(folder)


def test_unknown_dtype_policy(folder):
    assert "expected one of float32, bf16_compute" in failure(folder, dtype="fp8")


@pytest.fixture
def sharded(checkpoints, tmp_path):
    """The llama checkpoint in several files with an index."""
    ours = from_pretrained(checkpoints("llama").folder)
    save_pretrained(
        tmp_path / "m", ours.cfg, ours.params, ours.hf_config, max_shard_bytes=9000
    )
    return tmp_path / "m"


def reindex(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_sharded_equals_single(checkpoints, sharded):
    """Shards keep the size limit, and hold what the single file holds."""
    files = sorted(sharded.glob("*.safetensors"))
    assert len(files) > 3
    for path in files:
        with safe_open(path, "np") as f:
            sizes = [f.get_tensor(n).nbytes for n in f.keys()]
        assert sum(sizes) <= 9000 or len(sizes) == 1
    one, many = from_pretrained(checkpoints("llama").folder), from_pretrained(sharded)
    jax.tree.map(np.testing.assert_array_equal, one.params, many.params)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    total = sum(x.nbytes for x in jax.tree.leaves(many.params))
    assert index["metadata"]["total_size"] == total


def test_index_names_absent_files(sharded):
    first = sorted(sharded.glob("*.safetensors"))[0]
    first.unlink()
    message = failure(sharded)
    assert "names files that are absent" in message and first.name in message


def test_index_that_disagrees_with_its_files(sharded):
    first = sorted(p.name for p in sharded.glob("*.safetensors"))[0]
    reindex(sharded, lambda i: i["weight_map"].update({"model.norm.weight": first}))
    assert f"model.norm.weight in {first}" in failure(sharded)


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "", 3, None])
def test_index_must_stay_in_its_folder(sharded, file):
    reindex(sharded, lambda i: i["weight_map"].update({"lm_head.weight": file}))
    assert "expected a file name" in failure(sharded)


def test_index_without_a_map(sharded):
    reindex(sharded, lambda i: i.pop("weight_map"))
    assert "expected a field weight_map" in failure(sharded)


# Writing: whole or not at all, and never over someone's files.


def test_replaces_its_own_export_only(tmp_path):
    params = forward.random_params(forward.TINY)
    out = tmp_path / "out"
    out.mkdir()
    save_pretrained(out, forward.TINY, params)
    doubled = jax.tree.map(lambda x: 2 * x, params)
    save_pretrained(out, forward.TINY, doubled)
    jax.tree.map(np.testing.assert_array_equal, from_pretrained(out).params, doubled)

    (out / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="notes.txt"):
        save_pretrained(out, forward.TINY, params)
    jax.tree.map(np.testing.assert_array_equal, from_pretrained(out).params, doubled)
    with pytest.raises(CheckpointError, match="is a file"):
        save_pretrained(out / "notes.txt", forward.TINY, params)
    assert os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_the_old_export(tmp_path, monkeypatch):
    """A crash in the middle of writing changes nothing and leaves nothing behind."""
    params = forward.random_params(forward.TINY)
    save_pretrained(tmp_path / "out", forward.TINY, params)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(pretrained.files, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(
            tmp_path / "out", forward.TINY, jax.tree.map(np.negative, params)
        )
    monkeypatch.undo()
    again = from_pretrained(tmp_path / "out").params
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert os.listdir(tmp_path) == ["out"]


def test_params_must_fit_the_config(tmp_path):
    params = forward.random_params(forward.TINY)
    params["lm_head"]["kernel"] = params["lm_head"]["kernel"][:, :-1]
    params["extra"] = np.zeros(3)
    with pytest.raises(CheckpointError) as e:
        save_pretrained(tmp_path / "out", forward.TINY, params)
    assert "lm_head/kernel is [16, 30], expected [16, 31]" in str(e.value)
    assert "extra is [3], expected absent" in str(e.value)
    assert not os.listdir(tmp_path)


def test_unknown_export_dtype(tmp_path):
    params = forward.random_params(forward.TINY)
    with pytest.raises(CheckpointError, match="expected one of float32"):
        save_pretrained(tmp_path / "out", forward.TINY, params, dtype="int8")
