"""The chapter as stages: a model, ways to answer with it, the report."""

import dataclasses

from models.config import DType
from research.easy_to_hard.settings import ModelSize, Training
from research.recite import answering, hinted, miniature
from research.recite import report as chapter_report
from research.recite.hinted import Hinted
from research.recite.miniature import Miniature
from research.recite.settings import Methods, Task
from research.stages import Handle, Plan
from train.settings import checked


@dataclasses.dataclass(frozen=True)
class Settings:
    """The whole experiment: the same questions, answered in every way.

    hinted: how a model that recites by hints is made, of the first task's questions.
    """

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    tasks: tuple[Task, ...]
    methods: Methods
    miniature: Miniature
    model: ModelSize
    pretrain: Training
    tune: Training
    hinted: Hinted | None = None
    dtype: DType = "float32"

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"tasks: expected at least one, of different names: {names}"
            )
        if self.methods.length > self.model.max_position:
            raise ValueError(
                f"methods.length: {self.methods.length} is more than the "
                f"{self.model.max_position} of model.max_position"
            )


# Methods of every task, then those of two hops alone.
EVERY = ("direct", "direct votes", "recite greedily", "recite")
TWO_HOP = ("chain of thought", "first recitation")
CONTEXTS = ("gold", "retrieved", "shuffled")


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<task>-<seed>`.

    A seed is a world of its own, a model, exemplars and all that is drawn.
    """
    made: dict[str, Handle] = {}
    for seed in cfg.seeds:
        data = plan.stage(
            f"world-{seed}", miniature.make_world, task=cfg.miniature, seed=seed
        )
        base = plan.stage(
            f"base-{seed}",
            miniature.pretrain,
            data=data,
            task=cfg.miniature,
            model=cfg.model,
            training=cfg.pretrain,
            dtype=cfg.dtype,
            seed=seed,
        )
        model = plan.stage(
            f"model-{seed}",
            miniature.tune,
            base=base,
            task=cfg.miniature,
            training=cfg.tune,
            dtype=cfg.dtype,
            seed=seed,
        )
        made |= _answers(plan, cfg, data, model, seed)
    plan.stage(
        "report",
        chapter_report.write_report,
        answers=made,
        tasks=cfg.tasks,
        settings=cfg.methods,
        seeds=cfg.seeds,
    )


def _answers(plan: Plan, cfg: Settings, data, model, seed: int) -> dict[str, Handle]:
    """All answers of a seed by "<method> <task> <seed>"; "world <seed>" the data."""
    common = {
        "data": data,
        "settings": cfg.methods,
        "dtype": cfg.dtype,
        "seed": seed,
    }
    made = {f"world {seed}": data}

    def add(what: str, task: Task, fn, **inputs) -> Handle:
        name = f"{what.replace(' ', '-')}-{task.name}-{seed}"
        handle = plan.stage(name, fn, task=task, **common, **inputs)
        made[f"{what} {task.name} {seed}"] = handle
        return handle

    if cfg.hinted is not None:
        first = cfg.tasks[0]
        questions = plan.stage(
            f"questions-{seed}",
            hinted.make_questions,
            model=model,
            task=first,
            hinted=cfg.hinted,
            **common,
        )
        reciter = plan.stage(
            f"hinted-{seed}",
            hinted.learn_hints,
            data=data,
            questions=questions,
            model=model,
            hinted=cfg.hinted,
            dtype=cfg.dtype,
            remat="none",
            seed=seed,
        )
        made |= {f"questions {seed}": questions}
        add("diversified", first, answering.diversify, model=model, reciter=reciter)
        add(
            "hinted votes", first, answering.answer_hinted, model=model, reciter=reciter
        )
    for task in cfg.tasks:
        for method in EVERY + TWO_HOP * (task.hops == 2):
            add(method, task, answering.answer, model=model, method=method)
        recited = made[f"recite greedily {task.name} {seed}"]
        for context in CONTEXTS:
            of_context = {"recited": recited} if context == "shuffled" else {}
            add(
                context,
                task,
                answering.answer_in_context,
                model=model,
                context=context,
                **of_context,
            )
        add("robust", task, answering.robust, model=model)
    return made
