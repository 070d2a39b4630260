"""The quickstart notebook runs from its own folder and from the root.

It is shipped without outputs; executed, every cell succeeds and accuracy rises.
"""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "research" / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_shipped_clean(notebook):
    """Valid, without outputs, one paragraph of text before every piece of code."""
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            assert max(map(len, cell.source.splitlines())) <= 88
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown" and kinds[-1] == "markdown"
    pairs = list(zip(kinds, kinds[1:], strict=False))
    assert ("code", "code") not in pairs


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, monkeypatch):
    """In its own folder, where Jupyter would run it; its files go elsewhere."""
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    before = sorted(NOTEBOOK.parent.iterdir())
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    assert sorted(NOTEBOOK.parent.iterdir()) == before
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert all(o.output_type != "error" for o in outputs)
    assert any("image/png" in o.get("data", {}) for o in outputs)
    text = "".join(o.get("text", "") for o in outputs)
    solved = re.search(r"(\d+)% solved before, (\d+)% after", text)
    assert int(solved[2]) > int(solved[1]) + 20


def test_it_finds_the_code_from_the_root(notebook, tmp_path, monkeypatch):
    """Its first cell, run where a user may have started Jupyter."""
    first = next(c.source for c in notebook.cells if c.cell_type == "code")
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for folder in (ROOT, NOTEBOOK.parent):
        monkeypatch.chdir(folder)
        names = {}
        exec(first, names)
        assert names["ROOT"] == ROOT
