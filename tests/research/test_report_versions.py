"""Every chapter's page is written again when its code has changed."""

import importlib
from pathlib import Path

import pytest

from research.run import declare
from research.versions import of_sources

RESEARCH = Path(__file__).parents[2] / "research"
CHAPTERS = {
    "recite": ("ch4_recite", "report"),
    "easy_to_hard": ("ch6_easy_to_hard", "report"),
    "lean_star": ("ch7_lean_star", "report"),
}


def test_no_chapter_is_left_out():
    """A chapter is a folder with an experiment."""
    found = {path.parent.name for path in RESEARCH.glob("*/experiment.py")}
    assert found == set(CHAPTERS)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_s_page_is_of_its_code(chapter):
    """Closed form: the report's version is the digest of the chapter and of research.

    That it changes with the code is shown beside chapter 6's settings.
    """
    config, variant = CHAPTERS[chapter]
    made = importlib.import_module(f"configs.{config}").get_config(variant)
    *others, last = declare(made).handles
    name, version = last.canonical["function"]
    assert name == f"research.{chapter}.report.write_report"
    assert version == of_sources(RESEARCH / chapter, RESEARCH)
    assert version not in [one.canonical["function"][1] for one in others]
