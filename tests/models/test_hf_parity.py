"""Logits and greedy continuations equal those of transformers with the same weights."""

import copy
import dataclasses

import jax
import numpy as np
import pytest
from helpers import checkpoints as ckpt
from helpers import forward

from models import hf_weights
from models.params import flatten_names, unflatten_names
from models.pretrained import from_pretrained

WIDTH = 48
TOLERANCE = 1e-4


@pytest.fixture(params=ckpt.ALL)
def pair(request, checkpoints):
    """(torch model, our checkpoint) of every variant."""
    made = checkpoints(request.param)
    return made.model, from_pretrained(made.folder)


def sequences(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 61, n) for n in lengths]


def alone(model, sequence):
    """Torch logits [T, V] of one sequence."""
    return ckpt.torch_logits(model, sequence[None])[0]


def test_full_rows(pair):
    """Two unpadded rows, longer than window and original rope length."""
    model, ours = pair
    tokens, positions, segments = forward.rows(sequences(WIDTH, WIDTH), WIDTH)
    got = forward.logits(ours.cfg, ours.params, tokens, positions, segments)
    assert np.abs(got - ckpt.torch_logits(model, tokens)).max() < TOLERANCE


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padded_rows(pair, left):
    """Padding on either side: equal to torch, padded alike with its mask."""
    model, ours = pair
    seqs = sequences(29, 11, seed=1)
    tokens, positions, segments = forward.rows(seqs, WIDTH, left)
    got = forward.logits(ours.cfg, ours.params, tokens, positions, segments)
    if ours.cfg.rope.kind == "dynamic":
        # Torch scales a whole batch by its longest row; we scale each by its own.
        for b, sequence in enumerate(seqs):
            want = alone(model, sequence)
            assert np.abs(got[b][segments[b] > 0] - want).max() < TOLERANCE
        return
    want = ckpt.torch_logits(model, tokens, segments, positions)
    assert np.abs((got - want)[segments > 0]).max() < TOLERANCE


def test_packed_rows(pair):
    """Sequences that share a row have the logits they have alone."""
    model, ours = pair
    groups = [sequences(29, 11, seed=2), sequences(5, 17, 20, seed=3)]
    tokens, positions, segments = forward.packed(groups, WIDTH)
    got = forward.logits(ours.cfg, ours.params, tokens, positions, segments)
    for b, group in enumerate(groups):
        for segment, sequence in enumerate(group, 1):
            difference = got[b][segments[b] == segment] - alone(model, sequence)
            assert np.abs(difference).max() < TOLERANCE


def test_greedy_continuation(pair):
    """32 greedy tokens after a prompt of 16 are identical."""
    model, ours = pair
    prompts = np.stack(sequences(16, 16, seed=4))
    theirs, own = prompts, prompts
    for length in range(16, WIDTH):
        step = ckpt.torch_logits(model, theirs)[:, -1].argmax(-1)
        theirs = np.concatenate([theirs, step[:, None]], axis=1)
        batch = forward.rows(own, WIDTH)
        step = forward.logits(ours.cfg, ours.params, *batch)[:, length - 1].argmax(-1)
        own = np.concatenate([own, step[:, None]], axis=1)
    np.testing.assert_array_equal(own, theirs)


@pytest.mark.parametrize("dtype", ["bf16_compute", "bfloat16"])
def test_bfloat16_is_near(checkpoints, dtype):
    """bfloat16 policies are as near to float32 as torch's own bfloat16 is."""
    import torch

    made = checkpoints("qwen3")
    ours = from_pretrained(made.folder, dtype=dtype)
    batch = forward.rows(sequences(WIDTH, WIDTH), WIDTH)
    got = forward.logits(ours.cfg, ours.params, *batch)
    assert got.dtype == np.float32
    want = ckpt.torch_logits(made.model, batch[0])
    half = copy.deepcopy(made.model).bfloat16()
    with torch.no_grad():
        rounded = half(input_ids=torch.tensor(batch[0]).long()).logits.float().numpy()
    assert 0 < np.std(got - want) < 1.2 * np.std(rounded - want) < 0.05 * np.std(want)


@pytest.mark.parametrize("name", ["llama-tied-bias", "qwen3-bias-sliding"])
def test_gradients(checkpoints, name):
    """Gradients of the mean NLL equal torch's, for every parameter."""
    import torch

    made = checkpoints(name)
    ours = from_pretrained(made.folder)
    tokens, positions, segments = forward.rows(sequences(WIDTH, WIDTH), WIDTH)
    got = jax.jit(jax.grad(forward.nll, argnums=1), static_argnums=0)(
        ours.cfg, ours.params, tokens, positions, segments
    )
    ids = torch.tensor(tokens).long()
    made.model.zero_grad()
    made.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    theirs = {n: p.grad.numpy() for n, p in made.model.named_parameters()}
    want = import_tensors(ours.cfg, ours.hf_config["model_type"], theirs)
    for key, value in flatten_names(got).items():
        scale = np.abs(want[key]).max()
        np.testing.assert_allclose(value, want[key], atol=1e-4 * scale, err_msg=key)


def import_tensors(cfg, model_type, theirs):
    """{our name: array} of a dict of Hugging Face tensors."""
    result = {}
    for place in hf_weights.decoder_places(cfg, model_type):
        index = (slice(None),) * len(place.our_shape)
        layers = range(cfg.n_layers) if place.stacked else [None]
        parts = [
            hf_weights.read(place, layer, index, lambda name, cut: theirs[name][cut])
            for layer in layers
        ]
        result[place.name] = np.stack(parts) if place.stacked else parts[0]
    return result


def test_layer_loops_agree_on_a_real_checkpoint(checkpoints):
    """Scanned layers, some of them sliding, equal unrolled ones."""
    made = checkpoints("qwen2-sliding")
    ours = from_pretrained(made.folder)
    batch = forward.rows(sequences(WIDTH, 30), WIDTH)
    unrolled, scanned = (
        forward.logits(
            dataclasses.replace(ours.cfg, layer_loop=loop), ours.params, *batch
        )
        for loop in ("unroll", "scan")
    )
    np.testing.assert_allclose(unrolled, scanned, atol=2e-5)


def test_names_are_rebuilt(checkpoints):
    """The loaded tree is a plain nested dict with the names of the map."""
    ours = from_pretrained(checkpoints("internlm2").folder)
    names = flatten_names(ours.params)
    assert set(names) == {
        p.name for p in hf_weights.decoder_places(ours.cfg, "internlm2")
    }
    assert jax.tree.structure(unflatten_names(names)) == jax.tree.structure(ours.params)
