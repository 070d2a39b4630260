"""Chapter 6's settings: what cannot run is refused before anything is computed."""

import importlib

import numpy as np
import pytest

from data.tokenizers import word_tokenizer
from data.worlds import arithmetic
from research.easy_to_hard.chapter import solved_tokens
from research.easy_to_hard.icl import make_shots
from research.easy_to_hard.report import write_report
from research.run import declare
from research.versions import of_sources
from train.errors import ConfigError

CHAPTER = importlib.import_module("configs.ch6_easy_to_hard")


def changed(key, value, variant="mini"):
    config = CHAPTER.get_config(variant)
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    return config


@pytest.mark.parametrize(
    "drawn",
    [
        "sampled",
        "evaluators.drawn",
        "policies.rest.drawn",
        "policies.dpo.drawn",
        "policies.ppo.drawn",
        "coding.sampled",
    ],
)
def test_a_budget_must_fit_into_its_model(drawn):
    """Closed form: 1,024 positions less 128 for the prompt leave 896."""
    key = f"{drawn}.max_new_tokens"
    if drawn != "sampled":  # which leaves room for an exemplar, too
        assert declare(changed(key, 896)).handles
    with pytest.raises(ConfigError, match=rf"1024 is less than .* \+ {key}, 1025"):
        declare(changed(key, 897))


def test_a_larger_model_may_be_the_shorter_one():
    """Closed form: the same check, of the model that draws."""
    with pytest.raises(ConfigError, match=r"large\.max_position: 239 is less .* 240"):
        declare(changed("large.max_position", 239))
    assert declare(changed("large.max_position", 240)).handles


@pytest.mark.parametrize(
    ("key", "longest"),
    [
        ("sft.length", False),
        ("evaluators.training.length", False),
        ("policies.dpo.length", False),
        ("icl.length", True),
    ],
)
def test_a_length_must_hold_a_solved_problem(key, longest):
    """Closed form: the shortest one, and as an exemplar any; one token less fails."""
    world = declare(CHAPTER.get_config("mini")).handles[0].inputs["task"].world
    levels = arithmetic.LEVELS if longest else arithmetic.EASY
    least = solved_tokens(world, levels, longest=longest)
    assert declare(changed(key, least)).handles
    with pytest.raises(ConfigError, match=rf"config: {key}: {least - 1} tokens"):
        declare(changed(key, least - 1))


def test_solved_problems_are_as_long_as_said():
    """Invariance: of many drawn ones none is shorter or longer; both ends occur."""
    world = arithmetic.ArithmeticWorld(scale_rare=0.5, scale_common=0.5)
    tokenizer = word_tokenizer(arithmetic.vocabulary(world))
    rng, found = np.random.default_rng(0), []
    for i in range(600):
        asked = arithmetic.problem(world, 1 + i % 2, rng)
        solved = arithmetic.solution(world, asked, rng)
        shot = {"prompt": asked.text, "completion": solved}
        found.append(len(make_shots(tokenizer, [shot], 1000).ids))
    ends = [solved_tokens(world, (1, 2), longest=x) for x in (False, True)]
    assert [min(found), max(found)] == ends


@pytest.mark.parametrize("variant", ["mini", "paper"])
def test_not_all_problems_can_be_held_out(variant):
    """Closed form: some must be left to learn from."""
    keys = ["evaluators.training.held_out"]
    if variant == "paper":
        keys.append("evaluators.prm_training.held_out")
    for key in keys:
        config = changed(key, 1.0, variant)
        if variant == "paper":
            config.published.checkpoint = "x"
        with pytest.raises(ConfigError, match=rf"config: {key}: expected under 1"):
            declare(config)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_programs_need_problems_on_both_sides(share):
    """Closed form: at declaration, before a file is read."""
    config = changed("apps.held_out", share, "paper_apps")
    config.apps.checkpoint = "x"
    with pytest.raises(ConfigError, match=r"held_out: expected over 0 and under 1"):
        declare(config)


def test_a_page_s_version_changes_with_the_code(tmp_path):
    """Closed form: by the name or content of a source, and by nothing else."""
    (tmp_path / "a.py").write_text("x = 1\n")
    before = of_sources(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert of_sources(tmp_path) == before
    seen = {before}
    (tmp_path / "a.py").write_text("x = 2\n")
    seen.add(of_sources(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    seen.add(of_sources(tmp_path))
    assert len(seen) == 3
    stage = declare(CHAPTER.get_config("demo")).handles[-1]
    assert stage.canonical["function"][1] == write_report.version
