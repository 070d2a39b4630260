"""Runs that train adapters beside a frozen base."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_run

from models.adapters import attach
from models.params import flatten_names
from models.peft_files import load_adapters
from train.decoder import decoder_loss, train_decoder
from train.errors import ConfigError
from train.loop import LoopConfig
from train.lora import LoRASettings, adapt, export_adapters, merged
from train.losses import token_nll
from train.optim import OptimizerConfig

CFG = tiny_run.CFG
ADAM = OptimizerConfig(lr=3e-2, schedule="constant", warmup=0)
LOOP = LoopConfig(
    log_every=1, eval_every=2, checkpoint_every=2, tensorboard=False, progress=False
)
BATCHES = [tiny_run.batch(i) for i in range(8)]
HELD_OUT = [tiny_run.batch(100)]


def run(settings, steps=4, workdir=None, accum=1, batches=BATCHES, **changes):
    """(what was adapted, Fitted); the base is the tiny run's."""
    given = adapt(CFG, tiny_run.params(), settings)
    fitted = train_decoder(
        CFG, given.trained, batches, steps, optimizer=ADAM,
        loop=dataclasses.replace(LOOP, **changes), accum=accum, eval_batches=HELD_OUT,
        workdir=workdir, adapters=given,
    )  # fmt: skip
    return given, fitted


def values(fitted, name):
    return [row[name] for row in fitted.rows if name in row]


@pytest.mark.parametrize("base", [None, "nf4", "int8"])
def test_a_run_begins_with_the_base_and_leaves_it_as_it_is(base):
    """Equality: b is zero, so the first loss is the base's; then it falls."""
    settings = LoRASettings(rank=2, alpha=4.0, base=base)
    before = adapt(CFG, tiny_run.params(), settings).base
    given, fitted = run(settings)
    own = token_nll(CFG, before, BATCHES[0])
    assert values(fitted, "train/loss")[0] == pytest.approx(
        float(own.sum / own.weight), rel=1e-6
    )
    jax.tree.map(np.testing.assert_array_equal, before, given.base)
    repeated = run(settings, 24, batches=BATCHES[:1] * 24)[1]
    losses = values(repeated, "train/loss")
    assert losses[-1] < losses[0] - 0.15


def test_only_adapters_are_in_the_state():
    """Closed form: rank x (inputs + outputs) of every kernel of every layer, twice
    more in the optimizer.
    """
    _, fitted = run(LoRASettings(rank=2, alpha=4.0))
    D, F, L = CFG.d_model, CFG.d_ff, CFG.n_layers
    N, K = CFG.n_heads * CFG.head_dim, CFG.n_kv_heads * CFG.head_dim
    sides = (D + N) + 2 * (D + K) + (N + D) + 2 * (D + F) + (F + D)
    sizes = [x.size for x in jax.tree.leaves(fitted.state.params)]
    assert sum(sizes) == 2 * L * sides
    moments = [x.size for x in jax.tree.leaves(fitted.state.opt_state) if x.ndim]
    assert sum(moments) == 2 * sum(sizes)


def test_micro_batches_do_not_change_the_update():
    settings = LoRASettings(rank=2, alpha=4.0, base="nf4")
    whole, parts = (run(settings, accum=n)[1].state.params for n in (1, 2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        whole, parts,
    )  # fmt: skip


def test_a_continued_run_has_the_same_bits(tmp_path):
    """With dropout: its noise is that of the update, not of the process."""
    settings = LoRASettings(rank=2, alpha=4.0, dropout=0.3)

    class Broken(list):
        def __getitem__(self, step):
            if step == 3:
                raise InterruptedError
            return BATCHES[step]

    whole = run(settings, 6, tmp_path / "whole")[1]
    with pytest.raises(InterruptedError):
        run(settings, 6, tmp_path / "parts", batches=Broken(BATCHES))
    again = run(settings, 6, tmp_path / "parts")[1]
    jax.tree.map(np.testing.assert_array_equal, whole.state, again.state)


def test_dropout_differs_by_update_and_spares_evaluation():
    """Closed form: on one batch the loss varies by its noise only where there is some;
    at a learning rate of nothing, what is held out does not vary at all.
    """
    still = dataclasses.replace(ADAM, lr=1e-30)
    spread = {}
    for dropout in (0.0, 0.5):
        given = adapt(
            CFG, tiny_run.params(), LoRASettings(rank=2, alpha=64.0, dropout=dropout)
        )
        trained = jax.tree.map(lambda x: x + 0.1, given.trained)
        fitted = train_decoder(
            CFG, trained, BATCHES[:1] * 6, 6, optimizer=still, loop=LOOP,
            eval_batches=HELD_OUT, adapters=given,
        )  # fmt: skip
        spread[dropout] = np.ptp(values(fitted, "train/loss"))
        assert np.ptp(values(fitted, "eval/loss")) == 0
    assert spread[0.0] == 0 and spread[0.5] > 0.01


def test_what_is_exported_is_what_was_trained(tmp_path):
    """Equality of losses: attached, read back from the PEFT folder, and merged."""
    settings = LoRASettings(rank=2, alpha=4.0)
    given, fitted = run(settings)
    folder = export_adapters(tmp_path, CFG, given, fitted.state.params, "base")
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2
    read, lora, _ = load_adapters(folder, CFG)
    names = flatten_names(read)
    assert names.keys() == flatten_names(fitted.state.params).keys()
    batch = jax.tree.map(jnp.asarray, HELD_OUT[0])

    def loss(params):
        found = token_nll(CFG, params, batch)
        return float(found.sum / found.weight)

    expected = values(fitted, "eval/loss")[-1]
    assert loss(attach(given.base, read, lora.scale)) == pytest.approx(expected, 1e-5)
    assert loss(merged(given, fitted.state.params)) == pytest.approx(expected, 1e-4)
    own = decoder_loss(CFG, None, given)(fitted.state.params, batch, given.base)
    assert float(own.sum / own.weight) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("base", ["nf4", "int8"])
def test_what_is_merged_is_plain_where_nothing_was_adapted_too(base):
    """Equality with the original within the quantisation; every leaf an array."""
    params = tiny_run.params()
    settings = LoRASettings(rank=2, targets=("layers/attn/*",), base=base)
    given = adapt(CFG, params, settings)
    plain = merged(given, given.trained, jnp.bfloat16)
    assert jax.tree.structure(plain) == jax.tree.structure(params)
    kernel = plain["layers"]["mlp"]["up"]["kernel"]
    assert kernel.dtype == plain["layers"]["attn"]["q"]["kernel"].dtype == jnp.bfloat16
    before = params["layers"]["mlp"]["up"]["kernel"]
    assert float(jnp.abs(kernel - before).max()) < 0.2 * float(jnp.abs(before).max())


def test_another_seed_is_another_dropout():
    keys = [
        adapt(CFG, tiny_run.params(), LoRASettings(rank=2, dropout=0.1, seed=s)).noise
        for s in (0, 1)
    ]
    first, second = map(jax.random.key_data, keys)
    assert np.any(first != second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("layers/attn/z/*",)}, "config.lora: lora target"),
        ({"targets": ("embed/*",)}, "matches no kernel"),
    ],
)
def test_a_target_that_is_not_there_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        adapt(CFG, tiny_run.params(), LoRASettings(rank=2, **changes))
