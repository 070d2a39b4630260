"""A stage runs exactly when something it depends on changed or was interrupted."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import stages
from research.stages import Plan, RunInfo, StageError
from train.errors import Preempted

CALLS = []


@dataclasses.dataclass(frozen=True)
class Knobs:
    width: int = 3
    lrs: tuple[float, ...] = (0.1, 0.2)


def make(folder, n, knobs=None):
    CALLS.append(("make", n))
    (folder / "numbers.txt").write_text(" ".join(map(str, range(n))))
    return {"n": n}


def make_otherwise(folder, n):
    return {"n": -n}


def add(folder, parts, bias=0):
    CALLS.append(("add", bias))
    for part in parts:
        assert (part.folder / "numbers.txt").exists()
    return {"total": sum(p.value["n"] for p in parts) + bias}


def finish(folder, total, run_info):
    CALLS.append(("finish",))
    return {
        "total": total.value["total"],
        "stages": [t.stage for t in run_info.timings],
    }


def plan_of(n=2, m=3, bias=0, knobs=Knobs()):
    plan = Plan()
    a = plan.stage("a", make, n=n, knobs=knobs)
    b = plan.stage("b", make, n=m)
    total = plan.stage("sum", add, parts=[a, b], bias=bias)
    plan.stage("end", finish, total=total)
    return plan


def calls(plan, workdir, **kwargs):
    CALLS.clear()
    results = stages.execute(plan, workdir, say=lambda s: None, **kwargs)
    return [c[0] for c in CALLS], results


def states(plan, workdir, **kwargs):
    return {s.handle.name: s.state for s in stages.survey(plan, workdir, **kwargs)}


def test_second_run_repeats_nothing_and_returns_the_same(tmp_path):
    first, one = calls(plan_of(), tmp_path)
    second, two = calls(plan_of(), tmp_path)
    assert first == ["make", "make", "add", "finish"] and second == []
    assert one == two
    assert one["end"].value == {"total": 5, "stages": ["a", "b", "sum"]}


def test_a_change_reruns_what_it_touches_and_nothing_else(tmp_path):
    calls(plan_of(), tmp_path)
    assert calls(plan_of(bias=1), tmp_path)[0] == ["add", "finish"]
    assert calls(plan_of(m=4), tmp_path)[0] == ["make", "add", "finish"]
    # the old versions are still there
    assert calls(plan_of(), tmp_path)[0] == []


def test_dry_run_says_which_input_changed(tmp_path):
    calls(plan_of(), tmp_path)
    reasons = {
        s.handle.name: s.reason
        for s in stages.survey(plan_of(knobs=Knobs(width=4)), tmp_path)
    }
    assert reasons["a"] == "knobs.width 3 -> 4"
    assert reasons["sum"] == "parts.0 changed"
    assert reasons["b"].startswith("took")


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x),
        max_leaves=6,
    )
)  # fmt: skip
def test_fingerprint_survives_a_json_round_trip_of_the_inputs(value):
    one, two = Plan(), Plan()
    one = one.stage("s", make, n=value)
    two = two.stage("s", make, n=json.loads(json.dumps(value)))
    assert one.fingerprint == two.fingerprint


@settings(max_examples=50, deadline=None)
@given(st.integers() | st.text(), st.integers() | st.text())
def test_different_inputs_have_different_fingerprints(x, y):
    one, two = Plan().stage("s", make, n=x), Plan().stage("s", make, n=y)
    assert (one.fingerprint == two.fingerprint) == (x == y and type(x) is type(y))


def test_version_and_function_enter_the_fingerprint(monkeypatch):
    before = Plan().stage("s", make, n=1).fingerprint
    assert Plan().stage("s", make_otherwise, n=1).fingerprint != before
    monkeypatch.setattr(make, "version", 2, raising=False)
    assert Plan().stage("s", make, n=1).fingerprint != before


def test_only_names_the_missing_dependencies(tmp_path):
    with pytest.raises(StageError, match="'sum' needs a, b"):
        calls(plan_of(), tmp_path, only=["sum"])
    assert calls(plan_of(), tmp_path, only=["a", "b"])[0] == ["make", "make"]
    ran, results = calls(plan_of(), tmp_path, only=["sum"])
    assert ran == ["add"] and "end" not in results
    with pytest.raises(StageError, match="no stage 'c'"):
        calls(plan_of(), tmp_path, only=["c"])


def test_from_redoes_a_stage_and_everything_downstream(tmp_path):
    calls(plan_of(), tmp_path)
    assert calls(plan_of(), tmp_path, redo_from="b")[0] == ["make", "add", "finish"]
    assert calls(plan_of(), tmp_path)[0] == []


def test_from_must_be_among_only(tmp_path):
    calls(plan_of(), tmp_path)
    with pytest.raises(StageError, match="--from: stage 'b' is not among .* a, sum"):
        states(plan_of(), tmp_path, only=["a", "sum"], redo_from="b")


@pytest.mark.parametrize("error", [KeyboardInterrupt, Preempted("after step 5")])
def test_an_interruption_says_which_command_continues(tmp_path, monkeypatch, error):
    def stop(folder):
        if folder.parent.name == os.environ.get("STOP"):
            raise error
        return {}

    plan = Plan()
    for name in ("early", "late"):
        plan.stage(name, stop)
    monkeypatch.setenv("STOP", "late")
    with pytest.raises(Preempted, match="the same command continues"):
        calls(plan, tmp_path)
    with pytest.raises(Preempted, match="the same command without --from continues"):
        calls(plan, tmp_path, redo_from="early")
    # Before the stage of --from nothing was redone yet.
    monkeypatch.setenv("STOP", "early")
    with pytest.raises(Preempted, match="the same command continues"):
        calls(plan, tmp_path / "new", redo_from="late")


def test_downstream_of_a_stage_run_again_alone_is_stale(tmp_path):
    calls(plan_of(), tmp_path)
    assert calls(plan_of(), tmp_path, only=["a"], redo_from="a")[0] == ["make"]
    assert states(plan_of(), tmp_path) == {
        "a": "cached", "b": "cached", "sum": "to run", "end": "to run"
    }  # fmt: skip


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "cut", "other"])
def test_a_damaged_result_is_an_error_that_names_it(tmp_path, damage):
    plan = plan_of()
    calls(plan, tmp_path)
    path = stages.folder_of(tmp_path, plan.handles[0]) / "result.json"
    text = path.read_text()
    if damage == "other":
        text = text.replace(plan.handles[0].fingerprint, "0" * 64)
    path.write_text({"cut": text[:-9], "other": text}.get(damage, damage))
    with pytest.raises(StageError, match=str(path)):
        calls(plan, tmp_path)


def unsteady(folder, fail, source=None):
    steps = folder / "steps.txt"
    done = len(steps.read_text()) if steps.exists() else 0
    while done < 4:
        if done == 2 and os.environ.get("FAIL"):
            raise {"crash": RuntimeError, "interrupt": KeyboardInterrupt}[fail]
        done += 1
        with open(steps, "a") as f:
            f.write(".")
        CALLS.append(("step",))
    return {"steps": done}


@pytest.mark.parametrize(
    "fail, error", [("crash", RuntimeError), ("interrupt", Preempted)]
)
def test_an_interrupted_stage_continues_in_its_folder(
    tmp_path, monkeypatch, fail, error
):
    plan = Plan()
    plan.stage("s", unsteady, fail=fail)
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(error):
        calls(plan, tmp_path)
    assert len(CALLS) == 2
    assert stages.survey(plan, tmp_path)[0].reason == "unfinished"
    monkeypatch.delenv("FAIL")
    ran, results = calls(plan, tmp_path)
    assert len(ran) == 2 and results["s"].value == {"steps": 4}


def test_unfinished_work_on_an_older_input_is_not_continued(tmp_path, monkeypatch):
    plan = Plan()
    source = plan.stage("source", make, n=1)
    plan.stage("s", unsteady, fail="crash", source=source)
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(RuntimeError):
        calls(plan, tmp_path)
    monkeypatch.delenv("FAIL")
    calls(plan, tmp_path, only=["source"], redo_from="source")
    assert len(calls(plan, tmp_path)[0]) == 4
    assert len(calls(plan, tmp_path, redo_from="s")[0]) == 4


def test_inputs_that_json_cannot_hold_are_named():
    for value in [object(), {1: 2}, float("nan"), [make]]:
        with pytest.raises(StageError, match="stage 's': input n"):
            Plan().stage("s", make, n=value)
    plan = plan_of()
    with pytest.raises(StageError, match="declared twice"):
        plan.stage("a", make, n=1)
    with pytest.raises(StageError, match="another plan"):
        Plan().stage("s", add, parts=[plan.handles[0]])
    with pytest.raises(StageError, match="input knobs.width: .* got Handle"):
        plan.stage("s", make, n=1, knobs=Knobs(width=plan.handles[0]))


def test_a_stage_that_does_not_take_its_inputs_is_refused_when_declared():
    with pytest.raises(TypeError, match="stesp"):
        Plan().stage("s", make, n=1, stesp=3)
    with pytest.raises(TypeError, match="'n'"):
        Plan().stage("s", make)


def test_a_result_that_json_cannot_hold_leaves_no_result(tmp_path):
    plan = Plan()
    plan.stage("s", lambda folder: {"x": float("inf")})
    with pytest.raises(ValueError):
        calls(plan, tmp_path)
    assert not list(tmp_path.rglob("result.json"))


SLOW = """
import sys, time
from pathlib import Path
from research.stages import Plan, execute
def slow(folder):
    print("in", flush=True)
    time.sleep(30)
    return {}
plan = Plan()
plan.stage("s", slow)
execute(plan, Path(sys.argv[1]))
"""


def test_one_process_per_folder_and_sigterm_leaves_it_usable(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    while "in" != process.stdout.readline().strip():
        time.sleep(0.01)
    with pytest.raises(StageError, match=f"in use by process {process.pid}"):
        calls(plan_of(), tmp_path)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert "Preempted: in stage 's'" in stderr
    assert calls(plan_of(), tmp_path)[0] == ["make", "make", "add", "finish"]


def test_run_info_is_no_part_of_the_fingerprint(tmp_path):
    calls(plan_of(), tmp_path, run_info=RunInfo(command="one"))
    assert calls(plan_of(), tmp_path, run_info=RunInfo(command="two"))[0] == []
