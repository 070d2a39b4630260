"""Works of stages, for `research.plan`, that several chapters have in common."""

import math

from research.plan import Work
from research.training import Training
from train.commands import MeshConfig
from train.sft import SFTConfig

ALONE = MeshConfig(fsdp=1)  # of a stage without a mesh
NAMES = {"checkpoint": "", "data": ""}  # of a run's files, which no plan reads


def updates(training: Training, examples: int | None) -> int | None:
    """Updates of `training.epochs` over so many rows; None where they are not known."""
    if examples is None:
        return None
    return math.ceil(training.epochs * math.ceil(examples / training.batch_size))


def mesh_of(inputs) -> MeshConfig:
    """The devices of a stage with these inputs."""
    return inputs.get("mesh") or ALONE


def sft(model, training: Training, dtype, remat, mesh, examples) -> Work:
    """Training as `research.training.train` does it."""
    run = SFTConfig(
        **NAMES,
        length=training.length,
        batch_size=training.batch_size,
        accum=training.accum,
        dtype=dtype,
        remat=remat,
        optimizer=training.optimizer,
        mesh=mesh,
    )
    return Work(run, model, updates(training, examples))
