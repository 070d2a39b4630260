"""OPT in the decoder gives the numbers of transformers: logits, samples, losses, files.

The table of positions is as long as the longest rows here: a position that was off by
one would meet its end.
"""

import copy
import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers
from helpers import forward
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from data.batch import TokenizedExample, collate
from models import decoder, hf_config, hf_weights, reward_model, sampler, scoring, slots
from models.adapters import LoRAConfig, adapter_shapes, attach
from models.config import DecoderConfig, RopeConfig
from models.errors import CheckpointError, PromptError
from models.params import flatten_names, unflatten_names
from models.peft_files import load_adapters, save_adapters
from models.pretrained import from_pretrained, save_pretrained
from models.quantized import NF4, quantize_params
from models.sampling import Sampling
from models.sharding import MESH_AXES, param_specs
from train.decoder import train_decoder
from train.loop import LoopConfig
from train.optim import OptimizerConfig

CONTEXT = 40
VOCAB = 61
TOLERANCE = 2e-4
SIZES = dict(
    vocab_size=VOCAB, hidden_size=24, ffn_dim=40, num_hidden_layers=3,
    num_attention_heads=4, max_position_embeddings=CONTEXT, dropout=0.0,
)  # fmt: skip
VARIANTS = {"opt": {}, "bare": dict(enable_bias=False, tie_word_embeddings=False)}


def made(name, folder):
    """(transformers' model of random weights, ours from its folder)."""
    config = transformers.OPTConfig(**SIZES, **VARIANTS[name])
    model = transformers.OPTForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, x in model.named_parameters():
            noise = 0.3 * torch.randn(x.shape, generator=generator)
            x.copy_(1 + noise if "norm.weight" in key else noise)
    model.save_pretrained(folder)
    return model, from_pretrained(folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opt")
    return {name: made(name, folder / name) for name in VARIANTS}


@pytest.fixture(scope="module")
def pair(pairs):
    return pairs["opt"]


def sequences(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCAB, n).tolist() for n in lengths]


def theirs(model, tokens, mask=None):
    """Torch logits [B, T, V]; positions are what transformers makes of the mask."""
    ids = torch.tensor(np.asarray(tokens)).long()
    mask = None if mask is None else torch.tensor(np.asarray(mask)).long()
    with torch.no_grad():
        return model(ids, attention_mask=mask, use_cache=False).logits.numpy()


def assert_same(pair, arrays, cfg=None):
    """Every sequence of rows of segments has the logits that it has alone."""
    model, ours = pair
    tokens, _, segments = arrays
    got = forward.logits(cfg or ours.cfg, ours.params, *arrays)
    for b, s in np.argwhere(np.ones((len(tokens), segments.max()))).astype(int):
        here = segments[b] == s + 1
        if here.any():
            want = theirs(model, tokens[b][here][None])[0]
            np.testing.assert_allclose(got[b][here], want, atol=TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits(pairs, name):
    """Rows as long as the table, and rows padded on the right."""
    rows = forward.rows(sequences(CONTEXT, CONTEXT, 11), CONTEXT)
    assert_same(pairs[name], rows)


def test_padding_and_packing_shift_no_position(pair):
    """Pads on the left, as torch has them with its mask; several texts in a row."""
    model, ours = pair
    tokens, positions, segments = forward.rows(sequences(29, 40, 7), CONTEXT, left=True)
    got = forward.logits(ours.cfg, ours.params, tokens, positions, segments)
    want = theirs(model, tokens, segments)
    assert np.abs((got - want)[segments > 0]).max() < TOLERANCE
    groups = [sequences(29, 11), sequences(5, 17, 9), sequences(40)]
    assert_same(pair, forward.packed(groups, CONTEXT))


def test_computed_otherwise_it_is_the_same(pair):
    """Chunked attention over scanned, rematerialised layers."""
    cfg = dataclasses.replace(
        pair[1].cfg, attention="chunked", layer_loop="scan", remat="full"
    )
    assert_same(pair, forward.packed([sequences(29, 11)], CONTEXT), cfg)


@pytest.fixture(scope="module")
def continued(pair):
    """Ragged prompts that share 5 tokens, and 20 greedy tokens of torch after each."""
    model, _ = pair
    shared, *ends = sequences(5, 9, 15, 4, 12, seed=3)
    prompts = [shared + end for end in ends]
    tokens, _, mask = forward.rows(prompts, 20, left=True)
    found = model.generate(
        torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long(),
        do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0,
    )[:, 20:].tolist()  # fmt: skip
    return shared, ends, found


@pytest.mark.parametrize("prefixed", [True, False], ids=["prefix", "whole"])
def test_greedy_continuations(pair, continued, prefixed):
    """Two samples of each prompt in refilled slots, up to the end of the table.

    Their log-probs are those of torch, and of teacher forcing over the same prefix.
    """
    model, ours = pair
    shared, ends, want = continued
    prefix, prompts = (shared, ends) if prefixed else ([], [shared + e for e in ends])
    rules = Sampling(temperature=0.0)
    found = sampler.generate(
        ours.cfg, ours.params, prompts, rules, None, max_new_tokens=20, samples=2,
        slots=4, prefix=prefix, max_length=10 * CONTEXT,
    )  # fmt: skip
    for row, response in enumerate(np.repeat(want, 2, axis=0).tolist()):
        assert found.response(row) == response
        text = shared + ends[row // 2] + response
        logits = theirs(model, [text])[0, -21:-1]
        expected = np.take_along_axis(
            np.array(jax.nn.log_softmax(logits)), np.array(response)[:, None], axis=1
        )
        np.testing.assert_allclose(found.log_probs[row], expected[:, 0], atol=TOLERANCE)
    if prefixed:
        forced, _ = scoring.response_log_probs(
            ours.cfg, ours.params, found.prompts, found.prompt_lengths, found.tokens,
            found.lengths, rules, sampler.prefix_context(ours.cfg, ours.params, prefix),
            len(prefix),
        )  # fmt: skip
        np.testing.assert_allclose(forced, found.log_probs, atol=TOLERANCE)


def test_continuations_side_by_side(pair):
    """Choices in one row, after a prompt and a prefix that they share."""
    model, ours = pair
    prefix, prompt, *choices = sequences(6, 10, 24, 3, seed=5)
    found = scoring.score_continuations(
        ours.cfg, ours.params, [prompt], [choices], prefix=prefix
    )
    for got, choice in zip(found[0], choices, strict=True):
        logits = theirs(model, [prefix + prompt + choice])[0, -len(choice) - 1 : -1]
        expected = np.array(jax.nn.log_softmax(logits))[range(len(choice)), choice]
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_the_table_ends_whatever_is_asked_for(pair):
    """Rotary positions go on past the context; a table does not."""
    cfg = pair[1].cfg
    with pytest.raises(PromptError, match=f"makes 41, over the limit of {CONTEXT}"):
        sampler.check_prompts(cfg, [[2] * 30], [3], [10], max_length=100)
    sampler.check_prompts(cfg, [[2] * 30], [], [10], max_length=100)
    assert cfg.longest(7) == 7 and forward.TINY.longest(9999) == 9999


def test_one_step_of_training(pair):
    """The loss is torch's cross-entropy, and so are the gradients of all parameters.

    SGD is not at hand: from moments of zero, b1 = 0 and a large eps, Adam's step is
    the gradient's.
    """
    model, ours = pair
    texts = sequences(30, 9, 22, seed=7)
    examples = [TokenizedExample(np.array(t), np.ones(len(t))) for t in texts]
    batch = collate([examples[:2], examples[2:]], CONTEXT, pad_id=1)
    lr, eps = 1e-3, 1e6
    fitted = train_decoder(
        ours.cfg, ours.params, [batch], 1,
        optimizer=OptimizerConfig(
            lr=lr * eps, schedule="constant", clip_norm=None, b1=0.0, eps=eps
        ),
        loop=LoopConfig(log_every=1, tensorboard=False, progress=False),
    )  # fmt: skip
    torch_model = copy.deepcopy(model)
    total = 0.0
    for text in texts:
        ids = torch.tensor([text])
        total += torch_model(ids, labels=ids).loss * (len(text) - 1)
    loss = total / (sum(map(len, texts)) - len(texts))
    loss.backward()
    assert fitted.rows[0]["train/loss"] == pytest.approx(loss.item(), abs=1e-4)
    gradients = {n: p.grad.numpy() for n, p in torch_model.named_parameters()}
    moved = flatten_names(fitted.state.params)
    for name, before in flatten_names(ours.params).items():
        want = imported(ours.cfg, name, gradients)
        got = (np.asarray(before) - np.asarray(moved[name])) / lr
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, atol=2e-3 * max(scale, 0.1), err_msg=name)


def imported(cfg, name, tensors):
    """Our parameter of this name from a dict of Hugging Face tensors."""
    places = hf_weights.decoder_places(cfg, "opt")
    place = next(p for p in places if p.name == name)
    index = (slice(None),) * len(place.our_shape)
    layers = range(cfg.n_layers) if place.stacked else [None]
    parts = [
        hf_weights.read(place, i, index, lambda source, cut: tensors[source][cut])
        for i in layers
    ]
    return np.stack(parts) if place.stacked else parts[0]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("keeps", [True, False], ids=["with-config", "from-scratch"])
def test_exported_and_read_again(pairs, tmp_path, name, keeps):
    """In ours bit for bit, in transformers to the same logits, bit for bit."""
    model, ours = pairs[name]
    save_pretrained(
        tmp_path / "out", ours.cfg, ours.params, ours.hf_config if keeps else None
    )
    again = from_pretrained(tmp_path / "out")
    assert again.cfg == ours.cfg
    for key, x in flatten_names(ours.params).items():
        np.testing.assert_array_equal(x, flatten_names(again.params)[key])
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(read) is transformers.OPTForCausalLM
    tokens = np.array(sequences(CONTEXT))
    np.testing.assert_array_equal(theirs(read, tokens), theirs(model, tokens))


def test_reward_model(pair, tmp_path):
    """Its score of the last token is the logit of ...ForSequenceClassification."""
    _, ours = pair
    params = reward_model.init(ours.cfg, ours.params)
    rng = np.random.default_rng(1)
    params["head"]["kernel"] = rng.standard_normal((24, 1)).astype(np.float32)
    reward_model.save_reward_model(tmp_path / "rm", ours.cfg, params, ours.hf_config)
    read = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "rm"
    ).eval()
    text = sequences(12)[0]
    with torch.no_grad():
        want = read(torch.tensor([text])).logits.item()
    loaded = reward_model.load_reward_model(tmp_path / "rm")
    assert loaded.cfg == ours.cfg
    (got,) = reward_model.score_places(loaded.cfg, loaded.params, [text], [[11]])
    assert got[0] == pytest.approx(want, abs=TOLERANCE)


def test_adapters_are_those_of_peft(pair, tmp_path):
    """All six products of a layer adapted; PEFT reads ours to the same logits."""
    import peft

    model, ours = pair
    lora = LoRAConfig(rank=2, alpha=4.0)
    rng = np.random.default_rng(2)
    shapes = adapter_shapes(decoder.param_shapes(ours.cfg), lora)
    assert len(shapes) == 12
    flat = {n: 0.3 * rng.standard_normal(x.shape) for n, x in shapes.items()}
    small = unflatten_names({n: x.astype(np.float32) for n, x in flat.items()})
    save_adapters(tmp_path / "lora", ours.cfg, small, lora)
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "lora")
    rows = forward.rows(sequences(CONTEXT), CONTEXT)
    want = theirs(adapted.get_base_model().eval(), rows[0])
    assert np.abs(want - theirs(model, rows[0])).max() > 1
    got = forward.logits(ours.cfg, attach(ours.params, small, lora.scale), *rows)
    np.testing.assert_allclose(got, want, atol=TOLERANCE)
    again = load_adapters(tmp_path / "lora", ours.cfg).adapters
    for key, x in flatten_names(small).items():
        np.testing.assert_array_equal(flatten_names(again)[key], x)


def test_what_is_split_quantised_and_kept_exact(pair):
    """Kernels become codes; a bfloat16 sampler keeps float32 norms; all have rules."""
    _, ours = pair
    shapes = jax.eval_shape(lambda p: quantize_params(p, "nf4"), ours.params)
    layers = shapes["layers"]
    assert isinstance(layers["mlp"]["up"]["kernel"], NF4)
    assert "gate" not in layers["mlp"]
    mesh = AbstractMesh((1, 2, 2, 1), MESH_AXES, (AxisType.Auto,) * 4)
    for tree in (shapes, decoder.param_shapes(ours.cfg)):
        specs = flatten_names(param_specs(tree, mesh))
        assert specs["embed/positions"] == PartitionSpec(None, "fsdp")
    cfg = dataclasses.replace(ours.cfg, dtype="bf16_compute")
    prepared = flatten_names(slots.prepare(cfg, ours.params))
    exact = {n for n, x in prepared.items() if x.dtype == np.float32}
    assert exact == {n for n in prepared if "norm/" in n}


def test_random_parameters():
    """Matrices and both tables are drawn, norm scales are one, biases zero."""
    cfg = hf_config.from_hf(dict(model_type="opt", **SIZES))
    params = flatten_names(decoder.init_params(cfg, jax.random.key(0)))
    assert params["embed/positions"].shape == (CONTEXT + 2, 24)
    for name, x in params.items():
        last = name.split("/")[-1]
        constant = {"bias": 0.0, "scale": 1.0}.get(last)
        assert (
            np.std(x) > 0.01 if constant is None else (np.asarray(x) == constant).all()
        )


OPT_30B = dict(
    model_type="opt", activation_function="relu", vocab_size=50272, hidden_size=7168,
    ffn_dim=28672, num_hidden_layers=48, num_attention_heads=56, bos_token_id=2,
    word_embed_proj_dim=7168, max_position_embeddings=2048, do_layer_norm_before=True,
    eos_token_id=2, pad_token_id=1, init_std=0.02, _remove_final_layer_norm=False,
    prefix="</s>", torch_dtype="float16", dropout=0.1, attention_dropout=0.0,
)  # fmt: skip


def test_published_config():
    """Unchanged it is written as it was; changed, its other fields stay."""
    cfg = hf_config.from_hf(OPT_30B)
    assert (cfg.head_dim, cfg.n_kv_heads, cfg.d_ff) == (128, 56, 28672)
    assert cfg.tie_embeddings and cfg.qkv_bias and cfg.out_bias and cfg.mlp_bias
    assert hf_config.to_hf(cfg, "opt", OPT_30B) == OPT_30B
    shorter = dataclasses.replace(cfg, n_layers=2)
    written = hf_config.to_hf(shorter, "opt", OPT_30B)
    assert hf_config.from_hf(written) == shorter and written["prefix"] == "</s>"
    assert hf_config.default_model_type(cfg) == "opt"


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(do_layer_norm_before=False), "do_layer_norm_before is False"),
        (dict(word_embed_proj_dim=512), "word_embed_proj_dim is 512; expected 7168"),
        (dict(_remove_final_layer_norm=True), "_remove_final_layer_norm is True"),
        (dict(layer_norm_elementwise_affine=False), "layer_norm_elementwise_affine"),
        (dict(activation_function="gelu"), "activation_function is 'gelu'"),
        (
            dict(num_attention_heads=55),
            "hidden_size is 7168; expected a multiple of 55",
        ),
        (dict(ffn_dim=None), "ffn_dim is None; expected an integer"),
        (dict(enable_bias="yes"), "enable_bias is 'yes'; expected true or false"),
    ],
)
def test_refused_variants(change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        hf_config.from_hf(OPT_30B | change, "x/config.json")
    assert str(caught.value).startswith("x/config.json: ")


@pytest.mark.parametrize(
    "changes, lost",
    [
        (dict(norm_eps=1e-6), "norm_eps is 1e-06 and would be 1e-05"),
        (dict(mlp_bias=False), "mlp_bias is False and would be True"),
        (dict(positions="rotary", position_offset=0), "positions is 'rotary'"),
        (dict(n_kv_heads=1), "n_kv_heads is 1 and would be 56"),
        (dict(sliding_window=9), "sliding_window is 9"),
    ],
)
def test_what_opt_cannot_express_is_named(changes, lost):
    cfg = dataclasses.replace(hf_config.from_hf(OPT_30B), **changes)
    with pytest.raises(CheckpointError, match=f"cannot express .*{lost}"):
        hf_config.to_hf(cfg, "opt")
    with pytest.raises(CheckpointError, match="'llama' cannot express"):
        hf_config.to_hf(cfg, "llama")


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(norm="batch"), "norm is 'batch'; expected one of rms, layer"),
        (dict(mlp="gelu"), "mlp is 'gelu'"),
        (
            dict(positions="sine"),
            "positions is 'sine'; expected one of rotary, learned",
        ),
        (dict(position_offset=2), r"position_offset \(2\) is for learned positions"),
        (
            dict(positions="learned", rope=RopeConfig(kind="linear", factor=2.0)),
            "rope is .*'linear'.*; learned positions leave it unread",
        ),
    ],
)
def test_switches_that_make_no_decoder(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(forward.TINY, **changes)


def test_heads_of_an_odd_size_need_no_rotation():
    """Only rotary positions turn pairs of numbers."""
    sizes = dict(vocab_size=5, d_model=6, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=4)
    DecoderConfig(**sizes, head_dim=3, positions="learned")
    with pytest.raises(ValueError, match="must be even"):
        DecoderConfig(**sizes, head_dim=3)
