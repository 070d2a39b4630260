"""The chapter as stages: a model, ways to answer with it, the report."""

import dataclasses
from typing import NamedTuple

from models.config import DType, Remat
from research.recite import answering, hinted, miniature, published
from research.recite import report as chapter_report
from research.recite.generation import Checkpoint, Mode
from research.recite.hinted import Hinted
from research.recite.miniature import Miniature
from research.recite.published import Files, PublishedTask, Source
from research.recite.settings import Methods, Task
from research.recite.thesis import SYSTEMS
from research.stages import Handle, Plan
from research.training import ModelSize, Training
from train.commands import MeshConfig
from train.settings import checked, choice, positive


@dataclasses.dataclass(frozen=True)
class Published:
    """A published checkpoint, and published questions.

    system: whose numbers in the thesis stand beside ours.
    mode, counter: see `generation.Checkpoint`.
    passages: a corpus to retrieve from; None: that of the pages that are read.
    pool, per_page: rows that exemplars are drawn from, and passages of each one's page.
    train_dtype, remat: of what is fine-tuned.
    """

    checkpoint: str
    tasks: tuple[PublishedTask, ...]
    system: str = choice(SYSTEMS)
    mode: Mode = "none"
    counter: str | None = None
    natural_questions: Files | None = None
    trivia_qa: Files | None = None
    hotpot_qa: Files | None = None
    passages: str | None = None
    pool: int = positive(1024)
    per_page: int = positive(7)
    train_dtype: DType = "bf16_compute"
    remat: Remat = "full"
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        for source in ("trivia_qa", "hotpot_qa"):
            files = getattr(self, source)
            if files is not None and files.train:
                raise ValueError(
                    f"{source}.train: expected none; its rows have no passages, or no "
                    "rationales, to show"
                )
        for task in self.tasks:
            if getattr(self, task.source) is None:
                raise ValueError(f"{task.source}: missing; expected its files")
            if not {"direct", "recite"} <= set(task.methods):
                raise ValueError(
                    f"tasks: {task.name}: methods: expected 'direct' and 'recite' "
                    "among them"
                )
            known = (*EVERY, *TWO_HOP * (task.hops == 2))
            for method in task.methods:
                if method not in known:
                    raise ValueError(
                        f"tasks: {task.name}: methods: expected some of "
                        f"{', '.join(known)}, got {method!r}"
                    )

    @property
    def files(self) -> dict[Source, Files]:
        """Of every source that a task is of."""
        return {task.source: getattr(self, task.source) for task in self.tasks}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The whole experiment: the same questions, answered in every way.

    Either a `published` model and questions, or a `miniature` of both, with `tasks`.
    hinted: how a model that recites by hints is made, of the first task's questions.
    """

    seeds: tuple[int, ...] = checked(lambda s: s >= 0, ">= 0")
    methods: Methods
    tasks: tuple[Task, ...] = ()
    miniature: Miniature | None = None
    model: ModelSize | None = None
    pretrain: Training | None = None
    tune: Training | None = None
    published: Published | None = None
    hinted: Hinted | None = None
    dtype: DType = "float32"

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {self.seeds}"
            )
        own = {name: getattr(self, name) for name in MINIATURE}
        if self.published is None:
            for name, value in own.items():
                if value is None:
                    raise ValueError(f"{name}: missing; needed without published")
        elif given := [name for name, value in own.items() if value]:
            raise ValueError(
                f"{', '.join(given)}: of a miniature, expected none beside published"
            )
        tasks = self.tasks if self.published is None else self.published.tasks
        names = [task.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"tasks: expected at least one, of different names: {names}"
            )
        if self.model is not None and self.methods.length > self.model.max_position:
            raise ValueError(
                f"methods.length: {self.methods.length} is more than the "
                f"{self.model.max_position} of model.max_position"
            )
        if self.hinted is not None and self.published is not None:
            if tasks[0].source != "natural_questions":
                raise ValueError("hinted: expected the first task of natural_questions")


MINIATURE = ("tasks", "miniature", "model", "pretrain", "tune")
# Methods of every task, then those of two hops alone.
EVERY = ("direct", "direct votes", "recite greedily", "recite")
TWO_HOP = ("chain of thought", "first recitation")
CONTEXTS = ("gold", "retrieved", "shuffled")


class Ways(NamedTuple):
    """How a task's questions are answered: names of methods, and where contexts are."""

    task: Task
    settings: Methods
    methods: tuple[str, ...]
    contexts: tuple[str, ...]
    robust: bool


class Ground(NamedTuple):
    """What the answers of a seed stand on.

    placed: arguments of stages that hold a model; a miniature takes one device.
    trained: arguments of those that train, beside.
    """

    data: Handle
    model: Handle | Checkpoint
    ways: list[Ways]
    placed: dict[str, MeshConfig]
    trained: dict[str, str]


def experiment(plan: Plan, cfg: Settings) -> None:
    """Declares the stages; those of a seed are named `<what>-<task>-<seed>`.

    In a miniature a seed is a world of its own, a model, exemplars and all that is
    drawn; of published questions and models, exemplars and what is drawn.
    """
    made: dict[str, Handle] = {}
    data = None if cfg.published is None else _published_data(plan, cfg)
    for seed in cfg.seeds:
        if data is None:
            ground = _miniature(plan, cfg, seed)
        else:
            ground = _published(cfg, data)
        made |= _answers(plan, cfg, ground, seed)
    beside, tasks = {}, cfg.tasks
    if cfg.published is not None:
        tasks = tuple(task.plain for task in cfg.published.tasks)
        titles = {t.name: published.TITLES[t.source] for t in cfg.published.tasks}
        shots = {t.name: t.shots for t in cfg.published.tasks}
        beside = {"system": cfg.published.system, "titles": titles, "shots": shots}
    plan.stage(
        "report",
        chapter_report.write_report,
        answers=made,
        tasks=tasks,
        settings=cfg.methods,
        seeds=cfg.seeds,
        **beside,
    )


def _miniature(plan: Plan, cfg: Settings, seed: int) -> Ground:
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
    ways = [
        Ways(task, cfg.methods, EVERY + TWO_HOP * (task.hops == 2), CONTEXTS, True)
        for task in cfg.tasks
    ]
    trained = {"dtype": cfg.dtype, "remat": "none"}
    return Ground(data, model, ways, {}, trained)


def _published_data(plan: Plan, cfg: Settings) -> Handle:
    given = cfg.published
    return plan.stage(
        "data",
        published.read_questions,
        files=given.files,
        wanted={task.name: task.wanted for task in given.tasks},
        passages=given.passages,
        pool=given.pool,
        per_page=given.per_page,
        seed=cfg.seeds[0],
    )


def _published(cfg: Settings, data: Handle) -> Ground:
    given = cfg.published
    ways = [
        Ways(
            task.plain,
            dataclasses.replace(cfg.methods, shots=task.shots),
            task.methods,
            task.contexts,
            task.robust,
        )
        for task in given.tasks
    ]
    model = Checkpoint(given.checkpoint, given.mode, given.counter)
    trained = {"dtype": given.train_dtype, "remat": given.remat}
    return Ground(data, model, ways, {"mesh": given.mesh}, trained)


def _answers(plan: Plan, cfg: Settings, ground: Ground, seed: int):
    """All answers of a seed by "<method> <task> <seed>"; "world <seed>" the data."""
    data, model = ground.data, ground.model
    made = {f"world {seed}": data}

    def common(ways: Ways) -> dict:
        return {
            "data": data,
            "task": ways.task,
            "settings": ways.settings,
            "dtype": cfg.dtype,
            "seed": seed,
            **ground.placed,
        }

    def add(what: str, ways: Ways, fn, **inputs) -> Handle:
        name = f"{what.replace(' ', '-')}-{ways.task.name}-{seed}"
        handle = plan.stage(name, fn, model=model, **common(ways), **inputs)
        made[f"{what} {ways.task.name} {seed}"] = handle
        return handle

    if cfg.hinted is not None:
        first = ground.ways[0]
        questions = plan.stage(
            f"questions-{seed}",
            hinted.make_questions,
            model=model,
            hinted=cfg.hinted,
            **common(first),
        )
        reciter = plan.stage(
            f"hinted-{seed}",
            hinted.learn_hints,
            data=data,
            questions=questions,
            model=model,
            hinted=cfg.hinted,
            seed=seed,
            **ground.placed,
            **ground.trained,
        )
        made |= {f"questions {seed}": questions}
        add("diversified", first, answering.diversify, reciter=reciter)
        add("hinted votes", first, answering.answer_hinted, reciter=reciter)
    for ways in ground.ways:
        for method in ways.methods:
            add(method, ways, answering.answer, method=method)
        for context in ways.contexts:
            of_context = {}
            if context == "shuffled":
                recited = made[f"recite greedily {ways.task.name} {seed}"]
                of_context = {"recited": recited}
            add(
                context,
                ways,
                answering.answer_in_context,
                context=context,
                **of_context,
            )
        if ways.robust:
            add("robust", ways, answering.robust)
    return made
