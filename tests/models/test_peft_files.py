"""PEFT reads what we write and we read what it writes, to the same logits."""

import copy
import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import checkpoints as ckpt
from helpers import forward
from safetensors.numpy import load_file, save_file

from models import decoder, reward_model
from models.adapters import LoRAConfig, adapter_shapes, attach
from models.errors import CheckpointError
from models.params import flatten_names, unflatten_names
from models.peft_files import (
    CONFIG,
    HEAD,
    WEIGHTS,
    Loaded,
    load_adapters,
    save_adapters,
)
from models.pretrained import from_pretrained

TOLERANCE = 1e-4
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KEY = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


def random_adapters(cfg, lora, seed=0):
    """Of normal numbers, b too; drawn by NumPy."""
    rng = np.random.default_rng(seed)
    shapes = adapter_shapes(decoder.param_shapes(cfg), lora)
    return unflatten_names(
        {n: jnp.asarray(0.3 * rng.standard_normal(x.shape)) for n, x in shapes.items()}
    )


def logits(ours, adapters, lora, tokens):
    attached = attach(ours.params, adapters, lora.scale)
    return forward.logits(ours.cfg, attached, *forward.rows(tokens, tokens.shape[1]))


def tokens():
    return np.random.default_rng(1).integers(0, 61, (2, 10))


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    """(our checkpoint, its random adapters, their settings, the folder of an export)"""
    made = checkpoints("llama")
    ours = from_pretrained(made.folder)
    lora = LoRAConfig(rank=3, alpha=6.0, dropout=0.1)
    small = random_adapters(ours.cfg, lora)
    folder = tmp_path_factory.mktemp("adapters") / "ours"
    save_adapters(folder, ours.cfg, small, lora, str(made.folder))
    return ours, small, lora, folder


def test_peft_reads_ours(exported, checkpoints):
    """The logits of transformers with our export are ours with the adapters."""
    import peft

    ours, small, lora, folder = exported
    model = copy.deepcopy(checkpoints("llama").model)
    before = ckpt.torch_logits(model, tokens())
    model = peft.PeftModel.from_pretrained(model, folder).get_base_model().eval()
    want = ckpt.torch_logits(model, tokens())
    assert np.abs(want - before).max() > 1
    assert np.abs(logits(ours, small, lora, tokens()) - want).max() < TOLERANCE


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_ours_reads_what_peft_writes(checkpoints, tmp_path, rslora):
    """A and B both random: the same logits; rank, alpha and targets are its own."""
    import peft
    import torch

    made = checkpoints("llama")
    ours = from_pretrained(made.folder)
    config = peft.LoraConfig(
        r=3, lora_alpha=6, lora_dropout=0.05, target_modules=LINEAR,
        task_type="CAUSAL_LM", use_rslora=rslora,
    )  # fmt: skip
    model = peft.get_peft_model(copy.deepcopy(made.model), config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            with torch.no_grad():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path)
    small, lora, head = load_adapters(tmp_path, ours.cfg)
    assert head is None
    assert (lora.rank, lora.alpha, lora.dropout) == (3, 6, 0.05)
    assert len(lora.targets) == len(LINEAR)
    assert lora.scale == pytest.approx(6 / (3**0.5 if rslora else 3))
    want = ckpt.torch_logits(model.get_base_model(), tokens())
    assert np.abs(logits(ours, small, lora, tokens()) - want).max() < TOLERANCE


@pytest.mark.parametrize("targets", [("layers/*",), ("*/down/*", "lm_head/*")])
def test_round_trip(exported, tmp_path, targets):
    """Bit for bit, over an earlier export; the targets come back as names."""
    cfg, lora = exported[0].cfg, LoRAConfig(2, 5.0, 0.25, targets, use_rslora=True)
    small = random_adapters(cfg, lora, seed=1)
    save_adapters(tmp_path / "a", cfg, random_adapters(cfg, lora), lora)
    save_adapters(tmp_path / "a", cfg, small, lora)
    again, found, _ = load_adapters(tmp_path / "a", cfg)
    before, after = flatten_names(small), flatten_names(again)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    names = tuple(sorted({name.rpartition("/")[0] for name in before}))
    assert found == dataclasses.replace(lora, targets=names)


def scores(ours, found, tokens):
    """Ours, float32 [B], at the last tokens of rows."""
    params = {
        "decoder": attach(ours.params, found.adapters, found.lora.scale),
        "head": found.head,
    }
    batch = forward.rows(tokens, tokens.shape[1])
    return np.asarray(reward_model.token_scores(ours.cfg, params, *batch))[:, -1]


def classifier(folder):
    """transformers' sequence classifier over a language model's folder, one label."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, attn_implementation="eager", dtype="float32",
        pad_token_id=0,
    )  # fmt: skip


def torch_scores(model, tokens) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(tokens)).logits.numpy()[:, 0]


@pytest.fixture(scope="module")
def scored(exported, tmp_path_factory):
    """(our checkpoint, the adapters and the head, the folder of their export)"""
    ours, small, lora, _ = exported
    kernel = np.random.default_rng(5).standard_normal((ours.cfg.d_model, 1))
    head = {"kernel": jnp.asarray(kernel, jnp.float32)}
    folder = tmp_path_factory.mktemp("scored") / "ours"
    save_adapters(folder, ours.cfg, small, lora, head=head)
    return ours, Loaded(small, lora, head), folder


def test_peft_reads_a_reward_model(scored, checkpoints):
    """PEFT's own forward over the base as a sequence classifier: the same scores."""
    import peft

    ours, given, folder = scored
    model = peft.PeftModel.from_pretrained(
        classifier(checkpoints("llama").folder), folder
    )
    assert isinstance(model, peft.PeftModelForSequenceClassification)
    given_tokens = 1 + tokens() % 60  # the last token of a row is none of padding
    want = torch_scores(model.eval(), given_tokens)
    assert np.ptp(want) > 1
    assert np.abs(scores(ours, given, given_tokens) - want).max() < TOLERANCE
    found = load_adapters(folder, ours.cfg)
    np.testing.assert_array_equal(found.head["kernel"], given.head["kernel"])


def test_ours_reads_a_reward_model_of_peft(scored, checkpoints, tmp_path):
    """The reverse, of PEFT's folder with the heads that it names by itself."""
    import peft
    import torch

    config = peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], task_type="SEQ_CLS"
    )
    model = peft.get_peft_model(classifier(checkpoints("llama").folder), config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / CONFIG).read_text())
    assert fields["modules_to_save"] == ["classifier", "score"]
    ours, given_tokens = scored[0], 1 + tokens() % 60
    found = load_adapters(tmp_path, ours.cfg)
    want = torch_scores(model, given_tokens)
    assert np.abs(scores(ours, found, given_tokens) - want).max() < TOLERANCE
    # Named as by us, and holding the same tensors.
    save_adapters(tmp_path / "ours", ours.cfg, *found[:2], head=found.head)
    mine, theirs = (load_file(f / WEIGHTS) for f in (tmp_path / "ours", tmp_path))
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value)


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({}, {HEAD: None}, f"{WEIGHTS}: lacks {HEAD}"),
        ({}, {HEAD: np.ones((2, 24), np.float32)}, r"is \[2, 24\], expected \[1, 24\]"),
        (
            dict(modules_to_save=["score", "embed_tokens"]),
            {},
            r"modules_to_save is .*embed_tokens.*; expected none but classifier, score",
        ),
        (dict(task_type="CAUSAL_LM"), {}, r"modules_to_save is \['score'\]"),
        (dict(task_type="CAUSAL_LM", modules_to_save=None), {}, "no kernel takes .*sc"),
    ],
)
def test_reward_models_that_cannot_be_used(scored, tmp_path, config, tensors, message):
    ours, _, folder = scored
    changed = edited(folder, tmp_path / "changed", config, tensors)
    with pytest.raises(CheckpointError, match=message):
        load_adapters(changed, ours.cfg)


def edited(folder, out, config=None, tensors=None):
    """A copy of an adapter folder with other fields and tensors; None takes away."""
    out.mkdir()
    fields = json.loads((folder / CONFIG).read_text()) | (config or {})
    fields = {k: v for k, v in fields.items() if v != "absent"}
    (out / CONFIG).write_text(json.dumps(fields))
    kept = load_file(folder / WEIGHTS) | (tensors or {})
    save_file({k: v for k, v in kept.items() if v is not None}, out / WEIGHTS)
    return out


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        (dict(use_dora=True), {}, f"{CONFIG}: use_dora is True; expected none"),
        (dict(bias="all"), {}, f"{CONFIG}: bias is 'all'; expected 'none'"),
        (dict(modules_to_save=["score"]), {}, r"modules_to_save is \['score'\]"),
        (dict(rank_pattern={"q_proj": 4}), {}, "rank_pattern is"),
        (dict(peft_type="IA3"), {}, "peft_type is 'IA3'; expected 'LORA'"),
        (dict(init_lora_weights="pissa"), {}, "init_lora_weights is 'pissa'"),
        (dict(r="absent"), {}, f"{CONFIG}: lacks the field 'r'"),
        (dict(r=0), {}, f"{CONFIG}: lora rank is 0"),
        (dict(r=4), {}, r"lora_A.weight is \[3, \d+\], expected \[4, \d+\]"),
        ({}, {KEY: None}, f"{WEIGHTS}: lacks {KEY}"),
        ({}, {KEY: np.ones((3, 5), np.float32)}, r"is \[3, 5\], expected \[3, 24\]"),
        (
            {},
            {"base_model.model.model.layers.3.mlp.up_proj.lora_A.weight": np.ones(1)},
            f"{WEIGHTS}: no kernel takes .*layers.3.mlp.up_proj.*of 3 layers",
        ),
    ],
)
def test_folders_that_cannot_be_used(exported, tmp_path, config, tensors, message):
    """The file and the field or tensor are named."""
    ours, _, _, folder = exported
    changed = edited(folder, tmp_path / "changed", config, tensors)
    with pytest.raises(CheckpointError, match=message):
        load_adapters(changed, ours.cfg)


def test_missing_and_damaged_files(exported, tmp_path):
    ours, _, _, folder = exported
    with pytest.raises(CheckpointError, match=f"{CONFIG}: no such file"):
        load_adapters(tmp_path / "absent", ours.cfg)
    changed = edited(folder, tmp_path / "changed")
    (changed / WEIGHTS).write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: cannot read"):
        load_adapters(changed, ours.cfg)
    (changed / WEIGHTS).rename(changed / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="no such file .*pickle"):
        load_adapters(changed, ours.cfg)


def test_what_is_not_written(exported, tmp_path):
    """Adapters of another rank or config; a folder that holds something else."""
    ours, small, lora, _ = exported
    cfg = ours.cfg
    with pytest.raises(CheckpointError, match="rank 4: layers/attn/k/kernel/a is"):
        save_adapters(tmp_path / "a", cfg, small, dataclasses.replace(lora, rank=4))
    with pytest.raises(CheckpointError, match="do not fit the config"):
        other = unflatten_names({"layers/attn/o/kernel/a": np.ones(1)})
        save_adapters(tmp_path / "a", cfg, other, lora)
    head = {"kernel": np.ones((cfg.d_model, 2))}
    with pytest.raises(CheckpointError, match=r"head/kernel is \[24, 2\]"):
        save_adapters(tmp_path / "a", cfg, small, lora, head=head)
    output = LoRAConfig(3, 6.0, targets=("lm_head/*",))
    with pytest.raises(CheckpointError, match="'lm_head/kernel' matches no kernel"):
        head = {"kernel": np.ones((cfg.d_model, 1))}
        of_output = random_adapters(cfg, output)
        save_adapters(tmp_path / "a", cfg, of_output, output, head=head)
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(CheckpointError, match="not replaced"):
        save_adapters(tmp_path, cfg, small, lora)
