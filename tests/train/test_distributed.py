"""Two processes with half of the devices each are one process with all of them."""

import json
import re
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.entry import ROOT, assert_refused, call, checkpoint, write_rows
from helpers.tiny_run import exact
from helpers.two_processes import (
    HANGS_AFTER,
    LOST_AFTER,
    ends,
    start,
    start_group,
    start_slurm,
)
from safetensors.numpy import load_file

from data.batches import batches
from data.errors import DataError
from data.pairs import token_pair
from models.pretrained import from_pretrained
from train import cli, distributed, sft
from train.errors import ConfigError
from train.mesh import row_parts

STEPS = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    shape = {"n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "head_dim": 4}
    checkpoint(folder / "base", **shape)
    sums = [(f"{i}+1=", str(i + 1), str(i + 2)) for i in range(60)]
    files = {
        "rows": [{"prompt": p, "completion": right} for p, right, _ in sums],
        "pairs": [
            {"prompt": p, "chosen": right, "rejected": wrong}
            for p, right, wrong in sums
        ],
        "judged": [
            {"prompt": p, "completion": given, "label": label}
            for p, right, wrong in sums
            for given, label in ((right, 1), (wrong, 0))
        ],
    }
    for name, rows in files.items():
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


def command(inputs, workdir, run="sft", variant="default", data="rows", **changed):
    """A run on a mesh over 8 devices, as the helper's arguments."""
    settings = {
        "checkpoint": inputs / "base", "data": inputs / f"{data}.jsonl",
        "length": 32, "batch_size": 8, "accum": 2, "steps": STEPS,
        "eval_fraction": 0.2, "optimizer.lr": 1e-2, "mesh.fsdp": 4, "mesh.tensor": 2,
        "loop.log_every": 2, "loop.eval_every": 4, "loop.checkpoint_every": 2,
        "loop.tensorboard": False,
    }  # fmt: skip
    given = [f"--config.{key}={value}" for key, value in (settings | changed).items()]
    config = f"--config={ROOT / 'configs' / run}.py:{variant}"
    return "run", f"train.{run}", config, *given, f"--workdir={workdir}"


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return exact(map(json.loads, lines))


def exported(workdir):
    return jax.tree.leaves(from_pretrained(workdir / "hf").params)


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory):
    """The runs of one process and of two: {processes: folder}, and what these wrote."""
    folder = tmp_path_factory.mktemp("straight")
    alone = start(*command(inputs, folder / "1"), devices=8)
    two = start_group(*command(inputs, folder / "2"))
    outputs = ends([alone, *two])
    assert [e.code for e in outputs] == [0, 0, 0], outputs
    return {1: folder / "1", 2: folder / "2"}, outputs


def test_two_processes_train_as_one(straight):
    folders, _ = straight
    one, two = metrics(folders[1]), metrics(folders[2])
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4)
    for a, b in zip(exported(folders[1]), exported(folders[2]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


PLAIN = {"template": "plain"}
ADAPTERS = {
    "variant": "qlora", "dtype": "float32", "lora.rank": 2, "lora.dropout": 0.1,
}  # fmt: skip
UNPACKED = {"buckets": "(32,)"}
OFTEN = {"loop.checkpoint_every": 4}  # as often as is evaluated, for the best one
OTHERS = {
    "reward of outcomes": {"run": "reward", "data": "judged"} | OFTEN,
    "reward of pairs, adapters": {"run": "reward", "data": "pairs"}
    | (PLAIN | ADAPTERS | UNPACKED | OFTEN),
    "dpo": {"run": "dpo", "data": "pairs"} | PLAIN,
    "dpo, adapters": {"run": "dpo", "data": "pairs"} | PLAIN | ADAPTERS,
    "sft, adapters": ADAPTERS,
}


def tensors(workdir):
    """{(folder, name): array} of all that a run exported."""
    return {
        (folder, name): array
        for folder in ("hf", "adapter")
        for path in (workdir / folder).glob("*.safetensors")
        for name, array in load_file(path).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_two_processes_run_every_algorithm_as_one(inputs, tmp_path, case):
    """Allclose: every metric of every update and evaluation, all that is exported.

    Adapters stand over a base in 4 bits, with dropout.
    """
    one, two = tmp_path / "1", tmp_path / "2"
    alone = start(*command(inputs, one, **OTHERS[case]), devices=8)
    outputs = ends([alone, *start_group(*command(inputs, two, **OTHERS[case]))])
    assert [e.code for e in outputs] == [0, 0, 0], outputs
    rows = metrics(one), metrics(two)
    assert len(rows[0]) > STEPS // 2
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(
            list(a.values()), list(b.values()), rtol=1e-4, atol=1e-5
        )
    found, same = tensors(one), tensors(two)
    assert found.keys() == same.keys()
    folders = {"hf", "adapter"} if "adapters" in case else {"hf"}
    assert {folder for folder, _ in found} == folders
    for name, array in found.items():
        np.testing.assert_allclose(same[name], array, atol=2e-4, err_msg=str(name))


def test_process_0_alone_prints(straight):
    _, (alone, first, second) = straight

    def said(ended):
        # What gloo says of its connections: it writes these pieces and their numbers
        # one by one from several threads, so that any order and line is possible.
        pieces = (
            r"\[Gloo\] Rank | is connected to | peer ranks\. "
            r"|Expected number of connected peer ranks is : "
        )
        lines = re.sub(pieces, "", ended.out).splitlines()
        return [
            line.split(":")[0] for line in lines if not re.fullmatch(r"[\d ]*", line)
        ]

    assert said(first) == said(alone) and said(first)[-1] == "model"
    assert said(second) == []


@pytest.fixture(scope="module")
def interrupted(inputs, tmp_path_factory):
    """A run whose second process is killed, then told to stop, then left alone.

    For each: (how they ended, seconds between the ends, the steps that are saved).
    """
    workdir = tmp_path_factory.mktemp("interrupted")
    found = []
    for at in ({1: "5:SIGKILL"}, {1: "5:SIGTERM"}, {}):
        group = start_group(*command(inputs, workdir), at=at)
        group[1].wait(HANGS_AFTER + 10)
        ended = time.monotonic()
        outputs = ends(group)
        steps = sorted(p.name for p in (workdir / "checkpoints").glob("0*[0-9]"))
        found.append((outputs, time.monotonic() - ended, steps))
    return workdir, found


@pytest.mark.slow
def test_the_other_ends_when_one_is_killed(interrupted):
    (first, second), seconds, steps = interrupted[1][0]
    assert second.code == -signal.SIGKILL
    assert seconds < LOST_AFTER + 30
    # Whoever notices first: this program, or JAX's service.
    said = {
        cli.LOST: "error: process 0 of 2 lost another, see its output",
        -signal.SIGABRT: "Terminating process because the JAX distributed service",
    }
    assert said[first.code] in first.err, first
    assert steps == ["00000002"] or int(steps[-1]) == 4


@pytest.mark.slow
def test_sigterm_to_one_stops_both_after_the_same_step(interrupted):
    outputs, _, steps = interrupted[1][1]
    assert [e.code for e in outputs] == [cli.PREEMPTED] * 2, outputs
    said = [re.search(r"stopped: SIGTERM after step (\d+)", e.err)[1] for e in outputs]
    assert said[0] == said[1] == str(int(steps[-1]))


@pytest.mark.slow
def test_the_same_commands_continue_the_run(interrupted, straight):
    workdir, found = interrupted
    assert [e.code for e in found[2][0]] == [0, 0], found[2][0]
    assert metrics(workdir) == metrics(straight[0][2])
    for a, b in zip(exported(workdir), exported(straight[0][2]), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
def test_one_that_fails_alone_ends_the_other(inputs, tmp_path):
    group = start_group(*command(inputs, tmp_path), own={1: ["--config.length=4096"]})
    first, second = ends(group)
    assert second.code == cli.BAD_INPUT and "config.length: 4096" in second.err
    assert first.code not in (cli.OK, cli.BAD_INPUT), first


@pytest.fixture(scope="module")
def checked():
    """What each process of a group finds in helpers/two_processes.py."""
    outputs = ends(start_slurm("check"))
    assert [e.code for e in outputs] == [0, 0], outputs
    return [json.loads(e.out.splitlines()[-1]) for e in outputs]


@pytest.mark.parametrize(
    ("mesh", "rows"),
    [
        ("rows", 4),
        ("rows and columns", 4),
        ("columns over processes", 8),
        ("processes take turns", 4),
    ],
)
def test_the_processes_batch_is_the_whole_batch(checked, mesh, rows):
    assert [found["equal"][mesh] for found in checked] == [True, True]
    assert [found["loaded"][mesh] for found in checked] == [rows, rows]


def test_what_the_first_finds_or_raises_all_get(checked):
    first, second = (found["told"] for found in checked)
    assert first == [{"from": 0}, ["ConfigError", "lr: no", True]]
    assert second == [{"from": 0}, ["FirstFailed", "process 0: lr: no", True]]


def test_the_first_writes_what_is_spread_over_both(checked):
    assert [found["written"] for found in checked] == [[True, True], []]


def test_reference_log_probs_are_in_the_order_of_the_pairs(checked):
    for found in checked:
        assert found["reference"] < 1e-4 < found["reference_spread"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("off", None, 2),
            "--coordinator: missing; expected all of --coordinator",
        ),
        (("off", "host:1", 2), "--process-id: missing"),
        (("off", "host", 2, 0), "--coordinator: expected HOST:PORT, got 'host'"),
        (("off", "host:1", 2, 2), "--process-id: expected less than --num-processes 2"),
    ],
)
def test_flags_that_name_no_process(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        distributed.initialize(*given)


def test_a_command_refuses_them_before_anything_is_read(inputs, tmp_path):
    config = f"--config={ROOT / 'configs/sft.py'}"
    done = call(sft, config, f"--workdir={tmp_path}", "--num-processes=2")
    assert_refused(done, "--coordinator", "--distributed=auto")


def test_without_a_group_there_is_one_process():
    distributed.initialize()
    distributed.initialize("off", "host:1", 1, 0)
    assert distributed.count() == 1
    distributed.refuse_several("this")
    assert distributed.by_first(lambda: 5) == 5
    assert distributed.written_by_first({"a": 1}, lambda params: params) == {"a": 1}
    assert not distributed.is_loss(jax.errors.JaxRuntimeError("Gloo"))


def mesh_of(processes):
    """A stand-in for a mesh [data, fsdp, tensor, sequence] of devices' processes."""
    devices = [[[[SimpleNamespace(process_index=p)] for p in row] for row in processes]]
    sizes = np.shape(devices)
    shape = {"data": 1, "fsdp": sizes[1], "tensor": sizes[2], "sequence": 1}
    return SimpleNamespace(devices=np.array(devices), shape=shape)


@pytest.mark.parametrize(
    ("processes", "parts"),
    [
        ([[0], [0], [1], [1]], ((0, 1), (2, 3))),
        ([[0], [1], [0], [1]], ((0, 2), (1, 3))),
        ([[0, 1], [0, 1], [2, 3], [2, 3]], ((0, 1), (0, 1), (2, 3), (2, 3))),
        ([[0, 1]], ((0,), (0,))),
    ],
)
def test_parts_of_a_batch_on_each_process(processes, parts):
    assert row_parts(mesh_of(processes)) == parts
    pairs = [token_pair([1], [i], [0]) for i in range(2, 18)]
    whole = batches(pairs, batch_size=8, length=4, pad_id=0, seed=0)
    count = len(processes)
    for own in parts:
        rows = whole.for_parts(own, parts)[3].chosen.tokens
        expected = whole[3].chosen.tokens.reshape(count, 8 // count, -1)[list(own)]
        assert np.array_equal(rows, expected.reshape(-1, expected.shape[-1]))
    with pytest.raises(DataError, match="3 rows do not divide"):
        batches(pairs, batch_size=3, length=4, pad_id=0, seed=0).for_parts(
            (0,), ((0,), (1,))
        )


def test_processes_that_share_some_of_their_rows_are_refused():
    with pytest.raises(ConfigError, match="parts of a batch that overlap"):
        row_parts(mesh_of([[0, 0, 1], [1, 2, 2]]))
