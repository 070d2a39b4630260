"""What the stages of a paper-size run read, and with what they are run; none runs."""

import importlib
import itertools

import pytest

from data.sets import prm800k
from research.easy_to_hard import chapter, experiment
from research.stages import Handle, Plan
from train.commands import MeshConfig
from train.settings import build

CONFIGS = importlib.import_module("configs.ch6_easy_to_hard")
# Who may read labels of hard problems, directly or through another stage.
SEE_ALL = {
    "data-full", "sft-full-42", "answers-full-42", "icl-full-42", "icl-hard-42",
    "greedy-full-42", "ppo-all-42", "report",
}  # fmt: skip


def declared(variant, **changes) -> dict[str, Handle]:
    """The stages of a variant by name."""
    config = CONFIGS.get_config(variant)
    config.published.checkpoint = "small"
    config.update(changes)
    del config.experiment
    plan = Plan()
    experiment.experiment(plan, build(chapter.Settings, config))
    return {handle.name: handle for handle in plan.handles}


def reached(handle: Handle) -> set[str]:
    """Names of a stage and of all that it depends on."""
    return {handle.name}.union(*map(reached, handle.dependencies))


@pytest.mark.parametrize("variant", CONFIGS.MATH)
def test_hard_labels_reach_only_who_may_see_them(variant):
    """Equality: the full data are behind these stages; easy data behind the others."""
    found = declared(variant)
    full = {name for name, handle in found.items() if "data-full" in reached(handle)}
    assert full == SEE_ALL & found.keys()
    for name in found.keys() - full - {"data-easy"}:
        assert "data-easy" in reached(found[name]), name
    if "policies" in CONFIGS.get_config(variant):
        easy = {f"{n}-42" for n in ("orm", "oprm", "ppo-easy", "ppo-free")}
        assert easy | {"ppo-faithful-42"} <= found.keys() - full


@pytest.mark.parametrize("variant", CONFIGS.MATH)
def test_models_are_split_over_all_devices_and_trained_in_float32(variant):
    """Equality: the mesh of every stage with a model; the numbers of its parameters."""
    for name, handle in declared(variant).items():
        inputs = handle.inputs
        if "dtype" in inputs:
            assert inputs["mesh"] == MeshConfig(fsdp=-1), name
            trains = "remat" in inputs
            assert inputs["dtype"] == ("bf16_compute" if trains else "bfloat16"), name
            assert inputs.get("remat", "full") == "full", name
        else:
            assert name.startswith(("data-", "labels-")) or name == "report"
        if name.startswith(("orm", "prm", "oprm")):
            assert inputs["accum"] == (4 if "34b" in variant else 2)
        if name.startswith("dpo"):
            assert inputs["accum"] == 2


def test_a_large_checkpoint_adds_stages_and_changes_none():
    """Equality: generator and mixed evaluator of the other size; at half the rate."""
    small, both = declared("paper"), declared("paper", large_checkpoint="large")
    same = {n for n in small if small[n].fingerprint == both[n].fingerprint}
    assert same == small.keys() - {"report"}
    added = both.keys() - small.keys()
    assert added == {
        "sft-large-42", "answers-large-42", "oprm-large-42", "score-easy-large-42",
        "score-large-large-42", "score-large-oprm-42",
    }  # fmt: skip
    for large, twin, start in (("sft-large", "sft-easy", "base"),
                               ("oprm-large", "oprm", "start")):  # fmt: skip
        inputs, others = (both[f"{name}-42"].inputs for name in (large, twin))
        assert (inputs[start], others[start]) == ("large", "small")
        rates = [x["training"].optimizer.lr for x in (inputs, others)]
        assert rates == [1e-5, 2e-5]
    assert not any("data-full" in reached(both[name]) for name in added)


def test_rounds_go_on_from_the_last_policy_and_rest_em_begins_at_the_base():
    """Equality: each round samples from the one before; ReST-EM trains the base."""
    found = declared("paper")
    for way, rounds in (("rest", 2), ("dpo", 5)):
        assert f"{way}-{rounds + 1}-42" not in found
        names = ["sft-easy-42", *(f"{way}-{n}-42" for n in range(1, rounds + 1))]
        for before, name in itertools.pairwise(names):
            inputs = found[name].inputs
            assert inputs["policy"].name == before
            assert inputs.get("base") == ("small" if way == "rest" else None)


@pytest.mark.parametrize("variant", CONFIGS.MATH)
def test_one_odd_row_does_not_end_a_run_of_days(variant):
    """Equality: rows of published files that cannot be read are counted."""
    for name in ("data-easy", "data-full"):
        assert declared(variant)[name].inputs["task"].on_bad_row == "skip"


def test_the_faithful_variant_has_the_original_rules():
    """Equality with what the reader of PRM800K calls original."""
    task = declared("paper_faithful")["data-easy"].inputs["task"]
    assert task.prm800k_rules == prm800k.original()
    assert task.keep_validation and task.select_on == "all"


@pytest.mark.parametrize("name", ["mesh", "large_checkpoint"])
def test_a_miniature_has_no_settings_of_published_files(name):
    """The message names the setting."""
    config = CONFIGS.get_config("demo")
    del config.experiment, config.jobs
    config[name] = {"data": 2} if name == "mesh" else "folder"
    with pytest.raises(ValueError, match=f"{name}: expected with published only"):
        build(chapter.Settings, config)
