"""What the chapter's stages compute, for `research.plan`: runs, and how many steps.

The same settings as the stages hand to `train`, without the files. Counts are upper
bounds: every problem is kept, every example fills a row (packing puts several into
one), every response goes on to its budget. Early stopping is not seen. Left out are
evaluations on held-out rows, and copying and saving.
"""

import dataclasses
import math
from collections.abc import Iterator

from data.worlds import arithmetic, programs
from models.config import DecoderConfig
from research.easy_to_hard import (
    apps,
    apps_chapter,
    coding,
    evaluators,
    generators,
    icl,
    outcome,
    policies,
    published,
    report,
    tasks,
)
from research.easy_to_hard.settings import Drawn, Sampled
from research.plan import Facts, Stage, Work
from research.plan_work import ALONE, NAMES, mesh_of, sft, updates
from research.stages import Handle
from research.training import ModelSize, small_decoder
from train.dpo import DPOConfig
from train.plan_sampling import SampleRun, ScoreRun
from train.ppo_config import FAITHFUL
from train.ppo_run import RewardSettings, RunConfig, SamplingSettings
from train.preference import PreferenceConfig
from train.reward import RewardConfig

SPECIAL = 4  # tokens of a word tokenizer that are no words
# PRM800K's split of MATH: 12,000 problems to train on, 500 of which are validation, and
# the 500 of MATH500, 238 of them of levels 1 to 3. The others are taken to be of easy
# levels in the same share, as the split is by level.
MATH = {"train": 11500, "train easy": 11500 * 238 // 500, "test": 500}
MATH |= {"development": 500, "development easy": 238}
# APPS (Hendrycks et al. 2021): problems of the training split, introductory ones.
APPS = {"train": 5000, "train easy": 2639}


def architecture(source, facts: Facts) -> DecoderConfig:
    """Of a checkpoint, or of the model that a stage trained or used."""
    if isinstance(source, str):
        return facts.model(source)
    inputs = source.inputs
    if source.fn is generators.pretrain:
        return _from_scratch(inputs["model"], inputs["data"])
    if "task" in inputs:
        return facts.model(inputs["task"].checkpoint)
    starts = ("base", "start", "policy", "generator")
    start = next(inputs[name] for name in starts if name in inputs)
    return architecture(start, facts)


def _from_scratch(size: ModelSize, data: Handle) -> DecoderConfig:
    task = data.inputs["task"]
    coded = data.fn is coding.make_world
    words = programs.vocabulary() if coded else arithmetic.vocabulary(task.world)
    return small_decoder(size, len(words) + SPECIAL, "float32")


# --- counts -------------------------------------------------------------------------


def rows(data: Handle, name: str, facts: Facts, easy: bool = False) -> int | None:
    """Rows of a data stage's file, of the easy levels or of all that it has.

    As it counted them, or else as its settings and the published sizes have them.
    """
    counted = facts.counts(data)
    if data.fn is published.make_math:  # has the rows of its levels only
        if name in counted:
            return counted[name]
        task, own = data.inputs["task"], tuple(data.inputs["levels"])
        easy = easy or own == tuple(tasks.EASY)
        if name in ("sft", "steps"):
            sources = task.prm800k or task.metamath or task.math_shepherd
            return facts.examples if sources else rows(data, "train", facts)
        if name == "rl":
            easy = easy and task.rl == "wanted"
            name = "train"
        if name == "development" and task.select_on == "all":
            easy = False
        return MATH.get(f"{name} easy", MATH[name]) if easy else MATH[name]
    task = data.inputs["task"]
    if data.fn is apps.read_problems:
        if name == "sft":
            kept = counted.get("train") if not easy else None
            return task.solutions * (kept or APPS["train easy" if easy else "train"])
        held = round(task.held_out * APPS["train easy"])
        most = {"heldout": held, "labelled": task.reward_problems}
        return counted.get(name) or most.get(name) or sum(task.test_sizes)
    if name == "facts":
        return task.facts
    if name in ("test", "development"):
        return getattr(task.sizes, name)
    levels = task.sizes.train
    known = arithmetic.EASY if data.fn is tasks.make_world else programs.EASY
    return sum(levels[: len(known)]) if easy else sum(levels)


def is_easy(levels) -> bool:
    """Whether these are the easy levels, or difficulties, only."""
    if levels is None:
        return False
    return any(set(levels) <= set(e) for e in (tasks.EASY, apps.apps.EASY))


# --- parts of stages ----------------------------------------------------------------


def drawn(
    model,
    dtype,
    mesh,
    facts: Facts,
    prompts: int,
    samples: int,
    rules: Sampled | Drawn,
    *,
    greedy: bool = False,
    prompt: int = 0,
    prefix: int = 0,
) -> Work:
    """Responses to so many prompts; prompt: tokens of one, where the settings say it.

    prefix: tokens before all of them, fewer where the model has no room for them.
    """
    slots = min(rules.slots, 1 << max(0, prompts * samples - 1).bit_length())
    sampling = SamplingSettings(
        temperature=0.0 if greedy else rules.temperature,
        top_k=0 if greedy else rules.top_k,
        slots=slots,
    )
    room = model.context - rules.max_new_tokens
    length = min(prompt or facts.prompt_length, room)
    run = SampleRun(
        max_new_tokens=rules.max_new_tokens,
        samples=min(samples, slots),
        prefix=min(prefix, room - length),
        sampling=sampling,
        dtype=dtype,
        mesh=mesh,
    )
    steps = math.ceil(prompts * samples / slots)
    return Work(run, model, steps, prompt_length=length)


def scored(model, dtype, mesh, facts: Facts, count: int, rules, batch=256, prompt=0):
    """An evaluator's scores of so many solutions."""
    length = min((prompt or facts.prompt_length) + rules.max_new_tokens, model.context)
    run = ScoreRun(length=length, rows=batch, dtype=dtype, mesh=mesh)
    return Work(run, model, math.ceil(count / batch))


def finished(model, data, rules: Drawn, dtype, mesh, facts) -> Iterator[Work]:
    """The greedy answers at the end of a stage, as `held_out.finish` draws them."""
    for name in ("test", "development"):
        count = rows(data, name, facts)
        yield drawn(model, dtype, mesh, facts, count, 1, rules, greedy=True)


# --- stages -------------------------------------------------------------------------


def _pretrain(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    examples = rows(i["data"], "facts", facts)
    model = architecture(stage, facts)
    yield sft(model, i["training"], i["dtype"], "none", ALONE, examples)


def _finetune(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model = architecture(i["base"], facts)
    examples = rows(i["data"], "sft", facts, is_easy(i["levels"]))
    remat = i.get("remat", "none")
    yield sft(model, i["training"], i["dtype"], remat, mesh_of(i), examples)


def _answers(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model, rules = architecture(stage, facts), i["sampled"]
    count, placed = rows(i["data"], "test", facts), (i["dtype"], mesh_of(i), facts)
    shots = i["exemplars"].length if stage.fn is icl.answer_icl else 0
    yield drawn(model, *placed, count, 1, rules, greedy=True, prefix=shots)
    yield drawn(model, *placed, count, rules.votes, rules, prefix=shots)


def _pool(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model, rules = architecture(stage, facts), i["drawn"]
    count = rows(i["data"], "train", facts, is_easy(i["levels"]))
    yield drawn(model, i["dtype"], mesh_of(i), facts, count, rules.samples, rules)


def _evaluator(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    training, pool = i["training"], i["labels"].inputs["pool"].inputs
    steps = training.steps
    if i.get("epochs"):
        easy = rows(pool["data"], "train", facts, True)
        outcomes = easy * pool["drawn"].samples
        labelled = facts.counts(i["labels"].inputs.get("data", i["labels"]))
        process = labelled.get("steps", facts.examples)
        kinds = {"process": process, "outcome": outcomes}
        of_kind = [kinds[name] for name in evaluators.FILES[i["kind"]]]
        steps = None
        if None not in of_kind:
            learned = (1 - training.held_out) * sum(of_kind)
            steps = math.ceil(i["epochs"] * math.ceil(learned / training.batch_size))
    run = RewardConfig(
        **NAMES,
        length=training.length,
        batch_size=training.batch_size,
        accum=i.get("accum", 1),
        dtype=i["dtype"],
        remat=i.get("remat", "none"),
        optimizer=training.optimizer,
        mesh=mesh_of(i),
    )
    yield Work(run, architecture(i["start"], facts), steps)


def _score(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    rules = i["answers"].inputs["sampled"]
    count = rules.votes * rows(i["answers"].inputs["data"], "test", facts)
    model = architecture(i["evaluator"], facts)
    yield scored(model, i["dtype"], mesh_of(i), facts, count, rules)


def _measured(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model = architecture(i["policy"], facts)
    yield from finished(model, i["data"], i["drawn"], i["dtype"], mesh_of(i), facts)


def _rest(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model, rules = architecture(i["base"], facts), i["rest"].drawn
    dtype, mesh = i["dtype"], mesh_of(i)
    count = rows(i["data"], "train", facts, is_easy(i["levels"]))
    yield drawn(model, dtype, mesh, facts, count, rules.samples, rules)
    examples = count * min(i["rest"].most, rules.samples)
    yield sft(model, i["training"], dtype, i.get("remat", "none"), mesh, examples)
    yield from finished(model, i["data"], rules, dtype, mesh, facts)


def _dpo(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model, rounds = architecture(i["policy"], facts), i["rounds"]
    dtype, mesh = i["dtype"], mesh_of(i)
    count, rules = rows(i["data"], "train", facts, True), rounds.drawn
    yield drawn(model, dtype, mesh, facts, count, rules.samples, rules)
    judge = architecture(i["evaluator"], facts)
    yield scored(judge, dtype, mesh, facts, count * rules.samples, rules)
    run = DPOConfig(
        **NAMES,
        length=rounds.length,
        batch_size=rounds.batch_size,
        accum=i.get("accum", 1),
        epochs=rounds.epochs,
        dtype=dtype,
        remat=i.get("remat", "none"),
        preference=PreferenceConfig(beta=rounds.beta),
        optimizer=rounds.optimizer,
        mesh=mesh,
    )
    pairs = count * rounds.most
    steps = max(1, round(rounds.epochs * math.ceil(pairs / rounds.batch_size)))
    yield Work(run, model, steps)
    yield from finished(model, i["data"], rules, dtype, mesh, facts)


def _ppo(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    runs, faithful = i["runs"], i["faithful"]
    model, judge = (architecture(i[name], facts) for name in ("policy", "evaluator"))
    dtype, mesh, rules = i["dtype"], mesh_of(i), runs.drawn
    changed = {"quirks": FAITHFUL, "whiten_rewards": True} if faithful else {}
    ppo = dataclasses.replace(
        runs.ppo,
        max_new_tokens=rules.max_new_tokens,
        samples=rules.samples,
        fit_critic=0,
        **changed,
    )
    frozen = i.get("value_frozen")
    run = RunConfig(
        policy="",
        prompts="",
        dtype=dtype,
        remat=i.get("remat", "none"),
        rewards=RewardSettings(process=float(i["process"])),
        sampling=SamplingSettings(
            temperature=rules.temperature, top_k=rules.top_k, slots=rules.slots
        ),
        ppo=ppo,
        optimizer=runs.optimizer,
        value_frozen=runs.optimizer.frozen if frozen is None else tuple(frozen),
        mesh=mesh,
    )
    length = min(facts.prompt_length, model.context - rules.max_new_tokens)
    yield Work(run, model, ppo.iterations, judge, prompt_length=length)
    count = rows(i["data"], "development", facts) * (ppo.iterations // runs.eval_every)
    yield drawn(model, dtype, mesh, facts, count, 1, rules, greedy=True)
    if runs.ppo.fit_critic and not faithful:
        first = runs.ppo.fit_critic
        yield drawn(model, dtype, mesh, facts, first, 1, rules)
        yield "the least squares of the critic's head, once"
    yield from finished(model, i["data"], rules, dtype, mesh, facts)


def _programs(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    task = i["data"].inputs["task"]
    model, split = architecture(i["generator"], facts), i["split"]
    placed, prompt = (i.get("dtype"), ALONE, facts), 0
    if stage.fn is apps.write_programs:
        placed, prompt = (task.dtype, task.mesh, facts), task.prompt_tokens
    count = rows(i["data"], split, facts, is_easy(i.get("levels")))
    rules = i["sampled"] or task.sampled
    yield drawn(model, *placed, count, 1, rules, greedy=True, prompt=prompt)
    if i["sampled"] is not None:
        yield drawn(model, *placed, count, rules.votes, rules, prompt=prompt)


def _apps_sft(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    task = i["task"]
    examples = rows(i["data"], "sft", facts, is_easy(i["difficulties"]))
    dtype, model = task.train_dtype or task.dtype, architecture(stage, facts)
    yield sft(model, task.sft, dtype, task.remat, task.mesh, examples)


def _outcome(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    model, training, mesh = architecture(i["base"], facts), i["training"], mesh_of(i)
    pool, held = i["labelled"].inputs, i["held_out"].inputs
    easy = is_easy(pool.get("levels"))
    examples = rows(pool["data"], pool["split"], facts, easy) * pool["sampled"].votes
    run = RewardConfig(
        **NAMES,
        length=training.length,
        batch_size=training.batch_size,
        accum=training.accum,
        dtype=i["dtype"],
        remat=i.get("remat", "none"),
        optimizer=training.optimizer,
        mesh=mesh,
    )
    yield Work(run, model, updates(training, examples))
    prompt = getattr(held["data"].inputs["task"], "prompt_tokens", 0)
    count = rows(held["data"], held["split"], facts) * held["sampled"].votes
    rules = held["sampled"]
    yield scored(model, i["dtype"], mesh, facts, count, rules, 64, prompt)


def _results(stage: Handle, facts: Facts) -> Iterator[Work | str]:
    i = stage.inputs
    given = i["answers"]["easy"].inputs
    prompt = getattr(given["data"].inputs["task"], "prompt_tokens", 0)
    rules, model = given["sampled"], architecture(i["orm"], facts)
    count = rows(given["data"], given["split"], facts) * rules.votes
    yield scored(model, i["dtype"], mesh_of(i), facts, count, rules, 64, prompt)


STAGES: dict[object, Stage | None] = {
    generators.pretrain: _pretrain,
    generators.finetune: _finetune,
    generators.answer: _answers,
    icl.answer_icl: _answers,
    evaluators.draw: _pool,
    evaluators.train_evaluator: _evaluator,
    evaluators.score: _score,
    policies.measured: _measured,
    policies.rest_round: _rest,
    policies.dpo_round: _dpo,
    policies.ppo_run: _ppo,
    coding.finetune: _finetune,
    coding.write_programs: _programs,
    apps.finetune: _apps_sft,
    apps.write_programs: _programs,
    outcome.train_outcome: _outcome,
    outcome.score_programs: _results,
    # Nothing on a device.
    tasks.make_world: None,
    published.make_math: None,
    coding.make_world: None,
    apps.read_problems: None,
    evaluators.label: None,
    evaluators.label_published: None,
    report.write_report: None,
    apps_chapter.write_report: None,
}
