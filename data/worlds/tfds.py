"""The arithmetic world as a TensorFlow Datasets builder, without TensorFlow.

    builder = arithmetic_builder(data_dir, ArithmeticWorld(), seed=0)
    builder.download_and_prepare()
    train = builder.as_data_source("train")      # random access, for Grain

Files are ArrayRecord. Splits: train, development, test. Features: `level` (int),
`prompt`, `answer`, `solution` (strings; one sampled right solution per problem).
"""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from data.worlds.arithmetic import (
    ArithmeticWorld,
    SplitSizes,
    solution,
    splits,
)


def arithmetic_builder(
    data_dir: str | os.PathLike,
    world: ArithmeticWorld = ArithmeticWorld(),
    seed: int = 0,
    sizes: SplitSizes = SplitSizes(),
):
    """The builder of the world's problems; other knobs live in another folder."""
    import tensorflow_datasets as tfds  # slow to import

    knobs = [dataclasses.asdict(world), seed, dataclasses.asdict(sizes)]
    digest = hashlib.sha256(json.dumps(knobs).encode()).hexdigest()[:8]
    config = tfds.core.BuilderConfig(
        name=f"mod{world.modulus}_{digest}",
        description=f"{world}, seed {seed}, {sizes}",
    )
    return _builder_class()(
        data_dir=os.fspath(data_dir),
        config=config,
        world=world,
        seed=seed,
        sizes=sizes,
        file_format="array_record",
    )


@functools.cache
def _builder_class():
    import tensorflow_datasets as tfds

    class Arithmetic(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Chains of modular equations in five levels, with solutions in steps."""

        VERSION = tfds.core.Version("1.0.0")
        # Found without importlib_resources, which TFDS needs but does not declare.
        code_path = Path(__file__)

        def __init__(self, *, world, seed, sizes, **kwargs):
            self._world, self._seed, self._sizes = world, seed, sizes
            super().__init__(**kwargs)

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "level": tfds.features.Scalar(np.int32),
                        "prompt": tfds.features.Text(),
                        "answer": tfds.features.Text(),
                        "solution": tfds.features.Text(),
                    }
                ),
                supervised_keys=("prompt", "solution"),
            )

        def _split_generators(self, dl_manager):
            parts = splits(self._world, self._seed, self._sizes)
            return {
                name: self._generate_examples(part, i)
                for i, (name, part) in enumerate(parts._asdict().items())
            }

        def _generate_examples(self, problems, split):
            rng = np.random.default_rng([self._seed, split, 1])
            for i, problem in enumerate(problems):
                yield (
                    i,
                    {
                        "level": problem.level,
                        "prompt": problem.text,
                        "answer": problem.answer,
                        "solution": solution(self._world, problem, rng),
                    },
                )

    return Arithmetic
