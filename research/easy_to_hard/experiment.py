"""The chapter as stages: base, two generators per seed, their answers, the report."""

from research.easy_to_hard import generators, tables, tasks
from research.easy_to_hard.settings import Settings
from research.stages import Plan

GENERATORS = {"full": None, "easy": tasks.EASY}  # levels that each is fine-tuned on


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; every one is named `<what>-<generator>-<seed>`."""
    if cfg.miniature is not None:
        template, seed = "plain", cfg.seeds[0]
        data = plan.stage("data", tasks.make_world, task=cfg.miniature, seed=seed)
    else:
        template = cfg.published.template
        data = plan.stage("data", tasks.read_published, task=cfg.published)

    answers = {}
    for seed in cfg.seeds:
        if cfg.miniature is not None:
            base = plan.stage(
                f"base-{seed}",
                generators.pretrain,
                data=data,
                model=cfg.model,
                training=cfg.pretrain,
                dtype=cfg.dtype,
                seed=seed,
            )
        else:
            base = cfg.published.checkpoint
        for name, levels in GENERATORS.items():
            generator = plan.stage(
                f"sft-{name}-{seed}",
                generators.finetune,
                data=data,
                base=base,
                levels=levels,
                training=cfg.sft,
                template=template,
                dtype=cfg.dtype,
                remat=cfg.remat,
                seed=seed,
            )
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
    plan.stage(
        "report",
        tables.write_report,
        answers=answers,
        seeds=cfg.seeds,
        sampled=cfg.sampled,
        miniature=cfg.miniature is not None,
    )
