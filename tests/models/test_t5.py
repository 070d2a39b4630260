"""T5 and UL2 give the numbers of transformers, sampling those of teacher forcing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from jax.sharding import AbstractMesh, AxisType

from models import t5, t5_files
from models.encoder_decoder import generate
from models.errors import CheckpointError, PromptError
from models.params import flatten_names
from models.sampling import EOS, LENGTH, STOP, Sampling
from models.sharding import MESH_AXES, param_specs
from models.t5 import T5Config

VARIANTS = {
    "ul2": ("gated-silu", False),
    "t5-1.1": ("gated-gelu", False),
    "t5": ("relu", True),
}
SOURCES = np.array([[5, 6, 7, 8, 9, 1], [10, 11, 1, 0, 0, 0]], np.int32)
LENGTHS = np.array([6, 3], np.int32)
TARGETS = np.array([[3, 4, 5, 6, 7], [8, 9, 1, 12, 13]], np.int32)


@pytest.fixture(scope="module", params=list(VARIANTS))
def both(request, tmp_path_factory):
    """(transformers' model, ours from its folder) of random weights."""
    shape, tied = VARIANTS[request.param]
    config = transformers.T5Config(
        vocab_size=50,
        d_model=24,
        d_kv=8,
        d_ff=40,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        feed_forward_proj=shape,
        tie_word_embeddings=tied,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        if not tied:  # an output matrix of its own, as the published ones have
            drawn = torch.randn_like(model.lm_head.weight) * 0.3
            model.lm_head.weight = torch.nn.Parameter(drawn)
        for name, x in model.named_parameters():
            if "layer_norm" in name:
                x.add_(0.2 * torch.randn_like(x))
    folder = tmp_path_factory.mktemp(request.param) / "hf"
    model.save_pretrained(folder)
    return model, t5_files.from_pretrained(folder), folder


def test_logits_are_those_of_transformers(both):
    model, (cfg, params, _), _ = both
    mask = (np.arange(6)[None] < LENGTHS[:, None]).astype(np.int64)
    shifted = np.concatenate([np.zeros((2, 1), np.int64), TARGETS[:, :-1]], axis=1)
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor(SOURCES).long(),
            attention_mask=torch.tensor(mask),
            decoder_input_ids=torch.tensor(shifted),
        ).logits.numpy()
    ours = t5.target_logits(cfg, params, SOURCES, LENGTHS, TARGETS)
    np.testing.assert_allclose(ours, expected, atol=2e-4, rtol=1e-4)


def test_greedy_responses_are_those_of_transformers(both):
    model, (cfg, params, _), _ = both
    prompts = [SOURCES[0].tolist(), SOURCES[1, :3].tolist()]
    rules = Sampling(temperature=0.0, eos_ids=(1,))
    found = generate(cfg, params, prompts, rules, None, max_new_tokens=7)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            expected = model.generate(
                torch.tensor([prompt]),
                do_sample=False,
                num_beams=1,
                max_new_tokens=7,
                use_cache=False,  # theirs needs as many layers in both stacks
            )[0, 1:].tolist()
        assert found.response(row) == expected


def test_exported_and_read_again_it_is_the_same_model(both, tmp_path):
    """In ours bit for bit, in transformers by its logits."""
    model, (cfg, params, _), _ = both
    t5_files.save_pretrained(tmp_path / "out", cfg, params)
    again = t5_files.from_pretrained(tmp_path / "out")
    assert again.cfg == cfg
    for name, x in flatten_names(params).items():
        np.testing.assert_array_equal(x, flatten_names(again.params)[name])
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        ids = torch.tensor(SOURCES[:1]).long()
        decoder = torch.tensor([[0, 3, 4]])
        a = model(input_ids=ids, decoder_input_ids=decoder).logits
        b = theirs.eval()(input_ids=ids, decoder_input_ids=decoder).logits
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_those_of_transformers(bidirectional):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distance), bidirectional, 32, 128
    ).numpy()
    ours = t5.bucket_of(jnp.array(distance), bidirectional, 32, 128)
    np.testing.assert_array_equal(ours, theirs)


TINY = T5Config(
    vocab_size=31, d_model=16, n_heads=2, head_dim=8, d_ff=24, n_layers=2,
    n_decoder_layers=2, activation="silu",
)  # fmt: skip
PARAMS = t5.init_params(TINY, jax.random.key(1))
PROMPTS = [[4, 5, 6], [7, 8], [9, 10, 11, 12, 13]]


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.7, 5)])
def test_reported_log_probs_are_those_of_teacher_forcing(temperature, top_k):
    rules = Sampling(temperature=temperature, top_k=top_k, eos_ids=(1,))
    key = jax.random.key(3)
    found = generate(
        TINY, PARAMS, PROMPTS, rules, key, max_new_tokens=6, samples=2, slots=4
    )
    for row in range(6):
        n = found.lengths[row]
        source = np.array([PROMPTS[row // 2]])
        target = found.tokens[row : row + 1, :n]
        logits = t5.target_logits(
            TINY, PARAMS, source, np.array([source.shape[1]]), target
        )[0]
        log_probs = jax.nn.log_softmax(logits)[np.arange(n), target[0]]
        np.testing.assert_allclose(found.log_probs[row, :n], log_probs, atol=1e-4)


def test_a_row_depends_on_its_source_and_key_alone():
    """Not on its group, its neighbours or the padding."""
    rules, key = Sampling(temperature=1.0, eos_ids=(1,)), jax.random.key(5)
    options = {"max_new_tokens": 5, "samples": 2}
    together = generate(TINY, PARAMS, PROMPTS, rules, key, slots=64, **options)
    apart = generate(TINY, PARAMS, PROMPTS, rules, key, slots=2, **options)
    np.testing.assert_array_equal(together.tokens, apart.tokens)
    again = generate(TINY, PARAMS, PROMPTS, rules, key, slots=64, **options)
    np.testing.assert_array_equal(together.tokens, again.tokens)


def test_responses_end_at_eos_stops_and_budgets():
    free = generate(
        TINY, PARAMS, PROMPTS[:1], Sampling(temperature=0.0), None, max_new_tokens=4
    )
    assert free.reasons[0] == LENGTH and free.lengths[0] == 4
    first, second = free.tokens[0, 0], free.tokens[0, 1]
    ended = generate(
        TINY, PARAMS, PROMPTS[:1], Sampling(temperature=0.0, eos_ids=(int(first),)),
        None, max_new_tokens=4,
    )  # fmt: skip
    assert ended.reasons[0] == EOS and ended.lengths[0] == 1
    stopped = generate(
        TINY, PARAMS, PROMPTS[:1],
        Sampling(temperature=0.0, stop=((int(first), int(second)),)),
        None, max_new_tokens=4,
    )  # fmt: skip
    assert stopped.reasons[0] == STOP and stopped.lengths[0] == 2


def test_every_parameter_has_a_sharding():
    mesh = AbstractMesh((1, 2, 2, 1), MESH_AXES, (AxisType.Auto,) * 4)
    for tied in (False, True):
        cfg = dataclasses.replace(TINY, tied=tied)
        specs = param_specs(t5.param_shapes(cfg), mesh, t5_files.RULES)
        assert len(jax.tree.leaves(specs)) > 0


def test_refused(tmp_path):
    with pytest.raises(PromptError, match="prompt 0 has 0 tokens"):
        generate(TINY, PARAMS, [[]], Sampling(temperature=0.0), None, max_new_tokens=1)
    with pytest.raises(ValueError, match="PRNG key"):
        generate(TINY, PARAMS, [[1]], Sampling(), None, max_new_tokens=1)
    with pytest.raises(CheckpointError, match="model_type is 'llama'"):
        t5_files.from_hf({"model_type": "llama"}, "config.json")
    config = t5_files.to_hf(TINY) | {"feed_forward_proj": "gated-tanh"}
    with pytest.raises(CheckpointError, match="feed_forward_proj"):
        t5_files.from_hf(config, "config.json")
    t5_files.save_pretrained(tmp_path / "x", TINY, PARAMS)
    with pytest.raises(CheckpointError, match="exists already"):
        t5_files.save_pretrained(tmp_path / "x", TINY, PARAMS)
