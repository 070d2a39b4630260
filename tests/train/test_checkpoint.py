"""What is restored is what was saved, bit by bit, or an error says what is wrong."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_run

from models.errors import CheckpointError
from train.checkpoint import Checkpoints, verify
from train.optim import OptimizerConfig, make_optimizer
from train.state import abstract_state, init_state
from train.step import make_train_step


@functools.cache
def fresh_state(kind="adamw"):
    params = tiny_run.params()
    return init_state(params, make_optimizer(OptimizerConfig(kind=kind), 10, params))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoint of step 3, and its state."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder) as store:
        store.save(3, fresh_state(), {"note": "x", "eval": {"eval/loss": 1.5}})
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def restore(folder, step=3, like=None):
    with Checkpoints(folder) as store:
        return store.restore(step, like or abstract_state(fresh_state()))


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_a_restored_state_is_the_saved_one(kind, tmp_path):
    state = fresh_state(kind)
    with Checkpoints(tmp_path / "c") as store:
        store.save(7, state, {"eval": {}, "cursor": [1, 0.1]})
        assert store.latest() is None or store.latest() == 7  # in the background
        store.wait()
        assert store.latest() == 7 and store.meta(7)["cursor"] == [1, 0.1]
        restored = store.restore(7, abstract_state(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert tiny_run.same_bits(restored, state)


def test_a_save_is_of_the_state_at_its_call_though_the_next_step_consumes_it(tmp_path):
    # The arrays are large enough that writing them outlasts the next steps.
    params = {"kernel": jnp.zeros((1500, 1500))}
    cfg = OptimizerConfig(lr=1.0, schedule="constant")
    optimizer = make_optimizer(cfg, 10, params)

    def loss(params, batch):
        from train.losses import Loss

        return Loss(jnp.sum(params["kernel"] * batch), jnp.float32(1))

    state = init_state(params, optimizer)
    step = make_train_step(loss, optimizer, state=state)
    expected = {}
    with Checkpoints(tmp_path / "c", keep_last=9) as store:
        for i in range(1, 4):
            state, _ = step(state, jnp.float32(1))
            expected[i] = float(state.params["kernel"][0, 0])
            store.save(i, state, {})
        like = abstract_state(state)
        state, _ = step(state, jnp.float32(1))
        store.wait()
        for i, value in expected.items():
            kernel = store.restore(i, like).params["kernel"]
            assert (np.asarray(kernel) == value).all()


def files_of(folder):
    return sorted(p for p in (folder / "00000003").rglob("*") if p.is_file())


def test_every_truncated_or_changed_or_missing_file_is_noticed(copy):
    originals = {path: path.read_bytes() for path in files_of(copy)}
    assert len(originals) > 8
    for path, data in originals.items():
        if path.name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
            continue  # Orbax's own marks: tested below
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        for damage in (data[: len(data) // 2], b"", bytes(flipped), None):
            if damage == data:
                continue
            path.unlink() if damage is None else path.write_bytes(damage)
            with pytest.raises(CheckpointError) as error:
                restore(copy)
            assert str(path.parent) in str(error.value) or "manifest" in str(
                error.value
            )
            path.write_bytes(data)
    assert tiny_run.same_bits(restore(copy), fresh_state())


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
def test_without_the_marks_of_the_writer_a_restore_is_right_or_an_error(copy, name):
    path = copy / "00000003" / name
    if path.exists():
        path.unlink()
    try:
        restored = restore(copy)
    except CheckpointError:
        return
    assert tiny_run.same_bits(restored, fresh_state())


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: (folder / "model.safetensors").write_text("x"),
        lambda folder: (folder / "10").mkdir(),
        lambda folder: (folder / "step_00000010").mkdir(),
        lambda folder: (folder / "00000010").write_text("a file"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        Checkpoints(tmp_path).steps()


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as other:
        other.save(tmp_path / "00000010", {"params": jnp.ones(3)})
    store = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="00000010: not a checkpoint"):
        store.meta(store.latest())
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        verify(tmp_path / "00000010")


def test_another_shape_or_dtype_or_tree_is_named(saved):
    def reshape(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = (*x.shape[:-1], 7) if name == "params/lm_head/kernel" else x.shape
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=x.sharding)

    like = abstract_state(fresh_state())
    with pytest.raises(CheckpointError, match=r"params/lm_head/kernel: expected .*7\]"):
        restore(saved, like=jax.tree_util.tree_map_with_path(reshape, like))
    half = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding),
        like.params,
    )
    with pytest.raises(CheckpointError, match="expected bfloat16.*has float32"):
        restore(saved, like=like._replace(params=half))
    params = {**like.params, "value_head": like.params["lm_head"]}
    with pytest.raises(CheckpointError, match="lacks params/value_head/kernel"):
        restore(saved, like=like._replace(params=params))
    with pytest.raises(CheckpointError, match="unexpected opt_state/"):
        restore(saved, like=like._replace(opt_state=()))


def test_the_last_n_and_the_best_are_kept(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: None, 6: 1.0}
    state = {"x": jnp.ones(2)}
    with Checkpoints(tmp_path / "c", keep_last=2, best="eval/loss") as store:
        for step, value in losses.items():
            store.save(
                step, state, {"eval": {} if value is None else {"eval/loss": value}}
            )
    store = Checkpoints(tmp_path / "c", keep_last=2, best="eval/loss")
    assert store.steps() == [2, 5, 6]
    assert store.best_step() == 2  # the earlier of two that are equal
    assert {p.name for p in (tmp_path / "c").iterdir()} == {
        f"{step:08d}" for step in (2, 5, 6)
    }


def test_what_a_killed_process_left_is_ignored_and_then_removed(copy):
    partial = copy / "00000004.orbax-checkpoint-tmp"
    (partial / "state").mkdir(parents=True)
    (copy / "00000001.deleted").mkdir()
    assert Checkpoints(copy).steps() == [3]
    with Checkpoints(copy) as store:
        store.save(4, fresh_state(), {})
    assert {p.name for p in copy.iterdir()} == {"00000003", "00000004"}


def test_files_are_plain_data_never_pickles(copy):
    for path in files_of(copy):
        assert b"cbuiltins" not in path.read_bytes()
        assert path.suffix not in (".pkl", ".pickle", ".npy")
    meta = json.loads((copy / "00000003/meta/metadata").read_text())
    assert meta["note"] == "x" and meta["eval"] == {"eval/loss": 1.5}


def test_a_checkpoint_under_the_name_of_another_step_is_refused(copy):
    (copy / "00000003").rename(copy / "00000007")
    for read in (lambda: Checkpoints(copy).meta(7), lambda: restore(copy, 7)):
        with pytest.raises(CheckpointError, match="expected step 7 .* found 3"):
            read()


def test_meta_that_was_changed_is_noticed_before_it_is_used(copy):
    path = copy / "00000003/meta/metadata"
    path.write_text(path.read_text().replace('"x"', '"y"'))
    with pytest.raises(CheckpointError, match="metadata: its contents have changed"):
        Checkpoints(copy).meta(3)
