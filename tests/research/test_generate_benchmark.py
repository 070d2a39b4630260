"""The sampling benchmark: workloads as stated, the better variants compared."""

import pytest

from research.benchmarks import common, generate


def test_workloads_are_as_stated():
    """Counts of prompts, their widths, and a mean length of a quarter of the limit."""
    prefix, prompts, lengths, samples = generate.make_workload("geometric")
    assert (prefix, len(prompts), samples) == ([], 256, 1)
    assert {len(p) for p in prompts} == {16} and max(lengths) <= 64
    assert abs(sum(lengths) / 256 - 16) < 2
    assert generate.make_workload("geometric") == (prefix, prompts, lengths, samples)
    prefix, prompts, lengths, samples = generate.make_workload("prefix")
    assert (len(prefix), len(prompts), samples) == (512, 16, 16)
    assert set(lengths) == {64}


class Fake:
    """A side that takes the seconds that its variant's table says."""

    def __init__(self, seconds, missing=0):
        self.seconds, self.missing = seconds, missing

    def ask(self, workload, variant, seed, show):
        _, _, lengths, samples = generate.make_workload(workload)
        return {
            "seconds": self.seconds[variant],
            "count": sum(lengths) * samples - self.missing,
            "tokens": [[1]],
        }


def test_the_better_variants_are_compared():
    """The ratio is between the best variants, and the table shows it."""
    sides = {
        "salign": Fake({"slots 64": 1.0, "slots 128": 2.0, "slots 256": 4.0}),
        "transformers": Fake({"batch 64": 9.0, "batch 256": 3.0}),
    }
    result = generate.measure("geometric", sides, rounds=2)
    assert result["best"] == {"salign": "slots 64", "transformers": "batch 256"}
    assert result["ratio"] == pytest.approx(3.0) and result["same_tokens"]
    table = generate.table({"geometric": result})
    assert "3.00x" in table and "batch 256" in table


def test_a_side_that_skips_work_is_an_error():
    """Every useful token must have been made."""
    fast = Fake({"slots 64": 1.0}, missing=1)
    with pytest.raises(RuntimeError, match="salign made 4095 tokens, expected 4096"):
        generate.measure("equal", {"salign": fast}, rounds=1)


def test_missing_libraries_are_named(capsys):
    """Exit code 2 and the name, without a traceback."""
    with pytest.raises(SystemExit) as stopped:
        common.require("json", "no_such_library")
    assert stopped.value.code == 2
    assert "no_such_library" in capsys.readouterr().err
