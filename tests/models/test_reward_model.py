"""A reward model is a decoder and an inner product; its folder is transformers' own."""

import json

import jax
import numpy as np
import pytest
from helpers import forward

from models import decoder, reward_model
from models.errors import CheckpointError, PromptError
from models.params import flatten_names
from models.pretrained import from_pretrained, save_pretrained
from models.sharding import param_specs

CFG = forward.TINY


def random_model(cfg, decoder_params, seed=0):
    model = reward_model.init(cfg, decoder_params)
    kernel = np.random.default_rng(seed).standard_normal((cfg.d_model, 1))
    return {**model, "head": {"kernel": kernel.astype(np.float32)}}


@pytest.fixture(scope="module")
def params():
    return random_model(CFG, forward.random_params(CFG))


@pytest.fixture(scope="module")
def scores():
    return jax.jit(reward_model.token_scores, static_argnums=0)


def test_starts_at_one_half_everywhere(scores):
    """A zero head: score 0, p = 1/2, at every token; no output matrix is kept."""
    model = reward_model.init(CFG, forward.random_params(CFG))
    batch = forward.rows([np.arange(9), np.arange(5)], 12)
    got = scores(CFG, model, *batch)
    assert got.shape == (2, 12) and got.dtype == np.float32
    np.testing.assert_array_equal(got, 0)
    assert "lm_head" not in model["decoder"]
    shapes = reward_model.param_shapes(CFG)
    assert jax.tree.map(lambda x: x.shape, model) == jax.tree.map(
        lambda x: x.shape, shapes
    )


def test_scores_are_inner_products_of_hidden_states(params, scores):
    """Equality with NumPy on the decoder's hidden states, packed or alone."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 31, 7), rng.integers(0, 31, 4)
    packed = scores(CFG, params, *forward.packed([[a, b]], 12))[0]
    batch = forward.rows([a, b], 12)
    hidden = decoder.forward(CFG, params["decoder"], *batch)
    want = np.asarray(hidden, np.float64) @ np.asarray(params["head"]["kernel"])[:, 0]
    np.testing.assert_allclose(packed[:7], want[0, :7], atol=1e-4)
    np.testing.assert_allclose(packed[7:11], want[1, :4], atol=1e-4)


def test_places_of_a_pool(params, scores):
    """score_places equals each row scored alone, whatever the batch and the order."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 31, n).tolist() for n in (3, 20, 9, 1, 13, 8, 20)]
    places = [sorted(rng.integers(0, len(r), 3).tolist()) for r in rows]
    places[4] = []
    want = []
    for row, wanted in zip(rows, places, strict=True):
        alone = scores(CFG, params, *forward.rows([row], 24))[0]
        want.append(np.asarray(alone)[wanted])
    for batch in (2, 64):
        got = reward_model.score_places(CFG, params, rows, places, batch=batch)
        for ours, theirs in zip(got, want, strict=True):
            assert ours.dtype == np.float32 and ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert reward_model.score_places(CFG, params, [], []) == []
    assert reward_model.score_places(CFG, params, [[]], [[]])[0].shape == (0,)


@pytest.mark.parametrize(
    ("row", "places", "message"),
    [
        ([1, 2], [2], "row 1: expected places from 0 to 1"),
        ([1, 2], [-1], "row 1: expected places from 0 to 1"),
        ([], [0], "row 1: expected places"),
        ([31], [0], "row 1: expected ids from 0 to 30"),
        ([1] * 5000, [0], "row 1: 5000 tokens, more than the"),
    ],
)
def test_places_that_are_not_there(params, row, places, message):
    """An error names the row."""
    with pytest.raises(PromptError, match=message):
        reward_model.score_places(CFG, params, [[1], row], [[0], places])


def sequence_classifier(folder):
    import torch
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager",
        dtype=torch.float32,
    )  # fmt: skip
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not info["mismatched_keys"] and not info.get("error_msgs")
    return model.eval()


@pytest.mark.parametrize(
    "name", ["llama", "llama-tied-bias", "mistral", "qwen2-sliding", "qwen3",
             "internlm2"]
)  # fmt: skip
def test_transformers_gives_the_same_scores(checkpoints, tmp_path, scores, name):
    """AutoModelForSequenceClassification: the last token's logit, and score(hidden)."""
    import torch

    source = from_pretrained(checkpoints(name).folder)
    model = random_model(source.cfg, source.params)
    reward_model.save_reward_model(
        tmp_path / "rm", source.cfg, model, source.hf_config, pad_id=0
    )
    theirs = sequence_classifier(tmp_path / "rm")
    assert theirs.config.num_labels == 1
    rng = np.random.default_rng(2)
    rows = [rng.integers(1, 61, n) for n in (30, 17)]
    tokens, positions, segments = forward.rows(rows, 30)
    with torch.no_grad():
        ids, mask = torch.tensor(tokens).long(), torch.tensor(segments)
        last = theirs(input_ids=ids, attention_mask=mask).logits[:, 0].numpy()
        hidden = theirs.model(input_ids=ids, attention_mask=mask).last_hidden_state
        every = theirs.score(hidden)[..., 0].numpy()
    got = np.asarray(scores(source.cfg, model, tokens, positions, segments))
    assert np.abs((got - every)[segments > 0]).max() < 1e-4 < np.abs(every).max()
    assert np.abs(got[[0, 1], [29, 16]] - last).max() < 1e-4

    again = reward_model.load_reward_model(tmp_path / "rm")
    assert again.cfg == source.cfg
    for key, value in flatten_names(again.params).items():
        np.testing.assert_array_equal(value, flatten_names(model)[key], err_msg=key)


def test_folders_of_the_other_kind_are_refused(checkpoints, tmp_path, params):
    """A decoder is no reward model and the reverse: the odd tensors are named."""
    with pytest.raises(CheckpointError, match=r"missing: score.weight \[1, 24\]"):
        reward_model.load_reward_model(checkpoints("llama").folder)
    reward_model.save_reward_model(tmp_path / "rm", CFG, params)
    config = json.loads((tmp_path / "rm/config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    with pytest.raises(CheckpointError, match=r"(?s)lm_head.*unexpected: score.weight"):
        from_pretrained(tmp_path / "rm")
    # A decoder written with the config of a reward model is a decoder again.
    save_pretrained(tmp_path / "lm", CFG, forward.random_params(CFG), config)
    written = json.loads((tmp_path / "lm/config.json").read_text())
    assert written["architectures"] == ["LlamaForCausalLM"]
    assert "id2label" not in written
    assert from_pretrained(tmp_path / "lm").cfg == CFG


def test_every_parameter_has_a_sharding():
    """The decoder's specs are those it has on its own; the head is whole."""
    mesh = jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1, 1, 1),
        ("data", "fsdp", "tensor", "sequence"),
    )
    specs = param_specs(reward_model.param_shapes(CFG), mesh)
    alone = param_specs(decoder.param_shapes(CFG), mesh)
    alone.pop("lm_head")
    assert specs["decoder"] == alone
    assert specs["head"]["kernel"] == jax.sharding.PartitionSpec()
