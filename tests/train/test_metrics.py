"""A row is a weighted mean; a log that was cut and continued is as if never cut."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CheckpointError
from train.metrics import MetricsLog, is_clock, peak_flops, summarize

numbers = st.floats(-100, 100)
pairs = st.tuples(numbers, st.floats(0.1, 100))


@given(st.lists(pairs, min_size=1, max_size=5))
def test_pairs_are_summed_then_divided(values):
    row = summarize([{"loss": list(pair)} for pair in values])
    total = math.fsum(s for s, _ in values) / math.fsum(w for _, w in values)
    assert math.isclose(row["train/loss"], total, abs_tol=1e-12)


def test_numbers_are_averaged_and_the_rate_is_the_last_one():
    steps = [{"grad_norm": g, "lr": lr} for g, lr in ((1.0, 0.1), (3.0, 0.2))]
    assert summarize(steps) == {"train/grad_norm": 2.0, "train/lr": 0.2}


def test_what_has_no_weight_has_no_mean():
    assert summarize([{"loss": [0.0, 0.0], "acc": [1.0, 2.0]}]) == {"train/acc": 0.5}
    assert summarize([]) == {}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=6))
def test_numbers_come_back_from_json_as_they_were(values):
    assert json.loads(json.dumps(values)) == values


def test_a_log_continues_where_it_was_cut(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"a": 0.1})
        position = log.position()
        log.write(2, {"a": 0.2})
    with MetricsLog(tmp_path, position=position, tensorboard=False) as log:
        assert log.rows == [{"step": 1, "a": 0.1}]
        log.write(2, {"a": 0.3})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["a"] for line in lines] == [0.1, 0.3]
    with pytest.raises(CheckpointError, match="expected the 999 bytes"):
        MetricsLog(tmp_path, position=999, tensorboard=False)


def test_what_is_not_finite_is_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"eval/perplexity": math.inf, "eval/loss": 800.0})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 1, "eval/perplexity": None, "eval/loss": 800.0}


def test_tensorboard_gets_the_same_numbers_without_the_time(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(3, {"train/loss": 1.5, "time": 1e9})
        log.write(6, {"train/loss": 1.25, "time": 2e9})
    seen = []
    for record in records(next((tmp_path / "tensorboard").iterdir())):
        for value in record.summary.value:
            seen.append((record.step, value.tag, value.simple_value))
    assert seen == [(3, "train/loss", 1.5), (6, "train/loss", 1.25)]


def records(path):
    """Events of a TFRecord file: length, its checksum, data, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, at = path.read_bytes(), 0
    while at < len(data):
        n = int.from_bytes(data[at : at + 8], "little")
        yield Event.FromString(data[at + 12 : at + 12 + n])
        at += n + 16


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("cpu", None),
        ("TPU v3", None),
    ],
)
def test_the_peak_is_known_by_the_name_of_the_chip(kind, peak):
    assert peak_flops(kind) == peak


def test_what_is_of_the_clock_is_so_by_name():
    assert is_clock("time") and is_clock("perf/mfu") and not is_clock("train/loss")


@pytest.mark.parametrize("damage", [b"not json\n", b"[1]\n", b"{}\n", b"\xff\n"])
def test_a_damaged_row_is_named_and_the_file_is_left_alone(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    contents = b'{"step": 1}\n' + damage
    path.write_bytes(contents + b"later")
    with pytest.raises(CheckpointError, match="metrics.jsonl:2: damaged"):
        MetricsLog(tmp_path, position=len(contents), tensorboard=False)
    assert path.read_bytes() == contents + b"later"
