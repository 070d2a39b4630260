"""The chapter as stages: a base, two generators per seed, their answers, the report."""

from research.easy_to_hard import generators, tables, tasks
from research.easy_to_hard.settings import Settings
from research.stages import Plan

GENERATORS = {"full": None, "easy": tasks.EASY}  # levels that each is fine-tuned on


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<generator>-<seed>`.

    As in the thesis the base is given: seeds differ in fine-tuning and sampling.
    """
    if cfg.miniature is not None:
        template, seed = "plain", cfg.seeds[0]
        data = plan.stage("data", tasks.make_world, task=cfg.miniature, seed=seed)
        base = plan.stage(
            "base",
            generators.pretrain,
            data=data,
            model=cfg.model,
            training=cfg.pretrain,
            dtype=cfg.dtype,
            seed=seed,
        )
    else:
        template = cfg.published.template
        data = plan.stage("data", tasks.read_published, task=cfg.published)
        base = cfg.published.checkpoint

    answers = {}
    for seed in cfg.seeds:
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
