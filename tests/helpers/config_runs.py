"""Tiny runs of every variant of every shipped config, and what must come of each."""

import importlib
import json
import math

import numpy as np
import pytest
from helpers import paper_runs, qa_files
from helpers.entry import CONFIGS, call, checkpoint, write_rows
from helpers.report_pages import check_report

from data.tokenizers import load_tokenizer
from models import reward_model
from models.params import flatten_names
from models.peft_files import load_adapters
from models.pretrained import from_pretrained
from models.reward_model import load_reward_model
from research import run as research_run
from train import dpo, ppo_run, reward, sft

PAIRS = [(f"{i} plus {i} is ", f"{2 * i}.") for i in range(24)]
ROWS = {
    "messages": [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in PAIRS
    ],
    "alpaca": [{"instruction": q, "input": "", "output": a} for q, a in PAIRS],
    "prompt": [{"prompt": q, "completion": a} for q, a in PAIRS],
}
SFT = {
    "default": (
        "messages",
        "length=64 batch_size=8 epochs=2.0 loop.eval_every=1 loop.checkpoint_every=1",
    ),
    "mini": (
        "prompt",
        "length=32 steps=2 loop.log_every=1 loop.eval_every=1 loop.checkpoint_every=1",
    ),
    "paper": (
        "alpaca",
        "length=320 buckets=(256,320) batch_size=4 steps=2 loop.log_every=1",
    ),
    "qlora": (
        "prompt",
        "length=32 steps=4 batch_size=8 lora.rank=2 loop.log_every=1 loop.eval_every=2 "
        "loop.checkpoint_every=2 optimizer.lr=0.1",
    ),
}
DPO = {
    "default": "length=64 batch_size=8 loop.log_every=1 loop.eval_every=1",
    "mini": "length=32 steps=2 loop.log_every=1 loop.eval_every=1",
    "paper": "length=40 buckets=(32,40) batch_size=4 steps=2 loop.log_every=1",
    "qlora": "length=32 steps=2 batch_size=8 lora.rank=2 loop.log_every=1 "
    "loop.eval_every=2 loop.checkpoint_every=2 optimizer.lr=0.1",
}
TINY_PPO = (
    "ppo.iterations=1 ppo.prompts=4 ppo.minibatch=4 ppo.accum=1 ppo.max_new_tokens=6 "
    "sampling.slots=4 loop.eval_every=1 loop.checkpoint_every=1 loop.tensorboard=False "
    "loop.keep_best=False"  # else the start may be the best, and nothing has moved
)
PPO = dict.fromkeys(("default", "mini", "faithful"), TINY_PPO) | dict.fromkeys(
    ("prm800k", "metamath"), f"{TINY_PPO} ppo.fit_critic=8"
)
PPO["qlora"] = f"{TINY_PPO} ppo.fit_critic=8 lora.rank=2 optimizer.lr=0.1 mesh.tensor=1"
# variant -> (shapes of rows, overrides); frozen: nothing or what the config says
REWARD = {
    "default": (
        ("steps", "outcome"),
        "length=48 steps=2 batch_size=8 loop.eval_every=1 loop.checkpoint_every=1",
    ),
    "mini": (
        ("pairs",),
        "length=48 steps=2 loop.eval_every=1 loop.checkpoint_every=1 loop.log_every=1",
    ),
    "paper": (
        ("steps",),
        "length=48 buckets=(24,48) batch_size=4 steps=2 loop.log_every=1 "
        "loop.eval_every=2 loop.checkpoint_every=2",
    ),
    "qlora": (
        ("pairs",),
        "length=48 buckets=(48,) batch_size=8 steps=2 lora.rank=2 eval_fraction=0.1 "
        "loop.log_every=1 loop.eval_every=2 loop.checkpoint_every=2 optimizer.lr=0.1",
    ),
}
TRAINING = "{0}.epochs=1.0 {0}.batch_size=16"
# Few shapes to compile: prompts of one width, the same groups of them every time.
SAMPLED = (
    "sampled.votes=2 sampled.counts=(1,2) sampled.max_new_tokens=8 sampled.slots=8 "
    "sampled.repeats=2"
)
STEPS = ((2, 2),) * 5
# Small, but trained until some samples are right and some wrong: evaluators need both.
DEMO = (
    "miniature.sizes.train=(20,6,6,6,6) miniature.sizes.test=10 "
    "miniature.sizes.development=10 miniature.facts=100 model.d_model=32 "
    "model.n_layers=1 model.n_heads=2 model.n_kv_heads=2 model.d_ff=16 "
    "pretrain.epochs=1.0 sft.epochs=80.0 sft.batch_size=4 sampled.votes=2 "
    "sampled.counts=(1,2) sampled.slots=16 sampled.max_new_tokens=24 "
    "evaluators.training.steps=4 evaluators.training.eval_every=2 "
    "evaluators.drawn.samples=6 evaluators.drawn.max_new_tokens=24 "
    "evaluators.drawn.slots=16 "
    "miniature.world.steps=((1,1),(1,1),(1,1),(1,1),(1,1)) "
    "miniature.world.modulus=7 miniature.world.rare_share=(0.2,0.2,0.2,0.2,0.2)"
)
CHAPTER = (
    "large.d_model=16 large.n_layers=1 large.n_heads=2 large.n_kv_heads=2 "
    "large.d_ff=16 policies.ppo.ppo.iterations=2 policies.ppo.ppo.prompts=8 "
    "policies.ppo.ppo.minibatch=4 policies.ppo.ppo.fit_critic=16 "
    "policies.ppo.eval_every=1 "
    "policies.ppo.drawn.slots=16 policies.ppo.drawn.max_new_tokens=24 "
    "policies.rest.drawn.samples=2 policies.rest.drawn.max_new_tokens=24 "
    "policies.rest.drawn.slots=16 policies.rest.rounds=1 policies.dpo.rounds=1 "
    "policies.dpo.drawn.samples=2 policies.dpo.drawn.slots=16 "
    "policies.dpo.drawn.max_new_tokens=24 policies.dpo.batch_size=4 icl.length=64 "
    "coding.sizes.train=(60,40,4,4,4) coding.sizes.test=10 "
    "coding.sizes.development=10 coding.facts=400 coding.pretrain.epochs=2.0 "
    "coding.sft.epochs=40.0 coding.sft.batch_size=4 coding.model.d_model=32 "
    "coding.world.clauses=((1,1),(1,1),(1,1),(1,1),(1,1)) coding.sampled.votes=2 "
    "coding.sampled.counts=(1,2) coding.sampled.slots=16 coding.reward.epochs=1.0 "
    "coding.reward_samples=4"
)
EASY_TO_HARD = {
    "mini": f"{DEMO} {CHAPTER}",
    "demo": DEMO,
    "report": f"seeds=(0,) {DEMO} {CHAPTER}",
} | paper_runs.OVERRIDES


RECITE = dict.fromkeys(
    ("mini", "report", "smoke"),
    "seeds=(0,) miniature.world.persons=24 miniature.one_hop=4 miniature.two_hop=3 "
    "miniature.base.rounds=1 miniature.base.readings=6 miniature.tune.rounds=1 "
    "miniature.tune.repeats=1 miniature.tune.readings=6 "
    "model.d_model=32 model.n_layers=2 model.n_heads=2 "
    "model.n_kv_heads=2 model.d_ff=64 methods.paths=2 methods.counts=(1,2) "
    "methods.recitation_tokens=12 methods.robust_questions=2 methods.robust_paths=1 "
    "methods.exemplar_seeds=2 methods.slots=8 hinted.passages=6 hinted.each=1",
) | dict.fromkeys(
    ("paper_opt", "paper_ul2"),
    "dtype=float32 published.mesh.tensor=1 methods.length=700 methods.paths=2 "
    "methods.counts=(1,2) methods.recitation_tokens=8 methods.answer_tokens=4 "
    "methods.robust_questions=2 methods.robust_paths=1 methods.exemplar_seeds=2 "
    "methods.slots=8",
)
RECITE["paper_opt_hints"] = (
    f"{RECITE['paper_opt']} published.train_dtype=float32 published.remat=none "
    "hinted.passages=6 hinted.training.batch_size=4 hinted.training.length=256"
)


def variants(path) -> list[str]:
    """The names in VARIANTS, all of which get_config must build."""
    module = importlib.import_module(f"configs.{path.stem}")
    for name in module.VARIANTS:
        module.get_config(name)
    assert (
        module.get_config().to_dict() == module.get_config(module.VARIANTS[0]).to_dict()
    )
    return list(module.VARIANTS)


def shipped(belongs, slow=lambda name: False):
    """Parameters (path, variant) of the shipped configs whose id `belongs`.

    Those that are `slow` run with `make test-slow`.
    """
    return [
        pytest.param(path, variant, id=name, marks=[pytest.mark.slow] * slow(name))
        for path in sorted(CONFIGS.glob("*.py"))
        if path.stem != "__init__"
        for variant in variants(path)
        if belongs(name := f"{path.stem}:{variant}")
    ]


def run_shipped(path, variant, folder):
    """Runs a variant to its end; fails where nothing here says how to make it tiny."""
    if path.stem not in RUNS or variant not in RUNS[path.stem][1]:
        pytest.fail(f"{path.name}:{variant} has no tiny overrides in RUNS")
    runs, table = RUNS[path.stem]
    runs(f"--config={path}:{variant}", variant, table[variant], folder)


def run_sft(config, variant, settings, folder):
    shape, settings = settings
    data = write_rows(folder / "data.jsonl", ROWS[shape])
    source = checkpoint(folder / "checkpoint")
    work = folder / "run"
    done = call(
        sft,
        config,
        f"--config.checkpoint={source}",
        f"--config.data={data}",
        *overrides(settings),
        f"--workdir={work}",
    )
    assert done.code == 0, done.err
    assert f"model: {work / 'hf'}" in done.out
    trained, before = from_pretrained(work / "hf"), from_pretrained(source)
    assert trained.cfg == before.cfg
    assert moved(trained.params, before.params) > 0
    assert load_tokenizer(work / "hf").encode("1 plus") == load_tokenizer(
        source
    ).encode("1 plus")
    metrics = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    for name in ("train/loss", "eval/loss", "eval/perplexity"):
        values = [row[name] for row in metrics if name in row]
        assert values and all(map(math.isfinite, values)), name
    assert list((work / "tensorboard").iterdir())
    shown = call(
        sft,
        config,
        f"--config.checkpoint={source}",
        f"--config.data={data}",
        *overrides(settings),
        "--show_batch",
    )
    assert shown.code == 0 and "row 0, segment 1" in shown.out


def run_dpo(config, variant, settings, folder):
    rows = [{"prompt": q, "chosen": a, "rejected": f"no {a}"} for q, a in PAIRS]
    if variant == "default":
        for row in rows:
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    data = write_rows(folder / "pairs.jsonl", rows)
    source = checkpoint(folder / "checkpoint", n_layers=1)
    work = folder / "run"
    given = [config, f"--config.checkpoint={source}", f"--config.data={data}"]
    given += overrides(settings)
    done = call(dpo, *given, f"--workdir={work}")
    assert done.code == 0, done.err
    assert f"model: {work / 'hf'}" in done.out
    trained, before = from_pretrained(work / "hf"), from_pretrained(source)
    assert trained.cfg == before.cfg and moved(trained.params, before.params) > 0
    metrics = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    names = ["train/loss", "train/margin", "train/accuracy", "train/kl"]
    for name in names + ["eval/accuracy"] * (variant != "paper"):
        values = [row[name] for row in metrics if name in row]
        assert values and all(map(math.isfinite, values)), name
    shown = call(dpo, *given, "--show_batch")
    assert shown.code == 0 and shown.out.count("row 0, segment 1") == 2


def run_ppo(config, variant, settings, folder):
    rows = [{"prompt": q, "answer": a} for q, a in PAIRS]
    data = write_rows(folder / "prompts.jsonl", rows)
    policy, judge = checkpoint(folder / "policy", n_layers=1), folder / "judge"
    before = from_pretrained(policy)
    scored = reward_model.init(before.cfg, before.params)
    reward_model.save_reward_model(judge, before.cfg, scored, before.hf_config)
    work = folder / "run"
    given = [f"--config.policy={policy}", f"--config.reward_model={judge}"]
    given += [f"--config.prompts={data}", f"--config.validation={data}"]
    given += overrides(settings)
    done = call(ppo_run, config, *given, f"--workdir={work}")
    assert done.code == 0, done.err
    assert f"policy: {work / 'hf'}" in done.out
    trained = from_pretrained(work / "hf")
    assert trained.cfg == before.cfg and moved(trained.params, before.params) > 0
    metrics = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    if variant == "qlora":
        adapters = load_adapters(work / "adapter", before.cfg)
        assert adapters.lora.rank == 2 and adapters.head is None
    for name in ("train/reward", "train/kl/k3", "train/value/loss", "eval/accuracy"):
        values = [row[name] for row in metrics if name in row]
        assert values and all(map(math.isfinite, values)), name


def run_reward(config, variant, settings, folder):
    shapes, settings = settings
    made = {
        "steps": [
            {"prompt": q, "steps": [f"{i}+{i}\n\n", a], "labels": [1, i % 2]}
            for i, (q, a) in enumerate(PAIRS)
        ],
        "outcome": [
            {"prompt": q, "completion": a, "label": 1 - i % 2}
            for i, (q, a) in enumerate(PAIRS)
        ],
        "pairs": [{"prompt": q, "chosen": a, "rejected": f"no {a}"} for q, a in PAIRS],
    }
    data = write_rows(folder / "data.jsonl", [r for s in shapes for r in made[s]])
    source = checkpoint(folder / "checkpoint", n_layers=1)
    work = folder / "run"
    command = [config, f"--config.checkpoint={source}", f"--config.data={data}"]
    done = call(reward, *command, *overrides(settings), f"--workdir={work}")
    assert done.code == 0, done.err
    assert f"model: {work / 'hf'}" in done.out
    trained, before = load_reward_model(work / "hf"), from_pretrained(source)
    assert trained.cfg == before.cfg
    after = trained.params["decoder"]
    if variant not in ("paper", "qlora"):  # whose exports are in bfloat16
        assert same(after["embed"], before.params["embed"])  # frozen
    metrics = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    names = ["train/loss", "eval/loss", "eval/accuracy"]
    names += ["eval/margin"] if shapes == ("pairs",) else ["eval/brier", "eval/ece"]
    for name in names:
        values = [row[name] for row in metrics if name in row]
        assert values and all(map(math.isfinite, values)), name
    if variant == "qlora":
        adapters = load_adapters(work / "adapter", before.cfg)
        assert adapters.lora.rank == 2 and np.asarray(adapters.head["kernel"]).any()
    if variant == "mini":  # a reward model is a checkpoint to train on, too
        command[1] = f"--config.checkpoint={work / 'hf'}"
        again = call(
            reward, *command, *overrides(settings), f"--workdir={folder / 'again'}"
        )
        assert again.code == 0, again.err
        assert not same(
            load_reward_model(folder / "again" / "hf").params["head"],
            trained.params["head"],
        )


def run_easy_to_hard(config, variant, settings, folder):
    # The miniature's variants share a folder, and so their stages: each runs once.
    work, given = folder.parent / "easy_to_hard", overrides(settings)
    if variant.startswith("paper"):
        made = paper_runs.shared(folder.parent)
        files = made.apps if "apps" in variant else made.math
        work = paper_runs.workdir(folder.parent, variant)
        given = paper_runs.arguments(variant, made.checkpoint, files)
    command = [config, *given, f"--workdir={work}"]
    done = call(research_run, *command)
    assert done.code == 0, done.err
    apps = "apps-" if "apps" in variant else ""
    for name in ("full", "easy"):
        (model,) = work.glob(f"stages/{apps}sft-{name}-*/*/hf")
        from_pretrained(model)
    check_report(work, "Easy-to-hard generalization")
    again = call(research_run, *command)
    assert again.code == 0 and "running" not in again.out


def run_recite(config, variant, settings, folder):
    if variant.startswith("paper"):
        return run_recite_paper(config, variant, settings, folder)
    # The others are the same, made so tiny, and share a folder: stages run once.
    work = folder.parent / ("smoke" if variant == "smoke" else "recite")
    command = [config, "--jobs=1", *overrides(settings), f"--workdir={work}"]
    done = call(research_run, *command)
    assert done.code == 0, done.err
    for name in ("base", "model", "hinted"):
        (model,) = work.glob(f"stages/{name}-0/*/hf")
        from_pretrained(model)
    check_report(work, "Recitation-augmented generation")
    again = call(research_run, *command)
    assert again.code == 0 and "running" not in again.out


def run_recite_paper(config, variant, settings, folder):
    files = qa_files.write_qa(folder / "files")
    of_t5 = variant == "paper_ul2"
    model = (qa_files.t5_checkpoint if of_t5 else qa_files.opt_checkpoint)(
        folder / "model"
    )
    given = {
        "checkpoint": model,
        "natural_questions.test": f"('{files.nq_test}',)",
        "natural_questions.train": f"('{files.nq_train}',)",
        "trivia_qa.test": f"('{files.trivia}',)",
        "hotpot_qa.test": f"('{files.hotpot}',)",
    }
    given = [f"--config.published.{name}={value}" for name, value in given.items()]
    work = folder / "run"
    command = [config, *overrides(settings), *given, f"--workdir={work}"]
    done = call(research_run, *command)
    assert done.code == 0, done.err
    check_report(work, "Recitation-augmented generation")
    again = call(research_run, *command)
    assert again.code == 0 and "running" not in again.out


def overrides(settings: str) -> list[str]:
    return [f"--config.{setting}" for setting in settings.split()]


def same(a, b) -> bool:
    return moved(a, b) == 0


def moved(a, b) -> float:
    a, b = flatten_names(a), flatten_names(b)
    return max(float(abs(np.asarray(a[n] - b[n])).max()) for n in a)


RUNS = {
    "dpo": (run_dpo, DPO),
    "ppo": (run_ppo, PPO),
    "reward": (run_reward, REWARD),
    "sft": (run_sft, SFT),
    "ch4_recite": (run_recite, RECITE),
    "ch6_easy_to_hard": (run_easy_to_hard, EASY_TO_HARD),
}
