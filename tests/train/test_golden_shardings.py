"""How everything lies on the devices is kept in tests/golden, and changes knowingly."""

import json

import pytest
from helpers.golden_shardings import COMMAND, DOCUMENTS, FOLDER, differences, document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shardings_are_those_that_are_kept(name):
    kept = json.loads((FOLDER / f"{name}.json").read_text())
    changed = differences(kept, document(*DOCUMENTS[name]))
    assert not changed, "\n".join(
        [f"{name}.json:", *changed, f"If this is meant: {COMMAND}"]
    )


def test_nothing_else_is_kept():
    assert {p.stem for p in FOLDER.glob("*")} == set(DOCUMENTS)


def test_a_difference_names_the_array():
    """Added, removed and changed names, with both texts."""
    was = {"parameters": {"a": "fsdp", "b": "whole"}, "int8": {"c": "whole"}}
    now = {"parameters": {"a": {"8x1x1": "whole"}, "b": "whole", "d": "whole"}}
    assert differences(was, now) == [
        'parameters: a: was "fsdp", is {"8x1x1": "whole"}',
        'parameters: d: was null, is "whole"',
        'int8: was {"c": "whole"}, is null',
    ]
