"""The chapter as stages: generators, evaluators, further training, programs, report."""

from research.easy_to_hard import coding, evaluators, generators, icl, policies, tasks
from research.easy_to_hard import report as chapter_report
from research.easy_to_hard.chapter import Settings
from research.stages import Handle, Plan

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


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<which>-<seed>`.

    As in the thesis the base is given: seeds differ in fine-tuning and sampling.
    """
    template, data, bases = _ground(plan, cfg)
    answers: dict[str, Handle] = {}
    scores: dict[str, Handle] = {}
    judges: dict[str, Handle] = {}
    trained: dict[str, list[list[Handle]]] = {}
    for seed in cfg.seeds:
        wanted = GENERATORS | ({"large": tasks.EASY} if "large" in bases else {})
        made = {
            name: plan.stage(
                f"sft-{name}-{seed}",
                generators.finetune,
                data=data,
                base=bases["large" if name == "large" else "small"],
                levels=levels,
                training=cfg.sft,
                template=template,
                dtype=cfg.dtype,
                remat=cfg.remat,
                seed=seed,
            )
            for name, levels in wanted.items()
        }
        for name, generator in made.items():
            answers[f"{name}-{seed}"] = plan.stage(
                f"answers-{name}-{seed}",
                generators.answer,
                data=data,
                generator=generator,
                sampled=cfg.sampled,
                template=template,
                dtype=cfg.dtype,
                seed=seed,
            )
        if cfg.icl is not None:
            for kind in icl.KINDS:
                answers[f"icl-{kind}-{seed}"] = plan.stage(
                    f"icl-{kind}-{seed}",
                    icl.answer_icl,
                    data=data,
                    base=bases["small"],
                    kind=kind,
                    exemplars=cfg.icl,
                    sampled=cfg.sampled,
                    dtype=cfg.dtype,
                    seed=seed,
                )
        if cfg.evaluators is not None:
            _evaluators(plan, cfg, data, made, answers, seed, judges, scores)
        if cfg.policies is not None:
            prm = judges[f"prm {seed}"]
            _policies(plan, cfg, template, data, bases, made, prm, seed, trained)
    programs, program_judges = [], []
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
    )


def _ground(plan, cfg):
    """(chat template, data, {"small": base, "large": base}): stages, or a path."""
    if cfg.miniature is None:
        data = plan.stage("data", tasks.read_published, task=cfg.published)
        return cfg.published.template, data, {"small": cfg.published.checkpoint}
    seed, bases = cfg.seeds[0], {}
    data = plan.stage("data", tasks.make_world, task=cfg.miniature, seed=seed)
    sizes = {"small": ("base", cfg.model), "large": ("base-large", cfg.large)}
    for size, (name, model) in sizes.items():
        if model is not None:
            bases[size] = plan.stage(
                name,
                generators.pretrain,
                data=data,
                model=model,
                training=cfg.pretrain,
                dtype=cfg.dtype,
                seed=seed,
            )
    return "plain", data, bases


def _evaluators(plan, cfg, data, made, answers, seed, judges, scores):
    """Evaluators of the easy generator's solutions, and their scores of the answers."""
    settings, common = cfg.evaluators, {"dtype": cfg.dtype}
    pool = plan.stage(
        f"pool-{seed}",
        evaluators.draw,
        data=data,
        generator=made["easy"],
        levels=tasks.EASY,
        drawn=settings.drawn,
        seed=seed,
        **common,
    )
    labels = plan.stage(
        f"labels-{seed}",
        evaluators.label,
        pool=pool,
        world=cfg.miniature.world,
        seed=seed,
    )
    starts = {kind: ("easy", kind) for kind in settings.kinds}
    if "large" in made:
        starts["large"] = ("large", "oprm")
    for name, (start, kind) in starts.items():
        judge = judges[f"{name} {seed}"] = plan.stage(
            f"{name}-{seed}" if name != "large" else f"oprm-large-{seed}",
            evaluators.train_evaluator,
            labels=labels,
            start=made[start],
            kind=kind,
            training=settings.training,
            seed=seed,
            **common,
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


def _policies(plan, cfg, template, data, bases, made, prm, seed, trained):
    """Rounds of every way to train the easy generator further."""
    settings, easy = cfg.policies, made["easy"]
    common = {"data": data, "dtype": cfg.dtype}

    def add(name, stages):
        trained.setdefault(name, []).append(stages)

    for name, generator in (("full", made["full"]), ("sft", easy)):
        stage = plan.stage(
            f"greedy-{name}-{seed}",
            policies.measured,
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
            policy=rounds[-1],
            base=bases["small"],
            levels=tasks.EASY,
            rest=settings.rest,
            training=cfg.sft,
            template=template,
            seed=seed,
            number=number,
            **common,
        )
        rounds.append(stage)
    add("rest", rounds[1:])
    rounds = [easy]
    for number in range(1, settings.dpo.rounds + 1):
        stage = plan.stage(
            f"dpo-{number}-{seed}",
            policies.dpo_round,
            policy=rounds[-1],
            evaluator=prm,
            rounds=settings.dpo,
            seed=seed,
            number=number,
            **common,
        )
        rounds.append(stage)
    add("dpo", rounds[1:])
    for name, (questions, known, process, kl_coef, faithful) in PPO.items():
        stage = plan.stage(
            f"{name}-{seed}",
            policies.ppo_run,
            policy=easy,
            evaluator=prm,
            process=process,
            questions=questions,
            answers=known,
            runs=settings.ppo,
            kl_coef=kl_coef,
            faithful=faithful,
            seed=seed,
            **common,
        )
        add(name, [stage])
