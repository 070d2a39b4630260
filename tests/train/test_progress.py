"""Rate and time left follow from steps and seconds; a pipe sees few lines."""

import sys

import pytest

from train.progress import Progress


@pytest.mark.parametrize(
    "total, start, step, seconds, text",
    [
        (100, 0, 50, 10, "step 50/100, 5/s, 0:10 left"),
        (100, 40, 50, 10, "step 50/100, 1/s, 0:50 left"),
        (8000, 0, 1000, 1000, "step 1000/8000, 1/s, 1:56:40 left"),
        (10, 0, 0, 5, "step 0/10, 0/s, starting"),
        (10, 0, 10, 5, "step 10/10, 2/s, 0:00 left"),
    ],
)
def test_line(total, start, step, seconds, text):
    assert Progress(total, start).line(step, seconds) == text


def test_a_pipe_gets_a_line_at_the_end_only(capsys):
    with Progress(3) as bar:
        for step in (1, 2, 3):
            bar.update(step, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("step 3/3")
    assert lines[0].endswith("loss 3")


def test_nothing_is_shown_when_not_asked(capsys):
    with Progress(1, show=False) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(4, 1) as bar:
        bar.update(4, "loss 2")
    assert "4/4" in capsys.readouterr().err
