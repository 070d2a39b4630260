"""Reward models and preferences learned by adapters beside a frozen base."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny_run
from helpers.entry import checkpoint, write_rows
from helpers.tiny_run import exact, same_bits

from data.batch import LabelledExample, PairExample, TokenizedExample
from data.batches import batches
from data.tokenizers import load_tokenizer
from models import decoder, reward_model
from models.adapters import attach
from models.errors import CheckpointError
from models.kernels import is_node
from models.params import flatten_names
from models.peft_files import load_adapters
from models.pretrained import from_pretrained
from train import dpo, lora, reference, reward, sft
from train.errors import ConfigError
from train.loop import LoopConfig
from train.lora import LoRASettings
from train.optim import OptimizerConfig
from train.preference import PreferenceConfig
from train.reference import reference_log_probs

QUIET = LoopConfig(log_every=1, progress=False, tensorboard=False)
ADAM = OptimizerConfig(lr=2e-2, schedule="constant")
SMALL = LoRASettings(rank=2, alpha=4.0)
ROWS = {
    "pairs": [
        {"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": "!" * (1 + i % 2)}
        for i in range(24)
    ],
    "mixed": [
        {"prompt": f"{i}+1=", "completion": f"{i + 1}", "label": i % 2}
        if i < 12
        else {"prompt": f"{i}+1=", "steps": [f"{i}\n", "!!"], "labels": [1, 0.5]}
        for i in range(24)
    ],
}
COMMANDS = {
    sft.sft: (sft.SFTConfig, "train_decoder"),
    reward.reward: (reward.RewardConfig, "fit_reward"),
    dpo.dpo: (dpo.DPOConfig, "train_dpo"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a checkpoint `base`, one of a reward model `scored`, and rows."""
    folder = tmp_path_factory.mktemp("inputs")
    checkpoint(folder / "base", n_layers=1)
    base = from_pretrained(folder / "base")
    model = reward_model.init(base.cfg, base.params)
    kernel = np.random.default_rng(0).standard_normal((base.cfg.d_model, 1))
    model["head"] = {"kernel": np.float32(kernel)}
    files = load_tokenizer(folder / "base").files.contents
    reward_model.save_reward_model(
        folder / "scored", base.cfg, model, base.hf_config, tokenizer_files=files
    )
    for name, rows in ROWS.items():
        write_rows(folder / f"{name}.jsonl", rows)
    write_rows(folder / "sft.jsonl", [{"prompt": "1+1=", "completion": "2"}] * 24)
    return folder


def config(cls, inputs, data="pairs", **changes):
    """Settings of a run of adapters over the small checkpoint."""
    base = cls(
        checkpoint=str(inputs / "base"),
        data=str(inputs / f"{data}.jsonl"),
        length=16,
        batch_size=4,
        steps=6,
        eval_fraction=0.25,
        lora=SMALL,
        optimizer=ADAM,
        loop=dataclasses.replace(QUIET, eval_every=3),
    )
    return dataclasses.replace(base, **changes)


def values(rows, name):
    return [row[name] for row in rows if name in row]


class Stopped(Exception):
    """Raised in the place of training."""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda f: f.__name__)
def test_every_command_quantises_its_base_as_it_reads_it(
    command, inputs, tmp_path, monkeypatch
):
    """What would be trained has nodes at every kernel of the layers, and no whole base
    was there to be quantised.
    """
    cls, name = COMMANDS[command]
    module = {sft.sft: sft, reward.reward: reward, dpo.dpo: dpo}[command]

    def stop(cfg, params, *_, adapters, **__):
        raise Stopped(params, adapters)

    monkeypatch.setattr(lora, "quantize_params", None)
    monkeypatch.setattr(module, name, stop)
    settings = dataclasses.replace(SMALL, base="int8")
    data = "sft" if command is sft.sft else "pairs"
    with pytest.raises(Stopped) as e:
        command(config(cls, inputs, data, lora=settings), tmp_path)
    params, adapters = e.value.args
    assert params is adapters.trained
    leaves = jax.tree_util.tree_leaves_with_path(adapters.base, is_leaf=is_node)
    for path, leaf in leaves:
        path = jax.tree_util.keystr(path, simple=True, separator="/")
        kernel = path.startswith("layers/") and path.endswith("/kernel")
        assert is_node(leaf) == kernel, path


def last_scores(cfg, params, texts):
    """Scores at the last token of each text."""
    places = [[len(text) - 1] for text in texts]
    return np.concatenate(reward_model.score_places(cfg, params, texts, places))


@pytest.mark.parametrize("data", ROWS)
def test_peft_loads_the_reward_model_that_was_trained(data, inputs, tmp_path):
    """Equality of scores: PEFT's own forward over the base, and the merged model.

    A zero head over the base: the first loss is log 2, whatever the labels.
    """
    import peft
    import torch
    from transformers import AutoModelForSequenceClassification

    cfg = config(reward.RewardConfig, inputs, data, steps=12)
    result = reward.reward(cfg, tmp_path)
    losses = values(result.rows, "train/loss")
    assert losses[0] == pytest.approx(np.log(2), rel=1e-5)
    assert losses[-1] < losses[0] - 0.02
    merged = reward_model.load_reward_model(result.folder)
    before = from_pretrained(inputs / "base")
    np.testing.assert_array_equal(
        merged.params["decoder"]["embed"]["embedding"],
        before.params["embed"]["embedding"],
    )
    encode = load_tokenizer(inputs / "base").encode
    texts = [encode(text) for text in ("1+1=2", "2+2=!!", "7+1=8", "0")]
    ours = last_scores(merged.cfg, merged.params, texts)
    assert np.ptp(ours) > 0.1
    model = AutoModelForSequenceClassification.from_pretrained(
        inputs / "base", num_labels=1, dtype="float32", attn_implementation="eager"
    )
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    with torch.no_grad():
        theirs = [model(torch.tensor([text])).logits.item() for text in texts]
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


CFG = dataclasses.replace(tiny_run.CFG, n_layers=1, init_std=0.2)


@pytest.fixture(scope="module")
def params():
    return decoder.init_params(CFG, jax.random.key(0))


def labelled(n, seed):
    rng = np.random.default_rng(seed)
    return [
        LabelledExample(
            rng.integers(0, 31, 8).astype(np.int32),
            rng.random(8).astype(np.float32),
            np.ones(8, np.float32),
        )
        for _ in range(n)
    ]


def some_pairs(n):
    rng = np.random.default_rng(0)

    def example():
        size = int(rng.integers(2, 8))
        tokens = rng.integers(0, 31, size).astype(np.int32)
        return TokenizedExample(tokens, np.ones(size, np.float32))

    return [PairExample(example(), example()) for _ in range(n)]


def test_a_continued_run_has_the_same_bits_and_leaves_the_base(params, tmp_path):
    """With dropout over eight bits: adapters, head, moments and metrics, bit by bit.

    Closed form: rank (inputs + outputs) of every kernel and a head are in the state.
    """
    model = reward_model.init(CFG, params)
    settings = dataclasses.replace(SMALL, dropout=0.3, base="int8")
    given = reward.adapt_reward(CFG, model, settings)
    before = jax.device_get(given.base)
    fit = reward.fit

    def run(folder):
        return reward.train_reward(
            CFG, given.trained, labelled(32, 0), labelled(8, 1), length=16, pad_id=0,
            batch_size=4, steps=6, optimizer=ADAM, adapters=given, workdir=folder,
            loop=dataclasses.replace(QUIET, eval_every=2, checkpoint_every=2),
        )  # fmt: skip

    straight = run(tmp_path / "straight")

    def stopping(state, step, data, *args, **kwargs):
        class Stops:
            fingerprint = data.fingerprint

            def __getitem__(self, i):
                if i == 3:
                    raise Stopped
                return data[i]

        return fit(state, step, Stops(), *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "fit", stopping)
        with pytest.raises(Stopped):
            run(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped")
    assert same_bits(resumed.state, straight.state)
    assert exact(resumed.rows) == exact(straight.rows)
    assert same_bits(given.base, before)
    D, F = CFG.d_model, CFG.d_ff
    N, K = CFG.n_heads * CFG.head_dim, CFG.n_kv_heads * CFG.head_dim
    sides = (D + N) + 2 * (D + K) + (N + D) + 2 * (D + F) + (F + D)
    sizes = [x.size for x in jax.tree.leaves(straight.state.params)]
    assert sum(sizes) == 2 * CFG.n_layers * sides + D
    start, end = map(flatten_names, (given.trained, straight.state.params))
    assert all(not same_bits(start[name], end[name]) for name in start)


def test_a_reward_model_goes_on_from_its_head(inputs, tmp_path):
    """Equality of what is evaluated with adapters that change nothing and without."""
    still = dataclasses.replace(ADAM, lr=1e-30)
    found = []
    for name, settings in (("with", SMALL), ("without", None)):
        cfg = config(
            reward.RewardConfig, inputs, "mixed", lora=settings, optimizer=still,
            checkpoint=str(inputs / "scored"), steps=1,
            loop=dataclasses.replace(QUIET, eval_every=1),
        )  # fmt: skip
        metrics = reward.reward(cfg, tmp_path / name).metrics
        found.append({k: v for k, v in metrics.items() if k.startswith("eval/")})
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-5)
    assert abs(found[0]["eval/loss"] - np.log(2)) > 0.01  # a head that is not zero


def test_the_reference_is_the_base_itself(params, monkeypatch):
    """The very arrays that are held anyway; so the first loss is log 2, the KL zero."""
    scored, scores = [], reference.cached_log_probs

    def spy(file, key, cfg, given, *rest):
        scored.append(given)
        return scores(file, key, cfg, given, *rest)

    monkeypatch.setattr(dpo, "cached_log_probs", spy)
    settings = dataclasses.replace(SMALL, base="nf4")
    given = lora.adapt(CFG, params, settings)
    data = batches(some_pairs(8), batch_size=8, length=8, pad_id=0, seed=0)
    _, rows = dpo.train_dpo(
        CFG, given.trained, data, 8, optimizer=ADAM, loop=QUIET, adapters=given,
        preference=PreferenceConfig(beta=0.5),
    )  # fmt: skip
    assert len(scored) == 1 and scored[0] is given.base
    losses = values(rows, "train/loss")
    assert losses[0] == pytest.approx(np.log(2), rel=1e-5)
    assert values(rows, "train/kl")[0] == pytest.approx(0, abs=1e-5)
    assert losses[-1] < losses[0] - 0.1


def test_a_policy_of_adapters_is_what_it_exports(inputs, tmp_path):
    """Equality: the last KL estimate is that of the adapters read back over the base in
    four bits, and of the model in which they are merged.
    """
    settings = dataclasses.replace(SMALL, base="nf4")
    cfg = config(dpo.DPOConfig, inputs, lora=settings)
    result = dpo.dpo(cfg, tmp_path)
    assert result.metrics["eval/kl"] != pytest.approx(0, abs=1e-3)
    held = dpo.prepare(cfg).held_out
    layout = {"batch_size": 4, "length": 16, "pad_id": held.pad_id}
    pairs = [pair for row in held.rows for pair in row]
    base = from_pretrained(inputs / "base", quantize="nf4")
    adapters, config_, head = load_adapters(tmp_path / "adapter", base.cfg)
    assert head is None
    merged = from_pretrained(result.folder).params
    before, *after = (
        reference_log_probs(base.cfg, model, pairs, **layout)
        for model in (
            base.params, attach(base.params, adapters, config_.scale), merged
        )
    )  # fmt: skip
    for found in after:
        drift = (before - found).mean()
        np.testing.assert_allclose(drift, result.metrics["eval/kl"], rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(lora=LoRASettings(targets=("lm_head/*",))), "config.lora.targets: .*lm_"),
        (dict(lora=LoRASettings(targets=("embed/*",))), "config.lora.targets: .*embed"),
        (
            dict(optimizer=OptimizerConfig(frozen=("head/*",))),
            "config.optimizer.frozen: .*config.lora",
        ),
    ],
)
def test_settings_that_cannot_work_together(inputs, tmp_path, changes, message):
    """Of a reward model, whose output matrix is not there; nothing is computed."""
    with pytest.raises(ConfigError, match=message):
        reward.reward(config(reward.RewardConfig, inputs, **changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_a_base_that_does_not_fit_its_bits_is_refused(inputs):
    """An odd axis has no two codes to a byte: the key is named, no weights are read."""
    odd = dataclasses.replace(CFG, d_ff=5)
    settings = dataclasses.replace(SMALL, base="nf4")
    with pytest.raises(ConfigError, match="config.lora.base: nf4 needs an even axis"):
        lora.check_lora(odd, settings, ADAM)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda f: f.__name__)
def test_a_folder_in_the_way_of_the_adapters_is_noticed_first(
    command, inputs, tmp_path
):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "thesis.txt").write_text("precious")
    data = "sft" if command is sft.sft else "pairs"
    with pytest.raises(CheckpointError, match="thesis.txt"):
        command(config(COMMANDS[command][0], inputs, data), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
