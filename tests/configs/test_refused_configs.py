"""Configs that cannot run are refused before anything is computed."""

import pytest
from helpers.config_runs import ROWS
from helpers.entry import CONFIGS, assert_refused, call, checkpoint, write_rows

from research import run as research_run
from train import dpo, reward, sft


@pytest.mark.parametrize(
    ("module", "config", "arguments", "mentions"),
    [
        (sft, "sft.py:minni", (), ["'minni'", "'mini'", "'paper'"]),
        (sft, "sfft.py", (), ["did you mean", "configs/sft.py"]),
        (sft, "sft.py", ("--config.optimiser.lr=1",), ["'optimizer.lr'"]),
        (sft, "sft.py", ("--config.optimizer.l_r=1",), ["'optimizer.lr'"]),
        (sft, "sft.py", ("--config.optimizer.lr=0.0",), ["config.optimizer.lr", "> 0"]),
        (sft, "sft.py", ("--config.eval_fraction=2.0",), ["config.eval_fraction"]),
        (
            sft,
            "sft.py",
            ("--config.batch_size=-3",),
            ["config.batch_size: expected > 0"],
        ),
        (sft, "sft.py", ("--config.dtype=float8",), ["config.dtype", "'bfloat16'"]),
        (sft, "sft.py", ("--config.dtype=bflot16",), ["did you mean 'bfloat16'"]),
        (sft, "sft.py", ("--config.steps=0",), ["config.steps: expected > 0"]),
        (sft, "sft.py", ("--config.loop.keep_last=0",), ["config.loop.keep_last"]),
        (sft, "sft.py", ("--config.on_long=cut",), ["config.on_long", "'truncate'"]),
        (sft, "sft.py", ("--config.row_shape=alpacca",), ["did you mean 'alpaca'"]),
        (sft, "sft.py", ("--config.template=alpacca",), ["did you mean 'alpaca'"]),
        (sft, "sft.py", ("--config.accum=5",), ["config.batch_size", "multiple of 5"]),
        (sft, "sft.py", ("--config.length=4096",), ["config.length", "512"]),
        (sft, "sft.py", ("--config.buckets=(64,512)",), ["buckets", "packed"]),
        (sft, "sft.py", ("--config.optimizer.frozen=('embd/*',)",), ["frozen", "embd"]),
        (sft, "sft.py", ("--config.optimizer.warmup=99999",), ["optimizer.warmup"]),
        (sft, "sft.py", ("--wrokdir=x",), ["workdir"]),
        (
            sft,
            "sft.py:qlora",
            ("--config.length=64", "--config.lora.targets=('attn/*',)"),
            ["config.lora", "'attn/*' matches no kernel"],
        ),
        (
            sft,
            "sft.py:qlora",
            ("--config.length=64", "--config.optimizer.frozen=('embed/*',)"),
            ["config.optimizer.frozen", "config.lora freezes all"],
        ),
        (
            reward,
            "reward.py:qlora",
            ("--config.length=64", "--config.lora.targets=('lm_head/*',)"),
            ["config.lora.targets", "'lm_head/*' matches no kernel"],
        ),
        (
            reward,
            "reward.py:qlora",
            ("--config.length=64", "--config.optimizer.frozen=('head/*',)"),
            ["config.optimizer.frozen", "config.lora freezes all"],
        ),
        (
            dpo,
            "dpo.py:qlora",
            ("--config.length=64", "--config.lora.targets=('embed/*',)"),
            ["config.lora.targets", "'embed/*' matches no kernel"],
        ),
        (
            dpo,
            "dpo.py:qlora",
            ("--config.length=64", "--config.optimizer.frozen=('embed/*',)"),
            ["config.optimizer.frozen", "config.lora freezes all"],
        ),
        (
            dpo,
            "dpo.py:qlora",
            ("--config.lora.base=fp4",),
            ["config.lora.base", "'nf4', 'int8'"],
        ),
        (
            reward,
            "reward.py:qlora",
            ("--config.lora.rank=0",),
            ["config.lora.rank: expected > 0"],
        ),
        (reward, "reward.py", ("--config.lora.rank=2",), ["lora"]),
        (research_run, "ch6_easy_to_hard.py:tiny", (), ["'tiny'", "'mini'"]),
        (
            research_run,
            "ch6_easy_to_hard.py",
            ("--config.sft.epoch=1.0",),
            ["config.sft.epoch: unknown key; did you mean 'sft.epochs'?"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py",
            ("--config.miniature.world.modulus=12",),
            ["config.miniature.world: modulus: expected a prime >= 5, got 12"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py",
            ("--config.sampled.counts=(1,64)",),
            ["config.sampled: counts: 64 is over votes, 16"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py",
            ("--config.dtype=float12",),
            ["config.dtype", "'float32'"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py",
            ("--config.model.n_heads=5",),
            ["config.model: d_model: expected an even number per head"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py",
            ("--config.seeds=()",),
            ["config", "seeds: expected at least one"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py:paper",
            (),
            ["config.published.checkpoint: missing"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py:paper",
            ("--config.published.checkpoint=x", "--config.published.prm800k=()"),
            ["config: evaluators: expected labelled steps, from published.prm800k"],
        ),
        (
            research_run,
            "ch6_easy_to_hard.py:paper_apps",
            (),
            ["config.apps.checkpoint: missing"],
        ),
    ],
)
def test_impossible_configs_name_the_key_before_anything_runs(
    module, config, arguments, mentions, tmp_path
):
    """Exit code 2 and one line with the key and what was expected; nothing written."""
    work, given = tmp_path / "run", []
    if module is not research_run:
        pair = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
        rows = ROWS["prompt"] if module is sft else [pair] * 24
        data = write_rows(tmp_path / "data.jsonl", rows)
        source = checkpoint(tmp_path / "checkpoint")
        given = [f"--config.checkpoint={source}", f"--config.data={data}"]
    done = call(
        module, f"--config={CONFIGS / config}", *given, *arguments, f"--workdir={work}"
    )
    assert_refused(done, *mentions)
    assert not (work / "hf").exists() and not (work / "stages").exists()


def test_sft_needs_a_checkpoint_data_and_a_folder(tmp_path):
    config = f"--config={CONFIGS / 'sft.py'}"
    assert_refused(call(sft, config), "config.checkpoint")
    data = write_rows(tmp_path / "data.jsonl", ROWS["prompt"])
    given = [
        f"--config.checkpoint={checkpoint(tmp_path / 'checkpoint')}",
        f"--config.data={data}",
    ]
    assert_refused(call(sft, config, given[0], "--workdir=w"), "config.data")
    assert_refused(call(sft, config, *given), "--workdir: missing")


@pytest.mark.parametrize(
    ("rows", "arguments", "mentions"),
    [
        ([{"prompt": "1", "completion": "2"}], (), [":1: label: expected a number"]),
        (
            [{"prompt": "1", "steps": ["a"], "labels": [2]}],
            (),
            [":1: labels[0]: expected a number from 0 to 1, got 2"],
        ),
        (
            [{"prompt": "1", "completion": "2", "label": 1}, {"prompt": "1"}],
            (),
            [":2: steps: expected a list of some, got nothing"],
        ),
        ([{"prompt": "1", "chosen": "2"}], (), [":1: ", "rejected"]),
        (
            [{"prompt": "1", "completion": "2" * 60, "label": 1}],
            ("--config.length=48",),
            [":1: ", "tokens, more than the length of 48"],
        ),
        (
            [{"prompt": "1", "completion": "2", "label": 1}] * 9,
            (),
            ["config.eval_fraction", "leaves nothing to train on"],
        ),
        (
            [{"prompt": "1", "completion": "2", "label": 1}],
            ("--config.eval_fraction=0.0",),
            ["config.loop.keep_best: needs held-out data"],
        ),
        (
            [{"prompt": "1", "completion": "2", "label": 1}],
            ("--config.template=chatml",),
            ["config.template: 'chatml' is for preferences"],
        ),
        ([], ("--config.where=start",), ["config.where", "'all', 'end'"]),
        ([], ("--config.loop.patience=0",), ["config.loop.patience: expected > 0"]),
        (
            [{"prompt": str(i), "completion": "2", "label": 1} for i in range(40)],
            ("--config.optimizer.frozen=('embed/*',)",),
            ["optimizer.frozen", "'embed/*' matches no parameter", "decoder/embed"],
        ),
    ],
)
def test_reward_refuses_what_it_cannot_train_on(rows, arguments, mentions, tmp_path):
    """Exit code 2 and one line with file, line and field, or the key; nothing made."""
    data = write_rows(tmp_path / "data.jsonl", rows)
    source = checkpoint(tmp_path / "checkpoint", n_layers=1)
    given = [f"--config.checkpoint={source}", f"--config.data={data}", *arguments]
    config, work = f"--config={CONFIGS / 'reward.py'}", tmp_path / "run"
    assert_refused(call(reward, config, *given, f"--workdir={work}"), *mentions)
    assert not (work / "hf").exists() and not (work / "checkpoints").exists()
