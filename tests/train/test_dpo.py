"""Preference optimisation: the known optimum, invariance, resume, files in and out."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from helpers.entry import assert_refused, call, checkpoint, write_rows
from helpers.tiny_run import exact, same_bits

from data.batches import Batches, batches, eval_batches
from data.pairs import ReferencedBatches, token_pair
from models import decoder
from models.config import DecoderConfig
from models.params import flatten_names
from models.pretrained import from_pretrained
from train import dpo, reference
from train.commands import split_examples
from train.dpo import DPOConfig, split_pairs, train_dpo
from train.errors import ConfigError
from train.loop import LoopConfig
from train.optim import OptimizerConfig
from train.preference import PreferenceConfig, pair_log_probs, policy_loss
from train.reference import reference_log_probs
from train.state import init_state
from train.step import make_train_step

V = 6
NLL = PreferenceConfig(nll=0.1)
CFG = DecoderConfig(
    vocab_size=V, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=8, d_ff=8
)
QUIET = LoopConfig(log_every=2, progress=False, tensorboard=False)
ROWS = [
    {"prompt": f"{i // 2}+1=", "chosen": f"{i // 2 + 1}", "rejected": "!" * (1 + i % 2)}
    for i in range(24)
]


@pytest.fixture(scope="module")
def params():
    return jax.device_get(decoder.init_params(CFG, jax.random.key(0)))


def some_pairs(count=12):
    rng = np.random.default_rng(0)

    def ids():
        return rng.integers(1, V, rng.integers(1, 5))

    return [
        token_pair(ids(), ids(), ids(), label=0.75 + 0.25 * (i % 2), weight=1.0 + i % 3)
        for i in range(count)
    ]


def data(pairs, batch_size=4, length=8, **settings):
    layout = {"batch_size": batch_size, "length": length, "pad_id": 0, "seed": 0}
    return batches(pairs, **{**layout, **settings})


@jax.jit
def logits_after(params, token):
    inputs = decoder.plain_inputs(np.array([1]), 1)
    hidden = decoder.forward(CFG, params, token[None, None], *inputs)
    return decoder.logits(CFG, params, hidden)[0, 0]


def log_policy(params, token=1):
    """log pi(. | token), float64 [V]."""
    logits = np.float64(logits_after(params, np.int32(token)))
    return logits - np.log(np.exp(logits).sum())


def test_exhaustive_preferences_lead_to_the_tilted_reference(params):
    """Closed form: pi_ref exp(r / beta) / Z, for labels s(r_i - r_j) of all pairs."""
    reward, beta = np.array([0.3, -0.4, 0.1, 0.5, -0.2, 0.0]), 0.5
    prefer = 1 / (1 + np.exp(reward[None] - reward[:, None]))
    pairs = [
        token_pair([1], [i], [j], label=prefer[i, j])
        for i in range(V)
        for j in range(i)
    ]
    state, _ = train_dpo(
        CFG,
        params,
        data(pairs, len(pairs), 2),
        100,
        preference=PreferenceConfig(beta=beta),
        optimizer=OptimizerConfig(lr=2e-2, clip_norm=None),
        loop=QUIET,
    )
    start = log_policy(params)
    tilted = np.exp(start + reward / beta)
    tilted /= tilted.sum()
    distance = 0.5 * np.abs(np.exp(log_policy(state.params)) - tilted).sum()
    assert distance < 0.01 < 0.5 * np.abs(np.exp(start) - tilted).sum()


def loss_fn(params, batch):
    log_probs, lengths = pair_log_probs(CFG, params, batch.pairs)
    return policy_loss(NLL, log_probs, batch.reference, lengths, batch.pairs)


def test_an_update_does_not_depend_on_padding_or_micro_batches(params):
    """Invariance of parameters and metrics: micro-batches, width, padding, order."""
    pairs = some_pairs(8)
    layout = {"batch_size": 8, "length": 8, "pad_id": 0}
    known = reference_log_probs(CFG, params, pairs, **layout)
    optimizer = dpo.make_optimizer(OptimizerConfig(lr=1e-2, kind="adamw"), 5, params)

    def after(accum=1, length=8, order=slice(None), rows=8):
        some = eval_batches(pairs[order], batch_size=rows, length=length, pad_id=0)
        batch = ReferencedBatches(some, known[order] - 0.5)[0]
        step = make_train_step(loss_fn, optimizer, accum=accum)
        return jax.device_get(step(init_state(params, optimizer), batch))

    state, metrics = after()
    backwards = slice(None, None, -1)
    other, found = after(accum=4, length=11, order=backwards, rows=12)
    for name, value in flatten_names(other.params).items():
        expected = flatten_names(state.params)[name]
        np.testing.assert_allclose(value, expected, atol=2e-5, err_msg=name)
    for name in ("loss", "margin", "accuracy", "kl"):
        np.testing.assert_allclose(found[name], metrics[name], rtol=1e-4)


def test_the_reference_is_scored_as_the_policy_is(params):
    """Equality: batched and padded log-probs = each pair alone; so step 1 is log 2."""
    pairs = some_pairs(5)
    known = reference_log_probs(CFG, params, pairs, batch_size=2, length=8, pad_id=0)
    rows = [eval_batches([p], batch_size=1, length=9, pad_id=0)[0] for p in pairs]
    alone = jax.jit(partial(pair_log_probs, CFG))
    for i, row in enumerate(rows):
        found, lengths = jax.device_get(alone(params, row))
        np.testing.assert_allclose(known[i], found[0], rtol=1e-5)
        one = policy_loss(PreferenceConfig(), found, known[i : i + 1], lengths, row)
        np.testing.assert_allclose(one.sum / one.weight, np.log(2), rtol=1e-5)
        np.testing.assert_allclose(one.extras["kl"][0], 0, atol=1e-4)


class Cut(Batches):
    """Batches whose reader stops the run when it asks for batch 6."""

    def __getitem__(self, step):
        if step == 6:
            raise KeyboardInterrupt
        return super().__getitem__(step)


def test_a_stopped_run_continues_to_the_same_bits(params, tmp_path, monkeypatch):
    """Bit-equality of parameters, moments and rows; the reference is not scored again.

    The frozen parameters are the given ones, bit by bit; all others move.
    """
    pairs, loop = data(some_pairs()), dataclasses.replace(QUIET, checkpoint_every=4)
    frozen = ("embed/*", "*norm/scale")

    def run(given, folder, **changes):
        return train_dpo(
            CFG, params, given, 8, workdir=tmp_path / folder,
            optimizer=OptimizerConfig(lr=1e-2, frozen=frozen), loop=loop,
            **changes,
        )  # fmt: skip

    straight = run(pairs, "straight")
    with pytest.raises(KeyboardInterrupt):
        run(Cut(**vars(pairs)), "stopped")

    def again(*_, **__):
        raise AssertionError("the reference's log-probs were not kept")

    monkeypatch.setattr(reference, "reference_log_probs", again)
    resumed = run(pairs, "stopped")
    assert same_bits(resumed.state, straight.state)
    assert exact(resumed.rows) == exact(straight.rows)
    names = flatten_names(straight.state.params)
    for name, before in flatten_names(params).items():
        spared = name.startswith("embed/") or name.endswith("norm/scale")
        assert np.array_equal(names[name], before) == spared, name
    # Other data, or a file that is not whole: scored anew.
    (tmp_path / "stopped" / "reference.npz").write_bytes(b"PK")
    with pytest.raises(AssertionError, match="not kept"):
        run(pairs, "stopped")
    with pytest.raises(AssertionError, match="not kept"):
        run(data(some_pairs(9)), "straight")


def test_the_reference_is_the_start_another_model_or_none(params, monkeypatch):
    """What the loop is given: the log-probs of `params`, of `reference`, or zeros."""
    monkeypatch.setattr(dpo, "fit", lambda state, step, given, *_, **__: given)
    other = jax.device_get(decoder.init_params(CFG, jax.random.key(1)))
    pairs = some_pairs(4)
    for model, settings in ((params, {}), (other, {"reference": other})):
        given = train_dpo(CFG, params, data(pairs), 1, **settings)
        known = reference_log_probs(CFG, model, pairs, batch_size=4, length=8, pad_id=0)
        np.testing.assert_allclose(given.reference, known, rtol=1e-5)
    monkeypatch.setattr(reference, "reference_log_probs", None)
    free = PreferenceConfig(reference_free=True)
    given = train_dpo(CFG, params, data(pairs), 1, preference=free)
    assert given.reference.shape == (4, 2) and not given.reference.any()


def test_robust_needs_labels_that_are_better_than_a_coin(params):
    """Its divisor 2 p - 1 must be positive: an error before any compute."""
    pairs = data([token_pair([1], [2], [3], label=0.5)])
    with pytest.raises(ConfigError, match="'robust' needs labels above 1/2.*has 0.5"):
        train_dpo(CFG, None, pairs, 1, preference=PreferenceConfig(loss="robust"))


def test_no_prompt_is_on_both_sides_of_the_split():
    """The held-out prompts are those that `split_examples` draws of the prompts."""
    pairs = [token_pair([p, 0], [1, i], [2, i]) for p in range(1, 6) for i in (1, 2, 3)]
    kept, held = split_pairs(pairs, 0.4, 7)

    def prompts(some):
        return [int(pair.chosen.tokens[0]) for pair in some]

    expected = split_examples(list(range(1, 6)), 0.4, 7)
    assert (sorted(set(prompts(kept))), sorted(set(prompts(held)))) == expected
    assert len(kept) == 9 and len(held) == 6


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    source = checkpoint(folder / "base", n_layers=1)
    return source, write_rows(folder / "pairs.jsonl", ROWS)


def config(inputs, **changes):
    base = DPOConfig(
        checkpoint=str(inputs[0]),
        data=str(inputs[1]),
        length=16,
        batch_size=4,
        steps=20,
        eval_fraction=0.25,
        preference=PreferenceConfig(beta=0.5),
        optimizer=OptimizerConfig(lr=5e-3),
        loop=dataclasses.replace(QUIET, eval_every=10),
    )
    return dataclasses.replace(base, **changes)


def test_a_run_learns_the_preference_and_exports_the_policy(inputs, tmp_path):
    """The held-out pairs' accuracy becomes 1; the exported log-probs are the last ones.

    Equality: the KL estimate of the export against the start is the run's own.
    """
    cfg = config(inputs)
    result = dpo.dpo(cfg, tmp_path / "run")
    assert result.metrics["eval/accuracy"] == 1
    assert result.metrics["eval/loss"] < 0.5 < np.log(2)
    assert "eval/perplexity" not in result.metrics
    before, after = from_pretrained(inputs[0]), from_pretrained(result.folder)
    held = dpo.prepare(cfg).held_out
    pairs = [row[0] for row in held.rows]
    layout = {"batch_size": 4, "length": 16, "pad_id": held.pad_id}
    scores = [
        reference_log_probs(model.cfg, model.params, pairs, **layout)
        for model in (before, after)
    ]
    drift = (scores[0] - scores[1]).mean()
    np.testing.assert_allclose(result.metrics["eval/kl"], drift, rtol=1e-4)


def test_bad_settings_name_their_key(inputs, tmp_path):
    """Exit code 2 and one line: what is wrong and where, before anything runs."""
    given = [
        "--config=configs/dpo.py:mini",
        f"--config.checkpoint={inputs[0]}",
        f"--config.data={inputs[1]}",
        f"--workdir={tmp_path / 'run'}",
    ]
    for argument, *mentions in (
        ("--config.preference.loss=sigmoyd", "config.preference.loss", "'sigmoid'"),
        ("--config.preference.beta=0.0", "config.preference.beta: expected > 0"),
        ("--config.label=2.0", "config.label: expected between 0 and 1"),
        ("--config.length=4096", "config.length", "512"),
        ("--config.length=2", "no row fits within 2 tokens"),
        ("--config.accum=3", "config.batch_size", "multiple of 3"),
    ):
        assert_refused(call(dpo, *given, argument), *mentions)
    robust = ("--config.preference.loss=robust", "--config.label=0.5")
    assert_refused(call(dpo, *given, *robust), "preference.loss", "above 1/2")
    assert_refused(call(dpo, *given[:3]), "--workdir: missing")
    assert not (tmp_path / "run" / "hf").exists()
