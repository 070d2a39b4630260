"""What the builder stores is what the world draws, read back without TensorFlow."""

import subprocess
import sys

from data.worlds import arithmetic
from data.worlds.arithmetic import ArithmeticWorld, SplitSizes
from data.worlds.tfds import arithmetic_builder

SIZES = SplitSizes(train=(3, 4, 5, 0, 0), development=6, test=11)


def test_stored_problems_are_the_splits_of_the_world(tmp_path):
    world = ArithmeticWorld()
    builder = arithmetic_builder(tmp_path, world, seed=2, sizes=SIZES)
    builder.download_and_prepare()
    expected = arithmetic.splits(world, 2, SIZES)._asdict()
    for name, problems in expected.items():
        source = builder.as_data_source(name)
        assert len(source) == len(problems)
        by_text = {q.text: q for q in problems}
        rows = [source[i] for i in range(len(source))]
        assert sorted(r["prompt"].decode() for r in rows) == sorted(
            q.text for q in problems
        )
        for row in rows:
            problem = by_text[row["prompt"].decode()]
            text = row["solution"].decode()
            assert row["level"] == problem.level
            assert row["answer"].decode() == problem.answer
            assert all(arithmetic.check_steps(world, problem, text))
            assert arithmetic.is_correct(problem, text)
    assert list(tmp_path.rglob("*.array_record*"))


def test_other_knobs_live_in_another_folder(tmp_path):
    folders = {
        arithmetic_builder(
            tmp_path, ArithmeticWorld(pair_seed=k), seed, SIZES
        ).data_path
        for k in (0, 1)
        for seed in (0, 1)
    }
    assert len(folders) == 4


def test_tensorflow_is_never_imported(tmp_path):
    code = (
        "import sys, data.worlds.tfds as t\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "from data.worlds.arithmetic import SplitSizes\n"
        f"b = t.arithmetic_builder({str(tmp_path)!r}, sizes=SplitSizes((2,)*5, 3, 3))\n"
        "b.download_and_prepare(); b.as_data_source('test')[0]\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
