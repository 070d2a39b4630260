"""The chapter as stages: generators, evaluators, further training, programs, report."""

import dataclasses
from typing import NamedTuple

from research.easy_to_hard import coding, evaluators, generators, icl, policies, tasks
from research.easy_to_hard import report as chapter_report
from research.easy_to_hard.chapter import Settings
from research.easy_to_hard.published import make_math
from research.stages import Handle, Plan
from train.commands import MeshConfig

TEMPLATE = "plain"
GENERATORS = {"full": None, "easy": tasks.EASY}  # levels that each is fine-tuned on
# PPO: levels of the questions, levels whose answers are known, process reward or not,
# KL coefficient (None: the config's), quirks of the original code.
PPO = {
    "ppo-easy": (tasks.EASY, tasks.EASY, False, None, False),
    "ppo-all": (None, None, False, None, False),
    "ppo-prm": (None, tasks.EASY, True, None, False),
    "ppo-free": (None, tasks.EASY, True, 0.0, False),
    "ppo-faithful": (None, tasks.EASY, True, None, True),
}


class Ground(NamedTuple):
    """What the experiment stands on.

    easy, full: data stages, with the labels of easy levels only, and of all levels. A
        miniature has one for both, of which stages take the levels they may see.
    bases: of every size, a stage or the path of a checkpoint.
    lr_scales: of every size, what its learning rates are multiplied by.
    placed, answered, trained: arguments of stages that hold a model, that read answers,
        and that train. A miniature takes one device and saves no memory.
    """

    easy: Handle
    full: Handle
    bases: dict[str, Handle | str]
    lr_scales: dict[str, float]
    placed: dict[str, MeshConfig]
    answered: dict[str, str]
    trained: dict[str, str]


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<which>-<seed>`.

    As in the thesis the base is given: seeds differ in fine-tuning and sampling. What
    is supervised by easy problems reads the easy data only.
    """
    ground = _ground(plan, cfg)
    bases = ground.bases
    answers: dict[str, Handle] = {}
    scores: dict[str, Handle] = {}
    judges: dict[str, Handle] = {}
    trained: dict[str, list[list[Handle]]] = {}
    programs, program_judges = [], []
    for seed in cfg.seeds:
        wanted = GENERATORS | ({"large": tasks.EASY} if "large" in bases else {})
        made = {
            name: plan.stage(
                f"sft-{name}-{seed}",
                generators.finetune,
                data=ground.full if levels is None else ground.easy,
                base=bases["large" if name == "large" else "small"],
                # Published rows may be of no level; their stage has chosen them.
                levels=None if cfg.published else levels,
                training=_scaled(
                    cfg.sft, ground.lr_scales["large" if name == "large" else "small"]
                ),
                template=TEMPLATE,
                dtype=cfg.train_dtype or cfg.dtype,
                remat=cfg.remat,
                seed=seed,
                **ground.placed,
            )
            for name, levels in wanted.items()
        }
        for name, generator in made.items():
            answers[f"{name}-{seed}"] = plan.stage(
                f"answers-{name}-{seed}",
                generators.answer,
                data=ground.easy,
                generator=generator,
                sampled=cfg.sampled,
                template=TEMPLATE,
                dtype=cfg.dtype,
                seed=seed,
                **ground.placed,
                **ground.answered,
            )
        if cfg.icl is not None:
            for kind in icl.KINDS:
                answers[f"icl-{kind}-{seed}"] = plan.stage(
                    f"icl-{kind}-{seed}",
                    icl.answer_icl,
                    data=ground.easy if kind == "easy" else ground.full,
                    base=bases["small"],
                    kind=kind,
                    exemplars=cfg.icl,
                    sampled=cfg.sampled,
                    dtype=cfg.dtype,
                    seed=seed,
                    **ground.placed,
                    **ground.answered,
                )
        if cfg.evaluators is not None:
            _evaluators(plan, cfg, ground, made, answers, seed, judges, scores)
        if cfg.policies is not None:
            of_seed = {kind: judges[f"{kind} {seed}"] for kind in cfg.evaluators.kinds}
            _policies(plan, cfg, ground, made, of_seed, seed, trained)
    # Last, so that its many short stages fill the cores that long ones leave idle.
    if cfg.coding is not None:
        programs = coding.declare(plan, cfg.coding, cfg.seeds, cfg.dtype)
        made = {handle.name: handle for handle in plan.handles}
        program_judges = [made[f"coding-orm-{seed}"] for seed in cfg.seeds]
    plan.stage(
        "report",
        chapter_report.write_report,
        answers=answers,
        scores=scores,
        evaluators=judges,
        policies=trained,
        programs=programs,
        program_judges=program_judges,
        seeds=cfg.seeds,
        sampled=cfg.sampled,
        miniature=cfg.miniature is not None,
        voting=cfg.evaluators.voting if cfg.evaluators else "product",
        further=cfg.policies,
        **ground.answered,
    )


def _ground(plan, cfg) -> Ground:
    dtype = cfg.train_dtype or cfg.dtype
    if cfg.published is not None:
        easy, full = (
            plan.stage(f"data-{name}", make_math, task=cfg.published, levels=levels)
            for name, levels in (("easy", tasks.EASY), ("full", icl.LEVELS))
        )
        bases = {"small": cfg.published.checkpoint}
        if cfg.large_checkpoint is not None:
            bases["large"] = cfg.large_checkpoint
        return Ground(
            easy,
            full,
            bases,
            lr_scales={"small": 1.0, "large": cfg.large_lr_scale},
            placed={"mesh": cfg.mesh},
            answered={"rules": "math"},
            trained={"dtype": dtype, "remat": cfg.remat},
        )
    seed, bases, lr_scales = cfg.seeds[0], {}, {}
    data = plan.stage("data", tasks.make_world, task=cfg.miniature, seed=seed)
    sizes = {"small": ("base", cfg.model), "large": ("base-large", cfg.large)}
    for size, (name, model) in sizes.items():
        if model is not None:
            lr_scales[size] = model.lr_scale
            bases[size] = plan.stage(
                name,
                generators.pretrain,
                data=data,
                model=model,
                training=_scaled(cfg.pretrain, model.lr_scale),
                dtype=cfg.dtype,
                seed=seed,
            )
    return Ground(data, data, bases, lr_scales, {}, {}, {"dtype": dtype})


def _scaled(training, lr_scale: float):
    """Training with the learning rate that a model of some size needs."""
    lr = training.optimizer.lr * lr_scale
    optimizer = dataclasses.replace(training.optimizer, lr=lr)
    return dataclasses.replace(training, optimizer=optimizer)


def _evaluators(plan, cfg, ground, made, answers, seed, judges, scores):
    """Evaluators of the easy generator's solutions, and their scores of the answers."""
    settings, common = cfg.evaluators, {"dtype": cfg.dtype, **ground.placed}
    pool = plan.stage(
        f"pool-{seed}",
        evaluators.draw,
        data=ground.easy,
        generator=made["easy"],
        levels=tasks.EASY,
        drawn=settings.drawn,
        seed=seed,
        **common,
    )
    if cfg.published is not None:
        labels = plan.stage(
            f"labels-{seed}",
            evaluators.label_published,
            data=ground.easy,
            pool=pool,
            seed=seed,
            **ground.answered,
        )
    else:
        labels = plan.stage(
            f"labels-{seed}",
            evaluators.label,
            pool=pool,
            world=cfg.miniature.world,
            seed=seed,
        )
    # What a miniature does without is no argument of its stages.
    more = {"epochs": settings.epochs} if settings.epochs else {}
    if settings.accum > 1:
        more["accum"] = settings.accum
    starts = {kind: ("easy", kind) for kind in settings.kinds}
    if "large" in made:
        starts["large"] = ("large", "oprm")
    for name, (start, kind) in starts.items():
        size = "large" if start == "large" else "small"
        training = settings.training
        if kind == "prm" and settings.prm_training is not None:
            training = settings.prm_training
        if size == "large" and settings.large_steps is not None:
            training = dataclasses.replace(training, steps=settings.large_steps)
        judge = judges[f"{name} {seed}"] = plan.stage(
            f"{name}-{seed}" if name != "large" else f"oprm-large-{seed}",
            evaluators.train_evaluator,
            labels=labels,
            start=made[start] if settings.start == "generator" else ground.bases[size],
            kind=kind,
            training=_scaled(training, ground.lr_scales[size]),
            seed=seed,
            **more,
            **(common | ground.trained),
        )
        for generator in ("easy", "large"):
            if generator not in made or (generator, kind) == ("large", "orm"):
                continue
            if generator == "large" and kind == "prm":
                continue
            scores[f"{generator} {name} {seed}"] = plan.stage(
                f"score-{generator}-{name}-{seed}",
                evaluators.score,
                answers=answers[f"{generator}-{seed}"],
                evaluator=judge,
                **common,
            )


def _policies(plan, cfg, ground, made, judges, seed, trained):
    """Rounds of every way to train the easy generator further."""
    settings, easy, prm = cfg.policies, made["easy"], judges["prm"]
    common = {"dtype": cfg.dtype, **ground.placed, **ground.answered}
    training = common | ground.trained
    accum, frozen = {}, {}
    if settings.dpo_accum > 1:
        accum = {"accum": settings.dpo_accum}
    if settings.value_frozen is not None:
        frozen = {"value_frozen": settings.value_frozen}

    def add(name, stages):
        trained.setdefault(name, []).append(stages)

    for name, generator in (("full", made["full"]), ("sft", easy)):
        stage = plan.stage(
            f"greedy-{name}-{seed}",
            policies.measured,
            data=ground.easy,
            policy=generator,
            drawn=settings.rest.drawn,
            **common,
        )
        add(name, [stage])
    rounds = [easy]
    for number in range(1, settings.rest.rounds + 1):
        stage = plan.stage(
            f"rest-{number}-{seed}",
            policies.rest_round,
            data=ground.easy,
            policy=rounds[-1],
            base=ground.bases["small"],
            levels=tasks.EASY,
            rest=settings.rest,
            training=cfg.sft,
            template=TEMPLATE,
            seed=seed,
            number=number,
            **training,
        )
        rounds.append(stage)
    add("rest", rounds[1:])
    rounds = [easy]
    for number in range(1, settings.dpo.rounds + 1):
        stage = plan.stage(
            f"dpo-{number}-{seed}",
            policies.dpo_round,
            data=ground.easy,
            policy=rounds[-1],
            evaluator=prm,
            rounds=settings.dpo,
            seed=seed,
            number=number,
            **accum,
            **training,
        )
        rounds.append(stage)
    add("dpo", rounds[1:])
    for name, (questions, known, process, kl_coef, faithful) in PPO.items():
        stage = plan.stage(
            f"{name}-{seed}",
            policies.ppo_run,
            data=ground.full if known is None else ground.easy,
            policy=easy,
            evaluator=prm,
            critic=None if faithful else judges[settings.ppo.critic],
            process=process,
            questions=questions,
            answers=known,
            runs=settings.ppo,
            kl_coef=kl_coef,
            faithful=faithful,
            seed=seed,
            **training,
            **frozen,
        )
        add(name, [stage])
